//! The canonical request: parsed once, and the only thing that authorization, routing, the log and the upstream
//! bytes are made from (ATTACKS, rule 1). Ambiguity is refused, never repaired by guessing.

use http::{HeaderMap, Method};

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
    /// End-to-end headers only: hop-by-hop, and on inbound reserved identity headers, are gone.
    pub headers: HeaderMap,
}
