//! A server and a copy of its disk, streamed under one name at the same time.
//!
//! Promise: it is said within a minute, nothing that was confirmed to either is lost, each is read back from a lineage of
//! its own, and nothing past the place where they parted is read before they are told apart. Time is simulated.
//! Not here: the rule who leaves (backstay-repository, tests/it/twins).

mod deaths;

use crate::fake::{FakeServer, SEGMENT, follow};
use crate::shelf::{SEGMENT as FILE, Shelf, Written, branch, log_bytes, name};
use backstay_engine::jobs::stream::settle_all;
use backstay_engine::jobs::verify::{Depth, Recording, VerifyJob};
use backstay_engine::plan::{Catalog, Request, latest_refused, plan};
use backstay_engine::{ErrorKind, Fact, Silent};
use backstay_postgres::wal::PostgresLog;
use backstay_repository::LogStore;
use backstay_scenarios::Running;
use backstay_terms::{Branch, EngineKind, LogRange, Position, RecoveryTarget, RetentionClass};
use std::sync::Arc;
use std::time::Duration;

/// Where the disk was copied.
const COPIED: u64 = 4 * SEGMENT + 5000;

struct Stream {
    server: Arc<FakeServer>,
    running: Running,
}

impl Stream {
    async fn of(shelf: &Shelf, server: Arc<FakeServer>) -> Stream {
        let running = follow(&server, &shelf.open().await);
        Stream { server, running }
    }

    /// Lets its log grow, and waits until that is confirmed.
    async fn grow(&self, shelf: &Shelf, to: u64) {
        self.server.grow(to);
        let clock = &shelf.clock;
        let pass = || clock.advance(Duration::from_secs(6));
        self.running.until_while(pass, |_| self.server.slot() == to).await;
    }

    async fn hears(&self, shelf: &Shelf, wanted: impl Fn(&Fact) -> bool) {
        let clock = &shelf.clock;
        let pass = || clock.advance(Duration::from_secs(6));
        self.running
            .until_while(pass, |running| running.facts().iter().any(&wanted))
            .await;
    }

    /// The branches that it attached to, in order.
    fn attached(&self) -> Vec<Branch> {
        let facts = self.running.facts().into_iter();
        let branch = |fact| match fact {
            Fact::StreamAttached { branch, .. } => Some(branch),
            _ => None,
        };
        facts.filter_map(branch).collect()
    }
}

