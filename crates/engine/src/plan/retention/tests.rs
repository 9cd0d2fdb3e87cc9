//! Properties of expiry plans over catalogs drawn at random, and the rules one by one.

use super::*;
use backstay_repository::layout::{BackupPlace, Level, RangeName};
use backstay_repository::{
    AgedRange, BackupKind, BackupRuns, BranchObjects, GenerationWraps, HeadLog, NamedObject, Sha256,
    StoredRange, Totals, expires_at, missing, stretches,
};
use backstay_terms::{Branch, ByteCount, Lineage, LogRange, Position, Suffix, TimedId};
use proptest::prelude::*;
use std::collections::BTreeSet;

const SYSTEM: u64 = 7;
const SEGMENT: u64 = 16;

fn now() -> Timestamp {
    "2026-11-23T00:00:00Z".parse().unwrap()
}

fn ago(days: i64) -> Timestamp {
    now() - SignedDuration::from_hours(24 * days)
}

fn id(kind: &str, days: i64, chance: u64) -> TimedId {
    let moment = ago(days).strftime("%Y%m%dT%H%M%SZ").to_string();
    TimedId::new(&moment, kind, Suffix::from_chance(chance)).unwrap()
}

fn object(name: String, days: i64) -> StoredObject {
    StoredObject {
        name,
        size: 10,
        modified: ago(days),
    }
}

fn named(name: &str) -> NamedObject {
    NamedObject {
        name: name.into(),
        size: 10,
        sha256: Sha256([0; 32]),
    }
}

/// A backup as a property draws it.
#[derive(Clone, Debug)]
struct Drawn {
    days: i64,
    class: RetentionClass,
    state: u8,
    start: u64,
    increment: Option<i64>,
}

fn head(place: &BackupPlace, created: Timestamp, drawn: &Drawn, full: Option<&BackupId>) -> Head {
    let key = backstay_repository::HeadKeyIds {
        data: serde_json::from_str("\"00000000000000000000000000000000\"").unwrap(),
        index: serde_json::from_str("\"00000000000000000000000000000001\"").unwrap(),
        facts: serde_json::from_str("\"00000000000000000000000000000002\"").unwrap(),
    };
    let full_created = moment_of(&place.generation).unwrap();
    let verdict = match drawn.state {
        1 => HeadVerdict::Damaged,
        _ => HeadVerdict::Good,
    };
    Head {
        format: 1,
        repository: "r".into(),
        service: place.engine,
        source: place.source.clone(),
        class: place.class,
        generation: place.generation.clone(),
        backup: place.backup.clone(),
        kind: full.map_or(BackupKind::Full, |_| BackupKind::Increment),
        base: full.cloned(),
        created,
        finished: created,
        expires_at: expires_at(place.class, created, full_created),
        verdict,
        damage: vec![],
        version: "15".into(),
        writer: "0".into(),
        key_ids: key,
        root: named("t0000"),
        totals: Totals {
            files: 1,
            bytes: ByteCount(1),
            stored: ByteCount(20),
            packs: 1,
        },
        log: Some(HeadLog {
            system: SYSTEM,
            timeline: 1,
            start: Position(drawn.start),
            stop: Position(drawn.start + 5),
            segment_size: SEGMENT,
            stop_time: created.as_microsecond() - 946_684_800_000_000,
            end_point: None,
        }),
        engine: serde_json::Value::Null,
        notices: vec![],
    }
}

fn backup(place: BackupPlace, drawn: &Drawn, full: Option<&BackupId>) -> BackupObjects {
    let days = drawn.days;
    let name = |rest: &str| format!("{}/{}/{rest}", place.class, place.backup);
    let head_object = object(name("head"), days);
    let opened = head(&place, ago(days), drawn, full);
    let state = match drawn.state {
        2 => HeadState::Absent,
        3 => HeadState::Closed(head_object, "no key".into()),
        _ => HeadState::Opened(head_object, Box::new(opened)),
    };
    // State 4: a pack is missing.
    let packs = match drawn.state {
        4 => vec![],
        _ => vec![object(name("p00000"), days)],
    };
    BackupObjects {
        tables: vec![object(name("t0000"), days)],
        packs,
        head: state,
        place,
    }
}

fn place(class: RetentionClass, generation: &TimedId, backup: &TimedId) -> BackupPlace {
    BackupPlace {
        engine: EngineKind::Postgres,
        source: "orders".parse().unwrap(),
        class,
        generation: generation.clone(),
        backup: backup.clone(),
    }
}

