//! A certificate authority in memory, for tests: makes right SVIDs, and wrong ones on request.
#![allow(dead_code)] // each test takes what it needs
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test may

pub mod application;
pub mod control_plane;
pub mod frames;
pub mod pair;
pub mod raw;
pub mod resources;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use garrison_proxy::identity::Credentials;
use garrison_proxy::identity::bundle::{Bundles, Roots};
use garrison_proxy::identity::spiffe_id::{SpiffeId, TrustDomain};
use garrison_proxy::identity::svid::Svid;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

pub const TRUST_DOMAIN: &str = "bookstore.example";
pub const CATALOG: &str = "spiffe://bookstore.example/ns/bookstore/sa/catalog";
pub const WEB: &str = "spiffe://bookstore.example/ns/bookstore/sa/web";

/// A root and an issuing certificate below it.
pub struct Authority {
    pub trust_domain: TrustDomain,
    pub root: CertifiedIssuer<'static, KeyPair>,
    pub issuing: CertifiedIssuer<'static, KeyPair>,
}

/// A leaf with its key and the chain to present.
pub struct Leaf {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: KeyPair,
}

impl Authority {
    pub fn new(trust_domain: &str) -> Self {
        let root = CertifiedIssuer::self_signed(
            ca_params(trust_domain, "root"),
            KeyPair::generate().unwrap(),
        )
        .unwrap();
        let issuing = CertifiedIssuer::signed_by(
            ca_params(trust_domain, "issuing"),
            KeyPair::generate().unwrap(),
            &root,
        )
        .unwrap();
        Self {
            trust_domain: TrustDomain::parse(trust_domain).unwrap(),
            root,
            issuing,
        }
    }

    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    pub fn bundles(&self) -> Bundles {
        Bundles::of(
            self.trust_domain.clone(),
            Roots::from_pem(self.root_pem().as_bytes()).unwrap(),
        )
    }

    /// Sign whatever is asked for.
    pub fn sign(&self, params: &CertificateParams) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuing).unwrap();
        Leaf {
            chain: vec![leaf.der().clone(), self.issuing.der().clone()],
            key,
        }
    }

    pub fn svid(&self, id: &str, lifetime: Duration) -> Svid {
        let mut params = leaf_params(id);
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(60)).into();
        params.not_after = (now + lifetime).into();
        self.sign(&params).svid(id, now, now + lifetime)
    }

    /// Credentials with an SVID of an hour and this authority's bundle.
    pub fn credentials(&self, id: &str) -> Arc<Credentials> {
        let credentials = Credentials::none(self.trust_domain.clone());
        credentials.set_bundles(Arc::new(self.bundles()));
        credentials.set_svid(Arc::new(self.svid(id, Duration::from_secs(3600))));
        Arc::new(credentials)
    }
}

impl Leaf {
    /// As our own SVID, whatever the certificate says.
    pub fn svid(self, id: &str, not_before: SystemTime, not_after: SystemTime) -> Svid {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).unwrap();
        Svid {
            id: SpiffeId::parse(id).unwrap(),
            certified_key: Arc::new(CertifiedKey::new(self.chain, key)),
            not_before,
            not_after,
        }
    }
}

/// A leaf as X509-SVID §4 wants it, valid now.
pub fn leaf_params(id: &str) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(id)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.not_before = (now - Duration::from_secs(60)).into();
    params.not_after = (now + Duration::from_secs(3600)).into();
    params
}

pub fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text.to_owned()).unwrap())
}

fn ca_params(trust_domain: &str, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{trust_domain} {name}"));
    params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}
