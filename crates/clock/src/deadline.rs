//! A moment after which a job stops trying.
//!
//! Promise: it counts on the monotonic clock, so a step of the wall clock moves no deadline.
//! Not here: what to do when it is over (the caller).

use std::time::Duration;

use crate::Clock;

/// A point on [`Clock::instant`]; compare it only with the clock that it was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    at: Duration,
}

impl Deadline {
    /// The deadline `length` from now.
    pub fn after(clock: &dyn Clock, length: Duration) -> Self {
        Self {
            at: clock.instant().saturating_add(length),
        }
    }

    /// The time that is left; zero once the deadline is over.
    pub fn remaining(&self, clock: &dyn Clock) -> Duration {
        self.at.saturating_sub(clock.instant())
    }

    /// Whether nothing is left.
    pub fn is_over(&self, clock: &dyn Clock) -> bool {
        self.remaining(clock).is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SimClock;

    #[test]
    fn a_deadline_is_over_at_its_very_moment_and_never_negative() {
        let clock = SimClock::new();
        let deadline = Deadline::after(&clock, Duration::from_secs(10));
        clock.advance(Duration::from_secs(9));
        assert_eq!(deadline.remaining(&clock), Duration::from_secs(1));
        assert!(!deadline.is_over(&clock));
        clock.advance(Duration::from_secs(1));
        assert!(deadline.is_over(&clock));
        clock.advance(Duration::from_secs(5));
        assert_eq!(deadline.remaining(&clock), Duration::ZERO);
    }

    #[test]
    fn a_step_of_the_wall_clock_moves_no_deadline() {
        let clock = SimClock::new();
        let deadline = Deadline::after(&clock, Duration::from_secs(10));
        clock.step_wall(jiff::SignedDuration::from_hours(1));
        assert_eq!(deadline.remaining(&clock), Duration::from_secs(10));
    }
}
