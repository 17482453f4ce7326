//! One connection that came in, from its first byte to its end.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::watch;

use super::admission::{Place, Places};
use super::listening::Stop;
use crate::codes::Hop;
use crate::http::h1::{Io, Spoken, detect, serve as serve_http1};
use crate::http::h2::serve as serve_http2;
use crate::http::service::Closing;
use crate::http::stream::Stream;
use crate::inbound::Inbound;
use crate::mesh::listener::Role;
use crate::outbound::Outbound;
use crate::telemetry::{Handshake, Shed};
use crate::tls::{Alpn, Secured, Standing};
use crate::worker::Worker;

/// A connection, as a listener took it.
pub struct Arrived {
    pub counted: Counted,
    pub worker: Rc<Worker>,
    pub listener: Arc<str>,
    pub stream: TcpStream,
    pub stop: watch::Receiver<Stop>,
}

/// From the application: plaintext, HTTP/1.1, or HTTP/2 with prior knowledge, as gRPC clients speak it.
pub async fn outbound(arrived: Arrived) {
    let Arrived {
        counted: _counted,
        worker,
        listener,
        stream,
        stop,
    } = arrived;
    let timeouts = worker.timeouts(&listener);
    let service = Outbound::new(worker, listener);
    let closing = Closing::when(stopped(stop));
    match detect(Stream::plain(stream)).await {
        Some(Spoken::Http1(io)) => serve_http1(io, &service, closing, &timeouts).await,
        Some(Spoken::Http2(stream)) => serve_http2(stream, &service, closing, &timeouts).await,
        None => {}
    }
}

/// From the mesh: mutual TLS or nothing. It leaves its place among the handshakes for one of its identity.
pub async fn inbound(
    arrived: Arrived,
    handshaking: Place<IpAddr>,
    connections: Rc<Places<Arc<str>>>,
) {
    let Arrived {
        counted: _counted,
        worker,
        listener,
        stream,
        stop,
    } = arrived;
    let Some(secured) = secure(&worker, &listener, stream).await else {
        return;
    };
    let Secured { stream, peer } = secured;
    let Some(_place) = connections.take(Arc::clone(&peer.id)) else {
        let counters = worker.telemetry().downstream(Hop::Inbound);
        counters.shed(Shed::IdentityShare).one();
        tracing::info!(%listener, peer = %peer.id, "connection refused: its identity has its share");
        return;
    };
    drop(handshaking);
    let standing = worker.dialer.standings.add(peer.clone(), worker.tls());
    let closing = Closing::when(stopped_or_over(stop, Rc::clone(&standing)));
    let timeouts = worker.timeouts(&listener);
    let service = Inbound::new(worker, listener, peer.id);
    let stream = Stream::tls(stream);
    let serving = async {
        match peer.alpn {
            Alpn::H2 => serve_http2(stream, &service, closing, &timeouts).await,
            Alpn::Http1 => serve_http1(Io::new(stream), &service, closing, &timeouts).await,
        }
    };
    tokio::select! {
        () = serving => {}
        // Dropped, whatever is under way: nobody is who they were.
        () = standing.cut_off() => {}
    }
}

async fn stopped_or_over(stop: watch::Receiver<Stop>, standing: Rc<Standing>) {
    tokio::select! {
        () = stopped(stop) => {}
        () = standing.over() => {}
    }
}

async fn secure(
    worker: &Worker,
    listener: &str,
    stream: TcpStream,
) -> Option<Secured<tokio_rustls::server::TlsStream<TcpStream>>> {
    let view = worker.view()?;
    let Role::Inbound(door) = &view.listener(listener)?.role else {
        return None;
    };
    match worker.tls().accept(stream, &door.trust_domains).await {
        Ok(secured) => {
            worker.telemetry().handshake(
                Hop::Inbound,
                Handshake::Completed(secured.peer.key_exchange),
            );
            Some(secured)
        }
        Err(error) => {
            worker
                .telemetry()
                .handshake(Hop::Inbound, Handshake::Refused(error.label()));
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::info!(%listener, %error, cause, "handshake refused");
            None
        }
    }
}

async fn stopped(mut stop: watch::Receiver<Stop>) {
    // An error means that the listener is gone: also a reason to close.
    let _ = stop.wait_for(|stop| stop.deadline.is_some()).await;
}

/// Counts a connection as open.
pub struct Counted {
    worker: Rc<Worker>,
    hop: Hop,
}

impl Counted {
    pub fn new(worker: &Rc<Worker>, hop: Hop) -> Self {
        worker.telemetry().downstream(hop).connections.up();
        Self {
            worker: Rc::clone(worker),
            hop,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.worker
            .telemetry()
            .downstream(self.hop)
            .connections
            .down();
    }
}
