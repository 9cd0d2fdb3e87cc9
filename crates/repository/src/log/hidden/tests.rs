//! Which lineage a record speaks of that cannot be opened, from the names of what is stored alone.

use super::super::coverage::StoredRange;
use super::super::listing::AgedRange;
use super::super::samples::{branch, first};
use super::*;
use crate::RepositoryError;
use crate::inventory::StoredObject;
use crate::layout::{Level, RangeName};
use backstay_terms::{LogRange, Position, Suffix, TimedId};
use jiff::Timestamp;
use std::sync::Arc;

fn id(kind: &str, second: u32) -> TimedId {
    let moment = format!("20261123T02{:02}{:02}Z", second / 60, second % 60);
    TimedId::new(&moment, kind, Suffix::from_chance(second.into())).unwrap()
}

fn unreadable(second: u32) -> UnreadableRecord {
    let object = StoredObject {
        name: id("attach", second).to_string(),
        size: 1,
        modified: Timestamp::UNIX_EPOCH,
    };
    UnreadableRecord {
        id: id("attach", second),
        object,
        why: Arc::new(RepositoryError::Absent),
    }
}

fn record(lineage: u32, second: u32) -> LineageRecord {
    LineageRecord {
        created: moment_of(&id("attach", second)).unwrap(),
        ..first(branch(lineage), id("attach", second), id("log", second))
    }
}

/// A range of a lineage for each of these epochs.
fn stored(lineage: u32, epochs: &[TimedId]) -> BranchObjects {
    let range = |epoch: &TimedId| AgedRange {
        stored: StoredRange {
            branch: branch(lineage),
            level: Level::Live,
            name: RangeName {
                range: LogRange {
                    from: Position(0),
                    to: Position(10),
                },
                epoch: epoch.clone(),
                number: 0,
            },
            size: 1,
        },
        object: StoredObject {
            name: String::new(),
            size: 1,
            modified: Timestamp::UNIX_EPOCH,
        },
    };
    BranchObjects {
        branch: branch(lineage),
        ranges: epochs.iter().map(range).collect(),
        cut: vec![],
    }
}

fn lineages(hidden_at: &[u32], own: LineageRecord, objects: &[BranchObjects]) -> KnownLineages {
    let unreadable = hidden_at.iter().map(|second| unreadable(*second)).collect();
    let hidden = hidden(unreadable, std::slice::from_ref(&own), objects);
    let known = vec![Known {
        record: own,
        frontier: None,
        last: None,
        reach: None,
    }];
    KnownLineages { known, hidden }
}

#[test]
fn a_record_is_given_away_by_the_epoch_that_began_just_before_it() {
    let objects = [stored(1, &[id("log", 10), id("log", 100), id("settle", 200)])];
    let seen = lineages(&[101], record(1, 10), &objects);
    assert_eq!(seen.hidden[0].of, Some(branch(1)));
    assert!(seen.doubt_about(&branch(1)).is_none());
    assert!(!seen.may_hide_another(&branch(1)));
}

#[test]
fn what_is_given_away_by_nothing_may_be_any_lineage() {
    let own = || stored(1, &[id("log", 10)]);
    // Nothing of it is stored; its epoch began too early, or after it; settling made it; it wrote to two lineages.
    let epoch = |epoch: TimedId| vec![stored(1, &[id("log", 10), epoch])];
    let both = vec![
        stored(1, &[id("log", 10), id("log", 100)]),
        stored(2, &[id("log", 100)]),
    ];
    for objects in [
        vec![own()],
        epoch(id("log", 30)),
        epoch(id("log", 102)),
        epoch(id("settle", 100)),
        both,
    ] {
        let seen = lineages(&[101], record(1, 10), &objects);
        assert!(seen.doubt_about(&branch(1)).is_some(), "{objects:?}");
        assert!(seen.may_hide_another(&branch(1)), "{objects:?}");
    }
}

#[test]
fn one_epoch_gives_away_one_record() {
    let objects = [stored(1, &[id("log", 10), id("log", 100)])];
    let seen = lineages(&[101, 102], record(1, 10), &objects);
    let of: Vec<Option<Branch>> = seen.hidden.iter().map(|hidden| hidden.of).collect();
    assert_eq!(of, [Some(branch(1)), None]);
    assert_eq!(seen.doubt_about(&branch(1)).unwrap().record.id, id("attach", 102));
}

#[test]
fn a_record_of_another_lineage_casts_doubt_unless_this_one_was_continued_after_it() {
    let objects = [stored(1, &[id("log", 10)]), stored(2, &[id("log", 100)])];
    let seen = lineages(&[101], record(1, 10), &objects);
    assert_eq!(seen.doubt_about(&branch(1)).unwrap().of, Some(branch(2)));
    let seen = lineages(&[101], record(1, 103), &objects);
    assert!(seen.doubt_about(&branch(1)).is_none());
    assert!(seen.may_hide_another(&branch(1)));
}
