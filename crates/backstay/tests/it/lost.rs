//! What was stored once and is gone: named by `status` and `list`, never gone back behind in silence, and no reason to say
//! nothing of other services.

use crate::golden::assert_shape;
use crate::live::{CONFIRMED, start_stream, stop_stream, stream_log, until};
use crate::program::Place;
use backstay_testkit::pg::PgServer;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A place with a backup of a table of 100 rows.
async fn scene() -> (PgServer, Place) {
    let server = PgServer::start().await;
    let place = Place::new().serving(&server);
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 100) AS n")
        .await;
    (server, place)
}

/// The same with 100 rows more in the stored log; the stream has stopped.
async fn followed() -> (PgServer, Place) {
    let (server, place) = scene().await;
    let stream = start_stream(&place);
    until(&server, CONFIRMED, "true").await;
    backup(&place);
    server.sql("INSERT INTO t SELECT generate_series(101, 200)").await;
    until(&server, CONFIRMED, "true").await;
    stop_stream(stream);
    (server, place)
}

fn backup(place: &Place) -> String {
    let run = place.run("backup main --progress none --json");
    assert_eq!(run.exit, 0, "{}", run.err);
    let told: Value = serde_json::from_str(&run.out).unwrap();
    told["backup"]["backup"].as_str().unwrap().to_owned()
}