async fn two(copy: Option<u64>) -> (Shelf, Stream, Stream) {
    let shelf = Shelf::with_segment(SEGMENT).await;
    let first = Stream::of(&shelf, Arc::new(FakeServer::new(COPIED))).await;
    first.grow(&shelf, COPIED).await;
    let mut server = FakeServer::new(COPIED);
    server.parted = copy.map(|seed| (COPIED, seed));
    let second = Stream::of(&shelf, Arc::new(server)).await;
    second
        .hears(&shelf, |fact| matches!(fact, Fact::StreamAttached { .. }))
        .await;
    (shelf, first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_and_a_copy_of_its_disk_go_on_in_two_lineages_and_both_are_whole() {
    let (shelf, first, second) = two(Some(99)).await;
    first.grow(&shelf, COPIED + 3000).await;
    second.grow(&shelf, COPIED + 2000).await;
    second
        .hears(&shelf, |fact| matches!(fact, Fact::LineageBegan { .. }))
        .await;
    second.running.until(|_| second.attached().len() > 1).await;
    let ends = (COPIED + 90_000, COPIED + 95_000);
    second.grow(&shelf, ends.1).await;
    first.grow(&shelf, ends.0).await;
    let [ours, theirs] = [first.attached(), second.attached()].map(|all| *all.last().unwrap());
    assert_eq!(first.attached(), [ours], "who was there first stays");
    assert_eq!(second.attached()[0], ours);
    assert_ne!(ours, theirs);
    let (servers, range) = ([first.server.clone(), second.server.clone()], |to| LogRange {
        from: Position(COPIED),
        to: Position(to),
    });
    first.running.stop().await.unwrap();
    second.running.stop().await.unwrap();
    let log = LogStore::new(&shelf.open().await, EngineKind::Postgres, &name());
    for (lineage, server, to) in [(ours, &servers[0], ends.0), (theirs, &servers[1], ends.1)] {
        let bytes = log.read(&lineage, range(to)).await.unwrap();
        assert!(bytes == server.bytes(COPIED, to), "{lineage}");
    }
    let records = log.records().await.unwrap();
    let parent = records.iter().find_map(|record| record.parent).unwrap();
    assert_eq!((parent.branch, parent.fork), (ours, Position(COPIED)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_streams_of_one_server_stay_in_one_lineage_and_say_so_once() {
    let (shelf, first, second) = two(None).await;
    for more in [3000, 80_000, 90_000] {
        first.grow(&shelf, COPIED + more).await;
        second.grow(&shelf, COPIED + more).await;
    }
    second
        .hears(&shelf, |fact| matches!(fact, Fact::LogShared { .. }))
        .await;
    let shared = |stream: &Stream| {
        let facts = stream.running.facts();
        facts
            .iter()
            .filter(|fact| matches!(fact, Fact::LogShared { .. }))
            .count()
    };
    assert_eq!(shared(&second), 1);
    assert_eq!(first.attached(), second.attached());
    first.running.stop().await.unwrap();
    second.running.stop().await.unwrap();
    assert_eq!(shelf.names("-move-"), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_of_either_goes_on_in_its_own_lineage_and_loses_nothing_of_its_slot() {
    for order in [[0, 1], [1, 0]] {
        let (shelf, first, second) = two(Some(99)).await;
        first.grow(&shelf, COPIED + 3000).await;
        second.grow(&shelf, COPIED + 2000).await;
        second.running.until(|_| second.attached().len() > 1).await;
        first.grow(&shelf, COPIED + 5 * SEGMENT).await;
        second.grow(&shelf, COPIED + 3 * SEGMENT).await;
        let lineages = [&first, &second].map(|stream| *stream.attached().last().unwrap());
        let servers = [first.server.clone(), second.server.clone()];
        first.running.stop().await.unwrap();
        second.running.stop().await.unwrap();
        // Both are past where the other one's log ended, so that the end of a log does not tell them apart.
        let end = COPIED + 8 * SEGMENT;
        for server in order {
            servers[server].grow(end);
            let again = Stream::of(&shelf, servers[server].clone()).await;
            again.grow(&shelf, end).await;
            assert_eq!(again.attached(), [lineages[server]], "{order:?}");
            again.running.stop().await.unwrap();
        }
        let log = LogStore::new(&shelf.open().await, EngineKind::Postgres, &name());
        assert_eq!(log.known().await.unwrap().len(), 2);
        let range = LogRange {
            from: Position(COPIED),
            to: Position(end),
        };
        for (lineage, server) in lineages.iter().zip(&servers) {
            let bytes = log.read(lineage, range).await.unwrap();
            assert!(bytes == server.bytes(COPIED, end), "{lineage}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_copy_that_is_of_neither_lineage_begins_its_own_where_its_slot_stands_at_the_latest() {
    let (shelf, first, second) = two(Some(99)).await;
    first.grow(&shelf, COPIED + 5 * SEGMENT).await;
    second.grow(&shelf, COPIED + 3 * SEGMENT).await;
    second.running.until(|_| second.attached().len() > 1).await;
    let known = [&first, &second].map(|stream| *stream.attached().last().unwrap());
    first.running.stop().await.unwrap();
    second.running.stop().await.unwrap();
    let end = COPIED + 8 * SEGMENT;
    let mut server = FakeServer::promoted(1, 0, COPIED, SEGMENT, end);
    server.parted = Some((COPIED, 55));
    let third = Stream::of(&shelf, Arc::new(server)).await;
    third.grow(&shelf, end).await;
    let [own] = third.attached()[..] else {
        panic!("{:?}", third.attached())
    };
    assert!(!known.contains(&own));
    let server = third.server.clone();
    third.running.stop().await.unwrap();
    let repository = shelf.open().await;
    let catalog = Catalog::read(&repository, EngineKind::Postgres, &name(), Some(own)).await;
    let range = LogRange {
        from: Position(COPIED),
        to: Position(end),
    };
    let bytes = catalog.unwrap().bytes_in(range).await.unwrap();
    assert!(bytes == server.bytes(COPIED, end));
}

/// Both were killed before either looked: one lineage holds log of both from `FORK` on.
async fn unknown_to_all() -> Shelf {
    let shelf = Shelf::new().await;
    shelf.attach(branch(1, 1), 0, None, None).await;
    shelf.backup(RetentionClass::Days35, 5000).await;
    shelf
        .log_of(branch(1, 1), &[0, FILE, FORK, 2 * FILE], 0, &[Written::Live], 1)
        .await;
    shelf.clock.advance(Duration::from_secs(2));
    shelf
        .log_of(branch(1, 1), &[FORK, FORK + 9000], 0, &[Written::Live], 99)
        .await;
    shelf
}

const FORK: u64 = FILE + 5000;

#[tokio::test]
async fn until_they_are_told_apart_nothing_past_the_fork_is_read_and_settling_tells_them_apart() {
    let shelf = unknown_to_all().await;
    let repository = shelf.open().await;
    let read = async |lineage| {
        let read = Catalog::read(&repository, EngineKind::Postgres, &name(), lineage).await;
        read.unwrap()
    };
    let range = |from, to| LogRange {
        from: Position(from),
        to: Position(to),
    };
    let catalog = read(None).await;
    let refused = catalog.bytes_in(range(FORK - 9, FORK + 9)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Integrity, "{refused}");
    assert!(catalog.bytes_in(range(0, FORK)).await.is_ok());
    let request = Request {
        target: RecoveryTarget::Latest,
        base: None,
        now: repository.now(),
    };
    let refused = plan(&catalog, &request, &PostgresLog).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Integrity, "{refused}");
    assert!(
        refused.advice().contains("backstay wal settle orders"),
        "{}",
        refused.advice()
    );
    let said = latest_refused(&catalog, repository.now()).await.unwrap();
    assert_eq!(said.map(|said| said.to_string()), Some(refused.to_string()));
    let verify = VerifyJob {
        repository: repository.clone(),
        services: vec![],
        depth: Depth::Structure,
        formats: vec![],
        identities: vec![],
        recording: Recording::Skipped,
    };
    let found = |found: backstay_engine::jobs::verify::Verified| {
        let two = found
            .findings
            .into_iter()
            .filter(|finding| finding.what.contains("two servers"));
        two.count()
    };
    assert_eq!(found(verify.run().await.unwrap()), 1);

    settle_all(&repository, &name(), &Silent).await.unwrap();
    let moved = shelf.names("-move-");
    assert_eq!(moved.len(), 1, "{moved:?}");
    assert_eq!(found(verify.run().await.unwrap()), 0);
    let records = catalog.log.records().await.unwrap();
    let theirs = records
        .iter()
        .find(|record| record.moved.is_some())
        .unwrap()
        .branch;
    let ours = read(Some(branch(1, 1)))
        .await
        .bytes_in(range(FORK, 2 * FILE))
        .await
        .unwrap();
    assert!(ours == log_bytes(1, FORK, 2 * FILE));
    let copy = read(Some(theirs))
        .await
        .bytes_in(range(FORK - 100, FORK + 9000))
        .await
        .unwrap();
    assert!(copy == [log_bytes(1, FORK - 100, FORK), log_bytes(99, FORK, FORK + 9000)].concat());
}
