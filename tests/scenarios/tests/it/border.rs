//! A stream that resumes where it is not plain where to: at a border of the log's files with a record lying across it,
//! or before a hole that later uploads overtook.

use crate::copy;
use crate::stream::{copy_directory, end_of_log, on_disk};
use backstay_clock::SystemClock;
use backstay_engine::jobs::adopt::adopt;
use backstay_engine::{ErrorKind, Fact};
use backstay_repository::layout::Level;
use backstay_repository::{LogStore, StoredRange};
use backstay_scenarios::World;
use backstay_source::RecoveryStop;
use backstay_store::{Key, MemoryStore, Prefix, Store, list_all};
use backstay_terms::{Branch, EngineKind, LogFacts, LogRange, Lsn, Position, RecoveryTarget};
use backstay_testkit::pg::{PgOptions, PgServer, Stop};
use std::sync::Arc;

const SEGMENT: u64 = 16 << 20;

/// A server that keeps its WAL, and a world whose store can be looked into.
async fn scene() -> (PgServer, World, Arc<MemoryStore>) {
    let conf = vec!["wal_keep_size = 1GB".to_owned()];
    let server = PgServer::start_with(PgOptions {
        conf,
        ..PgOptions::default()
    })
    .await;
    let memory = Arc::new(MemoryStore::new(Arc::new(SystemClock::new())));
    let world = World::over(memory.clone()).await;
    (server, world, memory)
}

/// Records of 3 MiB: hardly a border that none of them lies across.
async fn write_giants(server: &PgServer, letter: char) {
    for _ in 0..16 {
        let sql = format!("SELECT pg_logical_emit_message(true, 'm', repeat('{letter}', 3 << 20))");
        server.sql(&sql).await;
    }
}

async fn follow_to_the_end(server: &PgServer, world: &World) -> Vec<Fact> {
    let running = world.stream(world.source(server.conninfo()));
    running.until_durable(end_of_log(server).await).await;
    let facts = running.facts();
    running.stop().await.unwrap();
    facts
}

/// Forgets everything from the last border on, as a stream leaves it that died there.
async fn cut_at_the_last_border(memory: &MemoryStore, world: &World) -> (Branch, Position) {
    let catalog = world.catalog().await.unwrap();
    let chain = catalog.chain.as_ref().unwrap();
    let end = chain.stretches(None).last().unwrap().to;
    let border = Position(end.0 - end.0 % SEGMENT);
    for object in list_all(memory, &Prefix::new("wal-archive/").unwrap(), None)
        .await
        .unwrap()
    {
        let reaches_past = |key: &Key| {
            let name = key.segments().next_back()?;
            u64::from_str_radix(name.split_once('-')?.1.get(..16)?, 16)
                .ok()
                .filter(|to| *to > border.0)
        };
        let is_index = object.key.to_string().contains("/index/");
        if is_index || reaches_past(&object.key).is_some() {
            memory.delete(&object.key).await.unwrap();
        }
    }
    let left = world.catalog().await.unwrap();
    let chain = left.chain.as_ref().unwrap();
    assert_eq!(chain.stretches(None).last().unwrap().to, border);
    (chain.target().unwrap().branch, border)
}

