//! What a restore says: its numbers, its progress, and that a refusal comes before any claim.

use crate::live::{CONFIRMED, start_stream, stop_copy, stop_stream, until};
use crate::program::Place;
use backstay_testkit::pg::{Owner, PgServer, free_port};
use serde_json::Value;
use std::net::TcpListener;
use std::os::unix::fs::symlink;

/// A server, and a place in which it was streamed beyond its backup.
async fn streamed() -> (PgServer, Place) {
    let server = PgServer::start().await;
    let place = Place::with_program(server.room().path().join("place")).serving(&server);
    let stream = start_stream(&place);
    until(&server, "SELECT count(*)::text FROM pg_stat_replication", "1").await;
    assert_eq!(place.run("backup main --progress none").exit, 0);
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        .await;
    until(&server, CONFIRMED, "true").await;
    stop_stream(stream);
    (server, place)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_the_progress_and_the_result_name_the_same_bytes_and_progress_ends_at_all_of_them() {
    let (_server, place) = streamed().await;
    for (target, into) in [("latest", "copy"), ("immediate", "itself")] {
        let line = format!("restore main --to {target} --into {into} --json --progress json");
        let plan = json(&place.run(&format!("{line} --plan")).out)["plan"].clone();
        let run = place.run(&line);
        assert_eq!(run.exit, 0, "{}", run.err);
        let done = json(&run.out);
        assert_eq!(
            (&done["files"], &done["bytes"]),
            (&plan["files"], &plan["bytes"]),
            "{target}"
        );
        assert_eq!(done["plan"], plan, "{target}");
        let last = run
            .err
            .lines()
            .rfind(|line| line.contains("\"phase\":\"restore\""))
            .unwrap();
        let last = json(last)["progress"].clone();
        assert_eq!(
            (&last["bytes_done"], &last["bytes_total"]),
            (&done["bytes"], &done["bytes"]),
            "{target}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_comes_before_the_plan_claims_anything_and_touches_nothing() {
    let (_server, place) = streamed().await;
    let begins = |line: &str, error: &str| {
        let run = place.run(line);
        assert_eq!(run.exit, 5, "{line}: {}", run.err);
        assert_eq!(run.out, "", "{line}");
        assert!(run.err.starts_with(error), "{line}: {}", run.err);
        run.err
    };
    std::fs::create_dir(place.directory.join("used")).unwrap();
    place.write("used/precious", "");
    let error = "error[BKS-5007]: ";
    for line in [
        "restore main --into used --confirm",
        "restore main --into used --plan",
    ] {
        assert!(begins(line, error).contains("it holds precious"));
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let line = format!("restore main --into copy --start --port {port}");
    let said = begins(
        &line,
        &format!("error[BKS-5007]: port {port} is in use on 127.0.0.1"),
    );
    assert!(said.contains("--port 5434"), "{said}");
    assert!(!place.directory.join("copy").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn links_and_pipes_in_the_repository_stop_no_restore_and_verify_names_them() {
    let (server, place) = streamed().await;
    let backups = place.directory.join("backups");
    let mut ranges = backups.join("wal-archive/live/main");
    while std::fs::read_dir(&ranges)
        .unwrap()
        .all(|entry| entry.unwrap().path().is_dir())
    {
        ranges = std::fs::read_dir(&ranges)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
    }
    symlink("/etc", ranges.join("0000")).unwrap();
    symlink("/etc/passwd", ranges.join("zzzz")).unwrap();
    symlink("/nowhere", backups.join("wal-archive/held")).unwrap();
    std::fs::create_dir_all(ranges.join("empty/inside")).unwrap();
    let pipe = std::process::Command::new("mkfifo")
        .arg(ranges.join("0001"))
        .status();
    assert!(pipe.unwrap().success());

    let run = place.run("restore main --to latest --into copy --progress none");
    assert_eq!(run.exit, 0, "{}", run.err);
    let name = format!("{}/0000", ranges.strip_prefix(&backups).unwrap().display());
    assert_eq!(run.err.matches(&name).count(), 1, "{}", run.err);
    assert!(run.err.contains("is passed over"), "{}", run.err);
    let verified = place.run("verify main --depth list --json --no-record");
    assert_eq!(verified.exit, 9, "{}", verified.err);
    let found = json(&verified.out)["findings"].to_string();
    for object in [&name, "wal-archive/held"] {
        assert!(found.contains(object), "{object}: {found}");
    }
    // What a link hides cannot be told from what is gone.
    let expired = place.run("expire main");
    assert_eq!(expired.exit, 5, "{}{}", expired.out, expired.err);
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_a_backup_beyond_the_log_as_a_point_and_says_that_latest_is_refused() {
    let (server, place) = streamed().await;
    let before = place.run("status");
    assert!(!before.out.contains("latest"), "{}", before.out);
    server.sql("SELECT pg_switch_wal()").await;
    assert_eq!(place.run("backup main --progress none").exit, 0);
    let refused = place.run("restore main --to latest --plan");
    assert_eq!(refused.exit, 6, "{}", refused.err);
    let what = refused.err.lines().next().unwrap().split_once("]: ").unwrap().1;
    let status = place.run("status");
    let line = status.out.lines().find(|line| line.starts_with("main")).unwrap();
    assert!(
        line.contains("warn") && line.contains(", at 20"),
        "{}",
        status.out
    );
    let complaint =
        format!("main: --to latest is refused: {what}\n  next: recover the backup itself: --to immediate");
    assert!(status.out.contains(&complaint), "{}", status.out);
    let told = json(&place.run("status --json").out);
    assert_eq!(told["services"][0]["latest_refused"], what);
    assert_eq!(told["services"][0]["points"], 1);
    // What is named as the way out is one.
    let itself = place.run("restore main --to immediate --plan");
    assert_eq!(itself.exit, 0, "{}", itself.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_transaction_of_a_started_copy_is_the_last_one_that_it_holds() {
    let server = PgServer::start().await;
    let place = Place::with_program(server.room().path().join("place")).serving(&server);
    let stream = start_stream(&place);
    until(&server, "SELECT count(*)::text FROM pg_stat_replication", "1").await;
    assert_eq!(place.run("backup main --progress none").exit, 0);
    server.sql("CREATE TABLE t (n int)").await;
    let inserted =
        "WITH i AS (INSERT INTO t VALUES (1) RETURNING 1) SELECT pg_current_xact_id()::text FROM i";
    let transaction = server.value(inserted).await;
    until(&server, CONFIRMED, "true").await;
    stop_stream(stream);
    Owner::find().take(&place.directory).unwrap();
    let plan = place.run(&format!("restore main --to xid:{transaction} --plan --json"));
    let commit = json(&plan.out)["plan"]["stop"]["time"]
        .as_str()
        .unwrap()
        .to_owned();
    for action in ["pause", "promote", "shutdown"] {
        let restore = |into: &str, form: &str| {
            let port = free_port();
            let run = place.run(&format!(
                "restore main --to xid:{transaction} --into {into} --start --action {action} --port {port} --confirm --progress none{form}"
            ));
            assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
            run.out
        };
        let into = format!("{action}-told");
        let told = json(&restore(&into, " --json"));
        stop_copy(&place, &into).await;
        assert_eq!(told["evidence"]["last_transaction"], *commit, "{action}");
        if action == "pause" {
            let told = restore("said", "");
            stop_copy(&place, "said").await;
            assert!(
                told.contains(&format!("last      transaction at {commit}\n")),
                "{told}"
            );
        }
    }
}
