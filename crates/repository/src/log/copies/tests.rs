//! Choices over random ranges with random damage.

use super::super::samples::branch;
use super::*;
use crate::layout::RangeName;
use backstay_codec::KeyId;
use backstay_terms::{Suffix, TimedId};
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span;

/// A range: its level, its lineage's distance, its first position and its length.
type Piece = (usize, usize, u64, u64);

fn range(from: u64, to: u64) -> LogRange {
    LogRange {
        from: Position(from),
        to: Position(to),
    }
}

fn candidate(number: usize, (level, distance, from, length): Piece) -> Candidate {
    let epoch = TimedId::new("20261123T020011Z", "log", Suffix::from_chance(1)).unwrap();
    let name = RangeName {
        range: range(from, from + length),
        epoch,
        number: number as u32,
    };
    let level = Level::ALL[level];
    Candidate {
        distance,
        gives: name.range,
        stored: StoredRange {
            branch: branch(distance as u32),
            level,
            name,
            size: length,
        },
    }
}

fn candidates(pieces: &[Piece]) -> Vec<Candidate> {
    let numbered = pieces.iter().enumerate();
    numbered
        .map(|(number, piece)| candidate(number, *piece))
        .collect()
}

fn damage(number: u32) -> RepositoryError {
    RepositoryError::malformed(number, "as the test asked")
}

/// Reads as a driver does: the pieces that were taken, and how it ended.
fn read(
    wanted: LogRange,
    all: &[Candidate],
    damaged: impl Fn(u32) -> bool,
) -> (Vec<Choice>, Result<(), RepositoryError>) {
    let mut selection = Selection::new(wanted, all.to_vec()).unwrap();
    let mut taken = Vec::new();
    let ended = loop {
        match selection.next_copy() {
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
            Ok(Some(choice)) if damaged(choice.from.name.number) => {
                let number = choice.from.name.number;
                selection.pass_over(&choice, damage(number)).unwrap();
            }
            Ok(Some(choice)) => {
                selection.taken(&choice);
                taken.push(choice);
            }
        }
    };
    (taken, ended)
}

proptest! {
    #[test]
    fn every_position_is_either_chosen_once_or_named_as_missing(
        pieces in proptest::collection::vec((0usize..3, 0usize..2, 0u64..100, 0u64..20), 0..12),
        from in 0u64..100, length in 1u64..60,
    ) {
        let all = candidates(&pieces);
        let wanted = range(from, from + length);
        let covered = |p: u64| all.iter().any(|c| c.holds(Position(p)));
        match choose(wanted, all.clone()) {
            Ok(choices) => {
                let mut at = wanted.from;
                for choice in &choices {
                    prop_assert_eq!(choice.take.from, at);
                    let held = choice.from.name.range;
                    prop_assert!(held.from <= choice.take.from && choice.take.to <= held.to);
                    at = choice.take.to;
                }
                prop_assert_eq!(at, wanted.to);
            }
            Err(gap) => {
                prop_assert!((gap.from.0..gap.to.0).all(|p| !covered(p)));
                prop_assert!((from..gap.from.0).all(covered));
            }
        }
    }

    #[test]
    fn whatever_a_whole_copy_holds_is_given_and_the_first_position_without_one_is_named(
        pieces in proptest::collection::vec((0usize..3, 0usize..2, 0u64..40, 1u64..40), 1..10),
        damaged in proptest::collection::vec(any::<bool>(), 10),
    ) {
        let all = candidates(&pieces);
        let is_damaged = |number: u32| damaged[number as usize];
        let wanted = range(pieces[0].2, pieces[0].2 + pieces[0].3);
        let whole = |p: Position| all.iter().any(|c| c.holds(p) && !is_damaged(c.stored.name.number));
        let (taken, ended) = read(wanted, &all, is_damaged);
        let mut at = wanted.from;
        for choice in &taken {
            prop_assert_eq!(choice.take.from, at);
            prop_assert!(!is_damaged(choice.from.name.number));
            at = choice.take.to;
        }
        let lost = (wanted.from.0..wanted.to.0).map(Position).find(|p| !whole(*p));
        prop_assert_eq!(at, lost.unwrap_or(wanted.to));
        match (lost, ended) {
            (None, ended) => prop_assert!(ended.is_ok()),
            (Some(lost), Err(RepositoryError::Unreadable { from, to, damage: found })) => {
                let best = all.iter().filter(|c| c.holds(lost)).max_by_key(|c| c.rank()).unwrap();
                prop_assert_eq!(found.to_string(), damage(best.stored.name.number).to_string());
                prop_assert_eq!(from, lost);
                prop_assert!((from.0..to.0).all(|p| !whole(Position(p))) && from < to && to <= wanted.to);
            }
            (Some(_), ended) => prop_assert!(false, "{ended:?}"),
        }
    }
}

