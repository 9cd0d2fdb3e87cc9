//! What is lost without a trace of its own is missed by what still speaks of it; what went by right is not.
//!
//! Promise: findings are compared by object, invariant and text; a repository in which backups expired, others died and a
//! stream runs gives none.
//! Not here: objects that are there and damaged (verify), plans beside them (unreadable).

use crate::shelf::{DAY, SEGMENT, Shelf, Written, branch, key, name};
use backstay_engine::jobs::expire::ExpireJob;
use backstay_engine::jobs::verify::{Depth, Recording, Verified, VerifyJob};
use backstay_engine::plan::retention::ExpiryPolicy;
use backstay_engine::{ErrorKind, Silent};
use backstay_repository::{CheckFinding, Head, HoleKind, Invariant, Parent, Recipient, Repository};
use backstay_store::{Key, Store};
use backstay_terms::{Branch, EngineKind, Lsn, Position, RetentionClass};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const HALF: u64 = SEGMENT / 2;
const DEPTHS: [Depth; 3] = [Depth::Listed, Depth::Structure, Depth::Everything];

async fn verify_by(repository: Repository, depth: Depth) -> Verified {
    let job = VerifyJob {
        repository,
        services: vec![],
        depth,
        formats: vec![],
        identities: vec![],
        recording: Recording::Skipped,
    };
    job.run().await.unwrap()
}

async fn verify(shelf: &Shelf, depth: Depth) -> Verified {
    verify_by(shelf.open().await, depth).await
}

/// The only finding.
#[track_caller]
fn one(verified: &Verified) -> &CheckFinding {
    let [finding] = &verified.findings[..] else {
        panic!("{:#?}", verified.findings)
    };
    let error = verified.outcome().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    finding
}

fn figures(head: &Head) -> serde_json::Value {
    json!({
        "backup": head.backup, "generation": head.generation, "class": head.class,
        "expires_at": head.expires_at, "totals": head.totals,
    })
}

fn now(shelf: &Shelf) -> jiff::Timestamp {
    shelf.clock_at(0)
}

fn main_branch() -> Branch {
    branch(1, 1)
}

/// A backup with its run's record, and the log of two segments in halves, settled and indexed.
async fn shelf() -> (Shelf, Head) {
    let shelf = Shelf::new().await;
    shelf.attach(main_branch(), 0, None, None).await;
    let head = shelf.backup(RetentionClass::Year1, 5000).await;
    shelf.committed(&head, figures(&head)).await;
    shelf
        .log_indexed(main_branch(), &[0, HALF, 2 * HALF, 3 * HALF, 4 * HALF], 0)
        .await;
    shelf.clock.advance(Duration::from_secs(600));
    (shelf, head)
}

#[tokio::test]
async fn what_expired_died_or_is_under_way_is_no_finding() {
    let (shelf, old) = shelf().await;
    // Two more keep the floor while the first expires; then one dies, one is under way, and a stream runs.
    for start in [7000, 9000] {
        shelf.clock.advance(DAY * 200);
        let head = shelf.backup(RetentionClass::Year1, start).await;
        shelf.committed(&head, figures(&head)).await;
    }
    let job = ExpireJob {
        name: name(),
        engine: EngineKind::Postgres,
        repository: shelf.open().await,
        policy: ExpiryPolicy::of(EngineKind::Postgres),
        observer: Arc::new(Silent),
    };
    let plan = job.plan().await.unwrap();
    job.run(&plan).await.unwrap();
    let heads = shelf.names("/manifests/");
    assert!(
        heads
            .iter()
            .all(|head| !head.as_str().contains(old.backup.as_str())),
        "{heads:?}"
    );
    shelf.abandoned().await;
    shelf.open().await.run_started("backup", "orders").await.unwrap();
    shelf.attach(main_branch(), 4 * HALF, None, None).await;
    let borders = [4 * HALF, 5 * HALF, 6 * HALF, 7 * HALF];
    shelf
        .log_overtaking(main_branch(), &borders, 3 * HALF, &[1])
        .await;
    for depth in DEPTHS {
        let verified = verify(&shelf, depth).await;
        assert_eq!(verified.findings, vec![], "{depth:?}");
        let kinds: Vec<HoleKind> = verified.holes.iter().map(|hole| hole.kind).collect();
        assert_eq!(kinds, [HoleKind::UnderWay], "{depth:?}");
        let hole = verified.holes[0].range;
        assert_eq!((hole.from.0, hole.to.0), (5 * HALF, 6 * HALF));
    }
}

