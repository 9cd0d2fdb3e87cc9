//! Finds the holes in the log of a branch, and what is known of each.
//!
//! Promise: a hole that an attachment declared (it began later, because its source had lost what lay between) is told
//! from one of which something proves that it was stored once. Where neither is known, it is said so: uploads that overtook one which
//! never arrived look like log that was lost (decision 0007). Log that is old enough to expire leaves no holes.
//! Not here: what to say of them (backstay-engine::jobs::verify).

use super::LogCheck;
use crate::log::{AgedRange, LineageRecord, missing, stretches};
use backstay_terms::{Branch, LogRange, Position};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// How long an upload may be under way.
const IN_FLIGHT: SignedDuration = SignedDuration::from_secs(60);

/// At most so many ranges overtake one: live and settled ones of four uploads.
const OVERTAKING_MAX: usize = 8;

/// What is known of a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoleKind {
    /// It was stored or confirmed, and is gone.
    Lost,
    /// Either that, or a stream died before it was stored and will read it again.
    LostOrUnsent,
    /// An upload of it may be under way.
    UnderWay,
    /// An attachment said that the source had lost it.
    Declared,
}

/// Positions of which nothing is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hole {
    /// Of which branch.
    pub branch: Branch,
    /// Which.
    pub range: LogRange,
    /// What is known of it.
    pub kind: HoleKind,
    /// When what lies before it was stored; none if nothing does.
    pub before: Option<Timestamp>,
    /// When what lies after it was stored, or when the attachment that declared it was made; none if nothing lies there.
    pub after: Option<Timestamp>,
}

/// What holes are judged by.
#[derive(Clone, Copy, Debug)]
pub struct HoleContext<'a> {
    /// Where streams attached to the branch, oldest first.
    pub records: &'a [&'a LineageRecord],
    /// What its ancestors hold up to where it left them.
    pub ancestors: &'a [LogRange],
    /// What its log indexes name.
    pub indexed: &'a [LogRange],
    /// The time now.
    pub now: Timestamp,
    /// The age at which log may expire.
    pub expires_after: SignedDuration,
}

impl LogCheck<'_> {
    /// The holes of the branch, in order.
    pub fn holes(&self, context: &HoleContext<'_>) -> Vec<Hole> {
        let own = self.stretches();
        let covered = stretches(own.iter().chain(context.ancestors));
        let Some(domain) = self.domain(context, &own) else {
            return Vec::new();
        };
        let holes = missing(domain, &covered).into_iter();
        holes
            .filter_map(|range| self.judge(context, &covered, range))
            .collect()
    }

    /// From where to where log should be stored: from the first attachment or the end of the ancestors on, as long as
    /// nothing of it can have expired, to the end of what is stored or indexed.
    fn domain(&self, context: &HoleContext<'_>, own: &[LogRange]) -> Option<LogRange> {
        let first = context.records.first();
        let young = first.filter(|first| context.now.duration_since(first.created) < context.expires_after);
        let attached = young.map(|first| first.from);
        let left = young.and_then(|_| context.ancestors.last()).map(|last| last.to);
        let stored = own.first().map(|first| first.from);
        let from = [attached, left, stored].into_iter().flatten().min()?;
        let indexed = context.indexed.iter().map(|range| range.to).max();
        let to = own.last().map(|last| last.to).max(indexed)?;
        LogRange::new(from, to)
    }

    fn judge(&self, context: &HoleContext<'_>, covered: &[LogRange], range: LogRange) -> Option<Hole> {
        let stored = || {
            self.objects
                .ranges
                .iter()
                .filter(|held| !positions(held).is_mark())
        };
        let before = stored()
            .filter(|held| positions(held).to == range.from)
            .map(modified)
            .max();
        if before.is_some_and(|before| context.now.duration_since(before) >= context.expires_after) {
            return None;
        }
        let holds_end = |held: &&AgedRange| positions(held).from <= range.to && range.to < positions(held).to;
        let beyond: Vec<&AgedRange> = stored().filter(holds_end).collect();
        let after = beyond.iter().map(|held| modified(held)).min();
        let mut hole = Hole {
            branch: self.objects.branch,
            range,
            kind: HoleKind::LostOrUnsent,
            before,
            after,
        };
        let declared = self.declared(context, covered, range);
        let until = declared.map_or(Position(u64::MAX), |record| record.from);
        if context.indexed.iter().any(|named| overlap(named, &range))
            || self.was_confirmed(
                context,
                covered,
                LogRange {
                    from: range.to,
                    to: until,
                },
            )
        {
            hole.kind = HoleKind::Lost;
        } else if let Some(record) = declared {
            (hole.kind, hole.after) = (HoleKind::Declared, Some(record.created));
        } else if self.may_be_under_way(context, range, after) {
            hole.kind = HoleKind::UnderWay;
        }
        Some(hole)
    }

    /// The attachment that began where nothing before was stored any more: at the end of the hole, or later if what lies
    /// between was never confirmed either. Where something older is stored it only resumed.
    fn declared<'c>(
        &self,
        context: &HoleContext<'c>,
        covered: &[LogRange],
        range: LogRange,
    ) -> Option<&'c LineageRecord> {
        let begins_later =
            |record: &LineageRecord| record.parent.is_some_and(|parent| parent.fork < record.from);
        let resumed = |record: &LineageRecord| {
            let older = |held: &AgedRange| held.stored.name.epoch.moment() < record.epoch.moment();
            let there =
                |held: &AgedRange| positions(held).from <= record.from && record.from < positions(held).to;
            self.objects.ranges.iter().any(|held| there(held) && older(held))
        };
        let mut later = context
            .records
            .iter()
            .copied()
            .enumerate()
            .filter(|(number, record)| {
                let begins = record.from >= range.to && covered.iter().any(|s| s.from == record.from);
                begins && (*number > 0 || begins_later(record)) && !resumed(record)
            });
        later.next().map(|(_, record)| record)
    }

    /// A mark stands only where everything before it is durable (LOG-3), and a stream resumes only inside of what is: at the
    /// start of the file that holds the frontier. `there` is where one of them would tell of the hole.
    fn was_confirmed(&self, context: &HoleContext<'_>, covered: &[LogRange], there: LogRange) -> bool {
        let within = |at: Position| there.from <= at && at < there.to;
        let is_inside = |at: Position| {
            covered
                .iter()
                .any(|s| s.from < at && at <= s.to && there.from <= s.from)
        };
        let marks = self
            .objects
            .ranges
            .iter()
            .map(positions)
            .filter(|held| held.is_mark());
        let mut resumed = context.records.iter().map(|record| record.from);
        marks.map(|mark| mark.from).any(within) || resumed.any(|at| within(at) && is_inside(at))
    }

    fn may_be_under_way(&self, context: &HoleContext<'_>, range: LogRange, after: Option<Timestamp>) -> bool {
        let overtaking = self
            .objects
            .ranges
            .iter()
            .filter(|held| positions(held).from >= range.to);
        let recent = after.is_some_and(|after| context.now.duration_since(after) < IN_FLIGHT);
        recent && overtaking.count() <= OVERTAKING_MAX
    }
}

fn positions(held: &AgedRange) -> LogRange {
    held.stored.name.range
}

fn modified(held: &AgedRange) -> Timestamp {
    held.object.modified
}

fn overlap(a: &LogRange, b: &LogRange) -> bool {
    a.from < b.to && b.from < a.to
}
