//! Connections: TCP, mutual TLS with an SVID, HTTP/2 on either.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use h2::client::SendRequest;
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Fault;

/// Whom to ask for what, on how many connections.
#[derive(Args, Clone)]
pub struct Aim {
    #[arg(long)]
    pub target: SocketAddr,
    #[arg(long)]
    pub host: String,
    /// Over HTTP/1.1 its last segment is the size of the answer; a gRPC method is `/package.Service/Method`.
    #[arg(long)]
    pub path: String,
    #[arg(long)]
    pub connections: usize,
}

/// How a server is known, and who asks.
#[derive(Args, Clone)]
pub struct Tls {
    /// A directory with svid.pem, key.pem and roots.pem.
    #[arg(long)]
    pub identity: Option<PathBuf>,
    /// The DNS name in the server's certificate.
    #[arg(long, default_value = "localhost")]
    pub name: String,
}

impl Tls {
    pub fn connector(&self, alpn: &[u8]) -> Result<Option<Dialer>, Fault> {
        let Some(directory) = &self.identity else {
            return Ok(None);
        };
        let read = |name: &str| read(&directory.join(name));
        let dialer = Dialer::new(
            &read("roots.pem")?,
            &read("svid.pem")?,
            &read("key.pem")?,
            &self.name,
            alpn,
        )?;
        Ok(Some(dialer))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Makes mutual TLS connections, each with a full handshake.
#[derive(Clone)]
pub struct Dialer {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Dialer {
    pub fn new(
        roots: &[u8],
        chain: &[u8],
        key: &[u8],
        name: &str,
        alpn: &[u8],
    ) -> Result<Self, Fault> {
        let mut trusted = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots) {
            trusted.add(root?)?;
        }
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>()?;
        let mut config = ClientConfig::builder()
            .with_root_certificates(trusted)
            .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?;
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name: ServerName::try_from(name.to_owned())?,
        })
    }

    pub async fn dial(&self, target: SocketAddr) -> Result<TlsStream<TcpStream>, Fault> {
        let stream = self
            .connector
            .connect(self.name.clone(), tcp(target).await?);
        Ok(stream.await?)
    }
}

pub async fn tcp(target: SocketAddr) -> Result<TcpStream, Fault> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Begins HTTP/2; the connection lives as long as what it hands out.
pub async fn http2(
    target: SocketAddr,
    dialer: Option<&Dialer>,
) -> Result<SendRequest<Bytes>, Fault> {
    match dialer {
        Some(dialer) => begin(dialer.dial(target).await?).await,
        None => begin(tcp(target).await?).await,
    }
}

async fn begin(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
) -> Result<SendRequest<Bytes>, Fault> {
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 22)
        .handshake(stream)
        .await?;
    // It ends with the last sender, and tells them if it fails.
    tokio::task::spawn_local(connection);
    Ok(sender)
}
