//! Where an HTTP/1 body ends (RFC 9112 §6.3). One reading is accepted; whatever another parser could read otherwise
//! is refused, although the RFC would let a proxy repair it.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Version};

use super::Refusal;
use crate::codes::Reason;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Empty,
    Length(u64),
    Chunked,
}

/// The framing that the headers of an HTTP/1 message declare, if they declare one.
pub fn declared(headers: &HeaderMap, version: Version) -> Result<Option<Framing>, Refusal> {
    let length = content_length(headers)?;
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(length.map(|length| {
            if length == 0 {
                Framing::Empty
            } else {
                Framing::Length(length)
            }
        }));
    };
    if length.is_some() {
        return Err(bad_framing("Content-Length with Transfer-Encoding"));
    }
    if version != Version::HTTP_11 {
        return Err(bad_framing("Transfer-Encoding in HTTP/1.0"));
    }
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(bad_framing("Transfer-Encoding is not exactly one chunked"));
    }
    Ok(Some(Framing::Chunked))
}

/// The value of the one `Content-Length`: digits only, so that `+5`, `0x5` and `5, 5` have no reading.
pub fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(bad_framing("Content-Length twice"));
    }
    let text = value.to_str().unwrap_or_default();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad_framing("Content-Length is not a number"));
    }
    text.parse()
        .map(Some)
        .map_err(|_| bad_framing("Content-Length is out of range"))
}

const fn bad_framing(detail: &'static str) -> Refusal {
    Refusal::new(Reason::BadFraming, detail)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn framing(pairs: &[(&'static str, &'static str)]) -> Result<Option<Framing>, Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        declared(&map, Version::HTTP_11)
    }

    #[test]
    fn one_framing_is_read() {
        assert_eq!(framing(&[]), Ok(None));
        assert_eq!(
            framing(&[("content-length", "5")]),
            Ok(Some(Framing::Length(5)))
        );
        assert_eq!(
            framing(&[("content-length", "0")]),
            Ok(Some(Framing::Empty))
        );
        assert_eq!(
            framing(&[("transfer-encoding", "Chunked")]),
            Ok(Some(Framing::Chunked))
        );
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for value in ["+5", "0x5", "5, 5", "-1", "18446744073709551616", "", "5 5"] {
            assert!(framing(&[("content-length", value)]).is_err(), "{value}");
        }
        for value in [
            "xchunked",
            "chunked, identity",
            "chunked;x",
            "gzip, chunked",
            "identity",
            "chunked,",
        ] {
            assert!(framing(&[("transfer-encoding", value)]).is_err(), "{value}");
        }
        let chunked = ("transfer-encoding", "chunked");
        assert!(framing(&[("content-length", "5"), ("content-length", "5")]).is_err());
        assert!(framing(&[chunked, chunked]).is_err());
        assert!(framing(&[("content-length", "5"), chunked]).is_err());
        let map = HeaderMap::from_iter([(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))]);
        assert!(declared(&map, Version::HTTP_10).is_err());
    }
}
