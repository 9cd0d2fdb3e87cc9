//! Streams: killed, promoted over, behind, with a gap.

use backstay_engine::plan::show_time;
use backstay_engine::{ErrorKind, Fact};
use backstay_repository::{LogStore, stretches};
use backstay_scenarios::World;
use backstay_terms::{EngineKind, LogRange, Lsn, Position, RecoveryTarget};
use backstay_testkit::pg::{PgServer, Stop};

pub async fn end_of_log(server: &PgServer) -> Lsn {
    server
        .value("SELECT pg_current_wal_flush_lsn()")
        .await
        .parse()
        .unwrap()
}

/// The bytes of the newest lineage from `from` up to `to`.
async fn stored(world: &World, from: Position, to: Lsn) -> Vec<u8> {
    let catalog = world.catalog().await.unwrap();
    catalog.bytes_in(LogRange { from, to: to.into() }).await.unwrap()
}

/// The same bytes from the server's own segments.
pub fn on_disk(server: &PgServer, from: Position, to: Lsn) -> Vec<u8> {
    const SEGMENT: u64 = 16 << 20;
    let mut bytes = Vec::new();
    for number in from.0 / SEGMENT..=(to.0 - 1) / SEGMENT {
        let name = format!("{:08X}{:08X}{:08X}", 1, number >> 8, number & 0xFF);
        bytes.extend(std::fs::read(server.data_dir().join("pg_wal").join(name)).unwrap());
    }
    let skip = (from.0 % SEGMENT) as usize;
    bytes[skip..skip + (to.0 - from.0) as usize].to_vec()
}

