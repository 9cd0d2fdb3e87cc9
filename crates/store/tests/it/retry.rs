//! What is tried again, how often, and what a put of unknown outcome ends with.
//!
//! Promise: one row per behaviour; the clock jumps, so no test waits.
//! Not here: the lengths of waits (clock::backoff).

use std::sync::Arc;
use std::time::Duration;

use backstay_clock::{Backoff, Clock, SeededChance, SimClock};
use backstay_store::faults::{Fault, FaultKind, FaultyStore, When};
use backstay_store::{Created, MemoryStore, Operation, Patience, Retry, RetryingStore, Store, StoreError};
use bytes::Bytes;

use crate::support::{key, memory};

const TEN_SECONDS: Patience = Patience {
    backoff: Backoff {
        base: Duration::from_secs(1),
        factor: 2,
        max: Duration::from_secs(4),
    },
    total: Duration::from_secs(10),
};

struct World {
    memory: Arc<MemoryStore>,
    faulty: Arc<FaultyStore>,
    clock: Arc<SimClock>,
    store: RetryingStore,
}

fn world(script: &[(When, Fault)]) -> World {
    let memory = memory();
    let faulty = FaultyStore::new(memory.clone());
    for (when, fault) in script {
        faulty.add(*when, *fault);
    }
    let (faulty, clock) = (Arc::new(faulty), Arc::new(SimClock::jumping()));
    let chance = Arc::new(SeededChance::new(42));
    let store = RetryingStore::new(faulty.clone(), clock.clone(), chance, TEN_SECONDS);
    World {
        memory,
        faulty,
        clock,
        store,
    }
}

/// Script; outcome; calls that reached the store.
type Row = (Vec<(When, Fault)>, Result<Created, String>, u64);

/// The name of an error's variant.
fn kind(error: &StoreError) -> String {
    let debug = format!("{error:?}");
    debug.split(' ').next().unwrap_or_default().to_owned()
}

async fn put(world: &World) -> Result<Created, String> {
    let put = world.store.put_if_absent(&key("a"), Bytes::from("ours")).await;
    put.map_err(|error| kind(&error))
}

#[tokio::test]
async fn puts_end_as_the_table_says() {
    use Fault::{LostPut, NotFoundYet, Refuse, TimeoutAfterEffect};
    use FaultKind::{Busy, NoSpace, PermissionDenied, Timeout, Unreachable};
    let nth_put = |n| When::Nth(Operation::Put, n);
    let nth_get = |n| When::Nth(Operation::Get, n);
    let failed = |kind: &str| Err(kind.to_owned());
    let table: Vec<Row> = vec![
        (vec![], Ok(Created::Now), 1),
        (vec![(nth_put(1), Refuse(Busy))], Ok(Created::Now), 3),
        (vec![(nth_put(1), Refuse(Timeout))], Ok(Created::Now), 3),
        (vec![(nth_put(1), TimeoutAfterEffect)], Ok(Created::Now), 3),
        (vec![(When::Until(3), Refuse(Unreachable))], Ok(Created::Now), 5),
        (
            vec![(nth_put(1), TimeoutAfterEffect), (nth_put(2), TimeoutAfterEffect)],
            Ok(Created::Now),
            4,
        ),
        // The check itself fails, or sees nothing yet: put and check are made again.
        (
            vec![(nth_put(1), TimeoutAfterEffect), (nth_get(1), Refuse(Timeout))],
            Ok(Created::Now),
            5,
        ),
        (
            vec![(nth_put(1), TimeoutAfterEffect), (nth_get(1), NotFoundYet)],
            Ok(Created::Now),
            5,
        ),
        // A store that confirms without storing is caught by the check.
        (
            vec![(nth_put(1), Refuse(Busy)), (nth_put(2), LostPut)],
            Ok(Created::Now),
            5,
        ),
        // Writers may not read packs: the size is taken from a listing.
        (
            vec![
                (nth_put(1), TimeoutAfterEffect),
                (When::Every(Operation::Get), Refuse(PermissionDenied)),
            ],
            Ok(Created::Now),
            4,
        ),
        (vec![(nth_put(1), Refuse(NoSpace))], failed("NoSpace"), 1),
        (
            vec![(nth_put(1), Refuse(PermissionDenied))],
            failed("PermissionDenied"),
            1,
        ),
        (
            vec![(nth_put(1), Refuse(Busy)), (nth_put(2), Refuse(NoSpace))],
            failed("NoSpace"),
            2,
        ),
    ];
    for (script, outcome, calls) in table {
        let world = world(&script);
        assert_eq!(put(&world).await, outcome, "{script:?}");
        assert_eq!(world.faulty.calls(), calls, "{script:?}");
        assert_eq!(world.faulty.unused(), [], "{script:?}");
        if outcome.is_ok() {
            assert_eq!(world.memory.get(&key("a")).await, Ok(Bytes::from("ours")));
        }
    }
}

