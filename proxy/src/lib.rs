//! The garrison sidecar. See `ARCHITECTURE.md` at the repository's root for the walk of a request.

pub mod authorize;
pub mod codes;
pub mod config;
pub mod http;
pub mod identity;
pub mod mesh;
pub mod telemetry;
pub mod tls;
