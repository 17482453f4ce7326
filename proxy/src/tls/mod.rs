//! Mutual TLS between workloads, and towards the control plane: TLS 1.3 only, a post-quantum hybrid first, every
//! connection a full handshake (no tickets, no session store, no early data).

mod standing;
mod verifier;

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, CommonState, NamedGroup, ServerConfig};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::identity::Credentials;
use crate::identity::bundle::Bundles;
use crate::identity::spiffe_id::SpiffeId;
use crate::identity::svid::{Presented, Refusal, Svid, Verified, verify};
pub use standing::{Standing, Standings};
use verifier::{Expected, Verifier};

/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Makes mutual TLS connections with the SVID and the bundles of the moment. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MeshTls {
    credentials: Arc<Credentials>,
    provider: Arc<CryptoProvider>,
    max_peer_lifetime: Duration,
}

/// An encrypted stream, and who is at its other end.
#[derive(Debug)]
pub struct Secured<S> {
    pub stream: S,
    pub peer: Peer,
}

/// A peer whose SVID passed every check.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The whole SPIFFE ID, `spiffe://…`.
    pub id: Arc<str>,
    /// When its SVID expires: the connection must not outlive it.
    pub not_after: SystemTime,
    /// For the count of handshakes, such as `x25519mlkem768`.
    pub key_exchange: &'static str,
    pub alpn: Alpn,
    trust: Trust,
}

/// By what a peer was believed, so that it can be asked again.
#[derive(Debug, Clone)]
struct Trust {
    chain: Arc<[CertificateDer<'static>]>,
    presented: Presented,
    bundles: Arc<Bundles>,
}

impl Trust {
    fn holds_under(&self, bundles: &Bundles, id: &SpiffeId) -> bool {
        // Roots were added, or another trust domain's changed: as trusted as before.
        let roots = |bundles: &Bundles| bundles.get(id.trust_domain()).cloned();
        if let (Some(before), Some(after)) = (roots(&self.bundles), roots(bundles))
            && after.has_all_of(&before)
        {
            return true;
        }
        let Some((leaf, issuers)) = self.chain.split_first() else {
            return false;
        };
        verify(leaf, issuers, self.presented, bundles, UnixTime::now()).is_ok()
    }
}

/// What is spoken inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    H2,
    Http1,
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum HandshakeError {
    #[error("this proxy has no identity yet")]
    NoIdentity,
    #[error("this proxy's own SVID is expired")]
    IdentityExpired,
    #[error("the peer's certificate is refused")]
    Refused(#[source] Refusal),
    #[error("the peer sent no certificate that could be verified")]
    Unverified,
    #[error("the handshake took longer than {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    #[error("the peer chose an application protocol that was not offered")]
    Alpn,
    #[error("this proxy's TLS settings are unusable")]
    Settings(#[source] rustls::Error),
    #[error("the handshake failed")]
    Failed(#[source] io::Error),
}

impl HandshakeError {
    /// The fixed label under which it is counted.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoIdentity => "no_identity",
            Self::IdentityExpired => "identity_expired",
            Self::Refused(refusal) => refusal.label(),
            Self::Unverified => "unverified",
            Self::Timeout => "timeout",
            Self::Alpn => "alpn",
            Self::Settings(_) => "settings",
            Self::Failed(_) => "failed",
        }
    }
}

/// How a connection to the control plane is made: as ourselves, or before we are anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthenticateAs {
    Svid,
    Nobody,
}

impl MeshTls {
    pub fn new(credentials: Arc<Credentials>, max_peer_lifetime: Duration) -> Self {
        let mut provider = default_provider();
        provider.cipher_suites = vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        Self {
            credentials,
            provider: Arc::new(provider),
            max_peer_lifetime,
        }
    }

    /// Our SPIFFE ID, once we have one.
    pub fn own_id(&self) -> Option<Arc<str>> {
        self.credentials.svid().map(|svid| svid.id.uri())
    }

    /// Take a connection from any workload of these trust domains.
    pub async fn accept(
        &self,
        stream: TcpStream,
        trust_domains: &[Arc<str>],
    ) -> Result<Secured<server::TlsStream<TcpStream>>, HandshakeError> {
        let verifier = self.verifier(
            Expected::TrustDomains(trust_domains.into()),
            self.credentials.bundles(),
            Some(self.max_peer_lifetime),
        );
        let own = self.own_svid()?;
        let config = self.server_config(&own, Arc::clone(&verifier))?;
        let handshake = TlsAcceptor::from(Arc::new(config)).accept(stream);
        let stream = finish(timeout(HANDSHAKE_TIMEOUT, handshake).await, &verifier)?;
        let peer = peer_of(&verifier, Presented::ByClient, stream.get_ref().1)?;
        Ok(Secured { stream, peer })
    }

    /// Connect to a server whose SPIFFE ID must be one of `peers`.
    pub async fn connect(
        &self,
        stream: TcpStream,
        peers: &[Arc<str>],
    ) -> Result<Secured<client::TlsStream<TcpStream>>, HandshakeError> {
        let verifier = self.verifier(
            Expected::Ids(peers.into()),
            self.credentials.bundles(),
            Some(self.max_peer_lifetime),
        );
        let own = self.own_svid()?;
        let mut config = self.client_config(Some(&own), &verifier)?;
        config.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
        handshake(stream, config, &verifier).await
    }

