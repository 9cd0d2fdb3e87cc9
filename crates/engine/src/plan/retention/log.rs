//! The part of an expiry that concerns the log.
//!
//! Promise: live ranges go only where settled or held ones cover them, settled ones only from the beginning of a branch
//! and only before the segment in which the oldest kept backup of its system starts. What stands at the end of a stretch
//! stays: the stream resumes there, and its last mark says how long it was quiet. Held ranges never go.

use super::{ExpiryPlan, ExpiryPolicy, Kept, Reasons, is_past, youngest};
use backstay_repository::layout::Level;
use backstay_repository::{
    AgedRange, BranchObjects, Candidate, HeadState, Inventory, Removal, StoredRange, choose, stretches,
};
use backstay_terms::{Branch, LogRange, Lsn, Position};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Plans what of the log may go.
pub(super) fn plan_log(catalog: &Inventory, policy: &ExpiryPolicy, reasons: &Reasons, plan: &mut ExpiryPlan) {
    for branch in &catalog.branches {
        let going = plan_live(branch, policy, plan);
        plan_settled(catalog, branch, policy, reasons, &going, plan);
    }
}

fn range_of(range: &AgedRange) -> LogRange {
    range.stored.name.range
}

fn stored_at(range: &AgedRange, now: Timestamp) -> Timestamp {
    youngest(&range.stored.name.epoch, std::iter::once(&range.object), now)
}

/// Plans live ranges; returns which ranges of the branch go.
fn plan_live(branch: &BranchObjects, policy: &ExpiryPolicy, plan: &mut ExpiryPlan) -> Vec<usize> {
    let higher: Vec<StoredRange> = branch
        .ranges
        .iter()
        .filter(|range| range.stored.level != Level::Live)
        .map(|range| range.stored.clone())
        .collect();
    let covered = stretches(higher.iter().map(|stored| &stored.name.range));
    let ends: Vec<Position> = stretches(branch.ranges.iter().map(|r| &r.stored.name.range))
        .iter()
        .map(|stretch| stretch.to)
        .collect();
    let newest = newest_marks(branch);
    let (mut going, mut uncovered) = (Vec::new(), 0);
    for (place, range) in branch.ranges.iter().enumerate() {
        let positions = range_of(range);
        if range.stored.level != Level::Live || !is_past(stored_at(range, plan.now), policy.live, plan.now) {
            continue;
        }
        if !covered
            .iter()
            .any(|s| s.from <= positions.from && positions.to <= s.to)
        {
            uncovered += 1;
            continue;
        }
        let last = ends.contains(&positions.to) && (!positions.is_mark() || newest.contains(&place));
        if !last {
            going.push(place);
        }
    }
    if uncovered > 0 {
        let what = format!("{uncovered} old live ranges of branch {}", branch.branch);
        let because = "no settled range covers them; run: backstay wal settle".to_owned();
        plan.kept.push(Kept { what, because });
    }
    plan.removals
        .extend(covered_removals(branch, &higher, &going, policy));
    going
}

/// The newest mark at each position.
fn newest_marks(branch: &BranchObjects) -> Vec<usize> {
    let mut newest: BTreeMap<Position, (Timestamp, usize)> = BTreeMap::new();
    for (place, range) in branch
        .ranges
        .iter()
        .enumerate()
        .filter(|(_, r)| range_of(r).is_mark())
    {
        let candidate = (range.object.modified, place);
        let known = newest.entry(range_of(range).to).or_insert(candidate);
        *known = candidate.max(*known);
    }
    newest.into_values().map(|(_, place)| place).collect()
}

/// One removal for the ranges whose first byte the same range covers: each covering range is read about once.
fn covered_removals(
    branch: &BranchObjects,
    higher: &[StoredRange],
    going: &[usize],
    policy: &ExpiryPolicy,
) -> Vec<Removal> {
    let mut groups: Vec<(Vec<StoredRange>, Vec<&AgedRange>)> = Vec::new();
    for range in going.iter().filter_map(|place| branch.ranges.get(*place)) {
        let by = covering(range_of(range), higher);
        match groups.last_mut() {
            Some((known, ranges)) if known.first() == by.first() => {
                known.extend(
                    by.into_iter()
                        .filter(|stored| !known.contains(stored))
                        .collect::<Vec<_>>(),
                );
                ranges.push(range);
            }
            _ => groups.push((by, vec![range])),
        }
    }
    let days = policy.live.as_hours() / 24;
    let removals = groups.into_iter().map(|(by, ranges)| Removal::CoveredLog {
        branch: branch.branch,
        by,
        ranges: ranges.iter().map(|range| range_of(range)).collect(),
        objects: ranges.iter().map(|range| range.object.clone()).collect(),
        reason: format!("live for more than {days} days, and settled ranges cover it"),
    });
    removals.collect()
}

