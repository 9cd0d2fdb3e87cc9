//! Writes the golden repositories, once for ever: `tests/golden/README.md` has the commands.

use super::{DIGEST, FIRST, Golden, PROMOTED};
use crate::stream::end_of_log;
use backstay_clock::SystemClock;
use backstay_codec::{Passphrase, SecretKey, age_recipient_of, print_master_key};
use backstay_engine::jobs::adopt::{Adopted, adopt};
use backstay_engine::plan::lineages;
use backstay_repository::{Recipient, Repository, SystemChance};
use backstay_scenarios::World;
use backstay_store::LocalDirectory;
use backstay_testkit::pg::PgServer;
use std::sync::Arc;

const PASSPHRASE: &str = "a golden passphrase opens a golden repository";
const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

impl Golden {
    /// A new repository with a new raw key and these recipients.
    async fn make(self, more: &[Recipient]) -> World {
        std::fs::create_dir_all(self.path("")).unwrap();
        let key = SecretKey::generate().unwrap();
        self.write("golden.key", &print_master_key(&key));
        let clock = Arc::new(SystemClock::new());
        let store = LocalDirectory::create(&self.path("repository"), clock.clone()).await;
        let recipients = [&[Recipient::Raw(key)], more].concat();
        let chance = Arc::new(SystemChance);
        let repository = Repository::init(Arc::new(store.unwrap()), clock, chance, &recipients).await;
        World {
            name: "golden".parse().unwrap(),
            repository: repository.unwrap(),
        }
    }

    fn write(self, file: &str, line: &str) {
        std::fs::write(self.path(file), format!("{line}\n")).unwrap();
    }
}

async fn insert(server: &PgServer, from: u32, to: u32) {
    let rows = format!("SELECT n, md5(n::text) FROM generate_series({from}, {to}) n");
    server.sql(&format!("INSERT INTO golden {rows}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes tests/golden/format-1 once for ever"]
async fn write_the_golden_repository() {
    let world = FIRST.make(&[]).await;
    let server = PgServer::start().await;
    let source = world.source(server.conninfo());
    let running = world.stream(source.clone());
    server.sql("CREATE TABLE golden (n int, note text)").await;
    insert(&server, 1, 500).await;
    world.backup(source, &server.room().dir("scratch")).await.unwrap();
    insert(&server, 501, 1000).await;
    server.sql("SELECT pg_create_restore_point('middle')").await;
    insert(&server, 1001, 1500).await;
    FIRST.write("digest.txt", &server.value(DIGEST).await);
    running.until_durable(end_of_log(&server).await).await;
    running.stop().await.unwrap();
}

/// A cluster with one database and as little in it as lets it start; its log begins behind all of that.
async fn small_server() -> PgServer {
    let server = PgServer::start().await;
    for sql in [
        "UPDATE pg_database SET datistemplate = false",
        "DROP DATABASE template0",
        "DROP DATABASE template1",
        "DROP SCHEMA information_schema CASCADE",
        "DELETE FROM pg_description",
        "DELETE FROM pg_statistic",
        "DELETE FROM pg_collation WHERE collname NOT IN ('default', 'C', 'POSIX')",
        "DELETE FROM pg_conversion",
        "VACUUM FULL",
        "CREATE TABLE golden (n int, note text)",
        "CHECKPOINT",
        "SELECT pg_switch_wal()",
        "CHECKPOINT",
    ] {
        server.sql(sql).await;
    }
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes tests/golden/format-1-promoted once for ever"]
async fn write_the_promoted_golden_repository() {
    let passphrase = Recipient::Passphrase(Passphrase::new(PASSPHRASE.to_owned()));
    let age = Recipient::Age(age_recipient_of(IDENTITY).unwrap());
    let world = PROMOTED.make(&[passphrase, age]).await;
    PROMOTED.write("golden.passphrase", PASSPHRASE);
    PROMOTED.write("golden.identity", IDENTITY);
    let primary = small_server().await;
    let source = world.source(primary.conninfo());
    let running = world.stream(source.clone());
    insert(&primary, 1, 100).await;
    world
        .backup(source, &primary.room().dir("scratch"))
        .await
        .unwrap();
    insert(&primary, 101, 200).await;
    primary
        .sql("SELECT pg_create_restore_point('before-the-promotion')")
        .await;
    insert(&primary, 201, 300).await;
    let standby = primary.start_standby().await;
    // The fork lies within a segment.
    insert(&primary, 301, 400).await;
    let shared = end_of_log(&primary).await;
    let caught_up = format!("SELECT pg_last_wal_replay_lsn() >= '{shared}'::pg_lsn");
    while standby.value(&caught_up).await != "t" {}
    standby.promote().await;
    // The old primary does not know, and commits what the new one never sees.
    insert(&primary, 1001, 1010).await;
    running.until_durable(end_of_log(&primary).await).await;
    running.stop().await.unwrap();
    PROMOTED.write("digest-of-timeline-1.txt", &primary.value(DIGEST).await);
    insert(&standby, 2001, 2020).await;
    let running = world.stream(world.source(standby.conninfo()));
    running.until_durable(end_of_log(&standby).await).await;
    running.stop().await.unwrap();
    PROMOTED.write("digest.txt", &standby.value(DIGEST).await);

    let catalog = world.catalog().await.unwrap();
    let seen = lineages(&catalog).await.unwrap();
    let promoted = seen.iter().find(|seen| seen.branch.timeline == 2).unwrap();
    let adopted = adopt(&world.repository, &catalog, promoted.branch).await.unwrap();
    assert!(
        matches!(&adopted, Adopted::Over(over) if over.len() == 1),
        "{adopted:?}"
    );
}
