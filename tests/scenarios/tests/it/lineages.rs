//! Several histories of one source: which backup belongs to which, and where the bytes of an ancestor end.
//!
//! Promise: every lineage has bytes of its own, so that a byte given out names the lineage that it came from.

use crate::shelf::{SEGMENT, Shelf, Written, branch, log_bytes, name};
use backstay_engine::ErrorKind;
use backstay_engine::plan::{Catalog, Request, plan};
use backstay_postgres::wal::PostgresLog;
use backstay_repository::{EndPoint, Head, Parent};
use backstay_terms::{BackupId, Branch, EngineKind, LogRange, Position, RecoveryTarget, RetentionClass};

/// Where a backup's log starts; the record that ends it lies 50 bytes later.
const START: u64 = 5000;
/// Where timeline 2 left timeline 1.
const FORK: u64 = SEGMENT + 5000;

fn end(crc: u32) -> EndPoint {
    EndPoint {
        start: Position(START + 50),
        crc,
    }
}

async fn catalog(shelf: &Shelf, lineage: Option<Branch>) -> Catalog {
    let repository = shelf.open().await;
    let read = Catalog::read(&repository, EngineKind::Postgres, &name(), lineage).await;
    read.unwrap()
}

async fn backup(shelf: &Shelf, crc: u32) -> Head {
    let head = shelf
        .backup_ending(RetentionClass::Days35, START, Some(end(crc)))
        .await;
    shelf.clock.advance(std::time::Duration::from_secs(1));
    head
}

fn range(from: u64, to: u64) -> LogRange {
    LogRange {
        from: Position(from),
        to: Position(to),
    }
}

fn latest(base: Option<BackupId>, now: jiff::Timestamp) -> Request {
    let target = RecoveryTarget::Latest;
    Request { target, base, now }
}

/// Two histories of one timeline, as after a server was set back: a backup of each, at the same positions.
async fn two_histories() -> (Shelf, Head, Head) {
    let shelf = Shelf::new().await;
    let mut heads = Vec::new();
    for lineage in [1, 2] {
        let branch = branch(1, lineage);
        shelf.attach(branch, 0, None, None).await;
        heads.push(backup(&shelf, lineage).await);
        shelf
            .log_ending(branch, 0, SEGMENT, lineage.into(), end(lineage))
            .await;
    }
    let second = heads.pop().unwrap();
    (shelf, heads.pop().unwrap(), second)
}

#[tokio::test]
async fn lin_2_a_backup_belongs_to_the_history_that_holds_its_end_record_and_to_no_other() {
    let (shelf, first, second) = two_histories().await;
    for (lineage, own, other) in [(1, &first, &second), (2, &second, &first)] {
        let catalog = catalog(&shelf, Some(branch(1, lineage))).await;
        assert!(catalog.is_on_chain(own).await.unwrap(), "lineage {lineage}");
        assert!(!catalog.is_on_chain(other).await.unwrap(), "lineage {lineage}");
    }
}

#[tokio::test]
async fn lin_2_a_backup_of_another_history_is_never_recovered_along_this_one() {
    let (shelf, first, second) = two_histories().await;
    let of_second = catalog(&shelf, Some(branch(1, 2))).await;
    let (catalog, now) = (of_second, shelf.open().await.now());
    let own = plan(&catalog, &latest(None, now), &PostgresLog).await.unwrap();
    assert_eq!(own.head.backup, second.backup);
    let other = latest(Some(first.backup.clone()), now);
    let refused = plan(&catalog, &other, &PostgresLog).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
}

#[tokio::test]
async fn lin_2_a_backup_that_ended_past_the_switch_point_is_not_on_the_descendants_chain() {
    let shelf = Shelf::new().await;
    shelf.attach(branch(1, 1), 0, None, None).await;
    let head = backup(&shelf, 1).await;
    shelf.log_ending(branch(1, 1), 0, SEGMENT, 1, end(1)).await;
    let stop = head.log.as_ref().unwrap().stop;
    for (lineage, fork, expected) in [(2, stop, true), (3, Position(stop.0 - 1), false)] {
        let parent = Parent {
            branch: branch(1, 1),
            fork,
        };
        shelf.attach(branch(2, lineage), 0, Some(parent), None).await;
        let catalog = catalog(&shelf, Some(branch(2, lineage))).await;
        assert_eq!(
            catalog.is_on_chain(&head).await.unwrap(),
            expected,
            "fork at {fork}"
        );
    }
}

