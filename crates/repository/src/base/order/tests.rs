//! Backups of one source, in whatever order their names have.

use super::*;
use crate::{BackupKind, HeadKeyIds, HeadVerdict, NamedObject, Sha256, Totals, expires_at};
use backstay_terms::{EngineKind, Position, RetentionClass, Suffix};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A backup that says it was created then, and whose source said that it ended then.
fn head(created: &str, stopped: &str, stop: u64) -> Head {
    let (created, stopped) = (at(created), at(stopped));
    let id = TimedId::new(&crate::layout::moment(created), "full", Suffix::from_chance(stop)).unwrap();
    let key = |last: u8| serde_json::from_str(&format!("\"{last:032}\"")).unwrap();
    let finished = created + SignedDuration::from_mins(2);
    Head {
        format: 1,
        repository: "r".into(),
        service: EngineKind::Postgres,
        source: "main".parse().unwrap(),
        class: RetentionClass::Days35,
        generation: id.clone(),
        backup: id,
        kind: BackupKind::Full,
        base: None,
        created,
        finished,
        expires_at: expires_at(RetentionClass::Days35, created, created),
        verdict: HeadVerdict::Good,
        damage: vec![],
        version: "15".into(),
        writer: "0".into(),
        key_ids: HeadKeyIds {
            data: key(1),
            index: key(2),
            facts: key(3),
        },
        root: NamedObject {
            name: "t0000".into(),
            size: 1,
            sha256: Sha256([0; 32]),
        },
        totals: Totals::default(),
        log: Some(HeadLog {
            system: 7,
            timeline: 1,
            start: Position(stop - 1),
            stop: Position(stop),
            segment_size: 16 << 20,
            stop_time: stopped.as_microsecond() - EPOCH_2000 * 1_000_000,
            end_point: None,
        }),
        engine: serde_json::Value::Null,
        notices: vec![],
    }
}

fn sorted(mut heads: Vec<Head>, now: &str) -> Vec<u64> {
    oldest_first(&mut heads, at(now));
    heads
        .iter()
        .map(|head| head.log.as_ref().unwrap().stop.0)
        .collect()
}

const NOW: &str = "2026-11-27T12:00:00Z";

#[test]
fn a_backup_of_a_clock_that_was_wrong_stands_where_its_source_was() {
    let heads = || {
        vec![
            head("2026-11-25T03:00:00Z", "2026-11-25T03:01:00Z", 100),
            // Forty days ahead, and forty behind.
            head("2027-01-05T03:00:00Z", "2026-11-26T03:01:00Z", 200),
            head("2026-10-18T03:00:00Z", "2026-11-27T03:01:00Z", 300),
            head("2026-11-27T04:00:00Z", "2026-11-27T04:01:00Z", 400),
        ]
    };
    assert_eq!(sorted(heads(), NOW), [100, 200, 300, 400]);
    assert_eq!(sorted(heads(), "2027-02-01T00:00:00Z"), [100, 200, 300, 400]);
}

/// The source's own clock was ahead too, so the log alone tells.
#[test]
fn what_a_source_says_of_the_future_is_not_believed() {
    let heads = vec![
        head("2026-11-25T03:00:00Z", "2026-11-25T03:01:00Z", 100),
        head("2027-01-05T03:00:00Z", "2027-01-05T03:01:00Z", 200),
        head("2026-11-27T03:00:00Z", "2026-11-27T03:01:00Z", 300),
    ];
    assert_eq!(sorted(heads.clone(), NOW), [100, 200, 300]);
    assert_eq!(sorted(heads[..2].to_vec(), NOW), [100, 200]);
}

#[test]
fn a_backup_tells_how_far_its_name_is_ahead() {
    let ahead = head("2027-01-05T03:00:00Z", "2026-11-26T03:01:00Z", 200);
    assert_eq!(ahead.ahead(), SignedDuration::from_mins(40 * 24 * 60 - 1));
    assert_eq!(ahead.began(), at("2026-11-26T03:01:00Z"));
    assert_eq!(ahead.completed(), at("2026-11-26T03:03:00Z"));
    assert_eq!(ahead.dated().moment(), "20261126T030100Z");
    assert_eq!(ahead.dated().suffix(), ahead.backup.suffix());
    for right in [
        head("2026-11-26T03:00:00Z", "2026-11-26T09:00:00Z", 200),
        head("2026-11-26T03:02:00Z", "2026-11-26T03:00:00Z", 200),
    ] {
        assert!(right.ahead().is_zero());
        assert_eq!(
            (right.began(), right.completed(), right.dated()),
            (right.created, right.finished, right.backup.clone())
        );
        assert!(right.ahead_of(at(NOW)).is_zero());
        assert!(!right.ahead_of(at("2026-11-20T00:00:00Z")).is_zero());
    }
}