async fn first_position(world: &World) -> Position {
    let catalog = world.catalog().await.unwrap();
    let link = catalog.chain.as_ref().unwrap().target().unwrap().clone();
    stretches(link.ranges.iter().map(|r| &r.name.range))
        .first()
        .unwrap()
        .from
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_before_a_kill_is_served_without_the_source_and_resumed_with_it() {
    let mut server = PgServer::start().await;
    let world = World::new().await;
    let running = world.stream(world.source(server.conninfo()));
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 50000) AS n")
        .await;
    let first = end_of_log(&server).await;
    running.until_durable(first).await;
    running.kill().await;
    let from = first_position(&world).await;
    assert_eq!(stored(&world, from, first).await, on_disk(&server, from, first));

    // Without its source: settling needs the store and the keys alone.
    let log = LogStore::new(&world.repository, EngineKind::Postgres, &world.name);
    let branch = world
        .catalog()
        .await
        .unwrap()
        .chain
        .unwrap()
        .target()
        .unwrap()
        .branch;
    log.settle(&branch, 16 << 20).await.unwrap();
    let ranges = log.ranges(&branch, None).await.unwrap();
    assert!(LogStore::unsettled(&ranges).is_empty());

    // With it: the log goes on where it ended, in the same lineage.
    let running = world.stream(world.source(server.conninfo()));
    server.sql("INSERT INTO t SELECT generate_series(1, 50000)").await;
    let second = end_of_log(&server).await;
    running.until_durable(second).await;
    running.stop().await.unwrap();
    server.stop(Stop::Fast).await;
    assert_eq!(stored(&world, from, second).await, on_disk(&server, from, second));
    let catalog = world.catalog().await.unwrap();
    assert_eq!(catalog.chain.as_ref().unwrap().target().unwrap().branch, branch);
    assert_eq!(catalog.chain.as_ref().unwrap().stretches(None).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_is_followed_onto_its_new_timeline() {
    let mut primary = PgServer::start().await;
    primary.sql("CREATE TABLE t (n int)").await;
    let standby = primary.start_standby().await;
    let world = World::new().await;
    let running = world.stream(world.source(primary.conninfo()));
    primary.sql("INSERT INTO t SELECT generate_series(1, 1000)").await;
    let before = end_of_log(&primary).await;
    running.until_durable(before).await;
    running.stop().await.unwrap();
    let caught_up = format!("SELECT pg_last_wal_replay_lsn() >= '{before}'::pg_lsn");
    while standby.value(&caught_up).await != "t" {}
    primary.stop(Stop::Immediate).await;
    standby.promote().await;
    standby.sql("INSERT INTO t SELECT generate_series(1, 1000)").await;
    let after = end_of_log(&standby).await;

    let running = world.stream(world.source(standby.conninfo()));
    running.until_durable(after).await;
    running.stop().await.unwrap();
    let catalog = world.catalog().await.unwrap();
    let chain = catalog.chain.as_ref().unwrap();
    let timelines: Vec<u32> = chain.links.iter().map(|link| link.branch.timeline).collect();
    assert_eq!(timelines, [1, 2]);
    assert_eq!(chain.stretches(None).len(), 1, "{:?}", chain.stretches(None));
}

async fn clock_of(server: &PgServer) -> i64 {
    let micros = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 946684800000000";
    server.value(micros).await.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_gap_the_stream_goes_on_and_the_planner_names_both_sides() {
    let server = PgServer::start().await;
    let world = World::new().await;
    server.sql("CREATE TABLE t (n int)").await;
    let running = world.stream(world.source(server.conninfo()));
    let source = world.source(server.conninfo());
    let first = world
        .backup(source.clone(), &server.room().dir("scratch-1"))
        .await
        .unwrap();
    server.sql("INSERT INTO t VALUES (1)").await;
    let before = clock_of(&server).await;
    server.sql("INSERT INTO t VALUES (2)").await;
    running.until_durable(end_of_log(&server).await).await;
    running.kill().await;

    // The slot is lost with the log that it kept.
    while server
        .value("SELECT count(*) FROM pg_replication_slots WHERE active")
        .await
        != "0"
    {}
    server.sql("SELECT pg_drop_replication_slot('backstay')").await;
    let missed = clock_of(&server).await;
    for _ in 0..3 {
        server.sql("INSERT INTO t VALUES (3)").await;
        server.sql("SELECT pg_switch_wal()").await;
        server.sql("CHECKPOINT").await;
    }
    let running = world.stream(source.clone());
    running
        .until_heard(|fact| matches!(fact, Fact::LogGap { .. }))
        .await;
    server.sql("INSERT INTO t VALUES (4)").await;
    running.until_durable(end_of_log(&server).await).await;
    let second = world
        .backup(source, &server.room().dir("scratch-2"))
        .await
        .unwrap();
    server.sql("INSERT INTO t VALUES (5)").await;
    running.until_durable(end_of_log(&server).await).await;
    running.stop().await.unwrap();

    let window = world.window().await.unwrap();
    assert_eq!((window.ranges.len(), window.gaps.len()), (2, 1), "{window:?}");
    let plan = world.plan(&RecoveryTarget::Time(before)).await.unwrap();
    assert_eq!(plan.head.backup, first.backup);
    let plan = world.plan(&RecoveryTarget::Latest).await.unwrap();
    assert_eq!(plan.head.backup, second.backup);
    let refused = world.plan(&RecoveryTarget::Time(missed)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InGap, "{refused}");
    let both = window
        .ranges
        .iter()
        .map(|range| range.to_time)
        .chain([second.log.unwrap().stop_time]);
    let named = both
        .map(show_time)
        .filter(|time| refused.advice().contains(time))
        .count();
    assert_eq!(named, 2, "{}", refused.advice());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_log_ends_behind_ours_begins_a_lineage_and_says_so() {
    let mut server = PgServer::start().await;
    server.sql("CREATE TABLE t (n int)").await;
    server.stop(Stop::Fast).await;
    let snapshot = server.room().path().join("snapshot");
    copy_directory(server.data_dir(), &snapshot);
    server.run().await;
    let world = World::new().await;
    let running = world.stream(world.source(server.conninfo()));
    server
        .sql("INSERT INTO t SELECT generate_series(1, 100000)")
        .await;
    let ahead = end_of_log(&server).await;
    running.until_durable(ahead).await;
    running.stop().await.unwrap();
    server.stop(Stop::Fast).await;

    // As a restored snapshot of the machine's disk would be.
    let older = PgServer::start_on(&snapshot, &[]).await.unwrap();
    older.sql("INSERT INTO t VALUES (-1)").await;
    let running = world.stream(world.source(older.conninfo()));
    running.until_durable(end_of_log(&older).await).await;
    let facts = running.facts();
    running.stop().await.unwrap();
    assert!(
        facts.iter().any(|fact| matches!(fact, Fact::LineageBegan { .. })),
        "{facts:?}"
    );
    let known = LogStore::new(&world.repository, EngineKind::Postgres, &world.name)
        .known()
        .await
        .unwrap();
    assert_eq!(known.len(), 2);
    assert!(
        known[0].frontier.unwrap() >= ahead.into(),
        "nothing of the first lineage is lost"
    );
}

pub fn copy_directory(from: &std::path::Path, to: &std::path::Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(copied.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_stream_on_the_same_slot_gives_up_with_a_conflict() {
    let server = PgServer::start().await;
    let world = World::new().await;
    let first = world.stream(world.source(server.conninfo()));
    server.sql("CREATE TABLE t (n int)").await;
    first.until_durable(end_of_log(&server).await).await;
    let second = world.stream(world.source(server.conninfo()));
    let error = second.ended().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    server.sql("INSERT INTO t VALUES (1)").await;
    first.until_durable(end_of_log(&server).await).await;
    first.stop().await.unwrap();
}
