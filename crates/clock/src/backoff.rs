//! How long to wait before the next attempt.
//!
//! Promise: pure; a delay lies between half the step and the whole step, and a step never exceeds the maximum.
//! Half of a step is fixed so that a retry is never immediate, half is chance so that
//! many writers that failed together do not come back together.
//! Not here: whether to try again (the error says so) and until when (`Deadline`).

use std::time::Duration;

use crate::Chance;

/// Steps that grow from `base` by `factor` up to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first step.
    pub base: Duration,
    /// What each step is multiplied with to give the next.
    pub factor: u32,
    /// The longest step.
    pub max: Duration,
}

impl Backoff {
    /// For calls to a store: 200 ms, doubled, at most 15 s.
    pub const STORE: Backoff = Backoff {
        base: Duration::from_millis(200),
        factor: 2,
        max: Duration::from_secs(15),
    };

    /// The wait after `failures` attempts in a row have failed (1 after the first).
    pub fn delay(&self, failures: u32, chance: &dyn Chance) -> Duration {
        let step = self.step(failures);
        let half = step / 2;
        half + fraction(step - half, chance.next_u64())
    }

    /// The longest wait after `failures` failed attempts: what `delay` is drawn from.
    pub fn step(&self, failures: u32) -> Duration {
        let growth = self.factor.max(1).saturating_pow(failures.saturating_sub(1));
        self.base.saturating_mul(growth).min(self.max)
    }
}

/// `whole` scaled by `drawn / 2^64`.
fn fraction(whole: Duration, drawn: u64) -> Duration {
    let nanos = (whole.as_nanos().min(u128::from(u64::MAX)) * u128::from(drawn)) >> 64;
    // A product of two 64-bit numbers shifted by 64 fits again.
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededChance;

    const SECONDS: Backoff = Backoff {
        base: Duration::from_secs(1),
        factor: 2,
        max: Duration::from_secs(30),
    };

    #[test]
    fn steps_double_until_the_maximum_and_stay_there() {
        let steps: Vec<u64> = (1..=8).map(|n| SECONDS.step(n).as_secs()).collect();
        assert_eq!(steps, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(SECONDS.step(u32::MAX), Duration::from_secs(30));
        assert_eq!(SECONDS.step(0), Duration::from_secs(1));
    }

    #[test]
    fn a_delay_lies_between_half_the_step_and_the_step() {
        let chance = SeededChance::new(7);
        for failures in 1..200 {
            let (delay, step) = (SECONDS.delay(failures, &chance), SECONDS.step(failures));
            assert!(delay >= step / 2 && delay <= step, "{delay:?} of {step:?}");
        }
    }

    #[test]
    fn delays_differ_between_draws_and_repeat_for_a_seed() {
        let draw = |seed| {
            let chance = SeededChance::new(seed);
            [1, 1, 1].map(|n| SECONDS.delay(n, &chance))
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
