//! After a gap: whatever a source was told may be forgotten is stored, or the repository says that it is lost.
//!
//! Promise: the process dies at every call of the store while a stream attaches after a gap, and is opened again; the
//! source is a fake that behaves as a server with a slot does: what it is told to forget it forgets.
//! Not here: what a real server does with a report (backstay-postgres, stream_live).

use crate::fake::{FakeServer, FakeSource, SEGMENT, WhenSent};
use crate::shelf::{Shelf, Written, branch, key, log_bytes, name};
use backstay_clock::SeededChance;
use backstay_engine::Silent;
use backstay_engine::jobs::stream::{Cadence, StreamJob, Wish};
use backstay_engine::jobs::verify::{Depth, Recording, VerifyJob};
use backstay_repository::{HoleKind, LogStore, Repository, missing, stretches};
use backstay_source::Resume;
use backstay_store::faults::{CrashMode, CrashPlan, CrashStore};
use backstay_terms::{EngineKind, LogRange, Position};
use jiff::SignedDuration;
use std::sync::Arc;

/// Stored before the gap: up to here.
const FRONTIER: u64 = 2 * SEGMENT + 1000;
/// The source has nothing before this any more.
const KEPT_FROM: u64 = 5 * SEGMENT;
/// Its log ends here.
const END: u64 = 6 * SEGMENT + 5000;
/// Where timeline 2 left timeline 1, for a source that was promoted meanwhile.
const FORK: u64 = 4 * SEGMENT + 77;

/// A repository that holds the log of timeline 1 up to the frontier.
async fn shelf() -> Shelf {
    let shelf = Shelf::with_segment(SEGMENT).await;
    shelf.attach(branch(1, 1), SEGMENT, None, None).await;
    let borders = [SEGMENT, 2 * SEGMENT, FRONTIER];
    shelf.log(branch(1, 1), &borders, 0, &[Written::Settled]).await;
    shelf
}

fn server(timeline: u32) -> Arc<FakeServer> {
    let mut server = FakeServer::promoted(timeline, FORK, FRONTIER, KEPT_FROM, END);
    server.when_sent = WhenSent::Stop;
    Arc::new(server)
}

/// Streams until everything is stored or the store dies.
async fn stream(repository: Repository, server: &Arc<FakeServer>) {
    server.stop.send_replace(Wish::Run);
    let source = FakeSource(server.clone());
    let job = StreamJob {
        name: name(),
        source: Arc::new(source.clone()),
        repository,
        cadence: Cadence::default(),
        chance: Arc::new(SeededChance::new(1)),
        observer: Arc::new(Silent),
    };
    let wish = server.stop.subscribe();
    // A store that died ends the job; what is left of it is looked at.
    let _ = job.run(&source, wish).await;
}

/// Whatever lies before the slot is stored, or lies before an attachment that says where the log goes on.
async fn assert_told_the_truth(shelf: &Shelf, server: &FakeServer, what: &str) {
    let slot = server.slot();
    let log = LogStore::new(&shelf.open().await, EngineKind::Postgres, &name());
    let (mut stored, mut begins) = (Vec::new(), Vec::new());
    for known in log.known().await.unwrap() {
        let ranges = log.ranges(&known.record.branch, None).await.unwrap();
        stored.extend(ranges.iter().map(|stored| stored.name.range));
    }
    for record in log.records().await.unwrap() {
        begins.push(record.from);
    }
    let wanted = LogRange {
        from: Position(SEGMENT),
        to: Position(slot),
    };
    for gap in missing(wanted, &stretches(&stored)) {
        let declared = begins.iter().any(|from| gap.to <= *from);
        assert!(
            declared,
            "{what}: the slot stands at {slot}, and nothing says that {gap:?} is lost"
        );
    }
}

