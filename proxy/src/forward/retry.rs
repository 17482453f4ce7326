//! When an attempt that failed may be made again.
//!
//! By itself a request is repeated only where it was provably not processed. Everything else is the route's word, which
//! the policy server gives to idempotent routes only.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::codes::{Hop, Reason, X_GARRISON_CODE};
use crate::http::body::BodyError;
use crate::http::upstream::Received;
use crate::mesh::route::{RetryOn, RetryPolicy};

/// Why an attempt has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    NoEndpoint,
    Overflow,
    /// No connection; for this reason.
    Connect(Reason),
    /// The server refused it, or never saw it.
    Unprocessed,
    /// A connection that had rested turned out to be closed: a fresh one is due, whatever the policy.
    Stale,
    /// The connection broke after the request was sent.
    Reset,
    /// The attempt's own time was up.
    PerTryTimeout,
    /// The answer was not HTTP.
    Malformed,
    /// It is the caller's request that broke off.
    Request(BodyError),
}

impl Failure {
    pub fn reason(self, hop: Hop) -> Reason {
        match self {
            Self::NoEndpoint if hop == Hop::Inbound => Reason::ApplicationUnreachable,
            Self::NoEndpoint => Reason::NoHealthyEndpoint,
            Self::Overflow => Reason::Overflow,
            Self::Connect(reason) => reason,
            Self::Unprocessed | Self::Stale | Self::Reset => Reason::Reset,
            Self::PerTryTimeout | Self::Request(BodyError::Deadline) => Reason::Timeout,
            Self::Malformed => Reason::BadResponse,
            Self::Request(BodyError::Stalled) => Reason::RequestTimeout,
            Self::Request(BodyError::Broken | BodyError::Malformed | BodyError::Reset) => {
                Reason::BadBody
            }
        }
    }

    /// Does it speak against the endpoint?
    pub fn is_endpoints(self) -> bool {
        match self {
            Self::NoEndpoint | Self::Overflow | Self::Stale | Self::Request(_) => false,
            Self::Connect(_)
            | Self::Unprocessed
            | Self::Reset
            | Self::PerTryTimeout
            | Self::Malformed => true,
        }
    }

    pub fn may_retry(self, on: &RetryOn) -> bool {
        match self {
            Self::NoEndpoint | Self::Overflow | Self::Request(_) => false,
            Self::Connect(_) => on.connect_failure || on.gateway_error || on.server_error,
            Self::Unprocessed => on.refused_stream || on.reset_before_request || on.reset,
            Self::Stale => on.reset_before_request || on.reset,
            Self::Reset | Self::PerTryTimeout | Self::Malformed => {
                on.reset || on.gateway_error || on.server_error
            }
        }
    }
}

/// Does the status of an answer ask for another attempt?
pub fn may_retry_answer(answer: &Received, on: &RetryOn) -> bool {
    let status = meant_status(answer);
    let is_gateway_error = matches!(status.as_u16(), 502..=504);
    on.server_error && status.is_server_error()
        || on.gateway_error && is_gateway_error
        || on.statuses.contains(&status)
        || on.refused_stream && was_refused_by_proxy(&answer.headers)
        || on.reset && ran_out_of_time_at_proxy(&answer.headers)
}

/// The status that an answer means: gRPC says it in `grpc-status`, which in a trailers-only answer is in the head
/// (mapping: <https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>, read backwards).
pub fn meant_status(answer: &Received) -> StatusCode {
    let grpc = answer
        .headers
        .get("grpc-status")
        .and_then(|value| value.to_str().ok());
    match grpc {
        Some("14") => StatusCode::SERVICE_UNAVAILABLE,
        Some("4") => StatusCode::GATEWAY_TIMEOUT,
        Some("2" | "13" | "15") => StatusCode::INTERNAL_SERVER_ERROR,
        Some(_) | None => answer.status,
    }
}

/// The server's own proxy says that its application never saw the request. Only a proxy can: it removes the header from
/// what its application answers.
fn was_refused_by_proxy(headers: &HeaderMap) -> bool {
    const NOT_PROCESSED: &[Reason] = &[
        Reason::NotReady,
        Reason::Draining,
        Reason::Overloaded,
        Reason::Overflow,
        Reason::ApplicationUnreachable,
    ];
    is_said_by_proxy(headers, NOT_PROCESSED)
}

