//! The first loop: stream, backup, accident, plan.

use crate::copy;
use crate::stream::end_of_log;
use backstay_repository::Head;
use backstay_scenarios::World;
use backstay_source::RecoveryStop;
use backstay_terms::{Lsn, RecoveryTarget};
use backstay_testkit::pg::PgServer;

/// What the loop leaves: a table `t` of 1000 rows was backed up and grew, and was dropped after `moment`.
struct Accident {
    server: PgServer,
    world: World,
    head: Head,
    /// Before the drop; microseconds since 2000.
    moment: i64,
    /// The end of the log, after the drop.
    dropped: Lsn,
}

impl Accident {
    async fn happens() -> Accident {
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
        let head = world.backup(source, &server.room().dir("scratch")).await.unwrap();
        server
            .sql("INSERT INTO t SELECT generate_series(1001, 2000)")
            .await;
        let moment = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 946684800000000";
        let moment: i64 = server.value(moment).await.parse().unwrap();
        server.sql("DROP TABLE t").await;
        let dropped = end_of_log(&server).await;
        running.until_durable(dropped).await;
        running.stop().await.unwrap();
        Accident {
            server,
            world,
            head,
            moment,
            dropped,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_table_can_be_planned_back_to_the_moment_before() {
    let Accident {
        world,
        head,
        moment,
        dropped,
        ..
    } = Accident::happens().await;
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
    let Accident {
        server,
        world,
        moment,
        ..
    } = Accident::happens().await;
    let into = server.room().path().join("restored");
    let evidence = copy::evidence(&world, &into, &RecoveryTarget::Time(moment)).await;
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
}
