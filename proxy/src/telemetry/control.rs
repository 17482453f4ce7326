//! What the control side reports: identity, configuration, and the connections to CA and policy server.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Counter;

/// The servers that a proxy depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    CertificateAuthority,
    Bundles,
    Policy,
}

impl Server {
    pub const ALL: [Self; 3] = [Self::CertificateAuthority, Self::Bundles, Self::Policy];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CertificateAuthority => "ca",
            Self::Bundles => "bundles",
            Self::Policy => "policy",
        }
    }
}

#[derive(Debug, Default)]
pub struct Control {
    pub svid_renewals: Counter,
    pub svid_renewal_failures: Counter,
    pub bundle_updates: Counter,
    pub configurations_accepted: Counter,
    pub configurations_refused: Counter,
    /// Seconds since the epoch; 0 is never.
    svid_expiry: AtomicU64,
    applied_at: AtomicU64,
    commit: Mutex<Option<Arc<str>>>,
    connected: [AtomicBool; Server::ALL.len()],
    draining: AtomicBool,
}

impl Control {
    pub fn set_svid_expiry(&self, not_after: SystemTime) {
        self.svid_expiry
            .store(seconds(not_after), Ordering::Relaxed);
    }

    pub fn svid_expiry(&self) -> Option<u64> {
        Some(self.svid_expiry.load(Ordering::Relaxed)).filter(|&at| at > 0)
    }

    /// A commit is enforced from now on.
    pub fn applied(&self, commit: &Arc<str>, now: SystemTime) {
        *self.commit.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(commit));
        self.applied_at.store(seconds(now), Ordering::Relaxed);
        self.configurations_accepted.one();
    }

    pub fn commit(&self) -> Option<Arc<str>> {
        self.commit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn applied_at(&self) -> Option<u64> {
        Some(self.applied_at.load(Ordering::Relaxed)).filter(|&at| at > 0)
    }

    /// The proxy is about to end; there is no way back.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub fn set_connected(&self, server: Server, connected: bool) {
        if let Some(state) = self.connected.get(server as usize) {
            state.store(connected, Ordering::Relaxed);
        }
    }

    pub fn is_connected(&self, server: Server) -> bool {
        self.connected
            .get(server as usize)
            .is_some_and(|state| state.load(Ordering::Relaxed))
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