/// The server's own proxy gave up on the attempt at the time that it was told. It and we look at the same time: which of
/// the two is first must make no difference.
fn ran_out_of_time_at_proxy(headers: &HeaderMap) -> bool {
    is_said_by_proxy(headers, &[Reason::Timeout])
}

fn is_said_by_proxy(headers: &HeaderMap, reasons: &[Reason]) -> bool {
    let code = headers
        .get(&X_GARRISON_CODE)
        .and_then(|value| value.to_str().ok());
    let said = code.and_then(|code| code.strip_prefix("inbound/"));
    said.is_some_and(|said| reasons.iter().any(|known| known.as_str() == said))
}

/// RFC 9110 §9.2.2: of these one more does no more.
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    )
}

/// Full jitter: anything between nothing and the exponential bound, so that those who failed together do not return
/// together.
pub fn backoff(policy: &RetryPolicy, retry: u32, rng: &mut SmallRng) -> Duration {
    let bound = policy
        .base_interval
        .saturating_mul(1 << retry.min(16))
        .min(policy.max_interval);
    bound.mul_f64(rng.random::<f64>())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use rand::SeedableRng;

    use super::*;
    use crate::http::body::Body;

    fn answer(status: u16, headers: &[(&'static str, &'static str)]) -> Received {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        Received {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.collect(),
            body: Body::default(),
        }
    }

    #[test]
    fn only_what_was_not_processed_is_safe() {
        let safe = RetryOn {
            connect_failure: true,
            refused_stream: true,
            reset_before_request: true,
            ..RetryOn::default()
        };
        assert!(Failure::Connect(Reason::ConnectFailed).may_retry(&safe));
        assert!(Failure::Unprocessed.may_retry(&safe) && Failure::Stale.may_retry(&safe));
        for failure in [
            Failure::Reset,
            Failure::PerTryTimeout,
            Failure::Malformed,
            Failure::Request(BodyError::Broken),
        ] {
            assert!(!failure.may_retry(&safe), "{failure:?}");
        }
        assert!(!may_retry_answer(&answer(503, &[]), &safe));
        let unreachable = [("x-garrison-code", "inbound/application-unreachable")];
        assert!(may_retry_answer(&answer(503, &unreachable), &safe));
        assert!(!may_retry_answer(
            &answer(502, &[("x-garrison-code", "inbound/reset")]),
            &safe
        ));
        assert!(!may_retry_answer(
            &answer(503, &[("x-garrison-code", "outbound/overflow")]),
            &safe
        ));
    }

    #[test]
    fn an_idempotent_route_may_retry_more() {
        let all = RetryOn {
            gateway_error: true,
            reset: true,
            ..RetryOn::default()
        };
        assert!(Failure::Reset.may_retry(&all) && Failure::PerTryTimeout.may_retry(&all));
        assert!(
            may_retry_answer(&answer(503, &[]), &all) && !may_retry_answer(&answer(500, &[]), &all)
        );
        assert!(may_retry_answer(
            &answer(200, &[("grpc-status", "14")]),
            &all
        ));
        let late = RetryOn {
            reset: true,
            ..RetryOn::default()
        };
        let told = [("x-garrison-code", "inbound/timeout")];
        assert!(may_retry_answer(&answer(504, &told), &late));
        assert!(!may_retry_answer(&answer(504, &[]), &late));
        let listed = RetryOn {
            statuses: [StatusCode::CONFLICT].into(),
            ..RetryOn::default()
        };
        assert!(
            may_retry_answer(&answer(409, &[]), &listed)
                && !may_retry_answer(&answer(500, &[]), &listed)
        );
    }

    #[test]
    fn backoff_stays_within_its_bounds() {
        let policy = RetryPolicy {
            max_retries: 3,
            per_try_timeout: None,
            base_interval: Duration::from_millis(25),
            max_interval: Duration::from_millis(250),
            on: RetryOn::default(),
        };
        let mut rng = SmallRng::seed_from_u64(1);
        for retry in 0..40 {
            assert!(backoff(&policy, retry, &mut rng) <= policy.max_interval);
            assert!(backoff(&policy, 0, &mut rng) <= policy.base_interval);
        }
    }
}
