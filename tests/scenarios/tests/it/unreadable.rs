//! Heads and lineage records that cannot be opened: whatever does not need them goes on, whatever does names them.
//!
//! Promise: plans are compared by the backup that they choose; each refusal by its kind and the object that it names.
//! Not here: damaged log (damage), what verify finds of it (losses).

use crate::shelf::{DAY, SEGMENT, Shelf, branch, name};
use backstay_engine::jobs::expire::ExpireJob;
use backstay_engine::jobs::fetch::{FetchJob, Fetched};
use backstay_engine::plan::retention::ExpiryPolicy;
use backstay_engine::plan::{Catalog, Request, latest_refused, plan, window};
use backstay_engine::{EngineError, ErrorKind, Silent};
use backstay_postgres::wal::PostgresLog;
use backstay_repository::{EndPoint, Head};
use backstay_store::Store;
use backstay_terms::{BackupId, Branch, EngineKind, Position, RecoveryTarget, RetentionClass};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// What becomes of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    HeadFlipped,
    HeadCut,
    WrapFlipped,
    WrapGone,
}

impl Blow {
    const ALL: [Blow; 4] = [
        Blow::HeadFlipped,
        Blow::HeadCut,
        Blow::WrapFlipped,
        Blow::WrapGone,
    ];

    /// What the reason names, and of which kind it is.
    fn reason(self, head: &Head) -> (ErrorKind, String) {
        let generation = &head.generation;
        match self {
            Blow::HeadFlipped | Blow::HeadCut => (
                ErrorKind::Integrity,
                format!(
                    "postgres-backups/manifests/35d/orders/{generation}/{}",
                    head.backup
                ),
            ),
            Blow::WrapFlipped | Blow::WrapGone => (ErrorKind::Key, format!("postgres/orders/{generation}")),
        }
    }

    async fn befall(self, shelf: &Shelf, head: &Head) {
        let part = match self {
            Blow::HeadFlipped | Blow::HeadCut => "/manifests/",
            Blow::WrapFlipped | Blow::WrapGone => "-backups/keys/",
        };
        let named = |key: &backstay_store::Key| key.as_str().contains(head.generation.as_str());
        let keys: Vec<_> = shelf.names(part).into_iter().filter(named).collect();
        assert_eq!(keys.len(), 1, "{keys:?}");
        let middle = |body: &mut Vec<u8>| {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        };
        match self {
            Blow::HeadFlipped | Blow::WrapFlipped => shelf.change(&keys[0], middle),
            Blow::HeadCut => shelf.change(&keys[0], |body| body.truncate(body.len() / 2)),
            Blow::WrapGone => shelf.memory.delete(&keys[0]).await.unwrap(),
        }
    }
}

fn end(crc: u32, start: u64) -> EndPoint {
    EndPoint {
        start: Position(start + 50),
        crc,
    }
}

/// A moment as the source's clock tells it.
fn micros(moment: Timestamp) -> i64 {
    moment.as_microsecond() - 946_684_800_000_000
}

/// Two backups, one a segment, with the log that joins them.
async fn shelf() -> (Shelf, Head, Head) {
    let shelf = Shelf::new().await;
    shelf.attach(branch(1, 1), 0, None, None).await;
    let mut heads = Vec::new();
    for (number, start) in [(1, 5000), (2, SEGMENT + 5000)] {
        let head = shelf
            .backup_ending(RetentionClass::Days35, start, Some(end(number, start)))
            .await;
        let from = start - 5000;
        shelf
            .log_ending(branch(1, 1), from, from + SEGMENT, 1, end(number, start))
            .await;
        shelf.clock.advance(Duration::from_secs(60));
        heads.push(head);
    }
    let newer = heads.pop().unwrap();
    (shelf, heads.pop().unwrap(), newer)
}

async fn read(shelf: &Shelf, lineage: Option<Branch>) -> Result<Catalog, EngineError> {
    Catalog::read(&shelf.open().await, EngineKind::Postgres, &name(), lineage).await
}

async fn chosen(
    shelf: &Shelf,
    target: RecoveryTarget,
    base: Option<&BackupId>,
) -> Result<BackupId, EngineError> {
    let catalog = read(shelf, None).await?;
    let request = Request {
        target,
        base: base.cloned(),
        now: shelf.open().await.now(),
    };
    let plan = plan(&catalog, &request, &PostgresLog).await?;
    Ok(plan.head.backup)
}

