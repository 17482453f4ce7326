//! Passive health: an endpoint that fails again and again is left alone for a while, then tried with one request
//! before it is trusted again.

use std::time::Duration;

use tokio::time::Instant;

use crate::mesh::cluster::OutlierDetection;

/// A probe that has not ended by then does not keep others from trying.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    In,
    Out {
        until: Instant,
    },
    /// One request is on its way to find out.
    Probing {
        since: Instant,
    },
}

/// May an endpoint be picked?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    In,
    /// By one request only.
    ToProbe,
    Out,
}

#[derive(Debug)]
pub struct Health {
    state: State,
    /// Failures in a row.
    failures: u32,
    /// Ejections in a row: each is longer than the one before.
    ejections: u32,
    /// When it last came back.
    returned: Option<Instant>,
}

/// What an outcome changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    None,
    Ejected,
    Returned,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            state: State::In,
            failures: 0,
            ejections: 0,
            returned: None,
        }
    }
}

impl Health {
    pub fn standing(&self, now: Instant) -> Standing {
        match self.state {
            State::In => Standing::In,
            State::Out { until } if now >= until => Standing::ToProbe,
            State::Probing { since } if now >= since + PROBE_TIMEOUT => Standing::ToProbe,
            State::Out { .. } | State::Probing { .. } => Standing::Out,
        }
    }

    pub fn begin_probe(&mut self, now: Instant) {
        self.state = State::Probing { since: now };
    }

    /// The request neither succeeded nor failed: whoever probed, another may.
    pub fn abandon(&mut self, now: Instant) {
        if let State::Probing { .. } = self.state {
            self.state = State::Out { until: now };
        }
    }

    pub fn success(&mut self, now: Instant) -> Change {
        self.failures = 0;
        match self.state {
            State::In | State::Out { .. } => Change::None,
            State::Probing { .. } => {
                self.state = State::In;
                self.returned = Some(now);
                Change::Returned
            }
        }
    }

    /// `may_eject` says whether the cluster can spare one more.
    pub fn failure(&mut self, policy: &OutlierDetection, may_eject: bool, now: Instant) -> Change {
        self.failures = self.failures.saturating_add(1);
        match self.state {
            State::Probing { .. } => {
                self.eject(policy, now);
                Change::None
            }
            State::In if may_eject && self.failures >= policy.consecutive_failures => {
                // Long enough without trouble, and it starts from the shortest time again.
                if self
                    .returned
                    .is_none_or(|returned| now >= returned + policy.max_ejection)
                {
                    self.ejections = 0;
                }
                self.eject(policy, now);
                Change::Ejected
            }
            State::In | State::Out { .. } => Change::None,
        }
    }

    fn eject(&mut self, policy: &OutlierDetection, now: Instant) {
        self.ejections = self.ejections.saturating_add(1);
        self.failures = 0;
        let time = policy
            .base_ejection
            .saturating_mul(self.ejections)
            .min(policy.max_ejection.max(policy.base_ejection));
        self.state = State::Out { until: now + time };
    }
}

/// Can one more of `total` endpoints be ejected? One always can.
pub fn may_eject(ejected: u32, total: u32, policy: &OutlierDetection) -> bool {
    ejected == 0
        || (u64::from(ejected) + 1) * 100
            <= u64::from(total) * u64::from(policy.max_ejection_percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn policy() -> OutlierDetection {
        OutlierDetection {
            consecutive_failures: 3,
            base_ejection: 10 * S,
            max_ejection: 25 * S,
            max_ejection_percent: 50,
        }
    }

    fn fail(health: &mut Health, times: u32, now: Instant) -> Change {
        (0..times)
            .map(|_| health.failure(&policy(), true, now))
            .last()
            .unwrap()
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_between_does_not() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert_eq!(fail(&mut health, 2, now), Change::None);
        health.success(now);
        assert_eq!(fail(&mut health, 2, now), Change::None);
        assert_eq!(fail(&mut health, 1, now), Change::Ejected);
        assert_eq!(health.standing(now + 9 * S), Standing::Out);
    }

    #[test]
    fn one_request_probes_before_all_return() {
        let (mut health, now) = (Health::default(), Instant::now());
        fail(&mut health, 3, now);
        let later = now + 10 * S;
        assert_eq!(health.standing(later), Standing::ToProbe);
        health.begin_probe(later);
        assert_eq!(health.standing(later), Standing::Out);
        assert_eq!(health.success(later), Change::Returned);
        assert_eq!(health.standing(later), Standing::In);
    }

    #[test]
    fn a_failed_probe_ejects_for_longer_up_to_the_limit() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        fail(&mut health, 3, now);
        for seconds in [10, 20, 25, 25] {
            assert_eq!(health.standing(now + seconds * S - S / 2), Standing::Out);
            now += seconds * S;
            assert_eq!(health.standing(now), Standing::ToProbe);
            health.begin_probe(now);
            fail(&mut health, 1, now);
        }
    }

    #[test]
    fn a_probe_that_was_given_up_is_made_again() {
        let (mut health, now) = (Health::default(), Instant::now());
        fail(&mut health, 3, now);
        health.begin_probe(now + 10 * S);
        health.abandon(now + 11 * S);
        assert_eq!(health.standing(now + 11 * S), Standing::ToProbe);
        health.begin_probe(now + 11 * S);
        assert_eq!(
            health.standing(now + 11 * S + PROBE_TIMEOUT),
            Standing::ToProbe
        );
    }

    #[test]
    fn never_too_many_are_ejected_but_always_one() {
        assert!(may_eject(0, 1, &policy()) && !may_eject(1, 2, &policy()));
        assert!(may_eject(1, 4, &policy()) && !may_eject(2, 4, &policy()));
        let (mut health, now) = (Health::default(), Instant::now());
        for _ in 0..9 {
            assert_eq!(health.failure(&policy(), false, now), Change::None);
        }
        assert_eq!(health.standing(now), Standing::In);
    }
}
