//! Log whose keys or bytes cannot be opened: what does not need it goes on, what may need it is refused with its name.
//!
//! Promise: each blow falls on the newest log, on the middle of it and on the log that a backup needs; plans are compared by
//! their base and by where they stop.
//! Not here: one copy of several (damage), heads and lineage records (unreadable), rows of a restored server
//! (backstay/tests/it/unreadable).

use crate::shelf::{SEGMENT, Shelf, Written, branch, log_bytes, name, range_of};
use backstay_engine::jobs::stream::settle_all;
use backstay_engine::jobs::verify::{Depth, Recording, VerifyJob};
use backstay_engine::plan::{Catalog, Request, RestorePlan, latest_refused, plan, window};
use backstay_engine::{EngineError, ErrorKind, Silent};
use backstay_postgres::wal::PostgresLog;
use backstay_repository::{EndPoint, Head};
use backstay_source::RecoveryStop;
use backstay_store::{Key, Store};
use backstay_terms::{BackupId, EngineKind, LogRange, Position, RecoveryTarget, RetentionClass};
use std::time::Duration;

/// What becomes of a range, given by where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    KeyGone,
    KeyFlipped,
    Flipped,
    /// Its content and that of the range before are exchanged.
    Exchanged,
}

const BLOWS: [Blow; 4] = [Blow::KeyGone, Blow::KeyFlipped, Blow::Flipped, Blow::Exchanged];

impl Blow {
    async fn befall(self, shelf: &Shelf, number: u64) {
        let range = range(shelf, number);
        match self {
            Blow::KeyGone => shelf.memory.delete(&wrap_of(shelf, &range)).await.unwrap(),
            Blow::KeyFlipped => shelf.change(&wrap_of(shelf, &range), |body| {
                let at = body.len() - 9;
                body[at] ^= 1;
            }),
            Blow::Flipped => shelf.change(&range, |body| body[150] ^= 1),
            Blow::Exchanged => {
                let other = self::range(shelf, number - 1);
                let body = |key: &Key| shelf.memory.snapshot().get(key).unwrap().clone();
                let (one, two) = (body(&range), body(&other));
                shelf.memory.overwrite(&range, two);
                shelf.memory.overwrite(&other, one);
            }
        }
    }

    fn kind(self) -> ErrorKind {
        match self {
            Blow::KeyGone | Blow::KeyFlipped => ErrorKind::Key,
            Blow::Flipped | Blow::Exchanged => ErrorKind::Integrity,
        }
    }

    /// What a refusal names.
    fn named(self, shelf: &Shelf, number: u64) -> String {
        let key = range(shelf, number);
        match self {
            Blow::KeyGone | Blow::KeyFlipped => format!("postgres/orders/log/{}", epoch_of(&key)),
            Blow::Flipped | Blow::Exchanged => key.to_string(),
        }
    }
}

/// The range that begins with this segment.
fn range(shelf: &Shelf, number: u64) -> Key {
    let begins = |key: &Key| range_of(key.as_str()).is_some_and(|range| range.from.0 == number * SEGMENT);
    let ranges = shelf.names("wal-archive/settled/");
    ranges.into_iter().find(begins).unwrap()
}

fn epoch_of(range: &Key) -> String {
    let (_, name) = range.as_str().rsplit_once('/').unwrap();
    let (_, epoch) = name.split_once('.').unwrap();
    epoch.rsplit_once('-').unwrap().0.to_owned()
}

fn wrap_of(shelf: &Shelf, range: &Key) -> Key {
    let wraps = shelf.names(&format!("/keys/orders/{}", epoch_of(range)));
    assert_eq!(wraps.len(), 1, "{wraps:?}");
    wraps[0].clone()
}

fn end(start: u64) -> EndPoint {
    EndPoint {
        start: Position(start + 50),
        crc: start as u32,
    }
}

/// Eight segments of log, each of an epoch of its own; a backup in the first and one in the fourth of them.
async fn shelf() -> (Shelf, Head, Head) {
    let shelf = Shelf::new().await;
    shelf.attach(branch(1, 1), 0, None, None).await;
    let mut heads = Vec::new();
    for number in 0..8 {
        let from = number * SEGMENT;
        if number % 4 == 0 {
            let start = from + 5000;
            let end = end(start);
            heads.push(
                shelf
                    .backup_ending(RetentionClass::Days35, start, Some(end))
                    .await,
            );
            shelf.log_ending(branch(1, 1), from, from + SEGMENT, 1, end).await;
        } else {
            // Without an index that repeats its facts: beside one a damaged range is not seen before it is read.
            let borders = [from, from + SEGMENT];
            shelf.log(branch(1, 1), &borders, from, &[Written::Settled]).await;
        }
        shelf.clock.advance(Duration::from_secs(60));
    }
    let newer = heads.pop().unwrap();
    (shelf, heads.pop().unwrap(), newer)
}

async fn read(shelf: &Shelf) -> Catalog {
    let read = Catalog::read(&shelf.open().await, EngineKind::Postgres, &name(), None).await;
    read.unwrap()
}