#[tokio::test]
async fn an_old_backup_that_cannot_be_opened_stops_nothing_that_does_not_need_it() {
    for blow in Blow::ALL {
        let (shelf, older, newer) = shelf().await;
        blow.befall(&shelf, &older).await;
        let (kind, named) = blow.reason(&older);

        let catalog = read(&shelf, None).await.unwrap();
        assert_eq!(catalog.heads, std::slice::from_ref(&newer), "{blow:?}");
        let objects = catalog.unread.objects();
        assert_eq!(objects.len(), 1, "{blow:?}");
        assert_eq!(objects[0].backup.as_ref(), Some(&older.backup));
        assert!(objects[0].why.contains(&named), "{blow:?}: {}", objects[0].why);
        let window = window(&catalog, shelf.open().await.now()).await.unwrap();
        let bases: Vec<&BackupId> = window.ranges.iter().map(|range| &range.base).collect();
        assert_eq!(bases, [&newer.backup], "{blow:?}");

        for base in [None, Some(&newer.backup)] {
            for target in [RecoveryTarget::Latest, RecoveryTarget::Immediate] {
                assert_eq!(
                    chosen(&shelf, target, base).await.unwrap(),
                    newer.backup,
                    "{blow:?}"
                );
            }
        }
        let refused = chosen(&shelf, RecoveryTarget::Immediate, Some(&older.backup)).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), kind, "{blow:?}: {refused}");
        let begins = format!("the backup {} of orders cannot be opened: ", older.backup);
        assert!(refused.to_string().starts_with(&begins), "{refused}");
        assert!(refused.to_string().contains(&named), "{refused}");
        assert!(
            refused.advice().contains("backstay verify orders"),
            "{}",
            refused.advice()
        );
    }
}

#[tokio::test]
async fn without_the_newest_backup_latest_goes_on_where_the_log_proves_it_and_is_refused_elsewhere() {
    for blow in Blow::ALL {
        let (shelf, older, newer) = shelf().await;
        blow.befall(&shelf, &newer).await;
        let (kind, named) = blow.reason(&newer);
        let refused = chosen(&shelf, RecoveryTarget::Latest, None).await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{blow:?}: {refused}");
        let begins = format!(
            "the newest backup {} of orders cannot be opened, and without it",
            newer.backup
        );
        assert!(refused.to_string().starts_with(&begins), "{refused}");
        assert!(refused.to_string().contains(&named), "{refused}");
        assert!(refused.advice().contains("--to \""), "{}", refused.advice());
        assert_eq!(said(&shelf).await, Some((kind, refused.to_string())), "{blow:?}");
        // Whoever names a base, or asks for no more than a base, has it.
        let by_name = chosen(&shelf, RecoveryTarget::Latest, Some(&older.backup)).await;
        assert_eq!(by_name.unwrap(), older.backup);
        let alone = chosen(&shelf, RecoveryTarget::Immediate, None).await;
        assert_eq!(alone.unwrap(), older.backup);

        // A mark after the backup was stored: the log is known to go on past it.
        let now = shelf.open().await.now();
        shelf.mark_at(branch(1, 1), 2 * SEGMENT, micros(now)).await;
        let goes_on = chosen(&shelf, RecoveryTarget::Latest, None).await;
        assert_eq!(goes_on.unwrap(), older.backup, "{blow:?}");
        assert_eq!(said(&shelf).await, None, "{blow:?}");
    }
}

#[tokio::test]
async fn latest_of_a_source_that_never_streamed_does_not_fall_back_behind_its_newest_backup() {
    let shelf = Shelf::new().await;
    let older = shelf.backup(RetentionClass::Days35, 5000).await;
    shelf.clock.advance(Duration::from_secs(60));
    let newer = shelf.backup(RetentionClass::Days35, 9000).await;
    Blow::HeadFlipped.befall(&shelf, &newer).await;
    let refused = chosen(&shelf, RecoveryTarget::Latest, None).await.unwrap_err();
    assert!(refused.to_string().contains(newer.backup.as_str()), "{refused}");
    assert_eq!(said(&shelf).await, Some((refused.kind(), refused.to_string())));
    Blow::HeadFlipped.befall(&shelf, &older).await;
    let refused = chosen(&shelf, RecoveryTarget::Immediate, None).await.unwrap_err();
    assert!(
        refused
            .to_string()
            .starts_with("no backup of orders can be opened: "),
        "{refused}"
    );
    assert_eq!(refused.kind(), ErrorKind::Integrity);
}

