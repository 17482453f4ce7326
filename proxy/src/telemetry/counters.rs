//! Numbers that one worker writes and a scrape reads.
//!
//! Each worker thread has counters of its own, so that an addition never waits for another core's cache line; a
//! scrape sums over the workers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::codes::{Hop, Reason};

/// Only goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn one(&self) {
        self.add(1);
    }

    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Goes up and down; every `up` needs its `down`.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the latency buckets, in microseconds; one more bucket is unbounded.
pub const BUCKETS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

#[derive(Debug, Default)]
pub struct Histogram {
    /// Not cumulative; the last is the unbounded one.
    buckets: [Counter; BUCKETS_US.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    pub fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|&bound| bound < us);
        if let Some(counter) = self.buckets.get(bucket) {
            counter.one();
        }
        self.sum_us.add(us);
    }

    pub fn counts(&self) -> impl Iterator<Item = u64> + '_ {
        self.buckets.iter().map(Counter::get)
    }

    pub fn sum_us(&self) -> u64 {
        self.sum_us.get()
    }
}

/// gRPC knows the statuses 0 to 16.
pub const GRPC_STATUSES: usize = 17;

/// All requests from one source to one destination, as one end saw them.
#[derive(Debug)]
pub struct Edge {
    pub hop: Hop,
    pub source: Arc<str>,
    pub destination: Arc<str>,
    /// Answers of the application, by the first digit of the status (0: none was sent).
    by_class: [Counter; 6],
    /// Answers of the mesh itself, by `Reason as usize`.
    by_reason: [Counter; Reason::ALL.len()],
    by_grpc_status: [Counter; GRPC_STATUSES],
    pub duration: Histogram,
}

impl Edge {
    pub fn new(hop: Hop, source: Arc<str>, destination: Arc<str>) -> Self {
        Self {
            hop,
            source,
            destination,
            by_class: Default::default(),
            by_reason: std::array::from_fn(|_| Counter::default()),
            by_grpc_status: Default::default(),
            duration: Histogram::default(),
        }
    }

    pub fn count(&self, status: u16, reason: Option<Reason>, grpc_status: Option<u16>) {
        let counter = match reason {
            // Its status is the route's, so it counts by class like an application's answer.
            None | Some(Reason::DirectResponse) => self.by_class.get(usize::from(status / 100)),
            Some(reason) => self.by_reason.get(reason as usize),
        };
        counter.or(self.by_class.first()).map(Counter::one);
        if let Some(counter) = grpc_status.and_then(|s| self.by_grpc_status.get(usize::from(s))) {
            counter.one();
        }
    }

    pub fn classes(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.by_class.iter().map(Counter::get).enumerate()
    }

    pub fn reasons(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL
            .iter()
            .copied()
            .zip(self.by_reason.iter().map(Counter::get))
    }

    pub fn grpc_statuses(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.by_grpc_status.iter().map(Counter::get).enumerate()
    }
}

/// One cluster, as one worker uses it. Held by the balancer, which counts directly.
#[derive(Debug)]
pub struct Upstream {
    pub cluster: Arc<str>,
    pub connections: Gauge,
    pub requests: Gauge,
    pub connections_opened: Counter,
    pub connect_failures: Counter,
    pub retries: Counter,
    pub retries_over_budget: Counter,
    pub overflows: Counter,
    pub ejections: Counter,
    pub ejected: Gauge,
}

impl Upstream {
    pub fn new(cluster: Arc<str>) -> Self {
        Self {
            cluster,
            connections: Gauge::default(),
            requests: Gauge::default(),
            connections_opened: Counter::default(),
            connect_failures: Counter::default(),
            retries: Counter::default(),
            retries_over_budget: Counter::default(),
            overflows: Counter::default(),
            ejections: Counter::default(),
            ejected: Gauge::default(),
        }
    }
}

/// One endpoint of a cluster, as one worker judges it: for the dump of the configuration.
#[derive(Debug)]
pub struct SeenEndpoint {
    pub cluster: Arc<str>,
    pub address: SocketAddr,
    ejected: AtomicBool,
    latency_us: AtomicU64,
}

impl SeenEndpoint {
    pub fn new(cluster: Arc<str>, address: SocketAddr) -> Self {
        Self {
            cluster,
            address,
            ejected: AtomicBool::new(false),
            latency_us: AtomicU64::new(0),
        }
    }

    pub fn set_ejected(&self, ejected: bool) {
        self.ejected.store(ejected, Ordering::Relaxed);
    }

    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// The balancer's estimate; 0 before the first answer.
    pub fn set_latency(&self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_us.store(us, Ordering::Relaxed);
    }

    pub fn latency_us(&self) -> u64 {
        self.latency_us.load(Ordering::Relaxed)
    }
}

/// Connections that came in at one end, as one worker accepted them.
#[derive(Debug, Default)]
pub struct Downstream {
    pub accepted: Counter,
    pub connections: Gauge,
    /// In the order of `Shed::ALL`.
    shed: [Counter; Shed::ALL.len()],
    /// Connections lost to a defect of ours.
    pub panics: Counter,
}

/// Why a connection was closed as soon as it was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// The worker has as many as it takes.
    Connections,
    /// Its source has its share of the handshakes under way.
    SourceShare,
    /// Its identity has its share of the connections.
    IdentityShare,
}

impl Shed {
    pub const ALL: [Self; 3] = [Self::Connections, Self::SourceShare, Self::IdentityShare];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::SourceShare => "source_share",
            Self::IdentityShare => "identity_share",
        }
    }
}

impl Downstream {
    pub fn shed(&self, why: Shed) -> &Counter {
        let [connections, source, identity] = &self.shed;
        match why {
            Shed::Connections => connections,
            Shed::SourceShare => source,
            Shed::IdentityShare => identity,
        }
    }
}

/// How a TLS handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Handshake {
    /// With the name of the key exchange, as `X25519MLKEM768`.
    Completed(&'static str),
    /// With a fixed word for the reason, as `expired`: never the peer's own words.
    Refused(&'static str),
}

#[derive(Debug)]
pub struct Handshakes {
    pub hop: Hop,
    pub outcome: Handshake,
    pub count: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_bucket_that_ends_with_it() {
        let histogram = Histogram::default();
        for us in [0, 500, 501, 10_000_000, 10_000_001] {
            histogram.observe(Duration::from_micros(us));
        }
        let counts: Vec<_> = histogram.counts().collect();
        assert_eq!((counts[0], counts[1], counts[13], counts[14]), (2, 1, 1, 1));
        assert_eq!(histogram.sum_us(), 20_001_002);
    }

    #[test]
    fn an_answer_counts_once_by_class_or_by_reason() {
        let edge = Edge::new(Hop::Inbound, "a/b".into(), "c/d".into());
        edge.count(200, None, Some(0));
        edge.count(403, Some(Reason::Denied), None);
        edge.count(700, None, Some(99));
        edge.count(404, Some(Reason::DirectResponse), None);
        let classes: Vec<_> = edge.classes().map(|(_, count)| count).collect();
        assert_eq!(classes, [1, 0, 1, 0, 1, 0]);
        let denied = edge.reasons().find(|(reason, _)| *reason == Reason::Denied);
        assert_eq!(denied, Some((Reason::Denied, 1)));
        assert_eq!(edge.reasons().map(|(_, count)| count).sum::<u64>(), 1);
        assert_eq!(edge.grpc_statuses().map(|(_, count)| count).sum::<u64>(), 1);
    }
}
