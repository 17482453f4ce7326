//! The operator's door, on loopback: `/metrics`, `/live`, `/ready`, `/config`.
//!
//! It has no authentication, so it is read-only, says no secret, and answers only requests that name a loopback host:
//! a web page in a browser on this machine, whose name was made to resolve to 127.0.0.1, gets nothing. It is bounded: few
//! connections, short ones.

mod dump;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::identity::Credentials;
use crate::mesh::Live;
use crate::serve::Doors;
use crate::telemetry::Telemetry;

const MAX_CONNECTIONS: usize = 64;
const MAX_HEAD_BYTES: usize = 16 << 10;
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Of a connection; a scraper makes a new one.
const MAX_LIFE: Duration = Duration::from_secs(120);
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What there is to tell.
#[derive(Debug)]
pub struct Admin {
    /// This instance's name.
    pub node: String,
    pub telemetry: Arc<Telemetry>,
    pub live: Arc<Live>,
    pub credentials: Arc<Credentials>,
    pub doors: Doors,
}

impl Admin {
    /// Answer on this listener until dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            while connections.len() >= MAX_CONNECTIONS {
                connections.join_next().await;
            }
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, _)) => {
                    connections.spawn(Arc::clone(&self).serve_connection(stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "admin accept failed");
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    async fn serve_connection(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(|request: Request<Incoming>| {
            let response = self.answer(request.method(), request.uri().path(), request.headers());
            async { Ok::<_, Infallible>(response.map(Full::new)) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        if let Ok(Err(error)) = timeout(MAX_LIFE, connection).await {
            tracing::debug!(%error, "admin connection failed");
        }
    }

    fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Bytes> {
        if !names_loopback(headers) {
            let text = "this door answers only to the name localhost or a loopback address\n";
            return plain(StatusCode::MISDIRECTED_REQUEST, text);
        }
        if method != Method::GET && method != Method::HEAD {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/metrics" => {
                let kind = "text/plain; version=0.0.4; charset=utf-8";
                respond(StatusCode::OK, kind, self.telemetry.render())
            }
            "/live" => plain(StatusCode::OK, "live\n"),
            "/ready" => self.ready(),
            "/config" => json(StatusCode::OK, &dump::dump(self)),
            _ => plain(StatusCode::NOT_FOUND, "/metrics\n/live\n/ready\n/config\n"),
        }
    }

    fn ready(&self) -> Response<Bytes> {
        let missing = self.missing();
        let status = match missing.as_slice() {
            [] => StatusCode::OK,
            [..] => StatusCode::SERVICE_UNAVAILABLE,
        };
        json(
            status,
            &serde_json::json!({"ready": missing.is_empty(), "missing": missing}),
        )
    }

    /// What must be there, and is not, before requests are taken.
    fn missing(&self) -> Vec<&'static str> {
        let control = &self.telemetry.control;
        let bundles = self.credentials.bundles();
        let needed = [
            ("identity", self.credentials.valid_svid().is_some()),
            (
                "bundle",
                bundles.get(&self.credentials.trust_domain).is_some(),
            ),
            ("configuration", self.live.load().is_some()),
            ("listeners", self.doors.are_open()),
            ("draining", !control.is_draining()),
        ];
        needed
            .into_iter()
            .filter(|(_, there)| !there)
            .map(|(name, _)| name)
            .collect()
    }
}

fn names_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn plain(status: StatusCode, text: &'static str) -> Response<Bytes> {
    respond(status, "text/plain; charset=utf-8", text)
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Bytes> {
    respond(status, "application/json", value.to_string())
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::SystemTime;

    use envoy_types::pb::envoy::config::rbac::v3::rbac::Action as RbacAction;
    use envoy_types::pb::envoy::config::rbac::v3::{Policy, Rbac};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::authorize::Authorization;
    use crate::identity::spiffe_id::TrustDomain;
    use crate::mesh::Snapshot;
    use crate::mesh::cluster::{
        Balance, CircuitLimits, Cluster, Endpoint, Transport, UpstreamProtocol,
    };
    use crate::mesh::listener::{Inbound, Listener, Role, Timeouts};
    use crate::mesh::route::{
        Action, Forward, PathMatch, Route, RouteMatch, RouteTable, VirtualHost, WeightedCluster,
    };
    use crate::serve::DoorState;
    use crate::telemetry::LogTarget;

    fn admin() -> Arc<Admin> {
        let trust_domain = TrustDomain::parse("bookstore.example").unwrap();
        Arc::new(Admin {
            node: "catalog-1".into(),
            telemetry: Telemetry::start("catalog-1", &LogTarget::Off).unwrap(),
            live: Arc::new(Live::empty()),
            credentials: Arc::new(Credentials::none(trust_domain)),
            doors: Doors::default(),
        })
    }

    fn get(admin: &Admin, path: &str) -> Response<Bytes> {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("127.0.0.1:15000"))]);
        admin.answer(&Method::GET, path, &headers)
    }

    fn body(response: &Response<Bytes>) -> serde_json::Value {
        serde_json::from_slice(response.body()).unwrap()
    }

    #[test]
    fn ready_names_what_is_missing() {
        let admin = admin();
        let response = get(&admin, "/ready");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let missing = serde_json::json!(["identity", "bundle", "configuration", "listeners"]);
        assert_eq!(
            body(&response),
            serde_json::json!({"ready": false, "missing": missing})
        );
        assert_eq!(get(&admin, "/live").status(), StatusCode::OK);
        let address = ([127, 0, 10, 1], 15006).into();
        admin.doors.set(&"inbound".into(), DoorState::Open(address));
        admin.telemetry.control.set_draining();
        let missing = serde_json::json!(["identity", "bundle", "configuration", "draining"]);
        assert_eq!(body(&get(&admin, "/ready"))["missing"], missing);
    }

    #[test]
    fn only_a_loopback_name_is_answered() {
        let admin = admin();
        let status = |host: Option<&'static str>| {
            let host = host.map(|host| (HOST, HeaderValue::from_static(host)));
            admin
                .answer(&Method::GET, "/live", &HeaderMap::from_iter(host))
                .status()
        };
        for host in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1",
            "127.9.8.7:15000",
            "[::1]:15000",
        ] {
            assert_eq!(status(Some(host)), StatusCode::OK, "{host}");
        }
        for host in [
            None,
            Some(""),
            Some("evil.example"),
            Some("10.0.0.1:80"),
            Some("localhost.evil"),
        ] {
            assert_eq!(status(host), StatusCode::MISDIRECTED_REQUEST, "{host:?}");
        }
    }

    #[test]
    fn nothing_can_be_changed() {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("localhost"))]);
        let response = admin().answer(&Method::POST, "/config", &headers);
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(get(&admin(), "/quit").status(), StatusCode::NOT_FOUND);
    }

    fn application() -> Cluster {
        Cluster {
            name: "application".into(),
            service: "bookstore/catalog".into(),
            endpoints: [Endpoint {
                address: ([127, 0, 0, 1], 8080).into(),
                weight: 1,
                healthy: true,
            }]
            .into(),
            transport: Transport::Plaintext,
            protocol: UpstreamProtocol::SameAsDownstream,
            balance: Balance::RoundRobin,
            connect_timeout: Duration::from_secs(1),
            outlier: None,
            limits: CircuitLimits {
                max_connections: 1,
                max_pending: 2,
                max_requests: 3,
                retry_budget_percent: 20.0,
                min_retry_concurrency: 3,
            },
        }
    }

    fn routes() -> RouteTable {
        let forward = Forward {
            clusters: [WeightedCluster {
                name: "application".into(),
                weight: 1,
            }]
            .into(),
            timeout: Some(Duration::from_secs(15)),
            retry: None,
        };
        let route = Route {
            name: "bookstore/catalog#default".into(),
            matcher: RouteMatch {
                path: PathMatch::Prefix("/".into()),
                methods: None,
                headers: Box::default(),
                query: Box::default(),
            },
            action: Action::Forward(forward),
        };
        RouteTable {
            name: "inbound".into(),
            by_domain: HashMap::default(),
            any_domain: Some(0),
            virtual_hosts: vec![VirtualHost {
                name: "any".into(),
                routes: vec![Arc::new(route)],
            }],
        }
    }

    fn snapshot() -> Snapshot {
        let filter = |action, name: &str| Rbac {
            action: action as i32,
            policies: HashMap::from([(name.into(), any_policy())]),
            ..Rbac::default()
        };
        let deny = filter(RbacAction::Deny, "authz/ops.csv:2");
        let allow = filter(RbacAction::Allow, "authz/catalog.csv:3");
        let inbound = Inbound {
            destination: "bookstore/catalog".into(),
            trust_domains: vec!["bookstore.example".into()],
            authorization: Arc::new(Authorization::compile(&deny, &allow).unwrap()),
            routes: Arc::new(routes()),
        };
        let listener = Listener {
            name: "inbound".into(),
            address: ([127, 0, 10, 1], 15006).into(),
            role: Role::Inbound(inbound),
            timeouts: Timeouts::default(),
        };
        Snapshot {
            commit: "3f2c9a1".into(),
            listeners: vec![Arc::new(listener)],
            clusters: HashMap::from([("application".into(), Arc::new(application()))]),
        }
    }

    fn any_policy() -> Policy {
        use envoy_types::pb::envoy::config::rbac::v3::permission::Rule;
        use envoy_types::pb::envoy::config::rbac::v3::principal::Identifier;
        use envoy_types::pb::envoy::config::rbac::v3::{Permission, Principal};
        Policy {
            permissions: vec![Permission {
                rule: Some(Rule::Any(true)),
            }],
            principals: vec![Principal {
                identifier: Some(Identifier::Any(true)),
            }],
            ..Policy::default()
        }
    }

    #[test]
    fn the_configuration_in_force_is_shown() {
        let admin = admin();
        assert_eq!(
            body(&get(&admin, "/config"))["commit"],
            serde_json::Value::Null
        );
        admin.live.apply(Arc::new(snapshot()));
        let worker = admin.telemetry.worker();
        let seen = worker.endpoint(&"application".into(), ([127, 0, 0, 1], 8080).into());
        seen.set_ejected(true);
        seen.set_latency(Duration::from_millis(2));
        let config = body(&get(&admin, "/config"));
        assert_eq!(config["commit"], "3f2c9a1");
        let listener = &config["listeners"][0];
        assert_eq!(listener["destination"], "bookstore/catalog");
        assert_eq!(
            listener["authorization"]["deny"],
            serde_json::json!(["authz/ops.csv:2"])
        );
        assert_eq!(
            listener["authorization"]["allow"],
            serde_json::json!(["authz/catalog.csv:3"])
        );
        let route = &config["routes"]["inbound"][0]["routes"][0];
        assert_eq!(route["name"], "bookstore/catalog#default");
        assert_eq!(route["match"]["path"], serde_json::json!({"prefix": "/"}));
        assert_eq!(
            route["action"]["clusters"],
            serde_json::json!({"application": 1})
        );
        let endpoint = &config["clusters"]["application"]["endpoints"][0];
        assert_eq!(endpoint["address"], "127.0.0.1:8080");
        assert_eq!(
            endpoint["workers"],
            serde_json::json!([{"ejected": true, "latency_us": 2000}])
        );
        drop(seen);
        let config = body(&get(&admin, "/config"));
        let endpoint = &config["clusters"]["application"]["endpoints"][0];
        assert_eq!(endpoint["workers"], serde_json::json!([]));
    }

    #[tokio::test]
    async fn metrics_are_served_by_http() {
        let admin = admin();
        admin
            .telemetry
            .control
            .applied(&"3f2c9a1".into(), SystemTime::now());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let exchange = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = tokio::select! {
            answer = exchange => answer,
            () = admin.serve(listener) => unreachable!("serves until dropped"),
        };
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains("garrison_configuration_info{commit=\"3f2c9a1\"} 1\n"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait() {
        let admin = admin();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let flood = async {
            let mut held = Vec::new();
            for _ in 0..MAX_CONNECTIONS {
                held.push(TcpStream::connect(address).await.unwrap());
            }
            sleep(Duration::from_millis(50)).await;
            let mut late = TcpStream::connect(address).await.unwrap();
            late.write_all(b"GET /live HTTP/1.0\r\nhost: localhost\r\n\r\n")
                .await
                .unwrap();
            let mut byte = [0];
            let early = timeout(Duration::from_millis(200), late.read(&mut byte)).await;
            assert!(early.is_err(), "answered beyond the limit");
            held.pop();
            timeout(Duration::from_secs(5), late.read(&mut byte))
                .await
                .unwrap()
                .unwrap();
        };
        tokio::select! {
            () = flood => {}
            () = admin.serve(listener) => unreachable!("serves until dropped"),
        }
    }
}
