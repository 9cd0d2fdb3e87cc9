//! What a crash left in live ranges is settled from the store alone.
//!
//! Promise: every acknowledged byte is served before and after, and when the live level is gone.

use std::time::Duration;

use backstay_repository::layout::Level;
use backstay_repository::{LogStore, Repository, RepositoryError, Settled, StoredRange};
use backstay_store::{Key, Store};
use backstay_terms::{Branch, LogRange};

use crate::log::{FILE, append, begin, branch, log_bytes, log_store, range, store_live, store_settled};
use crate::support::*;

/// A live range of its own epoch.
async fn live(repository: &Repository, branch: Branch, from: u64, to: u64) {
    let mut writer = begin(repository, branch).await;
    append(&mut writer, from, to);
    store_live(&mut writer).await;
}

/// A live range that holds the bytes of another branch.
async fn foreign(repository: &Repository, at: Branch, of: Branch, from: u64, to: u64) {
    let mut writer = begin(repository, at).await;
    let bytes = log_bytes(of, range(from, to));
    writer
        .append(range(from, to).from, bytes, Default::default())
        .unwrap();
    store_live(&mut writer).await;
}

async fn settled_ranges(log: &LogStore, branch: &Branch) -> Vec<LogRange> {
    let ranges = log.ranges(branch, None).await.unwrap();
    let settled = ranges.iter().filter(|r| r.level == Level::Settled);
    settled.map(|r| r.name.range).collect()
}

async fn forget_live(world: &World) {
    for key in world.names("wal-archive/live/") {
        world.memory.delete(&key).await.unwrap();
    }
}

async fn serves(log: &LogStore, branch: Branch, wanted: LogRange) {
    let bytes = log.read(&branch, wanted).await.unwrap();
    assert!(bytes == log_bytes(branch, wanted), "{branch} {wanted:?}");
}

#[tokio::test]
async fn what_a_dead_writer_left_is_settled_without_the_source_and_only_once() {
    let world = World::new();
    let mut writer = begin(&world.init().await, branch(1, 1)).await;
    append(&mut writer, 100, 4096);
    store_settled(&mut writer).await;
    for n in 0..9 {
        append(&mut writer, 4096 + n * 1024, 4096 + (n + 1) * 1024 - 50);
        append(&mut writer, 4096 + (n + 1) * 1024 - 50, 4096 + (n + 1) * 1024);
        while writer.state().sent < writer.state().appended {
            store_live(&mut writer).await;
        }
    }
    drop(writer);
    let repository = world.open().await;
    let log = log_store(&repository);
    let done = log.settle(&branch(1, 1), FILE).await.unwrap();
    assert_eq!((done.bytes, done.written), (9216, 3), "{done:?}");
    let expected = [
        range(100, 4096),
        range(4096, 8192),
        range(8192, 12_288),
        range(12_288, 13_312),
    ];
    assert_eq!(settled_ranges(&log, &branch(1, 1)).await, expected);
    let before = world.memory.snapshot();
    assert_eq!(log.settle(&branch(1, 1), FILE).await.unwrap(), Settled::default());
    assert_eq!(
        world.memory.snapshot(),
        before,
        "settling twice writes nothing, not even an envelope"
    );
    forget_live(&world).await;
    serves(&log_store(&world.open().await), branch(1, 1), range(100, 13_312)).await;
}

#[tokio::test]
async fn a_writer_that_was_down_for_forty_days_left_nothing_that_cannot_be_served() {
    let world = World::new();
    let mut writer = begin(&world.init().await, branch(1, 1)).await;
    append(&mut writer, 100, 3000);
    store_live(&mut writer).await;
    append(&mut writer, 3000, 4000);
    store_live(&mut writer).await;
    append(&mut writer, 4000, 4010);
    let acknowledged = writer.durable().position();
    drop(writer);
    world.clock.advance(Duration::from_secs(40 * 86_400));
    let repository = world.open().await;
    let log = log_store(&repository);
    let wanted = range(100, acknowledged.0);
    assert_eq!(wanted, range(100, 4000));
    serves(&log, branch(1, 1), wanted).await;
    log.settle(&branch(1, 1), FILE).await.unwrap();
    // Day 91: the bucket's rule has removed the live level.
    world.clock.advance(Duration::from_secs(51 * 86_400));
    forget_live(&world).await;
    serves(&log_store(&world.open().await), branch(1, 1), wanted).await;
}