#[test]
fn the_nearest_lineage_comes_first_then_no_thaw_then_the_furthest() {
    let (live, settled, held) = (0, 1, 2);
    let all = candidates(&[
        (settled, 1, 0, 100),
        (held, 0, 0, 50),
        (live, 0, 0, 10),
        (settled, 0, 0, 20),
        (live, 0, 0, 20),
    ]);
    let mut damaged = Vec::new();
    let mut order = Vec::new();
    for _ in &all {
        let (taken, _) = read(range(0, 10), &all, |number| damaged.contains(&number));
        order.push(taken[0].from.name.number);
        damaged.push(taken[0].from.name.number);
    }
    assert_eq!(order, [3, 4, 2, 1, 0]);
}

#[test]
fn what_is_no_damage_is_given_back_and_hides_nothing() {
    let all = candidates(&[(1, 0, 0, 10), (0, 0, 0, 10)]);
    let mut selection = Selection::new(range(0, 10), all).unwrap();
    let first = selection.next_copy().unwrap().unwrap();
    let passing = RepositoryError::OutOfOrder { what: "w".into() };
    let error = selection.pass_over(&first, passing).unwrap_err();
    assert!(matches!(error, RepositoryError::OutOfOrder { .. }), "{error}");
    assert_eq!(selection.next_copy().unwrap(), Some(first));
}

#[test]
fn a_copy_whose_key_nobody_has_is_passed_over_and_the_key_is_what_is_missing() {
    let all = candidates(&[(1, 0, 0, 10), (0, 0, 0, 10)]);
    let mut selection = Selection::new(range(0, 10), all).unwrap();
    let unknown = || RepositoryError::UnknownKey {
        object: "o".into(),
        id: KeyId([7; 16]),
    };
    let first = selection.next_copy().unwrap().unwrap();
    selection.pass_over(&first, unknown()).unwrap();
    let second = selection.next_copy().unwrap().unwrap();
    assert_ne!(first, second);
    selection.pass_over(&second, damage(2)).unwrap();
    let error = selection.next_copy().unwrap_err();
    assert!(error.is_about_keys() && !error.is_damage(), "{error}");
    assert!(error.to_string().starts_with("o is sealed with key "), "{error}");
}

/// Keeps the level, the message and the fields of every event.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Events {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}

#[test]
fn a_copy_that_is_passed_over_is_said_loudly() {
    let all = candidates(&[(1, 0, 0, 10), (0, 0, 0, 10)]);
    let events = Events::default();
    let (taken, _) =
        tracing::subscriber::with_default(events.clone(), || read(range(2, 10), &all, |number| number == 0));
    assert_eq!(taken.len(), 1);
    let said = "WARN message=a damaged copy of the log is passed over branch=0000000000000007/00000001.00000000 \
        from=0000000000000002 to=000000000000000a error=0 is malformed: as the test asked";
    assert_eq!(*events.0.lock().unwrap(), [said]);
}
