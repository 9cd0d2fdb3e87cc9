//! Log that one lineage record moved out of the branch under which it is stored.
//!
//! Promise: whoever lists, reads, settles or is told of a lineage sees what was moved to it, and not what was moved away.

use backstay_repository::{
    AttachReason, LineageKind, LineageRecord, LogCheck, LogStore, LogWriter, Moved, Parent, Repository,
    Wanted,
};
use backstay_terms::{Branch, EpochId, LogFacts, LogRange, Position};
use jiff::Timestamp;

use crate::log::{FILE, begin, branch, log_bytes, log_store, range, store_live, store_settled};
use crate::support::*;

/// The branch that both servers streamed into, and the lineage of the one that left.
pub const OURS: u32 = 1;
pub const THEIRS: u32 = 2;

/// An attachment of `epoch` to the branch, at this frontier if it resumed.
pub fn attached(repository: &Repository, epoch: &EpochId, at: u64, after: Option<&EpochId>) -> LineageRecord {
    LineageRecord {
        format: 1,
        kind: LineageKind::Attach,
        id: repository.new_id("attach").unwrap(),
        created: repository.now(),
        branch: branch(1, OURS),
        from: Position(at / FILE * FILE),
        history: None,
        parent: None,
        reason: match at {
            0 => AttachReason::First,
            _ => AttachReason::Resumed,
        },
        epoch: epoch.clone(),
        segment_size: FILE,
        server_end: Position(at),
        frontier: (at > 0).then_some(Position(at)),
        over: vec![],
        moved: None,
        after: after.cloned(),
    }
}

/// Appends bytes of `server`, whose seed they are, and stores them live.
pub async fn write(writer: &mut LogWriter, server: u32, from: u64, to: u64) {
    let mut at = from;
    while at < to {
        let next = to.min((at / FILE + 1) * FILE);
        let bytes = log_bytes(branch(1, server), range(at, next));
        writer.append(Position(at), bytes, LogFacts::default()).unwrap();
        at = next;
    }
    while writer.state().sent < writer.state().appended {
        store_live(writer).await;
    }
}

/// Up to `FORK` one history; then the one server goes on to 3000, and its copy to 3500.
const FORK: u64 = 2000;

/// Both servers' log in one branch, and the record that moves the copy's out.
async fn moved() -> (World, EpochId) {
    let world = World::new();
    let repository = world.init().await;
    let log = log_store(&repository);
    let mut first = begin(&repository, branch(1, OURS)).await;
    log.put_record(&attached(&repository, first.epoch(), 0, None))
        .await
        .unwrap();
    write(&mut first, OURS, 0, FORK).await;
    let mut second = begin(&repository, branch(1, OURS)).await;
    let copy = attached(&repository, second.epoch(), FORK, Some(first.epoch()));
    log.put_record(&copy).await.unwrap();
    write(&mut first, OURS, FORK, 3000).await;
    write(&mut second, THEIRS, FORK, 2500).await;
    write(&mut second, THEIRS, 2500, 3500).await;
    store_settled(&mut second).await;
    let index = second.cut_index(Wanted::Everything).unwrap().unwrap();
    index.run().await.unwrap();
    let moved = LineageRecord {
        id: repository.new_id("move").unwrap(),
        branch: branch(1, THEIRS),
        from: Position(FORK),
        parent: Some(Parent {
            branch: branch(1, OURS),
            fork: Position(FORK),
        }),
        reason: AttachReason::Differs,
        frontier: None,
        moved: Some(Moved {
            branch: branch(1, OURS),
            epochs: vec![second.epoch().clone()],
        }),
        after: None,
        ..copy
    };
    log.put_record(&moved).await.unwrap();
    (world, second.epoch().clone())
}

async fn ends(log: &LogStore, lineage: u32) -> Vec<LogRange> {
    let ranges = log.ranges(&branch(1, lineage), None).await.unwrap();
    let ranges: Vec<LogRange> = ranges.iter().map(|stored| stored.name.range).collect();
    backstay_repository::stretches(&ranges)
}

