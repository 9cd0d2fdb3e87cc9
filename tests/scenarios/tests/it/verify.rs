//! Verification: a whole repository passes, everything that is done to it is found.

use crate::shelf::{DAY, SEGMENT, Shelf, Written, branch, name};
use backstay_engine::EngineError;
use backstay_engine::jobs::verify::{Depth, Recording, Verified, VerifyJob};
use backstay_postgres::wal::PostgresLog;
use backstay_repository::layout::Level;
use backstay_repository::{CheckFinding, Invariant, LogStore, LogWriter, Parent, Repository};
use backstay_scenarios::World;
use backstay_source::{Hit, LogFormat, LogScanner, ScanOrder, SourceError, SourceErrorKind};
use backstay_store::Store;
use backstay_terms::{EngineKind, LogFacts, Lsn, Position, RetentionClass};
use backstay_testkit::pg::PgServer;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

async fn try_verify(repository: Repository, depth: Depth) -> Result<Verified, EngineError> {
    let job = VerifyJob {
        repository,
        services: vec![],
        depth,
        formats: vec![(EngineKind::Postgres, Arc::new(Even))],
        identities: vec![],
        recording: Recording::Skipped,
    };
    job.run().await
}

async fn verify(shelf: &Shelf, depth: Depth) -> Verified {
    try_verify(shelf.open().await, depth).await.unwrap()
}

/// A format in which nothing is ever wrong but a byte 0xEE at the start of a file.
#[derive(Debug)]
struct Even;

struct EvenScan(u64, u64);

impl LogFormat for Even {
    fn scan(&self, order: ScanOrder) -> Result<Box<dyn LogScanner>, SourceError> {
        Ok(Box::new(EvenScan(order.begins.0, order.segment_size)))
    }
}

impl LogScanner for EvenScan {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        let (at, starts) = (self.0, self.0.is_multiple_of(self.1));
        self.0 += bytes.len() as u64;
        match bytes.first() {
            Some(0xEE) if starts => Err(SourceError::new(
                SourceErrorKind::Damaged,
                format!("damage at {at}"),
                "",
            )),
            _ => Ok(()),
        }
    }

    fn found(&self) -> Option<Hit> {
        None
    }
}

const HISTORY: &str = "1\t0/180000\tno reason\n";

/// A backup, log of two timelines at both levels, a mark.
async fn shelf() -> Shelf {
    let shelf = Shelf::new().await;
    let half = SEGMENT / 2;
    shelf.attach(branch(1, 1), 0, None, None).await;
    shelf.backup(RetentionClass::Days35, 5000).await;
    let borders = [0, half, 2 * half, 3 * half];
    shelf
        .log(branch(1, 1), &borders, 0, &[Written::Live, Written::Settled])
        .await;
    let fork = Position(3 * half);
    let parent = Parent {
        branch: branch(1, 1),
        fork,
    };
    shelf
        .attach(branch(2, 2), 2 * half, Some(parent), Some(HISTORY))
        .await;
    shelf
        .log(branch(2, 2), &[3 * half, 4 * half], 2 * half, &[Written::Settled])
        .await;
    shelf.mark(branch(2, 2), 4 * half).await;
    shelf
}

#[tokio::test]
async fn a_whole_repository_passes_at_every_depth_and_deeper_looks_see_more() {
    let shelf = shelf().await;
    for depth in [Depth::Listed, Depth::Structure, Depth::Everything] {
        let verified = verify(&shelf, depth).await;
        assert_eq!(
            (verified.findings.clone(), verified.unsettled.clone()),
            (vec![], vec![])
        );
        assert!(verified.outcome().is_ok());
        let counts = verified.services[0].counts;
        assert_eq!((counts.backups, counts.ranges, counts.records), (1, 8, 2));
        let deeper = (
            counts.indexes,
            counts.seams,
            counts.histories,
            counts.envelopes > 2,
        );
        let all = (
            counts.files,
            counts.file_bytes,
            counts.log_bytes,
            counts.walked_bytes,
        );
        let half = SEGMENT / 2;
        match depth {
            Depth::Listed => assert_eq!((deeper, all), ((0, 0, 0, false), (0, 0, 0, 0))),
            Depth::Structure => assert_eq!((deeper, all), ((8, 4, 1, true), (0, 0, 0, 0))),
            // Timeline 2 holds no start of a segment: its bytes are compared and not walked.
            Depth::Everything => {
                assert_eq!((deeper, all), ((8, 4, 1, true), (1, 300_000, 7 * half, 3 * half)))
            }
        }
    }
}

