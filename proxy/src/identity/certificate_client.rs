//! Asking the CA for an SVID: `istio.v1.auth.IstioCertificateService/CreateCertificate`. The key is made here for each
//! request and never leaves memory; the token is read afresh each time, because it may be what was renewed;
//! and nothing that comes back is believed before it was checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroize;

use super::BootstrapError;
use super::bundle::Bundles;
use super::spiffe_id::SpiffeId;
use super::svid::{Presented, Refusal, Svid, Verified, verify};
use crate::control_plane::{ControlPlane, ControlServer, Link, LinkError};
use crate::tls::AuthenticateAs;

const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// For the whole of one attempt, connecting included.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_TOKEN_BYTES: u64 = 64 * 1024;
const MAX_RESPONSE_BYTES: usize = 256 * 1024;
const MAX_CHAIN: usize = 8;
/// The longest wait that a CA may impose.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(150);

/// `istio.v1.auth.IstioCertificateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct IstioCertificateRequest {
    /// PEM.
    #[prost(string, tag = "1")]
    csr: String,
    /// Seconds.
    #[prost(int64, tag = "3")]
    validity_duration: i64,
}

/// `istio.v1.auth.IstioCertificateResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct IstioCertificateResponse {
    /// PEM, the leaf first, the root last.
    #[prost(string, repeated, tag = "1")]
    cert_chain: Vec<String>,
}

#[derive(Debug)]
pub(super) struct CertificateClient {
    pub control: ControlPlane,
    pub server: ControlServer,
    pub roots: PathBuf,
    pub token: PathBuf,
    pub lifetime: Duration,
}

