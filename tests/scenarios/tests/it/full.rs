//! Stores that take nothing more for a while: full, over a quota, read-only, without the right to write, or without an answer.
//!
//! Promise: a stream that runs outlasts them by itself; nothing was confirmed that was not stored, and in the end everything
//! is; a stream that starts says at once what is in its way. Time is simulated.
//! Not here: stores that cannot be reached, and real servers (outage).

use crate::fake::{FakeServer, SEGMENT, follow};
use crate::shelf::{Shelf, key, log_bytes, name, range_of};
use backstay_clock::Clock;
use backstay_engine::{EngineError, ErrorKind, Fact};
use backstay_repository::{LogStore, RepositoryError, Retry, missing, stretches};
use backstay_scenarios::Running;
use backstay_source::SourceErrorKind;
use backstay_store::faults::{Fault, FaultKind, FaultyStore, When};
use backstay_store::{MemoryStore, Operation};
use backstay_terms::{EngineKind, LogRange, Position};
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// Where the log ends before the store is full, and after.
const BEFORE: u64 = 2 * SEGMENT + 1000;
const AFTER: u64 = 5 * SEGMENT + 77;

struct Scene {
    shelf: Shelf,
    store: Arc<FaultyStore>,
    server: Arc<FakeServer>,
    running: Running,
}

impl Scene {
    /// A stream that has stored everything up to `BEFORE`.
    async fn new() -> Scene {
        let scene = Scene::begin(|_| {}).await;
        scene.until_stored(BEFORE).await;
        scene
    }

    /// A stream that begins on a store with these faults.
    async fn begin(faults: impl Fn(&FaultyStore)) -> Scene {
        let shelf = Shelf::with_segment(SEGMENT).await;
        let store = Arc::new(FaultyStore::new(Arc::new(shelf.memory.clone())));
        let repository = shelf.open_with(store.clone(), key(7)).await.unwrap();
        faults(&store);
        let memory = shelf.memory.clone();
        let mut server = FakeServer::new(BEFORE);
        server.witness = Box::new(move |position| assert_stored(&memory, position));
        let server = Arc::new(server);
        let running = follow(&server, &repository);
        Scene {
            shelf,
            store,
            server,
            running,
        }
    }

    async fn until(&self, holds: impl Fn(&Running) -> bool) {
        let clock = &self.shelf.clock;
        self.running.until_while(|| clock.advance(SECOND), holds).await;
    }

    async fn until_stored(&self, end: u64) {
        self.until(|_| self.server.slot() == end).await;
    }

    fn outages(&self) -> Vec<Fact> {
        outages(&self.running)
    }

    /// Stops the stream, and reads everything back from a fresh process.
    async fn assert_whole(self, end: u64) {
        self.running.stop().await.unwrap();
        let log = LogStore::new(&self.shelf.open().await, EngineKind::Postgres, &name());
        let known = log.known().await.unwrap();
        assert_eq!(known.len(), 1, "one lineage");
        let wanted = LogRange {
            from: Position(SEGMENT),
            to: Position(end),
        };
        let bytes = log.read(&known[0].record.branch, wanted).await.unwrap();
        assert!(bytes == log_bytes(1, SEGMENT, end));
    }
}

fn outages(running: &Running) -> Vec<Fact> {
    let facts = running.facts().into_iter();
    facts.filter(|fact| matches!(fact, Fact::Outage { .. })).collect()
}

/// Every byte before a position that is confirmed has a name in the store.
fn assert_stored(memory: &MemoryStore, position: u64) {
    let image = memory.snapshot();
    let ranges: Vec<LogRange> = image
        .objects()
        .filter_map(|(key, _)| range_of(key.as_str()))
        .collect();
    let wanted = LogRange {
        from: Position(SEGMENT),
        to: Position(position),
    };
    assert_eq!(
        missing(wanted, &stretches(&ranges)),
        [],
        "confirmed up to {position}"
    );
}

#[tokio::test]
async fn a_stream_outlasts_a_store_that_takes_nothing_and_goes_on_by_itself() {
    for kind in [
        FaultKind::NoSpace,
        FaultKind::ReadOnly,
        FaultKind::PermissionDenied,
    ] {
        let scene = Scene::new().await;
        let names = scene.shelf.names("").len();
        scene.store.add(When::Every(Operation::Put), Fault::Refuse(kind));
        scene.server.grow(AFTER);
        scene.until(|running| outages(running).len() == 3).await;
        assert_eq!(scene.server.slot(), BEFORE, "{kind:?}: the server keeps the rest");
        assert_eq!(scene.shelf.names("").len(), names);
        let Fact::Outage {
            error,
            advice,
            lasts_ms,
            stored,
            ..
        } = &scene.outages()[2]
        else {
            panic!("chosen above")
        };
        let expected = kind.error(backstay_store::Call::on_store(Operation::Put));
        assert_eq!(
            (advice.as_str(), expected.retry()),
            (expected.advice(), Retry::AfterHelp)
        );
        assert!(error.starts_with("cannot put "), "{error}");
        // After one minute, and then every five.
        assert!((11 * 60_000..13 * 60_000).contains(lasts_ms), "{lasts_ms}");
        assert!(stored.is_some(), "log was stored before");
        scene.store.heal();
        scene.until_stored(AFTER).await;
        let over = |fact: &Fact| matches!(fact, Fact::OutageOver { .. });
        let times = scene.running.facts().into_iter().filter(over).count();
        assert_eq!(times, 1, "that it works again is said once");
        scene.assert_whole(AFTER).await;
    }
}

