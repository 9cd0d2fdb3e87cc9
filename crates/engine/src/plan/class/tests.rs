//! Sequences of backups drawn at random, and the rules one by one.

use super::*;
use backstay_repository::{HeadKeyIds, NamedObject, Sha256, Totals, expires_at};
use backstay_terms::{ByteCount, Suffix, TimedId};
use jiff::SignedDuration;
use proptest::prelude::*;
use std::collections::BTreeMap;

const DEFAULT: ClassPolicy = ClassPolicy {
    weekly: Some(RetentionClass::Years7),
    daily: Some(RetentionClass::Year1),
    rest: RetentionClass::Days35,
};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn head(created: Timestamp, class: RetentionClass, verdict: HeadVerdict) -> Head {
    let moment = created.strftime("%Y%m%dT%H%M%SZ").to_string();
    let id = TimedId::new(&moment, "full", Suffix::from_chance(1)).unwrap();
    let key = |last: u8| serde_json::from_str(&format!("\"{last:032}\"")).unwrap();
    Head {
        format: 1,
        repository: "r".into(),
        service: EngineKind::Postgres,
        source: "main".parse().unwrap(),
        class,
        generation: id.clone(),
        backup: id,
        kind: BackupKind::Full,
        base: None,
        created,
        finished: created,
        expires_at: expires_at(class, created, created),
        verdict,
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
        totals: Totals {
            files: 1,
            bytes: ByteCount(1),
            stored: ByteCount(1),
            packs: 1,
        },
        log: None,
        engine: serde_json::Value::Null,
        notices: vec![],
    }
}

fn good(created: &str, class: RetentionClass) -> Head {
    head(at(created), class, HeadVerdict::Good)
}

fn said(heads: &[Head], policy: ClassPolicy, now: &str) -> String {
    let Chosen { class, because } = choose(heads, policy, at(now));
    format!("{class}: {because}").replace(&Suffix::from_chance(1).to_string(), "SUFFIX")
}

#[test]
fn the_first_of_a_week_the_first_of_a_day_and_the_rest() {
    let monday = "2026-11-23T02:00:00Z";
    assert_eq!(
        said(&[], DEFAULT, monday),
        "7y: the first good full of week 2026-W48"
    );
    let mut heads = vec![good(monday, RetentionClass::Years7)];
    // The week's own backup is the day's as well: it is kept for longer.
    assert_eq!(
        said(&heads, DEFAULT, "2026-11-23T14:00:00Z"),
        "35d: this week and this day have their backup already (20261123T020000Z-full-SUFFIX)"
    );
    assert_eq!(
        said(&heads, DEFAULT, "2026-11-24T00:00:00Z"),
        "1y: the first good backup of 2026-11-24"
    );
    heads.push(good("2026-11-24T00:00:00Z", RetentionClass::Year1));
    assert_eq!(
        said(&heads, DEFAULT, "2026-11-24T23:59:59Z"),
        "35d: this week has its backup already (20261123T020000Z-full-SUFFIX), and this day too (20261124T000000Z-full-SUFFIX)"
    );
    assert_eq!(
        said(&heads, DEFAULT, "2026-11-30T00:00:00Z"),
        "7y: the first good full of week 2026-W49"
    );
}

#[test]
fn weeks_are_those_of_iso_8601_across_a_new_year() {
    let week = |text| Week::of(at(text)).to_string();
    assert_eq!(week("2026-12-31T23:59:59Z"), "2026-W53");
    assert_eq!(week("2027-01-03T23:59:59Z"), "2026-W53");
    assert_eq!(week("2027-01-04T00:00:00Z"), "2027-W01");
}

#[test]
fn a_damaged_backup_and_one_kept_for_less_take_no_place() {
    let monday = "2026-11-23T02:00:00Z";
    let weekly = "7y: the first good full of week 2026-W48";
    let damaged = head(at(monday), RetentionClass::Years7, HeadVerdict::Damaged);
    assert_eq!(said(&[damaged], DEFAULT, "2026-11-23T03:00:00Z"), weekly);
    let short = good(monday, RetentionClass::Days35);
    assert_eq!(said(&[short], DEFAULT, "2026-11-23T03:00:00Z"), weekly);
    let daily = good(monday, RetentionClass::Year1);
    assert_eq!(said(&[daily], DEFAULT, "2026-11-24T03:00:00Z"), weekly);
}

#[test]
fn an_increment_takes_a_day_and_never_a_week() {
    let mut increment = good("2026-11-23T02:00:00Z", RetentionClass::Years7);
    increment.kind = BackupKind::Increment;
    let heads = [increment];
    let later = "2026-11-23T03:00:00Z";
    assert_eq!(
        said(&heads, DEFAULT, later),
        "7y: the first good full of week 2026-W48"
    );
    let daily = ClassPolicy {
        weekly: None,
        ..DEFAULT
    };
    assert_eq!(
        said(&heads, daily, later),
        "35d: this day has its backup already (20261123T020000Z-full-SUFFIX), and no week is kept for longer"
    );
}

#[test]
fn ranks_that_are_off_give_their_backups_to_the_next() {
    let monday = "2026-11-23T02:00:00Z";
    let daily = ClassPolicy {
        weekly: None,
        ..DEFAULT
    };
    assert_eq!(
        said(&[], daily, monday),
        "1y: the first good backup of 2026-11-23"
    );
    let rest = ClassPolicy {
        weekly: None,
        daily: None,
        rest: RetentionClass::Years3,
    };
    assert_eq!(
        said(&[], rest, monday),
        "3y: no week and no day is kept for longer"
    );
}

