//! A stream beside lineage records that cannot be opened: it never goes on with a lineage that may not be the server's, and
//! it never stops.
//!
//! Promise: bytes are compared along each lineage; the server is a fake whose bytes name its timeline.
//! Not here: plans beside such records (unreadable), which record speaks of what (backstay-repository, log::hidden).

use crate::fake::{FakeServer, FakeSource, SEGMENT, WhenSent};
use crate::shelf::{Shelf, Written, branch, log_bytes, name};
use backstay_clock::SeededChance;
use backstay_engine::Silent;
use backstay_engine::jobs::stream::{Cadence, StreamJob, Wish};
use backstay_repository::{AttachReason, LineageRecord, LogStore};
use backstay_store::{Key, Store};
use backstay_terms::{EngineKind, LogRange, Position};
use std::sync::Arc;
use std::time::Duration;

/// Streams until everything is stored.
async fn stream(shelf: &Shelf, server: &Arc<FakeServer>, end: u64) {
    server.grow(end);
    server.stop.send_replace(Wish::Run);
    let source = FakeSource(server.clone());
    let job = StreamJob {
        name: name(),
        source: Arc::new(source.clone()),
        repository: shelf.open().await,
        cadence: Cadence::default(),
        chance: Arc::new(SeededChance::new(1)),
        observer: Arc::new(Silent),
    };
    job.run(&source, server.stop.subscribe()).await.unwrap();
    assert_eq!(server.slot(), end);
    shelf.clock.advance(Duration::from_secs(3600));
}

fn server() -> Arc<FakeServer> {
    let mut server = FakeServer::new(SEGMENT);
    server.when_sent = WhenSent::Stop;
    Arc::new(server)
}

async fn records(shelf: &Shelf) -> Vec<LineageRecord> {
    let log = LogStore::new(&shelf.open().await, EngineKind::Postgres, &name());
    log.records_seen().await.unwrap().records
}

/// The newest record by name.
fn newest(shelf: &Shelf) -> Key {
    shelf.names("wal-archive/lineage/").pop().unwrap()
}

fn flip(shelf: &Shelf, key: &Key) {
    shelf.change(key, |body| *body.last_mut().unwrap() ^= 1);
}

/// The bytes along the lineage of the newest record.
async fn assert_stored(shelf: &Shelf, record: &LineageRecord, from: u64, to: u64) {
    let log = LogStore::new(&shelf.open().await, EngineKind::Postgres, &name());
    let wanted = LogRange {
        from: Position(from),
        to: Position(to),
    };
    let bytes = log.read(&record.branch, wanted).await.unwrap();
    assert!(bytes == log_bytes(1, from, to));
}

#[tokio::test]
async fn a_record_that_its_epoch_gives_away_stops_nothing_and_parts_nothing() {
    for gone in [false, true] {
        let (shelf, server) = (Shelf::with_segment(SEGMENT).await, server());
        stream(&shelf, &server, 2 * SEGMENT + 1000).await;
        stream(&shelf, &server, 3 * SEGMENT + 1000).await;
        let before = records(&shelf).await;
        match gone {
            false => flip(&shelf, &newest(&shelf)),
            true => shelf.memory.delete(&newest(&shelf)).await.unwrap(),
        }
        stream(&shelf, &server, 4 * SEGMENT + 1000).await;
        let after = records(&shelf).await;
        let last = after.last().unwrap();
        assert_eq!(
            (last.branch, last.reason),
            (before[0].branch, AttachReason::Resumed),
            "{gone}"
        );
        assert_stored(&shelf, last, SEGMENT, 4 * SEGMENT + 1000).await;
    }
}

