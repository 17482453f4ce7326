//! Messages as they go out: always CRLF, always exactly one framing, whatever came in.

use bytes::{BufMut, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use http::{Method, StatusCode};

use crate::http::body::Frame;

/// How a body is framed on its way out, and what it still owes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoder {
    /// No body may follow (RFC 9112 §6.3: HEAD, 204, 304).
    None,
    Length(u64),
    Chunked,
    /// To an HTTP/1.0 client: the end of the connection is the end.
    UntilClose,
}

/// The body has more or fewer bytes than its head declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthMismatch;

/// What a request's head is written from.
pub struct RequestLine<'a> {
    pub method: &'a Method,
    pub target: &'a [u8],
    pub authority: &'a [u8],
}

pub fn request_head(
    out: &mut BytesMut,
    line: &RequestLine<'_>,
    headers: &HeaderMap,
    encoder: Encoder,
) {
    out.reserve(line.target.len() + 512);
    out.put_slice(line.method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(line.target);
    out.put_slice(b" HTTP/1.1\r\nhost: ");
    out.put_slice(line.authority);
    out.put_slice(b"\r\n");
    fields(out, headers);
    framing(out, encoder);
    out.put_slice(b"\r\n");
}

pub fn response_head(
    out: &mut BytesMut,
    status: StatusCode,
    headers: &HeaderMap,
    encoder: Encoder,
    close: bool,
) {
    out.reserve(512);
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
    fields(out, headers);
    if encoder == Encoder::None {
        // What a GET would have got (RFC 9110 §9.3.2); nothing reads a body by it.
        if let Some(length) = headers.get(CONTENT_LENGTH) {
            field(out, b"content-length", length.as_bytes());
        }
    }
    framing(out, encoder);
    if close {
        out.put_slice(b"connection: close\r\n");
    }
    out.put_slice(b"\r\n");
}

/// All but the headers that are ours to write.
fn fields(out: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        if name != CONTENT_LENGTH && name != TRANSFER_ENCODING && name != CONNECTION {
            field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
}

fn field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

fn framing(out: &mut BytesMut, encoder: Encoder) {
    match encoder {
        Encoder::None | Encoder::UntilClose => {}
        Encoder::Length(length) => field(
            out,
            b"content-length",
            itoa::Buffer::new().format(length).as_bytes(),
        ),
        Encoder::Chunked => field(out, b"transfer-encoding", b"chunked"),
    }
}

impl Encoder {
    pub fn frame(&mut self, out: &mut BytesMut, frame: &Frame) -> Result<(), LengthMismatch> {
        match (&mut *self, frame) {
            (Self::None, _) | (Self::Length(_) | Self::UntilClose, Frame::Trailers(_)) => {}
            (Self::Length(left), Frame::Data(data)) => {
                *left = left.checked_sub(data.len() as u64).ok_or(LengthMismatch)?;
                out.put_slice(data);
            }
            (Self::UntilClose, Frame::Data(data)) => out.put_slice(data),
            (Self::Chunked, Frame::Data(data)) if data.is_empty() => {}
            (Self::Chunked, Frame::Data(data)) => {
                out.put_slice(format!("{:x}\r\n", data.len()).as_bytes());
                out.put_slice(data);
                out.put_slice(b"\r\n");
            }
            (Self::Chunked, Frame::Trailers(trailers)) => {
                out.put_slice(b"0\r\n");
                fields(out, trailers);
                out.put_slice(b"\r\n");
                *self = Self::None;
            }
        }
        Ok(())
    }

    /// The body is over.
    pub fn end(&mut self, out: &mut BytesMut) -> Result<(), LengthMismatch> {
        match self {
            Self::None | Self::UntilClose | Self::Length(0) => {}
            Self::Length(_) => return Err(LengthMismatch),
            Self::Chunked => out.put_slice(b"0\r\n\r\n"),
        }
        *self = Self::None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderValue;

    use super::*;

    fn data(text: &'static str) -> Frame {
        Frame::Data(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_request_goes_out_with_one_host_and_one_framing() {
        let mut headers = HeaderMap::new();
        headers.insert("content-length", HeaderValue::from_static("7"));
        headers.insert("transfer-encoding", HeaderValue::from_static("gzip"));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        let line = RequestLine {
            method: &Method::POST,
            target: b"/a?b",
            authority: b"a.b:80",
        };
        let mut out = BytesMut::new();
        request_head(&mut out, &line, &headers, Encoder::Length(5));
        assert_eq!(
            out,
            "POST /a?b HTTP/1.1\r\nhost: a.b:80\r\naccept: */*\r\ncontent-length: 5\r\n\r\n"
        );
    }

    #[test]
    fn chunks_end_with_trailers_or_without() {
        let mut out = BytesMut::new();
        let mut encoder = Encoder::Chunked;
        encoder.frame(&mut out, &data("hello")).unwrap();
        encoder.frame(&mut out, &data("")).unwrap();
        let trailers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("x"))]);
        encoder.frame(&mut out, &Frame::Trailers(trailers)).unwrap();
        encoder.end(&mut out).unwrap();
        assert_eq!(out, "5\r\nhello\r\n0\r\netag: x\r\n\r\n");
        let mut out = BytesMut::new();
        Encoder::Chunked.end(&mut out).unwrap();
        assert_eq!(out, "0\r\n\r\n");
    }

    #[test]
    fn a_body_keeps_the_length_that_was_declared() {
        let mut out = BytesMut::new();
        let mut encoder = Encoder::Length(5);
        encoder.frame(&mut out, &data("hell")).unwrap();
        assert_eq!(encoder.end(&mut out), Err(LengthMismatch));
        assert_eq!(encoder.frame(&mut out, &data("oo")), Err(LengthMismatch));
        assert_eq!(out, "hell");
    }

    #[test]
    fn an_answer_to_head_keeps_its_length_and_has_no_body() {
        let headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("5"))]);
        let mut out = BytesMut::new();
        response_head(&mut out, StatusCode::OK, &headers, Encoder::None, true);
        assert_eq!(
            out,
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\n"
        );
    }
}
