//! Trust bundles: for each trust domain the roots that its SVIDs chain to. Bundles are never merged, and a trust
//! domain without one is trusted in nothing (SPIFFE Trust Domain and Bundle §4.1.3; Federation §4.2).

use std::collections::HashMap;
use std::fmt;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use thiserror::Error;

use super::spiffe_id::TrustDomain;

/// More roots than any rotation needs; a bound on what a bundle may cost.
const MAX_ROOTS: usize = 64;

/// The roots of one trust domain; at least one.
#[derive(Clone, PartialEq, Eq)]
pub struct Roots(Box<[TrustAnchor<'static>]>);

/// The bundle of each trust domain that is trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundles(HashMap<TrustDomain, Roots>);

#[derive(Debug, Error)]
pub enum RootsError {
    #[error("no PEM certificate in it")]
    Empty,
    #[error("over {MAX_ROOTS} certificates in it")]
    TooMany,
    #[error("malformed PEM")]
    Pem(#[source] rustls_pki_types::pem::Error),
    #[error("certificate {0} is no usable CA certificate")]
    Certificate(usize, #[source] webpki::Error),
}

impl Roots {
    /// Read concatenated PEM certificates, all of which must be usable.
    pub fn from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        let mut anchors = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(RootsError::Pem)?;
            let anchor = webpki::anchor_from_trusted_cert(&certificate)
                .map_err(|error| RootsError::Certificate(anchors.len() + 1, error))?;
            anchors.push(anchor.to_owned());
            if anchors.len() > MAX_ROOTS {
                return Err(RootsError::TooMany);
            }
        }
        if anchors.is_empty() {
            return Err(RootsError::Empty);
        }
        Ok(Self(anchors.into()))
    }

    /// Whether whoever is trusted by `others` is trusted by these too.
    pub fn has_all_of(&self, others: &Self) -> bool {
        others.0.iter().all(|anchor| self.0.contains(anchor))
    }

    pub fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.0
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Roots({})", self.0.len())
    }
}

impl Bundles {
    pub fn of(trust_domain: TrustDomain, roots: Roots) -> Self {
        Self(HashMap::from([(trust_domain, roots)]))
    }

    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&Roots> {
        self.0.get(trust_domain)
    }

    pub fn insert(&mut self, trust_domain: TrustDomain, roots: Roots) {
        self.0.insert(trust_domain, roots);
    }

    pub fn remove(&mut self, trust_domain: &TrustDomain) {
        self.0.remove(trust_domain);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Trust domains with a bundle, in order, for status.
    pub fn trust_domains(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.0.keys().map(TrustDomain::as_str).collect();
        names.sort_unstable();
        names
    }
}
