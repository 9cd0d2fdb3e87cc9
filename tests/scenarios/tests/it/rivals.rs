//! More than one history of one source: when that is nobody's doubt, when it is, and how a person ends it.
//!
//! Promise: what a plan gives is judged by the backup and the bytes of the history that it is on.

use crate::shelf::{SEGMENT, SYSTEM, Shelf, Written, branch, name};
use backstay_engine::jobs::adopt::{Adopted, adopt};
use backstay_engine::plan::{
    Catalog, PassedOver, PassedOverBackup, Request, RestorePlan, Standing, lineages, plan,
};
use backstay_engine::{EngineError, ErrorKind};
use backstay_postgres::wal::PostgresLog;
use backstay_repository::{EndPoint, Head, Parent};
use backstay_terms::{BackupId, Branch, EngineKind, Position, RecoveryTarget, RetentionClass};

const START: u64 = 5000;
const FORK: u64 = SEGMENT + 5000;

async fn catalog(shelf: &Shelf) -> Catalog {
    let repository = shelf.open().await;
    let read = Catalog::read(&repository, EngineKind::Postgres, &name(), None).await;
    read.unwrap()
}

async fn planned(
    shelf: &Shelf,
    target: RecoveryTarget,
    base: Option<BackupId>,
) -> Result<RestorePlan, EngineError> {
    let now = shelf.open().await.now();
    let request = Request { target, base, now };
    plan(&catalog(shelf).await, &request, &PostgresLog).await
}

async fn standings(shelf: &Shelf) -> Vec<(Branch, Standing)> {
    let seen = lineages(&catalog(shelf).await).await.unwrap();
    seen.iter().map(|one| (one.branch, one.standing)).collect()
}

async fn adopted(shelf: &Shelf, branch: Branch) -> Adopted {
    let repository = shelf.open().await;
    let catalog = catalog(shelf).await;
    let adopted = adopt(&repository, &catalog, branch).await.unwrap();
    shelf.clock.advance(std::time::Duration::from_secs(1));
    adopted
}

fn parent(of: Branch, fork: u64) -> Option<Parent> {
    Some(Parent {
        branch: of,
        fork: Position(fork),
    })
}

/// A history of timeline 1 with a backup in it.
async fn history(shelf: &Shelf, lineage: u32) -> Head {
    let (branch, crc) = (branch(1, lineage), lineage);
    let start = Position(START + 50);
    let end = EndPoint { start, crc };
    shelf.attach(branch, 0, None, None).await;
    let head = shelf
        .backup_ending(RetentionClass::Days35, START, Some(end))
        .await;
    shelf.clock.advance(std::time::Duration::from_secs(1));
    shelf.log_ending(branch, 0, SEGMENT, lineage.into(), end).await;
    head
}

/// Timeline 1 with a backup and two segments, the second with a commit that began at `commit`; then timeline 2, which left
/// it at the fork and has a segment of its own.
async fn promoted(commit: u64) -> (Shelf, Head) {
    let shelf = Shelf::new().await;
    let head = history(&shelf, 1).await;
    shelf
        .log_committing(branch(1, 1), SEGMENT, 2 * SEGMENT, commit)
        .await;
    shelf
        .attach(branch(2, 2), FORK, parent(branch(1, 1), FORK), None)
        .await;
    shelf
        .log(branch(2, 2), &[FORK, 2 * SEGMENT], 0, &[Written::Settled])
        .await;
    (shelf, head)
}

#[tokio::test]
async fn a_promotion_that_lost_no_transaction_is_nobodys_doubt() {
    let (shelf, head) = promoted(FORK - 100).await;
    let plan = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap();
    assert_eq!((plan.head.backup, plan.timeline), (head.backup, 2));
    let expected = [
        (branch(1, 1), Standing::Ancestor),
        (branch(2, 2), Standing::Present),
    ];
    assert_eq!(standings(&shelf).await, expected);
    assert_eq!(adopted(&shelf, branch(2, 2)).await, Adopted::Already);
    assert_eq!(catalog(&shelf).await.records.len(), 2, "nothing was stored");
}

#[tokio::test]
async fn a_promotion_that_lost_a_stored_transaction_is_refused_past_the_fork_until_someone_chooses() {
    let (shelf, head) = promoted(FORK).await;
    let refused = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    for lineage in [branch(1, 1), branch(2, 2)] {
        assert!(refused.to_string().contains(&lineage.to_string()), "{refused}");
    }
    assert!(
        refused.to_string().contains("parted from it at 0/101388"),
        "{refused}"
    );
    assert!(
        refused.advice().contains("backstay lineage adopt orders"),
        "{}",
        refused.advice()
    );
    // What both have is no question.
    let immediate = planned(&shelf, RecoveryTarget::Immediate, None).await.unwrap();
    assert_eq!(immediate.head.backup, head.backup);

    assert_eq!(
        adopted(&shelf, branch(1, 1)).await,
        Adopted::Over(vec![branch(2, 2)])
    );
    let plan = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap();
    assert_eq!((plan.timeline, plan.needs), (1, Position(2 * SEGMENT)));
    let expected = [(branch(1, 1), Standing::Present), (branch(2, 2), Standing::Past)];
    assert_eq!(standings(&shelf).await, expected);

    // The newest word counts.
    assert_eq!(
        adopted(&shelf, branch(2, 2)).await,
        Adopted::Over(vec![branch(1, 1)])
    );
    let plan = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap();
    assert_eq!((plan.timeline, plan.needs), (2, Position(2 * SEGMENT)));
}

