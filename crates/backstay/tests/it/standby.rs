//! A service whose server is a standby.

use crate::program::Place;
use backstay_testkit::pg::{PgOptions, PgServer};

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_standby_is_refused_before_the_server_begins_one() {
    let primary = PgServer::start_with(PgOptions {
        conf: vec!["log_replication_commands = on".to_owned()],
        ..PgOptions::default()
    })
    .await;
    primary.sql("CREATE TABLE t AS SELECT 1 AS n").await;
    let standby = primary.start_standby().await;
    let place = Place::with_program(standby.room().path().join("place"));
    let words = "the server is a standby, and nothing in its log ends a backup of it";
    let socket = format!("host={} port={}", standby.socket_dir().display(), standby.port());
    let init = place.init(&format!("{socket} user=postgres dbname=postgres"));
    assert!(
        init.exit == 10 && init.out.contains(words),
        "{}{}",
        init.out,
        init.err
    );
    let check = place.run("check");
    assert_eq!(check.exit, 10, "{}{}", check.out, check.err);
    assert!(check.out.contains(words), "{}{}", check.out, check.err);
    let run = place.run("backup main --progress none");
    assert_eq!(run.exit, 5, "{}", run.err);
    assert!(run.err.contains(words), "{}", run.err);
    assert!(
        run.err.contains("name the primary in the connection string"),
        "{}",
        run.err
    );
    assert!(!place.directory.join("backups/postgres-backups/data").exists());
    let begun = || standby.log().contains("BASE_BACKUP");
    assert!(!begun(), "{}", standby.log());
    // Promoted, it is one no more.
    standby.promote().await;
    assert_eq!(place.run("check").exit, 0);
    let run = place.run("backup main --progress none");
    assert_eq!(run.exit, 0, "{}", run.err);
    assert!(begun(), "the log tells of one");
    let into = standby.room().path().join("copy");
    let line = format!(
        "restore main --to immediate --progress none --into {}",
        into.display()
    );
    let run = place.run(&line);
    assert_eq!(run.exit, 0, "{}", run.err);
    let copy = PgServer::start_on(&into, &[]).await.unwrap();
    assert_eq!(copy.value("SELECT count(*) || ' ' || max(n) FROM t").await, "1 1");
}
