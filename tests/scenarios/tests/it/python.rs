//! Restoring without Backstay: `scripts/restore.py` on what this program wrote, with nothing but the key.

use crate::stream::end_of_log;
use backstay_clock::SystemClock;
use backstay_codec::{SecretKey, print_master_key};
use backstay_scenarios::World;
use backstay_store::LocalDirectory;
use backstay_testkit::pg::{PgServer, Stop, run_to_end};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Debian's Python, because that is what a person will have; another one may come first on PATH.
fn restore(repository: &Path, key: &Path, source: &str, into: &Path, more: &[&str]) {
    let mut script = Command::new("/usr/bin/python3");
    script
        .arg(root().join("scripts/restore.py"))
        .arg(repository)
        .arg("--key-file")
        .arg(key);
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
    let room = backstay_testkit::pg::Room::new();
    let key = SecretKey::generate().unwrap();
    let key_file = room.path().join("backstay.key");
    std::fs::write(&key_file, format!("{}\n", *print_master_key(&key))).unwrap();
    let repository = room.path().join("repository");
    let store = LocalDirectory::create(&repository, Arc::new(SystemClock::new()))
        .await
        .unwrap();
    let world = World::made(Arc::new(store), &key).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_restores_the_golden_repository() {
    let golden = root().join("tests/golden/format-1");
    let room = backstay_testkit::pg::Room::new();
    let into = room.path().join("golden");
    restore(
        &golden.join("repository"),
        &golden.join("golden.key"),
        "golden",
        &into,
        &[],
    );
    let expected = std::fs::read_to_string(golden.join("digest.txt")).unwrap();
    let digest = "SELECT md5(string_agg(n || ':' || note, ',' ORDER BY n)) FROM golden";
    assert_eq!(ask(&into, digest).await, expected.trim());
}
