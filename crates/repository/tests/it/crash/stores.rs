//! The stores under the sweep: an honest one, and one that ignores the condition of a put, as some S3 servers do.
//!
//! Promise: every put onto an existing name with other bytes, and every delete, is written into the ledger.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use backstay_store::{
    Created, Key, MemoryStore, ObjectMeta, Page, Prefix, Store, StoreError, StoreFacts, Thaw, ThawRequest,
    Version, VersionId,
};
use bytes::Bytes;
use jiff::Timestamp;

use super::ledger::Ledger;

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// A put onto an existing name is refused.
    Strict,
    /// A put onto an existing name replaces the object and says that it stored it.
    Overwriting,
}

/// A store that tells the ledger what no writer may do.
#[derive(Debug)]
pub struct WatchedStore {
    pub base: Base,
    pub memory: MemoryStore,
    pub ledger: Ledger,
}

#[async_trait]
impl Store for WatchedStore {
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Result<Created, StoreError> {
        if self.base == Base::Strict {
            return self.memory.put_if_absent(key, body).await;
        }
        if let Some(before) = self.memory.snapshot().get(key)
            && *before != body
        {
            self.ledger
                .misdeed(format!("REPO-1: {key} was overwritten with other bytes"));
        }
        self.memory.overwrite(key, body);
        Ok(Created::Now)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.ledger.misdeed(format!("REPO-2: {key} was deleted"));
        self.memory.delete(key).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        self.memory.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.memory.get_range(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.memory.head(key).await
    }

    async fn list_page(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.memory.list_page(prefix, start_after, limit).await
    }

    async fn list_versions(&self, prefix: &Prefix) -> Result<Vec<Version>, StoreError> {
        self.memory.list_versions(prefix).await
    }

    async fn get_version(&self, key: &Key, version: &VersionId) -> Result<Bytes, StoreError> {
        self.memory.get_version(key, version).await
    }

    async fn restore(&self, key: &Key, request: ThawRequest) -> Result<Thaw, StoreError> {
        self.memory.restore(key, request).await
    }

    async fn retain_until(&self, key: &Key, until: Timestamp) -> Result<(), StoreError> {
        self.memory.retain_until(key, until).await
    }

    async fn facts(&self) -> Result<StoreFacts, StoreError> {
        self.memory.facts().await
    }
}

impl WatchedStore {
    pub fn over(base: Base, memory: MemoryStore, ledger: Ledger) -> Arc<dyn Store> {
        Arc::new(WatchedStore { base, memory, ledger })
    }
}
