//! The log's writer and reader: what is durable is served, what is missing is named.
//!
//! Promise: every byte is compared with the bytes that were appended.
//! Not here: any order of uploads (log_property), settling (settle), damage (tamper_log).

use backstay_repository::layout::{Level, LogPlace};
use backstay_repository::{
    LogStore, LogWriter, Repository, RepositoryError, SETTLED_BYTES_MAX, Stored, Upload,
};
use backstay_terms::{
    Branch, EngineKind, Lineage, LogFacts, LogMark, LogPoint, LogPointKind, LogRange, Position,
};
use bytes::Bytes;
use std::time::Duration;

use crate::support::*;

/// Bytes in a file of the log.
pub const FILE: u64 = 4096;

pub fn branch(timeline: u32, lineage: u32) -> Branch {
    Branch {
        system: 0x6543_2100_1234_5678,
        timeline,
        lineage: Lineage(lineage),
    }
}

pub fn range(from: u64, to: u64) -> LogRange {
    LogRange {
        from: Position(from),
        to: Position(to),
    }
}

/// The bytes of a branch's log: each follows from its place.
pub fn log_bytes(branch: Branch, range: LogRange) -> Bytes {
    let seed = u64::from(branch.timeline) << 32 | u64::from(branch.lineage.0);
    let byte = |at: u64| ((at ^ seed << 20).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8;
    (range.from.0..range.to.0).map(byte).collect()
}

pub fn log_store(repository: &Repository) -> LogStore {
    LogStore::new(repository, EngineKind::Postgres, &source())
}

pub async fn begin(repository: &Repository, branch: Branch) -> LogWriter {
    let place = LogPlace {
        engine: EngineKind::Postgres,
        source: source(),
    };
    let epoch = repository.new_id("log").unwrap();
    LogWriter::begin(repository, place, branch, epoch).await.unwrap()
}

pub fn append(writer: &mut LogWriter, from: u64, to: u64) {
    let bytes = log_bytes(writer.branch(), range(from, to));
    writer.append(Position(from), bytes, LogFacts::default()).unwrap();
}

pub async fn store(writer: &mut LogWriter, upload: Option<Upload>) -> Stored {
    let stored = upload.unwrap().run().await.unwrap();
    writer.complete(&stored);
    stored
}

pub async fn store_live(writer: &mut LogWriter) -> Stored {
    let upload = writer.cut_live(FILE, None).unwrap();
    store(writer, upload).await
}

pub async fn store_settled(writer: &mut LogWriter) -> Stored {
    let upload = writer.cut_settled(FILE, None).unwrap();
    store(writer, upload).await
}

fn mark(position: u64, time: i64) -> LogMark {
    LogMark {
        position: Position(position),
        time,
    }
}

#[tokio::test]
async fn live_and_settled_ranges_are_read_as_one_log() {
    let world = World::new();
    let mut writer = begin(&world.init().await, branch(1, 1)).await;
    append(&mut writer, 100, 1000);
    append(&mut writer, 1000, 2000);
    let live = store_live(&mut writer).await;
    assert_eq!((live.level, live.range), (Level::Live, range(100, 2000)));
    append(&mut writer, 2000, 4096);
    let settled = store_settled(&mut writer).await;
    assert_eq!((settled.level, settled.range), (Level::Settled, range(100, 4096)));
    append(&mut writer, 4096, 4100);
    append(&mut writer, 4100, 5000);
    store_live(&mut writer).await;
    let state = writer.state();
    assert_eq!((state.durable, state.settled), (Position(5000), Position(4096)));
    assert_eq!(state.held, 904, "what is settled and durable is forgotten");

    let repository = world.open().await;
    let log = log_store(&repository);
    for (from, to) in [
        (100, 5000),
        (100, 101),
        (1999, 2001),
        (4000, 4200),
        (4999, 5000),
        (300, 300),
    ] {
        let bytes = log.read(&branch(1, 1), range(from, to)).await.unwrap();
        assert!(bytes == log_bytes(branch(1, 1), range(from, to)), "{from}..{to}");
    }
    let ranges = log.ranges(&branch(1, 1), None).await.unwrap();
    let listed: Vec<(Level, LogRange)> = ranges.iter().map(|r| (r.level, r.name.range)).collect();
    let expected = [
        (Level::Live, range(100, 2000)),
        (Level::Settled, range(100, 4096)),
        (Level::Live, range(4096, 5000)),
    ];
    assert_eq!(listed, expected);
    let sizes: u64 = ranges.iter().map(|r| r.size).sum();
    let stored: u64 = world
        .names("wal-archive/live")
        .iter()
        .chain(&world.names("wal-archive/settled"))
        .map(|key| world.body(key).len() as u64)
        .sum();
    assert_eq!(sizes, stored);
}

#[tokio::test]
async fn a_position_that_is_not_stored_is_named_with_its_end() {
    let world = World::new();
    let repository = world.init().await;
    let mut writer = begin(&repository, branch(1, 1)).await;
    append(&mut writer, 100, 200);
    store_live(&mut writer).await;
    let mut later = begin(&repository, branch(1, 1)).await;
    append(&mut later, 300, 400);
    store_live(&mut later).await;
    let log = log_store(&repository);
    for (wanted, gap) in [
        (range(100, 400), range(200, 300)),
        (range(250, 400), range(250, 300)),
        (range(0, 150), range(0, 100)),
        (range(350, 500), range(400, 500)),
    ] {
        let error = log.read(&branch(1, 1), wanted).await.unwrap_err();
        let named = matches!(&error, RepositoryError::Gap { source_name, from, to }
            if source_name == "orders" && (*from, *to) == (gap.from, gap.to));
        assert!(named, "{wanted:?}: {error}");
    }
    let error = log.read(&branch(1, 2), range(100, 101)).await.unwrap_err();
    assert!(
        matches!(error, RepositoryError::Gap { .. }),
        "another lineage has none of it"
    );
}

#[tokio::test]
async fn pieces_must_continue_and_no_range_crosses_a_border() {
    let world = World::new();
    let mut writer = begin(&world.init().await, branch(1, 1)).await;
    append(&mut writer, 4000, 4096);
    append(&mut writer, 4096, 4200);
    let bytes = Bytes::from_static(b"x");
    for at in [4199, 4201] {
        let error = writer
            .append(Position(at), bytes.clone(), LogFacts::default())
            .unwrap_err();
        assert!(matches!(error, RepositoryError::OutOfOrder { .. }));
    }
    assert_eq!(store_live(&mut writer).await.range, range(4000, 4096));
    assert_eq!(store_live(&mut writer).await.range, range(4096, 4200));
    assert!(writer.cut_live(FILE, None).unwrap().is_none());
    assert_eq!(store_settled(&mut writer).await.range, range(4000, 4096));
    assert_eq!(store_settled(&mut writer).await.range, range(4096, 4200));
    assert!(writer.cut_settled(FILE, None).unwrap().is_none());
}

#[tokio::test]
async fn a_settled_range_is_cut_at_16_mib_between_pieces() {
    const FAR: u64 = 1 << 30;
    let world = World::new();
    let mut writer = begin(&world.init().await, branch(1, 1)).await;
    let piece = SETTLED_BYTES_MAX / 4 + 10;
    for n in 0..5 {
        let bytes = Bytes::from(vec![n as u8; piece as usize]);
        writer
            .append(Position(n * piece), bytes, LogFacts::default())
            .unwrap();
    }
    let upload = writer.cut_settled(FAR, None).unwrap();
    assert_eq!(store(&mut writer, upload).await.range, range(0, 3 * piece));
    let upload = writer.cut_settled(FAR, None).unwrap();
    assert_eq!(
        store(&mut writer, upload).await.range,
        range(3 * piece, 5 * piece)
    );
}

#[tokio::test]
async fn a_piece_that_is_longer_than_16_mib_is_settled_alone() {
    // A live range of a busy server may span more: settling must be able to take it.
    const FAR: u64 = 1 << 30;
    let world = World::new();
    let mut writer = begin(&world.init().await, branch(1, 1)).await;
    let long = SETTLED_BYTES_MAX + 1;
    let bytes = Bytes::from(vec![1; long as usize]);
    writer
        .append(Position(0), bytes.clone(), LogFacts::default())
        .unwrap();
    writer
        .append(Position(long), Bytes::from_static(b"x"), LogFacts::default())
        .unwrap();
    let upload = writer.cut_settled(FAR, None).unwrap();
    assert_eq!(store(&mut writer, upload).await.range, range(0, long));
    let upload = writer.cut_settled(FAR, None).unwrap();
    assert_eq!(store(&mut writer, upload).await.range, range(long, long + 1));
    let read = log_store(&world.open().await)
        .read(&branch(1, 1), range(0, long))
        .await;
    assert!(read.unwrap() == bytes);
}

#[tokio::test]
async fn two_marks_at_one_position_are_two_objects_and_cover_nothing() {
    let world = World::new();
    let repository = world.init().await;
    let mut writer = begin(&repository, branch(1, 1)).await;
    append(&mut writer, 100, 200);
    let error = writer.cut_mark(mark(200, 5)).unwrap_err();
    assert!(
        matches!(error, RepositoryError::OutOfOrder { .. }),
        "LOG-3: 200 is not durable yet"
    );
    store_live(&mut writer).await;
    for time in [5, 6] {
        let upload = writer.cut_mark(mark(200, time)).unwrap();
        let stored = store(&mut writer, Some(upload)).await;
        assert_eq!((stored.range, stored.level), (range(200, 200), Level::Live));
    }
    assert_eq!(writer.durable().position(), Position(200));
    let log = log_store(&repository);
    let ranges = log.ranges(&branch(1, 1), None).await.unwrap();
    let marks: Vec<_> = ranges.iter().filter(|r| r.name.range.is_mark()).collect();
    assert_eq!(marks.len(), 2);
    let mut times = Vec::new();
    for stored in marks {
        let (index, bytes) = log.range(stored).await.unwrap();
        assert_eq!((bytes.len(), index.frames.len()), (0, 0));
        assert_eq!(log.index_of(stored).await.unwrap(), index);
        times.extend(index.facts.mark.map(|mark| (mark.position, mark.time)));
    }
    assert_eq!(times, [(Position(200), 5), (Position(200), 6)]);
    let bytes = log.read(&branch(1, 1), range(100, 200)).await.unwrap();
    assert!(bytes == log_bytes(branch(1, 1), range(100, 200)));
    assert!(log.read(&branch(1, 1), range(200, 201)).await.is_err());
}

#[tokio::test]
async fn the_facts_of_pieces_are_joined_and_a_mark_travels_only_with_the_range_that_ends_there() {
    let world = World::new();
    let repository = world.init().await;
    let mut writer = begin(&repository, branch(1, 1)).await;
    let point = |start: u64, name: &str| LogPoint {
        start: Position(start),
        kind: LogPointKind::RestorePoint,
        name: Some(name.to_owned()),
        time: Some(7),
        crc: 9,
    };
    for (from, to, name) in [(100, 200, "before"), (200, 300, "after")] {
        let facts = LogFacts {
            points: vec![point(from + 1, name)],
            ..LogFacts::default()
        };
        let bytes = log_bytes(branch(1, 1), range(from, to));
        writer.append(Position(from), bytes, facts).unwrap();
    }
    let upload = writer.cut_live(FILE, Some(mark(250, 1))).unwrap();
    store(&mut writer, upload).await;
    let upload = writer.cut_settled(FILE, Some(mark(300, 2))).unwrap();
    store(&mut writer, upload).await;
    let log = log_store(&repository);
    for stored in log.ranges(&branch(1, 1), None).await.unwrap() {
        let index = log.index_of(&stored).await.unwrap();
        assert_eq!(index.facts.points, [point(101, "before"), point(201, "after")]);
        let expected = (stored.level == Level::Settled).then_some(mark(300, 2));
        assert_eq!(index.facts.mark, expected);
    }
}

#[tokio::test]
async fn a_range_of_many_frames_and_a_large_index_is_read_back() {
    let world = World::new();
    let repository = world.init().await;
    let mut writer = begin(&repository, branch(1, 1)).await;
    let bytes = Bytes::from(noise(3, 3 << 20));
    let points = (0..300).map(|n| LogPoint {
        start: Position(n),
        kind: LogPointKind::RestorePoint,
        name: Some(format!("a rather long name of a restore point {n}")),
        time: None,
        crc: n as u32,
    });
    let facts = LogFacts {
        points: points.collect(),
        ..LogFacts::default()
    };
    writer.append(Position(0), bytes.clone(), facts.clone()).unwrap();
    let upload = writer.cut_live(1 << 30, None).unwrap();
    store(&mut writer, upload).await;
    let log = log_store(&repository);
    let stored = log.ranges(&branch(1, 1), None).await.unwrap().remove(0);
    let index = log.index_of(&stored).await.unwrap();
    assert_eq!((index.facts, index.frames.len()), (facts, 12));
    assert!(log.read(&branch(1, 1), range(0, 3 << 20)).await.unwrap() == bytes);
}

#[tokio::test]
async fn key_1_an_epoch_older_than_seven_days_seals_nothing() {
    let world = World::new();
    let repository = world.init().await;
    let mut writer = begin(&repository, branch(1, 1)).await;
    append(&mut writer, 100, 200);
    world.clock.advance(Duration::from_secs(7 * 86_400));
    store_live(&mut writer).await;
    append(&mut writer, 200, 300);
    let held = writer.cut_live(FILE, None).unwrap().unwrap();
    append(&mut writer, 300, 400);
    world.clock.advance(Duration::from_secs(1));
    let too_old = |error: RepositoryError| matches!(error, RepositoryError::KeyTooOld { .. });
    assert!(too_old(writer.cut_live(FILE, None).unwrap_err()));
    assert!(too_old(writer.cut_settled(FILE, None).unwrap_err()));
    assert!(too_old(writer.cut_mark(mark(200, 1)).unwrap_err()));
    assert!(
        too_old(held.run().await.unwrap_err()),
        "a range that was cut in time is sealed too late"
    );
}

#[tokio::test]
async fn the_next_timeline_begins_when_all_of_the_old_one_is_settled_and_stored() {
    let world = World::new();
    let repository = world.init().await;
    let (old, new) = (branch(1, 1), branch(2, 2));
    let mut writer = begin(&repository, old).await;
    append(&mut writer, 4096, 5000);
    let live = writer.cut_live(FILE, None).unwrap().unwrap();
    let out_of_order = |error: RepositoryError| matches!(error, RepositoryError::OutOfOrder { .. });
    assert!(out_of_order(writer.switch_branch(new).unwrap_err()));
    let settled = writer.cut_settled(FILE, None).unwrap();
    assert!(
        out_of_order(writer.switch_branch(new).unwrap_err()),
        "cut is not stored"
    );
    store(&mut writer, settled).await;
    writer.switch_branch(new).unwrap();
    assert_eq!(writer.branch(), new);
    append(&mut writer, 4096, 4500);
    // An upload of the old timeline ends late: it says nothing about the new one (LOG-1).
    let late = live.run().await.unwrap();
    assert_eq!(writer.complete(&late).position(), Position(4096));
    store_live(&mut writer).await;
    assert_eq!(writer.durable().position(), Position(4500));
    let log = log_store(&world.open().await);
    for (branch, wanted) in [(old, range(4096, 5000)), (new, range(4096, 4500))] {
        let bytes = log.read(&branch, wanted).await.unwrap();
        assert!(bytes == log_bytes(branch, wanted), "{branch}");
    }
}
