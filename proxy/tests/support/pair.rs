//! Two sidecars as two processes would run them, workers, sockets and all: the caller's and the callee's.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::rbac::v3::{
    Permission, Policy, Principal, Rbac, permission, principal, rbac::Action,
};
use garrison_proxy::authorize::Authorization;
use garrison_proxy::mesh::cluster::{
    Balance, CircuitLimits, Cluster, Endpoint, OutlierDetection, Transport, UpstreamProtocol,
};
use garrison_proxy::mesh::listener::{Inbound, Listener, Outbound, Role, Timeouts};
use garrison_proxy::mesh::route::{
    self, Forward, PathMatch, RetryOn, RetryPolicy, Route, RouteMatch, RouteTable, VirtualHost,
    WeightedCluster,
};
use garrison_proxy::mesh::{Live, Snapshot};
use garrison_proxy::serve::{Capacity, Doors, Settings, Workers};
use garrison_proxy::telemetry::{LogTarget, Telemetry};
use garrison_proxy::tls::MeshTls;
use tokio::sync::oneshot;

use super::{Authority, CATALOG, TRUST_DOMAIN, WEB};

pub const SERVICE: &str = "bookstore/catalog";
pub const HOST: &str = "catalog.bookstore";

/// A port that nobody has at this moment, on a loopback address of its own.
pub fn free_address() -> SocketAddr {
    let [a, b] = [rand::random_range(1..=254), rand::random_range(1..=254)];
    let ip = IpAddr::V4(Ipv4Addr::new(127, 7, a, b));
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}

/// One sidecar.
pub struct Sidecar {
    pub live: Arc<Live>,
    pub telemetry: Arc<Telemetry>,
    pub doors: Doors,
    /// Its access log.
    log: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<()>,
}

impl Sidecar {
    pub fn start(authority: &Authority, id: &str, snapshot: Snapshot) -> Self {
        let tls = MeshTls::new(authority.credentials(id), Duration::from_secs(86_400));
        Self::with(&tls, snapshot)
    }

    pub fn with(tls: &MeshTls, snapshot: Snapshot) -> Self {
        Self::with_settings(tls, snapshot, settings())
    }

    pub fn of_workers(count: usize, tls: &MeshTls, snapshot: Snapshot) -> Self {
        let settings = Settings {
            workers: NonZeroUsize::new(count).unwrap(),
            ..settings()
        };
        Self::with_settings(tls, snapshot, settings)
    }

    pub fn with_settings(tls: &MeshTls, snapshot: Snapshot, settings: Settings) -> Self {
        let live = Arc::new(Live::empty());
        live.apply(Arc::new(snapshot));
        let name = format!("garrison-test-{:032x}.log", rand::random::<u128>());
        let log = std::env::temp_dir().join(name);
        let telemetry = Telemetry::start("test", &LogTarget::File(log.clone())).unwrap();
        let workers = Workers::start(settings, Arc::clone(&live), tls, &telemetry).unwrap();
        let doors = workers.doors();
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(workers.run(async { drop(stopped.await) }));
            let _ = end.send(());
        });
        until("listeners are open", || doors.are_open());
        Self {
            live,
            telemetry,
            doors,
            log,
            stop: Some(stop),
            ended,
        }
    }

    /// As SIGTERM does; what it returns is there when the drain is over.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    pub fn has_ended(&mut self) -> bool {
        self.ended.try_recv().is_ok()
    }

    pub fn metric(&self, line: &str) -> bool {
        self.telemetry.render().lines().any(|known| known == line)
    }

    /// The lines of the access log, as soon as there are so many.
    pub fn logged(&self, lines: usize) -> Vec<serde_json::Value> {
        let read = || {
            self.telemetry.flush();
            std::fs::read_to_string(&self.log).unwrap()
        };
        until("it is logged", || read().lines().count() >= lines);
        read()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.log);
    }
}

pub fn settings() -> Settings {
    Settings {
        workers: NonZeroUsize::new(2).unwrap(),
        drain: Duration::from_secs(5),
        capacity: Capacity::default(),
    }
}

/// Wait for a fact; the limit catches a hang.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not in thirty seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What differs between tests.
pub struct Shape {
    pub timeout: Option<Duration>,
    pub retry: Option<RetryPolicy>,
    pub outlier: Option<OutlierDetection>,
    pub limits: CircuitLimits,
    pub application: UpstreamProtocol,
    /// Between the proxies.
    pub link: UpstreamProtocol,
    /// Path prefixes that callers are allowed; none, and there is no rule.
    pub allowed: Vec<&'static str>,
    pub denied: Vec<&'static str>,
    pub direct: Option<(u16, &'static str)>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            timeout: Some(Duration::from_secs(5)),
            retry: Some(retry(safe())),
            outlier: None,
            limits: CircuitLimits {
                max_connections: 100,
                max_pending: 100,
                max_requests: 1000,
                retry_budget_percent: 50.0,
                min_retry_concurrency: 10,
            },
            application: UpstreamProtocol::Http1,
            link: UpstreamProtocol::Auto,
            allowed: vec!["/"],
            denied: vec!["/admin"],
            direct: None,
        }
    }
}

pub fn safe() -> RetryOn {
    RetryOn {
        connect_failure: true,
        refused_stream: true,
        reset_before_request: true,
        ..RetryOn::default()
    }
}

pub fn retry(on: RetryOn) -> RetryPolicy {
    RetryPolicy {
        max_retries: 2,
        per_try_timeout: None,
        base_interval: Duration::from_millis(1),
        max_interval: Duration::from_millis(10),
        on,
    }
}

