//! Sending a request to a cluster: attempts, one after the other, until there is an answer or no more sense in trying.

pub mod deadline;
mod retry;

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Version};
use rand::rngs::SmallRng;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use crate::balance::{Balancer, Lease, LeaseError, Outcome, Picked};
use crate::codes::{Hop, Reason};
use crate::exchange::Exchange;
use crate::http::body::{Body, BodyError};
use crate::http::headers::X_ATTEMPT_COUNT;
use crate::http::replay::Replay;
use crate::http::upstream::{Outgoing, Received};
use crate::http::{h1, h2};
use crate::mesh::cluster::Transport;
use crate::mesh::route::RetryPolicy;
use retry::{Failure, backoff, is_idempotent, may_retry_answer, meant_status};

/// Where a request goes, and how much is tried for it.
pub struct Forwarding<'a> {
    pub hop: Hop,
    pub balancer: &'a Balancer,
    pub retry: Option<&'a RetryPolicy>,
    pub deadline: Option<Instant>,
    /// What the caller spoke.
    pub downstream: Version,
    pub rng: &'a RefCell<SmallRng>,
}

/// An attempt under way: kept outside of its future, so that it can be judged when that is given up.
type Current<'a> = RefCell<Option<Picked<'a>>>;

impl Forwarding<'_> {
    /// The answer, or why there is none.
    pub async fn send(&self, exchange: &mut Exchange, body: Body) -> Result<Received, Reason> {
        exchange.in_flight = Some(self.balancer.admit().ok_or(Reason::Overflow)?);
        let body = if body.is_end() {
            body
        } else {
            body.metered(exchange.bytes_in.clone())
        };
        let mut alarm = self
            .deadline
            .map(|deadline| Box::pin(sleep_until(deadline)));
        let current = Current::default();
        let outcome = {
            let mut attempts = pin!(self.attempts(exchange, body, &current));
            poll_fn(|cx| match (attempts.as_mut().poll(cx), &mut alarm) {
                (Poll::Ready(outcome), _) => Poll::Ready(Some(outcome)),
                (Poll::Pending, Some(alarm)) => poll_alarm(alarm, cx).map(|()| None),
                (Poll::Pending, None) => Poll::Pending,
            })
            .await
        };
        match outcome {
            Some(Ok(received)) => Ok(Received {
                body: received.body.until(alarm, BodyError::Deadline),
                ..received
            }),
            Some(Err(failure)) => Err(failure.reason(self.hop)),
            None => {
                if let Some(picked) = current.take() {
                    picked.report(Outcome::Failure);
                }
                Err(Reason::Timeout)
            }
        }
    }

    async fn attempts<'a>(
        &'a self,
        exchange: &mut Exchange,
        body: Body,
        current: &Current<'a>,
    ) -> Result<Received, Failure> {
        let line = Line {
            authority: exchange.request.authority(),
            path_and_query: exchange.request.path_and_query(),
        };
        let replay = (!body.is_end()).then(|| Replay::new(body));
        let is_whole = || replay.as_ref().is_none_or(Replay::is_whole);
        let mut tried = Vec::new();
        let mut retries = 0;
        let mut fresh = false;
        // Held while a retry lasts.
        let mut _permit = None;
        loop {
            exchange.attempts = retries + 1;
            let body = replay.as_ref().map_or_else(Body::default, Replay::attempt);
            let outcome = self
                .attempt(exchange, &line, body, &tried, fresh, current)
                .await;
            if matches!(outcome, Tried::Failed(Failure::Stale)) && !fresh && is_whole() {
                fresh = true;
                continue;
            }
            let policy = self
                .retry
                .filter(|policy| retries < policy.max_retries && is_whole());
            let Some(policy) = policy.filter(|policy| outcome.may_retry(policy)) else {
                return outcome.finish(replay.as_ref());
            };
            let Some(permit) = self.balancer.admit_retry() else {
                return outcome.finish(replay.as_ref());
            };
            _permit = Some(permit);
            tried.extend(exchange.upstream);
            drop(outcome);
            let pause = backoff(policy, retries, &mut self.rng.borrow_mut());
            retries += 1;
            fresh = false;
            sleep(pause).await;
        }
    }

    /// One attempt, judged.
    async fn attempt<'a>(
        &'a self,
        exchange: &mut Exchange,
        line: &Line,
        body: Body,
        tried: &[SocketAddr],
        fresh: bool,
        current: &Current<'a>,
    ) -> Tried {
        let picked = self.balancer.pick(tried, &mut self.rng.borrow_mut());
        let Some(picked) = picked else {
            return Tried::Failed(Failure::NoEndpoint);
        };
        let per_try = self.retry.and_then(|policy| policy.per_try_timeout);
        self.stamp(exchange, per_try);
        exchange.upstream = Some(picked.endpoint.address);
        if let Some(in_flight) = &mut exchange.in_flight {
            in_flight.occupy(&picked.endpoint);
        }
        let endpoint = Rc::clone(&picked.endpoint);
        *current.borrow_mut() = Some(picked);
        let sending = async {
            match self.balancer.lease(&endpoint, self.downstream, fresh).await {
                Ok(lease) => self.send_on(lease, line, exchange, body, fresh).await,
                Err(LeaseError::Overflow) => Err(Failure::Overflow),
                Err(LeaseError::Dial(error)) => Err(Failure::Connect(error.reason(self.hop))),
            }
        };
        let outcome = match per_try {
            Some(within) => timeout(within, sending)
                .await
                .unwrap_or(Err(Failure::PerTryTimeout)),
            None => sending.await,
        };
        let judged = match &outcome {
            Ok(answer) if meant_status(answer).is_server_error() => Some(Outcome::Failure),
            Ok(_) => Some(Outcome::Success),
            Err(failure) => failure.is_endpoints().then_some(Outcome::Failure),
        };
        if let (Some(picked), Some(judged)) = (current.take(), judged) {
            picked.report(judged);
        }
        outcome.map_or_else(Tried::Failed, Tried::Answered)
    }

    /// What an upstream is told of this attempt.
    fn stamp(&self, exchange: &mut Exchange, per_try: Option<Duration>) {
        let headers = &mut exchange.request.headers;
        deadline::hand_on(headers, self.deadline, per_try, Instant::now());
        if self.hop == Hop::Outbound {
            headers.insert(&X_ATTEMPT_COUNT, HeaderValue::from(exchange.attempts));
        }
    }

    async fn send_on(
        &self,
        lease: Lease,
        line: &Line,
        exchange: &Exchange,
        body: Body,
        fresh: bool,
    ) -> Result<Received, Failure> {
        let request = Outgoing {
            method: &exchange.request.method,
            authority: &line.authority,
            path_and_query: &line.path_and_query,
            headers: &exchange.request.headers,
            is_https: matches!(
                self.balancer.cluster().transport,
                Transport::MutualTls { .. }
            ),
        };
        match lease {
            Lease::Http1(connection) => {
                let had_rested = connection.is_used;
                let is_safe = |sent| sent == h1::Sent::Nothing || is_idempotent(request.method);
                connection
                    .send(request, body)
                    .await
                    .map_err(|error| match error {
                        h1::SendError::Closed(sent) if had_rested && is_safe(sent) => {
                            Failure::Stale
                        }
                        h1::SendError::Closed(h1::Sent::Nothing) => Failure::Unprocessed,
                        h1::SendError::Closed(h1::Sent::Something) => Failure::Reset,
                        h1::SendError::Response(_) => Failure::Malformed,
                        h1::SendError::Request(error) => Failure::Request(error),
                    })
            }
            Lease::Http2(shared) => shared
                .send(request, body)
                .await
                .map_err(|error| match error {
                    h2::SendError::Unprocessed if fresh => Failure::Unprocessed,
                    h2::SendError::Unprocessed => Failure::Stale,
                    h2::SendError::Reset => Failure::Reset,
                    h2::SendError::Malformed => Failure::Malformed,
                    h2::SendError::Request(error) => Failure::Request(error),
                }),
        }
    }
}

/// Authority and path as every attempt sends them.
struct Line {
    authority: Bytes,
    path_and_query: Bytes,
}

enum Tried {
    Answered(Received),
    Failed(Failure),
}

impl Tried {
    fn may_retry(&self, policy: &RetryPolicy) -> bool {
        match self {
            Self::Answered(answer) => may_retry_answer(answer, &policy.on),
            Self::Failed(failure) => failure.may_retry(&policy.on),
        }
    }

    /// It stands: nothing more of the request's body need be kept.
    fn finish(self, replay: Option<&Replay>) -> Result<Received, Failure> {
        if let Some(replay) = replay {
            replay.release();
        }
        match self {
            Self::Answered(answer) => Ok(answer),
            Self::Failed(failure) => Err(failure),
        }
    }
}

fn poll_alarm(alarm: &mut Pin<Box<Sleep>>, cx: &mut Context<'_>) -> Poll<()> {
    alarm.as_mut().poll(cx)
}
