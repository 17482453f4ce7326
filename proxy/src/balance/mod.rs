//! Which endpoint a request goes to, and on which connection.
//!
//! All of it is one worker's own: no lock, no sharing. So limits are each worker's share, and an endpoint is ejected by
//! the failures that this worker saw. Endpoints keep their connections, latency and health when a new configuration
//! still names them and reaches them in the same way; the connections of others end with their last request.

mod dial;
mod endpoint;
mod ewma;
mod limits;
mod outlier;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

pub use dial::{DialError, Dialer, Tasks};
use endpoint::Reach;
pub use endpoint::{Endpoint, Lease, LeaseError};
use limits::{Counts, Permit, Share};
use outlier::{Change, Standing, may_eject};

use crate::mesh::Cluster;
use crate::mesh::cluster::{Balance, Transport};

/// A cluster as one worker uses it.
pub struct Balancer {
    reach: Reach,
    /// Those that may be picked, with their weights.
    endpoints: Box<[(Rc<Endpoint>, u32)]>,
    /// In all, healthy or not: what a share of them is taken of.
    total: u32,
    next: Cell<usize>,
}

/// How an attempt went, for the balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure,
}

/// An endpoint that was picked for one attempt. Dropped without a report, it leaves no trace.
pub struct Picked<'a> {
    balancer: &'a Balancer,
    pub endpoint: Rc<Endpoint>,
    began: Instant,
    is_probe: bool,
    is_reported: bool,
}

/// What a request occupies until its answer has gone out.
#[derive(Debug)]
pub struct InFlight {
    _request: Option<Permit>,
    endpoint: Option<Rc<Endpoint>>,
    stats: Arc<crate::telemetry::Upstream>,
}

