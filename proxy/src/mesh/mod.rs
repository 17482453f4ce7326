//! What the pushed configuration means, decoded and cross-checked: the only form in which the request path
//! sees it. A [`Snapshot`] is immutable and swapped whole; nothing here does I/O or knows protobuf.

pub mod cluster;
pub mod listener;
pub mod live;
pub mod matching;
pub mod route;

use std::collections::HashMap;
use std::sync::Arc;

pub use cluster::{Cluster, Endpoint};
pub use listener::Listener;
pub use live::Live;
pub use route::RouteTable;

/// One whole configuration: every reference in it resolves.
#[derive(Debug)]
pub struct Snapshot {
    /// The git commit that it was compiled from, as the policy server named it.
    pub commit: Arc<str>,
    pub listeners: Vec<Arc<Listener>>,
    /// By cluster name. Every cluster that a route names is here.
    pub clusters: HashMap<Arc<str>, Arc<Cluster>>,
}
