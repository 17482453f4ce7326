//! The one verifier of peers, in both roles of a TLS handshake: SPIFFE's rules in place of the web's.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

use crate::identity::bundle::Bundles;
use crate::identity::svid::{self, Presented, Refusal, Verified};

/// Whom one connection may be with.
#[derive(Debug)]
pub(super) enum Expected {
    /// Any workload of these trust domains.
    TrustDomains(Box<[Arc<str>]>),
    /// One of these SPIFFE IDs.
    Ids(Box<[Arc<str>]>),
}

/// Verifies the peer of one connection, and keeps what it found.
#[derive(Debug)]
pub(super) struct Verifier {
    pub provider: Arc<CryptoProvider>,
    pub bundles: Arc<Bundles>,
    pub expected: Expected,
    pub max_lifetime: Option<Duration>,
    pub outcome: OnceLock<Result<Verified, Refusal>>,
}

impl Verifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        presented: Presented,
        now: UnixTime,
    ) -> Result<(), Error> {
        let outcome = svid::verify(leaf, intermediates, presented, &self.bundles, now)
            .and_then(|verified| self.admit(verified));
        let answer = match &outcome {
            Ok(_) => Ok(()),
            Err(refusal) => Err(Error::InvalidCertificate(CertificateError::Other(
                OtherError(Arc::new(refusal.clone())),
            ))),
        };
        match self.outcome.set(outcome) {
            Ok(()) => answer,
            // A handshake has one certificate message; never let a second one replace what the first proved.
            Err(_) => Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            )),
        }
    }

    fn admit(&self, verified: Verified) -> Result<Verified, Refusal> {
        let lifetime = verified.not_after.duration_since(verified.not_before);
        if let Some(most) = self.max_lifetime
            && lifetime.is_ok_and(|lifetime| lifetime > most)
        {
            return Err(Refusal::LivesTooLong);
        }
        let trust_domain = verified.id.trust_domain().as_str();
        match &self.expected {
            Expected::TrustDomains(names) if names.iter().any(|name| **name == *trust_domain) => {
                Ok(verified)
            }
            Expected::TrustDomains(_) => Err(Refusal::TrustDomain(trust_domain.into())),
            Expected::Ids(ids) if ids.iter().any(|id| **id == *verified.id.as_str()) => {
                Ok(verified)
            }
            Expected::Ids(_) => Err(Refusal::UnexpectedPeer(verified.id.uri())),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signature, algorithms)
    }
}

fn only_tls13() -> Error {
    Error::General("only TLS 1.3 is spoken here".to_owned())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, intermediates, Presented::ByServer, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, intermediates, Presented::ByClient, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