/// Why there is no new SVID. Each may pass: the caller tries again.
#[derive(Debug, Error)]
pub(super) enum RequestError {
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error("cannot read the token file {path}", path = .0.display())]
    Token(PathBuf, #[source] std::io::Error),
    #[error("the token file {path} holds no bearer token", path = .0.display())]
    TokenContent(PathBuf),
    #[error("cannot make a key or a certificate request")]
    Csr(#[from] rcgen::Error),
    #[error("the CA is not reached")]
    Link(#[from] LinkError),
    #[error("the CA did not answer within {} s", ATTEMPT_TIMEOUT.as_secs())]
    Timeout,
    #[error("the CA refused: {}: {}", code_name(.0.code()), .0.message())]
    Refused(Box<Status>),
    #[error("the CA's answer has no usable certificate chain")]
    Chain,
    #[error("the certificate is not for the key that was sent")]
    Key(#[source] rustls::Error),
    #[error("the certificate is not acceptable as an SVID")]
    Svid(#[source] Refusal),
    #[error("the certificate is of trust domain {0}, not of ours")]
    TrustDomain(Box<str>),
    #[error("the certificate is {0}'s, and we are somebody else")]
    OtherIdentity(SpiffeId),
}

impl RequestError {
    /// How long the CA asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        let Self::Refused(status) = self else {
            return None;
        };
        let seconds = status
            .metadata()
            .get("retry-after-seconds")?
            .to_str()
            .ok()?;
        Some(Duration::from_secs(seconds.parse().ok()?).min(MAX_RETRY_AFTER))
    }
}

impl CertificateClient {
    /// Make a key, have it certified, and check the result.
    pub async fn request(&self) -> Result<Svid, RequestError> {
        let token = self.bearer_token()?;
        let bundles = self.control.credentials.control_bundles(&self.roots)?;
        let mut key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let message = IstioCertificateRequest {
            csr: certificate_request(&key)?,
            validity_duration: i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX),
        };
        let attempt = self.server.with_link(
            &self.control.tls,
            Arc::clone(&bundles),
            AuthenticateAs::Nobody,
            |link| create_certificate(link, self.server.clone(), message, token),
        );
        let answer = timeout(ATTEMPT_TIMEOUT, attempt)
            .await
            .map_err(|_| RequestError::Timeout)??;
        let chain = parse_chain(&answer.cert_chain).ok_or(RequestError::Chain)?;
        let verified = self.check(&chain, &bundles)?;
        let certified_key = certify(chain, &key);
        key.zeroize();
        Ok(Svid {
            certified_key: Arc::new(certified_key?),
            id: verified.id,
            not_before: verified.not_before,
            not_after: verified.not_after,
        })
    }

    fn check(
        &self,
        chain: &[CertificateDer<'_>],
        bundles: &Bundles,
    ) -> Result<Verified, RequestError> {
        let (leaf, issuers) = chain.split_first().ok_or(RequestError::Chain)?;
        let now = UnixTime::now();
        let verified =
            verify(leaf, issuers, Presented::ByClient, bundles, now).map_err(RequestError::Svid)?;
        let credentials = &self.control.credentials;
        if *verified.id.trust_domain() != credentials.trust_domain {
            let other = verified.id.trust_domain().as_str().into();
            return Err(RequestError::TrustDomain(other));
        }
        // Connections, rules and logs know us by it: it does not change in a process's life.
        match credentials.svid() {
            Some(ours) if ours.id != verified.id => Err(RequestError::OtherIdentity(verified.id)),
            Some(_) | None => Ok(verified),
        }
    }

    fn bearer_token(&self) -> Result<MetadataValue<Ascii>, RequestError> {
        let text = read_bounded(&self.token)
            .map_err(|error| RequestError::Token(self.token.clone(), error))?;
        let text = text.trim();
        let mut value: MetadataValue<Ascii> = format!("Bearer {text}")
            .parse()
            .map_err(|_| RequestError::TokenContent(self.token.clone()))?;
        if text.is_empty() {
            return Err(RequestError::TokenContent(self.token.clone()));
        }
        value.set_sensitive(true);
        Ok(value)
    }
}

fn certify(
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
) -> Result<CertifiedKey, RequestError> {
    let mut der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing_key = any_supported_type(&der);
    der.zeroize();
    let certified = CertifiedKey::new(chain, signing_key.map_err(RequestError::Key)?);
    certified.keys_match().map_err(RequestError::Key)?;
    Ok(certified)
}

/// Asks for nothing but a certificate of this key: who we are is the CA's to say.
fn certificate_request(key: &KeyPair) -> Result<String, rcgen::Error> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.serialize_request(key)?.pem()
}

async fn create_certificate(
    link: Link,
    server: ControlServer,
    message: IstioCertificateRequest,
    token: MetadataValue<Ascii>,
) -> Result<IstioCertificateResponse, RequestError> {
    let mut client = tonic::client::Grpc::with_origin(link, server.origin)
        .max_decoding_message_size(MAX_RESPONSE_BYTES);
    client.ready().await.map_err(LinkError::Broken)?;
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", token);
    let codec: ProstCodec<IstioCertificateRequest, IstioCertificateResponse> =
        ProstCodec::default();
    client
        .unary(request, PathAndQuery::from_static(METHOD), codec)
        .await
        .map(tonic::Response::into_inner)
        .map_err(|status| RequestError::Refused(Box::new(status)))
}

/// All certificates of the answer but the root, which the other side has or does not trust.
fn parse_chain(texts: &[String]) -> Option<Vec<CertificateDer<'static>>> {
    let mut chain = Vec::new();
    for text in texts {
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
            chain.push(certificate.ok()?);
            if chain.len() > MAX_CHAIN {
                return None;
            }
        }
    }
    if chain.len() > 1 && is_self_issued(chain.last()?)? {
        chain.pop();
    }
    Some(chain)
}

fn is_self_issued(certificate: &CertificateDer<'_>) -> Option<bool> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.issuer().as_raw() == certificate.subject().as_raw())
}

pub(super) fn read_bounded(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_TOKEN_BYTES)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn code_name(code: Code) -> String {
    format!("{code:?}")
}
