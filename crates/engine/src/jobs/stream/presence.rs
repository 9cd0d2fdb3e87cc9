//! Whether what this stream has stored is still there.
//!
//! Promise: pure: names and moments in, decisions out. What is missing was confirmed, and is younger than anything that an
//! expiry removes: it is lost, and each loss is given out once.
//! Not here: listing the names (stream::attachment), log that was stored before this process (backstay-engine::plan).

use super::cadence::{Cadence, Due};
use crate::plan::LostLog;
use backstay_terms::{Branch, LogRange, Position};
use std::time::Duration;

/// How long what was stored is looked for: longer than an epoch lives, far shorter than anything is kept. A source that hangs up
/// often ends no epoch.
const LOOKED_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// What must be there, across the attachments of a week.
#[derive(Clone, Debug, Default)]
pub(crate) struct Presence {
    held: Option<(Branch, LogRange)>,
    /// When the first of that was stored.
    since: Duration,
    looked_at: Duration,
    lost: Vec<LogRange>,
    /// What was told already by whoever attached.
    told: Vec<LogRange>,
    /// What is lost, and the source still has: it is being stored again.
    again: Vec<LostLog>,
}

impl Presence {
    /// An attachment begins to store here. What continues nothing known begins anew: it lies behind a gap, or in another
    /// lineage.
    pub fn begins(&mut self, branch: Branch, at: Position, now: Duration) {
        let continues =
            |(known, held): &(Branch, LogRange)| *known == branch && held.from <= at && at <= held.to;
        if !self.held.as_ref().is_some_and(continues) {
            *self = Presence {
                held: Some((branch, LogRange { from: at, to: at })),
                since: now,
                looked_at: now,
                lost: Vec::new(),
                told: std::mem::take(&mut self.told),
                again: std::mem::take(&mut self.again),
            };
        }
    }

    /// Everything before `to` is stored.
    pub fn reaches(&mut self, to: Position) {
        if let Some((_, held)) = &mut self.held {
            held.to = held.to.max(to);
        }
    }

    /// When the next look is due.
    pub fn next(&self, cadence: &Cadence) -> Option<(Duration, Due)> {
        let stored = self.held.is_some_and(|(_, held)| !held.is_mark());
        stored.then_some((self.looked_at + cadence.settle_every, Due::Look))
    }

    /// Begins a look: at which positions of which branch.
    pub fn look(&mut self, now: Duration) -> Option<(Branch, LogRange)> {
        self.looked_at = now;
        if let Some((_, held)) = &mut self.held
            && now.saturating_sub(self.since) >= LOOKED_FOR
        {
            (held.from, self.since) = (held.to, now);
        }
        self.held
    }

    /// An attachment stores this again.
    pub fn comes_again(&mut self, again: Vec<LostLog>) {
        self.again = again;
    }

    /// What of that is stored by now; each is given out once.
    pub fn stored_again(&mut self) -> Vec<LostLog> {
        let is_held = |loss: &mut LostLog| {
            let held = self.held.filter(|(branch, _)| *branch == loss.branch);
            held.is_some_and(|(_, held)| held.from <= loss.range().from && loss.to <= held.to)
        };
        self.again.extract_if(.., is_held).collect()
    }

    /// It was told that this is lost.
    pub fn told(&mut self, lost: LogRange) {
        self.told.push(lost);
    }

    /// Takes what a look found missing; gives back what was not missing before and nobody told.
    pub fn missing(&mut self, missing: Vec<LogRange>) -> Vec<LogRange> {
        let before = std::mem::replace(&mut self.lost, missing);
        let is_told = |lost: &LogRange| {
            let mut told = self.told.iter();
            told.any(|told| told.from <= lost.from && lost.to <= told.to)
        };
        let new = self
            .lost
            .iter()
            .filter(|lost| !before.contains(lost) && !is_told(lost));
        new.copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstay_terms::Lineage;

    fn branch(lineage: u32) -> Branch {
        Branch {
            system: 7,
            timeline: 1,
            lineage: Lineage(lineage),
        }
    }

    fn range(from: u64, to: u64) -> LogRange {
        LogRange {
            from: Position(from),
            to: Position(to),
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn what_several_attachments_stored_is_looked_for_an_hour_after_the_first() {
        let (mut presence, cadence) = (Presence::default(), Cadence::default());
        presence.begins(branch(1), Position(100), Duration::ZERO);
        assert_eq!(presence.next(&cadence), None, "nothing is stored yet");
        presence.reaches(Position(200));
        presence.begins(branch(1), Position(196), HOUR / 2);
        presence.reaches(Position(300));
        assert_eq!(presence.next(&cadence), Some((HOUR, Due::Look)));
        assert_eq!(presence.look(HOUR), Some((branch(1), range(100, 300))));
        assert_eq!(presence.next(&cadence), Some((2 * HOUR, Due::Look)));
    }

    #[test]
    fn behind_a_gap_and_in_another_lineage_it_begins_anew() {
        for (lineage, at) in [(1, 201), (2, 150), (1, 50)] {
            let mut presence = Presence::default();
            presence.begins(branch(1), Position(100), Duration::ZERO);
            presence.reaches(Position(200));
            presence.begins(branch(lineage), Position(at), HOUR);
            presence.reaches(Position(400));
            assert_eq!(presence.look(HOUR), Some((branch(lineage), range(at, 400))));
        }
    }

    #[test]
    fn what_may_have_expired_is_not_looked_for_however_often_the_source_hangs_up() {
        let mut presence = Presence::default();
        let mut looked = None;
        for day in 0..500 {
            let now = HOUR * 24 * day;
            presence.begins(branch(1), Position(100 * u64::from(day)), now);
            presence.reaches(Position(100 * u64::from(day) + 100));
            looked = presence.look(now + HOUR);
            let (_, held) = looked.unwrap();
            assert!(held.length() <= 800, "day {day}: {held:?}");
        }
        assert_eq!(looked.unwrap().1.to, Position(50_000));
    }

    #[test]
    fn each_loss_is_given_out_once() {
        let mut presence = Presence::default();
        let mut missing = |lost: &[LogRange]| presence.missing(lost.to_vec());
        assert_eq!(missing(&[range(10, 20)]), [range(10, 20)]);
        assert_eq!(missing(&[range(10, 20), range(30, 40)]), [range(30, 40)]);
        assert_eq!(missing(&[range(10, 20), range(30, 40)]), []);
        // It grew.
        assert_eq!(missing(&[range(10, 25), range(30, 40)]), [range(10, 25)]);
    }
}