#[tokio::test]
async fn settling_never_joins_two_lineages() {
    let world = World::new();
    let repository = world.init().await;
    let (one, two) = (branch(1, 1), branch(1, 2));
    live(&repository, one, 100, 200).await;
    live(&repository, two, 200, 300).await;
    live(&repository, one, 300, 400).await;
    let log = log_store(&repository);
    log.settle(&one, FILE).await.unwrap();
    assert_eq!(
        settled_ranges(&log, &one).await,
        [range(100, 200), range(300, 400)],
        "LIN-1"
    );
    assert_eq!(settled_ranges(&log, &two).await, []);
    log.settle(&two, FILE).await.unwrap();
    assert_eq!(settled_ranges(&log, &two).await, [range(200, 300)]);
    forget_live(&world).await;
    serves(&log, one, range(100, 200)).await;
    serves(&log, two, range(200, 300)).await;
    let gap = log.read(&one, range(100, 400)).await.unwrap_err();
    assert!(matches!(gap, RepositoryError::Gap { from, to, .. } if (from.0, to.0) == (200, 300)));
}

#[tokio::test]
async fn overlapping_live_ranges_of_equal_bytes_are_settled_as_one() {
    // Epochs that read again, in every manner of overlap.
    let layouts: [&[(u64, u64)]; 6] = [
        &[(100, 300), (200, 400)],
        &[(100, 400), (200, 300)],
        &[(100, 400), (100, 400)],
        &[(100, 200), (100, 300), (100, 400)],
        &[(100, 250), (150, 200), (200, 400), (240, 260)],
        &[(100, 104), (104, 106), (102, 400), (101, 399)],
    ];
    for layout in layouts {
        let world = World::new();
        let repository = world.init().await;
        for (from, to) in layout {
            live(&repository, branch(1, 1), *from, *to).await;
        }
        let log = log_store(&world.open().await);
        log.settle(&branch(1, 1), FILE).await.unwrap();
        forget_live(&world).await;
        serves(&log, branch(1, 1), range(100, 400)).await;
    }
}

