//! Every adapter and every wrapper keeps every promise, and the suite notices those that do not.
//!
//! Promise: a new adapter or wrapper is one line here.
//! Not here: what they add to the port (the other modules).

use std::sync::{Arc, Mutex};

use backstay_clock::{SeededChance, SimClock};
use backstay_store::conformance::{Broken, check_every_promise};
use backstay_store::directory::sim::{HardLinks, SimDisk};
use backstay_store::faults::{CrashPlan, CrashStore, Fault, FaultKind, FaultyStore, When};
use backstay_store::{
    Bandwidth, LimitedStore, LocalDirectory, MemoryStore, Meter, MeteredStore, Operation, Patience,
    RetryingStore, Store,
};

use crate::support::{Scratch, clock, memory};

async fn passes<S: Store + 'static>(make: impl Fn() -> S) {
    let verdict = check_every_promise(|| {
        let store: Arc<dyn Store> = Arc::new(make());
        async move { store }
    })
    .await;
    assert_eq!(verdict, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_keeps_every_promise() {
    passes(|| MemoryStore::new(clock())).await;
}

#[tokio::test]
async fn memory_with_small_pages_keeps_every_promise() {
    passes(|| MemoryStore::new(clock()).with_page_max(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_directory_keeps_every_promise() {
    let scratches = Mutex::new(Vec::new());
    let verdict = check_every_promise(|| async {
        let scratch = Scratch::new();
        let root = scratch.path().join("repository");
        let store = LocalDirectory::create(&root, clock()).await.unwrap();
        scratches.lock().unwrap().push(scratch);
        let store: Arc<dyn Store> = Arc::new(store);
        store
    })
    .await;
    assert_eq!(verdict, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_directory_on_a_simulated_disk_keeps_every_promise() {
    for links in [HardLinks::Supported, HardLinks::Refused] {
        passes(|| {
            let disk = SimDisk::new(clock(), links);
            LocalDirectory::over(Box::new(disk), "simulated".to_owned(), clock())
        })
        .await;
    }
}

#[tokio::test]
async fn every_wrapper_keeps_every_promise() {
    passes(|| CrashStore::new(memory(), CrashPlan::never())).await;
    passes(|| FaultyStore::new(memory())).await;
    passes(|| MeteredStore::new(memory(), Meter::recording_reads())).await;
    passes(|| {
        let bandwidth = Bandwidth {
            bytes_per_second: 1_000_000,
            burst: 1_000_000,
        };
        LimitedStore::new(memory(), Arc::new(SimClock::jumping()), bandwidth)
    })
    .await;
    passes(|| retrying(FaultyStore::new(memory()))).await;
}

#[tokio::test]
async fn retry_keeps_every_promise_while_calls_fail_in_passing() {
    // Puts are left alone: after a lost answer a put claims its name for its own run (retry).
    use Operation::{Delete, Facts, Get, GetRange, Head, List};
    passes(|| {
        let faulty = FaultyStore::new(memory());
        for operation in [Get, GetRange, Head, List, Delete, Facts] {
            for nth in [1, 2, 5] {
                faulty.add(When::Nth(operation, nth), Fault::Refuse(FaultKind::Busy));
            }
        }
        retrying(faulty)
    })
    .await;
}

fn retrying(inner: FaultyStore) -> RetryingStore {
    RetryingStore::new(
        Arc::new(inner),
        Arc::new(SimClock::jumping()),
        Arc::new(SeededChance::new(1)),
        Patience::RUN,
    )
}

async fn broken_by(operation: Operation, fault: Fault) -> &'static str {
    let verdict = check_every_promise(|| async {
        let store = FaultyStore::new(memory()).with(When::Every(operation), fault);
        let store: Arc<dyn Store> = Arc::new(store);
        store
    })
    .await;
    match verdict {
        Ok(()) => "nothing",
        Err(Broken { promise, .. }) => promise,
    }
}

#[tokio::test]
async fn the_suite_notices_every_lie() {
    let table = [
        (
            Operation::Put,
            Fault::PutOverwrites,
            "a second put changes nothing",
        ),
        (Operation::Put, Fault::LostPut, "a second put changes nothing"),
        (Operation::Get, Fault::TruncatedBody, "the first body stays"),
        (Operation::Get, Fault::ExtendedBody, "the first body stays"),
        (Operation::Get, Fault::BitFlip(9), "the first body stays"),
        (Operation::Get, Fault::NotFoundYet, "the first body stays"),
        (
            Operation::GetRange,
            Fault::TruncatedBody,
            "a range is exactly what was asked for",
        ),
        (
            Operation::GetRange,
            Fault::BitFlip(0),
            "a range is exactly what was asked for",
        ),
        (Operation::Head, Fault::NotFoundYet, "head tells the length"),
        (Operation::List, Fault::StaleList(1), "head and listing agree"),
        (Operation::List, Fault::LoopingList, "head and listing agree"),
        (Operation::Delete, Fault::LostDelete, "what was deleted is gone"),
    ];
    for (operation, fault, promise) in table {
        assert_eq!(broken_by(operation, fault).await, promise, "{fault:?}");
    }
}
