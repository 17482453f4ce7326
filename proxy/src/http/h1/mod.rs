//! HTTP/1.1 (RFC 9112), both ends, strict: one reading of each message, or none.
//!
//! httparse splits a head into its parts; everything that two parsers could read differently (bare LF, both lengths, a
//! coding other than `chunked`) is refused here. A connection is driven by the task that uses it: no channel, no hop.

mod client;
mod decode;
mod encode;
mod head;
mod io;
mod server;

pub use client::{Connection, Home, ResponseBody, SendError, Sent};
pub use io::Io;
pub use server::{PREFACE, RequestBody, Spoken, detect, serve};
