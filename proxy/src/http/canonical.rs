//! The canonical request: parsed once, and the only thing that authorization, routing, the log and the upstream
//! bytes are made from. Ambiguity is refused, never repaired by guessing.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HOST};
use http::{HeaderMap, Method};

use super::framing;
use super::headers;
use super::target::{canonical_authority, canonical_path, canonical_query};
use super::{Head, Refusal};
use crate::codes::Reason;

/// A request head in its one canonical form.
#[derive(Debug, Clone)]
pub struct CanonicalRequest {
    pub method: Method,
    /// Lower-case host without trailing dot or port.
    pub host: Box<str>,
    pub port: Option<u16>,
    /// Absolute, percent-normalized (RFC 3986 §6.2.2), slashes merged, no dot segments, no query.
    pub path: Box<str>,
    /// Without `?`.
    pub query: Option<Box<str>>,
    /// End-to-end headers only: hop-by-hop, `Host` and reserved identity headers are gone.
    pub headers: HeaderMap,
}

impl CanonicalRequest {
    /// The canonical form of a head, or why it has none.
    pub fn of(head: Head) -> Result<Self, Refusal> {
        let Head {
            method,
            target,
            version: _,
            mut headers,
        } = head;
        // CONNECT would hide requests from authorization; TRACE would echo what this hop added.
        if method == Method::CONNECT || method == Method::TRACE {
            return Err(Refusal::new(
                Reason::MethodNotAllowed,
                "method that is never forwarded",
            ));
        }
        headers::check(&headers)?;
        let split = target.split()?;
        let (host, port) = authority(split.authority, &mut headers)?;
        let path = canonical_path(split.path)?;
        let query = split.query.map(canonical_query).transpose()?;
        if headers::wants_tunnel(&headers) {
            return Err(Refusal::new(Reason::UpgradeNotAllowed, "WebSocket"));
        }
        framing::content_length(&headers)?;
        headers::remove_hop_by_hop(&mut headers)?;
        headers::remove_reserved(&mut headers);
        expectation(&mut headers)?;
        Ok(Self {
            method,
            host,
            port,
            path,
            query,
            headers,
        })
    }

    /// `host` or `host:port`, as it is sent upstream.
    pub fn authority(&self) -> Bytes {
        match self.port {
            None => Bytes::copy_from_slice(self.host.as_bytes()),
            Some(port) => Bytes::from(format!("{}:{port}", self.host)),
        }
    }

    /// Path and query as they are sent upstream: what was authorized, byte for byte.
    pub fn path_and_query(&self) -> Bytes {
        match &self.query {
            None => Bytes::copy_from_slice(self.path.as_bytes()),
            Some(query) => {
                let mut text = String::with_capacity(self.path.len() + query.len() + 1);
                text.push_str(&self.path);
                text.push('?');
                text.push_str(query);
                Bytes::from(text)
            }
        }
    }

    /// The body's length where the caller declared it; the codecs hold it to that.
    pub fn content_length(&self) -> Option<u64> {
        self.headers
            .get(CONTENT_LENGTH)?
            .to_str()
            .ok()?
            .parse()
            .ok()
    }
}

/// The one authority: of the target, which a `Host` must equal, or else of the `Host` (RFC 9112 §3.2.2).
fn authority(
    target: Option<&[u8]>,
    headers: &mut HeaderMap,
) -> Result<(Box<str>, Option<u16>), Refusal> {
    let host = headers
        .remove(HOST)
        .map(|value| canonical_authority(value.as_bytes()))
        .transpose()?;
    let target = target.map(canonical_authority).transpose()?;
    match (target, host) {
        (Some(target), Some(host)) if target != host => Err(Refusal::new(
            Reason::BadHost,
            "Host differs from the target's authority",
        )),
        (Some(authority), _) | (None, Some(authority)) => Ok(authority),
        (None, None) => Err(Refusal::new(Reason::BadHost, "no Host")),
    }
}

