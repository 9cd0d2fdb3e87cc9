//! Decisions about lineages, one by one.

use super::*;
use backstay_terms::{Suffix, TimedId};

fn id() -> TimedId {
    TimedId::new("20261123T020011Z", "log", Suffix::from_chance(1)).unwrap()
}

fn known(timeline: u32, lineage: u32, history: Option<&str>, frontier: Option<u64>) -> Known {
    let record = LineageRecord {
        format: 1,
        kind: LineageKind::Attach,
        id: id(),
        created: Timestamp::UNIX_EPOCH,
        branch: Branch {
            system: 7,
            timeline,
            lineage: Lineage(lineage),
        },
        from: Position(0),
        history: history.map(str::to_owned),
        parent: None,
        reason: AttachReason::First,
        epoch: id(),
        segment_size: 16 << 20,
        server_end: Position(0),
    };
    Known {
        record,
        frontier: frontier.map(Position),
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
