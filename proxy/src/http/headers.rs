//! Header hygiene: which headers end at this hop, which are ours alone to set, and which may stand once only.

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};

use super::Refusal;
use crate::codes::Reason;

pub const MAX_HEADERS: usize = 100;
/// Of all names and values together, decoded.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;

pub static XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
pub static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub static X_EXPECTED_TIMEOUT: HeaderName =
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
pub static X_ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
pub static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Headers of which a second value would let two readers choose differently (RFC 9110 §5.3: no list syntax).
static SINGLETONS: [HeaderName; 16] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::AUTHORIZATION,
    header::USER_AGENT,
    header::REFERER,
    header::ORIGIN,
    header::FROM,
    header::RANGE,
    header::EXPECT,
    header::IF_MODIFIED_SINCE,
    header::MAX_FORWARDS,
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms"),
];

/// Refuse heads that are too large, or that a server behind could read as other headers than we checked.
pub fn check(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.len() > MAX_HEADERS {
        return Err(Refusal::new(
            Reason::HeadersTooLarge,
            "more than 100 headers",
        ));
    }
    let mut bytes = 0;
    for (name, value) in headers {
        bytes += name.as_str().len() + value.len();
        if name.as_str().contains('_') {
            return Err(Refusal::new(
                Reason::BadHeader,
                "underscore in a header's name",
            ));
        }
    }
    if bytes > MAX_HEADER_BYTES {
        return Err(Refusal::new(
            Reason::HeadersTooLarge,
            "headers exceed 64 KiB",
        ));
    }
    let has_duplicates = headers.len() != headers.keys_len();
    if has_duplicates
        && SINGLETONS
            .iter()
            .any(|name| headers.get_all(name).iter().nth(1).is_some())
    {
        return Err(Refusal::new(
            Reason::BadHeader,
            "a header that may stand once stands twice",
        ));
    }
    Ok(())
}

/// Remove what ends at this hop (RFC 9110 §7.6.1): the headers named in `Connection`, and those known to. `te:
/// trailers` stays, as gRPC needs it end to end.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) -> Result<(), Refusal> {
    if headers.contains_key(header::CONNECTION) {
        for name in named_in_connection(headers)? {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in [
        &header::UPGRADE,
        &header::TRANSFER_ENCODING,
        &header::PROXY_AUTHENTICATE,
        &header::PROXY_AUTHORIZATION,
    ] {
        headers.remove(name);
    }
    for name in [&KEEP_ALIVE, &PROXY_CONNECTION, &HTTP2_SETTINGS] {
        headers.remove(name);
    }
    if let Entry::Occupied(mut te) = headers.entry(header::TE) {
        if te.iter().any(accepts_trailers) {
            te.insert(HeaderValue::from_static("trailers"));
        } else {
            te.remove();
        }
    }
    Ok(())
}

fn named_in_connection(headers: &HeaderMap) -> Result<Vec<HeaderName>, Refusal> {
    const BAD: Refusal = Refusal::new(
        Reason::BadHeader,
        "Connection is not a list of header names",
    );
    let mut names = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        for token in value
            .to_str()
            .map_err(|_| BAD)?
            .split(',')
            .map(str::trim)
            .filter(|token| !token.is_empty())
        {
            let name = HeaderName::from_bytes(token.as_bytes()).map_err(|_| BAD)?;
            // Naming these would change what the message is, not how it travels.
            if name == header::HOST
                || name == header::CONTENT_LENGTH
                || name == header::TRANSFER_ENCODING
            {
                return Err(Refusal::new(
                    Reason::BadHeader,
                    "Connection names a header that is not hop-by-hop",
                ));
            }
            if name != header::TE {
                names.push(name);
            }
        }
    }
    Ok(names)
}

fn accepts_trailers(value: &HeaderValue) -> bool {
    let is_trailers = |token: &[u8]| token.trim_ascii().eq_ignore_ascii_case(b"trailers");
    value
        .as_bytes()
        .split(|&byte| byte == b',')
        .any(is_trailers)
}

/// Does the request ask for another protocol that its sender will insist on? (`h2c` is an offer only.)
pub fn wants_tunnel(headers: &HeaderMap) -> bool {
    let is_websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    headers.get_all(header::UPGRADE).iter().any(is_websocket)
}

/// Remove the headers by which proxies speak to each other, whoever set them: they are ours to add. What is left of
/// the deadline and the attempt's number are kept: they come from the caller, who may ask for less time.
pub fn remove_reserved(headers: &mut HeaderMap) {
    headers.remove(&XFCC);
    headers.remove(&X_FORWARDED_FOR);
    let is_reserved = |name: &HeaderName| {
        let text = name.as_str();
        text.starts_with("x-garrison-")
            || text.starts_with("x-envoy-")
                && *name != X_EXPECTED_TIMEOUT
                && *name != X_ATTEMPT_COUNT
    };
    let reserved: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_reserved(name))
        .cloned()
        .collect();
    for name in reserved {
        headers.remove(name);
    }
}

/// `x-forwarded-client-cert` for a verified peer. SPIFFE IDs need no quotes; anything else gets them, escaped.
pub fn client_cert(own: &str, peer: Option<&str>) -> Option<HeaderValue> {
    let mut text = String::with_capacity(own.len() + 80);
    text.push_str("By=");
    push_quoted(&mut text, own);
    if let Some(peer) = peer {
        text.push_str(";URI=");
        push_quoted(&mut text, peer);
    }
    HeaderValue::try_from(text).ok()
}

