//! Making connections to endpoints: TCP, then mutual TLS inside the mesh, then what ALPN chose.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::codes::{Hop, Reason};
use crate::http::stream::Stream;
use crate::identity::svid::Refusal;
use crate::mesh::cluster::Transport;
use crate::telemetry::{Handshake, Worker as Telemetry};
use crate::tls::{Alpn, HandshakeError, MeshTls, Standing, Standings};

/// Tasks of a worker that belong to no connection of a caller: they end with the worker.
#[derive(Debug, Clone, Default)]
pub struct Tasks(Rc<RefCell<JoinSet<()>>>);

impl Tasks {
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let mut tasks = self.0.borrow_mut();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_local(task);
    }
}

/// How this worker reaches others.
#[derive(Debug, Clone)]
pub struct Dialer {
    pub tls: MeshTls,
    pub telemetry: Telemetry,
    pub tasks: Tasks,
    pub standings: Standings,
}

/// Why there is no connection.
#[derive(Debug, Clone, Error)]
pub enum DialError {
    #[error("no connection: {0}")]
    Tcp(std::io::ErrorKind),
    #[error("no connection in time")]
    Timeout,
    #[error("no secure connection")]
    Tls(#[source] Arc<HandshakeError>),
    #[error("the server does not begin to speak HTTP/2")]
    Http2,
}

impl DialError {
    /// As the caller is told.
    pub fn reason(&self, hop: Hop) -> Reason {
        match (self, hop) {
            (_, Hop::Inbound) => Reason::ApplicationUnreachable,
            (Self::Tcp(_) | Self::Timeout | Self::Http2, Hop::Outbound) => Reason::ConnectFailed,
            (Self::Tls(error), Hop::Outbound) => match &**error {
                HandshakeError::NoIdentity => Reason::NotReady,
                HandshakeError::IdentityExpired => Reason::IdentityExpired,
                HandshakeError::Refused(Refusal::UnexpectedPeer(_) | Refusal::TrustDomain(_)) => {
                    Reason::PeerIdentity
                }
                HandshakeError::Refused(_)
                | HandshakeError::Unverified
                | HandshakeError::Timeout
                | HandshakeError::Alpn
                | HandshakeError::Settings(_)
                | HandshakeError::Failed(_) => Reason::TlsFailed,
            },
        }
    }
}

/// A connection, not yet used.
pub struct Dialed {
    pub stream: Stream,
    /// What ALPN chose; plaintext has none.
    pub alpn: Option<Alpn>,
    /// Of the server; plaintext has none.
    pub standing: Option<Rc<Standing>>,
}

impl Dialer {
    pub async fn dial(
        &self,
        address: SocketAddr,
        transport: &Transport,
        within: Duration,
    ) -> Result<Dialed, DialError> {
        let tcp = match timeout(within, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) => return Err(DialError::Tcp(error.kind())),
            Err(_) => return Err(DialError::Timeout),
        };
        // Heads and bodies are written whole; waiting for more would only add latency.
        let _ = tcp.set_nodelay(true);
        match transport {
            Transport::Plaintext => Ok(Dialed {
                stream: Stream::plain(tcp),
                alpn: None,
                standing: None,
            }),
            Transport::MutualTls { peers } => self.secure(tcp, peers).await,
        }
    }

    async fn secure(&self, tcp: TcpStream, peers: &[Arc<str>]) -> Result<Dialed, DialError> {
        let secured = match self.tls.connect(tcp, peers).await {
            Ok(secured) => secured,
            Err(error) => {
                self.telemetry
                    .handshake(Hop::Outbound, Handshake::Refused(error.label()));
                return Err(DialError::Tls(Arc::new(error)));
            }
        };
        self.telemetry.handshake(
            Hop::Outbound,
            Handshake::Completed(secured.peer.key_exchange),
        );
        let alpn = secured.peer.alpn;
        Ok(Dialed {
            standing: Some(self.standings.add(secured.peer, &self.tls)),
            stream: Stream::tls(secured.stream),
            alpn: Some(alpn),
        })
    }
}
