//! Heads: found by their empty line, then taken apart.

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use thiserror::Error;

use crate::codes::Reason;
use crate::http::headers::{MAX_HEADER_BYTES, MAX_HEADERS};
use crate::http::target::{MAX_TARGET_BYTES, Target};
use crate::http::{Head, Refusal};

/// Answers may carry more than requests: a framework's cookies.
const MAX_RESPONSE_HEADERS: usize = 128;
/// Method, version and spaces.
const MAX_LINE_BYTES: usize = MAX_TARGET_BYTES + 300;
const MAX_HEAD_BYTES: usize = MAX_LINE_BYTES + MAX_HEADER_BYTES;

/// Finds the end of a head, remembering how far it has looked.
#[derive(Debug, Default)]
pub struct Scanner {
    looked: usize,
    line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scanned {
    /// Length of the head, with its empty line.
    End(usize),
    More,
    /// A line that ends in LF alone: some servers take it for an end, some do not.
    BareLf,
    TooLarge,
    LineTooLong,
}

impl Scanner {
    pub fn scan(&mut self, buffer: &[u8]) -> Scanned {
        while let Some(found) = memchr::memchr(b'\n', buffer.get(self.looked..).unwrap_or_default())
        {
            let at = self.looked + found;
            if at == 0 || buffer.get(at - 1) != Some(&b'\r') {
                return Scanned::BareLf;
            }
            let is_empty = at - 1 == self.line;
            let is_first = self.line == 0;
            if is_first && at > MAX_LINE_BYTES {
                return Scanned::LineTooLong;
            }
            self.looked = at + 1;
            self.line = at + 1;
            if is_empty {
                return Scanned::End(self.looked);
            }
        }
        self.looked = buffer.len();
        if self.line == 0 && buffer.len() > MAX_LINE_BYTES {
            Scanned::LineTooLong
        } else if buffer.len() > MAX_HEAD_BYTES {
            Scanned::TooLarge
        } else {
            Scanned::More
        }
    }
}

/// The next request head in the buffer, if it is whole.
pub fn take_request(buffer: &mut BytesMut, scanner: &mut Scanner) -> Result<Option<Head>, Refusal> {
    // An empty line before a request is what a client of long ago left over (RFC 9112 §2.2): one is skipped.
    if scanner.looked == 0 && buffer.starts_with(b"\r\n") {
        let _ = buffer.split_to(2);
    }
    let length = match scanner.scan(buffer) {
        Scanned::End(length) => length,
        Scanned::More => return Ok(None),
        Scanned::BareLf => return Err(bad_framing("line that ends in LF alone")),
        Scanned::TooLarge => {
            return Err(Refusal::new(Reason::HeadersTooLarge, "head exceeds 64 KiB"));
        }
        Scanned::LineTooLong => {
            return Err(Refusal::new(Reason::PathTooLong, "target exceeds 16 KiB"));
        }
    };
    *scanner = Scanner::default();
    parse_request(&buffer.split_to(length).freeze()).map(Some)
}

const fn bad_framing(detail: &'static str) -> Refusal {
    Refusal::new(Reason::BadFraming, detail)
}

fn parse_request(head: &Bytes) -> Result<Head, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(bad_framing("head has no end")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::new(
                Reason::HeadersTooLarge,
                "more than 100 headers",
            ));
        }
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => {
            return Err(Refusal::new(Reason::BadHeader, "malformed header"));
        }
        Err(httparse::Error::Version) if !names_http(head) => {
            return Err(Refusal::new(Reason::NotHttp, "no HTTP/1 request line"));
        }
        Err(_) => return Err(Refusal::new(Reason::BadTarget, "malformed request line")),
    }
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(bad_framing("head has no request line"));
    };
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| Refusal::new(Reason::MethodNotAllowed, "not a method"))?;
    let headers = collect(head, request.headers)
        .ok_or(Refusal::new(Reason::BadHeader, "malformed header"))?;
    Ok(Head {
        method,
        target: Target::Line(slice(head, target.as_bytes())),
        version: numbered(version),
        headers,
    })
}

