//! Whether the peer at the other end of a connection is still believed: connections outlive handshakes, and a root
//! that was taken out of its bundle vouches for nobody, nor does an SVID that has expired.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::{MeshTls, Peer};

/// What is under way gets so long to end once its peer is no longer who it was.
const GRACE: Duration = Duration::from_secs(10);

/// Of the peer of one connection.
#[derive(Debug)]
pub struct Standing {
    peer: Peer,
    expires: Option<Instant>,
    is_over: Cell<bool>,
    over: Notify,
}

impl Standing {
    fn new(peer: Peer) -> Self {
        let life = peer.not_after.duration_since(SystemTime::now());
        Self {
            expires: Instant::now().checked_add(life.unwrap_or_default()),
            peer,
            is_over: Cell::new(false),
            over: Notify::new(),
        }
    }

    /// May a request be sent on it?
    pub fn is_good(&self, now: Instant) -> bool {
        !self.is_over.get() && self.expires.is_none_or(|expires| now < expires)
    }

    /// Wait until it is not.
    pub async fn over(&self) {
        let ended = self.over.notified();
        if self.is_over.get() {
            return;
        }
        let now = Instant::now();
        let left = self
            .expires
            .map(|expires| expires.saturating_duration_since(now));
        tokio::select! {
            () = ended => {}
            () = sleep(left.unwrap_or(Duration::MAX)) => {}
        }
    }

    /// Wait until what was under way has had its time, too.
    pub async fn cut_off(&self) {
        self.over().await;
        sleep(GRACE).await;
    }

    fn end(&self) {
        self.is_over.set(true);
        self.over.notify_waiters();
    }
}

/// Of the peers of all connections of a worker.
#[derive(Debug, Clone, Default)]
pub struct Standings(RefCell<Vec<Weak<Standing>>>);

impl Standings {
    pub fn add(&self, peer: Peer, tls: &MeshTls) -> Rc<Standing> {
        let standing = Rc::new(Standing::new(peer));
        // The bundles may have changed while hands were shaken.
        if !tls.believes(&standing.peer) {
            standing.end();
        }
        let mut all = self.0.borrow_mut();
        if all.len() == all.capacity() {
            all.retain(|one| one.strong_count() > 0);
        }
        all.push(Rc::downgrade(&standing));
        standing
    }

    /// End those whose peer is trusted no longer.
    pub fn review(&self, tls: &MeshTls) {
        for standing in self.0.borrow().iter().filter_map(Weak::upgrade) {
            if !tls.believes(&standing.peer) {
                standing.end();
            }
        }
    }
}
