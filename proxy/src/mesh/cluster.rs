//! Clusters: the endpoints of a service, and how to reach, choose and give up on them
//! (`envoy.config.cluster.v3`, `envoy.config.endpoint.v3`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// One upstream service (or one version of it).
#[derive(Debug)]
pub struct Cluster {
    pub name: Arc<str>,
    /// `namespace/service`, for telemetry.
    pub service: Arc<str>,
    pub endpoints: Box<[Endpoint]>,
    pub transport: Transport,
    pub protocol: UpstreamProtocol,
    pub balance: Balance,
    pub connect_timeout: Duration,
    pub outlier: Option<OutlierDetection>,
    pub limits: CircuitLimits,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub weight: u32,
    /// False where the policy server marked it unhealthy or draining: never picked.
    pub healthy: bool,
}

#[derive(Debug)]
pub enum Transport {
    /// The application beside the proxy, on loopback.
    Plaintext,
    /// TLS 1.3 with our SVID; the server's SPIFFE ID must be one of `peers`.
    MutualTls { peers: Box<[Arc<str>]> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    Http1,
    Http2,
    /// HTTP/2 where the peer offers it by ALPN, else HTTP/1.1.
    Auto,
    /// What the downstream spoke (towards the application).
    SameAsDownstream,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// `LEAST_REQUEST`: power of two choices by peak EWMA of latency times outstanding requests.
    PeakEwma,
    RoundRobin,
    Random,
}

#[derive(Debug, Clone)]
pub struct OutlierDetection {
    /// Failures in a row (5xx, connect failure, reset, timeout) that eject an endpoint.
    pub consecutive_failures: u32,
    pub base_ejection: Duration,
    pub max_ejection: Duration,
    /// Of the cluster's endpoints, at most this share is ejected at once (but always one may be).
    pub max_ejection_percent: u32,
}

/// `circuit_breakers.thresholds`, priority DEFAULT. Divided among worker threads by the code that enforces them.
#[derive(Debug, Clone)]
pub struct CircuitLimits {
    pub max_connections: u32,
    pub max_pending: u32,
    pub max_requests: u32,
    /// Retries may be at most this share of the active requests ...
    pub retry_budget_percent: f64,
    /// ... but so many are always allowed.
    pub min_retry_concurrency: u32,
}
