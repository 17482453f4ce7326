//! What the proxy tells of itself: metrics, the access log, trace context and request ids.
//!
//! The request path meets [`Worker`]: one for each worker thread, with counters of its own and a queue of its own to the
//! log's writer, so that nothing here waits for another thread. Labels come from configuration and from
//! authenticated identities, never from what a request says, and are bounded in number.

pub mod access_log;
pub mod control;
pub mod counters;
mod metrics;
pub mod request_id;
pub mod timestamp;
pub mod trace;
mod worker;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

pub use access_log::{LogTarget, Record};
pub use control::{Control, Server};
pub use counters::{
    Counter, Downstream, Edge, Gauge, Handshake, Handshakes, SeenEndpoint, Shed, Upstream,
};
pub use request_id::RequestId;
pub use trace::Trace;
pub use worker::Worker;

use crate::codes::Hop;
use access_log::LogWriter;

/// By cluster and address: one for each worker.
pub type Seen = HashMap<(Arc<str>, SocketAddr), Vec<Arc<SeenEndpoint>>>;

/// Everything that a scrape reads. One for the process.
#[derive(Debug)]
pub struct Telemetry {
    /// What the control side of the proxy reports: identity, configuration, connections to the servers.
    pub control: Control,
    log: LogWriter,
    edges: Mutex<Vec<Arc<Edge>>>,
    upstreams: Mutex<Vec<Arc<Upstream>>>,
    downstreams: Mutex<Vec<(Hop, Arc<Downstream>)>>,
    handshakes: Mutex<Vec<Arc<Handshakes>>>,
    /// Gone with the balancer that holds them.
    endpoints: Mutex<Vec<Weak<SeenEndpoint>>>,
}

impl Telemetry {
    /// Open the access log and start its writer; `node` names this proxy in each line.
    pub fn start(node: &str, target: &LogTarget) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            control: Control::default(),
            log: LogWriter::start(node, target)?,
            edges: Mutex::default(),
            upstreams: Mutex::default(),
            downstreams: Mutex::default(),
            handshakes: Mutex::default(),
            endpoints: Mutex::default(),
        }))
    }

    /// A handle for the calling worker thread; make one for each.
    pub fn worker(self: &Arc<Self>) -> Worker {
        Worker::new(Arc::clone(self))
    }

    /// The metrics in Prometheus' text format 0.0.4.
    pub fn render(&self) -> String {
        metrics::render(self)
    }

    /// The endpoints as each worker judges them.
    pub fn seen_endpoints(&self) -> Seen {
        let mut seen = Seen::new();
        for endpoint in locked(&self.endpoints).iter().filter_map(Weak::upgrade) {
            let key = (Arc::clone(&endpoint.cluster), endpoint.address);
            seen.entry(key).or_default().push(endpoint);
        }
        seen
    }

    /// Write out what is queued, for at most a second: the last thing before the process ends.
    pub fn flush(&self) {
        self.log.flush();
    }
}

/// Taken when a series is first seen and at a scrape, never by a request of a known series.
fn locked<T>(list: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}