#[tokio::test]
async fn a_head_that_a_run_committed_is_missed_as_long_as_it_is_promised() {
    for parts in ["kept", "gone"] {
        let (shelf, head) = shelf().await;
        let at = shelf.names("/manifests/")[0].clone();
        let run = run_of(&shelf);
        let left = match parts {
            "kept" => {
                shelf.memory.delete(&at).await.unwrap();
                let parts = shelf.names("/tables/").len() + shelf.names("/data/").len();
                assert!(parts > 3, "{parts}");
                format!("{parts} of its tables and packs are there, and nothing opens them without it")
            }
            _ => {
                shelf.remove(head.generation.as_str()).await;
                "and nothing else of it is there".to_owned()
            }
        };
        let what = format!(
            "the head of backup {} is not there: the run {run} committed it on {}, and it is promised until {}; {left}",
            head.backup, head.finished, head.expires_at
        );
        let next = "bring it back from a copy of the repository, or: backstay backup orders";
        let expected = CheckFinding::new(at.as_str(), Invariant::Repo4, what).then(next);
        for depth in DEPTHS {
            assert_eq!(one(&verify(&shelf, depth).await), &expected, "{depth:?}");
        }
        shelf.clock.advance(DAY * 365);
        let verified = verify(&shelf, Depth::Structure).await;
        assert_eq!(verified.findings, vec![], "it may have expired");
    }
}

fn run_of(shelf: &Shelf) -> String {
    let records = shelf.names("-backup-");
    let last = records[0].as_str().rsplit('/').next().unwrap();
    last.trim_end_matches(".finished").to_owned()
}

#[tokio::test]
async fn records_that_name_the_backup_alone_miss_it_for_the_class_of_what_is_left_or_for_the_shortest() {
    for (parts, missed_for) in [("kept", 364), ("gone", 34)] {
        let shelf = Shelf::new().await;
        let head = shelf.backup(RetentionClass::Year1, 5000).await;
        shelf
            .committed(&head, json!({ "backup": head.backup, "totals": head.totals }))
            .await;
        match parts {
            "kept" => shelf.remove("/manifests/").await,
            _ => shelf.remove(head.generation.as_str()).await,
        }
        shelf.clock.advance(DAY * missed_for);
        let verified = verify(&shelf, Depth::Listed).await;
        let finding = one(&verified);
        assert!(
            finding.what.contains(head.backup.as_str()),
            "{parts}: {finding:?}"
        );
        shelf.clock.advance(DAY);
        assert_eq!(verify(&shelf, Depth::Listed).await.findings, vec![], "{parts}");
    }
}

/// The text of a finding about a hole that is lost for certain.
fn lost(from: u64, to: u64, times: &str, of: Branch) -> CheckFinding {
    let (from, to) = (Lsn(from), Lsn(to));
    let what = format!(
        "the log from {from} to {to}{times} is not stored any more: it was stored or confirmed, and no restore can cross it"
    );
    let next = "bring it back from a copy of the repository, or: backstay backup orders; see: backstay wal gaps orders";
    CheckFinding::new(format!("branch {of} from {from} to {to}"), Invariant::Log1, what).then(next)
}

fn range_from(shelf: &Shelf, level: &str, from: u64) -> Key {
    let begins = format!("/{from:016x}-");
    let names = shelf.names(level).into_iter();
    let mut named = names.filter(|key| key.as_str().contains(&begins));
    named.next().unwrap()
}

#[tokio::test]
async fn a_lost_range_is_a_hole_that_is_named_with_its_positions_and_times() {
    let (shelf, _) = shelf().await;
    let stored = shelf.clock_at(-600);
    for (place, times) in [
        (0, format!(", before an object that the store dates {stored:.0},")),
        (
            1,
            format!(", between objects that the store dates {stored:.0} and {stored:.0},"),
        ),
        (
            2,
            format!(", between objects that the store dates {stored:.0} and {stored:.0},"),
        ),
    ] {
        let copy = shelf.copy();
        let (from, to) = (place * HALF, (place + 1) * HALF);
        copy.memory
            .delete(&range_from(&copy, "/settled/", from))
            .await
            .unwrap();
        for depth in DEPTHS {
            let verified = verify(&copy, depth).await;
            assert_eq!(
                one(&verified),
                &lost(from, to, &times, main_branch()),
                "{depth:?}"
            );
        }
    }
    // At the end only the index tells; a listing opens no index without a hole.
    let copy = shelf.copy();
    copy.memory
        .delete(&range_from(&copy, "/settled/", 3 * HALF))
        .await
        .unwrap();
    let times = format!(", after an object that the store dates {stored:.0},");
    let verified = verify(&copy, Depth::Structure).await;
    assert_eq!(one(&verified), &lost(3 * HALF, 4 * HALF, &times, main_branch()));
    // All of it at once.
    copy.remove("/settled/").await;
    let verified = verify(&copy, Depth::Structure).await;
    assert_eq!(one(&verified), &lost(0, 4 * HALF, "", main_branch()));
}

