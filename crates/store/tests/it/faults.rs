//! The faulty stores do what their scripts say, and a listing survives a store that lies.
//!
//! Promise: each fault is seen once here, so that a sweep elsewhere means something.
//! Not here: what jobs make of them (engine).

use std::sync::Arc;
use std::time::Duration;

use backstay_clock::SimClock;
use backstay_store::faults::{CrashMode, CrashPlan, CrashStore, Fault, FaultyStore, When};
use backstay_store::{Created, MemoryImage, MemoryStore, Operation, Prefix, Store, StoreError, list_all};
use bytes::Bytes;
use futures_util::FutureExt;

use crate::support::{clock, key, memory};

/// Puts `a`, reads it, puts `b` in a process that dies at a call; returns what is left.
async fn die_at(call: u64, mode: CrashMode) -> (MemoryImage, CrashPlan) {
    let memory = memory();
    let plan = CrashPlan::at(call, mode);
    let store = CrashStore::new(memory.clone(), plan.clone());
    let _may_be_dead = store.put_if_absent(&key("a"), Bytes::from("aaaa")).await;
    let _may_be_dead = store.get(&key("a")).await;
    let _may_be_dead = store.put_if_absent(&key("b"), Bytes::from("bbbb")).await;
    (memory.snapshot(), plan)
}

#[tokio::test]
async fn a_process_dies_at_its_call_and_in_its_way() {
    use CrashMode::{AfterWithoutAnswer, Before, HalfWrite, TornWrite};
    let table = [
        (1, Before, vec![]),
        (1, HalfWrite, vec![]),
        (1, TornWrite, vec![("a", "aa")]),
        (1, AfterWithoutAnswer, vec![("a", "aaaa")]),
        (2, Before, vec![("a", "aaaa")]),
        (2, AfterWithoutAnswer, vec![("a", "aaaa")]),
        (3, Before, vec![("a", "aaaa")]),
        (3, TornWrite, vec![("a", "aaaa"), ("b", "bb")]),
        (3, AfterWithoutAnswer, vec![("a", "aaaa"), ("b", "bbbb")]),
        (4, Before, vec![("a", "aaaa"), ("b", "bbbb")]),
    ];
    for (call, mode, left) in table {
        let (image, plan) = die_at(call, mode).await;
        let seen: Vec<(String, Bytes)> = image
            .objects()
            .map(|(key, body)| (key.to_string(), body.clone()))
            .collect();
        let left: Vec<(String, Bytes)> = left
            .into_iter()
            .map(|(key, body)| (key.to_owned(), Bytes::from(body)))
            .collect();
        assert_eq!(seen, left, "call {call}, {mode:?}");
        assert_eq!((plan.is_dead(), plan.count()), (call < 4, call.min(3)));
    }
}

#[tokio::test]
async fn the_dead_stay_dead_until_a_new_store_is_made_over_the_image() {
    let memory = memory();
    let store = CrashStore::new(memory.clone(), CrashPlan::at(1, CrashMode::AfterWithoutAnswer));
    let body = Bytes::from("x");
    for _ in 0..2 {
        let error = store.put_if_absent(&key("a"), body.clone()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot put a: the process died here, as the test asked"
        );
    }
    assert_eq!(store.plan().calls(), ["put a"]);
    let reborn = MemoryStore::from_snapshot(clock(), memory.snapshot());
    assert_eq!(reborn.get(&key("a")).await, Ok(body));
    reborn.delete(&key("a")).await.unwrap();
    assert_eq!(memory.snapshot().len(), 1);
}

#[tokio::test]
async fn a_lying_store_lies_as_the_script_says() {
    let memory = memory();
    let store = FaultyStore::new(memory.clone())
        .with(When::Nth(Operation::Put, 2), Fault::PutOverwrites)
        .with(When::Nth(Operation::Get, 1), Fault::OldVersion)
        .with(When::Nth(Operation::Get, 2), Fault::BitFlip(8))
        .with(When::Nth(Operation::Delete, 1), Fault::LostDelete);
    let name = key("a");
    store.put_if_absent(&name, Bytes::from("old")).await.unwrap();
    let again = store.put_if_absent(&name, Bytes::from("new")).await;
    assert_eq!(again, Ok(Created::Now));
    assert_eq!(store.get(&name).await, Ok(Bytes::from("old")));
    assert_eq!(store.get(&name).await, Ok(Bytes::from("ndw")));
    assert_eq!(store.get(&name).await, Ok(Bytes::from("new")));
    store.delete(&name).await.unwrap();
    assert_eq!(store.get(&name).await, Ok(Bytes::from("new")));
    assert_eq!(store.unused(), []);
}

#[tokio::test]
async fn a_listing_that_loops_is_reported_and_not_followed() {
    let memory = memory();
    for name in ["a", "b", "c"] {
        memory.overwrite(&key(name), Bytes::new());
    }
    let looping = FaultyStore::new(memory).with(When::Every(Operation::List), Fault::LoopingList);
    let error = list_all(&looping, &Prefix::everything(), None).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot list *: the store is damaged (a is listed again or out of order)"
    );
    assert_eq!(looping.calls(), 2);
    let empty = FaultyStore::new(Arc::new(MemoryStore::new(clock())))
        .with(When::Every(Operation::List), Fault::LoopingList);
    let error = list_all(&empty, &Prefix::everything(), None).await;
    assert!(matches!(error, Err(StoreError::Damaged { .. })), "{error:?}");
}

#[tokio::test]
async fn a_stale_listing_lacks_the_newest_names() {
    let memory = memory();
    for name in ["a", "b", "c"] {
        memory.overwrite(&key(name), Bytes::new());
    }
    let stale = FaultyStore::new(memory).with(When::Call(1), Fault::StaleList(2));
    let listed = list_all(&stale, &Prefix::everything(), None).await.unwrap();
    let names: Vec<String> = listed.iter().map(|object| object.key.to_string()).collect();
    assert_eq!(names, ["a"]);
}

#[tokio::test]
async fn a_slow_call_waits_on_the_clock_and_a_hanging_one_never_ends() {
    let clock = Arc::new(SimClock::new());
    let store = FaultyStore::new(memory())
        .on_clock(clock.clone())
        .with(When::Call(1), Fault::Slow(Duration::from_millis(200)))
        .with(When::Call(2), Fault::Hang);
    let name = key("a");
    let mut slow = store.put_if_absent(&name, Bytes::from("x"));
    assert!((&mut slow).now_or_never().is_none());
    clock.advance(Duration::from_millis(199));
    assert!((&mut slow).now_or_never().is_none());
    clock.advance(Duration::from_millis(1));
    assert_eq!(slow.await, Ok(Created::Now));
    assert!(store.get(&name).now_or_never().is_none());
    assert_eq!(store.get(&name).await, Ok(Bytes::from("x")));
}
