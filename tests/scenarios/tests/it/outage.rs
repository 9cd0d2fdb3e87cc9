//! Stores that are slow, dead or come back, under a primary that wants to stop or goes on writing.

use backstay_clock::{Backoff, SeededChance, SystemClock};
use backstay_scenarios::World;
use backstay_store::faults::{Fault, FaultKind, FaultyStore, When};
use backstay_store::{MemoryStore, Operation, Patience, RetryingStore};
use backstay_terms::Lsn;
use backstay_testkit::pg::{PgServer, Stop};
use std::sync::Arc;
use std::time::Duration;

/// The product's bound is 2 s with a store that answers in 200 ms (`make bench` measures it); this leaves room for a machine
/// under load.
const STOP_SLOW_MAX: Duration = Duration::from_secs(6);
/// The same with a dead store, for the product's bound of 10 s.
const STOP_DEAD_MAX: Duration = Duration::from_secs(15);

fn faulty() -> Arc<FaultyStore> {
    Arc::new(FaultyStore::new(Arc::new(MemoryStore::new(Arc::new(
        SystemClock::new(),
    )))))
}

async fn write_some(server: &PgServer) {
    server
        .sql("CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t SELECT generate_series(1, 20000)")
        .await;
}

async fn end_of_log(server: &PgServer) -> Lsn {
    server
        .value("SELECT pg_current_wal_flush_lsn()")
        .await
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_stops_while_a_store_answers_slowly() {
    let mut server = PgServer::start().await;
    let store = faulty();
    let world = World::over(store.clone()).await;
    let running = world.stream(world.source(server.conninfo()));
    write_some(&server).await;
    running.until_durable(end_of_log(&server).await).await;
    store.add(
        When::Every(Operation::Put),
        Fault::Slow(Duration::from_millis(200)),
    );
    write_some(&server).await;
    server.begin_stop(Stop::Fast);
    let took = server
        .wait_stopped(STOP_SLOW_MAX)
        .await
        .expect("the primary stops");
    println!(
        "measured: fast shutdown with a store that answers in 200 ms: {} ms",
        took.as_millis()
    );
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_stops_while_the_store_is_dead() {
    let mut server = PgServer::start().await;
    let store = faulty();
    let world = World::over(store.clone()).await;
    let running = world.stream(world.source(server.conninfo()));
    write_some(&server).await;
    running.until_durable(end_of_log(&server).await).await;
    store.add(When::Every(Operation::Put), Fault::Hang);
    write_some(&server).await;
    server.begin_stop(Stop::Fast);
    let took = server
        .wait_stopped(STOP_DEAD_MAX)
        .await
        .expect("the primary stops");
    println!(
        "measured: fast shutdown with a dead store: {} ms",
        took.as_millis()
    );
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_store_leaves_no_gap() {
    let server = PgServer::start().await;
    let store = faulty();
    let clock = Arc::new(SystemClock::new());
    let backoff = Backoff {
        base: Duration::from_millis(10),
        factor: 2,
        max: Duration::from_millis(200),
    };
    let patience = Patience {
        backoff,
        total: Duration::from_millis(500),
    };
    let retrying = RetryingStore::new(store.clone(), clock, Arc::new(SeededChance::new(1)), patience);
    let world = World::over(Arc::new(retrying)).await;
    let running = world.stream(world.source(server.conninfo()));
    write_some(&server).await;
    let before = end_of_log(&server).await;
    running.until_durable(before).await;
    store.add(When::Every(Operation::Put), Fault::Refuse(FaultKind::Unreachable));
    for _ in 0..5 {
        write_some(&server).await;
    }
    let after = end_of_log(&server).await;
    // Until the patience of a put is at its end the stream holds on; then it says so and attaches anew.
    running
        .until_heard(|fact| matches!(fact, backstay_engine::Fact::Retrying { .. }))
        .await;
    assert!(
        running.durable() < after,
        "nothing is confirmed that is not stored"
    );
    store.heal();
    running.until_durable(after).await;
    running.stop().await.unwrap();
    let catalog = world.catalog().await.unwrap();
    let chain = catalog.chain.unwrap();
    assert_eq!((chain.links.len(), chain.stretches(None).len()), (1, 1));
}
