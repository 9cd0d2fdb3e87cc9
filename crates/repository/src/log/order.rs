//! Which lineage record is older.
//!
//! Promise: pure; within one lineage the clocks of the writers decide nothing.
//! Not here: reading the records (log::store).

use super::lineage::{LineageKind, LineageRecord};
use backstay_terms::{Branch, Position, RecordId};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Oldest first.
///
/// Within a lineage an attachment that began further on is the newer one: each goes on where the stored log ended, or behind
/// a gap, and one that went back into a hole rejoins what lies behind it. Of those that began at one position the one that
/// began the lineage is the oldest. An adoption is no attachment: it stays where its time puts it, which is never before what
/// it judges.
///
/// Between lineages nothing but the clocks of the writers decides: positions of different histories cannot be compared, and
/// either of two may have been attached to again after the other one began. Writers on several machines need clocks that
/// agree better than lineages follow each other.
pub(super) fn oldest_first(mut records: Vec<LineageRecord>) -> Vec<LineageRecord> {
    // Names tell the second; two attachments within one second are told apart by the record's own time.
    records.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    let is_attached = |record: &LineageRecord| record.kind == LineageKind::Attach;
    let mut lineages: BTreeMap<Branch, Vec<LineageRecord>> = BTreeMap::new();
    for record in records.iter().filter(|record| is_attached(record)) {
        lineages.entry(record.branch).or_default().push(record.clone());
    }
    for lineage in lineages.values_mut() {
        lineage.sort_by(|a, b| place(b).cmp(&place(a)));
    }
    // A lineage keeps its turns among the others; who takes which of them its positions say.
    for turn in records.iter_mut().filter(|record| is_attached(record)) {
        if let Some(next) = lineages.get_mut(&turn.branch).and_then(Vec::pop) {
            *turn = next;
        }
    }
    records
}

/// The place of a record in its lineage.
fn place(record: &LineageRecord) -> (Position, bool, Timestamp, &RecordId) {
    let resumed = !record.reason.begins_lineage();
    (record.from, resumed, record.created, &record.id)
}

#[cfg(test)]
mod tests {
    use super::super::lineage::{AttachReason, frontier};
    use super::super::samples::{branch, first};
    use super::*;
    use backstay_terms::{LogRange, Suffix, TimedId};

    /// A record of this lineage, written at this second of its writer's clock.
    fn record(lineage: u32, from: u64, second: i64, reason: AttachReason) -> LineageRecord {
        let id = |label| TimedId::new("20261123T020011Z", label, Suffix::from_chance(second as u64)).unwrap();
        LineageRecord {
            created: Timestamp::from_second(second).unwrap(),
            from: Position(from),
            reason,
            ..first(branch(lineage), id("attach"), id("log"))
        }
    }

    fn order(records: &[LineageRecord]) -> Vec<(u32, u64)> {
        let sorted = oldest_first(records.to_vec());
        let short = |record: &LineageRecord| (record.branch.lineage.0, record.from.0);
        sorted.iter().map(short).collect()
    }

    const HOUR: i64 = 3600;

    #[test]
    fn a_writer_whose_clock_is_an_hour_behind_is_still_the_newer_one() {
        let records = [
            record(1, 0, 10 * HOUR, AttachReason::First),
            record(1, 96, 10 * HOUR + 9, AttachReason::Resumed),
            // Behind a gap.
            record(1, 200, 9 * HOUR + 20, AttachReason::Resumed),
        ];
        assert_eq!(order(&records), [(1, 0), (1, 96), (1, 200)]);
        let range = |from, to| LogRange {
            from: Position(from),
            to: Position(to),
        };
        let sorted = oldest_first(records.to_vec());
        let stored = [range(0, 100), range(200, 300)];
        let at = frontier(&sorted.iter().collect::<Vec<_>>(), &stored);
        assert_eq!(
            at,
            Some(Position(300)),
            "before: 100, a gap that is known already"
        );
    }

    #[test]
    fn who_began_a_lineage_is_its_oldest_record_also_by_a_clock_that_is_ahead() {
        let records = [
            record(1, 96, 10 * HOUR, AttachReason::Timeline),
            record(1, 96, 9 * HOUR, AttachReason::Resumed),
        ];
        let sorted = oldest_first(records.to_vec());
        assert_eq!(sorted[0].reason, AttachReason::Timeline);
    }

    #[test]
    fn an_adoption_stays_where_its_time_puts_it() {
        let adoption = LineageRecord {
            kind: LineageKind::Adopt,
            ..record(1, 96, 250, AttachReason::Resumed)
        };
        let records = [
            record(1, 96, 100, AttachReason::Resumed),
            record(2, 50, 200, AttachReason::First),
            adoption.clone(),
            // Back into a hole.
            record(1, 32, 300, AttachReason::Resumed),
        ];
        assert_eq!(order(&records), [(1, 32), (2, 50), (1, 96), (1, 96)]);
        assert_eq!(oldest_first(records.to_vec())[2], adoption);
    }

    #[test]
    fn between_lineages_the_clocks_decide() {
        let records = [
            record(1, 0, 100, AttachReason::First),
            record(2, 50, 200, AttachReason::Differs),
            record(1, 96, 300, AttachReason::Resumed),
            record(2, 80, 400, AttachReason::Resumed),
        ];
        assert_eq!(order(&records), [(1, 0), (2, 50), (1, 96), (2, 80)]);
        // The newest record of a lineage takes the place of that lineage's latest clock.
        let skewed = record(2, 90, 150, AttachReason::Resumed);
        let more = [records.as_slice(), &[skewed]].concat();
        assert_eq!(order(&more), [(1, 0), (2, 50), (2, 80), (1, 96), (2, 90)]);
    }
}
