//! HTTP semantics shared by both ends: the canonical request, header hygiene, bodies, codecs.

pub mod body;
pub mod canonical;
pub mod canonicalize;
pub mod framing;
pub mod h1;
pub mod h2;
pub mod headers;
pub mod replay;
pub mod service;
pub mod stream;
pub mod target;
pub mod timer;
pub mod upstream;

use http::{HeaderMap, Method, Version};

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
