//! Where the proxy accepts connections, and what it does with the requests on them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::authorize::Authorization;
use crate::mesh::RouteTable;

/// One address that the proxy listens on (`envoy.config.listener.v3.Listener`).
#[derive(Debug)]
pub struct Listener {
    pub name: Arc<str>,
    pub address: SocketAddr,
    pub role: Role,
    pub timeouts: Timeouts,
}

/// How long a listener waits for its clients; `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// A connection without a request is closed.
    pub idle: Option<Duration>,
    /// A request of which nothing moves in either direction is ended.
    pub stream_idle: Option<Duration>,
    /// From a request's head until its body is whole.
    pub request: Option<Duration>,
}

/// Which end of a call this listener is.
#[derive(Debug)]
pub enum Role {
    /// Takes plaintext from the application beside it and sends it into the mesh. Serves a forward proxy
    /// (absolute-form and origin-form alike, chosen by authority) and listeners of a single service (whose
    /// route table has one virtual host with the domain `*`).
    Outbound(Outbound),
    /// Takes mutual TLS from the mesh and forwards to the application.
    Inbound(Inbound),
}

#[derive(Debug)]
pub struct Outbound {
    pub routes: Arc<RouteTable>,
}

#[derive(Debug)]
pub struct Inbound {
    /// `namespace/service` that this listener is the door of; the `dst` of authorization and telemetry.
    pub destination: Arc<str>,
    /// Trust domains whose SVIDs may connect at all; each is verified by its own bundle.
    pub trust_domains: Vec<Arc<str>>,
    pub authorization: Arc<Authorization>,
    pub routes: Arc<RouteTable>,
}