    /// Connect to a service of the control plane, pinned by its SPIFFE ID and the given bundles; HTTP/2 only.
    pub async fn connect_control(
        &self,
        stream: TcpStream,
        service: &Arc<str>,
        bundles: Arc<Bundles>,
        authenticate_as: AuthenticateAs,
    ) -> Result<Secured<client::TlsStream<TcpStream>>, HandshakeError> {
        // The CA's own SVID may outlive a workload's: only its issuer bounds it.
        let verifier = self.verifier(Expected::Ids([Arc::clone(service)].into()), bundles, None);
        let own = match authenticate_as {
            AuthenticateAs::Svid => Some(self.own_svid()?),
            AuthenticateAs::Nobody => None,
        };
        let mut config = self.client_config(own.as_deref(), &verifier)?;
        config.alpn_protocols = vec![H2.to_vec()];
        handshake(stream, config, &verifier).await
    }

    /// Is a peer that was believed in its handshake believed by the bundles of now?
    pub fn believes(&self, peer: &Peer) -> bool {
        let bundles = self.credentials.bundles();
        Arc::ptr_eq(&bundles, &peer.trust.bundles)
            || SpiffeId::parse(&peer.id).is_ok_and(|id| peer.trust.holds_under(&bundles, &id))
    }

    pub fn bundle_changes(&self) -> watch::Receiver<Arc<Bundles>> {
        self.credentials.bundle_changes()
    }

    fn own_svid(&self) -> Result<Arc<Svid>, HandshakeError> {
        let svid = self.credentials.svid().ok_or(HandshakeError::NoIdentity)?;
        if svid.not_after <= SystemTime::now() {
            return Err(HandshakeError::IdentityExpired);
        }
        Ok(svid)
    }

    fn verifier(
        &self,
        expected: Expected,
        bundles: Arc<Bundles>,
        max_lifetime: Option<Duration>,
    ) -> Arc<Verifier> {
        Arc::new(Verifier {
            provider: Arc::clone(&self.provider),
            bundles,
            expected,
            max_lifetime,
            outcome: OnceLock::new(),
        })
    }

    fn server_config(
        &self,
        own: &Svid,
        verifier: Arc<Verifier>,
    ) -> Result<ServerConfig, HandshakeError> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(HandshakeError::Settings)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(Own(Arc::clone(&own.certified_key))));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
        Ok(config)
    }

    fn client_config(
        &self,
        own: Option<&Svid>,
        verifier: &Arc<Verifier>,
    ) -> Result<ClientConfig, HandshakeError> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(HandshakeError::Settings)?
            .dangerous() // only the name: our verifier is stricter than the one it replaces
            .with_custom_certificate_verifier(Arc::clone(verifier) as Arc<_>);
        let mut config = match own {
            Some(own) => {
                let key = SingleCertAndKey::from(Arc::clone(&own.certified_key));
                builder.with_client_cert_resolver(Arc::new(key) as Arc<dyn ResolvesClientCert>)
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_sni = false;
        Ok(config)
    }
}

/// Presents the one SVID that we have, whatever name was asked for.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

async fn handshake(
    stream: TcpStream,
    config: ClientConfig,
    verifier: &Verifier,
) -> Result<Secured<client::TlsStream<TcpStream>>, HandshakeError> {
    let address = stream
        .peer_addr()
        .map_or(IpAddr::from([0; 4]), |address| address.ip());
    let connector = TlsConnector::from(Arc::new(config));
    let handshake = connector.connect(ServerName::from(address), stream);
    let stream = finish(timeout(HANDSHAKE_TIMEOUT, handshake).await, verifier)?;
    let peer = peer_of(verifier, Presented::ByServer, stream.get_ref().1)?;
    Ok(Secured { stream, peer })
}

/// Prefer our verifier's reason to TLS's account of it.
fn finish<S>(
    outcome: Result<io::Result<S>, tokio::time::error::Elapsed>,
    verifier: &Verifier,
) -> Result<S, HandshakeError> {
    match outcome {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(match verifier.outcome.get() {
            Some(Err(refusal)) => HandshakeError::Refused(refusal.clone()),
            Some(Ok(_)) | None => HandshakeError::Failed(error),
        }),
        Err(_) => Err(HandshakeError::Timeout),
    }
}

fn peer_of(
    verifier: &Verifier,
    presented: Presented,
    connection: &CommonState,
) -> Result<Peer, HandshakeError> {
    let Some(Ok(Verified { id, not_after, .. })) = verifier.outcome.get() else {
        return Err(HandshakeError::Unverified);
    };
    let alpn = match connection.alpn_protocol() {
        Some(H2) => Alpn::H2,
        Some(HTTP1) | None => Alpn::Http1,
        Some(_) => return Err(HandshakeError::Alpn),
    };
    let group = connection
        .negotiated_key_exchange_group()
        .map(rustls::crypto::SupportedKxGroup::name);
    Ok(Peer {
        id: id.uri(),
        not_after: *not_after,
        key_exchange: match group {
            Some(NamedGroup::X25519MLKEM768) => "x25519mlkem768",
            Some(NamedGroup::X25519) => "x25519",
            Some(NamedGroup::secp256r1) => "secp256r1",
            Some(NamedGroup::secp384r1) => "secp384r1",
            Some(_) | None => "other",
        },
        alpn,
        trust: Trust {
            chain: connection.peer_certificates().unwrap_or_default().into(),
            presented,
            bundles: Arc::clone(&verifier.bundles),
        },
    })
}
