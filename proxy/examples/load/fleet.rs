//! Many sidecars in one process, as the policy server sees them: each its own mutual TLS connection with an SVID, one delta
//! ADS stream, an ACK for whatever comes.
//!
//! Each time when all of them have acknowledged one commit, a line says when: the first, the median, the 99th of a hundred,
//! the last, in seconds since 1970.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes, BytesMut};
use clap::Args;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use h2::{RecvStream, SendStream};
use http::Request;
use prost::Message;
use rand::Rng;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Fault;
use crate::connect::{self, Dialer};
use crate::grpc::framed;

const SERVER: &str = "policy.garrison";
const METHOD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const MARKER: &str = "garrison.commit";
const TYPES: [&str; 5] = [
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "envoy.config.listener.v3.Listener",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.config.core.v3.TypedExtensionConfig",
];
const FRAME_HEAD: usize = 5;
const AGAIN_AFTER: Duration = Duration::from_millis(500);

#[derive(Args)]
pub struct Options {
    #[arg(long)]
    target: SocketAddr,
    #[arg(long)]
    roots: PathBuf,
    /// JSON lines of `{"chain", "key"}`, PEM each, for the clients in turn.
    #[arg(long)]
    svids: PathBuf,
    #[arg(long)]
    clients: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Svid {
    chain: String,
    key: String,
}

enum News {
    Enforces(String),
    Failed(String),
}

pub async fn run(options: Options) -> Result<(), Fault> {
    let roots = fs::read(&options.roots)?;
    let mut dialers = Vec::new();
    for line in fs::read_to_string(&options.svids)?.lines() {
        let svid: Svid = serde_json::from_str(line)?;
        let (chain, key) = (svid.chain.as_bytes(), svid.key.as_bytes());
        dialers.push(Rc::new(Dialer::new(&roots, chain, key, SERVER, b"h2")?));
    }
    let (tell, told) = mpsc::channel(options.clients);
    let mut sidecars = JoinSet::new();
    println!("{}", json!({ "started": now() }));
    for (number, dialer) in (0..options.clients).zip(dialers.iter().cycle()) {
        let (dialer, tell) = (Rc::clone(dialer), tell.clone());
        sidecars.spawn_local(async move { live(number, options.target, &dialer, &tell).await });
    }
    let ended =
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()).map(drop));
    tokio::select! {
        () = tally(told, options.clients) => {}
        ended = ended => ended??,
    }
    Ok(())
}

/// Says when the last of them enforces a commit.
async fn tally(mut told: mpsc::Receiver<(f64, News)>, clients: usize) {
    let mut enforced: HashMap<String, Vec<f64>> = HashMap::new();
    let mut failures = 0_u64;
    let mut failure = None;
    while let Some((at, news)) = told.recv().await {
        match news {
            News::Failed(why) => {
                failures += 1;
                failure = Some(why);
            }
            News::Enforces(commit) => {
                let times = enforced.entry(commit.clone()).or_default();
                times.push(at);
                if times.len() == clients {
                    let line = json!({
                        "commit": commit, "clients": clients,
                        "first": times.first(), "last": times.last(),
                        "p50": times.get(clients / 2), "p99": times.get(clients * 99 / 100),
                        "failures": failures, "failure": failure,
                    });
                    println!("{line}");
                }
            }
        }
    }
}

/// Keeps a stream, and makes it anew when it failed.
async fn live(
    number: usize,
    target: SocketAddr,
    dialer: &Dialer,
    tell: &mpsc::Sender<(f64, News)>,
) {
    let mut newest = String::new();
    loop {
        let Err(why) = stream(number, target, dialer, tell, &mut newest).await else {
            return;
        };
        if tell
            .send((now(), News::Failed(why.to_string())))
            .await
            .is_err()
        {
            return;
        }
        let wait = AGAIN_AFTER.mul_f64(rand::rng().random_range(0.5..1.5));
        tokio::time::sleep(wait).await;
    }
}

fn subscription(name: &str, number: usize) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: format!("type.googleapis.com/{name}"),
        resource_names_subscribe: vec!["*".into()],
        node: (name == TYPES[0]).then(|| node(number)),
        ..DeltaDiscoveryRequest::default()
    }
}

async fn stream(
    number: usize,
    target: SocketAddr,
    dialer: &Dialer,
    tell: &mpsc::Sender<(f64, News)>,
    newest: &mut String,
) -> Result<(), Fault> {
    let sender = connect::http2(target, Some(dialer)).await?;
    let request = Request::post(format!("https://{SERVER}{METHOD}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut requests) = sender.ready().await?.send_request(request, false)?;
    for name in TYPES {
        send(&mut requests, &subscription(name, number))?;
    }
    let (head, body) = response.await?.into_parts();
    let mut responses = Responses::new(body);
    while let Some(response) = responses.next().await? {
        let marked = response.resources.iter().any(|each| each.name == MARKER);
        let ack = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        send(&mut requests, &ack)?;
        if marked && *newest != response.system_version_info {
            newest.clone_from(&response.system_version_info);
            let news = News::Enforces(response.system_version_info);
            if tell.send((now(), news)).await.is_err() {
                return Ok(());
            }
        }
    }
    // A stream that is refused at once has its trailers in its head.
    let trailers = responses.body.trailers().await?.unwrap_or(head.headers);
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    let (status, message) = (text("grpc-status"), text("grpc-message"));
    Err(format!("the server ended the stream: grpc-status {status:?}, {message:?}").into())
}

fn node(number: usize) -> Node {
    let host = format!("127.0.{}.{}", number / 250, number % 250 + 1);
    let text = |port: u16| Value {
        kind: Some(Kind::StringValue(format!("{host}:{port}"))),
    };
    let fields = [
        ("inbound", 15006),
        ("application", 8080),
        ("outbound", 15001),
    ];
    Node {
        id: format!("fleet-{number}"),
        user_agent_name: "garrison-proxy".into(),
        metadata: Some(Struct {
            fields: fields
                .map(|(key, port)| (key.to_owned(), text(port)))
                .into(),
        }),
        ..Node::default()
    }
}

fn send(to: &mut SendStream<Bytes>, message: &DeltaDiscoveryRequest) -> Result<(), Fault> {
    to.send_data(framed(&message.encode_to_vec())?, false)?;
    Ok(())
}

/// gRPC messages out of HTTP/2 data.
struct Responses {
    body: RecvStream,
    received: BytesMut,
}

impl Responses {
    fn new(body: RecvStream) -> Self {
        Self {
            body,
            received: BytesMut::new(),
        }
    }

    async fn next(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Fault> {
        loop {
            if let Some(message) = self.whole_message() {
                return Ok(Some(DeltaDiscoveryResponse::decode(message)?));
            }
            let Some(data) = self.body.data().await else {
                return Ok(None);
            };
            let data = data?;
            self.body.flow_control().release_capacity(data.len())?;
            self.received.extend_from_slice(&data);
        }
    }

    fn whole_message(&mut self) -> Option<BytesMut> {
        let mut head = self.received.get(1..FRAME_HEAD)?;
        let length = FRAME_HEAD + usize::try_from(head.get_u32()).ok()?;
        (self.received.len() >= length).then(|| {
            let mut message = self.received.split_to(length);
            message.advance(FRAME_HEAD);
            message
        })
    }
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}
