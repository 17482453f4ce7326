//! The whole proxy, put together: the control side on the calling thread (identity, bundles, configuration, admin),
//! the request path on worker threads, and between them only what is swapped whole: credentials and configuration.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::google::protobuf::{Struct, Value, value};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use crate::admin::Admin;
use crate::config::Config;
use crate::control_plane::ControlPlane;
use crate::identity::{BootstrapError, Credentials, check_files, maintain};
use crate::mesh::Live;
use crate::process;
use crate::serve::{self, Capacity, Settings, Workers};
use crate::telemetry::Telemetry;
use crate::tls::MeshTls;
use crate::xds::PolicyClient;

/// Why the proxy does not start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("cannot set the limits of this process")]
    Limits(#[source] io::Error),
    #[error("[ca] is unusable")]
    Bootstrap(#[from] BootstrapError),
    #[error("cannot make the control side's runtime")]
    Runtime(#[source] io::Error),
    #[error("cannot open access_log; name a file that can be written, stdout or off")]
    AccessLog(#[source] io::Error),
    #[error("cannot listen on {0}.listen = {1}; choose a free address")]
    Listen(&'static str, SocketAddr, #[source] io::Error),
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    #[error("cannot start the worker threads")]
    Workers(#[source] io::Error),
}

/// Run until SIGTERM or SIGINT, then let what is in flight end. A second signal ends it at once.
pub fn run(config: &Config) -> Result<(), StartError> {
    process::prepare().map_err(StartError::Limits)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?
        .block_on(Proxy::start(config)?.serve(config))
}

struct Proxy {
    control: ControlPlane,
    live: Arc<Live>,
    workers: Workers,
}

impl Proxy {
    fn start(config: &Config) -> Result<Self, StartError> {
        check_files(&config.ca)?;
        let telemetry =
            Telemetry::start(&config.node.id, &config.access_log).map_err(StartError::AccessLog)?;
        let credentials = Arc::new(Credentials::none(config.trust_domain.clone()));
        let tls = MeshTls::new(Arc::clone(&credentials), config.ca.max_peer_svid_lifetime);
        let live = Arc::new(Live::empty());
        let settings = Settings {
            workers: config.workers,
            drain: config.drain,
            capacity: Capacity::default(),
        };
        let workers = Workers::start(settings, Arc::clone(&live), &tls, &telemetry)
            .map_err(StartError::Workers)?;
        let node = node(config);
        let control = ControlPlane {
            credentials,
            tls,
            node,
            telemetry,
        };
        Ok(Self {
            control,
            live,
            workers,
        })
    }

    /// Identity and configuration are kept current while requests end, too.
    async fn serve(self, config: &Config) -> Result<(), StartError> {
        let Self {
            control,
            live,
            workers,
        } = self;
        let address = config.admin.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| StartError::Listen("admin", address, error))?;
        check_free(config)?;
        let admin = Arc::new(Admin {
            node: config.node.id.clone(),
            telemetry: Arc::clone(&control.telemetry),
            live: Arc::clone(&live),
            credentials: Arc::clone(&control.credentials),
            doors: workers.doors(),
        });
        let mut first = Signals::new().map_err(StartError::Signals)?;
        let mut second = Signals::new().map_err(StartError::Signals)?;
        let telemetry = Arc::clone(&control.telemetry);
        let policy = PolicyClient::new(control.clone(), &config.policy, live);
        info!(node = config.node.id, trust_domain = %config.trust_domain, "proxy started");
        tokio::select! {
            never = Box::pin(maintain(control, &config.ca)) => match never {},
            never = Box::pin(policy.follow()) => match never {},
            () = admin.serve(listener) => {}
            () = workers.run(first.received(1)) => {}
            () = second.received(2) => {}
        }
        telemetry.flush();
        info!("proxy ended");
        Ok(())
    }
}

/// Fail early: these are opened only when the policy server says what to do there.
fn check_free(config: &Config) -> Result<(), StartError> {
    let inbound = config.inbound.as_ref().map(|inbound| inbound.listen);
    let outbound = config.outbound.as_ref().map(|outbound| outbound.listen);
    for (name, address) in [("inbound", inbound), ("outbound", outbound)] {
        if let Some(address) = address {
            serve::check_free(address).map_err(|error| StartError::Listen(name, address, error))?;
        }
    }
    Ok(())
}

/// The signals that ask a process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Wait until so many have come.
    async fn received(&mut self, count: u32) {
        for _ in 0..count {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
        }
    }
}

/// How this instance tells the policy server where it listens (`docs/seams.md`).
fn node(config: &Config) -> Node {
    let inbound = config.inbound.as_ref();
    let addresses = [
        ("inbound", inbound.map(|inbound| inbound.listen)),
        ("application", inbound.map(|inbound| inbound.application)),
        (
            "outbound",
            config.outbound.as_ref().map(|outbound| outbound.listen),
        ),
    ];
    let fields: HashMap<_, _> = addresses
        .into_iter()
        .filter_map(|(key, address)| {
            let kind = Some(value::Kind::StringValue(address?.to_string()));
            Some((key.to_owned(), Value { kind }))
        })
        .collect();
    Node {
        id: config.node.id.clone(),
        user_agent_name: "garrison-proxy".to_owned(),
        metadata: Some(Struct { fields }),
        ..Node::default()
    }
}