impl Shape {
    /// The configuration of a caller of the service at these endpoints.
    pub fn caller(&self, listen: SocketAddr, endpoints: &[SocketAddr]) -> Snapshot {
        let action = match self.direct {
            Some((status, body)) => route::Action::Respond {
                status: http::StatusCode::from_u16(status).unwrap(),
                body: body.into(),
            },
            None => self.forward(SERVICE, self.retry.clone()),
        };
        let mut routes = table(action);
        routes.by_domain = HashMap::from([(HOST.into(), 0), (format!("{HOST}:8080").into(), 0)]);
        let cluster = Cluster {
            endpoints: endpoints
                .iter()
                .map(|&address| Endpoint {
                    address,
                    weight: 1,
                    healthy: true,
                })
                .collect(),
            transport: Transport::MutualTls {
                peers: [Arc::from(CATALOG)].into(),
            },
            protocol: self.link,
            ..self.cluster(SERVICE)
        };
        let role = Role::Outbound(Outbound {
            routes: Arc::new(routes),
        });
        snapshot("outbound", listen, role, cluster)
    }

    /// The configuration of the service before this application.
    pub fn callee(&self, listen: SocketAddr, application: SocketAddr) -> Snapshot {
        let mut routes = table(self.forward("application", None));
        routes.any_domain = Some(0);
        let cluster = Cluster {
            endpoints: [Endpoint {
                address: application,
                weight: 1,
                healthy: true,
            }]
            .into(),
            protocol: self.application,
            ..self.cluster("application")
        };
        let role = Role::Inbound(Inbound {
            destination: SERVICE.into(),
            trust_domains: vec![TRUST_DOMAIN.into()],
            authorization: Arc::new(self.authorization()),
            routes: Arc::new(routes),
        });
        snapshot("inbound", listen, role, cluster)
    }

    fn authorization(&self) -> Authorization {
        let rules = |action: Action, prefixes: &[&str]| Rbac {
            action: action.into(),
            policies: prefixes
                .iter()
                .map(|prefix| (format!("authz/test.csv:{prefix}"), policy(prefix)))
                .collect(),
            ..Rbac::default()
        };
        Authorization::compile(
            &rules(Action::Deny, &self.denied),
            &rules(Action::Allow, &self.allowed),
        )
        .unwrap()
    }

    fn forward(&self, cluster: &str, retry: Option<RetryPolicy>) -> route::Action {
        route::Action::Forward(Forward {
            clusters: [WeightedCluster {
                name: cluster.into(),
                weight: 1,
            }]
            .into(),
            timeout: self.timeout,
            retry,
        })
    }

    fn cluster(&self, name: &str) -> Cluster {
        Cluster {
            name: name.into(),
            service: SERVICE.into(),
            endpoints: Box::default(),
            transport: Transport::Plaintext,
            protocol: UpstreamProtocol::Http1,
            balance: Balance::PeakEwma,
            connect_timeout: Duration::from_secs(1),
            outlier: self.outlier.clone(),
            limits: self.limits.clone(),
        }
    }
}

fn snapshot(name: &str, address: SocketAddr, role: Role, cluster: Cluster) -> Snapshot {
    Snapshot {
        commit: "3f2c9a1".into(),
        listeners: vec![Arc::new(Listener {
            name: name.into(),
            address,
            role,
            timeouts: Timeouts::default(),
        })],
        clusters: HashMap::from([(Arc::clone(&cluster.name), Arc::new(cluster))]),
    }
}

fn table(action: route::Action) -> RouteTable {
    let matcher = RouteMatch {
        path: PathMatch::Prefix("/".into()),
        methods: None,
        headers: Box::default(),
        query: Box::default(),
    };
    let route = Arc::new(Route {
        name: "bookstore/catalog#default".into(),
        matcher,
        action,
    });
    RouteTable {
        name: "test".into(),
        by_domain: HashMap::new(),
        any_domain: None,
        virtual_hosts: vec![VirtualHost {
            name: SERVICE.into(),
            routes: vec![route],
        }],
    }
}

fn policy(prefix: &str) -> Policy {
    use envoy_types::pb::envoy::r#type::matcher::v3::{
        PathMatcher, StringMatcher, path_matcher, string_matcher,
    };
    let matcher = StringMatcher {
        match_pattern: Some(string_matcher::MatchPattern::Prefix(prefix.to_owned())),
        ..StringMatcher::default()
    };
    let path = PathMatcher {
        rule: Some(path_matcher::Rule::Path(matcher)),
    };
    Policy {
        permissions: vec![Permission {
            rule: Some(permission::Rule::UrlPath(path)),
        }],
        principals: vec![Principal {
            identifier: Some(principal::Identifier::Any(true)),
        }],
        ..Policy::default()
    }
}

/// A caller's and a callee's sidecar, and the application behind.
pub struct Pair {
    pub shape: Shape,
    pub caller: Sidecar,
    pub callee: Sidecar,
    /// Where the calling application finds its proxy.
    pub outbound: SocketAddr,
    pub inbound: SocketAddr,
    pub authority: Authority,
}

impl Pair {
    pub fn start(shape: Shape, application: SocketAddr) -> Self {
        Self::beside(shape, application, &[])
    }

    /// With more endpoints than the one that there is.
    pub fn beside(shape: Shape, application: SocketAddr, others: &[SocketAddr]) -> Self {
        let authority = Authority::new(TRUST_DOMAIN);
        let (outbound, inbound) = (free_address(), free_address());
        let endpoints = [&[inbound], others].concat();
        let (at_server, at_client) = (
            shape.callee(inbound, application),
            shape.caller(outbound, &endpoints),
        );
        Self {
            callee: Sidecar::start(&authority, CATALOG, at_server),
            caller: Sidecar::start(&authority, WEB, at_client),
            shape,
            outbound,
            inbound,
            authority,
        }
    }
}