#[tokio::test]
async fn a_first_answer_of_already_there_is_passed_on_unread() {
    let world = world(&[]);
    world.memory.overwrite(&key("a"), Bytes::from("theirs"));
    assert_eq!(put(&world).await, Ok(Created::AlreadyThere));
    assert_eq!(world.faulty.calls(), 1);
}

#[tokio::test]
async fn other_bytes_under_our_name_after_a_lost_answer_are_no_success() {
    for theirs in ["them", "longer than ours", ""] {
        let world = world(&[(When::Call(1), Fault::Refuse(FaultKind::Timeout))]);
        world.memory.overwrite(&key("a"), Bytes::from(theirs));
        assert_eq!(put(&world).await, Err("Foreign".to_owned()));
        assert_eq!(world.memory.get(&key("a")).await, Ok(Bytes::from(theirs)));
    }
}

#[tokio::test]
async fn a_wrong_size_is_no_success_where_only_listing_is_allowed() {
    let world = world(&[
        (When::Call(1), Fault::Refuse(FaultKind::Timeout)),
        (
            When::Every(Operation::Get),
            Fault::Refuse(FaultKind::PermissionDenied),
        ),
    ]);
    world.memory.overwrite(&key("a"), Bytes::from("torn"));
    world.memory.overwrite(&key("a"), Bytes::from("our"));
    let error = world.store.put_if_absent(&key("a"), Bytes::from("ours")).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "cannot put a: other bytes lie under this name (3 bytes are stored, 4 were sent)"
    );
}

#[tokio::test]
async fn nothing_is_begun_after_the_deadline_and_the_last_error_is_returned() {
    let busy = [(When::Every(Operation::Get), Fault::Refuse(FaultKind::Busy))];
    let world = world(&busy);
    let error = world.store.get(&key("a")).await.unwrap_err();
    assert_eq!(kind(&error), "Busy");
    // Waits of at most 1, 2, 4 and 4 seconds, halved at most: the sum stays below ten.
    assert!(
        world.clock.instant() < TEN_SECONDS.total,
        "{:?}",
        world.clock.instant()
    );
    assert!(
        (4..=6).contains(&world.faulty.calls()),
        "{}",
        world.faulty.calls()
    );
}

#[tokio::test]
async fn reads_are_tried_again_only_when_the_error_says_so() {
    for fault in FaultKind::ALL {
        let world = world(&[(When::Call(1), Fault::Refuse(fault))]);
        world.memory.overwrite(&key("a"), Bytes::from("body"));
        let call = backstay_store::Call::on_key(Operation::Get, &key("a"));
        let expected = match fault.error(call.clone()).retry() {
            Retry::Later => (Ok(Bytes::from("body")), 2),
            Retry::Never | Retry::AfterHelp => (Err(fault.error(call)), 1),
        };
        let answer = world.store.get(&key("a")).await;
        assert_eq!((answer, world.faulty.calls()), expected, "{fault:?}");
    }
}

#[tokio::test]
async fn what_a_call_is_tried_again_for_is_told_until_an_answer_is_good() {
    let world = world(&[]);
    assert_eq!(world.store.trouble(), None);
    put(&world).await.unwrap();
    let busy = Fault::Refuse(FaultKind::Busy);
    world.faulty.add(When::Every(Operation::Get), busy);
    world.store.get(&key("a")).await.unwrap_err();
    assert_eq!(
        world.store.trouble().map(|error| kind(&error)),
        Some("Busy".to_owned())
    );
    world.faulty.heal();
    world.store.get(&key("a")).await.unwrap();
    assert_eq!(world.store.trouble(), None);
    world
        .faulty
        .add(When::Every(Operation::Get), Fault::Refuse(FaultKind::NotFound));
    world.store.get(&key("a")).await.unwrap_err();
    assert_eq!(world.store.trouble(), None, "that is an answer");
}
