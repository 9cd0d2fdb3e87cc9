//! What is lost at the end leaves no hole: the stored log merely ends earlier, and an older backup is the newest.
//!
//! Promise: each thing that still tells of more is tried alone; what may have expired is not missed. What a refusal advises
//! is restored from a real server.
//! Not here: holes (losses), heads that cannot be opened (unreadable).

use crate::copy;
use crate::fake::{self, FakeServer, FakeSource, WhenSent};
use crate::shelf::{DAY, SEGMENT, Shelf, Written, branch, name};
use crate::stream::end_of_log;
use backstay_clock::{SeededChance, SystemClock};
use backstay_engine::jobs::stream::{Cadence, StreamJob};
use backstay_engine::jobs::verify::{Depth, Recording, Verified, VerifyJob};
use backstay_engine::plan::{Catalog, Request, RestorePlan, latest_refused, lost_backups, plan};
use backstay_engine::{EngineError, ErrorKind, Fact, Silent};
use backstay_postgres::wal::PostgresLog;
use backstay_repository::{EndPoint, Head, RunFinished, RunResult};
use backstay_scenarios::{Running, World};
use backstay_store::{Key, MemoryStore, Prefix, Store, list_all};
use backstay_terms::{BackupId, EngineKind, Lsn, Position, RecoveryTarget, RetentionClass};
use backstay_testkit::pg::PgServer;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

pub const START: u64 = 5000;
pub const END: EndPoint = EndPoint {
    start: Position(START + 50),
    crc: 1,
};
pub const DEPTHS: [Depth; 3] = [Depth::Listed, Depth::Structure, Depth::Everything];

/// A backup, and the log of three segments.
pub async fn shelf() -> (Shelf, Head) {
    let shelf = Shelf::new().await;
    shelf.attach(branch(1, 1), 0, None, None).await;
    let head = taken(&shelf, START).await;
    shelf.log_ending(branch(1, 1), 0, SEGMENT, 1, END).await;
    shelf
        .log(branch(1, 1), &[SEGMENT, 2 * SEGMENT], 0, &[Written::Settled])
        .await;
    shelf
        .log(
            branch(1, 1),
            &[2 * SEGMENT, 3 * SEGMENT],
            SEGMENT,
            &[Written::Live, Written::Settled],
        )
        .await;
    shelf.clock.advance(Duration::from_secs(600));
    (shelf, head)
}

/// A backup with the record of its run.
pub async fn taken(shelf: &Shelf, start: u64) -> Head {
    let end = EndPoint {
        start: Position(start + 50),
        crc: END.crc,
    };
    let head = shelf
        .backup_ending(RetentionClass::Days35, start, Some(end))
        .await;
    let figures = json!({ "backup": head.backup, "class": head.class, "expires_at": head.expires_at });
    shelf.committed(&head, figures).await;
    shelf.clock.advance(Duration::from_secs(1));
    head
}

pub async fn catalog(shelf: &Shelf) -> Catalog {
    let repository = shelf.open().await;
    let read = Catalog::read(&repository, EngineKind::Postgres, &name(), None).await;
    read.unwrap()
}

pub async fn planned(
    shelf: &Shelf,
    target: RecoveryTarget,
    base: Option<BackupId>,
) -> Result<RestorePlan, EngineError> {
    let now = shelf.clock_at(0);
    let request = Request { target, base, now };
    plan(&catalog(shelf).await, &request, &PostgresLog).await
}

pub async fn verify(shelf: &Shelf, depth: Depth) -> Verified {
    let job = VerifyJob {
        identities: Vec::new(),
        repository: shelf.open().await,
        services: vec![],
        depth,
        formats: vec![],
        recording: Recording::Skipped,
    };
    job.run().await.unwrap()
}

/// `latest` and `status` say that log is lost, naming what tells of it, and verification finds it at every depth.
async fn assert_missed(shelf: &Shelf, by: &str) {
    let refused = planned(shelf, RecoveryTarget::Latest, None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Integrity, "{by}: {refused}");
    assert!(refused.to_string().contains(by), "{by}: {refused}");
    let catalog = catalog(shelf).await;
    let said = latest_refused(&catalog, shelf.clock_at(0))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(said.to_string(), refused.to_string());
    for depth in DEPTHS {
        let verified = verify(shelf, depth).await;
        assert!(!verified.findings.is_empty(), "{by}: {depth:?}");
    }
}

/// All copies of the last segment.
async fn lose_the_end(shelf: &Shelf) {
    shelf.remove(&format!("/{:016x}-", 2 * SEGMENT)).await;
}

pub async fn streamed(shelf: &Shelf, reach: u64) {
    let repository = shelf.open().await;
    let started = repository.run_started("stream", name().as_str()).await.unwrap();
    let record = RunFinished {
        started,
        finished: repository.now(),
        result: RunResult::Succeeded,
        error: None,
        figures: json!({ "stored": [{ "branch": branch(1, 1).to_string(), "reach": reach }] }),
    };
    repository.run_finished(&record).await.unwrap();
}