async fn planned(
    shelf: &Shelf,
    target: RecoveryTarget,
    base: Option<&BackupId>,
) -> Result<RestorePlan, EngineError> {
    let request = Request {
        target,
        base: base.cloned(),
        now: shelf.open().await.now(),
    };
    plan(&read(shelf).await, &request, &PostgresLog).await
}

/// Where `latest` stops.
fn latest(number: u64) -> RecoveryStop {
    RecoveryStop::After(Position(number * SEGMENT))
}

/// The base of each range of the window, with the segment before which it ends; and the bases that are points.
async fn reachable(shelf: &Shelf) -> (Vec<(BackupId, u64)>, Vec<BackupId>) {
    let window = window(&read(shelf).await, shelf.open().await.now())
        .await
        .unwrap();
    assert_eq!(window.gaps, vec![], "what cannot be opened is no gap");
    let ranges = window.ranges.into_iter();
    (
        ranges.map(|range| (range.base, range.to.0 / SEGMENT)).collect(),
        window.points.into_iter().map(|(backup, _)| backup).collect(),
    )
}

/// What `latest` is refused with, which `status` says too.
async fn refused_latest(shelf: &Shelf, base: Option<&BackupId>) -> EngineError {
    let refused = planned(shelf, RecoveryTarget::Latest, base).await.unwrap_err();
    if base.is_none() {
        // As `status` does, which asks for the window first.
        let (catalog, now) = (read(shelf).await, shelf.open().await.now());
        window(&catalog, now).await.unwrap();
        let told = latest_refused(&catalog, now).await;
        // Who asks first for what may know more exactly where it lies.
        let why = |error: &EngineError| {
            error
                .to_string()
                .split_once(" cannot be opened: ")
                .unwrap()
                .1
                .to_owned()
        };
        assert_eq!(why(&told.unwrap().unwrap()), why(&refused));
    }
    refused
}

fn assert_named(refused: &EngineError, kind: ErrorKind, named: &str, what: &str) {
    assert_eq!(refused.kind(), kind, "{what}: {refused}");
    let begins = "what is newest of orders cannot be told: the log from 0/";
    assert!(refused.to_string().starts_with(begins), "{what}: {refused}");
    assert!(refused.to_string().contains(named), "{what}: {refused}");
}

async fn assert_verify_names(shelf: &Shelf, named: &str, what: &str) {
    let job = VerifyJob {
        repository: shelf.open().await,
        services: vec![],
        depth: Depth::Structure,
        formats: vec![],
        identities: vec![],
        recording: Recording::Skipped,
    };
    let found = job.run().await.unwrap().findings;
    let names = |text: &str| text.contains(named);
    assert!(
        found
            .iter()
            .any(|found| names(&found.object) || names(&found.what)),
        "{what}: {found:?}"
    );
}

#[tokio::test]
async fn newest_log_that_cannot_be_opened_is_never_left_out_silently() {
    for blow in BLOWS {
        let (shelf, older, newer) = shelf().await;
        let named = blow.named(&shelf, 7);
        blow.befall(&shelf, 7).await;
        let what = format!("{blow:?}");
        let ends = if blow == Blow::Exchanged { 6 } else { 7 };
        let (ranges, points) = reachable(&shelf).await;
        assert_eq!(
            (ranges, points),
            (vec![(older.backup.clone(), ends)], vec![]),
            "{what}"
        );

        let refused = refused_latest(&shelf, None).await;
        let named = match blow {
            Blow::Exchanged => blow.named(&shelf, 6),
            _ => named,
        };
        assert_named(&refused, blow.kind(), &named, &what);
        let last = format!("--to lsn:{}; ", backstay_terms::Lsn((ends - 1) * SEGMENT));
        assert!(refused.advice().contains(&last), "{what}: {}", refused.advice());
        assert!(refused.advice().contains("backstay verify orders"), "{what}");
        let objects = {
            let catalog = read(&shelf).await;
            window(&catalog, shelf.open().await.now()).await.unwrap();
            catalog.unreadable()
        };
        assert!(!objects.is_empty(), "{what}");
        let immediate = planned(&shelf, RecoveryTarget::Immediate, None).await;
        assert_eq!(immediate.unwrap().head.backup, newer.backup, "{what}");
        assert_verify_names(&shelf, &named, &what).await;
    }
}

#[tokio::test]
async fn what_lies_after_log_that_cannot_be_opened_is_reached_from_the_backup_after_it() {
    for blow in BLOWS {
        let (shelf, older, newer) = shelf().await;
        let named = blow.named(&shelf, 2);
        blow.befall(&shelf, 2).await;
        let what = format!("{blow:?}");
        let plan = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap();
        assert_eq!(
            (&plan.head.backup, plan.stop),
            (&newer.backup, latest(7)),
            "{what}"
        );
        assert_eq!(plan.needs, Position(8 * SEGMENT), "{what}");
        let told = latest_refused(&read(&shelf).await, shelf.open().await.now()).await;
        assert!(told.unwrap().is_none(), "{what}");
        let refused = refused_latest(&shelf, Some(&older.backup)).await;
        let named = match blow {
            Blow::Exchanged => blow.named(&shelf, 1),
            _ => named,
        };
        assert_named(&refused, blow.kind(), &named, &what);
        assert_verify_names(&shelf, &named, &what).await;
        if matches!(blow, Blow::KeyGone | Blow::KeyFlipped) {
            let expected = vec![(older.backup.clone(), 2), (newer.backup.clone(), 8)];
            assert_eq!(reachable(&shelf).await, (expected, vec![]), "{what}");
        }
    }
}

