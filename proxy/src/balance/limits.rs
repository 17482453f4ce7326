//! Circuit limits of a cluster, as one worker enforces its share of them. They are counted per cluster and outlive
//! the configuration that set them.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::mesh::cluster::CircuitLimits;

/// What is in use of one cluster by this worker.
#[derive(Debug, Default)]
pub struct Counts {
    pub connections: Cell<u32>,
    pub waiting: Cell<u32>,
    pub requests: Cell<u32>,
    pub retries: Cell<u32>,
    /// Endpoints that are ejected.
    pub ejected: Cell<u32>,
    /// A connection was closed: those who wait for leave to make one may look again.
    pub closed: Notify,
}

/// One of something counted, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    counts: Rc<Counts>,
    of: fn(&Counts) -> &Cell<u32>,
}

impl Permit {
    pub fn take(counts: &Rc<Counts>, of: fn(&Counts) -> &Cell<u32>) -> Self {
        let count = of(counts);
        count.set(count.get() + 1);
        Self {
            counts: Rc::clone(counts),
            of,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let count = (self.of)(&self.counts);
        count.set(count.get().saturating_sub(1));
    }
}

/// One who waits for a connection.
#[derive(Debug)]
pub struct Waiting(Rc<Counts>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get().saturating_sub(1));
    }
}

/// One worker's share of a cluster's limits: rounded up, so that a small limit still lets something through.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    pub connections: u32,
    pub waiting: u32,
    pub requests: u32,
    retry_percent: f64,
    min_retries: u32,
}

impl Share {
    pub fn of(limits: &CircuitLimits, workers: u32) -> Self {
        let share = |limit: u32| limit.div_ceil(workers.max(1));
        Self {
            connections: share(limits.max_connections).max(1),
            waiting: share(limits.max_pending),
            requests: share(limits.max_requests),
            retry_percent: limits.retry_budget_percent,
            min_retries: share(limits.min_retry_concurrency),
        }
    }

    pub fn request(&self, counts: &Rc<Counts>) -> Option<Permit> {
        (counts.requests.get() < self.requests)
            .then(|| Permit::take(counts, |counts| &counts.requests))
    }

    /// A place among those who wait for a connection.
    pub fn wait(&self, counts: &Rc<Counts>) -> Option<Waiting> {
        let waiting = counts.waiting.get();
        (waiting < self.waiting).then(|| {
            counts.waiting.set(waiting + 1);
            Waiting(Rc::clone(counts))
        })
    }

    /// A retry, if the budget has one left.
    pub fn retry(&self, counts: &Rc<Counts>) -> Option<Permit> {
        let share = f64::from(counts.requests.get()) * self.retry_percent / 100.0;
        let retries = counts.retries.get();
        let allowed = retries < self.min_retries || f64::from(retries) + 1.0 <= share;
        allowed.then(|| Permit::take(counts, |counts| &counts.retries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> CircuitLimits {
        CircuitLimits {
            max_connections: 3,
            max_pending: 0,
            max_requests: 4,
            retry_budget_percent: 50.0,
            min_retry_concurrency: 1,
        }
    }

    #[test]
    fn limits_are_divided_among_workers() {
        let share = Share::of(&limits(), 2);
        assert_eq!(
            (share.connections, share.waiting, share.requests),
            (2, 0, 2)
        );
    }

    #[test]
    fn requests_are_bounded_and_given_back() {
        let (share, counts) = (Share::of(&limits(), 1), Rc::<Counts>::default());
        let held: Vec<_> = (0..4).map(|_| share.request(&counts).unwrap()).collect();
        assert!(share.request(&counts).is_none());
        drop(held);
        assert!(share.request(&counts).is_some());
    }

    #[test]
    fn retries_are_a_share_of_requests_but_some_are_always_allowed() {
        let (share, counts) = (Share::of(&limits(), 1), Rc::<Counts>::default());
        let first = share.retry(&counts);
        assert!(first.is_some() && share.retry(&counts).is_none());
        let _requests: Vec<_> = (0..4).map(|_| share.request(&counts).unwrap()).collect();
        let second = share.retry(&counts);
        assert!(second.is_some() && share.retry(&counts).is_none());
    }
}
