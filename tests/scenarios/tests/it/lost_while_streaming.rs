//! Log that goes from the store under a running stream.
//!
//! Promise: the stream says so within one settle interval, once for each loss, and says nothing of what merely moved.
//! Time is simulated. Not here: log that the server no longer has (gap).

use crate::fake::{FakeServer, SEGMENT, follow};
use crate::lost_end::verify;
use crate::shelf::{Shelf, log_bytes, name, range_of};
use backstay_clock::Clock;
use backstay_engine::Fact;
use backstay_engine::jobs::verify::Depth;
use backstay_repository::{KeysFate, KeysGone, LogStore, gaps, stretches};
use backstay_scenarios::Running;
use backstay_source::SourceErrorKind;
use backstay_terms::{EngineKind, LogRange, Position};
use std::sync::Arc;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

struct Scene {
    shelf: Shelf,
    server: Arc<FakeServer>,
    running: Running,
}

impl Scene {
    async fn new() -> Scene {
        let shelf = Shelf::with_segment(SEGMENT).await;
        let server = Arc::new(FakeServer::new(4 * SEGMENT + 5000));
        let scene = Scene::over(shelf, server).await;
        scene.until(|_| scene.server.slot() == 4 * SEGMENT + 5000).await;
        scene
    }

    /// A process that begins to stream.
    async fn over(shelf: Shelf, server: Arc<FakeServer>) -> Scene {
        let repository = shelf.open().await;
        let running = follow(&server, &repository);
        Scene {
            shelf,
            server,
            running,
        }
    }

    async fn until(&self, holds: impl Fn(&Running) -> bool) {
        let clock = &self.shelf.clock;
        self.running.until_while(|| clock.advance(MINUTE), holds).await;
    }

    /// Lets the log grow by one byte a minute.
    async fn pass(&self, minutes: u64) {
        for _ in 0..minutes {
            let end = self.server.slot() + 1;
            self.server.grow(end);
            self.until(|_| self.server.slot() == end).await;
        }
    }

    /// Breaks the connection, and waits for the next one.
    async fn hang_up(&self) {
        let before = self.server.asked().len();
        self.server.hang_up(SourceErrorKind::Unreachable);
        self.until(|_| self.server.asked().len() > before).await;
    }

    async fn assert_whole(self) {
        let end = self.server.slot();
        self.running.stop().await.unwrap();
        let log = LogStore::new(&self.shelf.open().await, EngineKind::Postgres, &name());
        let branch = log.known().await.unwrap()[0].record.branch;
        let whole = LogRange {
            from: Position(SEGMENT),
            to: Position(end),
        };
        let bytes = log.read(&branch, whole).await.unwrap();
        assert!(bytes == log_bytes(1, SEGMENT, end));
    }

    fn lost(&self) -> Vec<LogRange> {
        let lost = |fact: &Fact| match fact {
            Fact::LogLost { from, to, .. } => LogRange::new(*from, *to),
            _ => None,
        };
        self.running.facts().iter().filter_map(lost).collect()
    }

    fn keys_gone(&self) -> Vec<KeysGone> {
        let gone = |fact: &Fact| match fact {
            Fact::KeysGone(gone) => Some(gone.clone()),
            _ => None,
        };
        self.running.facts().iter().filter_map(gone).collect()
    }

    /// What `wal gaps` is made of.
    async fn gaps(&self) -> Vec<LogRange> {
        let log = LogStore::new(&self.shelf.open().await, EngineKind::Postgres, &name());
        let branch = log.known().await.unwrap()[0].record.branch;
        let ranges = log.ranges(&branch, None).await.unwrap();
        gaps(&stretches(ranges.iter().map(|stored| &stored.name.range)))
    }
}

/// A segment is one settled range.
fn segment(number: u64) -> LogRange {
    LogRange {
        from: Position(number * SEGMENT),
        to: Position((number + 1) * SEGMENT),
    }
}

fn settled(range: LogRange) -> String {
    format!("{}-{}", range.from, range.to)
}

