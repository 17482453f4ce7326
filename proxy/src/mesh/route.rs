//! Routes: which cluster a request goes to, and under which deadline and retry policy
//! (`envoy.config.route.v3`). Matching is in `matching`: pure, over a canonical request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use regex::Regex;

/// `envoy.config.route.v3.RouteConfiguration`.
#[derive(Debug)]
pub struct RouteTable {
    pub name: Arc<str>,
    /// Index into `virtual_hosts` by exact domain, lower case, with `:port` where the domain had one.
    pub by_domain: HashMap<Box<str>, usize>,
    /// The virtual host of the domain `*`, if there is one.
    pub any_domain: Option<usize>,
    pub virtual_hosts: Vec<VirtualHost>,
}

#[derive(Debug)]
pub struct VirtualHost {
    pub name: Arc<str>,
    /// In order: the first route that matches decides.
    pub routes: Vec<Arc<Route>>,
}

#[derive(Debug)]
pub struct Route {
    /// For logs: `namespace/httproute#rule`, as the policy server named it.
    pub name: Arc<str>,
    pub matcher: RouteMatch,
    pub action: Action,
}

#[derive(Debug)]
pub struct RouteMatch {
    pub path: PathMatch,
    /// All must hold. The method is matched as the pseudo-header `:method`, which the decoder turns into `methods`.
    pub methods: Option<Box<[http::Method]>>,
    pub headers: Box<[HeaderMatch]>,
    pub query: Box<[QueryMatch]>,
}

#[derive(Debug)]
pub enum PathMatch {
    Exact(Box<str>),
    /// Plain string prefix (Envoy's `prefix`).
    Prefix(Box<str>),
    /// Whole path segments (Envoy's `path_separated_prefix`): `/a` matches `/a` and `/a/b`, not `/ab`.
    SegmentPrefix(Box<str>),
    /// Matches the whole path.
    Regex(Regex),
}

#[derive(Debug)]
pub struct HeaderMatch {
    pub name: HeaderName,
    pub value: ValueMatch,
    pub invert: bool,
}

#[derive(Debug)]
pub struct QueryMatch {
    pub name: Box<str>,
    pub value: ValueMatch,
}

#[derive(Debug)]
pub enum ValueMatch {
    Present,
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    /// Matches the whole value.
    Regex(Regex),
}

#[derive(Debug)]
pub enum Action {
    Forward(Forward),
    /// The mesh answers by itself (`direct_response`).
    Respond {
        status: StatusCode,
        body: Box<str>,
    },
}

#[derive(Debug)]
pub struct Forward {
    /// Weights sum to more than zero; a single cluster has one entry.
    pub clusters: Box<[WeightedCluster]>,
    /// For the whole request with all its attempts; `None` is no limit.
    pub timeout: Option<Duration>,
    pub retry: Option<RetryPolicy>,
}

#[derive(Debug)]
pub struct WeightedCluster {
    pub name: Arc<str>,
    pub weight: u32,
}

/// When a failed attempt may be made again, on another endpoint.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// Attempts after the first.
    pub max_retries: u32,
    pub per_try_timeout: Option<Duration>,
    pub base_interval: Duration,
    pub max_interval: Duration,
    pub on: RetryOn,
}

/// `retry_on`, parsed. The first three are safe for any request: it was provably not processed.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools)] // a set of conditions, as `retry_on` lists them
pub struct RetryOn {
    pub connect_failure: bool,
    pub refused_stream: bool,
    pub reset_before_request: bool,
    /// The connection broke or timed out after the request was sent: idempotent routes only.
    pub reset: bool,
    /// 502, 503, 504.
    pub gateway_error: bool,
    pub server_error: bool,
    pub statuses: Box<[StatusCode]>,
}
