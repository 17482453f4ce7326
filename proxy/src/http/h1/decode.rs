//! Bodies as they come in (RFC 9112 §6, §7).

use bytes::{Buf, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::http::body::{BodyError, Frame};
use crate::http::framing::Framing;
use crate::http::headers::clean_trailers;

/// Size and extensions of one chunk; nobody sends extensions in earnest (CVE-2025-55315).
const MAX_CHUNK_LINE: usize = 256;
const MAX_TRAILER_BYTES: usize = 8 * 1024;
const MAX_TRAILERS: usize = 32;
/// Data is handed on in pieces of at most this.
const MAX_PIECE: usize = 16 * 1024;

#[derive(Debug)]
pub enum Decoder {
    Done,
    Length(u64),
    Chunked(Chunked),
    /// An answer that ends with its connection.
    UntilClose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunked {
    /// Before a size line.
    Size,
    /// So many bytes of the chunk are left, and its CRLF.
    Data(u64),
    DataEnd,
    Trailers,
}

#[derive(Debug)]
pub enum Decoded {
    Frame(Frame),
    More,
    End,
}

impl From<Framing> for Decoder {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Empty => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunked::Size),
        }
    }
}

impl Decoder {
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    pub const fn remaining(&self) -> Option<u64> {
        match self {
            Self::Done => Some(0),
            Self::Length(length) => Some(*length),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// The next frame that is in the buffer.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, BodyError> {
        match self {
            Self::Done => Ok(Decoded::End),
            Self::Length(left) => {
                let data = take(buffer, *left);
                *left -= data.len() as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(piece(data))
            }
            Self::UntilClose => Ok(piece(take(buffer, u64::MAX))),
            Self::Chunked(state) => {
                let decoded = state.decode(buffer)?;
                if matches!(decoded, Decoded::End | Decoded::Frame(Frame::Trailers(_))) {
                    *self = Self::Done;
                }
                Ok(decoded)
            }
        }
    }

    /// The connection ended: is that the body's end, too?
    pub fn end_of_stream(&mut self) -> Result<(), BodyError> {
        match self {
            Self::Done => Ok(()),
            Self::UntilClose => {
                *self = Self::Done;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(_) => Err(BodyError::Broken),
        }
    }
}

fn take(buffer: &mut BytesMut, most: u64) -> Bytes {
    let most = usize::try_from(most).unwrap_or(usize::MAX).min(MAX_PIECE);
    buffer.split_to(buffer.len().min(most)).freeze()
}

fn piece(data: Bytes) -> Decoded {
    if data.is_empty() {
        Decoded::More
    } else {
        Decoded::Frame(Frame::Data(data))
    }
}

impl Chunked {
    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, BodyError> {
        loop {
            match self {
                Self::Size => {
                    let Some(line) = take_line(buffer, MAX_CHUNK_LINE)? else {
                        return Ok(Decoded::More);
                    };
                    *self = match chunk_size(&line)? {
                        0 => Self::Trailers,
                        size => Self::Data(size),
                    };
                }
                Self::Data(left) => {
                    let data = take(buffer, *left);
                    *left -= data.len() as u64;
                    if *left == 0 {
                        *self = Self::DataEnd;
                        // Take the end of the body along, so that it is known with the last piece.
                        self.finish_data(buffer)?;
                    }
                    return Ok(piece(data));
                }
                Self::DataEnd => {
                    if !self.finish_data(buffer)? {
                        return Ok(Decoded::More);
                    }
                }
                Self::Trailers => return trailers(buffer),
            }
        }
    }

    fn finish_data(&mut self, buffer: &mut BytesMut) -> Result<bool, BodyError> {
        match buffer.get(..2) {
            Some(b"\r\n") => {
                buffer.advance(2);
                *self = Self::Size;
                Ok(true)
            }
            None if buffer.first().is_none_or(|&byte| byte == b'\r') => Ok(false),
            Some(_) | None => Err(BodyError::Malformed),
        }
    }
}

/// A line without its CRLF, if it is whole; LF alone does not end one.
fn take_line(buffer: &mut BytesMut, most: usize) -> Result<Option<BytesMut>, BodyError> {
    let Some(at) = memchr::memchr(b'\n', buffer) else {
        return if buffer.len() > most {
            Err(BodyError::Malformed)
        } else {
            Ok(None)
        };
    };
    if at > most || at == 0 || buffer.get(at - 1) != Some(&b'\r') {
        return Err(BodyError::Malformed);
    }
    let mut line = buffer.split_to(at + 1);
    line.truncate(at - 1);
    Ok(Some(line))
}

/// Hex digits, then perhaps `;` and extensions, which are let go.
fn chunk_size(line: &[u8]) -> Result<u64, BodyError> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default();
    let is_text = |&byte: &u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    if digits.is_empty() || digits.len() > 16 || !line.iter().all(is_text) {
        return Err(BodyError::Malformed);
    }
    digits.iter().try_fold(0, |size: u64, &digit| {
        let digit = char::from(digit).to_digit(16).ok_or(BodyError::Malformed)?;
        Ok(size << 4 | u64::from(digit))
    })
}

fn trailers(buffer: &mut BytesMut) -> Result<Decoded, BodyError> {
    if buffer.starts_with(b"\r\n") {
        buffer.advance(2);
        return Ok(Decoded::End);
    }
    let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") else {
        return if buffer.len() > MAX_TRAILER_BYTES {
            Err(BodyError::Malformed)
        } else {
            Ok(Decoded::More)
        };
    };
    if end > MAX_TRAILER_BYTES {
        return Err(BodyError::Malformed);
    }
    let block = buffer.split_to(end + 4).freeze();
    if memchr::memchr_iter(b'\n', &block).any(|at| at == 0 || block.get(at - 1) != Some(&b'\r')) {
        return Err(BodyError::Malformed);
    }
    let mut parsed = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(&block, &mut parsed)
    else {
        return Err(BodyError::Malformed);
    };
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BodyError::Malformed)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| BodyError::Malformed)?;
        headers.append(name, value);
    }
    clean_trailers(&mut headers);
    Ok(Decoded::Frame(Frame::Trailers(headers)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Data, trailers and what is left.
    type Whole = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

    /// All of a body, fed in pieces of `step` bytes; and what is left after it.
    fn decode(framing: Framing, text: &[u8], step: usize) -> Result<Whole, BodyError> {
        let mut decoder = Decoder::from(framing);
        let (mut buffer, mut data, mut trailers) = (BytesMut::new(), Vec::new(), None);
        let mut pieces = text.chunks(step.max(1));
        while !decoder.is_done() {
            match decoder.decode(&mut buffer)? {
                Decoded::Frame(Frame::Data(bytes)) => data.extend_from_slice(&bytes),
                Decoded::Frame(Frame::Trailers(headers)) => trailers = Some(headers),
                Decoded::End => break,
                Decoded::More => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => decoder.end_of_stream()?,
                },
            }
        }
        let rest: Vec<u8> = pieces.flatten().copied().collect();
        Ok((data, trailers, [buffer.to_vec(), rest].concat()))
    }

    #[test]
    fn a_body_ends_where_its_framing_says() {
        let (data, _, rest) = decode(Framing::Length(5), b"helloGET", 3).unwrap();
        assert_eq!((&data[..], &rest[..]), (&b"hello"[..], &b"GET"[..]));
        let text = b"5;x=y\r\nhello\r\n0A\r\n0123456789\r\n0\r\nGrpc-Status: 0\r\nContent-Length: 9\r\n\r\nGET";
        for step in 1..text.len() {
            let (data, trailers, rest) = decode(Framing::Chunked, text, step).unwrap();
            assert_eq!(
                (&data[..], &rest[..]),
                (&b"hello0123456789"[..], &b"GET"[..])
            );
            let trailers = trailers.unwrap();
            assert_eq!(
                (trailers.len(), &trailers["grpc-status"]),
                (1, &HeaderValue::from_static("0"))
            );
        }
    }

    #[test]
    fn a_body_that_breaks_off_is_an_error() {
        assert_eq!(
            decode(Framing::Length(5), b"hell", 9).unwrap_err(),
            BodyError::Broken
        );
        assert_eq!(
            decode(Framing::Chunked, b"5\r\nhello\r\n", 9).unwrap_err(),
            BodyError::Broken
        );
    }

    #[test]
    fn chunks_that_parsers_read_differently_are_refused() {
        for text in [
            "FFFFFFFFFFFFFFFFF\r\n",
            "0x5\r\nhello\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "\r\nhello",
            "-5\r\nhello",
            "5\r\nhelloX0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "0\r\nA: b\n\r\n\r\n",
            "0\r\n A: b\r\n\r\n",
        ] {
            assert_eq!(
                decode(Framing::Chunked, text.as_bytes(), 99).unwrap_err(),
                BodyError::Malformed,
                "{text:?}"
            );
        }
        let endless = [&b"1;"[..], &[b'a'; 300]].concat();
        assert_eq!(
            decode(Framing::Chunked, &endless, 999).unwrap_err(),
            BodyError::Malformed
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(raw in prop::collection::vec(any::<u8>(), 0..100), step in 1_usize..20) {
            let _ = decode(Framing::Chunked, &raw, step);
        }
    }
}