/// Facts of all ranges of one copy of each position.
async fn all_facts(world: &World) -> LogFacts {
    let catalog = world.catalog().await.unwrap();
    let stretch = catalog.chain.as_ref().unwrap().stretches(None)[0];
    let facts = catalog.facts_in(LogRange { ..stretch }).await.unwrap();
    facts
        .into_iter()
        .map(|(_, facts)| facts)
        .reduce(LogFacts::join)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_across_the_border_where_a_stream_resumes_is_counted() {
    let (server, world, memory) = scene().await;
    let running = world.stream(world.source(server.conninfo()));
    write_giants(&server, 'a').await;
    running.until_durable(end_of_log(&server).await).await;
    running.stop().await.unwrap();
    follow_to_the_end(&server, &world).await;
    let once = all_facts(&world).await;
    let (_, border) = cut_at_the_last_border(&memory, &world).await;
    assert!(
        all_facts(&world).await.records.unwrap().last_end < border,
        "a record lies across {border:?}"
    );
    follow_to_the_end(&server, &world).await;
    let twice = all_facts(&world).await;
    assert_eq!(twice.records, once.records);
    assert_eq!(twice.transactions, once.transactions);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_differs_before_the_border_begins_a_lineage() {
    let (mut server, world, memory) = scene().await;
    server.stop(Stop::Fast).await;
    let snapshot = server.room().path().join("snapshot");
    copy_directory(server.data_dir(), &snapshot);
    server.run().await;
    let running = world.stream(world.source(server.conninfo()));
    write_giants(&server, 'a').await;
    running.until_durable(end_of_log(&server).await).await;
    running.stop().await.unwrap();
    server.stop(Stop::Fast).await;
    let (first, border) = cut_at_the_last_border(&memory, &world).await;

    // The same cluster, another life: longer records, so that its log is elsewhere at the border and goes on beyond it.
    let other = PgServer::start_on(&snapshot, &["wal_keep_size=1GB"])
        .await
        .unwrap();
    other.sql("CREATE TABLE elsewhere (n int)").await;
    write_giants(&other, 'b').await;
    write_giants(&other, 'b').await;
    let facts = follow_to_the_end(&other, &world).await;
    assert!(
        facts.iter().any(|fact| matches!(fact, Fact::LineageBegan { .. })),
        "{facts:?}"
    );
    let log = LogStore::new(&world.repository, EngineKind::Postgres, &world.name);
    let known = log.known().await.unwrap();
    let branches: Vec<Branch> = known.iter().map(|known| known.record.branch).collect();
    assert_eq!(branches.len(), 2, "{branches:?}");
    let of_first: Vec<StoredRange> = log.ranges(&first, None).await.unwrap();
    assert!(
        of_first.iter().all(|range| range.name.range.to <= border),
        "nothing is joined to the first life"
    );
    let record = &known.last().unwrap().record;
    // All of the segment before the border is compared, and nothing of it is the same.
    assert_eq!((record.parent, record.from), (None, Position(border.0 - SEGMENT)));
}

/// Removes one settled range in the middle and every other copy of its positions, as if its upload had never arrived.
async fn lose_one_range(memory: &MemoryStore, world: &World) -> LogRange {
    let catalog = world.catalog().await.unwrap();
    let ranges = &catalog.chain.as_ref().unwrap().target().unwrap().ranges;
    let settled: Vec<LogRange> = ranges
        .iter()
        .filter(|r| r.level == Level::Settled && !r.name.range.is_mark())
        .map(|r| r.name.range)
        .collect();
    let lost = settled[settled.len() - 2];
    for object in list_all(memory, &Prefix::new("wal-archive/").unwrap(), None)
        .await
        .unwrap()
    {
        let name = object.key.segments().next_back().unwrap().to_owned();
        let positions = name.split_once('.').and_then(|(range, _)| range.split_once('-'));
        let Some((from, to)) = positions else { continue };
        let (Ok(from), Ok(to)) = (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16)) else {
            continue;
        };
        if from < lost.to.0 && lost.from.0 < to {
            memory.delete(&object.key).await.unwrap();
        }
    }
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_that_later_ones_overtook_is_named_until_it_is_read_again() {
    let (server, world, memory) = scene().await;
    let scratch = server.room().dir("scratch");
    let running = world.stream(world.source(server.conninfo()));
    world
        .backup(world.source(server.conninfo()), &scratch)
        .await
        .unwrap();
    write_giants(&server, 'a').await;
    running.until_durable(end_of_log(&server).await).await;
    running.stop().await.unwrap();
    let lost = lose_one_range(&memory, &world).await;
    // Until the stream was there again it is named, with the last point before it, and `latest` does not stop short of it in
    // silence.
    assert_eq!(world.window().await.unwrap().gaps, [lost]);
    let error = world.plan(&RecoveryTarget::Latest).await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Integrity,
        "the index of the stream names it: {error}"
    );
    // No record starts at the end of the log, so what is named is the last one before it, and can be aimed at.
    let advice = error.advice();
    let (_, named) = advice.split_once("--to lsn:").unwrap();
    let named: Lsn = named.split(';').next().unwrap().parse().unwrap();
    assert!(named < Lsn::from(lost.from), "{advice}");
    let plan = world.plan(&RecoveryTarget::Lsn(named)).await.unwrap();
    assert_eq!(plan.stop, RecoveryStop::After(named.into()));

    let end = end_of_log(&server).await;
    follow_to_the_end(&server, &world).await;
    let catalog = world.catalog().await.unwrap();
    assert_eq!(world.window().await.unwrap().gaps, []);
    let stretches = catalog.chain.as_ref().unwrap().stretches(None);
    assert_eq!(stretches.len(), 1, "{stretches:?}");
    let whole = LogRange {
        from: Position(lost.from.0 - SEGMENT),
        to: end.into(),
    };
    assert!(
        catalog.bytes_in(whole).await.unwrap() == on_disk(&server, whole.from, end),
        "the server's own bytes"
    );
}

/// Streams until the log ends exactly at a border of segments, and stops there.
async fn stop_at_a_border(server: &PgServer, world: &World) -> Position {
    for _ in 0..10 {
        let running = world.stream(world.source(server.conninfo()));
        server.sql("SELECT pg_switch_wal()").await;
        running.until_durable(end_of_log(server).await).await;
        running.stop().await.unwrap();
        let log = LogStore::new(&world.repository, EngineKind::Postgres, &world.name);
        let frontier = log.known().await.unwrap().last().unwrap().frontier.unwrap();
        if frontier.0.is_multiple_of(SEGMENT) {
            return frontier;
        }
    }
    panic!("the server wrote something after every switch");
}

/// The tables of a copy of what was stored last.
async fn tables(server: &PgServer, world: &World, into: &str) -> Vec<String> {
    let into = server.room().path().join(into);
    let rows = copy::counts(world, &into, &RecoveryTarget::Latest).await;
    rows.into_iter()
        .map(|(_, table, rows)| format!("{table} {rows}"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_lives_of_one_server_that_stand_at_the_same_border_are_told_apart() {
    let conf = vec!["wal_keep_size = 1GB".to_owned(), "autovacuum = off".to_owned()];
    let options = PgOptions {
        conf,
        ..PgOptions::default()
    };
    let mut server = PgServer::start_with(options).await;
    let world = World::new().await;
    let running = world.stream(world.source(server.conninfo()));
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 100) AS n")
        .await;
    let scratch = server.room().dir("scratch");
    world
        .backup(world.source(server.conninfo()), &scratch)
        .await
        .unwrap();
    // More than arrives at once: what both have proves that they were one.
    server
        .sql("INSERT INTO t SELECT generate_series(101, 20000)")
        .await;
    running.until_durable(end_of_log(&server).await).await;
    running.stop().await.unwrap();
    server.stop(Stop::Fast).await;
    let snapshot = server.room().path().join("snapshot");
    copy_directory(server.data_dir(), &snapshot);

    server.run().await;
    server
        .sql("CREATE TABLE one AS SELECT generate_series(1, 70) AS n")
        .await;
    let border = stop_at_a_border(&server, &world).await;
    server.stop(Stop::Fast).await;
    // The same words: nothing is longer or shorter, and what follows the border follows either life.
    let other = PgServer::start_on(&snapshot, &["wal_keep_size=1GB", "autovacuum=off"])
        .await
        .unwrap();
    other
        .sql("CREATE TABLE two AS SELECT generate_series(1, 70) AS n")
        .await;
    while end_of_log(&other).await < Lsn::from(border) {
        other.sql("SELECT pg_switch_wal()").await;
    }
    other.sql("INSERT INTO t SELECT generate_series(1, 11)").await;
    let facts = follow_to_the_end(&other, &world).await;
    assert!(
        facts.iter().any(|fact| matches!(fact, Fact::LineageBegan { .. })),
        "{facts:?}"
    );
    let refused = world.plan(&RecoveryTarget::Latest).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    let expected = [
        ("first", vec!["public.one 70", "public.t 20000"]),
        ("last", vec!["public.t 20011", "public.two 70"]),
    ];
    let records = world.catalog().await.unwrap().records;
    let branches: Vec<Branch> = records.iter().map(|record| record.branch).collect();
    for (which, tables_then) in expected {
        let catalog = world.catalog().await.unwrap();
        let chosen = if which == "first" {
            branches.first()
        } else {
            branches.last()
        };
        adopt(&world.repository, &catalog, *chosen.unwrap())
            .await
            .unwrap();
        assert_eq!(tables(&other, &world, which).await, tables_then, "{which}");
    }
}
