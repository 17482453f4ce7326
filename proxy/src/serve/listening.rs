//! One listener of one worker: accepts until it is stopped, then waits for its connections.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};

use super::admission::{Admission, Capacity, source};
use super::connection::{self, Arrived, Counted};
use crate::codes::Hop;
use crate::telemetry::Shed;
use crate::worker::Worker;

/// When no file descriptor is left, those of connections that end are waited for.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Told to a listener and its connections.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Until then connections may end by themselves; none means to go on.
    pub deadline: Option<Instant>,
    /// Held until the last connection is gone: its drop is the message.
    #[expect(dead_code, reason = "held, not read")]
    pub drained: Option<mpsc::Sender<Infallible>>,
}

pub struct Listening {
    pub name: Arc<str>,
    pub hop: Hop,
    pub capacity: Capacity,
    pub worker: Rc<Worker>,
    pub stop: watch::Receiver<Stop>,
}

impl Listening {
    pub async fn run(mut self, socket: std::net::TcpListener) -> io::Result<()> {
        let socket = TcpListener::from_std(socket)?;
        let mut connections = JoinSet::new();
        let admission = Admission::new(self.capacity);
        let mut stop = self.stop.clone();
        let stopped = async move { stop.wait_for(|stop| stop.deadline.is_some()).await.is_ok() };
        let mut stopped = std::pin::pin!(stopped);
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                accepted = socket.accept() => self.accepted(accepted, &admission, &mut connections).await,
                Some(ended) = connections.join_next() => self.ended(&ended),
            }
        }
        // What the kernel has accepted for us already would be reset by closing the socket.
        while let Some(accepted) = now(socket.accept()).await {
            self.accepted(accepted, &admission, &mut connections).await;
        }
        drop(socket);
        self.drain(&mut connections).await;
        Ok(())
    }

    async fn accepted(
        &self,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        admission: &Admission,
        connections: &mut JoinSet<()>,
    ) {
        match accepted {
            Ok((stream, peer)) => match self.hop {
                Hop::Inbound => self.inbound(stream, peer, admission, connections),
                Hop::Outbound => self.outbound(stream, connections),
            },
            // The peer gave up before we took it.
            Err(error) if is_the_peers(&error) => {}
            Err(error) => {
                tracing::warn!(listener = %self.name, %error, "cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    fn inbound(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        admission: &Admission,
        connections: &mut JoinSet<()>,
    ) {
        let Some(handshaking) = admission.handshakes.take(source(peer.ip())) else {
            return self.shed(Shed::SourceShare);
        };
        let (arrived, places) = (self.arrived(stream), Rc::clone(&admission.connections));
        connections.spawn_local(connection::inbound(arrived, handshaking, places));
    }

    fn outbound(&self, stream: TcpStream, connections: &mut JoinSet<()>) {
        if connections.len() >= self.capacity.connections {
            return self.shed(Shed::Connections);
        }
        connections.spawn_local(connection::outbound(self.arrived(stream)));
    }

    fn arrived(&self, stream: TcpStream) -> Arrived {
        self.worker.telemetry().downstream(self.hop).accepted.one();
        Arrived {
            counted: Counted::new(&self.worker, self.hop),
            worker: Rc::clone(&self.worker),
            listener: Arc::clone(&self.name),
            stream,
            stop: self.stop.clone(),
        }
    }

    fn shed(&self, why: Shed) {
        self.worker.telemetry().downstream(self.hop).shed(why).one();
    }

    fn ended(&self, ended: &Result<(), JoinError>) {
        if ended.as_ref().is_err_and(JoinError::is_panic) {
            self.worker.telemetry().downstream(self.hop).panics.one();
        }
    }

    async fn drain(&mut self, connections: &mut JoinSet<()>) {
        loop {
            // It may be moved: a listener that was closed drains with all others at the end.
            let stop = self.stop.borrow_and_update().clone();
            let Some(deadline) = stop.deadline else {
                return;
            };
            tokio::select! {
                ended = timeout_at(deadline, connections.join_next()) => match ended {
                    Ok(Some(ended)) => self.ended(&ended),
                    Ok(None) => return,
                    Err(_) => {
                        tracing::warn!(listener = %self.name, connections = connections.len(), "connections cut off at the end of the drain");
                        return;
                    }
                },
                Ok(()) = self.stop.changed() => {}
            }
        }
    }
}

fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// What a future has to say without waiting.
async fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let waited = Cell::new(false);
    tokio::select! {
        biased;
        output = future => Some(output),
        () = async { waited.set(true) } => None,
    }
}
