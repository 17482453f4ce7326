//! A control plane in memory: a CA and discovery streams over gRPC and real TLS, each answer of which the test makes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
};
use garrison_proxy::config::Ca;
use garrison_proxy::control_plane::ControlPlane;
use garrison_proxy::identity::Credentials;
use garrison_proxy::telemetry::{LogTarget, Telemetry};
use garrison_proxy::tls::MeshTls;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService, UnaryService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::{Authority, TRUST_DOMAIN};

pub const CA_ID: &str = "spiffe://bookstore.example/ns/garrison/sa/ca";
pub const POLICY_SERVER_ID: &str = "spiffe://bookstore.example/ns/garrison/sa/policy-server";

/// What a CA was asked: the CSR and the value of `authorization`.
#[derive(Debug, Clone)]
pub struct Asked {
    pub csr: String,
    pub authorization: String,
    pub seconds: i64,
}

type Answer = Arc<dyn Fn(Asked) -> Result<Vec<String>, Status> + Send + Sync>;

/// One delta stream, as the server sees it.
pub struct Conversation {
    pub requests: Streaming<DeltaDiscoveryRequest>,
    pub responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
}

impl Conversation {
    pub async fn hear(&mut self) -> DeltaDiscoveryRequest {
        within(self.requests.message()).await.unwrap().unwrap()
    }

    pub async fn say(&self, response: DeltaDiscoveryResponse) {
        self.responses.send(Ok(response)).await.unwrap();
    }
}

/// Nothing here takes long; what hangs, fails.
pub async fn within<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(10), future).await.unwrap()
}

pub struct Server {
    pub address: SocketAddr,
    tasks: JoinSet<()>,
}

impl Server {
    /// A CA that anyone may ask.
    pub async fn certificate_authority(authority: &Authority, id: &str, answer: Answer) -> Self {
        let key = Arc::clone(&authority.svid(id, Duration::from_secs(3600)).certified_key);
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Fixed(key)));
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::start(move |stream| {
            let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream, Handler::Certificates(answer)).await;
                }
            }
        })
        .await
    }

    /// Discovery streams to any SVID of the trust domain, each handed to the test.
    pub async fn discovery(
        authority: &Authority,
        id: &str,
    ) -> (Self, mpsc::Receiver<Conversation>) {
        let tls = MeshTls::new(authority.credentials(id), Duration::from_secs(86_400));
        let (sender, receiver) = mpsc::channel(16);
        let server = Self::start(move |stream| {
            let (tls, sender) = (tls.clone(), sender.clone());
            async move {
                if let Ok(secured) = tls.accept(stream, &[TRUST_DOMAIN.into()]).await {
                    serve(secured.stream, Handler::Delta(sender)).await;
                }
            }
        })
        .await;
        (server, receiver)
    }

    async fn start<F>(connection: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(connection(stream));
            }
        });
        Self { address, tasks }
    }

    /// Gone, with all its connections.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// A proxy's control side with files as it would find them, and nothing behind it but these servers.
pub struct Files {
    pub folder: PathBuf,
}

impl Files {
    pub fn new(roots: &str) -> Self {
        static NUMBER: Mutex<u32> = Mutex::new(0);
        let number = {
            let mut number = NUMBER.lock().unwrap();
            *number += 1;
            *number
        };
        let folder = std::env::temp_dir().join(format!("garrison-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("roots.pem"), roots).unwrap();
        std::fs::write(folder.join("token"), "token-1\n").unwrap();
        Self { folder }
    }

    pub fn ca(&self, address: SocketAddr, bundle_address: SocketAddr) -> Ca {
        Ca {
            address,
            bundle_address,
            roots: self.folder.join("roots.pem"),
            token: self.folder.join("token"),
            svid_lifetime: Duration::from_secs(3600),
            max_peer_svid_lifetime: Duration::from_secs(86_400),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub fn control(credentials: Arc<Credentials>, folder: &Path) -> ControlPlane {
    ControlPlane {
        tls: MeshTls::new(Arc::clone(&credentials), Duration::from_secs(86_400)),
        credentials,
        node: Node {
            id: "catalog-1".to_owned(),
            ..Node::default()
        },
        telemetry: Telemetry::start("catalog-1", &LogTarget::File(folder.join("access.log")))
            .unwrap(),
    }
}

#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[derive(Clone)]
enum Handler {
    Certificates(Answer),
    Delta(mpsc::Sender<Conversation>),
}

async fn serve<S>(stream: S, handler: Handler)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let service = hyper::service::service_fn(move |request| {
        let handler = handler.clone();
        async move { Ok::<http::Response<Body>, Infallible>(handler.handle(request).await) }
    });
    let _ = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Handler {
    async fn handle(self, request: http::Request<hyper::body::Incoming>) -> http::Response<Body> {
        match (self, request.uri().path()) {
            (
                Self::Certificates(answer),
                "/istio.v1.auth.IstioCertificateService/CreateCertificate",
            ) => {
                let codec: ProstCodec<IstioCertificateResponse, IstioCertificateRequest> =
                    ProstCodec::default();
                Grpc::new(codec).unary(Certificates(answer), request).await
            }
            (
                Self::Delta(conversations),
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
                | "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
            ) => {
                let codec: ProstCodec<DeltaDiscoveryResponse, DeltaDiscoveryRequest> =
                    ProstCodec::default();
                Grpc::new(codec)
                    .streaming(Delta(conversations), request)
                    .await
            }
            (_, path) => panic!("{path} is not served here"),
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct IstioCertificateRequest {
    #[prost(string, tag = "1")]
    csr: String,
    #[prost(int64, tag = "3")]
    validity_duration: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct IstioCertificateResponse {
    #[prost(string, repeated, tag = "1")]
    cert_chain: Vec<String>,
}

struct Certificates(Answer);

impl UnaryService<IstioCertificateRequest> for Certificates {
    type Response = IstioCertificateResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::Response>, Status>> + Send>>;

    fn call(&mut self, request: Request<IstioCertificateRequest>) -> Self::Future {
        let authorization = request.metadata().get("authorization");
        let asked = Asked {
            authorization: authorization
                .map_or("", |value| value.to_str().unwrap())
                .to_owned(),
            csr: request.get_ref().csr.clone(),
            seconds: request.get_ref().validity_duration,
        };
        let answer = (self.0)(asked);
        Box::pin(async move {
            answer.map(|cert_chain| Response::new(IstioCertificateResponse { cert_chain }))
        })
    }
}

struct Delta(mpsc::Sender<Conversation>);

impl StreamingService<DeltaDiscoveryRequest> for Delta {
    type Response = DeltaDiscoveryResponse;
    type ResponseStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;
    type Future =
        Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let conversations = self.0.clone();
        Box::pin(async move {
            let (responses, queue) = mpsc::channel(16);
            let requests = request.into_inner();
            let _ = conversations
                .send(Conversation {
                    requests,
                    responses,
                })
                .await;
            Ok(Response::new(ReceiverStream::new(queue)))
        })
    }
}
