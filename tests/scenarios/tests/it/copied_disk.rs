//! A PostgreSQL server and a server on a copy of its disk, streamed under one name.
//!
//! Promise: rows that were written at both at the same time are restored row by row, those of each server from a lineage of
//! its own. Not here: the same with simulated servers and time (two_servers).

use crate::copy;
use crate::stream::end_of_log;
use backstay_clock::SystemClock;
use backstay_engine::jobs::stream::{Cadence, settle_all};
use backstay_engine::plan::{Catalog, Request, plan};
use backstay_engine::{ErrorKind, Fact, Silent};
use backstay_postgres::PostgresSource;
use backstay_postgres::replication::command::SlotName;
use backstay_postgres::replication::stream::Slot;
use backstay_postgres::wal::PostgresLog;
use backstay_repository::{LineageRecord, LogStore};
use backstay_scenarios::{Running, World};
use backstay_terms::{BackupId, Branch, EngineKind, RecoveryTarget};
use backstay_testkit::pg::{PgServer, Stop};
use std::sync::Arc;
use std::time::Duration;

pub const ROWS: &str = "SELECT string_agg(server || n, ' ' ORDER BY server, n) FROM t";

/// A server, and one on a copy of its disk: what both hold is backed up and streamed.
pub struct Pair {
    pub world: World,
    pub first: PgServer,
    pub second: PgServer,
}

impl Pair {
    async fn new() -> Pair {
        Pair::over(World::new().await).await
    }

    pub async fn over(world: World) -> Pair {
        let mut first = PgServer::start().await;
        first.sql("CREATE TABLE t (server text, n int)").await;
        let source = world.source(first.conninfo());
        let running = world.stream(source.clone());
        world.backup(source, &first.room().dir("scratch")).await.unwrap();
        write(&first, "both").await;
        running.until_durable(end_of_log(&first).await).await;
        running.stop().await.unwrap();
        first.stop(Stop::Fast).await;
        let second = first.start_copy().await;
        first.run().await;
        Pair { world, first, second }
    }

    fn log(&self) -> LogStore {
        LogStore::new(&self.world.repository, EngineKind::Postgres, &self.world.name)
    }

    async fn lineages(&self) -> Vec<Branch> {
        let known = self.log().known().await.unwrap();
        known.iter().map(|known| known.record.branch).collect()
    }

    /// The lineage of the one that left.
    pub async fn moved(&self) -> Branch {
        let records: Vec<LineageRecord> = self.log().records().await.unwrap();
        records
            .iter()
            .find(|record| record.moved.is_some())
            .unwrap()
            .branch
    }

    async fn catalog(&self, lineage: Option<Branch>) -> Catalog {
        let (repository, name) = (&self.world.repository, &self.world.name);
        let read = Catalog::read(repository, EngineKind::Postgres, name, lineage).await;
        read.unwrap()
    }

    /// The backup that a restore of a lineage begins with.
    async fn begins_with(&self, lineage: Branch) -> BackupId {
        let request = Request {
            target: RecoveryTarget::Latest,
            base: None,
            now: self.world.repository.now(),
        };
        let plan = plan(&self.catalog(Some(lineage)).await, &request, &PostgresLog).await;
        plan.unwrap().head.backup
    }

    /// The rows that a restore of a lineage holds.
    async fn restored(&self, lineage: Option<Branch>) -> String {
        let catalog = self.catalog(lineage).await;
        let into = self.first.room().path().join("restored");
        copy::column(&self.world, catalog, &into, &RecoveryTarget::Latest, ROWS)
            .await
            .remove(0)
    }

    /// Both are streamed at the same time and killed before either looked; gives their lineage.
    pub async fn both_killed(&self) -> Branch {
        let one = stream(&self.world, &self.first, "backstay", NEVER);
        stored(&one, &self.first).await;
        let two = stream(&self.world, &self.second, "backstay", NEVER);
        until_attached(&two, 1).await;
        // Each looks once, when it has stored something: before the other one has.
        write(&self.second, "second").await;
        stored(&two, &self.second).await;
        two.kill().await;
        write(&self.first, "first").await;
        stored(&one, &self.first).await;
        let lineage = attached(&one)[0];
        assert_eq!(self.lineages().await, [lineage], "nobody knows it yet");
        one.kill().await;
        lineage
    }

    /// Each lineage holds the rows of its server, and there is no other one.
    async fn each_holds_its_own(&self, first: Branch, second: Branch) {
        for (lineage, server) in [(first, &self.first), (second, &self.second)] {
            let rows = self.restored(Some(lineage)).await;
            assert!(rows == server.value(ROWS).await, "{lineage}: {rows}");
        }
        assert_ne!(self.first.value(ROWS).await, self.second.value(ROWS).await);
        let lineages = self.lineages().await;
        assert!(lineages.len() == 2 && lineages.contains(&first) && lineages.contains(&second));
    }
}

/// Rows that no other call writes.
async fn write(server: &PgServer, name: &str) {
    let rows = format!("INSERT INTO t SELECT '{name}', generate_series(1, 300)");
    server.sql(&rows).await;
}

fn stream(world: &World, server: &PgServer, slot: &str, compare_every: Duration) -> Running {
    let slot = Slot::CreateIfMissing(SlotName::new(slot).unwrap());
    let source = PostgresSource::new(server.conninfo(), Some(slot), Arc::new(SystemClock::new()));
    let cadence = Cadence {
        live_after: Duration::from_millis(100),
        compare_every,
        ..Cadence::default()
    };
    Running::start(Arc::new(source), &world.repository, &world.name, cadence)
}

