//! A process dies at every store call of the engine's jobs, in every way; what it leaves is sound, and the next run converges.
//!
//! The jobs are the program's own, against a PostgreSQL 15 that was recorded on the wire at the start of the test run and is
//! played back in every cell (wire). What the server is told is read off the wire too, so LOG-1 is judged by the status
//! messages that a real server would have acted on.
//! Promise: invariants are checked by id over the surviving objects alone; the sweep finds planted bugs; the number of cells
//! is printed, and has a lower bound. Not here: the repository's own calls one by one (its crash tests), a live server
//! (crashes), and deaths at calls of a backup's scratch files: the next run never reads what a dead process left there, so
//! such a death leaves the same objects as one at the next store call; scratch that fails is tested in `scratch`.

mod conversation;
mod invariants;
mod process;
mod restore;
mod sweep;
mod wire;
mod wrong;

use backstay_engine::jobs::restore::LogWish;
use backstay_repository::layout::Level;
use backstay_repository::{BaseReader, LogStore};
use backstay_store::faults::CrashPlan;
use backstay_store::{Key, Store};
use backstay_terms::EngineKind;
use conversation::{Act, Conversation};
use invariants::{Content, Examiner, Removal, unsettled};
use process::{Ledger, Process, Scene, Verb, name};
use restore::{Restores, Target, rows_before_the_last_transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use sweep::{SWEEPS, Stage};
use tokio::sync::OnceCell;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The recording, and the scenes that undisturbed processes left one after another.
struct Cast {
    conversation: Conversation,
    content: Content,
    made: Scene,
    backed_up: Scene,
    streamed: Scene,
    followed: Scene,
    /// Everything durable in live ranges alone: the stream was killed at the end of the log.
    live: Scene,
    /// Old enough for expiry, with a young backup beside the old one.
    aged: Scene,
}

static CAST: OnceCell<Cast> = OnceCell::const_new();

async fn cast() -> &'static Cast {
    CAST.get_or_init(prepare).await
}

async fn prepare() -> Cast {
    let conversation = Conversation::record().await;
    let told = Ledger::default();
    let then = async |scene: &Scene, verb: Verb| {
        let scene = scene.copy();
        run(&conversation, &scene, &told, verb).await;
        scene.clock.advance(Duration::from_secs(60));
        scene
    };
    let made = then(&Scene::empty(), Verb::Init).await;
    let backed_up = then(&made, Verb::Backup).await;
    let streamed = then(&backed_up, Verb::Stream).await;
    let followed = then(&streamed, Verb::FollowPromotion).await;
    let live = then(&backed_up, Verb::StreamKilled).await;
    let old = followed.copy();
    old.clock.advance(DAY * 100);
    let aged = then(&old, Verb::Backup).await;
    aged.clock.advance(DAY * 15);
    let content = content_of(&backed_up).await;
    Cast {
        content,
        conversation,
        made,
        backed_up,
        streamed,
        followed,
        live,
        aged,
    }
}

/// Runs a verb that nothing disturbs.
async fn run(conversation: &Conversation, scene: &Scene, ledger: &Ledger, verb: Verb) {
    let process = Process {
        conversation,
        scene,
        ledger,
        plan: CrashPlan::never(),
    };
    process.run(verb).await.unwrap();
}

async fn content_of(scene: &Scene) -> Content {
    let repository = scene.open(&[7]).await.unwrap();
    let heads = repository.heads(EngineKind::Postgres, &name()).await.unwrap();
    let base = BaseReader::open(&repository, &heads[0].place()).await.unwrap();
    invariants::content(&base).await.unwrap()
}

impl Cast {
    fn stage<'a>(&'a self, scene: &'a Scene, verb: Verb) -> Stage<'a> {
        Stage {
            conversation: &self.conversation,
            content: &self.content,
            scene,
            verb,
        }
    }
}

#[tokio::test]
async fn making_a_repository_survives_a_death_at_any_call() {
    let nothing = Scene::empty();
    let stage = cast().await.stage(&nothing, Verb::Init);
    stage.sweep().await.none_broken("init");
}

#[tokio::test]
async fn a_key_rotation_survives_a_death_at_any_call() {
    let cast = cast().await;
    let stage = cast.stage(&cast.followed, Verb::Rotate);
    stage.sweep().await.none_broken("key rotation");
}

#[tokio::test]
async fn a_backup_survives_a_death_at_any_call() {
    let cast = cast().await;
    let stage = cast.stage(&cast.made, Verb::Backup);
    stage.sweep().await.none_broken("backup");
}

#[tokio::test]
async fn a_stream_survives_a_death_at_any_call() {
    let cast = cast().await;
    let stage = cast.stage(&cast.backed_up, Verb::Stream);
    stage.sweep().await.none_broken("stream");
}

#[tokio::test]
async fn a_stream_survives_two_deaths_in_a_row() {
    const SEED: u64 = 15;
    let cast = cast().await;
    let stage = cast.stage(&cast.backed_up, Verb::Stream);
    let report = stage.sweep_twice(300, SEED).await;
    report.none_broken("stream, two deaths by chance (seed 15)");
}

#[tokio::test]
async fn a_stream_over_a_promotion_survives_a_death_at_any_call() {
    let cast = cast().await;
    let stage = cast.stage(&cast.streamed, Verb::FollowPromotion);
    stage.sweep().await.none_broken("stream over a promotion");
}