impl Balancer {
    /// Take a cluster over from the configuration before, if it was there.
    pub fn new(
        cluster: &Arc<Cluster>,
        previous: Option<&Self>,
        dialer: &Rc<Dialer>,
        workers: u32,
    ) -> Self {
        let kept = previous.filter(|previous| reaches_alike(&previous.reach.cluster, cluster));
        let endpoint = |address: SocketAddr| {
            let known = kept.and_then(|kept| {
                kept.endpoints
                    .iter()
                    .find(|(known, _)| known.address == address)
            });
            known.map_or_else(
                || {
                    Rc::new(Endpoint::new(
                        dialer.telemetry.endpoint(&cluster.name, address),
                    ))
                },
                |(known, _)| Rc::clone(known),
            )
        };
        let usable = cluster
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.healthy && endpoint.weight > 0);
        let endpoints: Box<[_]> = usable
            .map(|usable| (endpoint(usable.address), usable.weight))
            .collect();
        let stats = dialer.telemetry.upstream(&cluster.name);
        Self {
            reach: Reach {
                cluster: Arc::clone(cluster),
                counts: previous.map_or_else(Rc::<Counts>::default, |previous| {
                    Rc::clone(&previous.reach.counts)
                }),
                share: Share::of(&cluster.limits, workers),
                stats,
                dialer: Rc::clone(dialer),
            },
            total: u32::try_from(cluster.endpoints.len()).unwrap_or(u32::MAX),
            endpoints,
            next: Cell::new(0),
        }
    }

    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.reach.cluster
    }

    /// A place among the cluster's requests, if there is one.
    pub fn admit(&self) -> Option<InFlight> {
        let Some(request) = self.reach.share.request(&self.reach.counts) else {
            self.reach.stats.overflows.one();
            return None;
        };
        self.reach.stats.requests.up();
        Some(InFlight {
            _request: Some(request),
            endpoint: None,
            stats: Arc::clone(&self.reach.stats),
        })
    }

    /// Leave for one more attempt, while it lasts.
    pub fn admit_retry(&self) -> Option<Permit> {
        let permit = self.reach.share.retry(&self.reach.counts);
        match permit {
            Some(_) => self.reach.stats.retries.one(),
            None => self.reach.stats.retries_over_budget.one(),
        }
        permit
    }

    /// An endpoint for the next attempt: rather none of those that were tried.
    pub fn pick(&self, tried: &[SocketAddr], rng: &mut SmallRng) -> Option<Picked<'_>> {
        let now = Instant::now();
        if let Some(endpoint) = self.to_probe(tried, now) {
            endpoint.health.borrow_mut().begin_probe(now);
            return Some(self.picked(endpoint, now, true));
        }
        let found = self.choose(tried, rng, now);
        let (found, _) = found.or_else(|| self.choose(&[], rng, now))?;
        Some(self.picked(found, now, false))
    }

    /// One of those that may be taken. What the others would have got is shared by all of them: it is not a neighbour
    /// who stands in.
    fn choose(
        &self,
        tried: &[SocketAddr],
        rng: &mut SmallRng,
        now: Instant,
    ) -> Option<&(Rc<Endpoint>, u32)> {
        match self.reach.cluster.balance {
            Balance::PeakEwma => self.two_choices(tried, rng, now),
            Balance::RoundRobin => self.in_turn(tried, now),
            Balance::Random => self.by_chance(tried, rng, now),
        }
    }

    fn picked(&self, endpoint: &Rc<Endpoint>, now: Instant, is_probe: bool) -> Picked<'_> {
        Picked {
            balancer: self,
            endpoint: Rc::clone(endpoint),
            began: now,
            is_probe,
            is_reported: false,
        }
    }

    fn to_probe(&self, tried: &[SocketAddr], now: Instant) -> Option<&Rc<Endpoint>> {
        if !self.has_ejected() {
            return None;
        }
        let waits = |endpoint: &Endpoint| {
            !tried.contains(&endpoint.address)
                && endpoint.health.borrow().standing(now) == Standing::ToProbe
        };
        self.endpoints
            .iter()
            .map(|(endpoint, _)| endpoint)
            .find(|endpoint| waits(endpoint))
    }

    fn may_take(&self, endpoint: &Endpoint, tried: &[SocketAddr], now: Instant) -> bool {
        let is_in = !self.has_ejected() || endpoint.health.borrow().standing(now) == Standing::In;
        is_in && !tried.contains(&endpoint.address)
    }

    fn takeable(
        &self,
        tried: &[SocketAddr],
        now: Instant,
    ) -> impl Iterator<Item = &(Rc<Endpoint>, u32)> {
        self.endpoints
            .iter()
            .filter(move |(endpoint, _)| self.may_take(endpoint, tried, now))
    }

    /// The first that may be taken after the one that was last.
    fn in_turn(&self, tried: &[SocketAddr], now: Instant) -> Option<&(Rc<Endpoint>, u32)> {
        let count = self.endpoints.len();
        let mut places = (0..count).map(|step| (self.next.get() + step) % count);
        let found = places.find_map(|place| {
            let endpoint = self.endpoints.get(place)?;
            self.may_take(&endpoint.0, tried, now)
                .then_some((place, endpoint))
        });
        let (place, endpoint) = found?;
        self.next.set(place + 1);
        Some(endpoint)
    }

    /// Power of two choices: of two endpoints drawn at random, the one with less load for its weight.
    fn two_choices(
        &self,
        tried: &[SocketAddr],
        rng: &mut SmallRng,
        now: Instant,
    ) -> Option<&(Rc<Endpoint>, u32)> {
        let may_take_all = tried.is_empty() && !self.has_ejected();
        let count = if may_take_all {
            self.endpoints.len()
        } else {
            self.takeable(tried, now).count()
        };
        let nth = |place| {
            if may_take_all {
                self.endpoints.get(place)
            } else {
                self.takeable(tried, now).nth(place)
            }
        };
        if count < 2 {
            return nth(0);
        }
        let one = rng.random_range(0..count);
        let other = (one + rng.random_range(1..count)) % count;
        let (one, other) = (nth(one)?, nth(other)?);
        let load = |(endpoint, weight): &(Rc<Endpoint>, u32)| {
            endpoint.ewma.borrow().load(endpoint.outstanding.get(), now) / f64::from(*weight)
        };
        Some(if load(one) <= load(other) { one } else { other })
    }

    fn by_chance(
        &self,
        tried: &[SocketAddr],
        rng: &mut SmallRng,
        now: Instant,
    ) -> Option<&(Rc<Endpoint>, u32)> {
        let total: u64 = self
            .takeable(tried, now)
            .map(|(_, weight)| u64::from(*weight))
            .sum();
        let mut draw = rng.random_range(0..total.max(1));
        self.takeable(tried, now).find(|(_, weight)| {
            let is_hit = draw < u64::from(*weight);
            draw = draw.saturating_sub(u64::from(*weight));
            is_hit
        })
    }

    fn has_ejected(&self) -> bool {
        self.reach.counts.ejected.get() > 0
    }

    fn report(&self, endpoint: &Endpoint, outcome: Outcome, latency: Duration, now: Instant) {
        let mut ewma = endpoint.ewma.borrow_mut();
        ewma.observe(latency, now);
        endpoint.seen.set_latency(ewma.latency());
        drop(ewma);
        let Some(policy) = &self.reach.cluster.outlier else {
            return;
        };
        let change = match outcome {
            Outcome::Success => endpoint.health.borrow_mut().success(now),
            Outcome::Failure => {
                let spare = may_eject(self.reach.counts.ejected.get(), self.total, policy);
                endpoint.health.borrow_mut().failure(policy, spare, now)
            }
        };
        let (cluster, upstream) = (&self.reach.cluster.name, endpoint.address);
        match change {
            Change::None => {}
            Change::Ejected => {
                *endpoint.ejected.borrow_mut() = Some(self.reach.ejected());
                endpoint.seen.set_ejected(true);
                tracing::warn!(%cluster, %upstream, "endpoint ejected");
            }
            Change::Returned => {
                *endpoint.ejected.borrow_mut() = None;
                endpoint.seen.set_ejected(false);
                tracing::info!(%cluster, %upstream, "endpoint returned");
            }
        }
    }

    /// A connection to an endpoint, for one attempt.
    pub async fn lease(
        &self,
        endpoint: &Rc<Endpoint>,
        downstream: Version,
        fresh: bool,
    ) -> Result<Lease, LeaseError> {
        let lease = endpoint.lease(&self.reach, downstream, fresh).await;
        if matches!(lease, Err(LeaseError::Overflow)) {
            self.reach.stats.overflows.one();
        }
        lease
    }

    /// Close what rested too long.
    pub fn sweep(&self) {
        self.endpoints
            .iter()
            .for_each(|(endpoint, _)| endpoint.sweep());
    }
}

