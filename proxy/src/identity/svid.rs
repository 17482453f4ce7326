//! X.509-SVIDs: our own, ready to authenticate with, and the checks that make a peer's certificate an SVID
//! (X509-SVID §2-§5).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::bundle::Bundles;
use super::spiffe_id::{SpiffeId, SpiffeIdError};

/// Issuing certificates that a chain may have below its root: bounds the work that a peer can cause.
const MAX_INTERMEDIATES: usize = 4;

/// Our own identity: replaced whole at each renewal.
pub struct Svid {
    pub id: SpiffeId,
    pub certified_key: Arc<CertifiedKey>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl fmt::Debug for Svid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Svid({})", self.id)
    }
}

/// What an SVID that passed every check says.
#[derive(Debug, Clone)]
pub struct Verified {
    pub id: SpiffeId,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// In which end of a connection an SVID is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented {
    ByServer,
    ByClient,
}

/// Why a certificate is refused as an SVID, or as this peer's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("the certificate is malformed")]
    Malformed,
    #[error("the certificate has {0} URI names, not one")]
    UriNames(usize),
    #[error("the URI name is no SPIFFE ID")]
    SpiffeId(#[source] SpiffeIdError),
    #[error("a CA certificate was presented as a leaf")]
    CaAsLeaf,
    #[error("the key usage is not that of a leaf")]
    KeyUsage,
    #[error("the extended key usage is not that of an SVID")]
    ExtendedKeyUsage,
    #[error("there is no bundle for trust domain {0}")]
    NoBundle(Box<str>),
    #[error("the certificate is expired")]
    Expired,
    #[error("the certificate is not yet valid")]
    NotYetValid,
    #[error("the certificate lives longer than is accepted")]
    LivesTooLong,
    #[error("the chain has too many certificates")]
    ChainTooLong,
    #[error("an issuing certificate may not sign certificates")]
    Issuer,
    #[error("the chain does not lead to a root of its trust domain")]
    Chain(#[source] webpki::Error),
    #[error("trust domain {0} may not connect here")]
    TrustDomain(Box<str>),
    #[error("the peer is {0}, which is not expected here")]
    UnexpectedPeer(Arc<str>),
}

impl Refusal {
    /// The fixed label under which it is counted.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UriNames(_) => "uri_names",
            Self::SpiffeId(_) => "spiffe_id",
            Self::CaAsLeaf => "ca_as_leaf",
            Self::KeyUsage => "key_usage",
            Self::ExtendedKeyUsage => "extended_key_usage",
            Self::NoBundle(_) => "no_bundle",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::LivesTooLong => "lives_too_long",
            Self::ChainTooLong => "chain_too_long",
            Self::Issuer => "issuer",
            Self::Chain(_) => "chain",
            Self::TrustDomain(_) => "trust_domain",
            Self::UnexpectedPeer(_) => "unexpected_peer",
        }
    }
}

/// Check that a chain is a valid SVID: of the form that X509-SVID §5.2 asks for, and leading to a root of the bundle of
/// its own trust domain.
pub fn verify(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    presented: Presented,
    bundles: &Bundles,
    now: UnixTime,
) -> Result<Verified, Refusal> {
    if intermediates.len() > MAX_INTERMEDIATES {
        return Err(Refusal::ChainTooLong);
    }
    let certificate = parse(leaf)?;
    check_leaf_constraints(&certificate)?;
    let id = SpiffeId::parse(only_uri_name(&certificate)?).map_err(Refusal::SpiffeId)?;
    for issuer in intermediates {
        check_issuer_constraints(&parse(issuer)?)?;
    }
    let roots = bundles
        .get(id.trust_domain())
        .ok_or_else(|| Refusal::NoBundle(id.trust_domain().as_str().into()))?;
    let usage = match presented {
        Presented::ByServer => KeyUsage::server_auth(),
        Presented::ByClient => KeyUsage::client_auth(),
    };
    EndEntityCert::try_from(leaf)
        .and_then(|leaf| {
            leaf.verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                roots.anchors(),
                intermediates,
                now,
                usage,
                None,
                None,
            )
            .map(drop)
        })
        .map_err(refusal_of)?;
    Ok(Verified {
        id,
        not_before: time_of(certificate.validity().not_before.timestamp())?,
        not_after: time_of(certificate.validity().not_after.timestamp())?,
    })
}

fn parse<'der>(der: &'der CertificateDer<'_>) -> Result<X509Certificate<'der>, Refusal> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(Refusal::Malformed),
    }
}

/// X509-SVID §5.2: no CA, `digitalSignature` without the signing bits, both purposes if any is named (§4.4).
fn check_leaf_constraints(leaf: &X509Certificate<'_>) -> Result<(), Refusal> {
    if leaf
        .basic_constraints()
        .map_err(|_| Refusal::Malformed)?
        .is_some_and(|basic| basic.value.ca)
    {
        return Err(Refusal::CaAsLeaf);
    }
    let usage = leaf
        .key_usage()
        .map_err(|_| Refusal::Malformed)?
        .ok_or(Refusal::KeyUsage)?
        .value;
    if usage.key_cert_sign() {
        return Err(Refusal::CaAsLeaf);
    }
    if usage.crl_sign() || !usage.digital_signature() {
        return Err(Refusal::KeyUsage);
    }
    match leaf.extended_key_usage().map_err(|_| Refusal::Malformed)? {
        Some(extended) if !(extended.value.server_auth && extended.value.client_auth) => {
            Err(Refusal::ExtendedKeyUsage)
        }
        Some(_) | None => Ok(()),
    }
}

/// RFC 5280 §6.1.4 (n), which webpki leaves out; §6.1.4 (k) it does itself.
fn check_issuer_constraints(issuer: &X509Certificate<'_>) -> Result<(), Refusal> {
    match issuer.key_usage().map_err(|_| Refusal::Malformed)? {
        Some(usage) if !usage.value.key_cert_sign() => Err(Refusal::Issuer),
        Some(_) | None => Ok(()),
    }
}

/// X509-SVID §2: exactly one URI name; a name that does not parse may hide another.
fn only_uri_name<'a>(leaf: &'a X509Certificate<'_>) -> Result<&'a str, Refusal> {
    let mut uris = Vec::new();
    for extension in leaf.extensions() {
        if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
            for name in &names.general_names {
                match name {
                    GeneralName::URI(uri) => uris.push(*uri),
                    GeneralName::Invalid(..) => return Err(Refusal::Malformed),
                    _ => {}
                }
            }
        }
    }
    match uris.as_slice() {
        [uri] => Ok(uri),
        _ => Err(Refusal::UriNames(uris.len())),
    }
}

fn refusal_of(error: webpki::Error) -> Refusal {
    match error {
        webpki::Error::CertExpired { .. } => Refusal::Expired,
        webpki::Error::CertNotValidYet { .. } => Refusal::NotYetValid,
        webpki::Error::CaUsedAsEndEntity => Refusal::CaAsLeaf,
        webpki::Error::RequiredEkuNotFoundContext(_) => Refusal::ExtendedKeyUsage,
        other => Refusal::Chain(other),
    }
}

fn time_of(timestamp: i64) -> Result<SystemTime, Refusal> {
    u64::try_from(timestamp)
        .ok()
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        .ok_or(Refusal::Malformed)
}
