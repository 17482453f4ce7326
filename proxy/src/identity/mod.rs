//! This proxy's own identity and whom it trusts: an SVID by CSR, renewed, and trust bundles by SDS.

pub mod bundle;
mod bundles;
mod certificate_client;
mod renewal;
pub mod spiffe_id;
pub mod svid;

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use thiserror::Error;
use tokio::sync::watch;

use bundle::{Bundles, Roots, RootsError};
use bundles::BundleClient;
use certificate_client::CertificateClient;
use renewal::keep_renewed;
use spiffe_id::TrustDomain;
use svid::Svid;

use crate::config::Ca;
use crate::control_plane::{ControlPlane, ControlServer};

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

/// What must be there before a proxy starts; both files are read again whenever they are needed.
pub fn check_files(ca: &Ca) -> Result<(), BootstrapError> {
    bootstrap_roots(&ca.roots)?;
    match certificate_client::read_bounded(&ca.token) {
        Ok(_) => Ok(()),
        Err(error) => Err(BootstrapError::Unreadable(ca.token.clone(), error)),
    }
}

/// Keep our SVID renewed and our bundles current, for ever.
pub async fn maintain(control: ControlPlane, ca: &Ca) -> Infallible {
    let trust_domain = &control.credentials.trust_domain;
    let server = |address| ControlServer::new(trust_domain, address, "ca", "https://ca.garrison");
    let certificates = CertificateClient {
        control: control.clone(),
        server: server(ca.address),
        roots: ca.roots.clone(),
        token: ca.token.clone(),
        lifetime: ca.svid_lifetime,
    };
    let bundles = BundleClient {
        server: server(ca.bundle_address),
        control: control.clone(),
        roots: ca.roots.clone(),
        versions: HashMap::new(),
    };
    tokio::select! {
        never = keep_renewed(certificates) => never,
        never = bundles.follow() => never,
    }
}

/// Why the CA cannot be told from an impostor yet.
#[derive(Debug, Error)]
pub enum BootstrapError {
    #[error("cannot read {path}", path = .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    #[error("{path} must have the CA's root certificates as PEM", path = .0.display())]
    Unusable(PathBuf, #[source] RootsError),
}

impl Credentials {
    /// What the control plane is verified by: our bundle, or before the first one arrived the file of roots, which is read
    /// afresh each time.
    fn control_bundles(&self, roots: &Path) -> Result<Arc<Bundles>, BootstrapError> {
        let bundles = self.bundles();
        if bundles.get(&self.trust_domain).is_some() {
            return Ok(bundles);
        }
        let roots = bootstrap_roots(roots)?;
        Ok(Arc::new(Bundles::of(self.trust_domain.clone(), roots)))
    }
}

fn bootstrap_roots(path: &Path) -> Result<Roots, BootstrapError> {
    let pem =
        std::fs::read(path).map_err(|error| BootstrapError::Unreadable(path.to_owned(), error))?;
    Roots::from_pem(&pem).map_err(|error| BootstrapError::Unusable(path.to_owned(), error))
}