fn catalog(drawn: &[Drawn], ranges: Vec<AgedRange>) -> Inventory {
    let (mut backups, mut wraps) = (Vec::new(), Vec::new());
    for (n, full) in drawn.iter().enumerate() {
        let full_id = id("full", full.days, n as u64);
        backups.push(backup(place(full.class, &full_id, &full_id), full, None));
        wraps.push(GenerationWraps {
            class: full.class,
            generation: full_id.clone(),
            wraps: vec![object(format!("{full_id}.wrap"), full.days)],
        });
        if let Some(later) = full.increment {
            let days = (full.days - later).max(0);
            let increment = Drawn {
                days,
                class: RetentionClass::Days35,
                state: 0,
                ..full.clone()
            };
            let increment_id = id("incr", days, n as u64);
            let place = place(increment.class, &full_id, &increment_id);
            backups.push(backup(place, &increment, Some(&full_id)));
        }
    }
    Inventory {
        runs: BackupRuns::default(),
        engine: EngineKind::Postgres,
        source: "orders".parse().unwrap(),
        backups,
        wraps,
        branches: vec![BranchObjects {
            branch: BRANCH,
            ranges,
            cut: vec![],
        }],
        strays: vec![],
        holds: vec![],
        restores: vec![],
    }
}

const BRANCH: Branch = Branch {
    system: SYSTEM,
    timeline: 1,
    lineage: Lineage(1),
};

fn range(level: Level, from: u64, to: u64, days: i64, number: u32) -> AgedRange {
    let name = RangeName {
        range: LogRange {
            from: Position(from),
            to: Position(to),
        },
        epoch: id("log", days, 1),
        number,
    };
    AgedRange {
        object: object(format!("{}/{name}", level.name()), days),
        stored: StoredRange {
            branch: BRANCH,
            level,
            name,
            size: 10,
        },
    }
}

fn planned(catalog: &Inventory) -> ExpiryPlan {
    plan(catalog, &ExpiryPolicy::of(EngineKind::Postgres), now())
}

fn gone(plan: &ExpiryPlan) -> BTreeSet<String> {
    let objects = plan.removals.iter().flat_map(Removal::objects);
    objects.map(|object| object.name.clone()).collect()
}

fn any_backup() -> impl Strategy<Value = Drawn> {
    let classes = prop::sample::select(RetentionClass::ALL.to_vec());
    (0i64..3000, classes, 0u8..6, 0u64..400, prop::option::of(0i64..28)).prop_map(
        |(days, class, state, start, increment)| Drawn {
            days,
            class,
            state,
            start,
            increment,
        },
    )
}

fn any_ranges() -> impl Strategy<Value = Vec<AgedRange>> {
    let level = prop::sample::select(Level::ALL.to_vec());
    prop::collection::vec((level, 0u64..400, 0u64..16, 0i64..800), 0..40).prop_map(|drawn| {
        let mut ranges: Vec<AgedRange> = drawn
            .into_iter()
            .enumerate()
            .map(|(n, (level, from, length, days))| {
                let length = if level == Level::Live {
                    length
                } else {
                    length.max(1)
                };
                range(level, from, from + length, days, n as u32)
            })
            .collect();
        ranges.sort_by_key(|r| (r.stored.name.range, r.stored.level));
        ranges
    })
}

/// What is left of the log.
fn left(catalog: &Inventory, gone: &BTreeSet<String>, live: bool) -> Vec<LogRange> {
    let kept = catalog.branches[0]
        .ranges
        .iter()
        .filter(|r| !gone.contains(&r.object.name));
    let kept: Vec<LogRange> = kept
        .filter(|r| live || r.stored.level != Level::Live)
        .map(|r| r.stored.name.range)
        .collect();
    stretches(&kept)
}