#[tokio::test]
async fn log_that_is_lost_under_a_running_stream_is_told_within_the_hour_and_once() {
    let scene = Scene::new().await;
    scene.shelf.remove(&settled(segment(2))).await;
    scene
        .until(|running| {
            running
                .facts()
                .iter()
                .any(|fact| matches!(fact, Fact::LogLost { .. }))
        })
        .await;
    // The simulated clock goes on while a busy machine lets the look wait.
    assert!(scene.shelf.clock.instant() < 2 * 60 * MINUTE);
    assert_eq!(scene.lost(), [segment(2)]);
    assert_eq!(scene.gaps().await, [segment(2)]);
    // The first range and the last one are missed as well as one between.
    scene.shelf.remove(&settled(segment(1))).await;
    scene.until(|_| scene.lost().len() == 2).await;
    let both = LogRange {
        from: segment(1).from,
        to: segment(2).to,
    };
    assert_eq!(scene.lost(), [segment(2), both]);
    scene.pass(200).await;
    assert_eq!(scene.lost(), [segment(2), both], "each loss is told once");
    scene.running.stop().await.unwrap();
}

#[tokio::test]
async fn what_was_stored_last_is_missed_by_a_stream_that_runs() {
    let scene = Scene::new().await;
    // What is not settled yet would be stored again from memory.
    let settled = |fact: &Fact| matches!(fact, Fact::RangeStored { from, level: "settled", .. } if from.0 == 4 * SEGMENT);
    scene.until(|running| running.facts().iter().any(settled)).await;
    let last = scene.shelf.names(&format!("/{:016x}-", 4 * SEGMENT));
    for key in last {
        scene.shelf.remove(key.as_str()).await;
    }
    let end = LogRange {
        from: Position(4 * SEGMENT),
        to: Position(4 * SEGMENT + 5000),
    };
    scene.until(|_| !scene.lost().is_empty()).await;
    assert_eq!(scene.lost(), [end]);
    scene.running.stop().await.unwrap();
}

#[tokio::test]
async fn a_loss_is_found_by_a_stream_whose_attachments_never_last_an_hour() {
    let scene = Scene::new().await;
    scene.hang_up().await;
    scene.pass(5).await;
    scene.shelf.remove(&settled(segment(2))).await;
    for _ in 0..7 {
        scene.pass(10).await;
        scene.hang_up().await;
    }
    assert_eq!(scene.lost(), [segment(2)]);
    scene.running.stop().await.unwrap();
}

#[tokio::test]
async fn what_the_server_still_has_of_a_loss_is_stored_again_by_the_next_attachment() {
    let scene = Scene::new().await;
    scene.shelf.remove(&settled(segment(2))).await;
    scene.hang_up().await;
    let again = |fact: &&Fact| matches!(fact, Fact::RangeStored { from, level: "settled", .. } if *from == segment(2).from);
    scene
        .until(|running| running.facts().iter().filter(again).count() == 2)
        .await;
    scene.until(|_| scene.server.slot() == 4 * SEGMENT + 5000).await;
    assert_eq!(scene.gaps().await, []);
    scene.pass(100).await;
    assert_eq!(scene.lost(), []);
    scene.assert_whole().await;
}

#[tokio::test]
async fn a_stream_that_lost_nothing_says_nothing_also_while_its_live_ranges_go() {
    let scene = Scene::new().await;
    scene.pass(90).await;
    // What an expiry does with live ranges that are settled.
    let ranges = |level| scene.shelf.names(level).into_iter();
    let settled: Vec<LogRange> = ranges("/settled/")
        .filter_map(|key| range_of(key.as_str()))
        .collect();
    let settled = stretches(&settled);
    let covered = |range: LogRange| {
        settled
            .iter()
            .any(|held| held.from <= range.from && range.to <= held.to)
    };
    let mut gone = 0;
    for key in ranges("/live/").filter(|key| range_of(key.as_str()).is_some_and(covered)) {
        scene.shelf.remove(key.as_str()).await;
        gone += 1;
    }
    assert!(gone > 20, "{gone}");
    scene.pass(150).await;
    assert_eq!((scene.lost(), scene.gaps().await), (vec![], vec![]));
    scene.assert_whole().await;
}

#[tokio::test]
async fn keys_that_are_lost_under_a_running_stream_are_put_back_within_the_hour_and_open_everything() {
    let scene = Scene::new().await;
    scene.shelf.remove("/keys/orders/").await;
    scene.until(|_| !scene.keys_gone().is_empty()).await;
    // The simulated clock goes on while a busy machine lets the look wait.
    assert!(scene.shelf.clock.instant() < 2 * 60 * MINUTE);
    let gone = scene.keys_gone();
    assert_eq!(gone.len(), 1, "{gone:?}");
    assert_eq!(gone[0].fate, KeysFate::PutBack);
    assert!(gone[0].ranges >= 4, "{gone:?}");
    // A wrap that is there and opens no more is as good as none.
    let [wrap] = &scene.shelf.names("/keys/orders/")[..] else {
        panic!("one wrap for the one key")
    };
    scene.shelf.change(wrap, |bytes| {
        let field = b"\"wrap\":\"";
        let at = bytes.windows(field.len()).position(|word| word == field).unwrap();
        bytes[at + field.len() + 10] ^= 1;
    });
    scene.until(|_| scene.keys_gone().len() == 2).await;
    scene.pass(130).await;
    assert_eq!(scene.keys_gone().len(), 2, "what is back is not missed");
    scene.assert_whole().await;
}

