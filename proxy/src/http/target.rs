//! The request target and the host, in their one canonical spelling (RFC 3986 §6.2.2, RFC 9112 §3.2, RFC 9113 §8.3.1).
//!
//! The rules, in order: the path is absolute; `%XX` of a character that a segment may hold as it is (pchar, RFC 3986
//! §3.3) is decoded, any other is kept with upper-case digits. That is more than the unreserved ones of §6.2.2.2: an
//! application decodes `/%40admin` to `/@admin`, so rules and routes must not tell the two apart. `%2F`, `%5C`,
//! controls and octets that are not UTF-8 are refused, encoded or raw; characters that RFC 3986 does not allow raw are
//! encoded; dot segments are resolved, one beyond the root is refused; runs of slashes become one. `;` has no meaning
//! here, but a dot segment with parameters (`..;x`), which some servers resolve, is refused. The query is no part of
//! the path and is kept byte for byte.

use bytes::Bytes;

use super::Refusal;
use crate::codes::Reason;

/// Of path and query together; servers behind have 8 KiB at least (RFC 9110 §4.1), Envoy 60 KiB for the whole head.
pub const MAX_TARGET_BYTES: usize = 16 * 1024;
/// DNS names have 253; an IPv6 literal with brackets fewer (RFC 1035 §2.3.4).
const MAX_HOST_BYTES: usize = 255;

/// Where a request asks to go, as its protocol said it.
#[derive(Debug, Clone)]
pub enum Target {
    /// HTTP/1: the request-target, whole.
    Line(Bytes),
    /// HTTP/2: `:authority` and `:path`.
    Pseudo {
        authority: Option<Bytes>,
        path: Bytes,
    },
}

/// A target taken apart, nothing decoded yet.
#[derive(Debug, PartialEq, Eq)]
pub struct Split<'a> {
    pub authority: Option<&'a [u8]>,
    pub path: &'a [u8],
    pub query: Option<&'a [u8]>,
}

impl Target {
    pub fn split(&self) -> Result<Split<'_>, Refusal> {
        match self {
            Self::Line(line) => split_line(line),
            Self::Pseudo { authority, path } => split_path(authority.as_deref(), path),
        }
    }
}

fn split_line(line: &[u8]) -> Result<Split<'_>, Refusal> {
    if line.first() == Some(&b'/') {
        return split_path(None, line);
    }
    let scheme = line
        .split_at_checked(7)
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"http://"));
    let Some((_, rest)) = scheme else {
        return Err(Refusal::new(
            Reason::BadTarget,
            "neither a path nor an http URL",
        ));
    };
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
        .unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    split_path(Some(authority), path)
}

fn split_path<'a>(authority: Option<&'a [u8]>, rest: &'a [u8]) -> Result<Split<'a>, Refusal> {
    if rest.len() > MAX_TARGET_BYTES {
        return Err(Refusal::new(
            Reason::PathTooLong,
            "path and query exceed 16 KiB",
        ));
    }
    let (path, query) = match rest.iter().position(|&byte| byte == b'?') {
        Some(at) => (rest.get(..at).unwrap_or_default(), rest.get(at + 1..)),
        None => (rest, None),
    };
    match path.first() {
        Some(b'/') => Ok(Split {
            authority,
            path,
            query,
        }),
        // An absolute URL may leave its path out (RFC 9112 §3.2.2).
        None if authority.is_some() => Ok(Split {
            authority,
            path: b"/",
            query,
        }),
        Some(b'#') => Err(Refusal::new(Reason::BadPath, "fragment in the target")),
        _ => Err(Refusal::new(
            Reason::BadTarget,
            "path does not begin with a slash",
        )),
    }
}

/// The canonical spelling of a path. Idempotent.
pub fn canonical_path(raw: &[u8]) -> Result<Box<str>, Refusal> {
    if is_canonical(raw) {
        // All ASCII: `is_canonical` says so.
        return std::str::from_utf8(raw)
            .map(Box::from)
            .map_err(|_| bad_path("not ASCII"));
    }
    let decoded = normalize_escapes(raw)?;
    Ok(resolve(&decoded)?.into_boxed_str())
}

/// Nothing to do: only plain characters, no empty or dotted segment. Takes the fast path for nearly every request;
/// a path that it does not recognize is merely looked at more closely.
fn is_canonical(raw: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in raw {
        let starts_segment = previous == b'/';
        if starts_segment && matches!(byte, b'/' | b'.') || !is_plain(byte) {
            return false;
        }
        previous = byte;
    }
    raw.first() == Some(&b'/')
}