proptest! {
    #[test]
    fn a_kept_backup_keeps_all_of_its_objects_and_its_full_and_its_log(
        drawn in prop::collection::vec(any_backup(), 0..8), ranges in any_ranges(),
    ) {
        let catalog = catalog(&drawn, ranges);
        let gone = gone(&planned(&catalog));
        let all: Vec<LogRange> = left(&catalog, &BTreeSet::new(), true);
        for backup in &catalog.backups {
            let (HeadState::Opened(object, _) | HeadState::Closed(object, _)) = &backup.head else { continue };
            if gone.contains(&object.name) {
                prop_assert!(matches!(backup.head, HeadState::Opened(..)), "a closed head went");
                continue;
            }
            prop_assert!(backup.parts().all(|part| !gone.contains(&part.name)));
            let wrap = format!("{}.wrap", backup.place.generation);
            prop_assert!(!gone.contains(&wrap));
            let Some(head) = backup.opened() else { continue };
            if let Some(base) = &head.base {
                let full = catalog.backups.iter().find(|b| b.place.backup == *base).unwrap();
                prop_assert!(full.parts().all(|part| !gone.contains(&part.name)));
                let full_head = format!("{}/{base}/head", full.place.class);
                prop_assert!(full.opened().is_none() || !gone.contains(&full_head));
            }
            // Every byte of log from its start on that was stored is stored still.
            let start = head.log.as_ref().unwrap().start;
            for stretch in all.iter().filter(|stretch| stretch.to > start) {
                let wanted = LogRange { from: stretch.from.max(start), to: stretch.to };
                prop_assert_eq!(missing(wanted, &left(&catalog, &gone, true)), vec![]);
            }
        }
    }

    #[test]
    fn only_what_is_past_its_promise_goes_and_never_below_the_floor(
        drawn in prop::collection::vec(any_backup(), 0..8),
    ) {
        let catalog = catalog(&drawn, vec![]);
        let plan = planned(&catalog);
        let gone = gone(&plan);
        let usable = |backup: &&BackupObjects| is_usable(&catalog, backup);
        let before: BTreeSet<_> = catalog.backups.iter().filter(usable).map(|b| &b.place.backup).collect();
        let stays = |b: &&BackupObjects| b.parts().all(|part| !gone.contains(&part.name));
        let after: BTreeSet<_> =
            catalog.backups.iter().filter(usable).filter(stays).map(|b| &b.place.backup).collect();
        prop_assert!(after.len() >= before.len().min(FLOOR), "{before:?} became {after:?}");
        for removal in &plan.removals {
            if let Removal::Backup { place, .. } = removal {
                let head = catalog.backups.iter().find(|b| b.place == *place).unwrap().opened().unwrap();
                prop_assert!(head.expires_at <= now());
                prop_assert!(before.len() >= FLOOR);
            }
        }
    }

    #[test]
    fn every_position_that_live_ranges_alone_held_is_held_still_and_the_frontier_stays(ranges in any_ranges()) {
        let catalog = catalog(&[], ranges);
        let gone = gone(&planned(&catalog));
        let (before, after) = (left(&catalog, &BTreeSet::new(), true), left(&catalog, &gone, true));
        prop_assert_eq!(before.last().map(|s| s.to), after.last().map(|s| s.to));
        let settled = left(&catalog, &BTreeSet::new(), false);
        for stretch in &before {
            for lonely in missing(*stretch, &settled) {
                prop_assert_eq!(missing(lonely, &after), vec![]);
            }
        }
        // What is left begins later at most: no hole appears.
        if let (Some(first), Some(_)) = (after.first(), before.first()) {
            for stretch in before.iter().filter(|stretch| stretch.to > first.from) {
                let wanted = LogRange { from: stretch.from.max(first.from), to: stretch.to };
                prop_assert_eq!(missing(wanted, &after), vec![]);
            }
        }
    }

    #[test]
    fn an_increment_goes_before_its_full_and_a_head_before_its_parts(
        drawn in prop::collection::vec(any_backup(), 0..8),
    ) {
        let plan = planned(&catalog(&drawn, vec![]));
        let order: Vec<&BackupPlace> = plan.removals.iter().filter_map(|removal| match removal {
            Removal::Backup { place, .. } => Some(place),
            _ => None,
        }).collect();
        for (at, place) in order.iter().enumerate().filter(|(_, p)| p.backup.kind() == "incr") {
            let full = order.iter().position(|other| other.backup == place.generation);
            prop_assert!(full.is_none_or(|full| full > at));
        }
        for removal in plan.removals.iter().filter(|r| matches!(r, Removal::Backup { .. })) {
            prop_assert!(removal.objects()[0].name.ends_with("/head"));
        }
    }

    #[test]
    fn a_hold_or_a_restore_under_way_keeps_everything(
        drawn in prop::collection::vec(any_backup(), 0..8), ranges in any_ranges(),
    ) {
        let mut catalog = catalog(&drawn, ranges);
        catalog.restores.push(id("restore", 0, 5));
        prop_assert!(planned(&catalog).removals.is_empty());
        catalog.restores.clear();
        catalog.holds.push(object("facts/holds/x".into(), 4000));
        prop_assert!(planned(&catalog).removals.is_empty());
    }
}

fn good(days: i64, start: u64) -> Drawn {
    Drawn {
        days,
        class: RetentionClass::Days35,
        state: 0,
        start,
        increment: None,
    }
}

