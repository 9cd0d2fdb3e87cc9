//! Log that is lost from its beginning, up to all of it, or whose objects are cut: also what a stream that attaches again
//! makes of it.
//!
//! Promise: what was stored and is gone is an error when a stream attaches, stays a finding when that has stored more, and
//! is forgotten only when it would have expired. Time is simulated.
//! Not here: the end alone (lost_end), backups (lost_backups).

use crate::fake::{FakeServer, FakeSource, SEGMENT as SMALL, WhenSent};
use crate::lost_end::{DEPTHS, START, catalog, planned, shelf, stream, streamed, taken, verify};
use crate::shelf::{DAY, SEGMENT, Shelf, Written, branch, name};
use backstay_engine::jobs::stream::Cadence;
use backstay_engine::jobs::verify::Depth;
use backstay_engine::plan::{LostLog, latest_refused, told_once, window};
use backstay_engine::{ErrorKind, Fact};
use backstay_repository::EndPoint;
use backstay_scenarios::Running;
use backstay_terms::{LogRange, Lsn, Position, RecoveryTarget, RetentionClass};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

const REACH: u64 = 4 * SMALL + 5000;

/// A backup in the log of a stream that was stopped.
async fn streamed_shelf() -> Shelf {
    let shelf = Shelf::with_segment(SMALL).await;
    taken(&shelf, SMALL + START).await;
    let mut server = FakeServer::new(REACH);
    server.when_sent = WhenSent::Stop;
    stream(&shelf, &Arc::new(server)).await;
    shelf.clock.advance(Duration::from_secs(60));
    shelf
}

/// Streams until more is stored; what was told of lost log.
async fn stream_again(shelf: &Shelf, kept_from: u64, end: u64) -> Vec<(LogRange, String)> {
    let server = FakeServer::promoted(1, 0, kept_from, kept_from, end);
    let server = Arc::new(server);
    let source = Arc::new(FakeSource(server.clone()));
    let repository = shelf.open().await;
    let running = Running::follow(source.clone(), source, &repository, &name(), Cadence::default());
    let pass = || shelf.clock.advance(Duration::from_secs(10));
    running.until_while(pass, |_| server.slot() == end).await;
    let facts = running.facts();
    running.stop().await.unwrap();
    let lost = |fact: &Fact| match fact {
        Fact::LogLost { from, to, by } => {
            Some((LogRange { from: *from, to: *to }, by.clone().unwrap_or_default()))
        }
        _ => None,
    };
    facts.iter().filter_map(lost).collect()
}

async fn lost(shelf: &Shelf) -> Vec<LostLog> {
    let catalog = catalog(shelf).await;
    catalog.lost_log(shelf.clock_at(0)).await.unwrap().to_vec()
}

async fn assert_found(shelf: &Shelf, what: &str) {
    for depth in DEPTHS {
        let findings = verify(shelf, depth).await.findings;
        assert!(
            findings.iter().any(|finding| finding.what.contains(what)),
            "{depth:?}: {findings:#?}"
        );
    }
}

async fn assert_forgotten_when_it_would_have_expired(shelf: &Shelf) {
    shelf.clock.advance(DAY * 401);
    assert_eq!(lost(shelf).await, vec![]);
}

#[tokio::test]
async fn a_loss_of_everything_is_remembered_when_a_stream_has_attached_again() {
    for gone in ["wal-archive/", "wal-archive/lineage/", "wal-archive/settled/"] {
        let shelf = streamed_shelf().await;
        shelf.remove(gone).await;
        assert!(
            shelf.names("wal-archive/live/").is_empty(),
            "{gone}: it was drained"
        );
        let told = stream_again(&shelf, 5 * SMALL, 6 * SMALL).await;
        assert_eq!(told.len(), 1, "{gone}: {told:?}");
        assert_eq!(told[0].0.to.0, REACH, "{gone}");
        let by = &told[0].1;
        let known = ["the record of the run ", "the log index "]
            .iter()
            .any(|known| by.starts_with(known));
        assert!(known, "{gone}: {by}");

        // A second attachment says nothing new, and a newer backup does not make it good.
        assert_eq!(stream_again(&shelf, 6 * SMALL, 7 * SMALL).await, vec![], "{gone}");
        taken(&shelf, 6 * SMALL + START).await;
        let still = lost(&shelf).await;
        assert_eq!(still.len(), 1, "{gone}: {still:?}");
        assert_eq!(still[0].to.0, REACH, "{gone}: {still:?}");
        // A hole of a lineage ends where it goes on.
        let to = if gone.ends_with("settled/") {
            5 * SMALL
        } else {
            REACH
        };
        assert_found(&shelf, &Lsn(to).to_string()).await;
        let there = RecoveryTarget::Lsn(Lsn(3 * SMALL));
        let refused = planned(&shelf, there, None).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Integrity, "{gone}: {refused}");
        assert!(refused.to_string().contains(by), "{gone}: {refused}");
        assert_forgotten_when_it_would_have_expired(&shelf).await;
    }
}

