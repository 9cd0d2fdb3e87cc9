//! Restoring without Backstay: `scripts/restore.py` on what this program wrote, with nothing but the key.

mod golden;
mod two_servers;

use crate::stream::end_of_log;
use backstay_clock::SystemClock;
use backstay_codec::{Passphrase, SecretKey, age_recipient_of, print_master_key};
use backstay_engine::Silent;
use backstay_engine::jobs::backup::BackupJob;
use backstay_repository::{Recipient, Repository, SystemChance};
use backstay_scenarios::World;
use backstay_source::Checkpoint;
use backstay_store::LocalDirectory;
use backstay_terms::RetentionClass;
use backstay_testkit::pg::{PgServer, Room, Stop, binary, run_to_end};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn script_path() -> PathBuf {
    root().join("scripts/restore.py")
}

/// Debian's Python, because that is what a person will have; another one may come first on PATH.
fn script(repository: &Path, key: &[impl AsRef<std::ffi::OsStr>]) -> Command {
    let mut script = Command::new("/usr/bin/python3");
    script.arg(script_path()).arg(repository).args(key);
    script
}

fn restore(repository: &Path, key: &Path, source: &str, into: &Path, more: &[&str]) {
    let mut script = script(repository, &[Path::new("--key-file"), key]);
    script
        .args(["--source", source])
        .arg("--into")
        .arg(into)
        .args(more);
    run_to_end(&mut script);
}