/// pchar of RFC 3986 §3.3 without `%`, and the slash.
const fn is_plain(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'/' | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'@'
        )
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn normalize_escapes(raw: &[u8]) -> Result<String, Refusal> {
    let mut out = String::with_capacity(raw.len() + 8);
    let mut rest = raw;
    // Octets of an encoded character that is not ASCII; checked together at its end.
    let mut foreign = Vec::new();
    while let Some((&byte, after)) = rest.split_first() {
        let octet = if byte == b'%' { escaped(after)? } else { byte };
        if octet < 0x80 || byte != b'%' {
            check_utf8(&mut foreign)?;
        }
        rest = if byte == b'%' {
            after.get(2..).unwrap_or_default()
        } else {
            after
        };
        match (byte, octet) {
            (b'%', b'/') => return Err(bad_path("encoded slash")),
            (_, b'\\') => return Err(bad_path("backslash")),
            (_, 0..=0x1f | 0x7f) => return Err(bad_path("control character")),
            (b'#', _) => return Err(bad_path("fragment in the target")),
            (b' ', _) => return Err(bad_path("space")),
            (0x80.., _) => return Err(bad_path("not ASCII")),
            (b'%', 0x80..) => foreign.push(octet),
            (b'%', _) if is_plain(octet) => {
                out.push(char::from(octet));
                continue;
            }
            (b'%', _) => {}
            (_, _) if is_plain(octet) => {
                out.push(char::from(octet));
                continue;
            }
            (_, _) => {}
        }
        push_escaped(&mut out, octet);
    }
    check_utf8(&mut foreign)?;
    Ok(out)
}

const fn bad_path(detail: &'static str) -> Refusal {
    Refusal::new(Reason::BadPath, detail)
}

fn escaped(after: &[u8]) -> Result<u8, Refusal> {
    let digit = |at: usize| {
        after
            .get(at)
            .and_then(|&byte| char::from(byte).to_digit(16))
    };
    match (digit(0), digit(1)) {
        (Some(high), Some(low)) => Ok(u8::try_from(high * 16 + low).unwrap_or(0)),
        _ => Err(bad_path("broken escape")),
    }
}

fn check_utf8(octets: &mut Vec<u8>) -> Result<(), Refusal> {
    if !octets.is_empty() {
        std::str::from_utf8(octets).map_err(|_| bad_path("escaped octets are not UTF-8"))?;
        octets.clear();
    }
    Ok(())
}

fn push_escaped(out: &mut String, octet: u8) {
    let digit = |value: u32| {
        char::from_digit(value, 16)
            .unwrap_or('0')
            .to_ascii_uppercase()
    };
    out.push('%');
    out.push(digit(u32::from(octet >> 4)));
    out.push(digit(u32::from(octet & 0xf)));
}

