//! When our SVID is renewed. The loop is level-triggered: each turn it asks "is it due?", by both clocks, so that neither
//! a stopped process nor a clock that jumped makes it miss the time, and one that expired is asked for like any other.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::Rng;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::certificate_client::{CertificateClient, RequestError};
use super::svid::Svid;
use crate::backoff::Backoff;
use crate::causes::with_causes;
use crate::telemetry::{Server, Telemetry};

/// At least so often the clocks are compared.
const TICK: Duration = Duration::from_secs(3);
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(150);
/// Without a valid SVID nothing works: waits stay short, and a CA that returns finds us soon.
const MAX_BACKOFF_WITHOUT_SVID: Duration = Duration::from_secs(15);
/// However short a life, so much lies between two requests that succeeded.
const SHORTEST: Duration = Duration::from_secs(1);

/// When the next renewal is due, on either clock.
#[derive(Debug, Clone, Copy)]
struct Due {
    monotonic: Instant,
    wall: SystemTime,
}

impl Due {
    /// Half of the life that is left, give or take a tenth of it, so that a fleet does not renew in step.
    fn in_half_of(left: Duration, jitter: f64, now: Instant, wall: SystemTime) -> Self {
        let wait = left.mul_f64(0.5 * (1.0 + 0.1 * jitter)).max(SHORTEST);
        Self {
            monotonic: now + wait,
            wall: wall + wait,
        }
    }

    /// How long to sleep before asking again; nothing if it is due.
    fn wait(self, now: Instant, wall: SystemTime) -> Option<Duration> {
        let left = self
            .monotonic
            .saturating_duration_since(now)
            .min(self.wall.duration_since(wall).unwrap_or_default());
        (!left.is_zero()).then(|| left.min(TICK))
    }
}

/// Get an SVID, and keep it renewed for ever.
pub(super) async fn keep_renewed(client: CertificateClient) -> Infallible {
    let telemetry = Arc::clone(&client.control.telemetry);
    let mut backoff = Backoff::new(FIRST_BACKOFF, MAX_BACKOFF);
    let mut due: Option<Due> = None;
    loop {
        if let Some(wait) = due.and_then(|due| due.wait(Instant::now(), SystemTime::now())) {
            sleep(wait).await;
            continue;
        }
        match client.request().await {
            Ok(svid) => {
                backoff.reset();
                let jitter = rand::rng().random_range(-1.0..=1.0);
                let (now, wall) = (Instant::now(), SystemTime::now());
                due = Some(Due::in_half_of(left(&svid), jitter, now, wall));
                adopt(&client, &telemetry, svid);
            }
            Err(error) => {
                let svid = client.control.credentials.svid();
                let left = svid.as_deref().map(left);
                let wait = wait_after(error.retry_after(), backoff.next(), left);
                complain(&telemetry, &error, wait);
                sleep(wait).await;
            }
        }
    }
}

fn adopt(client: &CertificateClient, telemetry: &Telemetry, svid: Svid) {
    telemetry.control.set_svid_expiry(svid.not_after);
    telemetry
        .control
        .set_connected(Server::CertificateAuthority, true);
    telemetry.control.svid_renewals.one();
    let left = left(&svid);
    info!(spiffe_id = %svid.id, lifetime_seconds = left.as_secs(), "svid renewed");
    client.control.credentials.set_svid(Arc::new(svid));
}

fn complain(telemetry: &Telemetry, error: &RequestError, wait: Duration) {
    telemetry.control.svid_renewal_failures.one();
    telemetry
        .control
        .set_connected(Server::CertificateAuthority, false);
    let (error, retry_seconds) = (with_causes(error), wait.as_secs_f64());
    warn!(error, retry_seconds, "svid not renewed");
}

fn left(svid: &Svid) -> Duration {
    svid.not_after
        .duration_since(SystemTime::now())
        .unwrap_or_default()
}

fn wait_after(asked: Option<Duration>, jittered: Duration, left: Option<Duration>) -> Duration {
    match asked {
        // Every client may have been told the same.
        Some(asked) => asked + jittered.min(Duration::from_secs(5)),
        None => jittered.min(left.unwrap_or_default().max(MAX_BACKOFF_WITHOUT_SVID)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn due(life: Duration, jitter: f64) -> (Due, Instant, SystemTime) {
        let (now, wall) = (Instant::now(), SystemTime::now());
        (Due::in_half_of(life, jitter, now, wall), now, wall)
    }

    #[test]
    fn renewal_is_due_at_half_of_what_is_left() {
        let (due, now, wall) = due(Duration::from_secs(1000), 0.0);
        let later = |seconds| {
            (
                now + Duration::from_secs(seconds),
                wall + Duration::from_secs(seconds),
            )
        };
        let wait = |(now, wall)| due.wait(now, wall);
        assert_eq!(wait(later(0)), Some(TICK));
        assert_eq!(wait(later(499)), Some(Duration::from_secs(1)));
        assert_eq!(wait(later(500)), None);
        assert_eq!(wait(later(5000)), None);
    }

    #[test]
    fn attack_h7_either_clock_makes_it_due() {
        let (due, now, wall) = due(Duration::from_secs(1000), 0.0);
        let day = Duration::from_secs(86_400);
        // Set forward, or the machine slept: the monotonic clock saw nothing of it.
        assert_eq!(due.wait(now, wall + day), None);
        // Set back: the wall clock would wait for a day more.
        assert_eq!(due.wait(now + Duration::from_secs(600), wall - day), None);
        assert!(due.wait(now, wall - day).is_some());
    }

    proptest! {
        #[test]
        fn jitter_is_a_tenth_and_a_short_life_no_busy_loop(seconds in 0..100_000_u64, jitter in -1.0..=1.0_f64) {
            let life = Duration::from_secs(seconds);
            let (due, now, _) = due(life, jitter);
            let wait = due.monotonic - now;
            prop_assert!(wait >= SHORTEST);
            prop_assert!(wait <= life.mul_f64(0.5501).max(SHORTEST));
            prop_assert!(seconds < 3 || wait >= life.mul_f64(0.4499));
        }

        #[test]
        fn waits_after_failures_are_bounded(jittered in 0..150_u64, left in proptest::option::of(0..100_000_u64)) {
            let jittered = Duration::from_secs(jittered);
            let left = left.map(Duration::from_secs);
            let wait = wait_after(None, jittered, left);
            prop_assert!(wait <= jittered);
            // However long the outage was, a CA that is back is asked soon after the SVID expired.
            prop_assert!(wait <= left.unwrap_or_default().max(MAX_BACKOFF_WITHOUT_SVID));
        }
    }

    #[test]
    fn wait_that_the_ca_asked_for_is_honoured() {
        let asked = Duration::from_secs(60);
        let wait = wait_after(Some(asked), Duration::from_secs(100), None);
        assert!(wait >= asked && wait <= asked + Duration::from_secs(5));
    }
}
