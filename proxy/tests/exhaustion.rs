//! Who takes all that there is: of connections and of handshakes, others keep a share.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test may

mod support;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use garrison_proxy::serve::{Capacity, Settings};
use garrison_proxy::tls::{MeshTls, Secured};
use support::application::{Application, ok};
use support::pair::{Shape, Sidecar, free_address, settings, until};
use support::{Authority, CATALOG, TRUST_DOMAIN, WEB};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

const ORDERS: &str = "spiffe://bookstore.example/ns/bookstore/sa/orders";
const DAY: Duration = Duration::from_secs(86_400);

/// A callee of one worker, with little room.
struct Crowded {
    authority: Authority,
    callee: Sidecar,
    address: SocketAddr,
}

fn crowded(capacity: Capacity) -> Crowded {
    let application = Application::start(|_| ok("fine"));
    let (authority, address) = (Authority::new(TRUST_DOMAIN), free_address());
    let tls = MeshTls::new(authority.credentials(CATALOG), DAY);
    let snapshot = Shape::default().callee(address, application.address);
    let settings = Settings {
        workers: NonZeroUsize::MIN,
        capacity,
        ..settings()
    };
    Crowded {
        callee: Sidecar::with_settings(&tls, snapshot, settings),
        authority,
        address,
    }
}

impl Crowded {
    /// A connection of this identity from this address, if one request on it is answered.
    async fn meet(&self, id: &str, from: &str) -> Option<TlsStream<TcpStream>> {
        let tls = MeshTls::new(self.authority.credentials(id), DAY);
        let stream = connect(from, self.address).await;
        let Secured { mut stream, .. } = tls.connect(stream, &[Arc::from(CATALOG)]).await.ok()?;
        // In HTTP/2 the server speaks first, too: its settings say that we were taken.
        let mut head = [0; 9];
        stream.write_all(PREFACE).await.ok()?;
        stream.read_exact(&mut head).await.ok()?;
        Some(stream)
    }

    fn shed(&self, reason: &str) -> bool {
        let series = format!(
            r#"garrison_downstream_connections_shed_total{{direction="inbound",reason="{reason}"}} "#
        );
        let page = self.callee.telemetry.render();
        let line = page.lines().find(|line| line.starts_with(&series)).unwrap();
        !line.ends_with(" 0")
    }
}

/// The client's preface, and empty settings (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

async fn connect(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Taken out: the place that `serve::connection` takes for an identity.
#[tokio::test]
async fn attack_d4_one_identity_leaves_connections_to_others() {
    let crowded = crowded(Capacity {
        connections: 8,
        handshakes: 100,
    });
    let mut held = Vec::new();
    for _ in 0..12 {
        held.extend(crowded.meet(WEB, "127.0.0.1").await);
    }
    assert_eq!(held.len(), 4, "half of the places");
    assert!(crowded.shed("identity_share"));
    assert!(crowded.meet(ORDERS, "127.0.0.1").await.is_some());
    // What ends makes room.
    held.clear();
    until("the places are given back", || {
        let open = r#"garrison_downstream_connections{direction="inbound"} 0"#;
        crowded.callee.metric(open)
    });
    assert!(crowded.meet(WEB, "127.0.0.1").await.is_some());
}

/// Taken out: the place that `serve::listening` takes for a source's handshake.
#[tokio::test]
async fn attack_d3_peers_without_identity_leave_handshakes_to_others() {
    let crowded = crowded(Capacity {
        connections: 100,
        handshakes: 8,
    });
    let mut before = crowded.meet(WEB, "127.0.0.1").await.unwrap();
    // They connect, and say nothing.
    let mut mute = Vec::new();
    for _ in 0..20 {
        mute.push(connect("127.0.0.1", crowded.address).await);
    }
    let mut byte = [0];
    let last = mute.last_mut().unwrap();
    assert!(matches!(last.read(&mut byte).await, Ok(0) | Err(_)));
    assert!(crowded.shed("source_share"));
    assert!(crowded.meet(ORDERS, "127.0.0.2").await.is_some());
    // Who has proved an identity is not in their way.
    before.write_all(PING).await.unwrap();
    let mut answer = [0; 64];
    assert!(before.read(&mut answer).await.unwrap() > 0);
}

/// RFC 9113 §6.7.
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0garrison";