#[tokio::test]
async fn what_was_moved_is_read_as_the_other_lineages_and_not_as_this_ones() {
    let (world, _) = moved().await;
    let log = log_store(&world.open().await);
    assert_eq!(ends(&log, OURS).await, [range(0, 3000)]);
    assert_eq!(ends(&log, THEIRS).await, [range(FORK, 3500)]);
    for (lineage, from, to) in [(OURS, 0, 3000), (THEIRS, FORK, 3500), (THEIRS, 2400, 2600)] {
        let lineage = branch(1, lineage);
        let bytes = log.read(&lineage, range(from, to)).await.unwrap();
        assert!(bytes == log_bytes(lineage, range(from, to)), "{lineage}");
    }
    let (ours, strays) = log.listed(&branch(1, OURS), Position(2600)).await.unwrap();
    let to = |range: &backstay_repository::AgedRange| range.stored.name.range.to.0;
    assert_eq!((ours.ranges.iter().map(to).max(), strays.len()), (Some(3000), 0));
}

#[tokio::test]
async fn a_stream_goes_on_in_each_lineage_where_its_own_log_ends() {
    let (world, copy) = moved().await;
    let known = log_store(&world.open().await).known().await.unwrap();
    let seen: Vec<(Branch, Option<Position>, bool)> = known
        .iter()
        .map(|known| {
            (
                known.record.branch,
                known.frontier,
                known.last.as_ref() == Some(&copy),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (branch(1, OURS), Some(Position(3000)), false),
            (branch(1, THEIRS), Some(Position(3500)), true),
        ]
    );
}

#[tokio::test]
async fn settling_keeps_the_two_apart_and_needs_nothing_of_the_live_level_afterwards() {
    let (world, _) = moved().await;
    let log = log_store(&world.open().await);
    for lineage in [OURS, THEIRS] {
        log.settle(&branch(1, lineage), FILE).await.unwrap();
    }
    for key in world.names("wal-archive/live/") {
        backstay_store::Store::delete(&world.memory, &key).await.unwrap();
    }
    let log = log_store(&world.open().await);
    for (lineage, from, to) in [(OURS, 0, 3000), (THEIRS, FORK, 3500)] {
        let lineage = branch(1, lineage);
        let bytes = log.read(&lineage, range(from, to)).await.unwrap();
        assert!(bytes == log_bytes(lineage, range(from, to)), "{lineage}");
    }
}

#[tokio::test]
async fn the_inventory_and_every_check_take_the_two_for_two_lineages() {
    let (world, _) = moved().await;
    let repository = world.open().await;
    let log = log_store(&repository);
    let engine = backstay_terms::EngineKind::Postgres;
    let inventory = repository
        .inventory(engine, &source(), repository.now())
        .await
        .unwrap();
    let branches: Vec<Branch> = inventory.branches.iter().map(|objects| objects.branch).collect();
    assert_eq!(branches, [branch(1, OURS), branch(1, THEIRS)]);
    assert_eq!(inventory.strays, []);
    for objects in &inventory.branches {
        let check = LogCheck::new(&log, objects);
        let (read, findings) = check.bytes(|_, _| {}).await.unwrap();
        assert_eq!(findings, [], "{}", objects.branch);
        assert!(read > 0);
    }
    let (records, findings) = log.check_records(&branches).await.unwrap();
    assert_eq!(findings, []);
    assert_eq!(
        records.len(),
        2,
        "what the copy's attachment says is not of this branch any more"
    );
    let (indexed, _) = log.check_indexes(&inventory.branches).await.unwrap();
    assert_eq!(
        indexed.into_iter().collect::<Vec<_>>(),
        [(branch(1, THEIRS), vec![range(FORK, 3500)])]
    );
}

#[tokio::test]
async fn what_the_copy_had_stored_is_no_witness_of_the_lineage_that_it_left() {
    let (world, _) = moved().await;
    let log = log_store(&world.open().await);
    let records = log.records().await.unwrap();
    let reach = async |lineage| {
        let witnesses = log.witnesses(&branch(1, lineage), &records, Timestamp::MIN).await;
        witnesses.unwrap().into_iter().map(|witness| witness.reach).max()
    };
    assert_eq!(reach(OURS).await, None);
    assert_eq!(reach(THEIRS).await, Some(Position(3500)));
}

#[tokio::test]
async fn an_object_that_was_moved_is_opened_by_its_name() {
    let (world, copy) = moved().await;
    let repository = world.open().await;
    let names = world.names("wal-archive/live/");
    let of_copy = names
        .iter()
        .find(|key| key.as_str().contains(copy.as_str()))
        .unwrap();
    let bytes = repository.decrypt(of_copy.as_str()).await.unwrap().unwrap();
    assert!(bytes == log_bytes(branch(1, THEIRS), range(FORK, 2500)));
}