#[tokio::test]
async fn wherever_the_space_runs_out_and_comes_back_nothing_is_lost() {
    let mut met = 0;
    for first in 1..=12 {
        let scene = Scene::new().await;
        let puts = scene.store.calls_of(Operation::Put);
        for nth in puts + first..puts + first + 3 {
            scene
                .store
                .add(When::Nth(Operation::Put, nth), Fault::Refuse(FaultKind::NoSpace));
        }
        for end in (BEFORE..AFTER).step_by(20_000).chain([AFTER]) {
            scene.server.grow(end);
            scene.until_stored(end).await;
        }
        met += 3 - scene.store.unused().len();
        scene.store.heal();
        scene.assert_whole(AFTER).await;
    }
    assert!(met > 24, "{met} puts were refused");
}

#[tokio::test]
async fn a_store_with_room_for_small_objects_alone_is_not_filled_with_them() {
    let scene = Scene::new().await;
    let attachments = || scene.shelf.names("/lineage/").len();
    let before = attachments();
    // What is left of the attachment before can be settled; what comes then finds no place.
    scene.store.add(
        When::Named(Operation::Put, "/live/"),
        Fault::Refuse(FaultKind::NoSpace),
    );
    scene.server.grow(BEFORE + 500);
    scene.until(|running| outages(running).len() == 2).await;
    let more = attachments() - before;
    assert!((5..60).contains(&more), "{more} attachments in six minutes");
    scene.store.heal();
    scene.server.grow(AFTER);
    scene.until_stored(AFTER).await;
    scene.assert_whole(AFTER).await;
}

#[tokio::test]
async fn a_stream_that_starts_says_at_once_that_there_is_no_space() {
    let full =
        |store: &FaultyStore| store.add(When::Every(Operation::Put), Fault::Refuse(FaultKind::NoSpace));
    let scene = Scene::begin(full).await;
    let error = scene.running.ended().await.unwrap_err();
    assert!(error.waits_for_help(), "{error}");
    assert_eq!(scene.server.slot(), SEGMENT, "nothing was confirmed");
}

#[tokio::test]
async fn a_stream_that_is_stopped_while_the_store_is_full_does_not_say_that_everything_is_stored() {
    let scene = Scene::new().await;
    scene
        .store
        .add(When::Every(Operation::Put), Fault::Refuse(FaultKind::NoSpace));
    scene.server.grow(AFTER);
    scene
        .until(|running| {
            running
                .facts()
                .iter()
                .any(|fact| matches!(fact, Fact::Retrying { .. }))
        })
        .await;
    let error = scene.running.stop().await.unwrap_err();
    let no_space = matches!(
        error,
        EngineError::Repository(RepositoryError::Store(backstay_store::StoreError::NoSpace { .. }))
    );
    assert!(no_space, "{error}");
    assert_eq!(scene.server.slot(), BEFORE);
    scene.store.heal();
    let log = LogStore::new(&scene.shelf.open().await, EngineKind::Postgres, &name());
    let known = log.known().await.unwrap();
    assert_eq!(known[0].frontier, Some(Position(BEFORE)));
}

/// Everything before `BEFORE` is stored, what follows was received and is not.
fn unstored(running: &Running) -> Vec<(u64, u64)> {
    let unstored = |fact: &Fact| match fact {
        Fact::StoppedUnstored { stored, received, .. } => Some((stored.0, received.0)),
        _ => None,
    };
    running.facts().iter().filter_map(unstored).collect()
}

#[tokio::test]
async fn a_stream_over_a_store_that_does_not_answer_says_so_and_says_that_it_works_again() {
    let scene = Scene::new().await;
    scene.store.add(When::Every(Operation::Put), Fault::Hang);
    scene.server.grow(AFTER);
    let began = scene.shelf.clock.instant();
    scene.until(|running| outages(running).len() == 2).await;
    let took = scene.shelf.clock.instant() - began;
    // After a minute, and five later; the simulated clock goes on while a busy machine lets the look wait.
    assert!(took >= 6 * 60 * SECOND && took < 8 * 60 * SECOND, "{took:?}");
    assert_eq!(scene.server.slot(), BEFORE);
    // Its uploads hang for ever: the server ends the conversation.
    scene.store.heal();
    scene.server.hang_up(SourceErrorKind::Unreachable);
    scene.until_stored(AFTER).await;
    let over = |fact: &Fact| matches!(fact, Fact::OutageOver { .. });
    assert!(scene.running.facts().iter().any(over));
    scene.assert_whole(AFTER).await;
}

#[tokio::test]
async fn a_stream_that_is_stopped_over_a_store_that_does_not_answer_ends_within_half_a_minute() {
    let scene = Scene::new().await;
    let puts = scene.store.calls_of(Operation::Put);
    scene.store.add(When::Every(Operation::Put), Fault::Hang);
    scene.server.grow(AFTER);
    scene.until(|_| scene.store.calls_of(Operation::Put) > puts).await;
    let began = scene.shelf.clock.instant();
    scene.running.ask_to_stop();
    scene.until(Running::is_over).await;
    let took = scene.shelf.clock.instant() - began;
    assert!(took <= 30 * SECOND, "{took:?}");
    let told = unstored(&scene.running);
    assert!(
        matches!(told[..], [(BEFORE, received)] if BEFORE < received && received <= AFTER),
        "{told:?}"
    );
    let Scene {
        shelf,
        store,
        server,
        running,
    } = scene;
    let error = running.ended().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert_eq!(server.slot(), BEFORE, "the server keeps the rest");
    store.heal();
    let running = follow(&server, &shelf.open().await);
    let again = Scene {
        shelf,
        store,
        server,
        running,
    };
    again.until_stored(AFTER).await;
    again.assert_whole(AFTER).await;
}
