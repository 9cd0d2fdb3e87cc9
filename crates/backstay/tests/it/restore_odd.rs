//! Clusters that are not as initdb makes them by default.

use crate::live::{CONFIRMED, start_stream, stop_copy, stop_stream, until};
use crate::program::{Place, Run};
use crate::tree::tree;
use backstay_postgres::{Connection, Mode};
use backstay_testkit::pg::{PgServer, Stop, free_port, parse};
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

async fn run_sql(conninfo: &str, statements: &[&str]) -> String {
    let mut connection = Connection::connect(&parse(conninfo), Mode::Sql).await.unwrap();
    let mut last = String::new();
    for statement in statements {
        let sets = connection.simple_query(statement).await.unwrap();
        let value = sets.first().and_then(|set| set.rows.first()?.first()?.clone());
        last = value.unwrap_or_default();
    }
    last
}

fn restore(place: &Place, into: &str, words: &str) -> Run {
    let port = free_port();
    let line =
        format!("restore main --to immediate --into {into} --start --json --progress none --port {port}");
    place.run(format!("{line} {words}").trim_end())
}

/// As a person does it who knows PostgreSQL.
async fn stop_by_hand(place: &Place, into: &str) {
    let lock = place.directory.join(into).join("postmaster.pid");
    let text = std::fs::read_to_string(&lock).unwrap();
    let process = text.lines().next().unwrap();
    let sent = Command::new("kill").args(["-INT", process]).status();
    assert!(sent.unwrap().success());
    let deadline = Instant::now() + Duration::from_secs(60);
    while lock.exists() {
        assert!(Instant::now() < deadline, "it goes on running");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_another_superuser_and_no_database_postgres_is_proved_too() {
    let server = PgServer::start().await;
    let socket = format!("host={} port={}", server.socket_dir().display(), server.port());
    let of = |user: &str, database: &str| format!("{socket} user={user} dbname={database}");
    server.sql("CREATE ROLE helper SUPERUSER LOGIN").await;
    server.sql("CREATE DATABASE shop").await;
    let renamed = [
        "ALTER ROLE postgres RENAME TO chief",
        "DROP DATABASE postgres WITH (FORCE)",
    ];
    run_sql(&of("helper", "shop"), &renamed).await;
    run_sql(
        &of("chief", "shop"),
        &["CREATE TABLE t AS SELECT generate_series(1, 42) AS n"],
    )
    .await;
    let place = Place::with_program(server.room().path().join("place"));
    let run = place.init(&of("chief", "shop"));
    assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
    let run = place.run("backup main --progress none");
    assert_eq!(run.exit, 0, "{}", run.err);

    let run = restore(&place, "copy", "");
    assert_eq!(run.exit, 0, "{}", run.err);
    let told: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(
        told["evidence"]["rows"],
        serde_json::json!([["shop", "public.t", 42]])
    );
    let connect = told["evidence"]["connect"].as_str().unwrap();
    assert!(connect.ends_with("user=chief dbname=template1"), "{connect}");
    let rows = run_sql(&connect.replace("template1", "shop"), &["SELECT sum(n) FROM t"]).await;
    assert_eq!(rows, (42 * 43 / 2).to_string());
    stop_by_hand(&place, "copy").await;
    let sockets = Path::new(connect.split(['=', ' ']).nth(1).unwrap());
    assert!(sockets.is_dir(), "{connect}");
    let hours_ago = SystemTime::now() - Duration::from_secs(2 * 3600);
    File::open(sockets).unwrap().set_modified(hours_ago).unwrap();

    // A name by hand comes first; one that the cluster does not know is not the end.
    let run = restore(&place, "second", "--superuser helper");
    assert!(run.out.contains("user=helper"), "{}{}", run.out, run.err);
    assert!(
        !sockets.exists(),
        "the next start removes what the first copy left"
    );
    stop_copy(&place, "second").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superuser_that_the_copy_does_not_know_is_named_before_another_role_asks_it() {
    let server = PgServer::start().await;
    let place = Place::with_program(server.room().path().join("place")).serving(&server);
    let run = place.run("backup main --progress none");
    assert_eq!(run.exit, 0, "{}", run.err);
    let run = restore(&place, "copy", "--superuser nobody --log-format json");
    assert_eq!(run.exit, 0, "{}", run.err);
    let told: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    let connect = told["evidence"]["connect"].as_str().unwrap();
    assert!(connect.contains(" user=postgres "), "{connect}");
    stop_copy(&place, "copy").await;
    let message = "the copy does not let this role in, so another one asks it";
    let warned: Vec<&str> = run.err.lines().filter(|line| line.contains(message)).collect();
    assert_eq!(warned.len(), 1, "{}", run.err);
    for fact in ["WARN", "\"role\":\"nobody\"", "\"instead\":\"postgres\""] {
        assert!(warned[0].contains(fact), "{fact}: {}", run.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tablespace_that_the_log_makes_is_never_recovered_into_the_one_of_the_source() {
    let mut server = PgServer::start().await;
    let place = Place::with_program(server.room().path().join("place")).serving(&server);
    let stream = start_stream(&place);
    let run = place.run("backup main --progress none");
    assert_eq!(run.exit, 0, "{}", run.err);
    let fast = server.room().dir("fast");
    let made = format!("CREATE TABLESPACE fast LOCATION '{}'", fast.display());
    server.sql(&made).await;
    server
        .sql("CREATE TABLE t TABLESPACE fast AS SELECT generate_series(1, 1000) AS n")
        .await;
    until(&server, CONFIRMED, "true").await;
    stop_stream(stream);
    let whole = tree(&fast);
    assert!(whole.len() > 2, "{whole:?}");

    // On the machine of the source, where its files are.
    let latest = |into: &str| {
        let port = free_port();
        place.run(&format!(
            "restore main --to latest --into {into} --start --json --progress none --port {port}"
        ))
    };
    let run = latest("beside");
    assert_eq!(run.exit, 5, "{}{}", run.out, run.err);
    let said = format!("makes a tablespace in {}", fast.display());
    assert!(run.err.contains(&said), "{}", run.err);
    assert!(
        run.err.contains("may hold the files of the source itself"),
        "{}",
        run.err
    );
    assert!(!place.directory.join("beside").exists());
    let plan = place.run("restore main --to latest --plan");
    assert!(plan.out.contains(&fast.display().to_string()), "{}", plan.out);
    let before = restore(&place, "before", "");
    assert_eq!(before.exit, 0, "{}", before.err);
    stop_copy(&place, "before").await;
    assert_eq!(tree(&fast), whole, "the source's files are as they were");

    // On another machine the directory is there and empty.
    server.stop(Stop::Fast).await;
    std::fs::rename(&fast, fast.with_extension("source")).unwrap();
    server.room().dir("fast");
    let run = latest("elsewhere");
    assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
    let told: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    let connect = told["evidence"]["connect"].as_str().unwrap();
    assert_eq!(run_sql(connect, &["SELECT sum(n) FROM t"]).await, "500500");
    stop_copy(&place, "elsewhere").await;
}
