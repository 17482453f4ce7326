//! Following the policy server: one delta ADS stream over mutual TLS. Each response is decoded, staged and answered as it
//! comes; a commit's marker is acknowledged only when the commit is enforced. While the policy server is away, what is
//! enforced stays.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::delta::{DeltaStream, StreamError, subscribe_to_all};
use super::resource::Kind;
use super::staging::{Incoming, Rejected, Staging, Versioned};
use crate::backoff::Backoff;
use crate::causes::with_causes;
use crate::config::Policy;
use crate::control_plane::{ControlPlane, ControlServer, LinkError};
use crate::identity::svid::Svid;
use crate::mesh::{Live, Snapshot};
use crate::telemetry::Server;
use crate::tls::AuthenticateAs;

const METHOD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub struct PolicyClient {
    control: ControlPlane,
    server: ControlServer,
    live: Arc<Live>,
    /// What the server has sent, across streams.
    staging: Staging,
}

#[derive(Debug, Error)]
enum SessionError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Stream(#[from] StreamError),
}

impl PolicyClient {
    pub fn new(control: ControlPlane, policy: &Policy, live: Arc<Live>) -> Self {
        let trust_domain = &control.credentials.trust_domain;
        let origin = "https://policy.garrison";
        Self {
            server: ControlServer::new(trust_domain, policy.address, "policy-server", origin),
            control,
            live,
            staging: Staging::default(),
        }
    }

    /// Follow the policy server for ever, from the first SVID and the first bundle on.
    pub async fn follow(mut self) -> Infallible {
        let mut backoff = Backoff::new(FIRST_BACKOFF, MAX_BACKOFF);
        let mut renewals = self.control.credentials.renewals();
        let mut bundles = self.control.credentials.bundle_changes();
        loop {
            if self.control.credentials.valid_svid().is_none() || !self.has_own_bundle() {
                // The senders live as long as we do: neither can be closed.
                tokio::select! {
                    _ = renewals.changed() => {}
                    _ = bundles.changed() => {}
                }
                continue;
            }
            renewals.mark_unchanged();
            if let Err(error) = self.session(&mut renewals, &mut backoff).await {
                let error = with_causes(&error);
                warn!(error, "policy stream lost");
                self.control
                    .telemetry
                    .control
                    .set_connected(Server::Policy, false);
                sleep(backoff.next()).await;
            }
        }
    }

    fn has_own_bundle(&self) -> bool {
        let bundles = self.control.credentials.bundles();
        bundles
            .get(&self.control.credentials.trust_domain)
            .is_some()
    }

    /// One stream; it ends well when our SVID was renewed, so that the server sees the new one.
    async fn session(
        &mut self,
        renewals: &mut watch::Receiver<Option<Arc<Svid>>>,
        backoff: &mut Backoff,
    ) -> Result<(), SessionError> {
        let (server, tls) = (self.server.clone(), self.control.tls.clone());
        let bundles = self.control.credentials.bundles();
        let session = server.with_link(&tls, bundles, AuthenticateAs::Svid, async |link| {
            let first = Kind::ALL
                .map(|kind| subscribe_to_all(kind.type_url(), self.staging.versions(kind)));
            let (origin, node) = (server.origin.clone(), self.control.node.clone());
            let mut stream = DeltaStream::open(link, origin, METHOD, node, first.into()).await?;
            loop {
                let response = stream.next().await?;
                backoff.reset();
                let telemetry = &self.control.telemetry;
                telemetry.control.set_connected(Server::Policy, true);
                let (type_url, nonce) = (response.type_url.clone(), response.nonce.clone());
                let verdict = self.receive(response);
                stream.answer(type_url, nonce, verdict)?;
            }
        });
        tokio::select! {
            _ = renewals.changed() => Ok(()),
            ended = Box::pin(session) => ended,
        }
    }

    fn receive(&mut self, response: DeltaDiscoveryResponse) -> Result<(), String> {
        let commit = response.system_version_info.clone();
        match incoming(response).and_then(|incoming| self.staging.receive(incoming)) {
            Ok(None) => Ok(()),
            Ok(Some(snapshot)) => {
                self.enforce(&snapshot);
                Ok(())
            }
            Err(Rejected(reason)) => {
                self.control.telemetry.control.configurations_refused.one();
                warn!(commit, reason, "configuration refused");
                Err(reason)
            }
        }
    }

    /// From here on each request meets this configuration. A listener that is new in it and cannot be made is told of by
    /// `/ready`: it must not keep the rules of the others from being enforced.
    fn enforce(&self, snapshot: &Arc<Snapshot>) {
        self.live.apply(Arc::clone(snapshot));
        let control = &self.control.telemetry.control;
        if control.commit().as_ref() != Some(&snapshot.commit) {
            info!(commit = %snapshot.commit, "commit enforced");
        }
        control.applied(&snapshot.commit, SystemTime::now());
    }
}

fn incoming(response: DeltaDiscoveryResponse) -> Result<Incoming, Rejected> {
    let kind = Kind::of_type_url(&response.type_url)
        .ok_or_else(|| Rejected(format!("type {:?} was not asked for", response.type_url)))?;
    let resources = response.resources.into_iter().map(versioned);
    Ok(Incoming {
        kind,
        commit: response.system_version_info,
        resources: resources.collect::<Result<_, _>>()?,
        removed: response.removed_resources,
    })
}

/// Take a resource out of its envelope, which may say nothing more about it.
fn versioned(resource: Resource) -> Result<Versioned, Rejected> {
    match resource {
        Resource {
            name,
            version,
            resource: payload,
            aliases,
            resource_name: None,
            ttl: None,
            cache_control: None,
            metadata: None,
        } if aliases.is_empty() => Ok(Versioned {
            name,
            version,
            payload,
        }),
        other => Err(Rejected(format!(
            "Resource {:?} has more than name, version and resource",
            other.name
        ))),
    }
}
