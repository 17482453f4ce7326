//! When our SVID is renewed. The loop is level-triggered: each turn it asks "is it due?", by both clocks, so that neither
//! a stopped process nor a clock that jumped makes it miss the time, and an SVID that expired is asked for like any other
//! (ATTACKS H2, H7).

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::Rng;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::certificate_client::{CertificateClient, RequestError};
use super::svid::Svid;
use crate::backoff::Backoff;
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
    fn after(svid: &Svid, jitter: f64, now: Instant, wall: SystemTime) -> Self {
        let left = svid.not_after.duration_since(wall).unwrap_or_default();
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
                due = Some(Due::after(&svid, jitter, Instant::now(), SystemTime::now()));
                adopt(&client, &telemetry, svid);
            }
            Err(error) => {
                let wait = wait_after(
                    &error,
                    backoff.next(),
                    client.control.credentials.svid().as_deref(),
                );
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
    let left = svid
        .not_after
        .duration_since(SystemTime::now())
        .unwrap_or_default();
    info!(spiffe_id = %svid.id, lifetime_seconds = left.as_secs(), "svid renewed");
    client.control.credentials.set_svid(Arc::new(svid));
}

fn complain(telemetry: &Telemetry, error: &RequestError, wait: Duration) {
    telemetry.control.svid_renewal_failures.one();
    telemetry
        .control
        .set_connected(Server::CertificateAuthority, false);
    let cause = error.source().map(ToString::to_string);
    warn!(%error, cause, retry_seconds = wait.as_secs_f64(), "svid not renewed");
}

fn wait_after(error: &RequestError, jittered: Duration, svid: Option<&Svid>) -> Duration {
    let left = svid.and_then(|svid| svid.not_after.duration_since(SystemTime::now()).ok());
    let most = left.unwrap_or_default().max(MAX_BACKOFF_WITHOUT_SVID);
    match error.retry_after() {
        // Every client may have been told the same.
        Some(asked) => asked + jittered.min(Duration::from_secs(5)),
        None => jittered.min(most),
    }
}