/// `100-continue` is between two hops: the codec answers it, and nothing of it goes on (RFC 9110 §10.1.1).
fn expectation(headers: &mut HeaderMap) -> Result<(), Refusal> {
    match headers.remove(EXPECT) {
        Some(value) if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            Err(Refusal::new(Reason::BadHeader, "unknown expectation"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Version};

    use super::*;
    use crate::http::target::Target;

    fn canonical(
        target: &str,
        pairs: &[(&'static str, &'static str)],
    ) -> Result<CanonicalRequest, Reason> {
        head(
            Method::GET,
            Target::Line(Bytes::copy_from_slice(target.as_bytes())),
            pairs,
        )
    }

    fn head(
        method: Method,
        target: Target,
        pairs: &[(&'static str, &'static str)],
    ) -> Result<CanonicalRequest, Reason> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let head = Head {
            method,
            target,
            version: Version::HTTP_11,
            headers,
        };
        CanonicalRequest::of(head).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn forms_of_one_request_are_equal() {
        let origin = canonical("/a/../b?q", &[("host", "Catalog.Bookstore:8080")]).unwrap();
        let absolute = canonical("http://catalog.bookstore.:8080/b?q", &[]).unwrap();
        let both = canonical(
            "http://catalog.bookstore:8080/b?q",
            &[("host", "CATALOG.bookstore:8080")],
        )
        .unwrap();
        for request in [&origin, &absolute, &both] {
            assert_eq!(&*request.host, "catalog.bookstore");
            assert_eq!(request.authority(), "catalog.bookstore:8080");
            assert_eq!(request.path_and_query(), "/b?q");
            assert!(!request.headers.contains_key(HOST));
        }
    }

    #[test]
    fn the_host_is_one_and_required() {
        assert_eq!(canonical("/a", &[]).unwrap_err(), Reason::BadHost);
        assert_eq!(
            canonical("/a", &[("host", "a"), ("host", "a")]).unwrap_err(),
            Reason::BadHeader
        );
        assert_eq!(
            canonical("http://a/", &[("host", "b")]).unwrap_err(),
            Reason::BadHost
        );
        assert_eq!(
            canonical("http://a/", &[("host", "a:80")]).unwrap_err(),
            Reason::BadHost
        );
        let pseudo = |host: &'static str| {
            let target = Target::Pseudo {
                authority: Some("a".into()),
                path: "/".into(),
            };
            head(Method::GET, target, &[("host", host)])
        };
        assert!(pseudo("A").is_ok());
        assert_eq!(pseudo("b").unwrap_err(), Reason::BadHost);
    }

    #[test]
    fn tunnels_are_refused_and_offers_ignored() {
        let connect = head(
            Method::CONNECT,
            Target::Line("a:443".into()),
            &[("host", "a")],
        );
        assert_eq!(connect.unwrap_err(), Reason::MethodNotAllowed);
        let websocket = canonical(
            "/",
            &[
                ("host", "a"),
                ("upgrade", "websocket"),
                ("connection", "upgrade"),
            ],
        );
        assert_eq!(websocket.unwrap_err(), Reason::UpgradeNotAllowed);
        let offer = canonical(
            "/",
            &[
                ("host", "a"),
                ("upgrade", "h2c"),
                ("connection", "upgrade, http2-settings"),
            ],
        )
        .unwrap();
        assert!(offer.headers.is_empty());
    }

    #[test]
    fn methods_are_case_sensitive() {
        let lower = head(
            Method::from_bytes(b"get").unwrap(),
            Target::Line("/".into()),
            &[("host", "a")],
        )
        .unwrap();
        assert_ne!(lower.method, Method::GET);
    }

    #[test]
    fn identity_headers_are_gone_before_anything_reads_them() {
        let request = canonical(
            "/",
            &[
                ("host", "a"),
                ("X-Forwarded-Client-Cert", "URI=x"),
                ("x-garrison-a", "b"),
            ],
        )
        .unwrap();
        assert!(request.headers.is_empty());
        let underscore = canonical("/", &[("host", "a"), ("x_forwarded_client_cert", "URI=x")]);
        assert_eq!(underscore.unwrap_err(), Reason::BadHeader);
    }

    #[test]
    fn expectations_other_than_continue_are_refused() {
        assert!(
            canonical("/", &[("host", "a"), ("expect", "100-continue")])
                .unwrap()
                .headers
                .is_empty()
        );
        assert_eq!(
            canonical("/", &[("host", "a"), ("expect", "x")]).unwrap_err(),
            Reason::BadHeader
        );
    }
}