fn push_quoted(out: &mut String, value: &str) {
    if !value.contains(['"', '\\', ',', ';', '=']) {
        out.push_str(value);
        return;
    }
    out.push('"');
    for character in value.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}

/// Trailers are metadata at the end, never a second chance to set what a head says (RFC 9110 §6.5.1): framing,
/// routing, authentication and the reserved headers are dropped from them.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    const FORBIDDEN: [HeaderName; 12] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
        header::SET_COOKIE,
        header::CONNECTION,
        header::TE,
        header::TRAILER,
    ];
    for name in FORBIDDEN {
        trailers.remove(name);
    }
    trailers.remove(&X_EXPECTED_TIMEOUT);
    trailers.remove(&X_ATTEMPT_COUNT);
    remove_reserved(trailers);
    remove_underscored(trailers);
}

/// A head with such a name is refused; in a trailer it could still pass for the name with dashes.
fn remove_underscored(trailers: &mut HeaderMap) {
    let underscored: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| name.as_str().contains('_'))
        .cloned()
        .collect();
    for name in underscored {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn names(map: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn trailers_say_nothing_of_the_caller() {
        let mut map = headers(&[
            ("x-forwarded-client-cert", "URI=x"),
            ("x_forwarded_client_cert", "URI=x"),
            ("grpc-status", "0"),
        ]);
        clean_trailers(&mut map);
        assert_eq!(names(&map), ["grpc-status"]);
    }

    #[test]
    fn hop_by_hop_headers_end_here() {
        let mut map = headers(&[
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip, Trailers"),
            ("accept", "*/*"),
        ]);
        remove_hop_by_hop(&mut map).unwrap();
        assert_eq!(names(&map), ["accept", "te"]);
        assert_eq!(map["te"], "trailers");
    }

    #[test]
    fn connection_cannot_name_what_frames_the_message() {
        for named in ["host", "Content-Length", "transfer-encoding", "a b"] {
            let mut map = HeaderMap::new();
            map.insert("connection", HeaderValue::from_static(named));
            assert_eq!(
                remove_hop_by_hop(&mut map).unwrap_err().reason,
                Reason::BadHeader
            );
        }
    }

    #[test]
    fn reserved_headers_are_removed_whoever_set_them() {
        let mut map = headers(&[
            ("x-forwarded-client-cert", "URI=spiffe://evil"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-garrison-code", "1"),
            ("x-envoy-original-path", "/"),
            ("x-envoy-expected-rq-timeout-ms", "10"),
            ("x-other", "1"),
        ]);
        remove_reserved(&mut map);
        assert_eq!(names(&map), ["x-envoy-expected-rq-timeout-ms", "x-other"]);
    }

    #[test]
    fn underscores_are_refused() {
        assert!(check(&headers(&[("x-forwarded", "1")])).is_ok());
        let refusal = check(&headers(&[("x_forwarded_client_cert", "1")])).unwrap_err();
        assert_eq!(refusal.reason, Reason::BadHeader);
    }

    #[test]
    fn singletons_stand_once() {
        assert!(check(&headers(&[("accept", "a"), ("accept", "b")])).is_ok());
        let refusal =
            check(&headers(&[("authorization", "a"), ("authorization", "b")])).unwrap_err();
        assert_eq!(refusal.reason, Reason::BadHeader);
    }

    #[test]
    fn heads_are_bounded() {
        let mut map = HeaderMap::new();
        for _ in 0..MAX_HEADERS {
            map.append("accept", HeaderValue::from_static("a"));
        }
        assert!(check(&map).is_ok());
        map.append("accept", HeaderValue::from_static("a"));
        assert_eq!(check(&map).unwrap_err().reason, Reason::HeadersTooLarge);
        let mut map = HeaderMap::new();
        map.insert(
            "cookie",
            HeaderValue::try_from("a".repeat(MAX_HEADER_BYTES)).unwrap(),
        );
        assert_eq!(check(&map).unwrap_err().reason, Reason::HeadersTooLarge);
    }

    #[test]
    fn the_forwarded_certificate_cannot_be_injected_into() {
        let own = "spiffe://td/ns/a/sa/b";
        assert_eq!(
            client_cert(own, Some("spiffe://td/x")).unwrap(),
            "By=spiffe://td/ns/a/sa/b;URI=spiffe://td/x"
        );
        let quoted = client_cert(own, Some("spiffe://td/x;URI=\"y")).unwrap();
        assert_eq!(
            quoted,
            "By=spiffe://td/ns/a/sa/b;URI=\"spiffe://td/x;URI=\\\"y\""
        );
        assert!(client_cert(own, Some("a\r\nb: c")).is_none());
    }

    #[test]
    fn trailers_cannot_set_what_a_head_says() {
        let mut map = headers(&[
            ("grpc-status", "0"),
            ("content-length", "5"),
            ("authorization", "x"),
            ("x-envoy-a", "1"),
        ]);
        clean_trailers(&mut map);
        assert_eq!(names(&map), ["grpc-status"]);
    }
}
