//! Deaths against a live server: at random store calls, and by SIGKILL of the process that streams.
//!
//! After each death the surviving objects are read by a fresh process: every visible backup must be whole (REPO-4), every
//! confirmed position must be readable and equal to the server's own bytes (LOG-1).

use crate::stream::{end_of_log, on_disk};
use backstay_clock::{Chance, SeededChance, SystemClock};
use backstay_codec::{SecretKey, parse_master_key, print_master_key};
use backstay_repository::{BaseReader, Digest, PackReading, stretches};
use backstay_scenarios::World;
use backstay_store::faults::{CrashMode, CrashPlan, CrashStore};
use backstay_store::{LocalDirectory, MemoryStore, Store};
use backstay_terms::{EngineKind, LogRange, Lsn, Position};
use backstay_testkit::pg::{PgOptions, PgServer};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

const DEATHS: usize = 30;
/// How often a cell is run again in which nobody died.
const RUNS_MAX: usize = 20;
/// Each write is confirmed with a store call at least, so a stream meets every call that is drawn.
const WRITES_MAX: usize = 40;
const KILLS: usize = 20;

async fn server() -> PgServer {
    let conf = vec!["wal_keep_size = 2GB".to_owned()];
    let server = PgServer::start_with(PgOptions {
        conf,
        ..PgOptions::default()
    })
    .await;
    server.sql("CREATE TABLE t (n int)").await;
    server
}

/// Every visible backup is whole.
async fn every_backup_is_whole(world: &World) -> usize {
    let heads = world
        .repository
        .heads(EngineKind::Postgres, &world.name)
        .await
        .unwrap();
    for head in &heads {
        let base = BaseReader::open(&world.repository, &head.place()).await.unwrap();
        let mut cursor = base.cursor(PackReading::ByRanges);
        for file in base.files() {
            let Some(expected) = &file.sha256 else { continue };
            let mut digest = Digest::new();
            let read = cursor.read_file(&file, |bytes| {
                digest.update(bytes);
                Ok(())
            });
            read.await.unwrap();
            assert_eq!(
                digest.finish(),
                *expected,
                "REPO-4: {} of {}",
                file.path,
                head.backup
            );
        }
    }
    heads.len()
}

/// Everything before `durable` is stored and equal to the server's own log.
async fn everything_confirmed_is_there(world: &World, server: &PgServer, durable: Lsn) {
    let catalog = world.catalog().await.unwrap();
    let Some(chain) = &catalog.chain else {
        assert_eq!(durable, Lsn::INVALID, "LOG-1: nothing is stored");
        return;
    };
    if durable == Lsn::INVALID {
        return;
    }
    let link = chain.target().unwrap();
    let stored = stretches(link.ranges.iter().map(|range| &range.name.range));
    let whole = stored.last().unwrap();
    assert_eq!(stored.len(), 1, "LOG-1: no gap, {stored:?}");
    assert!(
        Lsn::from(whole.to) >= durable,
        "LOG-1: {durable} was confirmed, {whole:?} is stored"
    );
    let from = Position(whole.to.0.saturating_sub(3 << 20).max(whole.from.0));
    let bytes = catalog.bytes_in(LogRange { from, to: whole.to }).await.unwrap();
    assert_eq!(
        bytes,
        on_disk(server, from, whole.to.into()),
        "LOG-1: the bytes are the server's"
    );
}