#[tokio::test]
async fn a_stream_over_a_promotion_survives_two_deaths_in_a_row() {
    const SEED: u64 = 16;
    let cast = cast().await;
    let stage = cast.stage(&cast.streamed, Verb::FollowPromotion);
    let report = stage.sweep_twice(300, SEED).await;
    report.none_broken("stream over a promotion, two deaths by chance (seed 16)");
}

#[tokio::test]
async fn settling_what_a_killed_stream_left_survives_a_death_at_any_call() {
    let cast = cast().await;
    let stage = cast.stage(&cast.live, Verb::Settle);
    stage.sweep().await.none_broken("settle");
}

/// What a stream left that was killed at the end of the log, forty days later; with what the server was told.
async fn forty_days_later(cast: &Cast) -> (Scene, Ledger) {
    let (scene, ledger) = (cast.backed_up.copy(), Ledger::default());
    run(&cast.conversation, &scene, &ledger, Verb::StreamKilled).await;
    let end = cast.conversation.end(Act::Primary).0;
    assert_eq!(ledger.reported.read(), BTreeMap::from([(1, end)]));
    scene.clock.advance(DAY * 40);
    (scene, ledger)
}

async fn broken(cast: &Cast, scene: &Scene, ledger: &Ledger) -> Vec<String> {
    let examiner = Examiner {
        conversation: &cast.conversation,
        content: &cast.content,
        ledger,
    };
    examiner.broken(scene, Removal::Forbidden).await
}

#[tokio::test]
async fn a_writer_that_was_down_for_forty_days_is_settled_without_its_source_and_loses_nothing() {
    let cast = cast().await;
    let (scene, ledger) = forty_days_later(cast).await;
    let live: Vec<Key> = scene.names("/live/");
    assert!(!live.is_empty());
    run(&cast.conversation, &scene, &ledger, Verb::Settle).await;
    // Day 91: the bucket's rule has removed the live level.
    scene.clock.advance(DAY * 51);
    for key in live {
        scene.memory.delete(&key).await.unwrap();
    }
    assert_eq!(broken(cast, &scene, &ledger).await, [""; 0]);
    let end = cast.conversation.end(Act::Primary);
    assert_eq!(unsettled(&scene, &[7], Some(end)).await, [""; 0]);
}

#[tokio::test]
async fn a_writer_that_was_down_for_forty_days_goes_on_with_its_source_in_the_same_lineage() {
    let cast = cast().await;
    let (scene, ledger) = forty_days_later(cast).await;
    run(&cast.conversation, &scene, &ledger, Verb::Stream).await;
    assert_eq!(broken(cast, &scene, &ledger).await, [""; 0]);
    run(&cast.conversation, &scene, &ledger, Verb::FollowPromotion).await;
    assert_eq!(broken(cast, &scene, &ledger).await, [""; 0]);
    let repository = scene.open(&[7]).await.unwrap();
    let log = LogStore::new(&repository, EngineKind::Postgres, &name());
    let timelines: Vec<u32> = log
        .known()
        .await
        .unwrap()
        .iter()
        .map(|known| known.record.branch.timeline)
        .collect();
    assert_eq!(timelines, [1, 2], "one lineage of each timeline");
    assert_eq!(unsettled(&scene, &[7], None).await, [""; 0]);
}

#[tokio::test]
async fn a_time_in_the_last_hour_before_a_crash_is_restored_from_settled_and_live_ranges_at_once() {
    let cast = cast().await;
    let (levels, rows) = rows_before_the_last_transaction(&cast.live).await;
    assert_eq!(levels, BTreeSet::from([Level::Live, Level::Settled]));
    assert_eq!(
        rows,
        conversation::ROWS_OF_PRIMARY - conversation::ROWS_OF_TRANSACTION
    );
}

#[tokio::test]
async fn expiry_survives_a_death_at_any_call() {
    let cast = cast().await;
    let stage = cast.stage(&cast.aged, Verb::Expire);
    stage.sweep().await.none_broken("expire");
}

#[tokio::test]
async fn a_restore_survives_a_death_at_any_call_and_never_leaves_what_starts_by_accident() {
    const SEED: u64 = 17;
    let cast = cast().await;
    let restores = Restores::of(&cast.followed, LogWish::WhereItFits).await;
    let report = restores.sweep(SEED, Target::Right).await;
    report.none_broken("restore, calls of the target by chance (seed 17)");
}

#[tokio::test]
async fn a_restore_with_fetched_log_survives_a_death_before_it_touches_anything() {
    let cast = cast().await;
    let restores = Restores::of(&cast.followed, LogWish::Fetch).await;
    let report = restores.sweep_up_to_begin().await;
    report.none_broken("restore with fetched log, up to its first file");
}

#[test]
fn the_sweeps_are_fifteen_hundred_cells_at_least() {
    // Each sweep asserts its own least number.
    let least: usize = SWEEPS.iter().map(|(_, least)| least).sum();
    assert!(least >= 1_500, "{least} cells");
}

#[tokio::test]
async fn the_sweep_finds_a_source_that_is_confirmed_early() {
    let cast = cast().await;
    let stage = cast.stage(&cast.backed_up, Verb::StreamConfirmedEarly);
    let report = stage.sweep().await;
    assert!(report.finds("LOG-1"), "{:?}", report.broken);
}

#[tokio::test]
async fn the_sweep_finds_a_restore_that_gives_pg_control_its_name_first() {
    let cast = cast().await;
    let restores = Restores::of(&cast.followed, LogWish::WhereItFits).await;
    let report = restores.sweep_after_control(Target::ControlFirst).await;
    assert!(report.finds("STARTABLE"), "{:?}", report.broken);
}
