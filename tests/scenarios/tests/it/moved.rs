//! The directory of the repository is moved away under a running stream, as when its disk is unmounted, and comes back.
//!
//! Promise: meanwhile nothing is confirmed, and nothing is written anywhere; what a restore gives holds every row.

use crate::copy;
use crate::stream::end_of_log;
use backstay_clock::{Backoff, SeededChance, SystemClock};
use backstay_engine::Fact;
use backstay_scenarios::World;
use backstay_store::{LocalDirectory, Patience, RetryingStore};
use backstay_terms::{Lsn, RecoveryTarget};
use backstay_testkit::pg::PgServer;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn files(at: &Path) -> usize {
    let entries = std::fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| if path.is_dir() { files(&path) } else { 1 })
        .sum()
}

async fn slot(server: &PgServer) -> Lsn {
    let restart = "SELECT restart_lsn FROM pg_replication_slots";
    server.value(restart).await.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_that_is_moved_away_is_waited_for_and_never_made_anew() {
    let server = PgServer::start().await;
    let (at, aside) = (
        server.room().path().join("repo"),
        server.room().path().join("aside"),
    );
    let clock = Arc::new(SystemClock::new());
    let directory = LocalDirectory::create(&at, clock.clone()).await.unwrap();
    let backoff = Backoff {
        base: Duration::from_millis(10),
        factor: 2,
        max: Duration::from_millis(100),
    };
    let patience = Patience {
        backoff,
        total: Duration::from_millis(300),
    };
    let store = RetryingStore::new(
        Arc::new(directory),
        clock,
        Arc::new(SeededChance::new(1)),
        patience,
    );
    let world = World::over(Arc::new(store)).await;
    let source = world.source(server.conninfo());
    let running = world.stream(source.clone());
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        .await;
    world.backup(source, &server.room().dir("scratch")).await.unwrap();
    running.until_durable(end_of_log(&server).await).await;

    std::fs::rename(&at, &aside).unwrap();
    let (stored, durable) = (files(&aside), running.durable());
    server.sql("INSERT INTO t SELECT generate_series(1, 500)").await;
    let moved = |fact: &Fact| matches!(fact, Fact::Retrying { error, .. } if error.contains("it was moved, removed or unmounted"));
    running.until_heard(moved).await;
    assert!(!at.exists(), "nothing is made in its place");
    // The place where the disk was mounted: it is there, and not the repository.
    std::fs::create_dir(&at).unwrap();
    let heard = running.facts().iter().filter(|fact| moved(fact)).count();
    running
        .until(|running| running.facts().iter().filter(|fact| moved(fact)).count() > heard)
        .await;
    assert_eq!(files(&at), 0, "nothing is written below the mount point");
    assert_eq!(files(&aside), stored, "nothing is written where it lies now");
    assert_eq!(running.durable(), durable);
    assert!(slot(&server).await <= durable, "the server keeps the rest");

    std::fs::remove_dir(&at).unwrap();
    std::fs::rename(&aside, &at).unwrap();
    running.until_durable(end_of_log(&server).await).await;
    running.stop().await.unwrap();
    let into = server.room().path().join("restored");
    let rows = copy::counts(&world, &into, &RecoveryTarget::Latest).await;
    assert_eq!(rows, [("postgres".to_owned(), "public.t".to_owned(), 1500)]);
}