const SOON: Duration = Duration::from_millis(200);
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// The branches that a stream attached to, in order.
fn attached(running: &Running) -> Vec<Branch> {
    let branch = |fact| match fact {
        Fact::StreamAttached { branch, .. } => Some(branch),
        _ => None,
    };
    running.facts().into_iter().filter_map(branch).collect()
}

async fn until_attached(running: &Running, times: usize) {
    running.until(|running| attached(running).len() >= times).await;
}

async fn stored(running: &Running, server: &PgServer) {
    running.until_durable(end_of_log(server).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_and_a_copy_of_its_disk_are_both_restored_row_by_row_and_each_goes_on_in_its_lineage() {
    let pair = Pair::new().await;
    let one = stream(&pair.world, &pair.first, "backstay", SOON);
    let two = stream(&pair.world, &pair.second, "backstay", SOON);
    until_attached(&one, 1).await;
    until_attached(&two, 1).await;
    assert_eq!(attached(&one), attached(&two), "nothing differs yet");
    write(&pair.first, "first").await;
    write(&pair.second, "second").await;
    stored(&one, &pair.first).await;
    stored(&two, &pair.second).await;
    one.until(|_| attached(&one).len() + attached(&two).len() == 3)
        .await;
    let has_left = match attached(&one).len() {
        2 => &one,
        _ => &two,
    };
    let says_so = |fact: &Fact| matches!(fact, Fact::LineageBegan { .. });
    assert!(
        [&one, &two]
            .iter()
            .any(|running| running.facts().iter().any(says_so))
    );
    assert_eq!(*attached(has_left).last().unwrap(), pair.moved().await);
    write(&pair.first, "first once more").await;
    write(&pair.second, "second once more").await;
    stored(&one, &pair.first).await;
    stored(&two, &pair.second).await;
    let [first, second] = [&one, &two].map(|running| *attached(running).last().unwrap());
    one.stop().await.unwrap();
    two.stop().await.unwrap();
    pair.each_holds_its_own(first, second).await;

    // New processes, in both orders: none knows which lineage was its own.
    for (turn, servers) in [[0, 1], [1, 0], [1, 0]].into_iter().enumerate() {
        for server in servers {
            let (server, lineage) = [(&pair.first, first), (&pair.second, second)][server];
            write(server, &format!("turn {turn} of {lineage}")).await;
            let running = stream(&pair.world, server, "backstay", SOON);
            stored(&running, server).await;
            assert_eq!(attached(&running), [lineage], "turn {turn}");
            running.stop().await.unwrap();
        }
    }
    pair.each_holds_its_own(first, second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_they_looked_they_are_told_apart_by_settling_and_nothing_is_mixed_before() {
    let pair = Pair::new().await;
    let lineage = pair.both_killed().await;
    let refused = pair.world.plan(&RecoveryTarget::Latest).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Integrity, "{refused}");
    assert!(refused.advice().contains("wal settle"), "{}", refused.advice());
    settle_all(&pair.world.repository, &pair.world.name, &Silent)
        .await
        .unwrap();
    pair.each_holds_its_own(lineage, pair.moved().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_the_one_that_leaves_is_continued_with_its_own_log() {
    let pair = Pair::new().await;
    let one = stream(&pair.world, &pair.first, "backstay", SOON);
    stored(&one, &pair.first).await;
    let two = stream(&pair.world, &pair.second, "backstay", SOON);
    until_attached(&two, 1).await;
    write(&pair.second, "before the backup").await;
    let source = pair.world.source(pair.second.conninfo());
    let scratch = pair.second.room().dir("scratch");
    let head = pair.world.backup(source, &scratch).await.unwrap();
    write(&pair.second, "after the backup").await;
    stored(&two, &pair.second).await;
    assert_eq!(pair.lineages().await, attached(&one), "nobody knows it yet");
    write(&pair.first, "first").await;
    stored(&one, &pair.first).await;
    two.until(|_| attached(&two).len() == 2).await;
    write(&pair.second, "in its own lineage").await;
    stored(&two, &pair.second).await;
    let [first, second] = [&one, &two].map(|running| *attached(running).last().unwrap());
    one.stop().await.unwrap();
    two.stop().await.unwrap();
    assert_eq!(pair.begins_with(second).await, head.backup);
    assert_ne!(pair.begins_with(first).await, head.backup);
    pair.each_holds_its_own(first, second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_streams_with_slots_of_their_own_on_one_server_stay_one_lineage() {
    let pair = Pair::new().await;
    let [one, two] = ["backstay", "other"].map(|slot| stream(&pair.world, &pair.first, slot, SOON));
    until_attached(&one, 1).await;
    until_attached(&two, 1).await;
    for turn in ["one", "two", "three"] {
        write(&pair.first, turn).await;
        stored(&one, &pair.first).await;
        stored(&two, &pair.first).await;
    }
    let shared = |running: &Running| {
        let facts = running.facts();
        facts.iter().any(|fact| matches!(fact, Fact::LogShared { .. }))
    };
    one.until(|_| shared(&one) || shared(&two)).await;
    assert_eq!(attached(&one), attached(&two));
    let lineages = pair.lineages().await;
    assert_eq!(lineages, attached(&one));
    one.stop().await.unwrap();
    two.stop().await.unwrap();
    assert!(pair.restored(None).await == pair.first.value(ROWS).await);
}
