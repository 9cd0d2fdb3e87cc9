//! Objects: the `Store` port, its adapters and its wrappers.
//!
//! Promise: an object is whole or absent, is never overwritten by us, and is there for good once
//! `put_if_absent` has answered. Every adapter and wrapper passes one conformance suite.
//! Not here: what the names and bytes mean (repository); S3 (an adapter of its own, to come).

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
pub mod directory;
mod error;
mod facts;
#[cfg(any(test, feature = "testing"))]
pub mod faults;
mod key;
mod limit;
mod listing;
mod memory;
mod meter;
mod object;
mod operation;
mod retry;

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

pub use directory::LocalDirectory;
pub use error::{Retry, StoreError};
pub use facts::{StoreClock, StoreFacts, StoreKind, Support};
pub use key::{Key, KeyFault, Prefix};
pub use limit::{Bandwidth, LimitedStore};
pub use listing::{LIST_PAGE_MAX, list_all};
pub use memory::{MemoryImage, MemoryStore};
pub use meter::{Meter, MeteredStore, RangeRead, Tally};
pub use object::{
    Created, More, ObjectMeta, Page, Thaw, ThawRequest, ThawSpeed, Version, VersionId, VersionKind,
};
pub use operation::{Call, Operation};
pub use retry::{Patience, RetryingStore};

/// Where objects live: immutable byte strings under names.
///
/// A name is written once and by one run alone; nothing here replaces an object.
/// A name must not also be a folder of other names (`a` beside `a/b`): directories cannot hold both.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// Stores `body` under `key` if nothing is there, and returns once it is durable. Never overwrites.
    ///
    /// A store may ignore the condition (some S3 servers do): correctness comes from unique names.
    /// After [`StoreError::Timeout`] or [`StoreError::Unreachable`] the outcome is unknown.
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Result<Created, StoreError>;

    /// The whole object.
    async fn get(&self, key: &Key) -> Result<Bytes, StoreError>;

    /// Exactly the bytes of `range`, else [`StoreError::OutOfRange`] or [`StoreError::ShortRead`].
    /// An empty range inside the object or at its end gives no bytes.
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// Size and age of an object.
    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError>;

    /// One page of the objects whose name begins with `prefix` and sorts after `start_after`, in byte
    /// order of the whole name, at most `limit` of them (a store may return fewer and say [`More::Yes`]).
    async fn list_page(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError>;

    /// Every version and delete marker under a prefix, for stores that keep them.
    async fn list_versions(&self, prefix: &Prefix) -> Result<Vec<Version>, StoreError>;

    /// The whole content of one version.
    async fn get_version(&self, key: &Key, version: &VersionId) -> Result<Bytes, StoreError>;

    /// Removes an object; that it was absent already is no error.
    async fn delete(&self, key: &Key) -> Result<(), StoreError>;

    /// Asks for a readable copy of an object in a cold storage class.
    async fn restore(&self, key: &Key, request: ThawRequest) -> Result<Thaw, StoreError>;

    /// Forbids the removal of an object until a time; a lock is only ever lengthened.
    async fn retain_until(&self, key: &Key, until: Timestamp) -> Result<(), StoreError>;

    /// What kind of store this is, what it supports, and its clock if it has one.
    async fn facts(&self) -> Result<StoreFacts, StoreError>;

    /// Names that listings so far have passed over because they lead neither to an object nor to a folder: in a directory,
    /// symbolic links, pipes, sockets, devices. Objects may be hidden behind them. A wrapper answers for what it wraps.
    fn passed_over(&self) -> Vec<String> {
        Vec::new()
    }

    /// Folders that listings so far have gone into, where folders are things of their own, as in a directory: one of them may
    /// stand in the place of an object. A wrapper answers for what it wraps.
    fn folders(&self) -> Vec<String> {
        Vec::new()
    }

    /// What calls are being tried again for now; none where the last answer was good, or where nothing is tried again. A wrapper
    /// answers for what it wraps.
    fn trouble(&self) -> Option<StoreError> {
        None
    }
}