#[tokio::test]
async fn where_every_backup_is_past_its_promise_the_newest_is_named_and_serves_whoever_names_it() {
    let (shelf, _, newer) = shelf().await;
    shelf.clock.advance(DAY * 36);
    let refused = chosen(&shelf, RecoveryTarget::Latest, None).await.unwrap_err();
    let base = format!("--base {}", newer.backup);
    assert!(refused.advice().contains(&base), "{refused}");
    assert_eq!(said(&shelf).await, Some((refused.kind(), refused.to_string())));
    let named = chosen(&shelf, RecoveryTarget::Latest, Some(&newer.backup)).await;
    assert_eq!(named.unwrap(), newer.backup);
}

#[tokio::test]
async fn keys_that_open_nothing_at_all_are_wrong_and_an_error() {
    let (shelf, ..) = shelf().await;
    let store = Arc::new(shelf.memory.clone());
    let strange = shelf.open_with(store, crate::shelf::key(8)).await.unwrap();
    let refused = Catalog::read(&strange, EngineKind::Postgres, &name(), None).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Key, "{refused}");
    assert!(
        refused
            .to_string()
            .starts_with("no configured key opens postgres/orders/"),
        "{refused}"
    );
}

/// The lineages of two months; the log of both is stored. A backup of the second.
async fn two_months(lineages: [u32; 2]) -> (Shelf, Head) {
    let shelf = Shelf::new().await;
    let mut head = None;
    for (number, lineage) in (1..).zip(lineages) {
        let start = (u64::from(number) - 1) * SEGMENT + 5000;
        let branch = branch(1, lineage);
        shelf.attach(branch, start - 5000, None, None).await;
        let end = end(number, start);
        head = Some(
            shelf
                .backup_ending(RetentionClass::Years7, start, Some(end))
                .await,
        );
        shelf
            .log_ending(branch, start - 5000, start - 5000 + SEGMENT, lineage.into(), end)
            .await;
        shelf.clock.advance(DAY * 31);
    }
    (shelf, head.unwrap())
}

async fn lose_month(shelf: &Shelf, number: usize) {
    let keys = shelf.names("facts/keys/");
    assert_eq!(keys.len(), 2, "{keys:?}");
    shelf.memory.delete(&keys[number]).await.unwrap();
}

/// What `status` says of the newest point.
async fn said(shelf: &Shelf) -> Option<(ErrorKind, String)> {
    let catalog = read(shelf, None).await.unwrap();
    let now = shelf.open().await.now();
    let refused = latest_refused(&catalog, now).await.unwrap()?;
    Some((refused.kind(), refused.to_string()))
}

#[tokio::test]
async fn the_lost_keys_of_a_month_of_facts_stop_no_plan_that_can_be_told_without_its_records() {
    for month in [0, 1] {
        let (shelf, head) = two_months([1, 1]).await;
        lose_month(&shelf, month).await;
        let catalog = read(&shelf, None).await.unwrap();
        let [unread] = &catalog.unread.objects()[..] else {
            panic!("{:?}", catalog.unread.objects())
        };
        assert!(
            unread.object.starts_with("wal-archive/lineage/orders/"),
            "{unread:?}"
        );
        assert!(
            unread.why.contains("no configured key opens facts/"),
            "{unread:?}"
        );
        assert_eq!(
            chosen(&shelf, RecoveryTarget::Latest, None).await.unwrap(),
            head.backup
        );
    }
}

