//! Another repository, or an empty place, where that of a running job was.
//!
//! Promise: nothing more is confirmed than what was before the job asked again, nothing is written into what is there, and the
//! job ends with a refusal that says so. Time is simulated.
//! Not here: opening a repository that is not what it says (backstay's own tests).

use crate::fake::{FakeServer, SEGMENT, follow};
use crate::shelf::{Shelf, log_bytes, name};
use backstay_engine::{EngineError, ErrorKind};
use backstay_repository::{LogStore, RepositoryError};
use backstay_scenarios::Running;
use backstay_source::SourceErrorKind;
use backstay_store::Key;
use backstay_terms::{EngineKind, LogRange, Position};
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const BEFORE: u64 = 2 * SEGMENT + 1000;
const AFTER: u64 = 3 * SEGMENT + 77;

struct Scene {
    shelf: Shelf,
    server: Arc<FakeServer>,
    running: Running,
}

impl Scene {
    async fn new() -> Scene {
        let shelf = Shelf::with_segment(SEGMENT).await;
        let server = Arc::new(FakeServer::new(BEFORE));
        let running = follow(&server, &shelf.open().await);
        let scene = Scene {
            shelf,
            server,
            running,
        };
        scene.until(|_| scene.server.slot() == BEFORE).await;
        scene
    }

    async fn until(&self, holds: impl Fn(&Running) -> bool) {
        let clock = &self.shelf.clock;
        self.running.until_while(|| clock.advance(SECOND), holds).await;
    }

    fn change_identity(&self, change: impl Fn(&mut Vec<u8>)) {
        let [info] = &self.shelf.names("repository.json")[..] else {
            panic!("there is one")
        };
        self.shelf.change(info, change);
    }

    /// `repository.json` names another repository now, in the same format.
    fn change_the_id(&self) {
        self.change_identity(|body| {
            let mut info: serde_json::Value = serde_json::from_slice(body).unwrap();
            info["repository"] = "0123456789abcdef0123456789abcdef".into();
            *body = serde_json::to_vec(&info).unwrap();
        });
    }
}

fn assert_refused(ended: Result<(), EngineError>, said: &str) {
    let error = ended.unwrap_err();
    assert!(
        matches!(error, EngineError::Repository(RepositoryError::Replaced { .. })),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().ends_with(said), "{error}");
    assert!(error.advice().starts_with("remove nothing"), "{}", error.advice());
}

#[tokio::test]
async fn a_stream_confirms_nothing_into_a_repository_that_became_another_and_goes_on_when_it_is_back() {
    let scene = Scene::new().await;
    let own = scene.shelf.memory.snapshot();
    scene.shelf.clock.advance(61 * SECOND);
    scene.change_the_id();
    scene.server.grow(AFTER);
    scene.until(Running::is_over).await;
    assert_eq!(scene.server.slot(), BEFORE, "nothing more is confirmed");
    let said = "repository.json says that this is repository 0123456789abcdef0123456789abcdef";
    assert_refused(scene.running.ended().await, said);

    let shelf = scene.shelf.over(own);
    let server = scene.server;
    let running = follow(&server, &shelf.open().await);
    let again = Scene {
        shelf,
        server,
        running,
    };
    again.until(|_| again.server.slot() == AFTER).await;
    again.running.stop().await.unwrap();
    let log = LogStore::new(&again.shelf.open().await, EngineKind::Postgres, &name());
    let whole = LogRange {
        from: Position(SEGMENT),
        to: Position(AFTER),
    };
    let branch = log.known().await.unwrap()[0].record.branch;
    assert!(log.read(&branch, whole).await.unwrap() == log_bytes(1, SEGMENT, AFTER));
}

#[tokio::test]
async fn a_stream_does_not_begin_to_fill_a_place_that_was_emptied_under_it() {
    for at_once in [false, true] {
        let scene = Scene::new().await;
        scene.shelf.remove("").await;
        if at_once {
            // An attachment that begins anew does not wait for the minute.
            scene.server.grow(AFTER);
            scene.server.hang_up(SourceErrorKind::Unreachable);
        } else {
            scene.shelf.clock.advance(61 * SECOND);
            scene.server.grow(AFTER);
        }
        scene.until(Running::is_over).await;
        let confirmed = scene.server.slot();
        assert_eq!(confirmed, BEFORE, "at once: {at_once}");
        let wrote = scene.shelf.names("");
        let is_log = |key: &Key| key.as_str().contains("wal-archive/");
        assert!(wrote.iter().all(is_log), "no record, no key: {wrote:?}");
        assert_refused(scene.running.ended().await, "repository.json is gone");
    }
}

#[tokio::test]
async fn a_stream_that_is_stopped_over_another_repository_does_not_say_that_everything_is_stored() {
    let scene = Scene::new().await;
    scene.change_the_id();
    assert_refused(scene.running.stop().await, "0123456789abcdef0123456789abcdef");
    assert_eq!(scene.server.slot(), BEFORE);
}

#[tokio::test]
async fn a_stream_ends_where_nothing_says_any_more_which_repository_it_is() {
    let scene = Scene::new().await;
    scene.change_identity(|body| body.truncate(20));
    let said = "does not say which repository this is: EOF while parsing a string at line 1 column 20";
    assert_refused(scene.running.stop().await, said);
    assert_eq!(scene.server.slot(), BEFORE);
}
