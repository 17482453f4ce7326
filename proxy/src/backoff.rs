//! When to try again: exponential backoff with full jitter, so that clients which lost a server together do not come
//! back together.

use std::time::Duration;

use rand::Rng;

#[derive(Debug)]
pub(crate) struct Backoff {
    base: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    pub fn new(base: Duration, most: Duration) -> Self {
        Self {
            base,
            most,
            failures: 0,
        }
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure: anything up to the bound, which doubles each time.
    pub fn next(&mut self) -> Duration {
        let bound = self
            .base
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1).min(31);
        bound
            .min(self.most)
            .mul_f64(rand::rng().random_range(0.0..1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_bound_and_not_beyond() {
        let (base, most) = (Duration::from_secs(1), Duration::from_secs(150));
        let mut longest = Duration::ZERO;
        for _ in 0..50 {
            let mut backoff = Backoff::new(base, most);
            assert!(backoff.next() <= base);
            assert!(backoff.next() <= base * 2);
            longest = (0..100)
                .map(|_| backoff.next())
                .fold(longest, Duration::max);
        }
        assert!(longest <= most);
        assert!(longest > most / 2, "{longest:?}");
    }
}
