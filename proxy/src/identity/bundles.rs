//! Trust bundles from the CA: SDS, delta, one `Secret` for each trust domain named `spiffe://TD` (`docs/seams.md`). A
//! response is taken whole or refused whole; while the CA is away the last good bundles stay.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::DataSource;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret,
};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use prost::Name;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::BootstrapError;
use super::bundle::{Bundles, Roots, RootsError};
use super::spiffe_id::{SpiffeIdError, TrustDomain};
use super::svid::Svid;
use crate::backoff::Backoff;
use crate::causes::with_causes;
use crate::control_plane::{ControlPlane, ControlServer, LinkError};
use crate::telemetry::Server;
use crate::tls::AuthenticateAs;
use crate::xds::decode::{Fault, open};
use crate::xds::delta::{DeltaStream, StreamError, subscribe_to_all};

const METHOD: &str = "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets";
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(15);
/// Trust domains that one mesh may be federated with; a bound.
const MAX_TRUST_DOMAINS: usize = 256;

#[derive(Debug)]
pub(super) struct BundleClient {
    pub control: ControlPlane,
    pub server: ControlServer,
    pub roots: PathBuf,
    /// Versions of the bundles that are held.
    pub versions: HashMap<String, String>,
}

#[derive(Debug, Error)]
enum SessionError {
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// Why a pushed bundle is refused.
#[derive(Debug, Error)]
enum BundleError {
    #[error("{0:?}: {1}")]
    Secret(String, Fault),
    #[error("{0:?} names no trust domain: {1}")]
    Name(String, SpiffeIdError),
    #[error("{0:?} has no validation_context.trusted_ca.inline_bytes, or has more")]
    Shape(String),
    #[error("{0:?}: {1}")]
    Roots(String, RootsError),
    #[error("{0:?} is our own trust domain's: its bundle cannot go")]
    Own(String),
    #[error("over {MAX_TRUST_DOMAINS} trust domains")]
    TooMany,
}

impl BundleClient {
    /// Follow the CA's bundles for ever, from the first SVID on.
    pub async fn follow(mut self) -> Infallible {
        let mut backoff = Backoff::new(FIRST_BACKOFF, MAX_BACKOFF);
        let mut renewals = self.control.credentials.renewals();
        loop {
            if self.control.credentials.valid_svid().is_none() {
                // Nothing to connect with; the sender lives as long as we do.
                let _ = renewals.changed().await;
                continue;
            }
            renewals.mark_unchanged();
            if let Err(error) = self.session(&mut renewals, &mut backoff).await {
                let error = with_causes(&error);
                warn!(error, "bundle stream lost");
                self.control
                    .telemetry
                    .control
                    .set_connected(Server::Bundles, false);
                sleep(backoff.next()).await;
            }
        }
    }

    /// One stream; it ends well when our SVID was renewed, so that the CA sees the new one.
    async fn session(
        &mut self,
        renewals: &mut watch::Receiver<Option<Arc<Svid>>>,
        backoff: &mut Backoff,
    ) -> Result<(), SessionError> {
        let bundles = self.control.credentials.control_bundles(&self.roots)?;
        let (server, tls) = (self.server.clone(), self.control.tls.clone());
        let session = server.with_link(&tls, bundles, AuthenticateAs::Svid, async |link| {
            let first = subscribe_to_all(Secret::type_url(), self.versions.clone());
            let (origin, node) = (server.origin.clone(), self.control.node.clone());
            let mut stream = DeltaStream::open(link, origin, METHOD, node, vec![first]).await?;
            loop {
                let response = stream.next().await?;
                backoff.reset();
                let telemetry = &self.control.telemetry;
                telemetry.control.set_connected(Server::Bundles, true);
                let (type_url, nonce) = (response.type_url.clone(), response.nonce.clone());
                let verdict = self.take(response).map_err(|error| error.to_string());
                if let Err(reason) = &verdict {
                    warn!(reason, "trust bundle refused");
                }
                stream.answer(type_url, nonce, verdict)?;
            }
        });
        tokio::select! {
            _ = renewals.changed() => Ok(()),
            ended = Box::pin(session) => ended,
        }
    }

    /// Take a response whole, or nothing of it.
    fn take(&mut self, response: DeltaDiscoveryResponse) -> Result<(), BundleError> {
        let mut bundles = Bundles::clone(&self.control.credentials.bundles());
        let mut versions = self.versions.clone();
        for resource in response.resources {
            let (name, version) = (resource.name.clone(), resource.version.clone());
            let (trust_domain, roots) = roots_of(resource)?;
            bundles.insert(trust_domain, roots);
            versions.insert(name, version);
        }
        for name in response.removed_resources {
            if let Ok(trust_domain) = TrustDomain::parse_uri(&name) {
                if trust_domain == self.control.credentials.trust_domain {
                    return Err(BundleError::Own(name));
                }
                bundles.remove(&trust_domain);
            }
            versions.remove(&name);
        }
        if versions.len() > MAX_TRUST_DOMAINS {
            return Err(BundleError::TooMany);
        }
        self.versions = versions;
        if bundles != *self.control.credentials.bundles() {
            info!(trust_domains = ?bundles.trust_domains(), sequence = response.system_version_info, "trust bundles changed");
            self.control.telemetry.control.bundle_updates.one();
            self.control.credentials.set_bundles(Arc::new(bundles));
        }
        Ok(())
    }
}

fn roots_of(resource: Resource) -> Result<(TrustDomain, Roots), BundleError> {
    let name = resource.name;
    let trust_domain =
        TrustDomain::parse_uri(&name).map_err(|error| BundleError::Name(name.clone(), error))?;
    let payload = resource
        .resource
        .ok_or_else(|| BundleError::Shape(name.clone()))?;
    let secret: Secret =
        open(&payload).map_err(|fault| BundleError::Secret(name.clone(), fault))?;
    let Some(pem) = inline_roots(&name, secret) else {
        return Err(BundleError::Shape(name));
    };
    let roots = Roots::from_pem(&pem).map_err(|error| BundleError::Roots(name, error))?;
    Ok((trust_domain, roots))
}

/// The PEM of the one form of secret that is a bundle: nothing else may be set.
fn inline_roots(name: &str, secret: Secret) -> Option<Vec<u8>> {
    let Some(Type::ValidationContext(context)) = secret.r#type else {
        return None;
    };
    let Some(Specifier::InlineBytes(pem)) = context.trusted_ca.clone()?.specifier else {
        return None;
    };
    let only = CertificateValidationContext {
        trusted_ca: Some(DataSource {
            specifier: Some(Specifier::InlineBytes(pem.clone())),
            watched_directory: None,
        }),
        ..CertificateValidationContext::default()
    };
    (context == only && secret.name == name).then_some(pem)
}
