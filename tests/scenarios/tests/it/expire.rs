//! Expiry of a repository in memory: what goes, what stays, and what a crash leaves.

mod restores;

use crate::shelf::{DAY, Shelf, Written, branch, key, name};
use backstay_engine::jobs::expire::{ExpireJob, Expired};
use backstay_engine::jobs::verify::{Depth, Recording, VerifyJob};
use backstay_engine::plan::retention::{ExpiryPlan, ExpiryPolicy};
use backstay_engine::{EngineError, ErrorKind, Silent};
use backstay_repository::{Head, Repository};
use backstay_store::faults::{CrashMode, CrashPlan, CrashStore, Fault, FaultyStore, When};
use backstay_store::{Key, Operation, Store};
use backstay_terms::{EngineKind, RetentionClass};
use bytes::Bytes;
use serde_json::json;
use std::sync::Arc;

/// Small segments: a sweep reads everything hundreds of times.
const SEGMENT: u64 = 64 << 10;

fn job(repository: Repository) -> ExpireJob {
    ExpireJob {
        name: name(),
        engine: EngineKind::Postgres,
        repository,
        policy: ExpiryPolicy::of(EngineKind::Postgres),
        observer: Arc::new(Silent),
    }
}

/// Three years: fulls at the beginning, after 200 and 500 days, two young ones; log all along; parts of a dead backup.
async fn shelf() -> Shelf {
    let shelf = Shelf::with_segment(SEGMENT).await;
    let both = [Written::Live, Written::Settled];
    shelf.attach(branch(1, 1), 0, None, None).await;
    let mut at = 0;
    for (days, class) in [
        (200, RetentionClass::Days35),
        (300, RetentionClass::Days35),
        (300, RetentionClass::Year1),
        (200, RetentionClass::Years3),
        (1, RetentionClass::Days35),
    ] {
        shelf.backup(class, at * SEGMENT + 5000).await;
        let borders: Vec<u64> = (2 * at..=2 * at + 4).map(|half| half * SEGMENT / 2).collect();
        let previous = (at * SEGMENT).saturating_sub(SEGMENT / 2);
        shelf.log(branch(1, 1), &borders, previous, &both).await;
        shelf.mark(branch(1, 1), (at + 2) * SEGMENT).await;
        at += 2;
        shelf.clock.advance(DAY * days);
    }
    shelf.abandoned().await;
    shelf.clock.advance(DAY * 15);
    shelf
}

/// Names of what expiry is about.
fn content(shelf: &Shelf) -> Vec<Key> {
    let names = shelf.names("").into_iter();
    names.filter(|key| !key.as_str().starts_with("facts/")).collect()
}

async fn run(shelf: &Shelf) -> Expired {
    let job = job(shelf.open().await);
    let plan = job.plan().await.unwrap();
    job.run(&plan).await.unwrap()
}

async fn assert_whole(shelf: &Shelf, what: &str) {
    let job = VerifyJob {
        repository: shelf.open().await,
        services: vec![],
        depth: Depth::Everything,
        formats: vec![],
        identities: vec![],
        recording: Recording::Skipped,
    };
    let verified = job.run().await.unwrap();
    assert_eq!(verified.findings, vec![], "{what}");
}

fn kinds(plan: &ExpiryPlan) -> Vec<String> {
    let json = serde_json::to_value(plan).unwrap();
    let removals = json["removals"].as_array().unwrap().clone();
    let mut kinds: Vec<String> = removals
        .iter()
        .map(|r| r["kind"].as_str().unwrap().to_owned())
        .collect();
    kinds.dedup();
    kinds
}

#[tokio::test]
async fn what_is_past_its_promise_goes_and_the_rest_can_be_read() {
    let shelf = shelf().await;
    assert_whole(&shelf, "before").await;
    let before = content(&shelf);
    let job = job(shelf.open().await);
    let plan = job.plan().await.unwrap();
    assert_eq!(content(&shelf), before, "a plan changes nothing");
    assert_eq!(kinds(&plan), ["backup", "uncommitted", "covered-log", "old-log"]);
    let done = job.run(&plan).await.unwrap();
    assert_eq!((done.removed.objects, done.skipped.len()), (plan.size().0, 0));
    let heads = shelf.names("/manifests/");
    assert_eq!(
        heads.len(),
        2,
        "the 3-year full, and the young one for the floor: {heads:?}"
    );
    assert_eq!(shelf.names("-backups/keys/").len(), 2);
    assert_whole(&shelf, "after").await;
    assert_eq!(
        run(&shelf).await,
        Expired::default(),
        "a second run finds nothing"
    );
    assert_eq!(shelf.names(".finished").len(), 1);
}

#[tokio::test]
async fn after_a_crash_at_any_call_every_visible_backup_is_whole_and_the_next_run_converges() {
    let shelf = shelf().await;
    let counting = CrashPlan::never();
    let (calls, end, shown) = {
        let copy = shelf.copy();
        let store = CrashStore::new(Arc::new(copy.memory.clone()), counting.clone());
        let job = job(copy.open_with(Arc::new(store), key(7)).await.unwrap());
        let plan = job.plan().await.unwrap();
        job.run(&plan).await.unwrap();
        (counting.count(), content(&copy), plan)
    };
    let mut cells = 0;
    for call in 1..=calls {
        for mode in [CrashMode::Before, CrashMode::AfterWithoutAnswer] {
            let copy = shelf.copy();
            let store = CrashStore::new(Arc::new(copy.memory.clone()), CrashPlan::at(call, mode));
            let opened = copy.open_with(Arc::new(store), key(7)).await;
            if let Ok(repository) = opened {
                let job = job(repository);
                // The plan is asked for again so that the calls are the ones counted.
                let died = match job.plan().await {
                    Ok(_) => job.run(&shown).await.map(|_| ()),
                    Err(error) => Err(error),
                };
                assert!(died.is_err(), "call {call}");
            }
            let what = format!("call {call} of {calls}, {mode:?}");
            assert_whole(&copy, &what).await;
            run(&copy).await;
            assert_eq!(content(&copy), end, "{what}");
            cells += 1;
        }
    }
    assert!(cells > 200, "{cells}");
}

