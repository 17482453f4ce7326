//! One endpoint of a cluster, as one worker knows it: its connections, its latency, its health.
//!
//! HTTP/2 connections are shared by requests, a further one is made when all are full. HTTP/1.1 connections carry one
//! request at a time and rest in between. A resting one is used again only well within the time that the server
//! keeps it (as it says, or as was seen), and never after the server was heard to close it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::dial::{DialError, Dialed, Dialer};
use super::ewma::PeakEwma;
use super::limits::{Counts, Permit, Share};
use super::outlier::Health;
use crate::http::h1::{Connection, Home};
use crate::http::h2::{self, Link};
use crate::mesh::Cluster;
use crate::mesh::cluster::UpstreamProtocol;
use crate::telemetry::{SeenEndpoint, Upstream};
use crate::tls::{Alpn, Standing};

/// For a server that did not say how long it keeps idle connections, until it was seen to close one.
const KEEPS_IDLE: Duration = Duration::from_secs(60);
/// Of the time that a server keeps a connection, what is left unused: the answer to "is it still open" travels.
const REUSE_MARGIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub health: RefCell<Health>,
    pub ewma: RefCell<PeakEwma>,
    pub outstanding: Cell<u32>,
    /// While it is ejected.
    pub ejected: RefCell<Option<Ejected>>,
    /// What of this an operator can see.
    pub seen: Arc<SeenEndpoint>,
    /// Connections that are open or being made.
    open: Rc<Cell<u32>>,
    /// A connection here has room again: one who waits for that may look.
    released: Rc<Notify>,
    pool: RefCell<Pool>,
}

/// An ejected endpoint is counted until it returns, or is no more.
#[derive(Debug)]
pub struct Ejected {
    stats: Arc<Upstream>,
    _counted: Permit,
}

#[derive(Debug, Default)]
struct Pool {
    /// The one that rested shortest is last.
    idle: Vec<Connection>,
    links: Vec<SharedLink>,
    dialing: Option<Rc<Dialing>>,
    /// Longest rest after which the server was still there, once it was seen to be gone.
    keeps_idle: Option<Duration>,
    /// What the last connection turned out to speak, where that was ALPN's choice.
    spoke: Option<Alpn>,
}

#[derive(Debug)]
struct SharedLink {
    link: Link,
    standing: Option<Rc<Standing>>,
}

/// A connection under way that several requests wait for.
#[derive(Debug, Default)]
struct Dialing {
    outcome: RefCell<Option<Result<(), DialError>>>,
    done: Notify,
}

/// What a request is sent on.
#[derive(Debug)]
pub enum Lease {
    Http1(Connection),
    Http2(Link),
}

#[derive(Debug, Clone, Error)]
pub enum LeaseError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the cluster's limits are reached")]
    Overflow,
}

/// The cluster on whose behalf a connection is wanted.
#[derive(Clone)]
pub struct Reach {
    pub cluster: Arc<Cluster>,
    pub counts: Rc<Counts>,
    pub share: Share,
    pub stats: Arc<Upstream>,
    pub dialer: Rc<Dialer>,
}

impl Endpoint {
    pub fn new(seen: Arc<SeenEndpoint>) -> Self {
        Self {
            address: seen.address,
            seen,
            health: RefCell::default(),
            ewma: RefCell::new(PeakEwma::new(Instant::now())),
            outstanding: Cell::new(0),
            ejected: RefCell::default(),
            open: Rc::default(),
            released: Rc::default(),
            pool: RefCell::default(),
        }
    }

    /// A connection for one request. With `fresh` not one that rested.
    ///
    /// An endpoint without any gets one whatever the limit: the connections that reach it may all be to others, which
    /// would keep them, and starve this one.
    pub async fn lease(
        self: &Rc<Self>,
        reach: &Reach,
        downstream: Version,
        fresh: bool,
    ) -> Result<Lease, LeaseError> {
        loop {
            let speaks_http2 = self.speaks_http2(reach.cluster.protocol, downstream);
            if let Some(lease) = self.take(speaks_http2, fresh) {
                return Ok(lease);
            }
            let dialing = self.pool.borrow().dialing.clone();
            if let Some(dialing) = dialing.filter(|_| speaks_http2) {
                dialing.wait().await?;
            } else if self.open.get() > 0 && reach.is_full() {
                reach.wait(&self.released).await?;
            } else if speaks_http2 {
                self.begin_dialing(reach).wait().await?;
            } else {
                let permit = reach.connection(&self.open);
                let dialed = reach.dial(self.address).await?;
                let connection = Connection::new(dialed.stream, Box::new(permit), dialed.standing);
                return Ok(Lease::Http1(
                    connection.leave(Rc::clone(self) as Rc<dyn Home>),
                ));
            }
        }
    }

