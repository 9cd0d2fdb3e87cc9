//! Counts what is asked of a store.
//!
//! Promise: every call that reaches the inner store is counted once, with the bytes that it moved.
//! Not here: prices (cost), metrics of runs (service).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::{
    Created, Key, ObjectMeta, Operation, Page, Prefix, Store, StoreError, StoreFacts, Thaw, ThawRequest,
    Version, VersionId,
};

/// What one operation came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that succeeded.
    pub succeeded: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Bytes of object bodies sent to the store, those of failed puts included.
    pub bytes_written: u64,
    /// Bytes of object bodies received from the store.
    pub bytes_read: u64,
}

impl Tally {
    /// Calls in all.
    pub fn calls(&self) -> u64 {
        self.succeeded + self.failed
    }
}

/// One read of a part of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeRead {
    /// The object.
    pub key: Key,
    /// The bytes that came; `0..length` for a whole object.
    pub range: Range<u64>,
}

/// The counts of one or more metered stores. Clones share them.
#[derive(Debug, Clone)]
pub struct Meter {
    keeping: Keeping,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeping {
    Counts,
    CountsAndReads,
}

#[derive(Debug, Default)]
struct State {
    tallies: BTreeMap<Operation, Tally>,
    reads: Vec<RangeRead>,
}

impl Meter {
    /// Counts calls and bytes.
    pub fn new() -> Self {
        Self::build(Keeping::Counts)
    }

    /// Also remembers every read with its range, without bound: for tests.
    pub fn recording_reads() -> Self {
        Self::build(Keeping::CountsAndReads)
    }

    fn build(keeping: Keeping) -> Self {
        Self {
            keeping,
            state: Arc::default(),
        }
    }

    /// The counts of one operation so far.
    pub fn tally(&self, operation: Operation) -> Tally {
        let state = self.state();
        state.tallies.get(&operation).copied().unwrap_or_default()
    }

    /// All counts so far; operations that were never asked for are absent.
    pub fn tallies(&self) -> BTreeMap<Operation, Tally> {
        self.state().tallies.clone()
    }

    /// The reads so far, in order; none unless made by [`Meter::recording_reads`].
    pub fn reads(&self) -> Vec<RangeRead> {
        self.state().reads.clone()
    }

    /// Begins anew at zero.
    pub fn reset(&self) {
        *self.state() = State::default();
    }

    fn count<T>(&self, operation: Operation, written: usize, answer: &Result<T, StoreError>) {
        let mut state = self.state();
        let tally = state.tallies.entry(operation).or_default();
        tally.bytes_written += written as u64;
        match answer {
            Ok(_) => tally.succeeded += 1,
            Err(_) => tally.failed += 1,
        }
    }

    fn count_read(&self, operation: Operation, key: &Key, start: u64, answer: &Result<Bytes, StoreError>) {
        self.count(operation, 0, answer);
        let Ok(body) = answer else { return };
        let length = body.len() as u64;
        let mut state = self.state();
        state.tallies.entry(operation).or_default().bytes_read += length;
        if self.keeping == Keeping::CountsAndReads {
            state.reads.push(RangeRead {
                key: key.clone(),
                range: start..start + length,
            });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

/// A store whose calls are counted.
#[derive(Debug, Clone)]
pub struct MeteredStore {
    inner: Arc<dyn Store>,
    meter: Meter,
}

impl MeteredStore {
    /// Counts the calls to `inner` on `meter`.
    pub fn new(inner: Arc<dyn Store>, meter: Meter) -> Self {
        Self { inner, meter }
    }

    fn counted<T>(&self, operation: Operation, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        self.meter.count(operation, 0, &answer);
        answer
    }
}

#[async_trait]
impl Store for MeteredStore {
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Result<Created, StoreError> {
        let length = body.len();
        let answer = self.inner.put_if_absent(key, body).await;
        self.meter.count(Operation::Put, length, &answer);
        answer
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        let answer = self.inner.get(key).await;
        self.meter.count_read(Operation::Get, key, 0, &answer);
        answer
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let start = range.start;
        let answer = self.inner.get_range(key, range).await;
        self.meter.count_read(Operation::GetRange, key, start, &answer);
        answer
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.counted(Operation::Head, self.inner.head(key).await)
    }

    async fn list_page(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let answer = self.inner.list_page(prefix, start_after, limit).await;
        self.counted(Operation::List, answer)
    }

    async fn list_versions(&self, prefix: &Prefix) -> Result<Vec<Version>, StoreError> {
        let answer = self.inner.list_versions(prefix).await;
        self.counted(Operation::ListVersions, answer)
    }

    async fn get_version(&self, key: &Key, version: &VersionId) -> Result<Bytes, StoreError> {
        let answer = self.inner.get_version(key, version).await;
        self.meter.count_read(Operation::GetVersion, key, 0, &answer);
        answer
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.counted(Operation::Delete, self.inner.delete(key).await)
    }

    async fn restore(&self, key: &Key, request: ThawRequest) -> Result<Thaw, StoreError> {
        let answer = self.inner.restore(key, request).await;
        self.counted(Operation::Restore, answer)
    }

    async fn retain_until(&self, key: &Key, until: Timestamp) -> Result<(), StoreError> {
        let answer = self.inner.retain_until(key, until).await;
        self.counted(Operation::Retain, answer)
    }

    async fn facts(&self) -> Result<StoreFacts, StoreError> {
        self.counted(Operation::Facts, self.inner.facts().await)
    }

    fn passed_over(&self) -> Vec<String> {
        self.inner.passed_over()
    }

    fn folders(&self) -> Vec<String> {
        self.inner.folders()
    }

    fn trouble(&self) -> Option<StoreError> {
        self.inner.trouble()
    }
}
