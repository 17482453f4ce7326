//! Peak EWMA: an endpoint's latency as a moving average that believes bad news at once and good news slowly.

use std::time::Duration;

use tokio::time::Instant;

/// How fast what was observed is forgotten.
const DECAY: Duration = Duration::from_secs(10);
/// For an endpoint that has requests and never answered: as good as the worst.
const UNKNOWN_COST: f64 = 1e6;

#[derive(Debug, Clone, Copy)]
pub struct PeakEwma {
    /// Microseconds.
    cost: f64,
    observed: Instant,
}

impl PeakEwma {
    pub fn new(now: Instant) -> Self {
        Self {
            cost: 0.0,
            observed: now,
        }
    }

    pub fn observe(&mut self, latency: Duration, now: Instant) {
        let latency = latency.as_secs_f64() * 1e6;
        if latency > self.cost {
            self.cost = latency;
        } else {
            let kept = self.kept(now);
            self.cost = self.cost * kept + latency * (1.0 - kept);
        }
        self.observed = now;
    }

    /// The average as it was when last observed.
    pub fn latency(&self) -> Duration {
        Duration::try_from_secs_f64(self.cost / 1e6).unwrap_or_default()
    }

    /// What one more request would cost there: of two endpoints the one with less gets it. `outstanding` counts those in
    /// flight.
    pub fn load(&self, outstanding: u32, now: Instant) -> f64 {
        let cost = self.cost * self.kept(now);
        if cost < 1.0 && outstanding > 0 {
            return UNKNOWN_COST + f64::from(outstanding);
        }
        cost * f64::from(outstanding + 1)
    }

    fn kept(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.observed);
        (-elapsed.as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_peak_is_believed_at_once_and_forgotten_slowly() {
        let start = Instant::now();
        let mut ewma = PeakEwma::new(start);
        ewma.observe(MS, start);
        ewma.observe(100 * MS, start);
        assert!((ewma.load(0, start) - 100_000.0).abs() < 1.0);
        ewma.observe(MS, start + MS);
        assert!(ewma.load(0, start + MS) > 99_000.0);
        assert!(ewma.load(0, start + 3 * DECAY) < 6_000.0);
    }

    #[test]
    fn requests_in_flight_count() {
        let start = Instant::now();
        let mut ewma = PeakEwma::new(start);
        ewma.observe(MS, start);
        assert!(ewma.load(3, start) > 3.0 * ewma.load(0, start));
    }

    #[test]
    fn an_endpoint_never_tried_is_tried_once() {
        let start = Instant::now();
        let (fresh, mut known) = (PeakEwma::new(start), PeakEwma::new(start));
        known.observe(MS, start);
        assert!(fresh.load(0, start) < known.load(0, start));
        assert!(fresh.load(1, start) > known.load(1, start));
    }
}
