//! A stream that cannot keep up with a busy server: what the server's clock says meanwhile is no promise about log that has
//! not arrived.
//!
//! Promise: the newest time that can be recovered holds every row that was committed by then; a later one is refused.

use crate::copy;
use backstay_clock::SystemClock;
use backstay_engine::ErrorKind;
use backstay_engine::jobs::stream::Cadence;
use backstay_scenarios::{Running, World};
use backstay_store::faults::{Fault, FaultyStore, When};
use backstay_store::{MemoryStore, Operation};
use backstay_terms::RecoveryTarget;
use backstay_testkit::pg::{PgOptions, PgServer};
use std::sync::Arc;
use std::time::Duration;

const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 946684800000000";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_catch_up_makes_no_time_recoverable_that_was_not_seen() {
    let conf = vec![
        "track_commit_timestamp = on".to_owned(),
        // The server asks and tells its time often.
        "wal_sender_timeout = 2s".to_owned(),
    ];
    let server = PgServer::start_with(PgOptions {
        conf,
        ..PgOptions::default()
    })
    .await;
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new(Arc::new(
        SystemClock::new(),
    )))));
    let world = World::over(store.clone()).await;
    let source = world.source(server.conninfo());
    server
        .sql("CREATE TABLE t (n int, filler text); ALTER TABLE t ALTER filler SET STORAGE EXTERNAL")
        .await;
    let cadence = Cadence {
        live_after: Duration::from_millis(50),
        mark_every: Duration::from_millis(50),
        uploads_max: 1,
        held_max: 20 << 20,
        ..Cadence::default()
    };
    let running = Running::start(source.clone(), &world.repository, &world.name, cadence);
    let head = world.backup(source, &server.room().dir("scratch")).await.unwrap();
    running
        .until_durable(head.log.as_ref().unwrap().stop.into())
        .await;
    store.add(When::Every(Operation::Put), Fault::Slow(Duration::from_secs(1)));
    // Commits, one after the other, for several seconds: far more than a store takes that needs so long.
    server
        .sql(
            "DO $$ BEGIN FOR i IN 1..1500 LOOP INSERT INTO t VALUES (i, repeat(md5(i::text), 700)); COMMIT; \
             PERFORM pg_sleep(0.003); END LOOP; END $$",
        )
        .await;
    let now: i64 = server.value(&format!("SELECT {NOW}")).await.parse().unwrap();
    running.kill().await;
    store.heal();

    let newest = world.window().await.unwrap().newest().unwrap();
    let committed = format!(
        "SELECT count(*) FROM t WHERE (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint \
         - 946684800000000 <= {newest}"
    );
    let seen: u64 = server.value(&committed).await.parse().unwrap();
    assert!(
        (1..1500).contains(&seen),
        "it is behind: {seen} rows, {newest} of {now}"
    );
    for beyond in [now, newest + 1] {
        let refused = world.plan(&RecoveryTarget::Time(beyond)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AfterWindow, "{refused}");
    }
    let into = server.room().path().join("restored");
    let rows = copy::counts(&world, &into, &RecoveryTarget::Time(newest)).await;
    assert_eq!(rows, [("postgres".to_owned(), "public.t".to_owned(), seen)]);
}
