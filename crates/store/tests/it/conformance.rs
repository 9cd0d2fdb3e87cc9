//! Every adapter and every wrapper keeps every promise, and the suite notices those that do not.
//!
//! Promise: a new adapter or wrapper is one line here.
//! Not here: what they add to the port (the other modules).

use std::sync::{Arc, Mutex};

use backstay_clock::{SeededChance, SimClock};
use backstay_store::conformance::{Broken, check_every_promise, check_passed_over};
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
    passes(|| retrying(Arc::new(FaultyStore::new(memory())))).await;
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
        retrying(Arc::new(faulty))
    })
    .await;
}

type Wrap = fn(Arc<dyn Store>, Bandwidth) -> Arc<dyn Store>;

#[tokio::test]
async fn a_directory_and_every_wrapper_around_it_name_what_listings_pass_over() {
    let bandwidth = Bandwidth {
        bytes_per_second: 1_000_000,
        burst: 1_000_000,
    };
    let wraps: [Wrap; 6] = [
        |store, _| store,
        |store, _| Arc::new(CrashStore::new(store, CrashPlan::never())),
        |store, _| Arc::new(FaultyStore::new(store)),
        |store, _| Arc::new(MeteredStore::new(store, Meter::recording_reads())),
        |store, limit| Arc::new(LimitedStore::new(store, Arc::new(SimClock::jumping()), limit)),
        |store, _| Arc::new(retrying(store)),
    ];
    for wrap in wraps {
        let scratch = Scratch::new();
        let root = scratch.path().join("repository");
        let store = LocalDirectory::create(&root, clock()).await.unwrap();
        let elsewhere = scratch.path().join("elsewhere");
        std::fs::write(&elsewhere, "hidden").unwrap();
        std::fs::create_dir(root.join("p")).unwrap();
        for link in ["a-link", "p/link"] {
            std::os::unix::fs::symlink(&elsewhere, root.join(link)).unwrap();
        }
        let store = wrap(Arc::new(store), bandwidth);
        let verdict = check_passed_over(store.as_ref(), &["a-link", "p/link"]).await;
        assert_eq!(verdict, Ok(()), "{store:?}");
    }
}

#[tokio::test]
async fn the_suite_notices_a_store_that_keeps_silent_about_what_it_passes_over() {
    let silent = MemoryStore::new(clock());
    let broken = check_passed_over(&silent, &["p/link"]).await.unwrap_err();
    assert_eq!(broken.promise, "what a listing has passed over is named");
}

fn retrying(inner: Arc<dyn Store>) -> RetryingStore {
    RetryingStore::new(
        inner,
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