fn names_http(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    memchr::memmem::find(line, b" HTTP/").is_some()
}

fn collect(head: &Bytes, parsed: &[httparse::Header<'_>]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(parsed.len() + 4);
    for header in parsed {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(slice(head, header.value)).ok()?;
        headers.append(name, value);
    }
    Some(headers)
}

/// `part` of `whole`, shared. (`slice_ref` panics on an empty part from elsewhere.)
fn slice(whole: &Bytes, part: &[u8]) -> Bytes {
    if part.is_empty() {
        Bytes::new()
    } else {
        whole.slice_ref(part)
    }
}

const fn numbered(minor: u8) -> Version {
    if minor == 0 {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    }
}

/// An answer's head.
#[derive(Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
}

/// The answer was not valid HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed answer: {0}")]
pub struct BadResponse(pub &'static str);

pub fn take_response(
    buffer: &mut BytesMut,
    scanner: &mut Scanner,
) -> Result<Option<ResponseHead>, BadResponse> {
    let length = match scanner.scan(buffer) {
        Scanned::End(length) => length,
        Scanned::More => return Ok(None),
        Scanned::BareLf => return Err(BadResponse("line that ends in LF alone")),
        Scanned::TooLarge | Scanned::LineTooLong => return Err(BadResponse("head too large")),
    };
    *scanner = Scanner::default();
    let head = buffer.split_to(length).freeze();
    let mut headers = [httparse::EMPTY_HEADER; MAX_RESPONSE_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(&head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        _ => return Err(BadResponse("malformed head")),
    }
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(BadResponse("no status"))?;
    let headers = collect(&head, response.headers).ok_or(BadResponse("malformed header"))?;
    Ok(Some(ResponseHead {
        status,
        version: numbered(response.version.unwrap_or(0)),
        headers,
    }))
}

/// Does the sender keep the connection open after this message (RFC 9112 §9.3)?
pub fn keeps_alive(version: Version, headers: &HeaderMap) -> bool {
    let mut keep_alive = version == Version::HTTP_11;
    for value in headers.get_all(CONNECTION) {
        for token in value
            .as_bytes()
            .split(|&byte| byte == b',')
            .map(<[u8]>::trim_ascii)
        {
            if token.eq_ignore_ascii_case(b"close") {
                return false;
            }
            keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    keep_alive
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(text: &str) -> Result<Option<Head>, Reason> {
        let mut buffer = BytesMut::from(text);
        take_request(&mut buffer, &mut Scanner::default()).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn a_head_is_taken_and_what_follows_is_left() {
        let mut buffer = BytesMut::from("\r\nGET /a HTTP/1.1\r\nHost: a\r\nX: \r\n\r\nPOST /b");
        let head = take_request(&mut buffer, &mut Scanner::default())
            .unwrap()
            .unwrap();
        assert_eq!((head.method, head.version), (Method::GET, Version::HTTP_11));
        assert_eq!(head.headers["host"], "a");
        assert_eq!(head.headers["x"], "");
        assert_eq!(buffer, "POST /b");
    }

    #[test]
    fn a_head_may_come_byte_by_byte() {
        let text = b"GET / HTTP/1.0\r\nHost: a\r\n\r\n";
        let (mut buffer, mut scanner) = (BytesMut::new(), Scanner::default());
        for &byte in &text[..text.len() - 1] {
            buffer.extend_from_slice(&[byte]);
            assert!(take_request(&mut buffer, &mut scanner).unwrap().is_none());
        }
        buffer.extend_from_slice(b"\n");
        assert_eq!(
            take_request(&mut buffer, &mut scanner)
                .unwrap()
                .unwrap()
                .version,
            Version::HTTP_10
        );
    }

    #[test]
    fn heads_that_parsers_read_differently_are_refused() {
        for (text, reason) in [
            ("GET / HTTP/1.1\nHost: a\n\n", Reason::BadFraming),
            (
                "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
                Reason::BadFraming,
            ),
            ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Reason::BadHeader),
            ("GET / HTTP/1.1\r\nA : b\r\n\r\n", Reason::BadHeader),
            ("GET / HTTP/1.1\r\n A: b\r\n\r\n", Reason::BadHeader),
            ("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", Reason::BadHeader),
            ("GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", Reason::BadHeader),
            ("GET  / HTTP/1.1\r\n\r\n", Reason::BadTarget),
            ("GET / HTTP/3.0\r\n\r\n", Reason::BadTarget),
            ("GET / SIP/2.0\r\n\r\n", Reason::NotHttp),
            ("GET / HTTP/2.0\r\n\r\n", Reason::BadTarget),
            ("GET /\r\n\r\n", Reason::BadTarget),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", Reason::BadFraming),
        ] {
            assert_eq!(request(text).unwrap_err(), reason, "{text:?}");
        }
    }

    #[test]
    fn heads_are_bounded() {
        let head = |headers: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(headers));
        assert!(request(&head(100)).unwrap().is_some());
        assert_eq!(request(&head(101)).unwrap_err(), Reason::HeadersTooLarge);
        let long = "a".repeat(MAX_LINE_BYTES);
        assert_eq!(
            request(&format!("GET /{long}")).unwrap_err(),
            Reason::PathTooLong
        );
        assert_eq!(
            request(&format!("GET /{long} HTTP/1.1\r\n\r\n")).unwrap_err(),
            Reason::PathTooLong
        );
        let endless = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(MAX_HEAD_BYTES));
        assert_eq!(request(&endless).unwrap_err(), Reason::HeadersTooLarge);
    }

    #[test]
    fn connections_are_kept_as_their_version_says() {
        let kept = |version, value: &'static str| {
            keeps_alive(
                version,
                &HeaderMap::from_iter([(CONNECTION, HeaderValue::from_static(value))]),
            )
        };
        assert!(
            keeps_alive(Version::HTTP_11, &HeaderMap::new()) && !kept(Version::HTTP_11, "x, Close")
        );
        assert!(
            !keeps_alive(Version::HTTP_10, &HeaderMap::new())
                && kept(Version::HTTP_10, "Keep-Alive")
        );
    }

    #[test]
    fn an_answer_without_reason_phrase_is_read() {
        let mut buffer = BytesMut::from("HTTP/1.1 204 \r\nA: b\r\n\r\nrest");
        let head = take_response(&mut buffer, &mut Scanner::default())
            .unwrap()
            .unwrap();
        assert_eq!(
            (head.status, head.headers.len()),
            (StatusCode::NO_CONTENT, 1)
        );
        let mut buffer = BytesMut::from("HTTP/1.1 2xx\r\n\r\n");
        assert!(take_response(&mut buffer, &mut Scanner::default()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(raw in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = take_request(&mut BytesMut::from(&raw[..]), &mut Scanner::default());
            let _ = take_response(&mut BytesMut::from(&raw[..]), &mut Scanner::default());
        }

        #[test]
        fn where_a_head_is_cut_does_not_matter(cut in 0_usize..59) {
            let text = "GET /a?b HTTP/1.1\r\nHost: catalog.bookstore\r\nAccept: */*\r\n\r\n";
            let (mut buffer, mut scanner) = (BytesMut::from(&text[..cut]), Scanner::default());
            prop_assert!(take_request(&mut buffer, &mut scanner).unwrap().is_none());
            buffer.extend_from_slice(&text.as_bytes()[cut..]);
            prop_assert_eq!(take_request(&mut buffer, &mut scanner).unwrap().unwrap().headers.len(), 2);
        }
    }
}