#[tokio::test]
async fn a_record_that_may_be_of_the_servers_lineage_begins_another_one_and_protection_goes_on() {
    let (shelf, server) = (Shelf::with_segment(SEGMENT).await, server());
    stream(&shelf, &server, 2 * SEGMENT + 1000).await;
    let first = records(&shelf).await.pop().unwrap();
    // A lineage that began and of which nothing was stored.
    shelf.attach(branch(1, 9), SEGMENT, None, None).await;
    flip(&shelf, &newest(&shelf));
    shelf.clock.advance(Duration::from_secs(3600));
    stream(&shelf, &server, 3 * SEGMENT + 1000).await;
    let second = records(&shelf).await.pop().unwrap();
    assert_ne!(second.branch, first.branch);
    assert_eq!((second.reason, second.parent), (AttachReason::Unproven, None));
    assert_stored(&shelf, &first, SEGMENT, 2 * SEGMENT + 1000).await;
    assert_stored(&shelf, &second, 2 * SEGMENT + 1000, 3 * SEGMENT + 1000).await;
    // The new lineage is known: it is gone on with.
    stream(&shelf, &server, 4 * SEGMENT + 1000).await;
    let third = records(&shelf).await.pop().unwrap();
    assert_eq!(
        (third.branch, third.reason),
        (second.branch, AttachReason::Resumed)
    );
    assert_stored(&shelf, &third, 2 * SEGMENT + 1000, 4 * SEGMENT + 1000).await;
}

#[tokio::test]
async fn an_old_record_behind_which_the_lineage_went_on_casts_no_doubt() {
    let (shelf, server) = (Shelf::with_segment(SEGMENT).await, server());
    shelf.attach(branch(1, 9), SEGMENT, None, None).await;
    shelf
        .log_of(branch(1, 9), &[SEGMENT, SEGMENT + 500], 0, &[Written::Settled], 1)
        .await;
    flip(&shelf, &newest(&shelf));
    shelf.clock.advance(Duration::from_secs(3600));
    // Nothing that opens is known, and something is stored: a lineage begins, and nobody takes the source for a new one.
    stream(&shelf, &server, 2 * SEGMENT + 1000).await;
    let first = records(&shelf).await.pop().unwrap();
    assert_eq!(first.reason, AttachReason::Unproven);
    stream(&shelf, &server, 3 * SEGMENT + 1000).await;
    let second = records(&shelf).await.pop().unwrap();
    assert_eq!(
        (second.branch, second.reason),
        (first.branch, AttachReason::Resumed)
    );
    assert_stored(&shelf, &second, SEGMENT, 3 * SEGMENT + 1000).await;
}

#[tokio::test]
async fn a_damaged_wrap_of_the_months_key_stops_no_stream() {
    // What is sealed, and the name of the key that it was sealed for: then only the rest of the repository tells of our key.
    for field in ["\"wrap\":\"", "\"id\":\""] {
        let (shelf, server) = (Shelf::with_segment(SEGMENT).await, server());
        stream(&shelf, &server, 2 * SEGMENT + 1000).await;
        let wraps = shelf.names("facts/keys/");
        assert_eq!(wraps.len(), 1);
        shelf.change(&wraps[0], |body| {
            let at = body
                .windows(field.len())
                .position(|part| part == field.as_bytes());
            let digit = &mut body[at.unwrap() + field.len() + 4];
            *digit = if *digit == b'a' { b'b' } else { b'a' };
        });
        stream(&shelf, &server, 3 * SEGMENT + 1000).await;
        let last = records(&shelf).await.pop().unwrap();
        assert_eq!(
            last.reason,
            AttachReason::Unproven,
            "{field}: no record of before opens"
        );
        assert_stored(&shelf, &last, 2 * SEGMENT + 1000, 3 * SEGMENT + 1000).await;
        assert_eq!(
            shelf.names("facts/keys/").len(),
            2,
            "{field}: a key of this month that opens"
        );
    }
}

#[tokio::test]
async fn a_source_of_which_no_record_opens_is_not_taken_for_a_new_one() {
    let (shelf, server) = (Shelf::with_segment(SEGMENT).await, server());
    stream(&shelf, &server, 2 * SEGMENT + 1000).await;
    let before = records(&shelf).await;
    flip(&shelf, &newest(&shelf));
    stream(&shelf, &server, 3 * SEGMENT + 1000).await;
    let [begun] = &records(&shelf).await[..] else {
        panic!("one record opens")
    };
    assert_ne!(begun.branch, before[0].branch);
    assert_eq!(begun.reason, AttachReason::Unproven);
}
