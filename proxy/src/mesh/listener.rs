//! Where the proxy accepts connections, and what it does with the requests on them.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::authorize::Authorization;
use crate::mesh::RouteTable;

/// One address that the proxy listens on (`envoy.config.listener.v3.Listener`).
#[derive(Debug)]
pub struct Listener {
    pub name: Arc<str>,
    pub address: SocketAddr,
    pub role: Role,
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
