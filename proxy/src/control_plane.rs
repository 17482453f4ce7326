//! A connection to a service of the control plane: HTTP/2 over TLS in which the server is pinned by its SPIFFE ID. One
//! connection for one purpose, without hidden reconnects: who lost it decides what to do.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::body::Body;
use tower_service::Service;

use crate::identity::Credentials;
use crate::identity::bundle::Bundles;
use crate::identity::spiffe_id::TrustDomain;
use crate::telemetry::Telemetry;
use crate::tls::{AuthenticateAs, HandshakeError, MeshTls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that is gone without a word is noticed within the sum of these.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What every client of the control plane needs.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    pub credentials: Arc<Credentials>,
    pub tls: MeshTls,
    /// How this instance names itself: for status and logs, never proof.
    pub node: Node,
    pub telemetry: Arc<Telemetry>,
}

/// Where a service is, and who it must be.
#[derive(Debug, Clone)]
pub(crate) struct ControlServer {
    pub address: SocketAddr,
    pub id: Arc<str>,
    /// The `:authority` of requests: its DNS name in `docs/seams.md`.
    pub origin: Uri,
}

#[derive(Debug, Error)]
pub(crate) enum LinkError {
    #[error("cannot connect to {0}")]
    Connect(SocketAddr, #[source] io::Error),
    #[error("connecting to {0} took longer than {CONNECT_TIMEOUT:?}")]
    Timeout(SocketAddr),
    #[error("no mutual TLS with {0}")]
    Tls(SocketAddr, #[source] HandshakeError),
    #[error("no HTTP/2 with {0}")]
    Http2(SocketAddr, #[source] hyper::Error),
    #[error("the connection ended")]
    Ended,
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
}

/// Sends requests, for a generated gRPC client.
#[derive(Debug, Clone)]
pub(crate) struct Link(http2::SendRequest<Body>);

impl ControlServer {
    /// A service of the mesh itself, by its account and the DNS name that stands for it in `docs/seams.md`.
    pub fn new(
        trust_domain: &TrustDomain,
        address: SocketAddr,
        account: &str,
        origin: &'static str,
    ) -> Self {
        Self {
            address,
            id: trust_domain.mesh_service(account),
            origin: Uri::from_static(origin),
        }
    }

    /// Connect, and do `work` over the connection; the connection ends with it, and it with the connection.
    pub async fn with_link<T, E, W>(
        &self,
        tls: &MeshTls,
        bundles: Arc<Bundles>,
        authenticate_as: AuthenticateAs,
        work: impl FnOnce(Link) -> W,
    ) -> Result<T, E>
    where
        W: Future<Output = Result<T, E>>,
        E: From<LinkError>,
    {
        let stream = self.connect().await?;
        let secured = tls
            .connect_control(stream, &self.id, bundles, authenticate_as)
            .await
            .map_err(|error| LinkError::Tls(self.address, error))?;
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(secured.stream));
        let (sender, connection) = timeout(CONNECT_TIMEOUT, handshake)
            .await
            .map_err(|_| LinkError::Timeout(self.address))?
            .map_err(|error| LinkError::Http2(self.address, error))?;
        // Without a sender hyper calls the connection done, though streams are open on it.
        let _sender = sender.clone();
        tokio::select! {
            biased;
            outcome = work(Link(sender)) => outcome,
            ended = connection => Err(match ended {
                Ok(()) => LinkError::Ended,
                Err(error) => LinkError::Broken(error),
            }.into()),
        }
    }

    async fn connect(&self) -> Result<TcpStream, LinkError> {
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(self.address))
            .await
            .map_err(|_| LinkError::Timeout(self.address))?
            .map_err(|error| LinkError::Connect(self.address, error))?;
        stream
            .set_nodelay(true)
            .map_err(|error| LinkError::Connect(self.address, error))?;
        Ok(stream)
    }
}

impl Service<Request<Body>> for Link {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