#[tokio::test]
async fn a_stream_that_died_tells_that_its_log_is_lost_although_not_how_far_it_was_stored() {
    let shelf = streamed_shelf().await;
    let ended = shelf
        .names("-stream-")
        .into_iter()
        .filter(|key| key.as_str().ends_with(".finished"));
    for key in ended {
        shelf.remove(key.as_str()).await;
    }
    shelf.remove("wal-archive/").await;
    let told = stream_again(&shelf, 5 * SMALL, 6 * SMALL).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].0.from.0, told[0].0.to.0), (0, 5 * SMALL));
    assert!(told[0].1.starts_with("the run "), "{told:?}");
    let refused = planned(&shelf, RecoveryTarget::Lsn(Lsn(3 * SMALL)), None)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Integrity, "{refused}");
    assert_found(&shelf, "the log up to ").await;
    assert_forgotten_when_it_would_have_expired(&shelf).await;
}

/// A second run of the stream that died: neither its end is recorded nor its last index stored.
async fn died_later(shelf: &Shelf) {
    stream_again(shelf, 4 * SMALL, 5 * SMALL).await;
    let mut runs = shelf.names("-stream-");
    runs.retain(|key| key.as_str().ends_with(".finished"));
    assert_eq!(runs.len(), 2, "{runs:?}");
    shelf.remove(runs[1].as_str()).await;
}

#[tokio::test]
async fn what_several_witnesses_tell_of_one_loss_is_told_once() {
    let range = |to| LogRange {
        from: Position(0),
        to: Position(to),
    };
    for (gone, told) in [
        // The ranges are there, and of which lineage they are.
        ("wal-archive/lineage/", range(5 * SMALL)),
        // Where the run that died had stored is not known; the server goes on later.
        ("wal-archive/", range(6 * SMALL)),
    ] {
        let shelf = streamed_shelf().await;
        died_later(&shelf).await;
        shelf.remove("wal-archive/index/").await;
        shelf.remove(gone).await;
        let begins = told.to.0;
        let lost_then = stream_again(&shelf, begins, begins + SMALL).await;
        let ranges: Vec<LogRange> = lost_then.iter().map(|(range, _)| *range).collect();
        assert_eq!(ranges, [told], "{gone}: {lost_then:?}");
        let still: Vec<LogRange> = told_once(&lost(&shelf).await)
            .iter()
            .map(LostLog::range)
            .collect();
        assert_eq!(still, [told], "{gone}");
        assert_eq!(
            stream_again(&shelf, begins + SMALL, begins + 2 * SMALL).await,
            vec![],
            "{gone}"
        );
    }
}

#[tokio::test]
async fn a_backup_that_has_everything_that_was_lost_is_the_newest_point_before_a_stream_attaches_again() {
    let shelf = streamed_shelf().await;
    shelf.remove("wal-archive/").await;
    let refused = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Integrity, "{refused}");
    let newer = taken(&shelf, REACH).await;
    let plan = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap();
    assert_eq!(plan.head.backup, newer.backup);
    assert_eq!(lost(&shelf).await.len(), 1);
    assert_found(&shelf, "all log of orders is lost").await;
}

#[tokio::test]
async fn what_is_brought_back_is_lost_no_more() {
    let shelf = streamed_shelf().await;
    let before = shelf.memory.snapshot();
    shelf.remove("wal-archive/").await;
    stream_again(&shelf, 5 * SMALL, 6 * SMALL).await;
    assert_eq!(lost(&shelf).await.len(), 1);
    for (key, body) in before.objects() {
        if key.as_str().starts_with("wal-archive/") {
            shelf.memory.overwrite(key, body.clone());
        }
    }
    assert_eq!(lost(&shelf).await, vec![]);
    assert_eq!(verify(&shelf, Depth::Structure).await.findings, vec![]);
}

#[tokio::test]
async fn a_source_whose_log_was_never_lost_has_nothing_to_remember() {
    let shelf = streamed_shelf().await;
    assert_eq!(stream_again(&shelf, 4 * SMALL, 6 * SMALL).await, vec![]);
    // A gap that the source declared.
    assert_eq!(stream_again(&shelf, 8 * SMALL, 9 * SMALL).await, vec![]);
    assert_eq!(lost(&shelf).await, vec![]);
    assert_eq!(verify(&shelf, Depth::Everything).await.findings, vec![]);
    assert_eq!(shelf.names("-loss-"), vec![]);
}