#[tokio::test]
async fn a_backup_whose_own_log_cannot_be_opened_is_a_point() {
    for blow in BLOWS {
        let (shelf, older, newer) = shelf().await;
        blow.befall(&shelf, 4).await;
        let named = match blow {
            Blow::Exchanged => blow.named(&shelf, 3),
            _ => blow.named(&shelf, 4),
        };
        let what = format!("{blow:?}");
        let refused = refused_latest(&shelf, None).await;
        assert_eq!(refused.kind(), blow.kind(), "{what}: {refused}");
        let own = blow.named(&shelf, 4);
        assert!(
            refused.to_string().contains(&named) || refused.to_string().contains(&own),
            "{what}: {refused}"
        );
        assert!(refused.advice().contains("--to immediate"), "{what}");
        let immediate = planned(&shelf, RecoveryTarget::Immediate, None).await.unwrap();
        assert_eq!(immediate.head.backup, newer.backup, "{what}");
        let (ranges, points) = reachable(&shelf).await;
        assert_eq!(ranges.len(), 1, "{what}: {ranges:?}");
        assert_eq!(ranges[0].0, older.backup, "{what}");
        assert_eq!(points, [newer.backup], "{what}");
    }
}

#[tokio::test]
async fn without_the_keys_of_any_epoch_backups_are_points_and_nothing_newer_is_certain() {
    let (shelf, older, newer) = shelf().await;
    shelf.remove("wal-archive/keys/").await;
    let expected = (vec![], vec![older.backup, newer.backup.clone()]);
    assert_eq!(reachable(&shelf).await, expected);
    let refused = refused_latest(&shelf, None).await;
    assert_eq!(refused.kind(), ErrorKind::Key, "{refused}");
    let immediate = planned(&shelf, RecoveryTarget::Immediate, None).await.unwrap();
    assert_eq!(immediate.head.backup, newer.backup);
}

#[tokio::test]
async fn another_copy_serves_where_the_keys_of_one_are_lost() {
    let (shelf, older, _) = shelf().await;
    let first = range(&shelf, 2);
    shelf.clock.advance(Duration::from_secs(60));
    let borders = [2 * SEGMENT, 3 * SEGMENT];
    shelf
        .log(branch(1, 1), &borders, 2 * SEGMENT, &[Written::Settled])
        .await;
    let second = shelf
        .names("wal-archive/settled/")
        .into_iter()
        .find(|key| *key != first && range_of(key.as_str()) == range_of(first.as_str()));
    for lost in [first, second.unwrap()] {
        let copy = shelf.copy();
        copy.memory.delete(&wrap_of(&copy, &lost)).await.unwrap();
        let plan = planned(&copy, RecoveryTarget::Latest, Some(&older.backup)).await;
        assert_eq!(plan.unwrap().stop, latest(7), "{lost}");
        let catalog = read(&copy).await;
        let whole = LogRange {
            from: Position(0),
            to: Position(8 * SEGMENT),
        };
        assert!(catalog.bytes_in(whole).await.unwrap() == log_bytes(1, 0, 8 * SEGMENT));
        let now = copy.open().await.now();
        assert_eq!(window(&catalog, now).await.unwrap().newest(), Some(0));
        assert_eq!(catalog.closed_parts().len(), 0);
    }
}

#[tokio::test]
async fn settling_goes_on_beside_live_log_whose_keys_are_lost() {
    let shelf = Shelf::new().await;
    shelf.attach(branch(1, 1), 0, None, None).await;
    for from in [0, SEGMENT] {
        shelf
            .log(branch(1, 1), &[from, from + SEGMENT], from, &[Written::Live])
            .await;
        shelf.clock.advance(Duration::from_secs(60));
    }
    let live = shelf.names("wal-archive/live/");
    shelf.memory.delete(&wrap_of(&shelf, &live[0])).await.unwrap();
    settle_all(&shelf.open().await, &name(), &Silent).await.unwrap();
    let settled = shelf.names("wal-archive/settled/");
    let settled: Vec<LogRange> = settled.iter().filter_map(|key| range_of(key.as_str())).collect();
    let whole = LogRange {
        from: Position(SEGMENT),
        to: Position(2 * SEGMENT),
    };
    assert_eq!(settled, [whole]);
    let bytes = read(&shelf).await.bytes_in(whole).await.unwrap();
    assert!(bytes == log_bytes(1, SEGMENT, 2 * SEGMENT));
}
