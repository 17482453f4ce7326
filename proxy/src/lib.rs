//! The garrison sidecar. See `ARCHITECTURE.md` at the repository's root for the walk of a request.

pub mod admin;
pub mod authorize;
mod backoff;
pub mod balance;
pub mod causes;
pub mod codes;
pub mod config;
pub mod control_plane;
pub mod door;
pub mod exchange;
pub mod forward;
pub mod http;
pub mod identity;
pub mod inbound;
pub mod mesh;
pub mod outbound;
mod process;
pub mod proxy;
pub mod serve;
pub mod telemetry;
pub mod tls;
pub mod validate;
pub mod worker;
pub mod xds;
