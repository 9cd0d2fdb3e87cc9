//! Keeps object bodies within a bandwidth.
//!
//! Promise: over any time, no more bytes pass than the rate allows for it plus one burst plus one object.
//! Bodies pass whole: a put waits before it is sent, a read waits after it has arrived.
//! Not here: the number of parallel calls (the caller), calls without bodies (free).

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use backstay_clock::Clock;
use bytes::Bytes;
use jiff::Timestamp;

use crate::{
    Created, Key, ObjectMeta, Page, Prefix, Store, StoreError, StoreFacts, Thaw, ThawRequest, Version,
    VersionId,
};

/// A rate, shared by all bodies in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth {
    /// Bytes per second; zero counts as one.
    pub bytes_per_second: u64,
    /// Bytes that may pass at once after a pause.
    pub burst: u64,
}

impl Bandwidth {
    /// How long `bytes` take at this rate.
    fn time_for(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A store whose bodies pass no faster than a bandwidth. Clones share it.
#[derive(Debug, Clone)]
pub struct LimitedStore {
    inner: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    bandwidth: Bandwidth,
    /// When everything that was admitted so far would have passed at the rate.
    passed_at: Arc<Mutex<Duration>>,
}

impl LimitedStore {
    /// Limits `inner`, waiting on `clock`.
    pub fn new(inner: Arc<dyn Store>, clock: Arc<dyn Clock>, bandwidth: Bandwidth) -> Self {
        Self {
            inner,
            clock,
            bandwidth,
            passed_at: Arc::default(),
        }
    }

    /// Queues `bytes` behind those admitted before, and waits until the bucket allows what came before them.
    async fn admit(&self, bytes: usize) {
        let wait = self.queue(bytes as u64);
        if !wait.is_zero() {
            self.clock.sleep(wait).await;
        }
    }

    fn queue(&self, bytes: u64) -> Duration {
        let now = self.clock.instant();
        let credit = self.bandwidth.time_for(self.bandwidth.burst);
        let mut passed_at = self.passed_at.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = passed_at.saturating_sub(now.saturating_add(credit));
        *passed_at = (*passed_at).max(now) + self.bandwidth.time_for(bytes);
        wait
    }

    async fn arrived(&self, body: Result<Bytes, StoreError>) -> Result<Bytes, StoreError> {
        let body = body?;
        self.admit(body.len()).await;
        Ok(body)
    }
}

#[async_trait]
impl Store for LimitedStore {
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Result<Created, StoreError> {
        self.admit(body.len()).await;
        self.inner.put_if_absent(key, body).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        self.arrived(self.inner.get(key).await).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.arrived(self.inner.get_range(key, range).await).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.inner.head(key).await
    }

    async fn list_page(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.inner.list_page(prefix, start_after, limit).await
    }

    async fn list_versions(&self, prefix: &Prefix) -> Result<Vec<Version>, StoreError> {
        self.inner.list_versions(prefix).await
    }

    async fn get_version(&self, key: &Key, version: &VersionId) -> Result<Bytes, StoreError> {
        self.arrived(self.inner.get_version(key, version).await).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    async fn restore(&self, key: &Key, request: ThawRequest) -> Result<Thaw, StoreError> {
        self.inner.restore(key, request).await
    }

    async fn retain_until(&self, key: &Key, until: Timestamp) -> Result<(), StoreError> {
        self.inner.retain_until(key, until).await
    }

    async fn facts(&self) -> Result<StoreFacts, StoreError> {
        self.inner.facts().await
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
