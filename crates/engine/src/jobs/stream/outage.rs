//! How long a stream has got nothing stored, and when that is to be said.
//!
//! Promise: pure: moments in, decisions out. Moments are on the monotonic clock.

use std::time::Duration;

/// What lasts longer needs a person.
pub(crate) const LOUD_AFTER: Duration = Duration::from_secs(60);

/// While it lasts it is said again this often.
const LOUD_EVERY: Duration = Duration::from_secs(300);

/// Failed attempts in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outage {
    since: Option<Duration>,
    said: Option<Duration>,
}

impl Outage {
    /// Takes a failed attempt. Gives back how long it has lasted when that is to be said now.
    pub fn failed(&mut self, now: Duration) -> Option<Duration> {
        let lasts = now.saturating_sub(*self.since.get_or_insert(now));
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_said_after_a_minute_and_then_every_five_until_it_is_over() {
        let seconds = Duration::from_secs;
        let mut outage = Outage::default();
        let said: Vec<u64> = (100..=1000)
            .filter(|now| outage.failed(seconds(*now)).is_some())
            .collect();
        assert_eq!(said, [160, 460, 760]);
        assert_eq!(outage.failed(seconds(1060)), Some(seconds(960)));
        outage = Outage::default();
        assert_eq!(outage.failed(seconds(1070)), None);
        assert_eq!(outage.failed(seconds(1130)), Some(seconds(60)));
    }
}