#[tokio::test]
async fn log_that_is_lost_at_its_end_is_missed_by_whatever_tells_of_it() {
    // A lineage record that says where a stream resumed.
    let (shelf, _) = shelf().await;
    let alone = shelf.copy();
    alone.resume(branch(1, 1), 2 * SEGMENT, 3 * SEGMENT).await;
    assert_eq!(verify(&alone, Depth::Structure).await.findings, vec![]);
    planned(&alone, RecoveryTarget::Latest, None).await.unwrap();
    lose_the_end(&alone).await;
    assert_missed(&alone, "the lineage record ").await;

    // A log index.
    let indexed = shelf.copy();
    indexed
        .log_indexed(branch(1, 1), &[3 * SEGMENT, 4 * SEGMENT], 2 * SEGMENT)
        .await;
    planned(&indexed, RecoveryTarget::Latest, None).await.unwrap();
    indexed.remove(&format!("/{:016x}-", 3 * SEGMENT)).await;
    assert_missed(&indexed, "the log index wal-archive/index/").await;

    // The record of a stream that ended.
    let ended = shelf.copy();
    streamed(&ended, 3 * SEGMENT).await;
    planned(&ended, RecoveryTarget::Latest, None).await.unwrap();
    lose_the_end(&ended).await;
    assert_missed(&ended, "the record of the run ").await;

    // Every range at once.
    ended.remove("/settled/").await;
    assert_missed(&ended, "the record of the run ").await;
}

#[tokio::test]
async fn log_of_which_nothing_is_left_is_missed_by_the_record_of_the_stream() {
    let (shelf, head) = shelf().await;
    streamed(&shelf, 3 * SEGMENT).await;
    shelf.remove("wal-archive/").await;
    assert_missed(&shelf, "streamed it from").await;
    let immediate = planned(&shelf, RecoveryTarget::Immediate, None).await.unwrap();
    assert_eq!(immediate.head.backup, head.backup);
    // A source that never streamed has nothing to miss.
    let never = Shelf::new().await;
    taken(&never, START).await;
    planned(&never, RecoveryTarget::Latest, None).await.unwrap();
    assert_eq!(verify(&never, Depth::Structure).await.findings, vec![]);
}

#[tokio::test]
async fn log_that_may_have_expired_is_not_missed() {
    let (shelf, _) = shelf().await;
    shelf.resume(branch(1, 1), 2 * SEGMENT, 3 * SEGMENT).await;
    streamed(&shelf, 3 * SEGMENT).await;
    lose_the_end(&shelf).await;
    shelf.clock.advance(DAY * 401);
    taken(&shelf, START).await;
    planned(&shelf, RecoveryTarget::Latest, None).await.unwrap();
}

#[tokio::test]
async fn a_lost_newest_backup_is_named_and_never_gone_back_behind_in_silence() {
    let (shelf, older) = shelf().await;
    let newest = taken(&shelf, START).await;
    let at = shelf.names(newest.backup.as_str());
    let head = at
        .iter()
        .find(|key| key.as_str().contains("/manifests/"))
        .unwrap();
    shelf.memory.delete(head).await.unwrap();
    let lost = lost_backups(&catalog(&shelf).await, shelf.clock_at(0))
        .await
        .unwrap();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!(lost[0].backup, newest.backup);

    for target in [RecoveryTarget::Immediate, RecoveryTarget::Latest] {
        let refused = planned(&shelf, target.clone(), None).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Integrity, "{target}: {refused}");
        assert!(refused.to_string().contains(newest.backup.as_str()), "{refused}");
        let advice = refused.advice();
        assert!(
            advice.contains(&format!("--base {} --to immediate", older.backup)),
            "{advice}"
        );
        let named = planned(&shelf, target, Some(older.backup.clone())).await.unwrap();
        assert_eq!(named.head.backup, older.backup);
    }
    // Log that goes on past it has everything that it had.
    let later = shelf.clock_at(60).as_microsecond() - 946_684_800_000_000;
    shelf.mark_at(branch(1, 1), 3 * SEGMENT, later).await;
    let plan = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap();
    assert_eq!(
        (plan.head.backup, plan.needs.0),
        (older.backup.clone(), 3 * SEGMENT)
    );
    // And so has a newer backup.
    let again = taken(&shelf, START).await;
    let plan = planned(&shelf, RecoveryTarget::Immediate, None).await.unwrap();
    assert_eq!(plan.head.backup, again.backup);
    let lost = lost_backups(&catalog(&shelf).await, shelf.clock_at(0))
        .await
        .unwrap();
    assert_eq!((lost.len(), lost[0].is_newest), (1, false), "{lost:?}");
}

/// Streams until everything is stored.
pub async fn stream(shelf: &Shelf, server: &Arc<FakeServer>) {
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
}

