//! What ends a stream and what it lives with, by the kind of the source's error.
//!
//! Promise: every kind is in the table. Time is simulated.
//! Not here: which error of a server is of which kind (backstay-postgres), errors of the store (full, outage).

use crate::fake::{FakeServer, SEGMENT, follow};
use crate::shelf::{SYSTEM, Shelf, name};
use backstay_engine::Fact;
use backstay_repository::LogStore;
use backstay_scenarios::Running;
use backstay_source::{Resume, SourceErrorKind};
use backstay_terms::{EngineKind, Position};
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const END: u64 = 2 * SEGMENT + 1000;
/// A stream that asked so often will ask for ever.
const FOR_EVER: usize = 40;

struct Scene {
    shelf: Shelf,
    server: Arc<FakeServer>,
    running: Running,
}

impl Scene {
    async fn begin(refusals: impl IntoIterator<Item = SourceErrorKind>) -> Scene {
        let shelf = Shelf::with_segment(SEGMENT).await;
        let server = Arc::new(FakeServer::new(END));
        server.refusals.lock().unwrap().extend(refusals);
        let running = follow(&server, &shelf.open().await);
        Scene {
            shelf,
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

    /// The connection breaks, and these are the answers to the next attempts.
    fn break_with(&self, refusals: impl IntoIterator<Item = SourceErrorKind>) {
        self.server.refusals.lock().unwrap().extend(refusals);
        self.server.hang_up(SourceErrorKind::Unreachable);
    }

    /// How often the stream asks before it ends.
    async fn asks(self) -> String {
        let before = self.server.asked().len();
        let asked = || self.server.asked().len() - before;
        self.until(|running| running.is_over() || asked() >= FOR_EVER)
            .await;
        match asked() {
            FOR_EVER.. => "asks for ever".to_owned(),
            times => {
                let error = self.running.ended().await.unwrap_err();
                format!("ends after {times}: {:?}", error.kind())
            }
        }
    }
}

const KINDS: [SourceErrorKind; 11] = [
    SourceErrorKind::Unreachable,
    SourceErrorKind::Unauthenticated,
    SourceErrorKind::Refused,
    SourceErrorKind::Conflict,
    SourceErrorKind::LogGone,
    SourceErrorKind::LogBehind,
    SourceErrorKind::OtherSystem,
    SourceErrorKind::Damaged,
    SourceErrorKind::TargetRefused,
    SourceErrorKind::Local,
    SourceErrorKind::Protocol,
];

#[tokio::test]
async fn what_ends_a_stream_that_starts_and_one_that_lost_its_connection() {
    let mut table = String::new();
    for kind in KINDS {
        let always = || std::iter::repeat_n(kind, 2 * FOR_EVER);
        let starting = Scene::begin(always()).await.asks().await;
        let scene = Scene::begin([]).await;
        scene.until_stored(END).await;
        scene.break_with(always());
        table += &format!("{kind:?}: {starting} | {}\n", scene.asks().await);
    }
    let expected = "\
Unreachable: asks for ever | asks for ever
Unauthenticated: ends after 1: NotAuthorised | ends after 1: NotAuthorised
Refused: ends after 1: Refused | ends after 1: Refused
Conflict: ends after 6: Conflict | ends after 16: Conflict
LogGone: ends after 3: Refused | ends after 3: Refused
LogBehind: ends after 1: Refused | ends after 1: Refused
OtherSystem: ends after 1: Refused | ends after 1: Refused
Damaged: ends after 1: Integrity | ends after 1: Integrity
TargetRefused: ends after 1: Refused | ends after 1: Refused
Local: ends after 1: Other | ends after 1: Other
Protocol: ends after 1: Other | ends after 1: Other
";
    assert_eq!(table, expected);
}

#[tokio::test]
async fn other_failures_before_it_leave_a_conflict_its_patience() {
    let scene = Scene::begin([]).await;
    scene.until_stored(END).await;
    let away = std::iter::repeat_n(SourceErrorKind::Unreachable, 20);
    scene.break_with(away.chain([SourceErrorKind::Conflict; 15]));
    scene
        .until(|_| scene.server.asked().len() == 1 + 20 + 15 + 1)
        .await;
    scene.server.grow(END + 1);
    scene.until_stored(END + 1).await;
    scene.running.stop().await.unwrap();
}

#[tokio::test]
async fn after_a_gap_the_next_attachment_goes_on_at_what_was_stored_since() {
    let scene = Scene::begin([]).await;
    scene.until_stored(END).await;
    // Neither what comes next nor what the slot names is there any more.
    scene.break_with([SourceErrorKind::LogGone, SourceErrorKind::LogGone]);
    scene.server.grow(5 * SEGMENT + 10);
    scene.until_stored(5 * SEGMENT + 10).await;
    scene.server.grow(5 * SEGMENT + 20);
    scene.until_stored(5 * SEGMENT + 20).await;
    let gaps = |scene: &Scene| {
        let facts = scene.running.facts().into_iter();
        facts.filter(|fact| matches!(fact, Fact::LogGap { .. })).count()
    };
    assert_eq!(gaps(&scene), 1);
    // What is written while the connection is broken must not be skipped.
    scene.break_with([]);
    scene.server.grow(7 * SEGMENT);
    scene.until_stored(7 * SEGMENT).await;
    let last = scene.server.asked().last().copied();
    let position = Position(5 * SEGMENT + 20);
    assert!(
        matches!(last, Some(Resume::After { position: at, .. }) if at == position),
        "{last:?}"
    );
    assert_eq!(gaps(&scene), 1);
    scene.running.stop().await.unwrap();
}

#[tokio::test]
async fn another_system_at_the_same_address_begins_a_log_of_its_own() {
    let scene = Scene::begin([]).await;
    scene.until_stored(END).await;
    *scene.server.system.lock().unwrap() = SYSTEM + 1;
    scene.break_with([]);
    scene.server.grow(END + 10);
    scene.until_stored(END + 10).await;
    scene.running.stop().await.unwrap();
    let log = LogStore::new(&scene.shelf.open().await, EngineKind::Postgres, &name());
    let known = log.known().await.unwrap();
    let stored: Vec<_> = known
        .iter()
        .map(|known| (known.record.branch.system, known.frontier))
        .collect();
    let expected = [
        (SYSTEM, Some(Position(END))),
        (SYSTEM + 1, Some(Position(END + 10))),
    ];
    assert_eq!(stored, expected);
}
