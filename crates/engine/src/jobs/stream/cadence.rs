//! When to store what.
//!
//! Promise: pure: moments in, decisions out. Moments are on the monotonic clock.

use std::time::Duration;

/// The rhythm of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    /// A live range is written when the oldest unsent byte is this old.
    pub live_after: Duration,
    /// Everything is settled at least this often, and as often what was stored is looked for.
    pub settle_every: Duration,
    /// What this stream stored is compared this often with what another one stored at the same positions.
    pub compare_every: Duration,
    /// Whether the repository is still the one that was opened is asked at least this often while something is stored.
    pub whose_every: Duration,
    /// A time mark is written at least this often when nothing else carries one.
    pub mark_every: Duration,
    /// Live and settled ranges being stored at the same time.
    pub uploads_max: usize,
    /// Bytes held in memory before reading pauses.
    pub held_max: u64,
    /// An epoch is renewed at this age, well before KEY-1 forbids its keys.
    pub epoch_age: Duration,
}

impl Default for Cadence {
    fn default() -> Self {
        Cadence {
            live_after: Duration::from_secs(5),
            settle_every: Duration::from_secs(3600),
            compare_every: Duration::from_secs(60),
            whose_every: Duration::from_secs(60),
            mark_every: Duration::from_secs(60),
            uploads_max: 4,
            held_max: 48 << 20,
            epoch_age: Duration::from_secs(6 * 24 * 3600),
        }
    }
}

/// What is due next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// A live range.
    Live,
    /// Everything unsettled.
    Settle,
    /// A look at whether what was stored is still there.
    Look,
    /// A comparison with other streams.
    Compare,
}

/// The moments that decide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moments {
    /// Since when the oldest unsent byte waits.
    pub unsent_since: Option<Duration>,
    /// Since when the oldest unsettled byte waits.
    pub unsettled_since: Option<Duration>,
    /// When the last mark was stored.
    pub marked_at: Duration,
    /// When it was asked last whether the repository is still the one that was opened; none: the next upload asks.
    pub whose_at: Option<Duration>,
}

/// Whether an upload asks for `repository.json` before it counts as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Asked,
    Known,
}

impl Moments {
    /// What is due first and when.
    pub fn next(&self, cadence: &Cadence) -> Option<(Duration, Due)> {
        let live = self
            .unsent_since
            .map(|since| (since + cadence.live_after, Due::Live));
        let settle = self
            .unsettled_since
            .map(|since| (since + cadence.settle_every, Due::Settle));
        [live, settle].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Whether an upload that begins now asks whose the repository is.
    pub fn whose(&mut self, now: Duration, cadence: &Cadence) -> Whose {
        let is_known = |at: Duration| now.saturating_sub(at) < cadence.whose_every;
        if self.whose_at.is_some_and(is_known) {
            return Whose::Known;
        }
        self.whose_at = Some(now);
        Whose::Asked
    }

    /// Whether a mark is due.
    pub fn mark_is_due(&self, now: Duration, cadence: &Cadence) -> bool {
        now.saturating_sub(self.marked_at) >= cadence.mark_every
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_unsent_byte_decides_until_the_hour_is_over() {
        let cadence = Cadence::default();
        let seconds = Duration::from_secs;
        let mut moments = Moments {
            unsent_since: Some(seconds(10)),
            unsettled_since: Some(seconds(0)),
            marked_at: seconds(0),
            whose_at: None,
        };
        assert_eq!(moments.next(&cadence), Some((seconds(15), Due::Live)));
        moments.unsent_since = None;
        assert_eq!(moments.next(&cadence), Some((seconds(3600), Due::Settle)));
        moments.unsettled_since = None;
        assert_eq!(moments.next(&cadence), None);
        assert!(!moments.mark_is_due(seconds(59), &cadence) && moments.mark_is_due(seconds(60), &cadence));
        let asked: Vec<u64> = (0..150)
            .filter(|now| moments.whose(seconds(*now), &cadence) == Whose::Asked)
            .collect();
        assert_eq!(asked, [0, 60, 120]);
    }
}