/// May connections made for one configuration be used by the other?
fn reaches_alike(one: &Cluster, other: &Cluster) -> bool {
    let transports_alike = match (&one.transport, &other.transport) {
        (Transport::Plaintext, Transport::Plaintext) => true,
        (Transport::MutualTls { peers: one }, Transport::MutualTls { peers: other }) => {
            one == other
        }
        (Transport::Plaintext, Transport::MutualTls { .. })
        | (Transport::MutualTls { .. }, Transport::Plaintext) => false,
    };
    transports_alike && one.protocol == other.protocol
}

impl Picked<'_> {
    /// Say how it went.
    pub fn report(mut self, outcome: Outcome) {
        self.is_reported = true;
        let now = Instant::now();
        self.balancer.report(
            &self.endpoint,
            outcome,
            now.saturating_duration_since(self.began),
            now,
        );
    }
}

impl Drop for Picked<'_> {
    fn drop(&mut self) {
        if self.is_probe && !self.is_reported {
            self.endpoint.health.borrow_mut().abandon(Instant::now());
        }
    }
}

impl InFlight {
    /// Count against this endpoint, and no longer against the one before.
    pub fn occupy(&mut self, endpoint: &Rc<Endpoint>) {
        self.vacate();
        endpoint.outstanding.set(endpoint.outstanding.get() + 1);
        self.endpoint = Some(Rc::clone(endpoint));
    }

    fn vacate(&mut self) {
        if let Some(endpoint) = self.endpoint.take() {
            endpoint
                .outstanding
                .set(endpoint.outstanding.get().saturating_sub(1));
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.vacate();
        self.stats.requests.down();
    }
}
