//! Bodies pass at the rate, and the meter counts them.
//!
//! Promise: time is simulated, so the figures are exact.
//! Not here: real networks.

use std::sync::Arc;
use std::time::Duration;

use backstay_clock::{Clock, SimClock};
use backstay_store::{Bandwidth, LimitedStore, Meter, MeteredStore, Operation, RangeRead, Store, Tally};
use bytes::Bytes;

use crate::support::{key, memory};

const KIB: usize = 1024;

#[tokio::test]
async fn a_burst_passes_at_once_and_the_rest_at_the_rate() {
    let clock = Arc::new(SimClock::jumping());
    let bandwidth = Bandwidth {
        bytes_per_second: 10 * KIB as u64,
        burst: 20 * KIB as u64,
    };
    let store = LimitedStore::new(memory(), clock.clone(), bandwidth);
    let mut seconds = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        store
            .put_if_absent(&key(name), Bytes::from(vec![0; 10 * KIB]))
            .await
            .unwrap();
        seconds.push(clock.instant().as_secs());
    }
    assert_eq!(seconds, [0, 0, 0, 1, 2]);
    store.get(&key("a")).await.unwrap();
    store.get_range(&key("a"), 0..5).await.unwrap();
    assert_eq!(clock.instant(), Duration::from_secs(4));
    clock.advance(Duration::from_secs(3600));
    let before = clock.instant();
    store.get(&key("b")).await.unwrap();
    assert_eq!(clock.instant(), before);
}

#[tokio::test]
async fn the_meter_counts_calls_and_bytes_by_verb_and_remembers_ranges() {
    let meter = Meter::recording_reads();
    let store = MeteredStore::new(memory(), meter.clone());
    store
        .put_if_absent(&key("a"), Bytes::from(vec![7; 100]))
        .await
        .unwrap();
    store
        .put_if_absent(&key("a"), Bytes::from(vec![7; 50]))
        .await
        .unwrap();
    store.get(&key("a")).await.unwrap();
    store.get_range(&key("a"), 10..30).await.unwrap();
    store.get(&key("absent")).await.unwrap_err();
    let put = Tally {
        succeeded: 2,
        bytes_written: 150,
        ..Tally::default()
    };
    let get = Tally {
        succeeded: 1,
        failed: 1,
        bytes_read: 100,
        ..Tally::default()
    };
    let get_range = Tally {
        succeeded: 1,
        bytes_read: 20,
        ..Tally::default()
    };
    let expected = [
        (Operation::Put, put),
        (Operation::Get, get),
        (Operation::GetRange, get_range),
    ];
    assert_eq!(meter.tallies(), expected.into());
    let read = |range| RangeRead { key: key("a"), range };
    assert_eq!(meter.reads(), [read(0..100), read(10..30)]);
    meter.reset();
    assert_eq!(meter.tally(Operation::Get).calls(), 0);
}