#[tokio::test]
async fn log_that_ends_before_the_newest_backup_is_lost_and_not_out_of_reach() {
    let (shelf, _) = shelf().await;
    let end = EndPoint {
        start: Position(3 * SEGMENT + START + 50),
        crc: 2,
    };
    shelf
        .log_ending(branch(1, 1), 3 * SEGMENT, 4 * SEGMENT, 1, end)
        .await;
    let newer = shelf
        .backup_ending(RetentionClass::Days35, 3 * SEGMENT + START, Some(end))
        .await;
    streamed(&shelf, 4 * SEGMENT).await;
    let plan = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap();
    assert_eq!(plan.head.backup, newer.backup);
    shelf.remove(&format!("/{:016x}-", 2 * SEGMENT)).await;
    shelf.remove(&format!("/{:016x}-", 3 * SEGMENT)).await;
    let refused = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Integrity, "{refused}");
    let said = latest_refused(&catalog(&shelf).await, shelf.clock_at(0))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(said.to_string(), refused.to_string());
    let positions: Vec<_> = lost(&shelf).await.iter().map(LostLog::range).collect();
    let (from, to) = (Position(2 * SEGMENT), Position(4 * SEGMENT));
    assert_eq!(positions, [LogRange { from, to }]);
    let beyond = planned(&shelf, RecoveryTarget::Lsn(Lsn(3 * SEGMENT)), None)
        .await
        .unwrap_err();
    assert_eq!(beyond.kind(), ErrorKind::Integrity, "{beyond}");
}

#[tokio::test]
async fn a_gap_that_an_attachment_declared_is_said_before_anything_after_it_is_stored() {
    let (shelf, _) = shelf().await;
    shelf.attach(branch(1, 1), 5 * SEGMENT, None, None).await;
    let gap = LogRange {
        from: Position(3 * SEGMENT),
        to: Position(5 * SEGMENT),
    };
    let catalog = catalog(&shelf).await;
    let now = shelf.clock_at(0);
    assert_eq!(window(&catalog, now).await.unwrap().gaps, [gap]);
    let refused = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InGap, "{refused}");
    assert!(
        refused.to_string().contains(&Lsn(5 * SEGMENT).to_string()),
        "{refused}"
    );
    let said = latest_refused(&catalog, now).await.unwrap().unwrap();
    assert_eq!(said.to_string(), refused.to_string());
    shelf
        .log(branch(1, 1), &[5 * SEGMENT, 6 * SEGMENT], 0, &[Written::Settled])
        .await;
    assert_eq!(
        window(&crate::lost_end::catalog(&shelf).await, now)
            .await
            .unwrap()
            .gaps,
        [gap]
    );
}

#[tokio::test]
async fn an_object_that_is_too_small_to_be_a_range_counts_as_not_stored() {
    for left in [0, 100] {
        let (shelf, _) = shelf().await;
        let cut = shelf.names(&format!("/{:016x}-", 2 * SEGMENT));
        assert_eq!(cut.len(), 2, "live and settled");
        for key in &cut {
            shelf.memory.overwrite(key, Bytes::from(vec![0; left]));
        }
        let refused = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Integrity, "{refused}");
        assert!(
            refused.to_string().contains(&format!("{left} bytes")),
            "{refused}"
        );
        let catalog = catalog(&shelf).await;
        let seen = window(&catalog, shelf.clock_at(0)).await.unwrap();
        assert_eq!(seen.ranges.last().unwrap().to.0, 2 * SEGMENT);
        let positions: Vec<_> = lost(&shelf).await.iter().map(LostLog::range).collect();
        let (from, to) = (Position(2 * SEGMENT), Position(3 * SEGMENT));
        assert_eq!(positions, [LogRange { from, to }]);
        for depth in DEPTHS {
            let findings = verify(&shelf, depth).await.findings;
            for key in &cut {
                assert!(
                    findings.iter().any(|finding| finding.object == key.as_str()),
                    "{depth:?}: {findings:#?}"
                );
            }
        }
        // One copy is enough.
        let whole = self::shelf().await.0;
        let live = whole.names("/live/");
        whole.memory.overwrite(live.last().unwrap(), Bytes::new());
        planned(&whole, RecoveryTarget::Latest, None).await.unwrap();
        assert_eq!(lost(&whole).await, vec![]);
        assert!(!verify(&whole, Depth::Listed).await.findings.is_empty());
    }
}

#[tokio::test]
async fn a_size_that_is_not_the_one_that_a_log_index_tells_is_a_finding() {
    let (shelf, _) = shelf().await;
    shelf
        .log_indexed(branch(1, 1), &[3 * SEGMENT, 4 * SEGMENT], 2 * SEGMENT)
        .await;
    assert_eq!(verify(&shelf, Depth::Structure).await.findings, vec![]);
    let key = &shelf.names(&format!("/{:016x}-", 3 * SEGMENT))[0];
    shelf.change(key, |body| body.truncate(body.len() / 2));
    let findings = verify(&shelf, Depth::Structure).await.findings;
    let told = |what: &str| what.contains("the log index") || what.contains("wal-archive/index/");
    assert!(
        findings
            .iter()
            .any(|finding| finding.object == key.as_str() && told(&finding.what)),
        "{findings:#?}"
    );
}
