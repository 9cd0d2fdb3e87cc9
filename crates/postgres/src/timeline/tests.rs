//! History files and ancestry.

#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

const THREE: &[u8] = b"# restored\n1\t0/8020B98\tno recovery target specified\n\n2\t0/9000060\tbefore 2026-11-23 02:17:41+00\n";

fn three() -> History {
    History::parse(Timeline(3), THREE).unwrap()
}

#[test]
fn a_file_of_the_server_is_read_and_kept_byte_for_byte() {
    let history = three();
    let read: Vec<_> = history
        .ancestors()
        .iter()
        .map(|a| (a.timeline.0, a.until.to_string(), a.reason.as_str()))
        .collect();
    assert_eq!(
        read,
        [
            (1, "0/8020B98".into(), "no recovery target specified"),
            (2, "0/9000060".into(), "before 2026-11-23 02:17:41+00"),
        ]
    );
    assert_eq!(history.bytes(), THREE);
}

#[test]
fn the_way_to_a_timeline_says_who_holds_each_position() {
    let way = Ancestry::of(&three());
    let holders: Vec<u32> = ["0/0", "0/8020B97", "0/8020B98", "0/900005F", "0/9000060", "F/0"]
        .map(|lsn| way.holding(lsn.parse().unwrap()).unwrap().0)
        .into();
    assert_eq!(holders, [1, 1, 2, 2, 3, 3]);
    assert_eq!(way.leaves(Timeline(1)), Some(Lsn(0x8020B98)));
    assert_eq!((way.leaves(Timeline(3)), way.leaves(Timeline(7))), (None, None));
}

#[test]
fn a_backup_lies_on_the_way_only_before_its_timeline_was_left() {
    let way = Ancestry::of(&three());
    assert!(way.passes(Timeline(1), Lsn(0x8020B98)));
    assert!(!way.passes(Timeline(1), Lsn(0x8020B99)));
    assert!(way.passes(Timeline(2), Lsn(0x8020B98)));
    assert!(!way.passes(Timeline(2), Lsn(0x8000000)));
    assert!(way.passes(Timeline(3), Lsn(0x9000061)));
    assert!(!way.passes(Timeline(4), Lsn(0x9000061)));
}

#[test]
fn a_page_carries_the_timeline_that_held_its_first_byte() {
    let way = Ancestry::of(&three());
    // The switch point lies inside the page at 0/8020000, which timeline 1 began.
    assert!(way.may_carry(Lsn(0x8020000), Timeline(1)));
    assert!(!way.may_carry(Lsn(0x8020000), Timeline(2)));
    assert!(way.may_carry(Lsn(0x8022000), Timeline(2)));
    let unknown = Ancestry::without_history(Timeline(3));
    assert!(unknown.may_carry(Lsn(0), Timeline(2)));
    assert!(!unknown.may_carry(Lsn(0), Timeline(4)));
    assert!(!unknown.may_carry(Lsn(0), Timeline(0)));
}

#[test]
fn files_that_the_server_would_refuse_are_refused() {
    let refused = |text: &str| {
        History::parse(Timeline(3), text.as_bytes())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused("1 0/8 x\none 0/9 y\n"),
        "history of timeline 3, line 2: expected a timeline number and a switch point"
    );
    assert_eq!(
        refused("1\n"),
        "history of timeline 3, line 1: expected a timeline number and a switch point"
    );
    assert_eq!(
        refused("1\t8020B98\t\n"),
        "history of timeline 3, line 1: expected a timeline number and a switch point"
    );
    assert_eq!(
        refused("2\t0/8\t\n1\t0/9\t\n"),
        "history of timeline 3, line 2: timelines and switch points must rise"
    );
    assert_eq!(
        refused("1\t0/9\t\n2\t0/8\t\n"),
        "history of timeline 3, line 2: timelines and switch points must rise"
    );
    assert_eq!(
        refused("3\t0/9\t\n"),
        "history of timeline 3, line 1: timelines and switch points must rise"
    );
    assert_eq!(refused("# nothing\n"), "history of timeline 3 names no ancestor");
    assert_eq!(
        refused(&"#".repeat(HISTORY_BYTES_MAX + 1)),
        "history of timeline 3 has 1048577 bytes; at most 1048576 are read"
    );
}

fn ancestors() -> impl Strategy<Value = Vec<Ancestor>> {
    let one = (1u32..50, 0u64..1 << 40, "[ -~]{0,30}");
    prop::collection::vec(one, 1..8).prop_map(|steps| {
        let (mut timeline, mut until) = (0, 0);
        let mut next = |(step, bytes, reason): (u32, u64, String)| {
            timeline += step;
            until += bytes;
            Ancestor {
                timeline: Timeline(timeline),
                until: Lsn(until),
                reason: reason.trim().to_owned(),
            }
        };
        steps.into_iter().map(&mut next).collect()
    })
}

proptest! {
    #[test]
    fn what_is_composed_is_read_back(list in ancestors()) {
        let timeline = Timeline(list.last().unwrap().timeline.0 + 1);
        let history = History::compose(timeline, &list).unwrap();
        prop_assert_eq!(history.ancestors(), &list[..]);
        prop_assert_eq!(History::parse(timeline, history.bytes()), Ok(history));
    }

    #[test]
    fn every_position_has_exactly_one_holder_and_lies_on_the_way(list in ancestors(), at in any::<u64>()) {
        let timeline = Timeline(list.last().unwrap().timeline.0 + 1);
        let way = Ancestry::of(&History::compose(timeline, &list).unwrap());
        let holder = way.holding(Lsn(at)).unwrap();
        prop_assert!(way.passes(holder, Lsn(at)));
        let holders = way.spans().unwrap().iter().filter(|s| s.from <= Lsn(at) && s.until.is_none_or(|u| Lsn(at) < u));
        prop_assert_eq!(holders.count(), 1);
    }

    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = History::parse(Timeline(9), &bytes);
    }
}
