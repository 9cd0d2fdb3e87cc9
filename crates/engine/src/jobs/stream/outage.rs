//! How long a stream has got nothing stored, and when that is to be said.
//!
//! Promise: pure: moments in, decisions out. Moments are on the monotonic clock.

use std::time::Duration;

/// What lasts longer needs a person.
pub(crate) const LOUD_AFTER: Duration = Duration::from_secs(60);

/// While it lasts it is said again this often.
const LOUD_EVERY: Duration = Duration::from_secs(300);

/// A time in which nothing was stored.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outage {
    since: Option<Duration>,
    said: Option<Duration>,
}

impl Outage {
    /// Something waits for being stored, or could not be.
    pub fn waits(&mut self, now: Duration) {
        self.since.get_or_insert(now);
    }

    /// How long it has lasted, when that is to be said now.
    pub fn due(&mut self, now: Duration) -> Option<Duration> {
        let lasts = now.saturating_sub(self.since?);
        let due = match self.said {
            Some(said) => now.saturating_sub(said) >= LOUD_EVERY,
            None => lasts >= LOUD_AFTER,
        };
        if !due {
            return None;
        }
        self.said = Some(now);
        Some(lasts)
    }

    /// It is over. How long it lasted, if it was said.
    pub fn over(&mut self, now: Duration) -> Option<Duration> {
        let Outage { since, said } = std::mem::take(self);
        said.and(since).map(|since| now.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_said_after_a_minute_and_then_every_five_until_it_is_over() {
        let seconds = Duration::from_secs;
        let mut outage = Outage::default();
        let mut is_said = |now: u64| {
            outage.waits(seconds(now));
            outage.due(seconds(now)).is_some()
        };
        let said: Vec<u64> = (100..=1000).filter(|now| is_said(*now)).collect();
        assert_eq!(said, [160, 460, 760]);
        assert_eq!(outage.due(seconds(1060)), Some(seconds(960)));
        assert_eq!(outage.over(seconds(1065)), Some(seconds(965)));
        assert_eq!(outage.due(seconds(2000)), None, "nothing waits");
        outage.waits(seconds(2000));
        assert_eq!(outage.over(seconds(2059)), None, "it was never said");
        outage.waits(seconds(2060));
        assert_eq!(outage.due(seconds(2120)), Some(seconds(60)));
    }
}
