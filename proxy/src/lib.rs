//! The garrison sidecar. See `ARCHITECTURE.md` at the repository's root for the walk of a request.

pub mod admin;
pub mod authorize;
mod backoff;
pub mod codes;
pub mod config;
pub mod control_plane;
pub mod http;
pub mod identity;
pub mod mesh;
pub mod telemetry;
pub mod tls;
pub mod validate;
pub mod xds;