#[tokio::test]
async fn a_store_that_loses_deletes_is_found_out_before_a_part_goes() {
    let shelf = shelf().await;
    let parts = (shelf.names("/data/"), shelf.names("/tables/"));
    let store = FaultyStore::new(Arc::new(shelf.memory.clone()))
        .with(When::Every(Operation::Delete), Fault::LostDelete);
    let job = job(shelf.open_with(Arc::new(store), key(7)).await.unwrap());
    let plan = job.plan().await.unwrap();
    let error = job.run(&plan).await.unwrap_err();
    assert!(
        error.to_string().ends_with("it is removed, and still shows it"),
        "{error}"
    );
    assert_eq!((shelf.names("/data/"), shelf.names("/tables/")), parts);
}

#[tokio::test]
async fn a_hold_placed_after_the_plan_keeps_everything() {
    let shelf = shelf().await;
    let job = job(shelf.open().await);
    let plan = job.plan().await.unwrap();
    let before = content(&shelf);
    let hold = Key::new("facts/holds/20290101T000000Z-hold-aaaaaaaaaa").unwrap();
    shelf.memory.overwrite(&hold, Bytes::from_static(b"?"));
    assert_eq!(job.run(&plan).await.unwrap(), Expired::default());
    assert_eq!(content(&shelf), before);
    assert!(job.plan().await.unwrap().removals.is_empty());
    // The repository itself refuses too.
    let first = &plan.removals[0];
    let carried = job
        .repository
        .carry_out(EngineKind::Postgres, &name(), first)
        .await
        .unwrap();
    assert!(matches!(carried, backstay_repository::Carried::Refused(why) if why.contains("hold")));
}

#[tokio::test]
async fn live_log_stays_when_what_covers_it_cannot_be_read() {
    let shelf = shelf().await;
    let job = job(shelf.open().await);
    let plan = job.plan().await.unwrap();
    for key in shelf.names("/settled/") {
        shelf.change(&key, |body| *body.last_mut().unwrap() ^= 1);
    }
    let live = shelf.names("/live/");
    let error = job.run(&plan).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    assert_eq!(shelf.names("/live/"), live);
}

#[tokio::test]
async fn what_was_not_shown_does_not_go() {
    let shelf = shelf().await;
    let job = job(shelf.open().await);
    let mut shown = job.plan().await.unwrap();
    let before = content(&shelf);
    let planned = shown.removals.len();
    shown.removals.clear();
    let done = job.run(&shown).await.unwrap();
    assert_eq!((done.removals, done.skipped.len()), (0, planned));
    assert_eq!(content(&shelf), before);
    let other = ExpiryPlan {
        source: "other".parse().unwrap(),
        ..shown
    };
    let refused: EngineError = job.run(&other).await.unwrap_err();
    assert_eq!(refused.to_string(), "the plan is for other, not for orders");
}

#[tokio::test]
async fn the_parts_of_a_committed_backup_stay_while_it_is_promised_though_its_head_is_lost() {
    for record in ["whole", "of an earlier version", "unreadable"] {
        let shelf = Shelf::with_segment(SEGMENT).await;
        shelf.clock.advance(DAY);
        let figures = |head: &Head| match record {
            "of an earlier version" => json!({ "backup": head.backup, "totals": head.totals }),
            _ => json!({
                "backup": head.backup, "generation": head.generation, "class": head.class,
                "expires_at": head.expires_at, "totals": head.totals,
            }),
        };
        let head = shelf.backup(RetentionClass::Days35, 5000).await;
        let run_of = shelf.committed(&head, figures(&head)).await;
        let lost = shelf.names("/manifests/").pop().unwrap();
        let body = shelf.memory.snapshot().get(&lost).unwrap().clone();
        shelf.remove("/manifests/").await;
        if record == "unreadable" {
            let ended = shelf.names(".finished").pop().unwrap();
            shelf.change(&ended, |body| *body.last_mut().unwrap() ^= 1);
        }
        shelf.abandoned().await;
        shelf.clock.advance(DAY * 20);
        let before = shelf.names("/data/").len();
        let plan = job(shelf.open().await).plan().await.unwrap();
        let kept = plan
            .kept
            .iter()
            .find(|kept| kept.what.contains(head.backup.as_str()));
        let kept = kept.unwrap_or_else(|| panic!("{record}: {plan:?}"));
        assert!(kept.because.contains(run_of.as_str()), "{record}: {kept:?}");
        run(&shelf).await;
        // A copy of the head brings the backup back.
        shelf.memory.put_if_absent(&lost, body).await.unwrap();
        let place = head.place();
        let (content, found) = shelf.open().await.check_content(&place).await.unwrap();
        assert_eq!((found, content.files), (vec![], head.totals.files), "{record}");
        let gone = before - shelf.names("/data/").len();
        let abandoned = if record == "unreadable" { 0 } else { 2 };
        assert_eq!(gone, abandoned, "{record}");
        if record == "unreadable" {
            continue;
        }
        // Past its promise it may be half expired.
        shelf.remove("/manifests/").await;
        shelf.clock.advance(DAY * 60);
        run(&shelf).await;
        assert_eq!(shelf.names("/data/"), vec![], "{record}");
    }
}