/// Verification takes what an attachment declared for no damage, and says that it is a gap.
async fn assert_declared(shelf: &Shelf, what: &str) {
    let job = VerifyJob {
        repository: shelf.open().await,
        services: vec![],
        depth: Depth::Structure,
        formats: vec![],
        identities: vec![],
        recording: Recording::Skipped,
    };
    let verified = job.run().await.unwrap();
    assert_eq!(verified.findings, vec![], "{what}");
    assert!(!verified.holes.is_empty(), "{what}");
    let declared = verified.holes.iter().all(|hole| hole.kind == HoleKind::Declared);
    assert!(declared, "{what}: {:?}", verified.holes);
}

async fn sweep(timeline: u32) -> u64 {
    let shelf = shelf().await;
    let counting = CrashPlan::never();
    let whole = shelf.copy();
    let store = CrashStore::new(Arc::new(whole.memory.clone()), counting.clone());
    let at_once = server(timeline);
    stream(whole.open_with(Arc::new(store), key(7)).await.unwrap(), &at_once).await;
    assert_eq!(at_once.slot(), END, "{:?}", at_once.asked);
    for call in 1..=counting.count() {
        for mode in [CrashMode::Before, CrashMode::AfterWithoutAnswer] {
            let copy = shelf.copy();
            let server = server(timeline);
            let store = CrashStore::new(Arc::new(copy.memory.clone()), CrashPlan::at(call, mode));
            if let Ok(repository) = copy.open_with(Arc::new(store), key(7)).await {
                stream(repository, &server).await;
            }
            let what = format!("timeline {timeline}, died at {call}, {mode:?}");
            assert_told_the_truth(&copy, &server, &what).await;
            stream(copy.open().await, &server).await;
            assert_eq!(server.slot(), END, "{what}");
            assert_told_the_truth(&copy, &server, &what).await;
            assert_declared(&copy, &what).await;
        }
    }
    counting.count()
}

#[tokio::test]
async fn a_death_while_attaching_after_a_gap_loses_nothing_silently() {
    let calls = sweep(1).await;
    assert!(calls > 20, "{calls}");
}

#[tokio::test]
async fn the_same_when_the_server_was_promoted_meanwhile_and_its_log_goes_to_its_own_timeline() {
    let calls = sweep(2).await;
    assert!(calls > 20, "{calls}");
    let shelf = shelf().await;
    stream(shelf.open().await, &server(2)).await;
    let log = LogStore::new(&shelf.open().await, EngineKind::Postgres, &name());
    let known = log.known().await.unwrap();
    let timelines: Vec<u32> = known.iter().map(|known| known.record.branch.timeline).collect();
    assert_eq!(timelines, [1, 2]);
    let parent = known[1].record.parent.unwrap();
    assert_eq!((parent.branch, parent.fork), (branch(1, 1), Position(FORK)));
    let wanted = LogRange {
        from: Position(6 * SEGMENT),
        to: Position(END),
    };
    let bytes = log.read(&known[1].record.branch, wanted).await.unwrap();
    assert!(bytes == log_bytes(2, wanted.from.0, wanted.to.0));
}

#[tokio::test]
async fn behind_a_gap_a_writer_whose_clock_is_an_hour_behind_is_gone_on_after() {
    let shelf = shelf().await;
    shelf.clock.step_wall(SignedDuration::from_hours(-1));
    let server = server(1);
    stream(shelf.open().await, &server).await;
    assert_eq!(server.slot(), END);
    let log = LogStore::new(&shelf.open().await, EngineKind::Postgres, &name());
    let known = log.known().await.unwrap();
    assert_eq!((known.len(), known[0].frontier), (1, Some(Position(END))));
    // No second gap is told, and nothing is stored twice.
    let before = server.asked().len();
    stream(shelf.open().await, &server).await;
    let asked = server.asked().split_off(before);
    let [Resume::After { position, .. }] = asked[..] else {
        panic!("{asked:?}")
    };
    assert_eq!(position, Position(END));
}