/// Starts what was restored and waits until it has been promoted.
async fn ask(data: &Path, sql: &str) -> String {
    let mut server = PgServer::start_on(data, &[]).await.unwrap();
    while server.value("SELECT pg_is_in_recovery()").await != "f" {}
    let answer = server.value(sql).await;
    server.stop(Stop::Fast).await;
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_restores_a_base_with_its_log_and_without() {
    let server = PgServer::start().await;
    let room = Room::new();
    let (world, repository, key_file) = one_key(&room).await;
    let source = world.source(server.conninfo());
    let running = world.stream(source.clone());
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        .await;
    world.backup(source, &server.room().dir("scratch")).await.unwrap();
    server
        .sql("INSERT INTO t SELECT generate_series(1001, 30000)")
        .await;
    running.until_durable(end_of_log(&server).await).await;
    // Live ranges alone hold the end: the stream dies before it settles.
    running.kill().await;

    let whole = room.path().join("whole");
    restore(&repository, &key_file, "orders", &whole, &[]);
    assert_eq!(
        ask(&whole, "SELECT count(*) || ':' || sum(n) FROM t").await,
        "30000:450015000"
    );
    let alone = room.path().join("alone");
    restore(&repository, &key_file, "orders", &alone, &["--no-log"]);
    assert_eq!(
        ask(&alone, "SELECT count(*) || ':' || sum(n) FROM t").await,
        "1000:500500"
    );
}

/// A repository in a directory of the room, and the file of the key that opens it.
async fn one_key(room: &Room) -> (World, PathBuf, PathBuf) {
    let key = SecretKey::generate().unwrap();
    let key_file = room.path().join("backstay.key");
    std::fs::write(&key_file, format!("{}\n", *print_master_key(&key))).unwrap();
    let repository = room.path().join("repository");
    let store = LocalDirectory::create(&repository, Arc::new(SystemClock::new()))
        .await
        .unwrap();
    let world = World::made(Arc::new(store), &key).await;
    (world, repository, key_file)
}

const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
const ROWS: &str = "SELECT count(*) || ':' || sum(n) FROM t";

/// A repository that a raw key, a passphrase and an age identity open, and the options of the script for each.
async fn three_keys(room: &Room) -> (World, PathBuf, [[String; 2]; 3]) {
    let path = |name: &str| room.path().join(name).display().to_string();
    let repository = room.path().join("repository");
    let clock = Arc::new(SystemClock::new());
    let store = LocalDirectory::create(&repository, clock.clone()).await.unwrap();
    let key = SecretKey::generate().unwrap();
    std::fs::write(path("raw"), format!("{}\n", *print_master_key(&key))).unwrap();
    std::fs::write(path("words"), "correct horse battery staple\n").unwrap();
    std::fs::write(path("identity"), IDENTITY).unwrap();
    let recipients = [
        Recipient::Raw(key),
        Recipient::Passphrase(Passphrase::new("correct horse battery staple".to_owned())),
        Recipient::Age(age_recipient_of(IDENTITY).unwrap()),
    ];
    let repository_made = Repository::init(Arc::new(store), clock, Arc::new(SystemChance), &recipients);
    let world = World {
        name: "orders".parse().unwrap(),
        repository: repository_made.await.unwrap(),
    };
    let options = [
        ("--key-file", "raw"),
        ("--passphrase-file", "words"),
        ("--keys-file", "keys"),
    ];
    let options = options.map(|(option, name)| [option.to_owned(), path(name)]);
    (world, repository, options)
}

/// What the script's own header says to type for an age identity.
fn write_keys_file(room: &Room, repository: &Path) {
    let script = std::fs::read_to_string(script_path()).unwrap();
    let told = script
        .lines()
        .find(|line| line.starts_with("  grep -rl"))
        .unwrap();
    let told = told
        .trim_end_matches("\"\"\"")
        .replace("REPO", &repository.display().to_string());
    let told = told.replace(" ID;", &format!(" {};", room.path().join("identity").display()));
    let lines = run_to_end(Command::new("sh").arg("-c").arg(told));
    std::fs::write(room.path().join("keys"), lines).unwrap();
}

/// A copy of the server with its tablespace in another place, which follows it.
async fn standby_of(server: &PgServer, room: &Room, tablespace: &Path) -> (PgServer, PathBuf) {
    let (data, moved) = (room.path().join("standby"), room.path().join("moved"));
    let mut copy = room.owner().command(&binary("pg_basebackup"));
    copy.arg("-d").arg(server.conninfo_text());
    copy.args(["--no-sync", "-c", "fast", "-R", "-X", "stream", "-D"])
        .arg(&data);
    copy.arg("-T")
        .arg(format!("{}={}", tablespace.display(), moved.display()));
    run_to_end(&mut copy);
    (PgServer::start_on(&data, &[]).await.unwrap(), moved)
}

/// Makes what was restored, and its tablespaces, the server's.
fn hand_over(room: &Room, into: &Path) -> PathBuf {
    let tablespaces = PathBuf::from(format!("{}.tablespaces", into.display()));
    room.owner().take(&tablespaces).unwrap();
    tablespaces
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_restores_a_promoted_source_with_a_tablespace() {
    let mut primary = PgServer::start().await;
    let room = Room::new();
    let fast = primary.room().dir("fast");
    primary
        .sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", fast.display()))
        .await;
    primary
        .sql("CREATE TABLE t TABLESPACE fast AS SELECT generate_series(1, 1000) AS n")
        .await;
    let (world, repository, [raw, words, keys]) = three_keys(&room).await;
    let source = world.source(primary.conninfo());
    let running = world.stream(source.clone());
    world.backup(source, &room.dir("scratch")).await.unwrap();
    let (standby, _) = standby_of(&primary, &room, &fast).await;
    primary
        .sql("INSERT INTO t SELECT generate_series(1001, 2000)")
        .await;
    let until = end_of_log(&primary).await;
    let rows_until = primary.value(ROWS).await;
    primary
        .sql("INSERT INTO t SELECT generate_series(2001, 3000)")
        .await;
    let shared = end_of_log(&primary).await;
    let caught_up = format!("SELECT pg_last_wal_replay_lsn() >= '{shared}'::pg_lsn");
    while standby.value(&caught_up).await != "t" {}
    standby.promote().await;
    // Both histories go on.
    primary
        .sql("INSERT INTO t SELECT generate_series(10001, 10100)")
        .await;
    running.until_durable(end_of_log(&primary).await).await;
    running.stop().await.unwrap();
    let rows_old = primary.value(ROWS).await;
    primary.stop(Stop::Fast).await;
    standby
        .sql("INSERT INTO t SELECT generate_series(20001, 20200)")
        .await;
    let running = world.stream(world.source(standby.conninfo()));
    running.until_durable(end_of_log(&standby).await).await;
    running.stop().await.unwrap();
    let rows_new = standby.value(ROWS).await;
    drop(standby);

    let listed = run_to_end(script(&repository, &raw).arg("list"));
    let lineage = |timeline: &str| {
        let line = listed
            .lines()
            .find(|line| line.contains(timeline))
            .expect(&listed);
        line.split(' ').nth(2).unwrap().to_owned()
    };
    let (old, new) = (lineage("timeline 1 "), lineage("timeline 2 "));
    write_keys_file(&room, &repository);
    let until = until.to_string();
    for (name, key, more, rows) in [
        ("newest", words, vec!["--lineage", &new], &rows_new),
        ("old", keys, vec!["--lineage", &old], &rows_old),
        (
            "until",
            raw,
            vec!["--lineage", &new, "--until", &until],
            &rows_until,
        ),
    ] {
        let into = room.path().join(name);
        run_to_end(
            script(&repository, &key)
                .args(["--source", "orders", "--into"])
                .arg(&into)
                .args(more),
        );
        let tablespaces = hand_over(&room, &into);
        let both = format!("SELECT ({ROWS}) || ' ' || left(pg_walfile_name(pg_current_wal_lsn()), 8)");
        // Timeline 2 is in use: each copy is promoted to 3, also the one that never was on 2.
        assert_eq!(ask(&into, &both).await, format!("{rows} 00000003"), "{name}");
        let links = std::fs::read_dir(into.join("pg_tblspc")).unwrap();
        let places: Vec<_> = links
            .map(|link| link.unwrap().path().read_link().unwrap())
            .collect();
        assert_eq!(places.len(), 1, "{name}");
        assert!(places[0].starts_with(&tablespaces), "{name}: {places:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_4_python_never_lets_the_log_write_into_a_tablespace_that_is_there() {
    let mut server = PgServer::start().await;
    let room = Room::new();
    let (world, repository, [raw, ..]) = three_keys(&room).await;
    let source = world.source(server.conninfo());
    let running = world.stream(source.clone());
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        .await;
    world.backup(source, &room.dir("scratch")).await.unwrap();
    server.sql("INSERT INTO t VALUES (1001)").await;
    let before = end_of_log(&server).await.to_string();
    let rows_before = server.value(ROWS).await;
    let late = server.room().dir("late");
    server
        .sql(&format!("CREATE TABLESPACE late LOCATION '{}'", late.display()))
        .await;
    server.sql("ALTER TABLE t SET TABLESPACE late").await;
    let rows = server.value(ROWS).await;
    running.until_durable(end_of_log(&server).await).await;
    running.kill().await;

    let run = |name: &str, more: &[&str]| {
        let into = room.path().join(name);
        let mut command = script(&repository, &raw);
        command
            .args(["--source", "orders", "--into"])
            .arg(&into)
            .args(more);
        (into, command)
    };
    let (into, mut command) = run("refused", &[]);
    let refused = command.output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains(late.to_str().unwrap()),
        "{said}"
    );
    assert!(
        !into.join("global/pg_control").exists(),
        "a server could start on it"
    );

    let (into, mut command) = run("before", &["--until", &before]);
    run_to_end(&mut command);
    assert_eq!(ask(&into, ROWS).await, rows_before);
    assert_eq!(
        server.value(ROWS).await,
        rows,
        "the source still has its own files"
    );

    // As on another machine, where the directory is empty.
    server.stop(Stop::Fast).await;
    std::fs::rename(&late, server.room().path().join("kept")).unwrap();
    server.room().dir("late");
    let (into, mut command) = run("empty", &[]);
    run_to_end(&mut command);
    assert_eq!(ask(&into, ROWS).await, rows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_4_python_refuses_a_base_during_which_a_tablespace_was_made_that_is_there() {
    let server = PgServer::start().await;
    let room = Room::new();
    let (world, repository, [raw, ..]) = three_keys(&room).await;
    let job = BackupJob {
        name: world.name.clone(),
        source: world.source(server.conninfo()),
        repository: world.repository.clone(),
        class: RetentionClass::Days35,
        checkpoint: Checkpoint::Fast,
        rate_max: Some(8192),
        scratch: room.dir("scratch"),
        observer: Arc::new(Silent),
    };
    let backup = tokio::spawn(async move { job.run().await });
    let copies = "SELECT count(*) FROM pg_stat_progress_basebackup WHERE phase = 'streaming database files'";
    while server.value(copies).await == "0" {
        assert!(!backup.is_finished(), "nothing was made while it ran");
    }
    let late = server.room().dir("late");
    let make = format!("CREATE TABLESPACE late LOCATION '{}'", late.display());
    server.sql(&make).await;
    backup.await.unwrap().unwrap();

    let into = room.path().join("into");
    let mut command = script(&repository, &raw);
    command
        .args(["--source", "orders", "--no-log", "--into"])
        .arg(&into);
    let refused = command.output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains(late.to_str().unwrap()),
        "{said}"
    );
    assert!(!into.exists());
}

#[test]
fn python_stays_short_enough_to_be_read() {
    let script = std::fs::read_to_string(script_path()).unwrap();
    assert!(script.lines().count() <= 250, "{} lines", script.lines().count());
}
