//! HTTP/2 (RFC 9113) by the `h2` crate, both ends. A connection's streams are futures of its own task, so that the
//! answers which are ready go out in one write; there is no task for a request.

mod client;
mod keepalive;
mod server;
mod transfer;

pub use client::{Link, ResponseBody, SendError, connect};
pub use server::serve;
pub use transfer::RequestBody;

/// Of each stream: what a peer may send before it must wait for the reader (CVE-2020-8659).
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Streams that a peer may have open (RFC 9113 §6.5.2 recommends at least 100).
const MAX_STREAMS: u32 = 250;
/// Of a decoded head.
const MAX_HEADER_LIST: u32 = 64 * 1024;
/// Streams reset by us, or by the peer before we took them, until the connection ends (CVE-2023-44487, CVE-2025-8671).
const MAX_RESETS: usize = 100;
const MAX_SEND_BUFFER: usize = 64 * 1024;
