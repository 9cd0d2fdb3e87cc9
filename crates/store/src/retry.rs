//! Tries again what may pass by itself.
//!
//! Promise: only errors that say so are retried, with growing, jittered waits, until the deadline. A put
//! whose outcome was unknown counts as stored only after the stored bytes were compared with ours.
//! Not here: ending an attempt that hangs (the adapter's own idle time-out).

use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use backstay_clock::{Backoff, Chance, Clock, Deadline};
use bytes::Bytes;
use jiff::Timestamp;
use tracing::warn;

use crate::{
    Call, Created, Key, ObjectMeta, Operation, Page, Prefix, Retry, Store, StoreError, StoreFacts, Thaw,
    ThawRequest, Version, VersionId,
};

/// How long one call is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The waits between attempts.
    pub backoff: Backoff,
    /// From the first attempt until no further one is begun.
    pub total: Duration,
}

impl Patience {
    /// For runs that can be repeated: five minutes, [`Backoff::STORE`].
    pub const RUN: Patience = Patience {
        backoff: Backoff::STORE,
        total: Duration::from_secs(300),
    };
}

/// A store whose passing failures are not seen.
#[derive(Debug, Clone)]
pub struct RetryingStore {
    inner: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    patience: Patience,
    trouble: Arc<Mutex<Option<StoreError>>>,
}

/// The attempts of one call.
struct Attempts<'a> {
    store: &'a RetryingStore,
    deadline: Deadline,
    failures: u32,
}

impl RetryingStore {
    /// Wraps `inner`; waits on `clock`, draws jitter from `chance`.
    pub fn new(
        inner: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
        patience: Patience,
    ) -> Self {
        Self {
            inner,
            clock,
            chance,
            patience,
            trouble: Arc::default(),
        }
    }

    fn says(&self, trouble: Option<StoreError>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn attempts(&self) -> Attempts<'_> {
        Attempts {
            store: self,
            deadline: Deadline::after(&*self.clock, self.patience.total),
            failures: 0,
        }
    }

    async fn again<T, F, Attempt>(&self, attempt: F) -> Result<T, StoreError>
    where
        F: Fn() -> Attempt + Send + Sync,
        Attempt: Future<Output = Result<T, StoreError>> + Send,
    {
        let mut attempts = self.attempts();
        loop {
            match attempt().await {
                Ok(answer) => {
                    self.says(None);
                    return Ok(answer);
                }
                Err(error) => attempts.wait_after(error).await?,
            }
        }
    }

    /// A put after one of unknown outcome. The name belongs to this run, so the same bytes under it are ours.
    async fn put_again(&self, key: &Key, body: &Bytes) -> Result<Created, StoreError> {
        // Stored now or found there: either way what lies there may be what the lost attempt left.
        let (Created::Now | Created::AlreadyThere) = self.inner.put_if_absent(key, body.clone()).await?;
        match self.inner.get(key).await {
            Ok(stored) if stored == *body => Ok(Created::Now),
            Ok(stored) => Err(foreign(key, body, stored.len() as u64)),
            // A writer may not read packs (roles: gets all but `data/`); their size it may list.
            Err(StoreError::PermissionDenied { .. }) => self.compare_size(key, body).await,
            Err(StoreError::NotFound { .. }) => Err(not_visible(key)),
            Err(error) => Err(error),
        }
    }

    async fn compare_size(&self, key: &Key, body: &Bytes) -> Result<Created, StoreError> {
        // The name itself is the first of all names that begin with it.
        let page = self.inner.list_page(&Prefix::from(key), None, 1).await?;
        match page.objects.first().filter(|object| object.key == *key) {
            Some(object) if object.size == body.len() as u64 => Ok(Created::Now),
            Some(object) => Err(foreign(key, body, object.size)),
            None => Err(not_visible(key)),
        }
    }
}

impl Attempts<'_> {
    /// Waits before the next attempt; returns the error when there shall be none.
    async fn wait_after(&mut self, error: StoreError) -> Result<(), StoreError> {
        let store = self.store;
        self.failures = self.failures.saturating_add(1);
        let delay = store.patience.backoff.delay(self.failures, &*store.chance);
        let in_time = delay < self.deadline.remaining(&*store.clock);
        if error.retry() != Retry::Later || !in_time {
            return Err(error);
        }
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        warn!(%error, attempt = self.failures, delay_ms, "store call failed, trying again");
        store.says(Some(error));
        store.clock.sleep(delay).await;
        Ok(())
    }
}

fn foreign(key: &Key, body: &Bytes, stored: u64) -> StoreError {
    StoreError::Foreign {
        call: Call::on_key(Operation::Put, key),
        detail: format!("{stored} bytes are stored, {} were sent", body.len()),
    }
}

/// Some stores show an object only a moment after they confirmed it.
fn not_visible(key: &Key) -> StoreError {
    StoreError::Busy {
        call: Call::on_key(Operation::Put, key),
        detail: "the object was confirmed and cannot be seen yet".to_owned(),
    }
}

#[async_trait]
impl Store for RetryingStore {
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Result<Created, StoreError> {
        let mut attempts = self.attempts();
        let mut created = self.inner.put_if_absent(key, body.clone()).await;
        while let Err(error) = created {
            attempts.wait_after(error).await?;
            created = self.put_again(key, &body).await;
        }
        self.says(None);
        created
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        self.again(|| self.inner.get(key)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.again(|| self.inner.get_range(key, range.clone())).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.again(|| self.inner.head(key)).await
    }

    async fn list_page(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.again(|| self.inner.list_page(prefix, start_after, limit))
            .await
    }

    async fn list_versions(&self, prefix: &Prefix) -> Result<Vec<Version>, StoreError> {
        self.again(|| self.inner.list_versions(prefix)).await
    }

    async fn get_version(&self, key: &Key, version: &VersionId) -> Result<Bytes, StoreError> {
        self.again(|| self.inner.get_version(key, version)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.again(|| self.inner.delete(key)).await
    }

    async fn restore(&self, key: &Key, request: ThawRequest) -> Result<Thaw, StoreError> {
        self.again(|| self.inner.restore(key, request)).await
    }

    async fn retain_until(&self, key: &Key, until: Timestamp) -> Result<(), StoreError> {
        self.again(|| self.inner.retain_until(key, until)).await
    }

    async fn facts(&self) -> Result<StoreFacts, StoreError> {
        self.again(|| self.inner.facts()).await
    }

    fn passed_over(&self) -> Vec<String> {
        self.inner.passed_over()
    }

    fn folders(&self) -> Vec<String> {
        self.inner.folders()
    }

    fn trouble(&self) -> Option<StoreError> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
