//! Tablespaces in pg_tblspc itself, which a base backup of PostgreSQL 15 leaves out without a word.

use crate::golden::assert_shape;
use crate::live::{CONFIRMED, connect_to_copy, start_stream, stop_copy, stop_stream, until};
use crate::program::Place;
use crate::tree::tree;
use backstay_testkit::pg::{PgOptions, PgServer, free_port};

const INSIDE: &str = "CREATE TABLESPACE inside LOCATION ''";
const TABLE: &str = "CREATE TABLE t TABLESPACE inside AS SELECT generate_series(1, 1000) AS n";

async fn server() -> PgServer {
    PgServer::start_with(PgOptions {
        conf: vec!["allow_in_place_tablespaces = on".to_owned()],
        ..PgOptions::default()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_would_lack_a_tablespace_is_refused_and_nothing_of_it_is_stored() {
    let server = server().await;
    let place = Place::with_program(server.room().path().join("place"));
    // A role that may do nothing but replicate sees it too.
    server.sql("CREATE ROLE copier REPLICATION LOGIN").await;
    let conninfo = server.conninfo_text().replace("user=postgres", "user=copier");
    let run = place.init(&conninfo);
    assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
    server.sql(INSIDE).await;
    server.sql(TABLE).await;

    let run = place.run("backup main --progress none");
    assert_eq!(run.exit, 5, "{}{}", run.out, run.err);
    let said =
        "tablespace \"inside\": a base backup of PostgreSQL 15 leaves out what lies in pg_tblspc itself";
    assert!(run.err.contains(said), "{}", run.err);
    assert!(
        run.err
            .contains("ALTER TABLE ALL IN TABLESPACE name SET TABLESPACE pg_default"),
        "{}",
        run.err
    );
    let stored = tree(&place.directory.join("backups"));
    let of_a_backup = |path: &&std::path::PathBuf| {
        let path = path.to_str().unwrap();
        ["packs", "manifests"].iter().any(|part| path.contains(part)) && path.contains("main")
    };
    assert_eq!(stored.keys().find(of_a_backup), None);
    let check = place.run("check main");
    assert_eq!(check.exit, 10, "{}{}", check.out, check.err);
    let of_tablespaces = |line: &str| line.starts_with("✗ tablespaces");
    assert!(
        check
            .out
            .lines()
            .any(|line| of_tablespaces(line) && line.contains(said)),
        "{}",
        check.out
    );

    server
        .sql("ALTER TABLE ALL IN TABLESPACE inside SET TABLESPACE pg_default")
        .await;
    server.sql("DROP TABLESPACE inside").await;
    let run = place.run("backup main --progress none");
    assert_eq!(run.exit, 0, "{}", run.err);
    let check = place.run("check main");
    assert!(
        !check.out.lines().any(of_tablespaces),
        "{}{}",
        check.out,
        check.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tablespace_that_is_made_in_pg_tblspc_after_the_backup_comes_back_from_the_log() {
    let server = server().await;
    let place = Place::with_program(server.room().path().join("place")).serving(&server);
    let stream = start_stream(&place);
    let run = place.run("backup main --progress none");
    assert_eq!(run.exit, 0, "{}", run.err);
    server.sql(INSIDE).await;
    server.sql(TABLE).await;
    until(&server, CONFIRMED, "true").await;
    stop_stream(stream);

    let port = free_port();
    let line = format!("restore main --to latest --into copy --start --json --progress none --port {port}");
    let run = place.run(&line);
    assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
    assert_shape("restored-started", &run.out);
    let told: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    let mut connection = connect_to_copy(&told).await;
    let sets = connection
        .simple_query("SELECT count(*), sum(n) FROM t")
        .await
        .unwrap();
    assert_eq!(
        sets[0].rows[0],
        [Some("1000".to_owned()), Some("500500".to_owned())]
    );
    stop_copy(&place, "copy").await;
}