#[tokio::test]
async fn a_hole_of_which_nothing_tells_whether_it_was_stored_is_said_to_be_one_or_the_other() {
    let shelf = Shelf::new().await;
    shelf.attach(main_branch(), 0, None, None).await;
    let stored = now(&shelf);
    let borders = [0, HALF, 2 * HALF, 3 * HALF];
    shelf.log_overtaking(main_branch(), &borders, 0, &[1]).await;
    shelf.clock.advance(Duration::from_secs(61));
    let what = format!(
        "the log from {} to {}, between objects that the store dates {stored:.0} and {stored:.0}, is not stored: \
         either it is lost, or a stream died before it had stored it, and reads it again when it runs",
        Lsn(HALF),
        Lsn(2 * HALF)
    );
    let next = "see that this runs: backstay stream orders; if the hole stays: backstay backup orders; \
                see: backstay wal gaps orders";
    let object = format!("branch {} from {} to {}", main_branch(), Lsn(HALF), Lsn(2 * HALF));
    let expected = CheckFinding::new(object, Invariant::Log1, what).then(next);
    for depth in DEPTHS {
        assert_eq!(one(&verify(&shelf, depth).await), &expected);
    }
    // A stream that resumes reads it again.
    let resumed = shelf.copy();
    resumed.attach(main_branch(), 0, None, None).await;
    resumed
        .log(main_branch(), &[HALF, 2 * HALF], HALF - 1, &[Written::Live])
        .await;
    assert_eq!(verify(&resumed, Depth::Listed).await.findings, vec![]);
    // A mark stands only where everything before it is durable, and a stream resumes only inside of what is.
    let marked = shelf.copy();
    marked.mark(main_branch(), 3 * HALF).await;
    let behind = shelf.copy();
    behind.attach(main_branch(), 2 * HALF + 5, None, None).await;
    let times = format!(", between objects that the store dates {stored:.0} and {stored:.0},");
    for proven in [marked, behind] {
        let verified = verify(&proven, Depth::Listed).await;
        assert_eq!(one(&verified), &lost(HALF, 2 * HALF, &times, main_branch()));
    }
}

#[tokio::test]
async fn a_gap_that_an_attachment_declared_is_told_apart_from_a_hole_beside_it() {
    let (shelf, _) = shelf().await;
    let declared = now(&shelf);
    shelf.attach(main_branch(), 7 * HALF, None, None).await;
    let after = now(&shelf);
    shelf
        .log_indexed(
            main_branch(),
            &[7 * HALF, 8 * HALF, 9 * HALF, 10 * HALF],
            3 * HALF,
        )
        .await;
    for depth in DEPTHS {
        let verified = verify(&shelf, depth).await;
        assert_eq!(verified.findings, vec![]);
        let [gap] = &verified.holes[..] else {
            panic!("{verified:?}")
        };
        assert_eq!((gap.range.from.0, gap.range.to.0), (4 * HALF, 7 * HALF));
        assert_eq!((gap.kind, gap.after), (HoleKind::Declared, Some(declared)));
    }
    shelf
        .memory
        .delete(&range_from(&shelf, "/settled/", 8 * HALF))
        .await
        .unwrap();
    let times = format!(", between objects that the store dates {after:.0} and {after:.0},");
    for depth in DEPTHS {
        let verified = verify(&shelf, depth).await;
        assert_eq!(one(&verified), &lost(8 * HALF, 9 * HALF, &times, main_branch()));
        assert_eq!(verified.holes.len(), 1);
    }
}

#[tokio::test]
async fn what_overtook_before_a_declared_gap_is_declared_with_it() {
    let shelf = Shelf::new().await;
    shelf.attach(main_branch(), 0, None, None).await;
    let borders = [0, HALF, 2 * HALF, 3 * HALF];
    shelf.log_overtaking(main_branch(), &borders, 0, &[1]).await;
    shelf.clock.advance(Duration::from_secs(3600));
    shelf.attach(main_branch(), 7 * HALF, None, None).await;
    shelf
        .log(
            main_branch(),
            &[7 * HALF, 8 * HALF],
            7 * HALF - 1,
            &[Written::Settled],
        )
        .await;
    shelf.mark(main_branch(), 8 * HALF).await;
    let verified = verify(&shelf, Depth::Everything).await;
    assert_eq!(verified.findings, vec![]);
    let kinds: Vec<HoleKind> = verified.holes.iter().map(|hole| hole.kind).collect();
    assert_eq!(kinds, [HoleKind::Declared, HoleKind::Declared]);
}

