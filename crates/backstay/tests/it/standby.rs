//! A service whose server is a standby.

use crate::program::Place;
use backstay_testkit::pg::PgServer;

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_standby_is_said_to_be_one_point_and_is_restored_as_that() {
    let primary = PgServer::start().await;
    primary
        .sql("CREATE TABLE t AS SELECT generate_series(1, 100) AS n")
        .await;
    let standby = primary.start_standby().await;
    let place = Place::with_program(standby.room().path().join("place")).serving(&standby);
    let check = place.run("check");
    assert!(
        check
            .out
            .contains("the server is a standby: no stored log goes on from a backup of it"),
        "{}{}",
        check.out,
        check.err
    );
    let run = place.run("backup main --progress none");
    assert_eq!(run.exit, 0, "{}", run.err);
    assert!(
        run.err
            .contains("no stored log goes on from it, and it can be restored to its own end alone"),
        "{}",
        run.err
    );
    let into = standby.room().path().join("copy");
    let run = place.run(&format!(
        "restore main --to immediate --confirm --into {}",
        into.display()
    ));
    assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
    let copy = PgServer::start_on(&into, &[]).await.unwrap();
    assert_eq!(copy.value("SELECT count(*)::text FROM t").await, "100");
}
