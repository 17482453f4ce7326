//! HTTP semantics shared by both ends: the canonical request, header hygiene, bodies, codecs.

pub mod canonical;
pub mod canonicalize;
pub mod framing;
pub mod headers;
pub mod target;

use http::{HeaderMap, Method};

use crate::codes::Reason;
use target::Target;

/// A request head as a codec read it: well-formed by its own protocol, and trusted in nothing.
#[derive(Debug)]
pub struct Head {
    pub method: Method,
    pub target: Target,
    pub version: Version,
    pub headers: HeaderMap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    Http10,
    Http11,
    Http2,
}

impl Version {
    /// As the access log names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// Why a request is not taken, and what of it was wrong: the reason goes to the caller, the detail to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub detail: &'static str,
}

impl Refusal {
    pub const fn new(reason: Reason, detail: &'static str) -> Self {
        Self { reason, detail }
    }
}
