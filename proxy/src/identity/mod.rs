//! This proxy's own identity and whom it trusts: an SVID by CSR, renewed, and trust bundles by SDS.

pub mod bundle;
pub mod spiffe_id;
pub mod svid;

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;

use bundle::Bundles;
use spiffe_id::TrustDomain;
use svid::Svid;

/// Who we are and whom we trust, now: swapped whole by the control thread, read without a lock by every handshake.
#[derive(Debug)]
pub struct Credentials {
    pub trust_domain: TrustDomain,
    svid: ArcSwapOption<Svid>,
    bundles: ArcSwap<Bundles>,
    renewals: watch::Sender<Option<Arc<Svid>>>,
    bundle_changes: watch::Sender<Arc<Bundles>>,
}

impl Credentials {
    /// Neither identity nor bundle: every handshake is refused.
    pub fn none(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            svid: ArcSwapOption::empty(),
            bundles: ArcSwap::default(),
            renewals: watch::Sender::new(None),
            bundle_changes: watch::Sender::new(Arc::default()),
        }
    }

    /// Our SVID, expired or not.
    pub fn svid(&self) -> Option<Arc<Svid>> {
        self.svid.load_full()
    }

    /// Our SVID, if it can still be used.
    pub fn valid_svid(&self) -> Option<Arc<Svid>> {
        self.svid()
            .filter(|svid| SystemTime::now() < svid.not_after)
    }

    pub fn bundles(&self) -> Arc<Bundles> {
        self.bundles.load_full()
    }

    pub fn set_svid(&self, svid: Arc<Svid>) {
        self.svid.store(Some(Arc::clone(&svid)));
        self.renewals.send_replace(Some(svid));
    }

    pub fn set_bundles(&self, bundles: Arc<Bundles>) {
        self.bundles.store(Arc::clone(&bundles));
        self.bundle_changes.send_replace(bundles);
    }

    pub fn renewals(&self) -> watch::Receiver<Option<Arc<Svid>>> {
        self.renewals.subscribe()
    }

    pub fn bundle_changes(&self) -> watch::Receiver<Arc<Bundles>> {
        self.bundle_changes.subscribe()
    }
}