#[tokio::test]
async fn a_stream_tells_how_far_it_stored_when_it_ends_and_misses_what_is_gone_when_it_comes_back() {
    const SMALL: u64 = crate::fake::SEGMENT;
    let shelf = Shelf::with_segment(SMALL).await;
    let mut server = FakeServer::new(4 * SMALL + 5000);
    server.when_sent = WhenSent::Stop;
    let server = Arc::new(server);
    stream(&shelf, &server).await;
    assert_eq!(verify(&shelf, Depth::Everything).await.findings, vec![]);
    let runs = shelf.names("-stream-");
    assert_eq!(runs.len(), 2, "{runs:?}");
    // Its ranges and their index are gone: what it wrote when it ended tells.
    shelf.remove(&format!("/{:016x}-", 4 * SMALL)).await;
    shelf.remove("wal-archive/index/").await;
    for depth in DEPTHS {
        let verified = verify(&shelf, depth).await;
        let [finding] = &verified.findings[..] else {
            panic!("{:#?}", verified.findings)
        };
        let lost = format!("the log from {} to {}", Lsn(4 * SMALL), Lsn(4 * SMALL + 5000));
        assert!(finding.what.starts_with(&lost), "{finding:?}");
    }
    // The server still has it: a stream that comes back reads it again.
    let back = Arc::new(FakeServer::new(4 * SMALL + 9000));
    follow(&shelf, &back, |_| back.slot() == 4 * SMALL + 9000).await;
    assert_eq!(verify(&shelf, Depth::Everything).await.findings, vec![]);
    // What the last attachment resumed at is told once more when less is there: stored again, it is no loss.
    let server = Arc::new(FakeServer::new(4 * SMALL + 9500));
    follow(&shelf, &server, |_| server.slot() == 4 * SMALL + 9500).await;
    shelf.remove(&format!("/{:016x}-", 3 * SMALL)).await;
    for begins in [4 * SMALL, 4 * SMALL + 5000, 4 * SMALL + 9000] {
        for key in shelf.names(&format!("/{begins:016x}-")) {
            shelf.memory.delete(&key).await.unwrap();
        }
    }
    let again = |fact: &Fact| matches!(fact, Fact::LogStoredAgain { from, to, .. } if (from.0, to.0) == (3 * SMALL, 4 * SMALL + 9500));
    let lost = |fact: &Fact| matches!(fact, Fact::LogLost { .. });
    follow(&shelf, &server, |running| {
        assert!(!running.facts().iter().any(lost));
        running.facts().iter().any(again)
    })
    .await;
    assert_eq!(verify(&shelf, Depth::Everything).await.findings, vec![]);
}

/// Streams until this holds.
pub async fn follow(shelf: &Shelf, server: &Arc<FakeServer>, holds: impl Fn(&Running) -> bool) {
    let running = fake::follow(server, &shelf.open().await);
    let pass = || shelf.clock.advance(Duration::from_secs(10));
    running.until_while(pass, holds).await;
    running.stop().await.unwrap();
}

/// Removes every range that reaches past a position.
async fn cut(memory: &MemoryStore, at: Position) {
    let prefix = Prefix::new("wal-archive/").unwrap();
    for object in list_all(memory, &prefix, None).await.unwrap() {
        let to = |key: &Key| {
            let name = key.segments().next_back()?;
            u64::from_str_radix(name.split_once('-')?.1.get(..16)?, 16).ok()
        };
        if to(&object.key).is_some_and(|to| to > at.0) {
            memory.delete(&object.key).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_point_that_a_refusal_names_is_recovered_with_the_rows_before_the_loss() {
    const WAL_SEGMENT: u64 = 16 << 20;
    let server = PgServer::start().await;
    let memory = Arc::new(MemoryStore::new(Arc::new(SystemClock::new())));
    let world = World::over(memory.clone()).await;
    let source = world.source(server.conninfo());
    let running = world.stream(source.clone());
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        .await;
    world.backup(source, &server.room().dir("scratch")).await.unwrap();
    server.sql("INSERT INTO t SELECT generate_series(1, 200)").await;
    server.sql("SELECT pg_switch_wal()").await;
    let border = Position(end_of_log(&server).await.0.next_multiple_of(WAL_SEGMENT));
    let border = match end_of_log(&server).await.0 % WAL_SEGMENT {
        0 => Position(end_of_log(&server).await.0),
        _ => Position(border.0 - WAL_SEGMENT),
    };
    server.sql("INSERT INTO t SELECT generate_series(1, 30)").await;
    running.until_durable(end_of_log(&server).await).await;
    running.stop().await.unwrap();
    cut(&memory, border).await;

    let refused = world.plan(&RecoveryTarget::Latest).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Integrity, "{refused}");
    let advice = refused.advice();
    let (_, named) = advice.split_once("--to lsn:").expect("a last point");
    let named: Lsn = named.split(';').next().unwrap().parse().unwrap();
    let into = server.room().path().join("restored");
    let rows = copy::counts(&world, &into, &RecoveryTarget::Lsn(named)).await;
    assert_eq!(rows, [("postgres".to_owned(), "public.t".to_owned(), 1200)]);
}