#[tokio::test]
async fn keys_that_are_lost_just_before_a_stream_is_stopped_are_put_back_by_its_last_look() {
    let scene = Scene::new().await;
    scene.pass(3).await;
    scene.shelf.remove("/keys/orders/").await;
    assert_eq!(scene.keys_gone(), [], "the hour is not over");
    scene.assert_whole().await;
}

#[tokio::test]
async fn the_key_of_the_months_records_is_put_back_and_they_open() {
    let scene = Scene::new().await;
    scene.shelf.remove("facts/keys/").await;
    let told = |fact: &Fact| matches!(fact, Fact::MonthKeyGone { .. });
    scene.until(|running| running.facts().iter().any(told)).await;
    scene.pass(130).await;
    let times = scene.running.facts().into_iter().filter(told).count();
    assert_eq!(times, 1, "what is back is not missed");
    scene.assert_whole().await;
}

#[tokio::test]
async fn keys_that_were_lost_before_a_stream_attaches_are_a_loss_and_told_as_one() {
    let scene = Scene::new().await;
    scene.pass(90).await;
    let Scene {
        shelf,
        server,
        running,
    } = scene;
    running.stop().await.unwrap();
    let epochs = shelf.names("/keys/orders/");
    shelf.remove("/keys/orders/").await;
    let again = Scene::over(shelf, server).await;
    again.pass(130).await;
    let gone = again.keys_gone();
    assert_eq!(gone.len(), 1, "once for each attachment: {gone:?}");
    assert_eq!(gone[0].fate, KeysFate::Lost);
    assert!(epochs[0].as_str().contains(gone[0].epoch.as_str()));
    again.running.stop().await.unwrap();
}

#[tokio::test]
async fn a_clock_that_leaps_over_the_age_of_an_epoch_gives_the_stream_new_keys_and_ends_nothing() {
    let scene = Scene::new().await;
    scene.pass(3).await;
    let epochs = scene.shelf.names("/keys/orders/").len();
    scene
        .shelf
        .clock
        .step_wall(jiff::SignedDuration::from_hours(8 * 24));
    scene.pass(90).await;
    assert_eq!(scene.lost(), []);
    assert!(scene.shelf.names("/keys/orders/").len() > epochs);
    scene.assert_whole().await;
}

/// A stream is killed, and its newest range is cut to nothing; the next stream follows the same server.
async fn again_after_a_cut(end: u64) -> (Scene, LogRange) {
    let scene = Scene::new().await;
    scene.pass(3).await;
    let Scene { shelf, running, .. } = scene;
    running.kill().await;
    let ranges = shelf.names("/live/").into_iter();
    let ranges = ranges.filter_map(|key| Some((range_of(key.as_str())?, key)));
    let (newest, key) = ranges.filter(|(range, _)| !range.is_mark()).max().unwrap();
    shelf.change(&key, Vec::clear);
    let server = Arc::new(FakeServer::promoted(1, 0, newest.to.0, SEGMENT, end));
    (Scene::over(shelf, server).await, newest)
}

fn stored_again(running: &Running) -> Vec<LogRange> {
    let again = |fact: &Fact| match fact {
        Fact::LogStoredAgain { from, to, .. } => LogRange::new(*from, *to),
        _ => None,
    };
    running.facts().iter().filter_map(again).collect()
}

#[tokio::test]
async fn a_newest_range_that_was_cut_to_nothing_is_stored_again_and_no_loss() {
    let end = 4 * SEGMENT + 9000;
    let (scene, newest) = again_after_a_cut(end).await;
    scene.until(|_| scene.server.slot() == end).await;
    assert_eq!(stored_again(&scene.running), [newest]);
    assert_eq!(scene.lost(), []);
    assert_eq!(scene.gaps().await, []);
    let verified = verify(&scene.shelf, Depth::Everything).await;
    assert_eq!(verified.findings, vec![]);
    scene.pass(70).await;
    assert_eq!((stored_again(&scene.running).len(), scene.lost()), (1, vec![]));
    scene.assert_whole().await;
}