fn files(at: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

/// Removes the files below a folder of the repository whose path holds this.
fn remove(place: &Place, folder: &str, part: &str) {
    let mut found = Vec::new();
    files(&place.directory.join("backups").join(folder), &mut found);
    found.retain(|path| path.display().to_string().contains(part));
    assert!(!found.is_empty(), "{folder} {part}");
    for path in found {
        std::fs::remove_file(path).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newest_backup_that_is_gone_is_named_and_an_older_one_is_restored_only_by_name() {
    let (server, place) = scene().await;
    let older = backup(&place);
    server.sql("INSERT INTO t SELECT 101").await;
    let newest = backup(&place);
    remove(&place, "postgres-backups/manifests", &newest);

    let list = place.run("list");
    let row = list.out.lines().find(|line| line.starts_with(&newest)).unwrap();
    assert!(row.ends_with("lost"), "{}", list.out);
    assert!(list.err.contains(&newest), "{}", list.err);
    let status = place.run("status");
    assert!(status.out.contains("failing"), "{}", status.out);
    let complaint = format!("main: backup {newest} is gone: the run ");
    assert!(status.out.contains(&complaint), "{}", status.out);
    for to in ["immediate", "latest"] {
        let refused = place.run(&format!("restore main --to {to} --plan"));
        assert_eq!(refused.exit, 9, "{to}: {}{}", refused.out, refused.err);
        assert!(refused.err.contains(&newest), "{}", refused.err);
        let advice = format!("--base {older} --to immediate");
        assert!(refused.err.contains(&advice), "{}", refused.err);
    }
    let into = server.room().path().join("copy");
    let run = place.run(&format!(
        "restore main --confirm --progress none --into {} --base {older} --to immediate",
        into.display()
    ));
    assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
    let copy = PgServer::start_on(&into, &[]).await.unwrap();
    assert_eq!(copy.value("SELECT count(*)::text FROM t").await, "100");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_that_is_lost_of_one_service_is_said_of_it_and_others_are_spoken_of() {
    let (server, place) = scene().await;
    let stream = start_stream(&place);
    let attached =
        "SELECT count(*)::text FROM pg_replication_slots WHERE active AND slot_name = 'backstay_main'";
    until(&server, attached, "1").await;
    backup(&place);
    server.sql("INSERT INTO t SELECT generate_series(101, 200)").await;
    until(&server, CONFIRMED, "true").await;
    stop_stream(stream);
    let config = std::fs::read_to_string(place.directory.join("backstay.yaml")).unwrap();
    let other = format!(
        "{}\n  other:\n    postgresql: \"{}\"\n",
        config.trim_end(),
        server.conninfo_text()
    );
    place.write("backstay.yaml", other);
    let taken = place.run("backup other --progress none");
    assert_eq!(taken.exit, 0, "{}", taken.err);

    // All of its log, and what else lies beside it.
    let (wal, aside) = (
        place.directory.join("backups/wal-archive"),
        place.directory.join("aside"),
    );
    std::fs::rename(&wal, &aside).unwrap();
    let status = place.run("status --json");
    assert_eq!(status.exit, 0, "{}", status.err);
    assert_shape("status-lost", &status.out);
    let told: Value = serde_json::from_str(&status.out).unwrap();
    let state = |told: &Value, name: &str| {
        let services = told["services"].as_array().unwrap().clone();
        let mut named = services.into_iter().filter(|service| service["service"] == name);
        named.next().unwrap()
    };
    assert_eq!(state(&told, "main")["state"], "failing", "{}", status.out);
    let refused = state(&told, "main")["latest_refused"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        refused.starts_with("all log of main is lost: the run "),
        "{refused}"
    );
    assert_eq!(
        state(&told, "other")["latest_refused"],
        Value::Null,
        "{}",
        status.out
    );
    let latest = place.run("restore main --to latest --plan");
    assert_eq!(latest.exit, 9, "{}{}", latest.out, latest.err);
    assert_eq!(place.run("verify main").exit, 9);
    std::fs::rename(&aside, &wal).unwrap();

    // The keys of its log alone.
    remove(&place, "wal-archive/keys", "main");
    for command in ["status", "list", "window"] {
        let run = place.run(&format!("{command} --json"));
        assert_eq!(run.exit, 0, "{command}: {}{}", run.out, run.err);
        assert_shape(&format!("{command}-closed"), &run.out);
        let told: Value = serde_json::from_str(&run.out).unwrap();
        let unreadable = |name: &str| state(&told, name)["unreadable"].as_array().unwrap().len();
        assert_eq!(
            (unreadable("main"), unreadable("other")),
            (1, 0),
            "{command}: {}",
            run.out
        );
    }
    let told: Value = serde_json::from_str(&place.run("status --json").out).unwrap();
    assert_eq!(
        (&state(&told, "main")["state"], &state(&told, "other")["state"]),
        (&"failing".into(), &"ok".into())
    );
    assert_eq!(place.run("restore main --to latest --plan").exit, 11);
}

/// What a text says after the first of these words, up to the end of the line.
fn line_after<'a>(text: &'a str, before: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{text}"));
    rest.lines().next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_epoch_whose_keys_are_gone_is_a_failure_and_its_log_is_not_called_whole() {
    let (server, place) = followed().await;
    assert_eq!(status_of(&place).0, "ok");
    let whole = "no gaps: the stored log is whole from its first byte to its last\n";
    assert_eq!(place.run("wal gaps").out, whole);

    remove(&place, "wal-archive/keys", "main");
    let refused = place.run("restore main --to latest --plan --json");
    assert_eq!(refused.exit, 11, "{}{}", refused.out, refused.err);
    let (state, said) = status_of(&place);
    assert_eq!(state, "failing", "{said}");
    assert_eq!(place.run("status --exit-code").exit, 10);
    let why = line_after(&said, "✗ main: --to latest is refused: ");
    assert!(
        refused.err.contains(why) || refused.out.contains(why),
        "{why}: {}{}",
        refused.out,
        refused.err
    );
    let target = line_after(&said, "to the last point before it: ")
        .split(';')
        .next()
        .unwrap();
    let into = server.room().path().join("before");
    let run = place.run(&format!(
        "restore main --confirm --progress none --into {} {target}",
        into.display()
    ));
    assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
    let copy = PgServer::start_on(&into, &[]).await.unwrap();
    assert_eq!(copy.value("SELECT count(*)::text FROM t").await, "100");

    let gaps = place.run("wal gaps");
    assert!(!gaps.out.contains("whole"), "{}", gaps.out);
    assert!(
        gaps.out.contains(" of the log cannot be opened, the first from "),
        "{}",
        gaps.out
    );
    assert!(gaps.out.contains("next: backstay verify main"), "{}", gaps.out);
    let gaps = place.run("wal gaps --json").out;
    assert_shape("gaps-closed", &gaps);
    let told: Value = serde_json::from_str(&gaps).unwrap();
    let epoch = told["unreadable"][0]["object"].as_str().unwrap().to_owned();
    assert_eq!(told["unreadable"][0]["service"], "main");
    let verified = place.run("verify main --depth list");
    assert_eq!(verified.exit, 9, "{}", verified.out);
    let finding = format!("✗ KEY-2  {epoch}: no wrap of its keys is stored: ");
    let (_, found) = verified
        .out
        .split_once(&finding)
        .unwrap_or_else(|| panic!("{}", verified.out));
    let next = found.lines().nth(1).unwrap();
    let wraps = format!(
        "  next: bring wal-archive/keys/main/{}.* back ",
        epoch.rsplit_once('/').unwrap().1
    );
    assert!(
        next.starts_with(&wraps) && next.ends_with("backstay backup main"),
        "{next}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lineage_that_no_record_tells_of_makes_latest_a_failure_that_says_what_to_type() {
    let (server, place) = followed().await;
    let mut records = Vec::new();
    files(&place.directory.join("backups/wal-archive/lineage"), &mut records);
    assert!(!records.is_empty());
    for record in records {
        std::fs::write(record, "").unwrap();
    }
    let stream = start_stream(&place);
    until(&server, CONFIRMED, "true").await;
    server.sql("INSERT INTO t SELECT generate_series(201, 300)").await;
    until(&server, CONFIRMED, "true").await;
    stop_stream(stream);
    let (state, said) = status_of(&place);
    assert_eq!(state, "failing", "{said}");
    let why = line_after(&said, "✗ main: --to latest is refused: ");
    assert!(
        why.starts_with("which lineage of main is the newest cannot be told: "),
        "{why}"
    );
    let refused = place.run("restore main --to latest --plan");
    assert_eq!(refused.exit, 9, "{}{}", refused.out, refused.err);
    assert!(refused.err.contains(why), "{}", refused.err);
    // What it says to type restores what was stored of either.
    let typed = line_after(&said, "say which one is meant: backstay restore main ");
    let lineages: Vec<&str> = typed.split(';').next().unwrap().split(" or ").collect();
    assert_eq!(lineages.len(), 2, "{typed}");
    let into = server.room().path().join("copy");
    let restore = |lineage: &str| {
        place.run(&format!(
            "restore main --confirm --progress none --into {} {lineage}",
            into.display()
        ))
    };
    let (first, second) = (restore(lineages[0]), restore(lineages[1]));
    assert!(first.exit == 0 || second.exit == 0, "{}{}", first.err, second.err);
    let copy = PgServer::start_on(&into, &[]).await.unwrap();
    assert_eq!(copy.value("SELECT count(*)::text FROM t").await, "200");
    drop(copy);

    // A person's word ends it, and a backup of the lineage that was chosen makes latest whole again.
    let adopt = line_after(&said, "for good: backstay ")
        .split(';')
        .next()
        .unwrap();
    let run = place.run(adopt);
    assert_eq!(run.exit, 0, "{adopt}: {}{}", run.out, run.err);
    assert!(run.out.contains("\nkept "), "{}", run.out);
    let again = place.run(adopt);
    assert!(again.out.starts_with("present "), "{}{}", again.out, again.err);
    let stream = start_stream(&place);
    backup(&place);
    until(&server, CONFIRMED, "true").await;
    stop_stream(stream);
    assert_ne!(status_of(&place).0, "failing", "{}", status_of(&place).1);
    let into = server.room().path().join("latest");
    let run = place.run(&format!(
        "restore main --to latest --confirm --progress none --into {}",
        into.display()
    ));
    assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
    let copy = PgServer::start_on(&into, &[]).await.unwrap();
    assert_eq!(copy.value("SELECT count(*)::text FROM t").await, "300");
}

/// What status says of `main`: its state, and everything in words.
fn status_of(place: &Place) -> (String, String) {
    let told: Value = serde_json::from_str(&place.run("status --json").out).unwrap();
    let state = told["services"][0]["state"].as_str().unwrap().to_owned();
    (state, place.run("status").out)
}

#[tokio::test(flavor = "multi_thread")]
async fn log_that_is_lost_stays_said_when_a_stream_attaches_again_and_a_backup_follows() {
    let (server, place) = scene().await;
    let stream = start_stream(&place);
    let attached =
        "SELECT count(*)::text FROM pg_replication_slots WHERE active AND slot_name = 'backstay_main'";
    until(&server, attached, "1").await;
    let older = backup(&place);
    server.sql("INSERT INTO t SELECT generate_series(101, 200)").await;
    let there = server.value("SELECT pg_current_wal_lsn()::text").await;
    server.sql("INSERT INTO t SELECT generate_series(201, 300)").await;
    until(&server, CONFIRMED, "true").await;
    stop_stream(stream);
    assert_eq!(status_of(&place).0, "ok");
    assert_eq!(
        place.run(&format!("restore main --to lsn:{there} --plan")).exit,
        0
    );

    // Cut to nothing: the names alone are there.
    let (wal, aside) = (
        place.directory.join("backups/wal-archive"),
        place.directory.join("aside"),
    );
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&wal, &aside])
        .status();
    assert!(copied.unwrap().success());
    let mut found = Vec::new();
    files(&wal, &mut found);
    let is_range = |path: &PathBuf| {
        let path = path.display().to_string();
        path.contains("/live/") || path.contains("/settled/")
    };
    for path in found.into_iter().filter(is_range) {
        std::fs::write(path, "").unwrap();
    }
    let (state, said) = status_of(&place);
    assert_eq!(state, "failing", "{said}");
    assert!(said.contains("is lost: "), "{said}");
    assert_eq!(place.run("restore main --to latest --plan").exit, 9);
    let verified = place.run("verify main --depth list");
    assert_eq!(verified.exit, 9, "{}", verified.out);
    assert!(!place.run("wal gaps").out.contains("no gaps"));
    std::fs::remove_dir_all(&wal).unwrap();
    std::fs::rename(&aside, &wal).unwrap();
    assert_eq!(place.run("verify main").exit, 0);
    assert_eq!(status_of(&place).0, "ok");

    // All of it, and then a stream goes on.
    std::fs::remove_dir_all(&wal).unwrap();
    let stream = start_stream(&place);
    until(&server, attached, "1").await;
    server.sql("INSERT INTO t SELECT generate_series(301, 400)").await;
    until(&server, CONFIRMED, "true").await;
    let log = stream_log(&place);
    assert!(log.contains("stored log is gone from the repository"), "{log}");
    assert!(log.contains("the record of the run "), "{log}");
    let (state, said) = status_of(&place);
    assert_eq!(state, "failing", "{said}");
    assert!(said.contains("is lost: the record of the run "), "{said}");
    let lost = format!("restore main --to lsn:{there} --plan");
    let refused = place.run(&lost);
    assert_eq!(refused.exit, 9, "{}{}", refused.out, refused.err);

    // A backup makes it no failure any more, and what was lost stays lost.
    let newer = backup(&place);
    server.sql("INSERT INTO t SELECT generate_series(401, 500)").await;
    until(&server, CONFIRMED, "true").await;
    stop_stream(stream);
    let (state, said) = status_of(&place);
    assert_eq!(state, "warn", "{said}");
    assert!(said.contains("is lost: the record of the run "), "{said}");
    let gaps = place.run("wal gaps --json");
    assert!(gaps.out.contains("the record of the run "), "{}", gaps.out);
    assert_eq!(place.run(&lost).exit, 9);
    for depth in ["list", "structure", "everything"] {
        assert_eq!(
            place.run(&format!("verify main --depth {depth}")).exit,
            9,
            "{depth}"
        );
    }
    let into = server.room().path().join("copy");
    let run = place.run(&format!(
        "restore main --confirm --progress none --into {} --to latest",
        into.display()
    ));
    assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
    let copy = PgServer::start_on(&into, &[]).await.unwrap();
    assert_eq!(copy.value("SELECT count(*)::text FROM t").await, "500");

    // A backup that is not the newest one.
    remove(&place, "postgres-backups/manifests", &older);
    let list = place.run("list");
    let row = list.out.lines().find(|line| line.starts_with(&older)).unwrap();
    assert!(row.ends_with("lost"), "{}", list.out);
    let (state, said) = status_of(&place);
    assert_eq!(state, "warn", "{said}");
    assert!(said.contains(&format!("backup {older} is gone")), "{said}");
    let refused = place.run(&lost);
    assert_eq!(refused.exit, 9, "{}{}", refused.out, refused.err);
    let plan = place.run("restore main --to latest --plan");
    assert!(plan.out.contains(&newer), "{}{}", plan.out, plan.err);
}