#[tokio::test]
async fn what_is_lost_of_an_ancestor_before_the_switch_point_is_named_once() {
    let (shelf, _) = shelf().await;
    let stored = shelf.clock_at(-600);
    let parent = Parent {
        branch: main_branch(),
        fork: Position(4 * HALF),
    };
    let child = branch(2, 2);
    shelf
        .attach(child, 4 * HALF, Some(parent), Some("1\t0/200000\tx\n"))
        .await;
    shelf
        .log(child, &[4 * HALF, 5 * HALF], 3 * HALF, &[Written::Settled])
        .await;
    assert_eq!(verify(&shelf, Depth::Everything).await.findings, vec![]);
    shelf
        .memory
        .delete(&range_from(&shelf, "/settled/", HALF))
        .await
        .unwrap();
    let times = format!(", between objects that the store dates {stored:.0} and {stored:.0},");
    let verified = verify(&shelf, Depth::Structure).await;
    assert_eq!(one(&verified), &lost(HALF, 2 * HALF, &times, main_branch()));
}

#[tokio::test]
async fn a_run_record_that_is_damaged_swapped_or_moved_is_found() {
    let (shelf, head) = shelf().await;
    shelf.clock.advance(Duration::from_secs(1));
    shelf.committed(&head, figures(&head)).await;
    let records = shelf.names("facts/runs/");
    assert_eq!(records.len(), 4, "{records:?}");
    for record in &records {
        let flipped = shelf.copy();
        flipped.change(record, |body| {
            let last = body.len() - 1;
            body[last] ^= 1;
        });
        let verified = verify(&flipped, Depth::Structure).await;
        let finding = one(&verified);
        assert_eq!(
            (finding.object.as_str(), finding.invariant),
            (record.as_str(), Invariant::Repo1)
        );
        assert!(finding.what.contains("was changed"), "{finding:?}");

        let swapped = shelf.copy();
        let of_its_kind = |other: &&Key| *other != record && suffix(other) == suffix(record);
        let other = records.iter().find(of_its_kind).unwrap();
        let body = shelf.memory.snapshot().get(other).unwrap().to_vec();
        swapped.change(record, |mine| mine.clone_from(&body));
        let verified = verify(&swapped, Depth::Structure).await;
        let finding = one(&verified);
        assert_eq!(
            (finding.object.as_str(), finding.invariant),
            (record.as_str(), Invariant::Repo1)
        );

        let moved = shelf.copy();
        let (day, file) = record.as_str().rsplit_once('/').unwrap();
        let elsewhere: Key = format!("{}/28/{file}", day.rsplit_once('/').unwrap().0)
            .parse()
            .unwrap();
        let body = moved.memory.snapshot().get(record).unwrap().clone();
        moved.memory.overwrite(&elsewhere, body);
        moved.memory.delete(record).await.unwrap();
        let verified = verify(&moved, Depth::Listed).await;
        assert_eq!(one(&verified), &CheckFinding::stray(elsewhere.as_str()));
    }
    // A listing opens what tells of backups.
    let flipped = shelf.copy();
    let finished = records
        .iter()
        .find(|record| suffix(record) == "finished")
        .unwrap();
    flipped.change(finished, |body| body[120] ^= 1);
    assert_eq!(
        one(&verify(&flipped, Depth::Listed).await).object,
        finished.as_str()
    );
}

fn suffix(key: &Key) -> &str {
    key.as_str().rsplit_once('.').unwrap().1
}

#[tokio::test]
async fn a_log_index_that_is_damaged_or_swapped_is_found() {
    let (shelf, _) = shelf().await;
    shelf.clock.advance(Duration::from_secs(3600));
    shelf.attach(main_branch(), 4 * HALF, None, None).await;
    shelf
        .log_indexed(main_branch(), &[4 * HALF, 5 * HALF], 3 * HALF)
        .await;
    let indexes = shelf.names("wal-archive/index/");
    assert_eq!(indexes.len(), 2, "{indexes:?}");
    let other = shelf.memory.snapshot().get(&indexes[1]).unwrap().to_vec();
    for depth in [Depth::Structure, Depth::Everything] {
        let flipped = shelf.copy();
        flipped.change(&indexes[0], |body| body[130] ^= 1);
        let verified = verify(&flipped, depth).await;
        let finding = one(&verified);
        assert_eq!(
            (finding.object.as_str(), finding.invariant),
            (indexes[0].as_str(), Invariant::Repo1)
        );
        assert!(finding.what.contains("was changed"), "{finding:?}");

        let swapped = shelf.copy();
        swapped.change(&indexes[0], |body| body.clone_from(&other));
        let verified = verify(&swapped, depth).await;
        let finding = one(&verified);
        assert_eq!(
            (finding.object.as_str(), finding.invariant),
            (indexes[0].as_str(), Invariant::Repo1)
        );
    }
}