/// Dot segments first (RFC 3986 §5.2.4), then empty ones: as Envoy does, so that both data planes mean the same path.
fn resolve(path: &str) -> Result<String, Refusal> {
    let mut segments: Vec<&str> = Vec::new();
    let mut last_is_directory = false;
    for segment in path.split('/').skip(1) {
        last_is_directory = matches!(segment, "" | "." | "..");
        match segment {
            "." => {}
            ".." => {
                segments
                    .pop()
                    .ok_or(bad_path("dot segment beyond the root"))?;
            }
            _ if matches!(segment.split(';').next(), Some("." | "..")) => {
                return Err(bad_path("dot segment with parameters"));
            }
            _ => segments.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in segments.iter().filter(|segment| !segment.is_empty()) {
        out.push('/');
        out.push_str(segment);
    }
    if last_is_directory || out.is_empty() {
        out.push('/');
    }
    Ok(out)
}

/// The query as it came, if it is printable ASCII without `#` (a fragment would hide there).
pub fn canonical_query(raw: &[u8]) -> Result<Box<str>, Refusal> {
    if !raw
        .iter()
        .all(|&byte| byte.is_ascii_graphic() && byte != b'#')
    {
        return Err(Refusal::new(Reason::BadQuery, "byte that must be encoded"));
    }
    std::str::from_utf8(raw)
        .map(Box::from)
        .map_err(|_| Refusal::new(Reason::BadQuery, "not ASCII"))
}

/// Host and port of an authority: lower case, without the root's dot, the port apart.
pub fn canonical_authority(raw: &[u8]) -> Result<(Box<str>, Option<u16>), Refusal> {
    let text = std::str::from_utf8(raw).map_err(|_| bad_host("not ASCII"))?;
    let (host, port) = if text.starts_with('[') {
        let end = text
            .find(']')
            .ok_or(bad_host("IPv6 literal without its bracket"))?
            + 1;
        let (host, rest) = text.split_at(end);
        let inside = host.trim_start_matches('[').trim_end_matches(']');
        inside
            .parse::<std::net::Ipv6Addr>()
            .map_err(|_| bad_host("not an IPv6 address"))?;
        match rest.strip_prefix(':') {
            None if rest.is_empty() => (host, None),
            None => return Err(bad_host("text after the IPv6 literal")),
            Some(port) => (host, Some(port)),
        }
    } else {
        let (host, port) = text
            .split_once(':')
            .map_or((text, None), |(host, port)| (host, Some(port)));
        let host = host.strip_suffix('.').unwrap_or(host);
        check_name(host)?;
        (host, port)
    };
    if host.len() > MAX_HOST_BYTES {
        return Err(bad_host("longer than 255 bytes"));
    }
    Ok((
        host.to_ascii_lowercase().into_boxed_str(),
        port.map(parse_port).transpose()?,
    ))
}

const fn bad_host(detail: &'static str) -> Refusal {
    Refusal::new(Reason::BadHost, detail)
}

/// Letters, digits, `-`, `_` and single dots between labels. No userinfo, no escapes, no lists.
fn check_name(host: &str) -> Result<(), Refusal> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if host.is_empty() || !host.bytes().all(is_allowed) {
        return Err(bad_host("not a host name"));
    }
    if host.starts_with('.') || host.ends_with('.') || host.contains("..") {
        return Err(bad_host("empty label"));
    }
    Ok(())
}

fn parse_port(text: &str) -> Result<u16, Refusal> {
    let digits =
        !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(bad_host("not a port")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(raw: &str) -> Result<String, Reason> {
        canonical_path(raw.as_bytes())
            .map(String::from)
            .map_err(|refusal| refusal.reason)
    }

    #[test]
    fn paths_have_one_spelling() {
        for (raw, canonical) in [
            ("/", "/"),
            ("/books/7", "/books/7"),
            ("//admin", "/admin"),
            ("/a//b///c/", "/a/b/c/"),
            ("/a/../admin", "/admin"),
            ("/a/%2e%2e/admin", "/admin"),
            ("/a/%2E./admin", "/admin"),
            ("/./admin", "/admin"),
            ("/admin/.", "/admin/"),
            ("/admin/x/..", "/admin/"),
            ("/a//../b", "/a/b"),
            ("/%61dmin", "/admin"),
            ("/a%7eb%3a", "/a~b:"),
            ("/%40admin", "/@admin"),
            ("/a%3Bb%3d%2c", "/a;b=,"),
            ("/%21%24%26%27%28%29%2A%2B", "/!$&'()*+"),
            ("/admin;x=1", "/admin;x=1"),
            ("/a.b/.well-known/..x", "/a.b/.well-known/..x"),
            ("/a{b}|c", "/a%7Bb%7D%7Cc"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/%252e%252e/x", "/%252e%252e/x"),
        ] {
            assert_eq!(path(raw).as_deref(), Ok(canonical), "{raw}");
        }
    }

    #[test]
    fn paths_with_two_meanings_are_refused() {
        for raw in [
            "/a%2Fb",
            "/a%2fb",
            "/a%5Cb",
            "/a\\b",
            "/a%00",
            "/a\0",
            "/a%0d%0aX",
            "/a\u{e9}",
            "/a%c0%af",
            "/a%e9",
            "/a%",
            "/a%4",
            "/a%zz",
            "/a#b",
            "/..",
            "/a/../../b",
            "/a/..;x/b",
            "/a/..%3Bx/b",
            "/a/.;/b",
            "/a b",
            "/a%7f",
        ] {
            assert_eq!(path(raw), Err(Reason::BadPath), "{raw:?}");
        }
    }

    #[test]
    fn targets_are_split_by_their_form() {
        let split = |line: &'static str| {
            let target = Target::Line(Bytes::from_static(line.as_bytes()));
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            target
                .split()
                .map(|split| {
                    (
                        split.authority.map(text),
                        text(split.path),
                        split.query.map(text),
                    )
                })
                .map_err(|refusal| refusal.reason)
        };
        let owned = |text: &str| Some(text.to_owned());
        assert_eq!(split("/a?b?c"), Ok((None, "/a".into(), owned("b?c"))));
        assert_eq!(
            split("HtTp://x.y:80/a"),
            Ok((owned("x.y:80"), "/a".into(), None))
        );
        assert_eq!(
            split("http://x.y?q"),
            Ok((owned("x.y"), "/".into(), owned("q")))
        );
        assert_eq!(split("https://x.y/"), Err(Reason::BadTarget));
        assert_eq!(split("*"), Err(Reason::BadTarget));
        assert_eq!(split("x.y:443"), Err(Reason::BadTarget));
        assert_eq!(split("admin"), Err(Reason::BadTarget));
        assert_eq!(split("http://x.y#/a"), Err(Reason::BadPath));
    }

    #[test]
    fn hosts_have_one_spelling() {
        let host =
            |raw: &str| canonical_authority(raw.as_bytes()).map_err(|refusal| refusal.reason);
        assert_eq!(host("SECRET.com."), Ok(("secret.com".into(), None)));
        assert_eq!(
            host("secret.com:8080"),
            Ok(("secret.com".into(), Some(8080)))
        );
        assert_eq!(
            host("secret.com.:8080"),
            Ok(("secret.com".into(), Some(8080)))
        );
        assert_eq!(host("[::1]:80"), Ok(("[::1]".into(), Some(80))));
        for raw in [
            "", ".", "a..b", ".a", "a:", "a:0", "a:65536", "a:+80", "u@a", "a,b", "a b", "a/b",
            "[::1", "[x]", "[::1]x", "a%2e", "a:80:80", "é",
        ] {
            assert_eq!(host(raw), Err(Reason::BadHost), "{raw}");
        }
    }

    #[test]
    fn a_query_is_kept_byte_for_byte_or_refused() {
        assert_eq!(
            canonical_query(b"a=%2F&b=..//\\").as_deref(),
            Ok("a=%2F&b=..//\\")
        );
        for raw in [&b"a#b"[..], b"a b", b"a\x00", b"a\xc3\xa9"] {
            assert_eq!(canonical_query(raw).unwrap_err().reason, Reason::BadQuery);
        }
    }

    #[test]
    fn a_target_of_more_than_16_kib_is_refused() {
        let line = |length: usize| Target::Line(format!("/{}", "a".repeat(length - 1)).into());
        assert!(line(MAX_TARGET_BYTES).split().is_ok());
        assert_eq!(
            line(MAX_TARGET_BYTES + 1).split().unwrap_err().reason,
            Reason::PathTooLong
        );
    }

    /// Mostly of the pieces that canonicalization is about.
    fn raw_paths() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("/".to_owned()),
            Just("..".to_owned()),
            Just(".".to_owned()),
            Just("%2e".to_owned()),
            Just("%2E%2e".to_owned()),
            Just(";".to_owned()),
            Just("%25".to_owned()),
            Just("{".to_owned()),
            Just("%c3%a9".to_owned()),
            "%[0-9a-fA-F]{2}",
            "[ -~]",
            "[a-z]{1,3}",
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn canonical_is_a_fixed_point(raw in raw_paths()) {
            if let Ok(once) = canonical_path(raw.as_bytes()) {
                prop_assert_eq!(canonical_path(once.as_bytes()), Ok(once.clone()));
            }
        }

        /// Whatever of a canonical path is escaped, the canonical path is the same.
        #[test]
        fn a_character_and_its_escape_are_one(raw in raw_paths(), escaped in prop::collection::vec(any::<bool>(), 64)) {
            if let Ok(path) = canonical_path(raw.as_bytes()) {
                let mut out = String::new();
                let mut digits = 0;
                for (byte, escape) in path.bytes().zip(escaped.into_iter().cycle()) {
                    let of_escape = byte == b'%' || digits > 0;
                    digits = if byte == b'%' { 2 } else { digits - usize::from(digits > 0) };
                    if of_escape || byte == b'/' || !escape {
                        out.push(char::from(byte));
                    } else {
                        push_escaped(&mut out, byte);
                    }
                }
                prop_assert_eq!(canonical_path(out.as_bytes()), Ok(path));
            }
        }

        #[test]
        fn canonical_has_nothing_left_to_resolve(raw in raw_paths()) {
            if let Ok(path) = canonical_path(raw.as_bytes()) {
                prop_assert!(path.starts_with('/') && path.is_ascii() && !path.contains("//"));
                prop_assert!(path.split('/').all(|segment| !matches!(segment.split(';').next(), Some("." | ".."))));
                for forbidden in ["%2F", "%2f", "%5C", "%5c", "%00", "\\", "%2E", "%2e", "#", "?"] {
                    prop_assert!(!path.contains(forbidden));
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(raw in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = canonical_path(&raw);
            let _ = canonical_query(&raw);
            let _ = canonical_authority(&raw);
            let _ = Target::Line(raw.into()).split();
        }

        #[test]
        fn the_fast_path_agrees_with_the_slow_one(raw in raw_paths()) {
            if is_canonical(raw.as_bytes()) {
                let slow = normalize_escapes(raw.as_bytes()).and_then(|path| resolve(&path));
                prop_assert_eq!(slow, Ok(raw));
            }
        }
    }
}