/// Timeline 1 in two segments; timeline 2, which left it in the second, from `begins` on: of the descendant's seed after
/// the fork, of `shared` before it.
async fn forked(begins: u64, shared: u64) -> Shelf {
    let shelf = Shelf::new().await;
    shelf.attach(branch(1, 1), 0, None, None).await;
    let borders = [0, SEGMENT, 2 * SEGMENT];
    shelf.log(branch(1, 1), &borders, 0, &[Written::Settled]).await;
    let parent = Parent {
        branch: branch(1, 1),
        fork: Position(FORK),
    };
    shelf
        .attach(
            branch(2, 2),
            SEGMENT,
            Some(parent),
            Some("1\t0/101388\tno reason\n"),
        )
        .await;
    if begins < FORK {
        shelf
            .log_of(branch(2, 2), &[begins, FORK], 0, &[Written::Settled], shared)
            .await;
    }
    let after = [begins.max(FORK), 2 * SEGMENT, 3 * SEGMENT];
    shelf.log(branch(2, 2), &after, 0, &[Written::Settled]).await;
    shelf
}

#[tokio::test]
async fn lin_3_no_byte_past_the_switch_point_comes_from_the_ancestor() {
    for begins in [SEGMENT, FORK] {
        let catalog = catalog(&forked(begins, 1).await, None).await;
        let bytes = catalog.bytes_in(range(0, 3 * SEGMENT)).await.unwrap();
        let expected = [log_bytes(1, 0, FORK), log_bytes(2, FORK, 3 * SEGMENT)].concat();
        assert!(bytes == expected, "begins at {begins}");
    }
}

#[tokio::test]
async fn lin_3_a_hole_after_the_switch_point_is_a_gap_although_the_ancestor_has_bytes_there() {
    let catalog = catalog(&forked(FORK + 1000, 1).await, None).await;
    let before = catalog.bytes_in(range(FORK - 100, FORK)).await.unwrap();
    assert_eq!(before, log_bytes(1, FORK - 100, FORK));
    let gap = catalog
        .bytes_in(range(FORK - 100, FORK + 2000))
        .await
        .unwrap_err();
    assert_eq!(
        gap.to_string(),
        "the log of orders has a gap: nothing is stored from 0000000000101388 to 0000000000101770"
    );
}

#[tokio::test]
async fn lin_3_an_ancestor_whose_bytes_are_not_the_descendants_before_the_switch_is_cut_off() {
    let catalog = catalog(&forked(SEGMENT, 9).await, None).await;
    let branches: Vec<Branch> = catalog
        .chain
        .as_ref()
        .unwrap()
        .links
        .iter()
        .map(|link| link.branch)
        .collect();
    assert_eq!(branches, [branch(2, 2)]);
    let own = catalog.bytes_in(range(SEGMENT, 2 * SEGMENT)).await.unwrap();
    let expected = [log_bytes(9, SEGMENT, FORK), log_bytes(2, FORK, 2 * SEGMENT)].concat();
    assert!(own == expected);
    let gap = catalog.bytes_in(range(0, SEGMENT)).await.unwrap_err();
    assert_eq!(gap.kind(), ErrorKind::InGap);
}

#[tokio::test]
async fn log_whose_lineage_records_are_lost_is_not_passed_over_by_latest() {
    let (shelf, ..) = two_histories().await;
    shelf.remove("wal-archive/lineage/").await;
    let catalog = catalog(&shelf, None).await;
    let now = shelf.open().await.now();
    let error = plan(&catalog, &latest(None, now), &PostgresLog)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
    assert!(error.to_string().contains("no record of its lineage"), "{error}");
    // The backup itself needs no log.
    let target = RecoveryTarget::Immediate;
    let immediate = plan(
        &catalog,
        &Request {
            target,
            base: None,
            now,
        },
        &PostgresLog,
    )
    .await
    .unwrap();
    assert_eq!(immediate.segments, []);
}