    fn speaks_http2(&self, protocol: UpstreamProtocol, downstream: Version) -> bool {
        match protocol {
            UpstreamProtocol::Http1 => false,
            UpstreamProtocol::Http2 => true,
            UpstreamProtocol::Auto => self.pool.borrow().spoke != Some(Alpn::Http1),
            UpstreamProtocol::SameAsDownstream => downstream == Version::HTTP_2,
        }
    }

    fn take(self: &Rc<Self>, speaks_http2: bool, fresh: bool) -> Option<Lease> {
        let now = Instant::now();
        let mut pool = self.pool.borrow_mut();
        if speaks_http2 {
            return pool.shared(now).map(Lease::Http2);
        }
        if fresh {
            pool.idle.retain(|connection| !connection.is_used);
        }
        let connection = pool.rested(now)?;
        Some(Lease::Http1(
            connection.leave(Rc::clone(self) as Rc<dyn Home>),
        ))
    }

    /// Make a shared connection, in a task of its own: it is not only for the request that was first to need it.
    fn begin_dialing(self: &Rc<Self>, reach: &Reach) -> Rc<Dialing> {
        let dialing = Rc::<Dialing>::default();
        self.pool.borrow_mut().dialing = Some(Rc::clone(&dialing));
        let (endpoint, own_reach, own) = (Rc::clone(self), reach.clone(), Rc::clone(&dialing));
        reach.dialer.tasks.spawn(async move {
            let permit = own_reach.connection(&endpoint.open);
            let outcome = match own_reach.dial(endpoint.address).await {
                Ok(dialed) => endpoint.share(dialed, permit, &own_reach).await,
                Err(error) => Err(error),
            };
            endpoint.pool.borrow_mut().dialing = None;
            *own.outcome.borrow_mut() = Some(outcome);
            own.done.notify_waiters();
        });
        dialing
    }

    /// Put a new connection where those who wait find it.
    async fn share(
        self: &Rc<Self>,
        dialed: Dialed,
        permit: ConnectionPermit,
        reach: &Reach,
    ) -> Result<(), DialError> {
        let Dialed {
            stream,
            alpn,
            standing,
        } = dialed;
        self.pool.borrow_mut().spoke = alpn;
        if alpn == Some(Alpn::Http1) {
            if reach.cluster.protocol == UpstreamProtocol::Http2 {
                return Err(DialError::Http2);
            }
            let connection = Connection::new(stream, Box::new(permit), standing);
            self.pool.borrow_mut().idle.push(connection);
            return Ok(());
        }
        let released = Rc::clone(&self.released);
        let (link, driver) = h2::connect(stream, released)
            .await
            .map_err(|_| DialError::Http2)?;
        self.pool.borrow_mut().links.push(SharedLink {
            link,
            standing: standing.clone(),
        });
        reach.dialer.tasks.spawn(async move {
            tokio::select! {
                () = driver => {}
                // Dropped, whatever is under way: the server is not who it was.
                () = cut_off(standing) => {}
            }
            drop(permit);
        });
        Ok(())
    }

    /// Close what rested too long or is over.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut pool = self.pool.borrow_mut();
        let keeps = pool.keeps_idle;
        pool.idle
            .retain(|connection| may_rest(connection, keeps, now));
        pool.drop_dead_links(now);
    }
}

impl Home for Endpoint {
    fn give_back(&self, connection: Connection) {
        if is_good(connection.standing.as_ref(), Instant::now()) {
            self.pool.borrow_mut().idle.push(connection);
        }
        self.released.notify_one();
    }
}

impl Pool {
    fn shared(&mut self, now: Instant) -> Option<Link> {
        let ready =
            |shared: &SharedLink| shared.link.has_room() && is_good(shared.standing.as_ref(), now);
        if let Some(shared) = self.links.iter().find(|shared| ready(shared)) {
            return Some(shared.link.clone());
        }
        self.drop_dead_links(now);
        None
    }