#[test]
fn the_two_newest_stay_however_old_and_the_third_goes_with_its_keys() {
    let catalog = catalog(&[good(900, 0), good(800, 20), good(700, 40)], vec![]);
    let plan = planned(&catalog);
    let [
        Removal::Backup {
            backup, keys, parts, ..
        },
    ] = &plan.removals[..]
    else {
        panic!("{plan:?}")
    };
    assert_eq!(backup.moment(), id("full", 900, 0).moment());
    assert_eq!((keys.len(), parts.len()), (1, 2));
    let because: Vec<&str> = plan.kept.iter().map(|kept| kept.because.as_str()).collect();
    assert_eq!(because[..2], ["it is one of the newest 2 usable backups"; 2]);
}

#[test]
fn a_damaged_or_torn_backup_counts_for_nothing_at_the_floor() {
    let damaged = Drawn {
        state: 1,
        ..good(600, 60)
    };
    let torn = Drawn {
        state: 4,
        ..good(500, 80)
    };
    let catalog = catalog(&[good(900, 0), good(800, 20), damaged, torn], vec![]);
    let plan = planned(&catalog);
    let went: Vec<String> = plan
        .removals
        .iter()
        .filter_map(|removal| match removal {
            Removal::Backup { backup, .. } => Some(backup.moment().to_owned()),
            _ => None,
        })
        .collect();
    assert_eq!(went, [id("full", 600, 0).moment(), id("full", 500, 0).moment()]);
}

/// The clock of its machine was 420 days ahead: it takes no place from a backup that is newer in the log.
#[test]
fn a_backup_that_is_named_later_than_it_was_taken_is_none_of_the_newest() {
    let mut catalog = catalog(&[good(900, 0), good(800, 20), good(500, 5)], vec![]);
    let ahead = catalog
        .backups
        .iter_mut()
        .max_by_key(|backup| backup.place.backup.clone());
    let HeadState::Opened(_, head) = &mut ahead.unwrap().head else {
        panic!("it opens");
    };
    let log = head.log.as_mut().unwrap();
    log.stop_time = ago(920).as_microsecond() - 946_684_800_000_000;
    let plan = planned(&catalog);
    let went: Vec<&str> = plan
        .removals
        .iter()
        .filter_map(|removal| match removal {
            Removal::Backup { backup, .. } => Some(backup.moment()),
            _ => None,
        })
        .collect();
    assert_eq!(went, [id("full", 500, 0).moment()]);
}

#[test]
fn parts_without_a_head_go_after_fourteen_days_unless_a_part_is_younger() {
    let absent = |days| Drawn {
        state: 2,
        ..good(days, 0)
    };
    let old = catalog(&[absent(15)], vec![]);
    assert!(matches!(&planned(&old).removals[..], [Removal::Uncommitted { keys, .. }] if keys.len() == 1));
    assert!(planned(&catalog(&[absent(14)], vec![])).removals.is_empty());
    let mut growing = old;
    growing.backups[0].packs[0].modified = ago(2);
    assert!(planned(&growing).removals.is_empty());
}

#[test]
fn live_log_goes_when_covered_and_the_last_mark_of_a_stretch_stays() {
    let ranges = vec![
        range(Level::Live, 0, 8, 91, 0),
        range(Level::Settled, 0, 16, 91, 1),
        range(Level::Live, 8, 16, 89, 2),
        range(Level::Live, 16, 16, 95, 3),
        range(Level::Live, 16, 16, 94, 4),
        range(Level::Live, 40, 44, 300, 5),
    ];
    let plan = planned(&catalog(&[], ranges));
    let expected: BTreeSet<String> = [range(Level::Live, 0, 8, 91, 0), range(Level::Live, 16, 16, 95, 3)]
        .map(|range| range.object.name)
        .into();
    assert_eq!(gone(&plan), expected);
    assert!(
        plan.kept
            .iter()
            .any(|kept| kept.what.starts_with("1 old live ranges")),
        "{:?}",
        plan.kept
    );
}

#[test]
fn settled_log_goes_before_the_segment_of_the_oldest_kept_backup() {
    let settled = |n: u64| range(Level::Settled, 16 * n, 16 * n + 16, 500, n as u32);
    let ranges: Vec<AgedRange> = (0..6).map(settled).collect();
    let all = catalog(&[good(700, 40), good(600, 70)], ranges.clone());
    let names = |upto: usize| -> BTreeSet<String> {
        ranges[..upto]
            .iter()
            .map(|range| range.object.name.clone())
            .collect()
    };
    assert_eq!(
        gone(&planned(&all)),
        names(2),
        "40 lies in the segment that begins at 32"
    );
    let closed = Drawn {
        state: 3,
        ..good(10, 90)
    };
    let unknown = catalog(&[good(700, 40), good(600, 70), closed], ranges.clone());
    assert_eq!(gone(&planned(&unknown)), BTreeSet::new());
    assert_eq!(
        gone(&planned(&catalog(&[], ranges.clone()))),
        names(5),
        "the end stays"
    );
}
