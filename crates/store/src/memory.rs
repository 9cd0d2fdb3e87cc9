//! Objects in the memory of this process.
//!
//! Promise: behaves as the port says, atomically; an image is a cheap copy to crash and reopen over.
//! Not here: faults and crashes (faults).

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use backstay_clock::Clock;
use bytes::Bytes;
use jiff::Timestamp;

use crate::{
    Call, Created, Key, More, ObjectMeta, Operation, Page, Prefix, Store, StoreClock, StoreError, StoreFacts,
    StoreKind, Support, Thaw, ThawRequest, Version, VersionId,
};

/// A store in memory. Clones share their objects.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    page_max: usize,
    objects: Arc<Mutex<BTreeMap<Key, Stored>>>,
}

/// What a [`MemoryStore`] held at one moment. Bodies are shared, so a copy costs only names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryImage {
    objects: BTreeMap<Key, Stored>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    body: Bytes,
    modified: Timestamp,
}

impl MemoryStore {
    /// An empty store whose objects carry the time of `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::from_snapshot(clock, MemoryImage::default())
    }

    /// A store that holds what `image` held, and changes apart from it.
    pub fn from_snapshot(clock: Arc<dyn Clock>, image: MemoryImage) -> Self {
        Self {
            clock,
            page_max: usize::MAX,
            objects: Arc::new(Mutex::new(image.objects)),
        }
    }

    /// Caps a page of a listing, as S3 caps it at 1,000.
    pub fn with_page_max(mut self, names: usize) -> Self {
        self.page_max = names;
        self
    }

    /// What the store holds now.
    pub fn snapshot(&self) -> MemoryImage {
        MemoryImage {
            objects: self.objects().clone(),
        }
    }

    /// Puts bytes under a name whatever was there: damage, a rollback or a stray writer in a test.
    pub fn overwrite(&self, key: &Key, body: Bytes) {
        let modified = self.clock.now();
        self.objects().insert(key.clone(), Stored { body, modified });
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, Stored>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, operation: Operation, key: &Key) -> Result<Stored, StoreError> {
        let not_found = || StoreError::NotFound {
            call: Call::on_key(operation, key),
        };
        self.objects().get(key).cloned().ok_or_else(not_found)
    }
}

impl MemoryImage {
    /// The names and bodies, in byte order of the names.
    pub fn objects(&self) -> impl Iterator<Item = (&Key, &Bytes)> {
        self.objects.iter().map(|(key, stored)| (key, &stored.body))
    }

    /// The body under a name.
    pub fn get(&self, key: &Key) -> Option<&Bytes> {
        self.objects.get(key).map(|stored| &stored.body)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Result<Created, StoreError> {
        let modified = self.clock.now();
        let mut objects = self.objects();
        if objects.contains_key(key) {
            return Ok(Created::AlreadyThere);
        }
        objects.insert(key.clone(), Stored { body, modified });
        Ok(Created::Now)
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        Ok(self.read(Operation::Get, key)?.body)
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let body = self.read(Operation::GetRange, key)?.body;
        slice(key, &body, range)
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        let stored = self.read(Operation::Head, key)?;
        Ok(meta(key, &stored))
    }

    async fn list_page(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let limit = limit.min(self.page_max).max(1);
        let objects = self.objects();
        let mut found = objects
            .range::<str, _>((begin(prefix, start_after), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix));
        let page: Vec<ObjectMeta> = found
            .by_ref()
            .take(limit)
            .map(|(key, stored)| meta(key, stored))
            .collect();
        let more = match found.next() {
            Some(_) => More::Yes,
            None => More::No,
        };
        Ok(Page { objects: page, more })
    }

    async fn list_versions(&self, prefix: &Prefix) -> Result<Vec<Version>, StoreError> {
        Err(no_versions(Call::on_prefix(Operation::ListVersions, prefix)))
    }

    async fn get_version(&self, key: &Key, _version: &VersionId) -> Result<Bytes, StoreError> {
        Err(no_versions(Call::on_key(Operation::GetVersion, key)))
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.objects().remove(key);
        Ok(())
    }

    async fn restore(&self, key: &Key, _request: ThawRequest) -> Result<Thaw, StoreError> {
        Err(StoreError::NotSupported {
            call: Call::on_key(Operation::Restore, key),
            detail: "memory has no cold classes".to_owned(),
        })
    }

    async fn retain_until(&self, key: &Key, _until: Timestamp) -> Result<(), StoreError> {
        Err(StoreError::NotSupported {
            call: Call::on_key(Operation::Retain, key),
            detail: "memory has no locks".to_owned(),
        })
    }

    async fn facts(&self) -> Result<StoreFacts, StoreError> {
        Ok(StoreFacts {
            kind: StoreKind::Memory,
            place: "memory".to_owned(),
            conditional_put: Support::Yes,
            versioning: Support::No,
            object_lock: Support::No,
            lifecycle: Support::No,
            clock: StoreClock::ThisMachine,
        })
    }
}

fn meta(key: &Key, stored: &Stored) -> ObjectMeta {
    ObjectMeta {
        key: key.clone(),
        size: stored.body.len() as u64,
        modified: stored.modified,
    }
}

/// Where a listing begins: after the one name or at the other, whichever is later.
fn begin<'a>(prefix: &'a Prefix, start_after: Option<&'a Key>) -> Bound<&'a str> {
    match start_after {
        Some(key) if key.as_str() >= prefix.as_str() => Bound::Excluded(key.as_str()),
        _ => Bound::Included(prefix.as_str()),
    }
}

fn slice(key: &Key, body: &Bytes, range: Range<u64>) -> Result<Bytes, StoreError> {
    let out_of_range = || StoreError::OutOfRange {
        call: Call::on_key(Operation::GetRange, key),
        start: range.start,
        end: range.end,
        size: body.len() as u64,
    };
    let start = usize::try_from(range.start).map_err(|_| out_of_range())?;
    let end = usize::try_from(range.end).map_err(|_| out_of_range())?;
    if start > end || end > body.len() {
        return Err(out_of_range());
    }
    Ok(body.slice(start..end))
}

fn no_versions(call: Call) -> StoreError {
    StoreError::NotSupported {
        call,
        detail: "memory keeps no versions".to_owned(),
    }
}