    fn drop_dead_links(&mut self, now: Instant) {
        self.links
            .retain(|shared| !shared.link.is_over() && is_good(shared.standing.as_ref(), now));
    }

    fn rested(&mut self, now: Instant) -> Option<Connection> {
        while let Some(mut connection) = self.idle.pop() {
            if !may_rest(&connection, self.keeps_idle, now) {
                continue;
            }
            if connection.is_quiet() {
                return Some(connection);
            }
            if connection.is_used {
                // It was closed at some time within this rest: half of it is the best guess that is safe.
                let rested = now.saturating_duration_since(connection.idle_since);
                let seen = rested.max(2 * REUSE_MARGIN) / 2 + REUSE_MARGIN;
                self.keeps_idle = Some(self.keeps_idle.map_or(seen, |known| known.min(seen)));
            }
        }
        None
    }
}

fn may_rest(connection: &Connection, seen: Option<Duration>, now: Instant) -> bool {
    let keeps = connection.keeps_idle.or(seen).unwrap_or(KEEPS_IDLE);
    let rested = now.saturating_duration_since(connection.idle_since);
    // Where a server keeps connections for a second or less, half of that.
    rested < keeps.saturating_sub(REUSE_MARGIN).max(keeps / 2)
        && is_good(connection.standing.as_ref(), now)
}

/// Plaintext has nobody to distrust.
fn is_good(standing: Option<&Rc<Standing>>, now: Instant) -> bool {
    standing.is_none_or(|standing| standing.is_good(now))
}

async fn cut_off(standing: Option<Rc<Standing>>) {
    match standing {
        Some(standing) => standing.cut_off().await,
        None => std::future::pending().await,
    }
}

impl Dialing {
    async fn wait(&self) -> Result<(), DialError> {
        loop {
            let done = self.done.notified();
            if let Some(outcome) = &*self.outcome.borrow() {
                return outcome.clone();
            }
            done.await;
        }
    }
}

impl Drop for Ejected {
    fn drop(&mut self) {
        self.stats.ejected.down();
    }
}

/// An open connection is counted, for the limits and for the metrics.
#[derive(Debug)]
pub struct ConnectionPermit {
    stats: Arc<Upstream>,
    /// Of its endpoint.
    open: Rc<Cell<u32>>,
    counts: Rc<Counts>,
    _counted: Permit,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.stats.connections.down();
        self.open.set(self.open.get().saturating_sub(1));
        // Whichever of them looks first finds it.
        self.counts.closed.notify_waiters();
    }
}

impl Reach {
    pub fn ejected(&self) -> Ejected {
        self.stats.ejections.one();
        self.stats.ejected.up();
        Ejected {
            stats: Arc::clone(&self.stats),
            _counted: Permit::take(&self.counts, |counts| &counts.ejected),
        }
    }

    fn is_full(&self) -> bool {
        self.counts.connections.get() >= self.share.connections
    }

    fn connection(&self, open: &Rc<Cell<u32>>) -> ConnectionPermit {
        self.stats.connections.up();
        open.set(open.get() + 1);
        let counted = Permit::take(&self.counts, |counts| &counts.connections);
        ConnectionPermit {
            stats: Arc::clone(&self.stats),
            open: Rc::clone(open),
            counts: Rc::clone(&self.counts),
            _counted: counted,
        }
    }

    async fn dial(&self, address: SocketAddr) -> Result<Dialed, DialError> {
        let dialed = self
            .dialer
            .dial(
                address,
                &self.cluster.transport,
                self.cluster.connect_timeout,
            )
            .await;
        match &dialed {
            Ok(_) => self.stats.connections_opened.one(),
            Err(error) => {
                self.stats.connect_failures.one();
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::info!(cluster = %self.cluster.name, upstream = %address, %error, cause, "upstream connection failed");
            }
        }
        dialed
    }

    /// Wait until an endpoint's own connections have room, or one of the cluster's was closed.
    async fn wait(&self, released: &Notify) -> Result<(), LeaseError> {
        let _waiting = self.share.wait(&self.counts).ok_or(LeaseError::Overflow)?;
        tokio::select! {
            () = released.notified() => {}
            () = self.counts.closed.notified() => {}
        }
        Ok(())
    }
}