#[test]
fn a_backup_of_two_ranks_is_kept_for_the_longer() {
    let odd = ClassPolicy {
        weekly: Some(RetentionClass::Days35),
        daily: Some(RetentionClass::Year1),
        rest: RetentionClass::Days35,
    };
    let monday = "2026-11-23T02:00:00Z";
    assert_eq!(said(&[], odd, monday), "1y: the first good backup of 2026-11-23");
    let heads = [good(monday, RetentionClass::Year1)];
    assert_eq!(
        said(&heads, odd, "2026-11-23T03:00:00Z"),
        "35d: this week and this day have their backup already (20261123T020000Z-full-SUFFIX)"
    );
}

fn class() -> impl Strategy<Value = RetentionClass> {
    prop::sample::select(RetentionClass::ALL.to_vec())
}

fn policy() -> impl Strategy<Value = ClassPolicy> {
    (prop::option::of(class()), prop::option::of(class()), class())
        .prop_map(|(weekly, daily, rest)| ClassPolicy { weekly, daily, rest })
}

/// What becomes of a backup that was begun.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Good,
    Damaged,
    Failed,
    Asked(RetentionClass),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Good),
        1 => Just(Fate::Damaged),
        1 => Just(Fate::Failed),
        1 => class().prop_map(Fate::Asked),
    ]
}

/// Takes one backup after the other; every one with what was chosen for it, if it was.
fn taken(policy: ClassPolicy, steps: &[(i64, Fate)]) -> Vec<(Head, Option<Chosen>)> {
    let mut stored: Vec<(Head, Option<Chosen>)> = Vec::new();
    let mut now = at("2026-11-19T00:00:00Z");
    for (minutes, fate) in steps {
        now += SignedDuration::from_mins(*minutes);
        let heads: Vec<Head> = stored.iter().map(|(head, _)| head.clone()).collect();
        let chosen = choose(&heads, policy, now);
        let (class, verdict, told) = match fate {
            Fate::Failed => continue,
            Fate::Good => (chosen.class, HeadVerdict::Good, Some(chosen)),
            Fate::Damaged => (chosen.class, HeadVerdict::Damaged, Some(chosen)),
            Fate::Asked(class) => (*class, HeadVerdict::Good, None),
        };
        stored.push((head(now, class, verdict), told));
    }
    stored
}

fn by<K: Ord>(
    stored: &[(Head, Option<Chosen>)],
    period: impl Fn(&Head) -> K,
) -> BTreeMap<K, Vec<(&Head, Option<Chosen>)>> {
    let mut groups: BTreeMap<K, Vec<_>> = BTreeMap::new();
    for (head, chosen) in stored
        .iter()
        .filter(|(head, _)| head.verdict == HeadVerdict::Good)
    {
        groups
            .entry(period(head))
            .or_default()
            .push((head, chosen.clone()));
    }
    groups
}

/// A period in which the policy chose at least once has a backup of its rank, and takes no second one for it.
fn assert_one_each<K: Ord>(
    groups: BTreeMap<K, Vec<(&Head, Option<Chosen>)>>,
    class: Option<RetentionClass>,
    is_rank: impl Fn(&Because) -> bool,
) {
    for group in groups.into_values() {
        let ranked = group
            .iter()
            .filter(|(_, chosen)| chosen.as_ref().is_some_and(|chosen| is_rank(&chosen.because)));
        assert!(ranked.count() <= 1);
        let chose = group.iter().any(|(_, chosen)| chosen.is_some());
        if let Some(class) = class.filter(|_| chose) {
            assert!(group.iter().any(|(head, _)| head.class >= class));
        }
    }
}

proptest! {
    #[test]
    fn every_week_and_every_day_with_a_good_backup_has_exactly_one_of_its_rank(
        policy in policy(),
        steps in prop::collection::vec((1_i64..2000, fate()), 0..60),
    ) {
        let stored = taken(policy, &steps);
        assert_one_each(by(&stored, |head| Week::of(head.created).to_string()), policy.weekly, |because| {
            matches!(because, Because::FirstOfWeek { .. })
        });
        assert_one_each(by(&stored, |head| day_of(head.created)), policy.daily, |because| {
            matches!(because, Because::FirstOfDay { .. })
        });
        for (head, _) in stored.iter().filter(|(_, chosen)| chosen.is_some()) {
            prop_assert!(head.class >= policy.rest);
        }
    }
}

/// Its name is of the week to come, and it was taken in this one.
#[test]
fn a_backup_of_a_clock_that_was_ahead_takes_no_rank_of_the_future() {
    let mut ahead = good("2026-11-30T03:00:00Z", RetentionClass::Years7);
    let rank = |head: &Head| {
        let heads = [head.clone()];
        choose(&heads, DEFAULT, at("2026-11-30T04:00:00Z")).class
    };
    assert_eq!(rank(&ahead), RetentionClass::Days35);
    let stopped = at("2026-11-23T03:00:00Z").as_microsecond() - 946_684_800_000_000;
    ahead.log = Some(backstay_repository::HeadLog {
        system: 1,
        timeline: 1,
        start: backstay_terms::Position(1),
        stop: backstay_terms::Position(2),
        segment_size: 16 << 20,
        stop_time: stopped,
        end_point: None,
    });
    assert_eq!(rank(&ahead), RetentionClass::Years7);
}
