//! Objects as files below one directory of this machine.
//!
//! Promise: a name either leads to the whole object or to nothing, whatever call the power or the
//! process ends at; a put that has answered survives both. No symbolic link below the root is followed.
//! Not here: the order of file calls of a put (writing), of a listing (walk), the calls themselves (calls, real).

mod calls;
mod errors;
mod real;
#[cfg(any(test, feature = "testing"))]
pub mod sim;
mod walk;
mod writing;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backstay_clock::Clock;
use bytes::Bytes;
use jiff::Timestamp;

pub use calls::{Content, Entry, EntryKind, FileCalls, FileFacts, NewFile, Wanted};
pub use real::RealFiles;
pub use writing::Swept;

use crate::{
    Call, Created, Key, ObjectMeta, Operation, Page, Prefix, Store, StoreClock, StoreError, StoreFacts,
    StoreKind, Support, Thaw, ThawRequest, Version, VersionId,
};

/// A directory as a store. Clones share it.
#[derive(Debug, Clone)]
pub struct LocalDirectory {
    shared: Arc<Shared>,
}

/// What the blocking work needs. Its methods are in `writing` and `walk`.
#[derive(Debug)]
struct Shared {
    calls: Box<dyn FileCalls>,
    clock: Arc<dyn Clock>,
    place: String,
    /// Directories whose whole path is known to be on disk, so that a put need not fsync it again.
    durable: Mutex<BTreeSet<String>>,
    /// What listings have passed over; see [`Store::passed_over`].
    passed_over: Mutex<BTreeSet<String>>,
    /// What listings have gone into; see [`Store::folders`].
    folders: Mutex<BTreeSet<String>>,
    /// Makes the names of temporary files of this process differ.
    temporaries: AtomicU64,
}

impl LocalDirectory {
    /// Opens an existing directory. It is held open and compared with what its path leads to, so that a directory that is
    /// moved away or unmounted meanwhile is missed, and nothing is written beside it or in its place.
    pub async fn open(root: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let (root, place) = (root.to_owned(), root.display().to_string());
        let files = blocking(Call::at_place(Operation::Open, &place), move || {
            RealFiles::open(&root)
        })
        .await?;
        Ok(Self::over(Box::new(files), place, clock))
    }

    /// Makes the directory and the missing ones above it, durably, and opens it. An existing one is only opened.
    pub async fn create(root: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let (root, place) = (root.to_owned(), root.display().to_string());
        let files = blocking(Call::on_store(Operation::Put), move || RealFiles::create(&root)).await?;
        Ok(Self::over(Box::new(files), place, clock))
    }

    /// A store over other file calls: a simulated disk, or one that fails.
    pub fn over(calls: Box<dyn FileCalls>, place: String, clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                calls,
                clock,
                place,
                durable: Mutex::default(),
                passed_over: Mutex::default(),
                folders: Mutex::default(),
                temporaries: AtomicU64::new(0),
            }),
        }
    }

    /// Makes durable what an earlier process wrote and may not have finished: call it once before
    /// building on what a listing shows (resuming a stream at the stored frontier).
    pub async fn secure_what_is_there(&self) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let call = Call::at_place(Operation::Secure, &shared.place);
        blocking(call, move || shared.calls.sync_everything()).await
    }

    /// Removes temporary files that are older than a day: left by processes that died in a put.
    pub async fn sweep_leftovers(&self) -> Result<Swept, StoreError> {
        let shared = Arc::clone(&self.shared);
        let call = Call::at_place(Operation::Sweep, &shared.place);
        blocking(call, move || shared.sweep("")).await
    }

    async fn read(&self, operation: Operation, key: &Key, wanted: Wanted) -> Result<Content, StoreError> {
        let (shared, path) = (Arc::clone(&self.shared), key.clone());
        let read = move || shared.calls.read(path.as_str(), wanted);
        blocking(Call::on_key(operation, key), read).await
    }
}

/// Runs blocking work on tokio's pool and names the call in its error.
async fn blocking<T, F>(call: Call, work: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce() -> std::io::Result<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| errors::explain(call, &error)),
        Err(lost) => Err(StoreError::Other {
            call,
            detail: format!("the work was abandoned: {lost}"),
        }),
    }
}

#[async_trait]
impl Store for LocalDirectory {
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Result<Created, StoreError> {
        let (shared, path) = (Arc::clone(&self.shared), key.clone());
        let put = move || shared.put(path.as_str(), &body);
        blocking(Call::on_key(Operation::Put, key), put).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        let content = self.read(Operation::Get, key, Wanted::Whole).await?;
        whole(Call::on_key(Operation::Get, key), content.size, content.bytes)
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let call = Call::on_key(Operation::GetRange, key);
        let wanted = Wanted::Bytes(range.clone());
        let content = self.read(Operation::GetRange, key, wanted).await?;
        if range.start > range.end || range.end > content.size {
            return Err(StoreError::OutOfRange {
                call,
                start: range.start,
                end: range.end,
                size: content.size,
            });
        }
        whole(call, range.end - range.start, content.bytes)
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        let (shared, path) = (Arc::clone(&self.shared), key.clone());
        let head = move || shared.meta(path);
        blocking(Call::on_key(Operation::Head, key), head).await
    }

    async fn list_page(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let shared = Arc::clone(&self.shared);
        let (below, after) = (prefix.clone(), start_after.cloned());
        let list = move || shared.list(&below, after.as_ref(), limit.max(1));
        blocking(Call::on_prefix(Operation::List, prefix), list).await
    }

    async fn list_versions(&self, prefix: &Prefix) -> Result<Vec<Version>, StoreError> {
        let call = Call::on_prefix(Operation::ListVersions, prefix);
        Err(unsupported(call, "a directory keeps no versions"))
    }

    async fn get_version(&self, key: &Key, _version: &VersionId) -> Result<Bytes, StoreError> {
        let call = Call::on_key(Operation::GetVersion, key);
        Err(unsupported(call, "a directory keeps no versions"))
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let (shared, path) = (Arc::clone(&self.shared), key.clone());
        let delete = move || shared.delete(path.as_str());
        blocking(Call::on_key(Operation::Delete, key), delete).await
    }

    async fn restore(&self, key: &Key, _request: ThawRequest) -> Result<Thaw, StoreError> {
        let call = Call::on_key(Operation::Restore, key);
        Err(unsupported(call, "a directory has no cold classes"))
    }

    async fn retain_until(&self, key: &Key, _until: Timestamp) -> Result<(), StoreError> {
        let call = Call::on_key(Operation::Retain, key);
        Err(unsupported(call, "a directory has no locks"))
    }

    async fn facts(&self) -> Result<StoreFacts, StoreError> {
        Ok(StoreFacts {
            kind: StoreKind::Directory,
            place: self.shared.place.clone(),
            conditional_put: Support::Yes,
            versioning: Support::No,
            object_lock: Support::No,
            lifecycle: Support::No,
            clock: StoreClock::ThisMachine,
        })
    }

    fn passed_over(&self) -> Vec<String> {
        self.shared.passed_over().iter().cloned().collect()
    }

    fn folders(&self) -> Vec<String> {
        self.shared.folders().iter().cloned().collect()
    }
}

fn whole(call: Call, expected: u64, bytes: Vec<u8>) -> Result<Bytes, StoreError> {
    let received = bytes.len() as u64;
    if received != expected {
        return Err(StoreError::ShortRead {
            call,
            expected,
            received,
        });
    }
    Ok(bytes.into())
}

fn unsupported(call: Call, detail: &str) -> StoreError {
    StoreError::NotSupported {
        call,
        detail: detail.to_owned(),
    }
}
