//! Decisions about lineages, one by one.

use super::super::samples::{branch, first};
use super::*;
use backstay_terms::{Suffix, TimedId};

fn id() -> TimedId {
    TimedId::new("20261123T020011Z", "log", Suffix::from_chance(1)).unwrap()
}

fn known(timeline: u32, lineage: u32, history: Option<&str>, frontier: Option<u64>) -> Known {
    let branch = Branch {
        timeline,
        ..branch(lineage)
    };
    let record = LineageRecord {
        history: history.map(str::to_owned),
        ..first(branch, id(), id())
    };
    Known {
        record,
        frontier: frontier.map(Position),
        last: None,
        reach: frontier.map(Position),
    }
}

fn presented(timeline: u32, history: Option<&str>, end: u64) -> Presented {
    Presented {
        system: 7,
        timeline,
        history: history.map(str::to_owned),
        ancestors: (1..timeline)
            .map(|t| PresentedAncestor {
                timeline: t,
                history: None,
                left_at: Position(50),
            })
            .collect(),
        server_end: Position(end),
    }
}

#[test]
fn the_same_history_resumes_at_its_frontier() {
    let lineages = [known(1, 1, None, Some(100))];
    let branch = lineages[0].record.branch;
    assert_eq!(
        decide(&presented(1, None, 100), &lineages),
        Attach::Resume {
            branch,
            frontier: Some(Position(100))
        }
    );
}

#[test]
fn a_server_behind_our_frontier_begins_a_lineage_without_a_parent() {
    let lineages = [known(1, 1, None, Some(100))];
    assert_eq!(
        decide(&presented(1, None, 99), &lineages),
        Attach::Begin {
            reason: AttachReason::Behind,
            parent: None
        }
    );
}

#[test]
fn the_newest_lineage_of_a_timeline_is_the_one_that_resumes() {
    let lineages = [known(1, 1, None, Some(100)), known(1, 2, None, Some(60))];
    let branch = lineages[1].record.branch;
    assert_eq!(
        decide(&presented(1, None, 90), &lineages),
        Attach::Resume {
            branch,
            frontier: Some(Position(60))
        }
    );
}

#[test]
fn a_new_timeline_begins_a_lineage_where_it_left_its_parent() {
    let lineages = [known(1, 1, None, Some(100))];
    let parent = Some(Parent {
        branch: lineages[0].record.branch,
        fork: Position(50),
    });
    let attach = decide(&presented(2, Some("aa"), 120), &lineages);
    assert_eq!(
        attach,
        Attach::Begin {
            reason: AttachReason::Timeline,
            parent
        }
    );
}

#[test]
fn the_rest_of_the_old_timeline_is_fetched_before_the_switch() {
    let lineages = [known(1, 1, None, Some(30))];
    let branch = lineages[0].record.branch;
    assert_eq!(
        decide(&presented(2, Some("aa"), 120), &lineages),
        Attach::Resume {
            branch,
            frontier: Some(Position(30))
        }
    );
}

#[test]
fn the_same_timeline_number_with_another_history_is_another_lineage() {
    let lineages = [known(1, 1, None, Some(100)), known(2, 2, Some("aa"), Some(200))];
    let attach = decide(&presented(2, Some("bb"), 220), &lineages);
    let parent = Some(Parent {
        branch: lineages[0].record.branch,
        fork: Position(50),
    });
    assert_eq!(
        attach,
        Attach::Begin {
            reason: AttachReason::Timeline,
            parent
        }
    );
}

#[test]
fn another_system_begins_its_first_lineage() {
    let lineages = [known(1, 1, None, Some(100))];
    let other = Presented {
        system: 8,
        ..presented(1, None, 500)
    };
    assert_eq!(
        decide(&other, &lineages),
        Attach::Begin {
            reason: AttachReason::First,
            parent: None
        }
    );
}

/// Where a branch goes on whose epochs began at `from` and of which these stretches are stored.
fn goes_on(from: &[u64], stored: &[(u64, u64)]) -> Option<u64> {
    let record = |from: &u64| LineageRecord {
        from: Position(*from),
        ..known(1, 1, None, None).record
    };
    let records: Vec<LineageRecord> = from.iter().map(record).collect();
    let range = |(from, to): &(u64, u64)| LogRange {
        from: Position(*from),
        to: Position(*to),
    };
    let stretches: Vec<LogRange> = stored.iter().map(range).collect();
    frontier(&records.iter().collect::<Vec<_>>(), &stretches).map(|at| at.0)
}

#[test]
fn a_hole_that_uploads_overtook_is_where_a_branch_goes_on() {
    assert_eq!(goes_on(&[0], &[(0, 100)]), Some(100));
    assert_eq!(goes_on(&[0], &[(0, 100), (110, 120)]), Some(100));
    assert_eq!(goes_on(&[0, 96], &[(0, 100), (110, 120)]), Some(100));
    // The very first range never arrived: nothing was confirmed.
    assert_eq!(goes_on(&[0], &[(10, 20)]), None);
    assert_eq!(goes_on(&[0], &[]), None);
}

#[test]
fn after_a_gap_a_branch_goes_on_behind_it() {
    assert_eq!(goes_on(&[0, 200], &[(0, 100), (200, 300)]), Some(300));
    assert_eq!(
        goes_on(&[0, 200, 288], &[(0, 100), (200, 300), (310, 320)]),
        Some(300)
    );
    // Whoever attached after the gap stored nothing, or not its first range: the gap is found once more.
    assert_eq!(goes_on(&[0, 200], &[(0, 100)]), Some(100));
    assert_eq!(goes_on(&[0, 200], &[(0, 100), (210, 220)]), Some(100));
}

#[test]
fn a_server_that_ends_behind_a_range_that_overtook_another_is_behind() {
    let mut own = known(1, 1, None, Some(100));
    own.reach = Some(Position(120));
    let behind = Attach::Begin {
        reason: AttachReason::Behind,
        parent: None,
    };
    assert_eq!(decide(&presented(1, None, 110), &[own.clone()]), behind);
    let branch = own.record.branch;
    let frontier = Some(Position(100));
    assert_eq!(
        decide(&presented(1, None, 120), &[own]),
        Attach::Resume { branch, frontier }
    );
}