/// The ranges that cover these positions; for a mark the one that holds or ends at it.
fn covering(range: LogRange, higher: &[StoredRange]) -> Vec<StoredRange> {
    if range.is_mark() {
        let holds = |stored: &&StoredRange| {
            let held = stored.name.range;
            held.from <= range.from && range.to <= held.to
        };
        return higher.iter().find(holds).cloned().into_iter().collect();
    }
    let chosen = choose(range, Candidate::of(higher, range)).unwrap_or_default();
    chosen.into_iter().map(|choice| choice.from).collect()
}

fn plan_settled(
    catalog: &Inventory,
    branch: &BranchObjects,
    policy: &ExpiryPolicy,
    reasons: &Reasons,
    live_going: &[usize],
    plan: &mut ExpiryPlan,
) {
    let needed = match needed_from(catalog, &branch.branch, reasons) {
        Needed::Unknown(because) => {
            let what = format!("the settled log of branch {}", branch.branch);
            plan.kept.push(Kept { what, because });
            return;
        }
        Needed::From(position, because) => {
            let what = format!(
                "the log of branch {} from {} on",
                branch.branch,
                Lsn::from(position)
            );
            plan.kept.push(Kept { what, because });
            position
        }
        Needed::Nothing => Position(u64::MAX),
    };
    let end = branch.ranges.iter().map(|range| range_of(range).to).max();
    let may_go = |range: &AgedRange| {
        let positions = range_of(range);
        range.stored.level == Level::Settled
            && positions.to <= needed
            && Some(positions.to) != end
            && is_past(stored_at(range, plan.now), policy.settled, plan.now)
    };
    // Only from the beginning on: whatever stays must not have a hole that nobody lost.
    let first_kept = branch
        .ranges
        .iter()
        .enumerate()
        .filter(|(place, range)| !range_of(range).is_mark() && !live_going.contains(place) && !may_go(range))
        .map(|(_, range)| range_of(range).from)
        .min()
        .unwrap_or_default();
    let going: Vec<&AgedRange> = branch
        .ranges
        .iter()
        .filter(|range| may_go(range) && range_of(range).to <= first_kept)
        .collect();
    if going.is_empty() {
        return;
    }
    let days = policy.settled.as_hours() / 24;
    plan.removals.push(Removal::OldLog {
        branch: branch.branch,
        objects: going.iter().map(|range| range.object.clone()).collect(),
        reason: format!("settled for more than {days} days, and no kept backup needs it"),
    });
}

/// What kept backups need of a branch.
enum Needed {
    /// Everything from here on, because of this.
    From(Position, String),
    /// No kept backup is of this system.
    Nothing,
    /// It cannot be told, because of this.
    Unknown(String),
}

/// The start of the segment in which the oldest kept backup of the branch's system starts. Positions of all timelines of
/// a system are compared: an ancestor is needed from there up to its fork, a descendant as a whole.
fn needed_from(catalog: &Inventory, branch: &Branch, reasons: &Reasons) -> Needed {
    let mut oldest: Option<(Position, String)> = None;
    for backup in reasons.keys().filter_map(|place| catalog.backups.get(*place)) {
        if let HeadState::Closed(..) = backup.head {
            let because = format!(
                "the head of backup {} cannot be opened: what it needs is unknown",
                backup.place.backup
            );
            return Needed::Unknown(because);
        }
        let Some(log) = backup.opened().and_then(|head| head.log.as_ref()) else {
            continue;
        };
        let start = Position(log.start.0 - log.start.0.checked_rem(log.segment_size).unwrap_or(log.start.0));
        if log.system == branch.system && oldest.as_ref().is_none_or(|(known, _)| start < *known) {
            oldest = Some((start, format!("backup {} starts there", backup.place.backup)));
        }
    }
    match oldest {
        Some((position, because)) => Needed::From(position, because),
        None => Needed::Nothing,
    }
}