/// The same repository with a second recipient for everything.
async fn shelf_for_two() -> (Shelf, Head) {
    let (shelf, head) = shelf().await;
    let both = both_keys(&shelf).await;
    for envelope in both.envelopes().await.unwrap() {
        assert_eq!(both.rewrap(&envelope).await.unwrap(), 1);
    }
    (shelf, head)
}

async fn both_keys(shelf: &Shelf) -> Repository {
    let recipients: [Recipient; 2] = [key(7), key(8)];
    shelf.open_for(&recipients).await
}

#[tokio::test]
async fn each_wrap_that_is_damaged_or_renamed_is_found_while_another_one_still_opens_its_envelope() {
    let (shelf, _) = shelf_for_two().await;
    let wraps = [
        shelf.names("postgres-backups/keys/"),
        shelf.names("wal-archive/keys/"),
        shelf.names("facts/keys/"),
    ]
    .concat();
    assert_eq!(wraps.len(), 6, "{wraps:?}");
    assert_eq!(
        verify_by(both_keys(&shelf).await, Depth::Structure)
            .await
            .findings,
        vec![]
    );
    for (place, wrap) in wraps.iter().enumerate() {
        let flipped = shelf.copy();
        // In the last digits of what is wrapped: the form stays right.
        flipped.change(wrap, |body| {
            let at = body.len() - 8;
            body[at] = if body[at] == b'A' { b'B' } else { b'A' };
        });
        let verified = verify_by(both_keys(&flipped).await, Depth::Structure).await;
        let finding = one(&verified);
        assert_eq!(
            (finding.object.as_str(), finding.invariant),
            (wrap.as_str(), Invariant::Key2)
        );
        assert!(
            finding
                .what
                .ends_with("which is configured and does not open it: it was changed"),
            "{finding:?}"
        );

        let cut = shelf.copy();
        cut.change(wrap, |body| body.truncate(body.len() - 1));
        let verified = verify_by(both_keys(&cut).await, Depth::Structure).await;
        let finding = one(&verified);
        assert!(
            finding.object == wrap.as_str() && finding.what == "it is no wrap of keys",
            "{finding:?}"
        );

        // Under the name of another envelope.
        let other = &wraps[(place + 2) % 6];
        let renamed: Key = format!("{}aaaaaaaaaa", &other.as_str()[..other.as_str().len() - 10])
            .parse()
            .unwrap();
        let moved = shelf.copy();
        let body = moved.memory.snapshot().get(wrap).unwrap().clone();
        moved.memory.overwrite(&renamed, body);
        moved.memory.delete(wrap).await.unwrap();
        let verified = verify_by(both_keys(&moved).await, Depth::Structure).await;
        let finding = one(&verified);
        assert_eq!(
            (finding.object.as_str(), finding.invariant),
            (renamed.as_str(), Invariant::Repo1)
        );
        assert!(finding.what.starts_with("it was made for "), "{finding:?}");

        // Under a name of no form: a listing is enough.
        let strange: Key = format!("{wrap}.old").parse().unwrap();
        let moved = shelf.copy();
        let body = moved.memory.snapshot().get(wrap).unwrap().clone();
        moved.memory.overwrite(&strange, body);
        moved.memory.delete(wrap).await.unwrap();
        let depth = if wrap.as_str().starts_with("facts/") {
            Depth::Structure
        } else {
            Depth::Listed
        };
        let verified = verify_by(both_keys(&moved).await, depth).await;
        assert_eq!(one(&verified), &CheckFinding::stray(strange.as_str()));
    }
}

#[tokio::test]
async fn a_listing_finds_log_whose_keys_are_gone() {
    let (shelf, _) = shelf().await;
    let wrap = shelf.names("wal-archive/keys/")[0].clone();
    shelf.memory.delete(&wrap).await.unwrap();
    let verified = verify(&shelf, Depth::Listed).await;
    let finding = one(&verified);
    assert!(finding.object.starts_with("postgres/orders/log/"), "{finding:?}");
    assert_eq!(finding.invariant, Invariant::Key2);
    assert_eq!(
        finding.what,
        "no wrap of its keys is stored: 4 of its ranges cannot be opened"
    );
}
