//! The configuration that is enforced now, shared by the control thread, which swaps it, and the workers, which
//! look it up once a request.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};
use tokio::sync::watch;

use super::Snapshot;

/// The current snapshot, if one ever arrived. Reading takes no lock.
#[derive(Debug)]
pub struct Live {
    current: ArcSwapOption<Snapshot>,
    changes: watch::Sender<Option<Arc<Snapshot>>>,
}

impl Live {
    /// Nothing is enforced, so nothing is accepted, until the first [`Live::apply`].
    pub fn empty() -> Self {
        Self {
            current: ArcSwapOption::empty(),
            changes: watch::Sender::new(None),
        }
    }

    /// Swap in a whole configuration: each request sees either the old one or the new one.
    pub fn apply(&self, snapshot: Arc<Snapshot>) {
        self.current.store(Some(Arc::clone(&snapshot)));
        self.changes.send_replace(Some(snapshot));
    }

    /// The snapshot for one request: look it up once, and use the same to the request's end.
    pub fn load(&self) -> Guard<Option<Arc<Snapshot>>> {
        self.current.load()
    }

    /// Be told of each new snapshot (the latest only), for what follows it: listeners, connection pools.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.changes.subscribe()
    }
}
