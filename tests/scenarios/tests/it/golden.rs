//! A repository of format version 1, kept in git, that every build must restore.
//!
//! It was written by `write_the_golden_repository` below, with the key beside it. A new format version gets a repository
//! of its own beside this one; this one is never written again.

use backstay_clock::{SeededChance, SimClock, SystemClock};
use backstay_codec::{SecretKey, parse_master_key, print_master_key};
use backstay_postgres::{Connection, Mode, PostgresDirectory, RestoreOptions};
use backstay_repository::{BaseReader, PackReading, Recipient, Repository};
use backstay_scenarios::World;
use backstay_source::RecoveryAction;
use backstay_store::LocalDirectory;
use backstay_terms::{EngineKind, Lsn, RecoveryTarget};
use backstay_testkit::pg::{PgServer, free_port, parse};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the table of the golden cluster holds at the end of its log.
const ROWS: &str = "1500";
const DIGEST: &str = "SELECT md5(string_agg(n || ':' || note, ',' ORDER BY n)) FROM golden";

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/format-1")
}

async fn open(directory: &Path, key: &SecretKey) -> World {
    // Its promise ends 35 days after it was written; the test does not.
    let clock = Arc::new(SimClock::starting_at("2026-11-24T00:00:00Z".parse().unwrap()));
    let store = LocalDirectory::open(directory, clock.clone()).await.unwrap();
    let recipients = [Recipient::Raw(key.clone())];
    let repository = Repository::open(
        Arc::new(store),
        clock,
        Arc::new(SeededChance::new(1)),
        &recipients,
    );
    World {
        name: "golden".parse().unwrap(),
        repository: repository.await.unwrap(),
    }
}

fn golden_key() -> SecretKey {
    parse_master_key(&std::fs::read_to_string(place().join("golden.key")).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_file_of_the_golden_repository_is_what_its_tables_say() {
    let world = open(&place().join("repository"), &golden_key()).await;
    let heads = world
        .repository
        .heads(EngineKind::Postgres, &world.name)
        .await
        .unwrap();
    assert_eq!(heads.len(), 1);
    let base = BaseReader::open(&world.repository, &heads[0].place())
        .await
        .unwrap();
    let mut cursor = base.cursor(PackReading::ByRanges);
    let mut read = 0;
    for file in base.files() {
        let Some(expected) = &file.sha256 else { continue };
        let mut digest = backstay_repository::Digest::new();
        cursor
            .read_file(&file, |bytes| {
                digest.update(bytes);
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(digest.finish(), *expected, "{}", file.path);
        read += 1;
    }
    assert!(read > 900, "{read} files");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_golden_repository_is_restored_to_its_last_row_and_to_its_restore_point() {
    let world = open(&place().join("repository"), &golden_key()).await;
    let expected = std::fs::read_to_string(place().join("digest.txt")).unwrap();
    let room = backstay_testkit::pg::Room::new();
    for (target, rows) in [
        (RecoveryTarget::Latest, ROWS),
        (RecoveryTarget::Name("middle".into()), "1000"),
    ] {
        let into = room.path().join(format!("restored-{rows}"));
        let options = RestoreOptions::new(&into, Arc::new(SystemClock::new()));
        let directory = Arc::new(PostgresDirectory::new(RestoreOptions {
            sockets: room.path().to_owned(),
            ..options
        }));
        let restored = world
            .restore(&target, directory.clone(), RecoveryAction::Pause, free_port())
            .await
            .unwrap();
        let evidence = restored.evidence.unwrap();
        let mut copy = Connection::connect(&parse(&evidence.connect), Mode::Sql)
            .await
            .unwrap();
        let one = |rows: Vec<backstay_postgres::wire::Rows>| rows[0].rows[0][0].clone().unwrap();
        assert_eq!(
            one(copy.simple_query("SELECT count(*) FROM golden").await.unwrap()),
            rows
        );
        if target == RecoveryTarget::Latest {
            assert_eq!(one(copy.simple_query(DIGEST).await.unwrap()), expected.trim());
        }
        directory.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes tests/golden/format-1 once for ever"]
async fn write_the_golden_repository() {
    let place = place();
    std::fs::create_dir_all(&place).unwrap();
    let key = SecretKey::generate().unwrap();
    std::fs::write(place.join("golden.key"), format!("{}\n", *print_master_key(&key))).unwrap();
    let clock = Arc::new(SystemClock::new());
    let store = LocalDirectory::create(&place.join("repository"), clock.clone())
        .await
        .unwrap();
    let chance = Arc::new(backstay_repository::SystemChance);
    let repository = Repository::init(Arc::new(store), clock, chance, &[Recipient::Raw(key)])
        .await
        .unwrap();
    let world = World {
        name: "golden".parse().unwrap(),
        repository,
    };
    let server = PgServer::start().await;
    let source = world.source(server.conninfo());
    let running = world.stream(source.clone());
    server
        .sql("CREATE TABLE golden AS SELECT n, md5(n::text) AS note FROM generate_series(1, 500) n")
        .await;
    world.backup(source, &server.room().dir("scratch")).await.unwrap();
    server
        .sql("INSERT INTO golden SELECT n, md5(n::text) FROM generate_series(501, 1000) n")
        .await;
    server.sql("SELECT pg_create_restore_point('middle')").await;
    server
        .sql("INSERT INTO golden SELECT n, md5(n::text) FROM generate_series(1001, 1500) n")
        .await;
    std::fs::write(
        place.join("digest.txt"),
        format!("{}\n", server.value(DIGEST).await),
    )
    .unwrap();
    let end: Lsn = server
        .value("SELECT pg_current_wal_flush_lsn()")
        .await
        .parse()
        .unwrap();
    running.until_durable(end).await;
    running.stop().await.unwrap();
}
