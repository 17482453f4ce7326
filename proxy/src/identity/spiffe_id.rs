//! SPIFFE IDs and trust domains, parsed strictly: what is not canonical is refused, never normalized
//! (SPIFFE-ID §2.1-2.3).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// SPIFFE-ID §2.3: IDs up to this length must be accepted; longer ones never are.
const MAX_ID_BYTES: usize = 2048;
/// SPIFFE-ID §2.3: a trust domain name is at most this long.
const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// The name of a trust domain, such as `bookstore.example`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

/// The SPIFFE ID of a workload: a trust domain and a path with at least one segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    /// The whole URI.
    uri: Arc<str>,
    trust_domain: TrustDomain,
}

/// Why a text is no SPIFFE ID of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SpiffeIdError {
    #[error("the scheme is not spiffe://")]
    Scheme,
    #[error("it is longer than {MAX_ID_BYTES} bytes")]
    TooLong,
    #[error(
        "the trust domain must be 1 to {MAX_TRUST_DOMAIN_BYTES} of the characters a-z, 0-9, '.', '-', '_'"
    )]
    TrustDomain,
    #[error("it has no path")]
    NoPath,
    #[error("the path has an empty segment")]
    EmptySegment,
    #[error("the path has a dot segment")]
    DotSegment,
    #[error("the path has a character other than a-z, A-Z, 0-9, '.', '-', '_', '/'")]
    PathCharacter,
}

impl TrustDomain {
    pub fn parse(name: &str) -> Result<Self, SpiffeIdError> {
        let known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        if name.is_empty() || name.len() > MAX_TRUST_DOMAIN_BYTES || !name.bytes().all(known) {
            return Err(SpiffeIdError::TrustDomain);
        }
        Ok(Self(name.into()))
    }

    /// Parse `spiffe://TD`, as signing certificates and bundles are named.
    pub fn parse_uri(uri: &str) -> Result<Self, SpiffeIdError> {
        Self::parse(uri.strip_prefix("spiffe://").ok_or(SpiffeIdError::Scheme)?)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ID of a service of the mesh itself, such as `ca` (`docs/seams.md`).
    pub fn mesh_service(&self, account: &str) -> Arc<str> {
        format!("spiffe://{}/ns/garrison/sa/{account}", self.0).into()
    }
}

impl SpiffeId {
    pub fn parse(uri: &str) -> Result<Self, SpiffeIdError> {
        if uri.len() > MAX_ID_BYTES {
            return Err(SpiffeIdError::TooLong);
        }
        let rest = uri.strip_prefix("spiffe://").ok_or(SpiffeIdError::Scheme)?;
        let (name, path) = match rest.split_once('/') {
            Some((name, path)) => (name, Some(path)),
            None => (rest, None),
        };
        let trust_domain = TrustDomain::parse(name)?;
        for segment in path.ok_or(SpiffeIdError::NoPath)?.split('/') {
            check_segment(segment)?;
        }
        Ok(Self {
            uri: uri.into(),
            trust_domain,
        })
    }

    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The whole URI, shared.
    pub fn uri(&self) -> Arc<str> {
        Arc::clone(&self.uri)
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
}

fn check_segment(segment: &str) -> Result<(), SpiffeIdError> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    match segment {
        "" => Err(SpiffeIdError::EmptySegment),
        "." | ".." => Err(SpiffeIdError::DotSegment),
        _ if segment.bytes().all(known) => Ok(()),
        _ => Err(SpiffeIdError::PathCharacter),
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.uri)
    }
}

impl Serialize for TrustDomain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TrustDomain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::parse(&name)
            .map_err(|error| de::Error::custom(format!("trust domain {name:?}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn canonical_ids_are_accepted() {
        for uri in [
            "spiffe://bookstore.example/ns/bookstore/sa/catalog",
            "spiffe://10.0.0.1/x",
            "spiffe://a_b-c.d/A.b-c_9/...",
        ] {
            let id = SpiffeId::parse(uri).unwrap();
            assert_eq!(id.as_str(), uri);
            assert!(uri.starts_with(&format!("spiffe://{}/", id.trust_domain())));
        }
        let longest = format!("spiffe://a/{}", "x".repeat(MAX_ID_BYTES - 11));
        assert!(SpiffeId::parse(&longest).is_ok());
        assert_eq!(
            SpiffeId::parse(&(longest + "x")),
            Err(SpiffeIdError::TooLong)
        );
    }

    #[test]
    fn anything_else_is_refused_for_its_reason() {
        use SpiffeIdError as E;
        let cases = [
            ("", E::Scheme),
            ("https://a/b", E::Scheme),
            ("SPIFFE://a/b", E::Scheme),
            ("spiffe:/a/b", E::Scheme),
            ("spiffe:///b", E::TrustDomain),
            ("spiffe://A.example/b", E::TrustDomain),
            ("spiffe://user@a/b", E::TrustDomain),
            ("spiffe://a:8080/b", E::TrustDomain),
            ("spiffe://[::1]/b", E::TrustDomain),
            ("spiffe://%61/b", E::TrustDomain),
            ("spiffe://a?q", E::TrustDomain),
            ("spiffe://a", E::NoPath),
            ("spiffe://a/", E::EmptySegment),
            ("spiffe://a//b", E::EmptySegment),
            ("spiffe://a/b/", E::EmptySegment),
            ("spiffe://a/./b", E::DotSegment),
            ("spiffe://a/b/..", E::DotSegment),
            ("spiffe://a/%2e%2e/b", E::PathCharacter),
            ("spiffe://a/b?q=1", E::PathCharacter),
            ("spiffe://a/b#f", E::PathCharacter),
            ("spiffe://a/b\0", E::PathCharacter),
            ("spiffe://a/b c", E::PathCharacter),
            ("spiffe://a/é", E::PathCharacter),
            ("spiffe://a/*", E::PathCharacter),
        ];
        for (uri, reason) in cases {
            assert_eq!(SpiffeId::parse(uri), Err(reason), "{uri}");
        }
        let name = "a".repeat(MAX_TRUST_DOMAIN_BYTES + 1);
        assert_eq!(
            SpiffeId::parse(&format!("spiffe://{name}/b")),
            Err(E::TrustDomain)
        );
    }

    proptest! {
        #[test]
        fn what_is_accepted_has_no_second_spelling(uri in "(spiffe|SPIFFE)?:?/{0,3}[a-zA-Z0-9.%_@:-]{0,6}(/[a-z.%?#\\\\é]{0,4}){0,4}") {
            if let Ok(id) = SpiffeId::parse(&uri) {
                prop_assert_eq!(id.as_str(), uri.as_str());
                let path = uri.strip_prefix(&format!("spiffe://{}/", id.trust_domain()));
                prop_assert!(path.is_some_and(|path| path.split('/').all(|s| !matches!(s, "" | "." | ".."))));
                prop_assert!(!uri.contains(['%', '?', '#', '@', '\\']));
            }
        }

        #[test]
        fn no_text_panics(uri in "\\PC*") {
            let _ = SpiffeId::parse(&uri);
        }
    }
}
