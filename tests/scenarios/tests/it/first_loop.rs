//! The first loop: stream, backup, accident, plan.

use backstay_clock::SystemClock;
use backstay_postgres::{PostgresDirectory, RestoreOptions};
use backstay_scenarios::World;
use backstay_source::{RecoveryAction, RecoveryStop};
use backstay_terms::{Lsn, RecoveryTarget};
use backstay_testkit::pg::{PgServer, free_port};
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_table_can_be_planned_back_to_the_moment_before() {
    let server = PgServer::start().await;
    let world = World::new().await;
    let source = world.source(server.conninfo());
    let running = world.stream(source.clone());
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        .await;
    let scratch = server.room().path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let head = world.backup(source, &scratch).await.unwrap();
    server
        .sql("INSERT INTO t SELECT generate_series(1001, 2000)")
        .await;
    let moment = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 946684800000000";
    let moment: i64 = server.value(moment).await.parse().unwrap();
    server.sql("DROP TABLE t").await;
    let dropped: Lsn = server
        .value("SELECT pg_current_wal_flush_lsn()")
        .await
        .parse()
        .unwrap();
    running.until_durable(dropped).await;
    running.stop().await.unwrap();

    let plan = world.plan(&RecoveryTarget::Time(moment)).await.unwrap();
    assert_eq!(plan.head.backup, head.backup);
    let RecoveryStop::Before(stop) = plan.stop else {
        panic!("{:?}", plan.stop)
    };
    assert!(
        Lsn::from(stop) < dropped && plan.time.unwrap() > moment,
        "{plan:?}"
    );
    let window = world.window().await.unwrap();
    assert_eq!(window.ranges.len(), 1, "{window:?}");
    assert!(window.points.is_empty() && window.gaps.is_empty(), "{window:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_copy_names_the_table_that_an_open_drop_holds() {
    let server = PgServer::start().await;
    let world = World::new().await;
    let source = world.source(server.conninfo());
    let running = world.stream(source.clone());
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        .await;
    server
        .sql("CREATE TABLE u AS SELECT generate_series(1, 10) AS n")
        .await;
    world.backup(source, &server.room().dir("scratch")).await.unwrap();
    let moment = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 946684800000000";
    let moment: i64 = server.value(moment).await.parse().unwrap();
    server.sql("DROP TABLE t").await;
    let dropped: Lsn = server
        .value("SELECT pg_current_wal_flush_lsn()")
        .await
        .parse()
        .unwrap();
    running.until_durable(dropped).await;
    running.stop().await.unwrap();

    let into = server.room().path().join("restored");
    let options = RestoreOptions::new(&into, Arc::new(SystemClock::new()));
    let sockets = server.room().path().to_owned();
    let directory = Arc::new(PostgresDirectory::new(RestoreOptions { sockets, ..options }));
    let target = RecoveryTarget::Time(moment);
    let restored = world
        .restore(&target, directory.clone(), RecoveryAction::Pause, free_port())
        .await
        .unwrap();
    let evidence = restored.evidence.unwrap();
    assert_eq!(
        evidence.rows,
        [("postgres".to_owned(), "public.u".to_owned(), 10)]
    );
    assert_eq!(evidence.uncounted.len(), 1, "{:?}", evidence.uncounted);
    assert!(
        evidence.uncounted[0].starts_with("postgres.public.t: a transaction"),
        "{:?}",
        evidence.uncounted
    );
    directory.stop().await.unwrap();
}