#[tokio::test]
async fn whatever_is_cut_to_nothing_is_found_and_named_by_a_listing() {
    let shelf = shelf().await;
    shelf
        .log_indexed(branch(2, 2), &[4 * SEGMENT, 5 * SEGMENT], 3 * SEGMENT)
        .await;
    shelf.abandoned().await;
    let before = verify(&shelf, Depth::Listed).await.findings;
    let mut kinds = BTreeSet::new();
    for key in shelf.names("") {
        let name = key.as_str();
        // Of the parts of a backup without a head nothing is known.
        if name == "repository.json" || shelf.memory.snapshot().get(&key).unwrap().as_ref() == b"half" {
            continue;
        }
        let kind: Vec<&str> = name.split('/').take(2).collect();
        kinds.insert(kind.join("/"));
        for length in [0, 127] {
            let cut = shelf.copy();
            cut.change(&key, |body| body.truncate(length));
            let findings = verify(&cut, Depth::Listed).await.findings;
            let named = |finding: &&CheckFinding| finding.object == name || finding.what.contains(name);
            let of_it: Vec<_> = findings.iter().filter(named).collect();
            assert!(!of_it.is_empty(), "{name} of {length}: {findings:?}");
            assert!(!before.contains(of_it[0]), "{name}");
            for finding in &findings {
                assert!(finding.next.is_some(), "what to do after {finding:?}");
            }
        }
    }
    let expected = [
        "facts/keys",
        "facts/runs",
        "postgres-backups/data",
        "postgres-backups/keys",
        "postgres-backups/manifests",
        "postgres-backups/tables",
        "wal-archive/history",
        "wal-archive/index",
        "wal-archive/keys",
        "wal-archive/lineage",
        "wal-archive/live",
        "wal-archive/settled",
    ];
    assert_eq!(
        kinds.iter().collect::<Vec<_>>(),
        expected.iter().collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn whatever_is_removed_cut_or_flipped_is_found_and_named() {
    let shelf = shelf().await;
    let names = shelf
        .names("")
        .into_iter()
        .filter(|key| !key.as_str().starts_with("facts/") && key.as_str() != "repository.json");
    let mut looked_at = 0;
    for key in names {
        let name = key.as_str();
        // What covers a removed range twice, a mark, and whole lineages with all their records may go unseen.
        let redundant = name.contains("/live/") || name.contains("/settled/") || name.contains("/history/");
        let head = name.contains("/manifests/");
        for change in ["removed", "cut", "flipped"] {
            if change == "removed" && (redundant && !name.contains("/history/") || head) {
                continue;
            }
            let copy = shelf.copy();
            match change {
                "removed" => copy.memory.delete(&key).await.unwrap(),
                "cut" => copy.change(&key, |body| body.truncate(body.len() - 1)),
                _ => copy.change(&key, |body| {
                    let middle = body.len() / 2;
                    body[middle] ^= 1;
                }),
            }
            let verified = verify(&copy, Depth::Everything).await;
            assert!(!verified.findings.is_empty(), "{name} {change}");
            assert!(verified.outcome().is_err());
            looked_at += 1;
            if change == "cut" && !name.contains("/keys/") {
                assert!(
                    verified.findings.iter().any(|found| found.object == name),
                    "{:?}",
                    verified.findings
                );
            }
        }
    }
    assert!(looked_at > 50, "{looked_at}");
}

#[tokio::test]
async fn a_listing_alone_finds_missing_parts_wrong_sizes_and_strange_names() {
    let shelf = shelf().await;
    let pack = shelf.names("/data/")[0].clone();
    let copy = shelf.copy();
    copy.memory.delete(&pack).await.unwrap();
    let stray = "wal-archive/live/orders/0000000000000007/00000001.00000001/what";
    copy.memory
        .overwrite(&stray.parse().unwrap(), Bytes::from_static(b"?"));
    let verified = verify(&copy, Depth::Listed).await;
    let found: Vec<(&str, Invariant)> = verified
        .findings
        .iter()
        .map(|found| (found.object.as_str(), found.invariant))
        .collect();
    assert_eq!(
        found,
        [(stray, Invariant::Repo1), (pack.as_str(), Invariant::Repo4)]
    );
    let json = serde_json::to_value(&verified).unwrap();
    assert_eq!(json["findings"][1]["invariant"], "REPO-4");
}

#[tokio::test]
async fn two_histories_in_one_lineage_and_a_broken_seam_are_found() {
    let shelf = shelf().await;
    let half = SEGMENT / 2;
    let copy = shelf.copy();
    copy.log_of(branch(1, 1), &[half, 2 * half], 0, &[Written::Live], 99)
        .await;
    let verified = verify(&copy, Depth::Everything).await;
    assert!(
        verified
            .findings
            .iter()
            .any(|found| found.what.contains("holds other bytes")),
        "{verified:?}"
    );
    assert!(
        verified
            .findings
            .iter()
            .all(|found| found.invariant == Invariant::Log2)
    );
    // Its seams are right; that two wrote at the same time is seen without reading everything.
    let seen = verify(&copy, Depth::Structure).await.findings;
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(
        seen[0].what.starts_with("it holds log of two servers"),
        "{seen:?}"
    );

    shelf
        .log(branch(2, 2), &[4 * half, 5 * half], 77, &[Written::Settled])
        .await;
    let verified = verify(&shelf, Depth::Structure).await;
    assert_eq!(verified.findings.len(), 1, "{verified:?}");
    assert!(
        verified.findings[0]
            .what
            .starts_with("its first record follows the one at 000000000000004d")
    );
}

#[tokio::test]
async fn log_that_only_live_ranges_hold_is_named_after_a_day_with_the_day_of_its_end() {
    let shelf = shelf().await;
    let half = SEGMENT / 2;
    shelf
        .log(branch(2, 2), &[4 * half, 5 * half], 3 * half, &[Written::Live])
        .await;
    let stored = shelf.open().await.now();
    shelf.clock.advance(DAY);
    assert_eq!(verify(&shelf, Depth::Listed).await.unsettled, vec![]);
    shelf.clock.advance(Duration::from_secs(1));
    let verified = verify(&shelf, Depth::Listed).await;
    let [unsettled] = &verified.unsettled[..] else {
        panic!("{verified:?}")
    };
    assert_eq!(
        (unsettled.range.from.0, unsettled.range.to.0),
        (4 * half, 5 * half)
    );
    assert_eq!(
        unsettled.lost_at,
        stored + jiff::SignedDuration::from_hours(90 * 24)
    );
    assert!(verified.outcome().is_ok(), "nothing is lost yet");
}

#[tokio::test]
async fn a_store_that_cannot_be_asked_is_an_error_and_no_finding() {
    use backstay_store::faults::{Fault, FaultKind, FaultyStore, When};
    let shelf = shelf().await;
    for call in 5..40 {
        for kind in [
            FaultKind::Unreachable,
            FaultKind::PermissionDenied,
            FaultKind::Other,
        ] {
            let store = FaultyStore::new(Arc::new(shelf.memory.clone()));
            let store = Arc::new(store.with(When::Call(call), Fault::Refuse(kind)));
            let repository = shelf.open_with(store, crate::shelf::key(7)).await.unwrap();
            assert!(
                try_verify(repository, Depth::Everything).await.is_err(),
                "{call} {kind:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_a_real_server_is_walked_record_by_record() {
    let server = PgServer::start().await;
    let world = World::new().await;
    let source = world.source(server.conninfo());
    let running = world.stream(source.clone());
    let scratch = server.room().path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    world.backup(source, &scratch).await.unwrap();
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 30000) AS n")
        .await;
    server.sql("SELECT pg_switch_wal()").await;
    server.sql("INSERT INTO t SELECT generate_series(1, 1000)").await;
    let end: Lsn = server
        .value("SELECT pg_current_wal_flush_lsn()")
        .await
        .parse()
        .unwrap();
    running.until_durable(end).await;
    running.stop().await.unwrap();
    let job = VerifyJob {
        repository: world.repository.clone(),
        services: vec![],
        depth: Depth::Everything,
        formats: vec![(EngineKind::Postgres, Arc::new(PostgresLog))],
        identities: vec![],
        recording: Recording::Written,
    };
    let verified = job.run().await.unwrap();
    assert_eq!(verified.findings, vec![]);
    let counts = verified.services[0].counts;
    assert!(
        counts.walked_bytes > 16 << 20 && counts.seams > 2 && counts.files > 900,
        "{counts:?}"
    );

    // One byte of a record changes before it is sealed: only the record's own checksum knows.
    let catalog = world.catalog().await.unwrap();
    let link = catalog.chain.as_ref().unwrap().target().unwrap().clone();
    let settled = link
        .ranges
        .iter()
        .find(|r| r.level == Level::Settled && !r.name.range.is_mark())
        .unwrap();
    let (_, bytes) = catalog.log.range(settled).await.unwrap();
    let other = World::new().await;
    let log = LogStore::new(&other.repository, EngineKind::Postgres, &world.name);
    log.put_record(&catalog.records[0]).await.unwrap();
    let mut wrong = bytes.to_vec();
    // Early in the segment: the rest is what pg_switch_wal left zero.
    wrong[1 << 20] ^= 0x10;
    let epoch = other.repository.new_id("log").unwrap();
    let place = log.place().clone();
    let mut writer = LogWriter::begin(&other.repository, place, link.branch, epoch)
        .await
        .unwrap();
    writer
        .append(settled.name.range.from, Bytes::from(wrong), LogFacts::default())
        .unwrap();
    writer
        .cut_settled(16 << 20, None)
        .unwrap()
        .unwrap()
        .run()
        .await
        .unwrap();
    let job = VerifyJob {
        repository: other.repository.clone(),
        ..job
    };
    let verified = job.run().await.unwrap();
    assert_eq!(verified.findings.len(), 1, "{verified:?}");
    assert_eq!(verified.findings[0].invariant, Invariant::Log2);
    assert_eq!(verified.services[0].source, name());
}
