//! What goes to a server and what comes back, whichever protocol carries it.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::body::Body;

/// A request's head on its way out: made from the canonical request alone, so that what was authorized is what is sent.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    pub method: &'a Method,
    pub authority: &'a Bytes,
    pub path_and_query: &'a Bytes,
    pub headers: &'a HeaderMap,
    /// Whether the connection is encrypted: HTTP/2 says so in `:scheme`.
    pub is_https: bool,
}

/// An answer, its hop-by-hop headers removed.
#[derive(Debug)]
pub struct Received {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
}
