//! Backups whose head is gone: one that is not the newest, and one whose record is gone too.
//!
//! Promise: what the record of a run, or what is left of a backup, still tells is said; a backup past its promise is not missed.
//! Not here: the newest, with its record (lost_end).

use crate::lost_end::{DEPTHS, START, catalog, planned, shelf, taken, verify};
use crate::shelf::{DAY, Shelf};
use backstay_engine::ErrorKind;
use backstay_engine::plan::lost_backups;
use backstay_repository::Head;
use backstay_terms::{Lsn, RecoveryTarget};
use std::time::Duration;

async fn lose_head(shelf: &Shelf, head: &Head) {
    let names = shelf.names(head.backup.as_str());
    let at = names
        .iter()
        .find(|key| key.as_str().contains("/manifests/"))
        .unwrap();
    shelf.remove(at.as_str()).await;
}

#[tokio::test]
async fn a_lost_backup_that_is_not_the_newest_is_missed_while_it_is_promised() {
    let (shelf, older) = shelf().await;
    let newer = taken(&shelf, START + 1000).await;
    lose_head(&shelf, &older).await;
    let missed = lost_backups(&catalog(&shelf).await, shelf.clock_at(0))
        .await
        .unwrap();
    assert_eq!(missed.len(), 1, "{missed:?}");
    assert_eq!((&missed[0].backup, missed[0].is_newest), (&older.backup, false));
    for depth in DEPTHS {
        let findings = verify(&shelf, depth).await.findings;
        assert!(
            findings
                .iter()
                .any(|finding| finding.what.contains(older.backup.as_str())),
            "{depth:?}"
        );
    }
    // A point that only it would reach.
    let refused = planned(&shelf, RecoveryTarget::Lsn(Lsn(START + 500)), None)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Integrity, "{refused}");
    assert!(refused.to_string().contains(older.backup.as_str()), "{refused}");
    let refused = planned(&shelf, RecoveryTarget::Immediate, Some(older.backup.clone()))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Integrity, "{refused}");
    // The newest one is there.
    let plan = planned(&shelf, RecoveryTarget::Immediate, None).await.unwrap();
    assert_eq!(plan.head.backup, newer.backup);
    shelf.clock.advance(DAY * 36);
    assert_eq!(
        lost_backups(&catalog(&shelf).await, shelf.clock_at(0))
            .await
            .unwrap(),
        vec![]
    );
}

#[tokio::test]
async fn parts_without_a_head_of_which_no_run_tells_are_a_lost_backup_and_not_a_dead_one() {
    let (shelf, older) = shelf().await;
    // A process that died left its first record.
    let died = shelf.copy();
    died.abandoned().await;
    died.clock.advance(Duration::from_secs(7200));
    let plan = planned(&died, RecoveryTarget::Immediate, None).await.unwrap();
    assert_eq!(plan.head.backup, older.backup);
    let verified = verify(&died, DEPTHS[0]).await;
    assert_eq!(
        (verified.findings, verified.services[0].counts.uncommitted),
        (vec![], 1)
    );

    let newest = taken(&shelf, START + 1000).await;
    lose_head(&shelf, &newest).await;
    let runs = shelf
        .names("-backup-")
        .into_iter()
        .filter(|key| key.as_str().starts_with("facts/runs/"));
    let runs: Vec<_> = runs.collect();
    for key in runs.iter().rev().take(2) {
        shelf.remove(key.as_str()).await;
    }
    for target in [RecoveryTarget::Immediate, RecoveryTarget::Latest] {
        let refused = planned(&shelf, target.clone(), None).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Integrity, "{target}: {refused}");
        assert!(refused.to_string().contains(newest.backup.as_str()), "{refused}");
        let named = planned(&shelf, target, Some(older.backup.clone())).await.unwrap();
        assert_eq!(named.head.backup, older.backup);
    }
    for depth in DEPTHS {
        let findings = verify(&shelf, depth).await.findings;
        assert!(
            findings
                .iter()
                .any(|finding| finding.what.contains(newest.backup.as_str())),
            "{depth:?}"
        );
    }
    // A newer one has everything.
    let again = taken(&shelf, START + 2000).await;
    let plan = planned(&shelf, RecoveryTarget::Immediate, None).await.unwrap();
    assert_eq!(plan.head.backup, again.backup);
}

/// Two backups within a minute: that the second is there explains nothing of what the run of the first says.
#[tokio::test]
async fn a_backup_explains_its_own_run_alone_however_close_another_one_lies() {
    let (shelf, first) = shelf().await;
    let second = taken(&shelf, START + 1000).await;
    let third = taken(&shelf, START + 2000).await;
    assert_eq!(
        lost_backups(&catalog(&shelf).await, shelf.clock_at(0))
            .await
            .unwrap(),
        vec![]
    );
    // The run of the third is gone with its records, and the head of the second.
    for key in shelf.names(&format!("-backup-{}", third.backup.suffix())) {
        shelf.remove(key.as_str()).await;
    }
    lose_head(&shelf, &second).await;
    let missed = lost_backups(&catalog(&shelf).await, shelf.clock_at(0))
        .await
        .unwrap();
    let missed: Vec<_> = missed.iter().map(|lost| &lost.backup).collect();
    assert_eq!(missed, [&second.backup], "{first:?}");
}

/// A run that failed or died the day before tells nothing of a backup that is not its own.
#[tokio::test]
async fn parts_whose_own_run_left_no_record_are_not_those_of_another_run() {
    let (shelf, _) = shelf().await;
    shelf.abandoned().await;
    shelf.clock.advance(Duration::from_secs(7200));
    let newest = taken(&shelf, START + 1000).await;
    lose_head(&shelf, &newest).await;
    for key in shelf.names(&format!("-backup-{}", newest.backup.suffix())) {
        shelf.remove(key.as_str()).await;
    }
    let refused = planned(&shelf, RecoveryTarget::Latest, None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Integrity, "{refused}");
    assert!(refused.to_string().contains(newest.backup.as_str()), "{refused}");
    for depth in DEPTHS {
        let findings = verify(&shelf, depth).await.findings;
        let named = findings
            .iter()
            .filter(|finding| finding.what.contains(newest.backup.as_str()));
        assert_eq!(named.count(), 1, "{depth:?}: {findings:?}");
    }
}