#[tokio::test]
async fn ranges_of_one_lineage_that_contradict_each_other_are_refused_and_nothing_is_written() {
    let (ours, other) = (branch(1, 1), branch(9, 9));
    // Ranges of this branch, and one whose bytes are another history's: wherever it overlaps, it is found.
    type Layout = (&'static [(u64, u64)], (u64, u64));
    let layouts: [Layout; 6] = [
        (&[(100, 300)], (200, 400)),
        (&[(100, 400)], (200, 300)),
        (&[(100, 400)], (100, 400)),
        (&[(100, 104), (102, 400)], (104, 106)),
        (&[(100, 4096), (4096, 5000), (5000, 6000)], (5500, 5501)),
        (&[(100, 200), (300, 400)], (199, 301)),
    ];
    for (layout, (from, to)) in layouts {
        let world = World::new();
        let repository = world.init().await;
        for (from, to) in layout {
            live(&repository, ours, *from, *to).await;
        }
        foreign(&repository, ours, other, from, to).await;
        let before = world.names("wal-archive/settled/");
        let error = log_store(&repository).settle(&ours, FILE).await.unwrap_err();
        let names_both = matches!(&error, RepositoryError::Differs { object, what }
            if object.contains("wal-archive/live/") && what.contains("wal-archive/live/"));
        assert!(names_both, "{layout:?} {from}..{to}: {error}");
        assert_eq!(
            world.names("wal-archive/settled/"),
            before,
            "{layout:?} {from}..{to}"
        );
    }
}

#[tokio::test]
async fn a_live_range_that_contradicts_a_settled_one_is_refused() {
    let (ours, other) = (branch(1, 1), branch(9, 9));
    for (from, to) in [(150, 300), (50, 300), (50, 150)] {
        let world = World::new();
        let repository = world.init().await;
        let mut writer = begin(&repository, ours).await;
        append(&mut writer, 100, 200);
        store_settled(&mut writer).await;
        foreign(&repository, ours, other, from, to).await;
        let error = log_store(&repository).settle(&ours, FILE).await.unwrap_err();
        assert!(
            matches!(error, RepositoryError::Differs { .. }),
            "{from}..{to}: {error}"
        );
        assert_eq!(
            settled_ranges(&log_store(&repository), &ours).await,
            [range(100, 200)]
        );
    }
}

#[tokio::test]
async fn a_log_at_rest_costs_settling_four_listings() {
    use backstay_store::{Meter, MeteredStore, Operation};
    let world = World::new();
    let repository = world.init().await;
    live(&repository, branch(1, 1), 100, 300).await;
    live(&repository, branch(1, 1), 200, 400).await;
    log_store(&repository).settle(&branch(1, 1), FILE).await.unwrap();
    let meter = Meter::new();
    let metered = std::sync::Arc::new(MeteredStore::new(world.store(), meter.clone()));
    let repository = world.open_over(metered, &[raw_key(7)]).await.unwrap();
    meter.reset();
    log_store(&repository).settle(&branch(1, 1), FILE).await.unwrap();
    let calls: Vec<(Operation, u64)> = meter
        .tallies()
        .into_iter()
        .map(|(of, tally)| (of, tally.calls()))
        .collect();
    assert_eq!(calls, [(Operation::List, 4)], "of the records, and of each level");
}

/// Cuts the last byte off the live range that begins at `from`; returns its name.
fn damage_live(world: &World, from: u64) -> Key {
    let begins = format!("/{from:016x}-");
    let names = world.names("wal-archive/live/");
    let key = names
        .into_iter()
        .find(|key| key.as_str().contains(&begins))
        .unwrap();
    let body = world.body(&key);
    world.memory.overwrite(&key, body.slice(..body.len() - 1));
    key
}

#[tokio::test]
async fn a_live_range_that_cannot_be_read_stays_unsettled_and_is_named_and_the_rest_is_settled() {
    let world = World::new();
    let repository = world.init().await;
    for (from, to) in [(100, 200), (200, 300), (300, 400), (380, 500)] {
        live(&repository, branch(1, 1), from, to).await;
    }
    let lost = damage_live(&world, 200);
    let doubled = damage_live(&world, 380);
    let log = log_store(&world.open().await);
    let done = log.settle(&branch(1, 1), FILE).await.unwrap();
    let named: Vec<(LogRange, bool)> = done
        .damaged
        .iter()
        .map(|d| {
            (
                d.range,
                d.what.contains(lost.as_str()) || d.what.contains(doubled.as_str()),
            )
        })
        .collect();
    assert_eq!(named, [(range(200, 300), true), (range(400, 500), true)]);
    assert_eq!(
        settled_ranges(&log, &branch(1, 1)).await,
        [range(100, 200), range(300, 400)]
    );
    let ranges: Vec<StoredRange> = log.ranges(&branch(1, 1), None).await.unwrap();
    assert_eq!(
        LogStore::unsettled(&ranges),
        [range(200, 300), range(400, 500)],
        "and is not counted as settled"
    );
    let before = world.memory.snapshot();
    log.settle(&branch(1, 1), FILE).await.unwrap();
    assert_eq!(world.memory.snapshot(), before, "settling again writes nothing");
}

#[tokio::test]
async fn a_damaged_live_range_is_settled_from_another_one_that_holds_the_same() {
    let world = World::new();
    let repository = world.init().await;
    for (from, to) in [(100, 300), (300, 400), (100, 200), (150, 310)] {
        live(&repository, branch(1, 1), from, to).await;
    }
    damage_live(&world, 300);
    let key = world
        .names("wal-archive/live/")
        .into_iter()
        .find(|key| key.as_str().contains("/0000000000000064-000000000000012c"))
        .unwrap();
    let body = world.body(&key);
    world.memory.overwrite(&key, body.slice(..body.len() / 2));
    let log = log_store(&world.open().await);
    let done = log.settle(&branch(1, 1), FILE).await.unwrap();
    assert_eq!(done.damaged.len(), 1, "{done:?}");
    assert_eq!(done.damaged[0].range, range(310, 400));
    assert_eq!(
        settled_ranges(&log, &branch(1, 1)).await,
        [range(100, 200), range(200, 310)],
        "what two epochs stored is settled apart"
    );
    forget_live(&world).await;
    serves(&log_store(&world.open().await), branch(1, 1), range(100, 310)).await;
}