#[tokio::test]
async fn a_lineage_that_grows_after_it_was_passed_over_is_a_rival_again() {
    let (shelf, _) = promoted(FORK).await;
    adopted(&shelf, branch(1, 1)).await;
    // A stream attaches to the copy once more, and stores nothing yet.
    shelf.attach(branch(2, 2), 2 * SEGMENT, None, None).await;
    let plan = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap();
    assert_eq!(plan.timeline, 1);
    shelf
        .log(branch(2, 2), &[2 * SEGMENT, 3 * SEGMENT], 0, &[Written::Live])
        .await;
    let refused = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    let expected = [(branch(1, 1), Standing::Present), (branch(2, 2), Standing::Rival)];
    assert_eq!(standings(&shelf).await, expected, "the adopted one stays in view");
}

#[tokio::test]
async fn a_promotion_of_what_was_adopted_is_followed_and_one_of_what_was_passed_over_is_not() {
    let (shelf, _) = promoted(FORK).await;
    adopted(&shelf, branch(1, 1)).await;
    let end = 2 * SEGMENT;
    let next = branch(3, 3);
    shelf.attach(next, end, parent(branch(1, 1), end), None).await;
    shelf.log(next, &[end, 3 * SEGMENT], 0, &[Written::Settled]).await;
    let plan = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap();
    assert_eq!((plan.timeline, plan.needs), (3, Position(3 * SEGMENT)));

    let other = branch(4, 4);
    shelf.attach(other, end, parent(branch(2, 2), end), None).await;
    shelf
        .log(other, &[end, 3 * SEGMENT], 0, &[Written::Settled])
        .await;
    let refused = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap_err();
    assert!(refused.to_string().contains(&other.to_string()), "{refused}");
    assert!(refused.to_string().contains(&next.to_string()), "{refused}");
}

#[tokio::test]
async fn two_histories_that_share_nothing_are_refused_but_for_a_backup_by_name() {
    let shelf = Shelf::new().await;
    let (first, second) = (history(&shelf, 1).await, history(&shelf, 2).await);
    for target in [RecoveryTarget::Latest, RecoveryTarget::Immediate] {
        let refused = planned(&shelf, target, None).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
        assert!(refused.to_string().contains("shares nothing"), "{refused}");
    }
    for head in [&first, &second] {
        let plan = planned(&shelf, RecoveryTarget::Immediate, Some(head.backup.clone()))
            .await
            .unwrap();
        assert_eq!(plan.head.backup, head.backup);
    }
    adopted(&shelf, branch(1, 1)).await;
    let plan = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap();
    assert_eq!(
        plan.head.backup, first.backup,
        "not the newest, but the one of this history"
    );
    for target in [RecoveryTarget::Latest, RecoveryTarget::Immediate] {
        let plan = planned(&shelf, target, None).await.unwrap();
        assert_eq!(plan.head.backup, first.backup);
        let passed = PassedOverBackup {
            backup: second.backup.clone(),
            consistent: second.log.as_ref().unwrap().stop_time,
            why: PassedOver::OtherHistory,
        };
        assert_eq!(
            plan.passed_over,
            [passed],
            "and it is said which one was not taken"
        );
    }
    let named = planned(&shelf, RecoveryTarget::Immediate, Some(second.backup.clone())).await;
    assert_eq!(named.unwrap().passed_over, vec![]);
}

fn passed_over(head: &Head, why: PassedOver) -> PassedOverBackup {
    PassedOverBackup {
        backup: head.backup.clone(),
        consistent: head.log.as_ref().unwrap().stop_time,
        why,
    }
}

#[tokio::test]
async fn a_newer_backup_of_another_system_is_named_where_the_newest_is_meant() {
    let shelf = Shelf::new().await;
    let own = history(&shelf, 1).await;
    let other = shelf
        .backup_of(SYSTEM + 1, RetentionClass::Days35, START, None)
        .await;
    for target in [RecoveryTarget::Latest, RecoveryTarget::Immediate] {
        let plan = planned(&shelf, target.clone(), None).await.unwrap();
        assert_eq!(plan.head.backup, own.backup, "{target}");
        let expected = [passed_over(&other, PassedOver::OtherSystem)];
        assert_eq!(plan.passed_over, expected, "{target}");
    }
    let named = planned(&shelf, RecoveryTarget::Immediate, Some(own.backup)).await;
    assert_eq!(named.unwrap().passed_over, vec![]);
}

#[tokio::test]
async fn an_attachment_that_stored_nothing_contests_nothing_once_the_source_is_back() {
    let shelf = Shelf::new().await;
    let head = history(&shelf, 1).await;
    shelf.attach(branch(1, 2), 0, None, None).await;
    let refused = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    shelf.attach(branch(1, 1), SEGMENT, None, None).await;
    let plan = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap();
    assert_eq!(plan.head.backup, head.backup);
}

#[tokio::test]
async fn an_adoption_counts_after_those_before_it_whatever_the_clock_says() {
    let (shelf, _) = promoted(FORK).await;
    adopted(&shelf, branch(1, 1)).await;
    let early = shelf.copy_with_clock_at_start();
    let repository = early.open().await;
    let catalog = catalog(&early).await;
    adopt(&repository, &catalog, branch(2, 2)).await.unwrap();
    let plan = planned(&early, RecoveryTarget::Latest, None).await.unwrap();
    assert_eq!(plan.timeline, 2);
}