#[tokio::test]
async fn a_newest_lineage_that_cannot_be_told_must_be_named() {
    for month in [0, 1] {
        let (shelf, head) = two_months([1, 2]).await;
        lose_month(&shelf, month).await;
        let refused = chosen(&shelf, RecoveryTarget::Latest, None).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Key, "{refused}");
        let begins =
            "which lineage of orders is the newest cannot be told: a record of one cannot be opened: ";
        assert!(refused.to_string().starts_with(begins), "{refused}");
        assert_eq!(
            refused.advice(),
            format!(
                "say which one is meant: backstay restore orders --lineage {} or --lineage {}; for good: backstay lineage adopt orders \
                 {}; what is damaged: backstay verify orders",
                branch(1, 1),
                branch(1, 2),
                // The one of which a record opens.
                branch(1, if month == 0 { 2 } else { 1 })
            )
        );
        assert_eq!(said(&shelf).await, Some((refused.kind(), refused.to_string())));
        let catalog = read(&shelf, Some(branch(1, 2))).await.unwrap();
        let request = Request {
            target: RecoveryTarget::Latest,
            base: None,
            now: shelf.open().await.now(),
        };
        let planned = plan(&catalog, &request, &PostgresLog).await.unwrap();
        assert_eq!(planned.head.backup, head.backup);
        let target = catalog.chain.as_ref().and_then(|chain| chain.target());
        assert_eq!(target.map(|link| link.branch), Some(branch(1, 2)));
    }
}

#[tokio::test]
async fn a_server_that_fetches_gets_its_log_beside_what_cannot_be_opened() {
    let (shelf, _) = two_months([1, 1]).await;
    lose_month(&shelf, 1).await;
    let older = shelf.names("/manifests/")[0].clone();
    shelf.change(&older, |body| body[200] ^= 1);
    let room = std::env::temp_dir().join(format!("backstay-unreadable-{}", std::process::id()));
    std::fs::create_dir_all(&room).unwrap();
    let fetch = |file: &str, repository| FetchJob {
        repository,
        engine: EngineKind::Postgres,
        name: name(),
        lineage: Some(branch(1, 1)),
        base: None,
        until: None,
        file: file.to_owned(),
        destination: room.join("RECOVERYXLOG"),
    };
    let fetched = fetch("000000010000000000000001", shelf.open().await).run().await;
    assert_eq!(fetched.unwrap(), Fetched::Delivered { bytes: SEGMENT });
    let delivered = std::fs::read(room.join("RECOVERYXLOG")).unwrap();
    assert!(delivered == crate::shelf::log_bytes(1, SEGMENT, 2 * SEGMENT));
    // The server looks for a timeline that nobody has used.
    let fetched = fetch("00000002.history", shelf.open().await).run().await;
    assert!(matches!(fetched, Ok(Fetched::AbsentProved { .. })), "{fetched:?}");
    std::fs::remove_dir_all(&room).unwrap();
}

#[tokio::test]
async fn nothing_expires_that_a_backup_which_cannot_be_opened_may_rest_on() {
    for blow in Blow::ALL {
        let (shelf, older, _) = shelf().await;
        for start in [7000, 8000] {
            shelf.clock.advance(DAY * 500);
            shelf.backup(RetentionClass::Days35, SEGMENT + start).await;
        }
        let expire = |repository| ExpireJob {
            name: name(),
            engine: EngineKind::Postgres,
            repository,
            policy: ExpiryPolicy::of(EngineKind::Postgres),
            observer: Arc::new(Silent),
        };
        let goes = |plan: &backstay_engine::plan::retention::ExpiryPlan| {
            let objects = plan.removals.iter().flat_map(|removal| removal.objects());
            objects.map(|object| object.name.clone()).collect::<Vec<_>>()
        };
        let before = goes(&expire(shelf.open().await).plan().await.unwrap());
        let is_its = |name: &&String| name.contains(older.generation.as_str());
        assert!(before.iter().any(|name| is_its(&name)), "{before:?}");
        assert!(before.iter().any(|name| name.contains("/settled/")), "{before:?}");

        blow.befall(&shelf, &older).await;
        let job = expire(shelf.open().await);
        let plan = job.plan().await.unwrap();
        let still = goes(&plan);
        assert!(!still.iter().any(|name| is_its(&name)), "{blow:?}: {still:?}");
        assert!(
            !still.iter().any(|name| name.contains("wal-archive/")),
            "{blow:?}: {still:?}"
        );
        job.run(&plan).await.unwrap();
        assert!(
            shelf
                .names("/data/")
                .iter()
                .any(|key| key.as_str().contains(older.generation.as_str()))
        );
    }
}