/// Runs a backup or a stream until it dies at its call; how far the log was confirmed by then.
async fn one_death(world: &World, server: &PgServer, cell: usize, plan: &CrashPlan) -> Lsn {
    let source = world.source(server.conninfo());
    if cell.is_multiple_of(2) {
        let scratch = server.room().dir(&format!("scratch-{cell}"));
        let _ = world.backup(source, &scratch).await;
        return Lsn::INVALID;
    }
    let running = world.stream(source);
    for _ in 0..WRITES_MAX {
        server.sql("INSERT INTO t SELECT generate_series(1, 5000)").await;
        let before = running.durable();
        running
            .until(|running| running.durable() > before || plan.is_dead())
            .await;
        if plan.is_dead() {
            break;
        }
    }
    let durable = running.durable();
    running.kill().await;
    durable
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_deaths_at_random_store_calls_lose_nothing_confirmed() {
    let (server, chance) = (server().await, SeededChance::new(30));
    let image = Arc::new(MemoryStore::new(Arc::new(SystemClock::new())));
    let key = SecretKey::generate().unwrap();
    World::made(image.clone(), &key).await;
    let (mut runs, mut durable, mut backups) = (0, Lsn::INVALID, 0);
    for cell in 0..DEATHS {
        // A run that needs fewer calls than the one it was to die at is no death: another call is drawn.
        let mut died = false;
        for _ in 0..RUNS_MAX {
            let mode = CrashMode::HONEST[(chance.next_u64() % 3) as usize];
            let plan = CrashPlan::at(1 + chance.next_u64() % 40, mode);
            let store: Arc<dyn Store> = Arc::new(CrashStore::new(image.clone(), plan.clone()));
            if let Ok(world) = World::opened(store, &key).await {
                durable = durable.max(one_death(&world, &server, cell, &plan).await);
            }
            runs += 1;
            let world = World::opened(image.clone(), &key).await.unwrap();
            backups = every_backup_is_whole(&world).await;
            everything_confirmed_is_there(&world, &server, durable).await;
            died = plan.is_dead();
            if died {
                break;
            }
        }
        assert!(died, "nobody died in {RUNS_MAX} runs of cell {cell}");
    }
    // And then it simply goes on.
    let world = World::opened(image, &key).await.unwrap();
    let running = world.stream(world.source(server.conninfo()));
    let end = end_of_log(&server).await;
    running.until_durable(end).await;
    running.stop().await.unwrap();
    everything_confirmed_is_there(&world, &server, end).await;
    println!(
        "measured: {DEATHS} deaths at random store calls against a live server in {runs} runs, {backups} whole backups, 0 bytes lost"
    );
}

/// The process that streams: run as a child by the test below, and killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a child of the test that kills it"]
async fn child_that_streams() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let key = parse_master_key(&variable("CHILD_KEY")).unwrap();
    let directory = std::path::PathBuf::from(variable("CHILD_REPOSITORY"));
    let store = LocalDirectory::open(&directory, Arc::new(SystemClock::new()));
    let world = World::opened(Arc::new(store.await.unwrap()), &key).await.unwrap();
    let conninfo = backstay_testkit::pg::parse(&variable("CHILD_SERVER"));
    let running = world.stream(world.source(conninfo));
    let mut told = Lsn::INVALID;
    loop {
        running.until(|running| running.durable() > told).await;
        told = running.durable();
        println!("durable {told}");
    }
}

struct Streaming {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

fn start_child(repository: &std::path::Path, key: &str, server: &PgServer) -> Streaming {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "crashes::child_that_streams",
            "--nocapture",
        ])
        .env("CHILD_KEY", key)
        .env("CHILD_REPOSITORY", repository)
        .env("CHILD_SERVER", server.conninfo_text())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    Streaming { child, lines }
}

impl Streaming {
    /// Reads what the child confirmed until it is past `lsn`.
    fn read_until(&mut self, lsn: Lsn) -> Lsn {
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the child ended");
            let durable = line
                .trim()
                .strip_prefix("durable ")
                .and_then(|text| text.parse::<Lsn>().ok());
            if let Some(durable) = durable.filter(|durable| *durable > lsn) {
                return durable;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_sigkills_of_the_streaming_process_lose_nothing_confirmed() {
    let server = server().await;
    let chance = SeededChance::new(20);
    let directory = server.room().path().join("repository");
    let store = LocalDirectory::create(&directory, Arc::new(SystemClock::new()))
        .await
        .unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let key = SecretKey::generate().unwrap();
    World::made(store.clone(), &key).await;
    let text = print_master_key(&key);
    let mut durable = Lsn::INVALID;
    for _ in 0..KILLS {
        let mut streaming = start_child(&directory, &text, &server);
        for _ in 0..=chance.next_u64() % 3 {
            server.sql("INSERT INTO t SELECT generate_series(1, 20000)").await;
            durable = durable.max(streaming.read_until(durable));
        }
        server.sql("INSERT INTO t SELECT generate_series(1, 20000)").await;
        streaming.child.kill().unwrap();
        streaming.child.wait().unwrap();
        let world = World::opened(store.clone(), &key).await.unwrap();
        everything_confirmed_is_there(&world, &server, durable).await;
    }
    println!("measured: {KILLS} SIGKILLs of the streaming process, 0 confirmed bytes lost");
}
