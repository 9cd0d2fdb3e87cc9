//! Targets in forged WAL.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::wal::forge::{Forge, MIB};
use backstay_source::RecoveryStop::{After, Before};
use proptest::prelude::*;

const SECOND: i64 = 1_000_000;

fn found_from(log: &Forge, target: RecoveryTarget, from: Lsn) -> Found {
    let parts = log.bytes.chunks(700).map(Ok::<_, ()>);
    find(log.identity.clone(), target, from, log.begins, parts).unwrap()
}

fn found(log: &Forge, target: RecoveryTarget) -> Found {
    found_from(log, target, log.begins)
}

fn log_of_times(times: &[i64]) -> (Forge, Vec<Lsn>) {
    let mut log = Forge::new(Lsn(MIB));
    let mut starts = vec![];
    for (n, time) in times.iter().enumerate() {
        log.filler(30);
        starts.push(if n % 3 == 2 {
            log.abort(n as u32 + 10, *time)
        } else {
            log.commit(n as u32 + 10, *time)
        });
    }
    (log, starts)
}

#[test]
fn a_time_stops_before_the_first_later_end_in_the_order_of_the_log() {
    let (log, ends) = log_of_times(&[100, 200, 300, 250, 400]);
    let stop = |time| found(&log, RecoveryTarget::Time(time)).stop;
    assert_eq!(stop(99), Some(Before(ends[0].into())));
    assert_eq!(stop(200), Some(Before(ends[2].into())));
    // 250 comes after 300: PostgreSQL has stopped by then.
    assert_eq!(stop(299), Some(Before(ends[2].into())));
    assert_eq!(stop(300), Some(Before(ends[4].into())));
    assert_eq!(stop(400), None);
}

#[test]
fn the_last_end_before_the_stop_is_reported() {
    let (log, ends) = log_of_times(&[100, 200, 300]);
    assert_eq!(found(&log, RecoveryTarget::Time(250)).kept, Some((ends[1], 200)));
    assert_eq!(found(&log, RecoveryTarget::Time(900)).kept, Some((ends[2], 300)));
    assert_eq!(found(&log, RecoveryTarget::Time(0)).kept, None);
}

#[test]
fn a_clock_that_stepped_back_gives_candidates() {
    let (log, ends) = log_of_times(&[
        10 * SECOND,
        20 * SECOND,
        12 * SECOND,
        13 * SECOND,
        21 * SECOND,
        22 * SECOND,
    ]);
    let found = found(&log, RecoveryTarget::Time(15 * SECOND));
    assert_eq!(found.stop, Some(Before(ends[1].into())));
    assert_eq!((found.rivals, found.stepped_back_at_end), (vec![ends[4]], None));
}

#[test]
fn a_clock_that_is_still_behind_at_the_end_makes_the_end_a_candidate() {
    let (log, ends) = log_of_times(&[10 * SECOND, 20 * SECOND, 12 * SECOND]);
    let found = found(&log, RecoveryTarget::Time(15 * SECOND));
    assert_eq!((found.rivals, found.stepped_back_at_end), (vec![], Some(ends[2])));
}

#[test]
fn disorder_below_a_second_is_no_step() {
    let (log, _) = log_of_times(&[
        10 * SECOND,
        10 * SECOND + 300_000,
        10 * SECOND - 600_000,
        11 * SECOND,
    ]);
    let found = found(&log, RecoveryTarget::Time(10 * SECOND));
    assert_eq!((found.rivals, found.stepped_back_at_end), (vec![], None));
}

#[test]
fn a_restore_point_is_the_first_of_its_name_and_others_are_reported() {
    let mut log = Forge::new(Lsn(MIB));
    let first = log.restore_point("drop", 5);
    log.restore_point("other", 6);
    let second = log.restore_point("drop", 7);
    let all = found(&log, RecoveryTarget::Name("drop".into()));
    assert_eq!((all.stop, all.rivals), (Some(After(first.into())), vec![second]));
    let later = found_from(&log, RecoveryTarget::Name("drop".into()), first.plus(1));
    assert_eq!((later.stop, later.rivals), (Some(After(second.into())), vec![]));
    assert_eq!(found(&log, RecoveryTarget::Name("dro".into())).stop, None);
}

#[test]
fn a_transaction_is_found_by_its_end() {
    let (log, ends) = log_of_times(&[100, 200, 300]);
    assert_eq!(
        found(&log, RecoveryTarget::Transaction(12)).stop,
        Some(After(ends[2].into()))
    );
    // 700 wrote the records between, and never ended.
    assert_eq!(found(&log, RecoveryTarget::Transaction(700)).stop, None);
}

#[test]
fn latest_is_the_last_complete_record() {
    let (mut log, ends) = log_of_times(&[100]);
    log.filler(20_000);
    log.bytes.truncate(15_000);
    let found = found(&log, RecoveryTarget::Latest);
    assert_eq!(found.stop, Some(After(ends[0].into())));
    assert_eq!(found.last.unwrap().start, ends[0]);
}

#[test]
fn a_position_is_the_last_record_that_starts_at_or_before_it() {
    let mut log = Forge::new(Lsn(MIB));
    let first = log.filler(100);
    let second = log.filler(3);
    let third = log.filler(20_000);
    let stop = |lsn: Lsn| found(&log, RecoveryTarget::Lsn(lsn)).stop;
    assert_eq!(stop(Lsn(first.0 - 1)), None);
    assert_eq!(stop(first), Some(After(first.into())));
    assert_eq!(stop(Lsn(second.0 - 1)), Some(After(first.into())));
    assert_eq!(stop(second), Some(After(second.into())));
    assert_eq!(stop(Lsn(third.0 + 9_000)), Some(After(third.into())));
    assert_eq!(stop(log.at().plus(100)), None);
    assert_eq!(found_from(&log, RecoveryTarget::Lsn(first), second).stop, None);
}

#[test]
fn a_position_in_a_page_header_or_after_a_switch_belongs_to_the_record_before() {
    let mut log = Forge::new(Lsn(MIB));
    let switch = log.switch();
    let next = log.filler(3);
    let stop = |lsn: Lsn| found(&log, RecoveryTarget::Lsn(lsn)).stop;
    assert_eq!(stop(Lsn(MIB + 5000)), Some(After(switch.into())));
    assert_eq!(stop(Lsn(2 * MIB + 3)), Some(After(switch.into())));
    assert_eq!(stop(next), Some(After(next.into())));
}

#[test]
fn damage_is_an_error_and_not_an_end() {
    let (mut log, _) = log_of_times(&[100, 200]);
    log.bytes[60] ^= 1;
    let parts = [Ok::<_, ()>(&log.bytes[..])];
    let error = find(
        log.identity.clone(),
        RecoveryTarget::Latest,
        log.begins,
        log.begins,
        parts,
    )
    .unwrap_err();
    assert!(matches!(error, FindError::Damage(_)));
}

proptest! {
    #[test]
    fn exactly_the_ends_up_to_the_time_precede_the_stop_when_times_rise(
        steps in prop::collection::vec(0i64..50, 1..40), target in 0i64..900,
    ) {
        let times: Vec<i64> = steps.iter().scan(0, |at, step| { *at += step; Some(*at) }).collect();
        let (log, ends) = log_of_times(&times);
        let kept = times.iter().filter(|time| **time <= target).count();
        let expected = ends.get(kept).map(|start| Before((*start).into()));
        prop_assert_eq!(found(&log, RecoveryTarget::Time(target)).stop, expected);
    }
}
