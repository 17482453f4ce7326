//! One worker thread's end of telemetry.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::access_log::LogQueue;
use super::{
    Downstream, Edge, Handshake, Handshakes, Record, SeenEndpoint, Telemetry, Upstream, locked,
};
use crate::codes::Hop;

/// One worker counts so many edges and clusters apart; what comes after counts as `other`.
const MAX_SERIES: usize = 4_096;
const OTHER: &str = "other";

/// A worker thread's telemetry; clones share it.
#[derive(Debug, Clone)]
pub struct Worker(Rc<Shard>);

#[derive(Debug)]
struct Shard {
    telemetry: Arc<Telemetry>,
    log: Option<LogQueue>,
    inbound: Arc<Downstream>,
    outbound: Arc<Downstream>,
    series: RefCell<Series>,
}

#[derive(Debug, Default)]
struct Series {
    inbound: Edges,
    outbound: Edges,
    upstreams: HashMap<Arc<str>, Arc<Upstream>>,
    handshakes: HashMap<(Hop, Handshake), Arc<Handshakes>>,
}

#[derive(Debug, Default)]
struct Edges {
    /// By destination, then source.
    map: HashMap<Arc<str>, HashMap<Arc<str>, Arc<Edge>>>,
    count: usize,
}

impl Worker {
    pub(super) fn new(telemetry: Arc<Telemetry>) -> Self {
        let downstream = |hop| {
            let counters = Arc::new(Downstream::default());
            locked(&telemetry.downstreams).push((hop, Arc::clone(&counters)));
            counters
        };
        let (inbound, outbound) = (downstream(Hop::Inbound), downstream(Hop::Outbound));
        let log = telemetry.log.queue();
        Self(Rc::new(Shard {
            telemetry,
            log,
            inbound,
            outbound,
            series: RefCell::default(),
        }))
    }

    /// Count and log one request, once, when its last byte went out or it was given up.
    pub fn finish(&self, record: &Record<'_>) {
        let edge = self.edge(record.hop, record.source, record.destination);
        let reason = record.code.map(|code| code.reason);
        edge.count(record.status, reason, record.grpc_status);
        edge.duration.observe(record.duration);
        if let Some(log) = &self.0.log {
            log.write(record);
        }
    }

    /// The counters of a cluster, for the balancer to hold.
    pub fn upstream(&self, cluster: &str) -> Arc<Upstream> {
        let upstreams = &mut self.0.series.borrow_mut().upstreams;
        if let Some(known) = upstreams.get(cluster) {
            return Arc::clone(known);
        }
        let name = Arc::from(if upstreams.len() < MAX_SERIES {
            cluster
        } else {
            OTHER
        });
        let made = upstreams.entry(name).or_insert_with_key(|name| {
            let made = Arc::new(Upstream::new(Arc::clone(name)));
            locked(&self.0.telemetry.upstreams).push(Arc::clone(&made));
            made
        });
        Arc::clone(made)
    }

    /// A place where the balancer says how it judges an endpoint; forgotten when it is dropped.
    pub fn endpoint(&self, cluster: &Arc<str>, address: SocketAddr) -> Arc<SeenEndpoint> {
        let seen = Arc::new(SeenEndpoint::new(Arc::clone(cluster), address));
        let mut endpoints = locked(&self.0.telemetry.endpoints);
        if endpoints.len() == endpoints.capacity() {
            endpoints.retain(|one| one.strong_count() > 0);
        }
        endpoints.push(Arc::downgrade(&seen));
        seen
    }

    /// The counters of connections that come in at this end.
    pub fn downstream(&self, hop: Hop) -> &Downstream {
        match hop {
            Hop::Inbound => &self.0.inbound,
            Hop::Outbound => &self.0.outbound,
        }
    }

    pub fn handshake(&self, hop: Hop, outcome: Handshake) {
        let handshakes = &mut self.0.series.borrow_mut().handshakes;
        let counted = handshakes.entry((hop, outcome)).or_insert_with(|| {
            let made = Arc::new(Handshakes {
                hop,
                outcome,
                count: super::Counter::default(),
            });
            locked(&self.0.telemetry.handshakes).push(Arc::clone(&made));
            made
        });
        counted.count.one();
    }

    fn edge(&self, hop: Hop, source: &str, destination: &str) -> Arc<Edge> {
        let mut series = self.0.series.borrow_mut();
        let edges = match hop {
            Hop::Inbound => &mut series.inbound,
            Hop::Outbound => &mut series.outbound,
        };
        if let Some(known) = edges.map.get(destination).and_then(|of| of.get(source)) {
            return Arc::clone(known);
        }
        let full = edges.count >= MAX_SERIES;
        let (source, destination) = if full {
            (OTHER, OTHER)
        } else {
            (source, destination)
        };
        let of_destination = edges.map.entry(Arc::from(destination)).or_default();
        let made = of_destination
            .entry(Arc::from(source))
            .or_insert_with_key(|source| {
                let made = Arc::new(Edge::new(hop, Arc::clone(source), Arc::from(destination)));
                locked(&self.0.telemetry.edges).push(Arc::clone(&made));
                edges.count += 1;
                made
            });
        Arc::clone(made)
    }
}
