//! A process that dies at a chosen call.
//!
//! Promise: after the death no call has an effect or an answer, until a new store is made over the same image.
//! Calls of reading count too: a process may die anywhere.
//! Not here: what survives of un-fsynced files (directory::sim).

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::{
    Call, Created, Key, ObjectMeta, Operation, Page, Prefix, Store, StoreError, StoreFacts, Thaw,
    ThawRequest, Version, VersionId,
};

/// How the process dies at its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CrashMode {
    /// The call never reaches the store.
    Before,
    /// The call takes effect, its answer is never seen.
    AfterWithoutAnswer,
    /// A put ends in the middle and leaves nothing visible, as an honest store does. For any
    /// other call the same as `Before`.
    HalfWrite,
    /// A put ends in the middle and leaves a truncated object, as no store should. For any other
    /// call the same as `Before`.
    TornWrite,
}

impl CrashMode {
    /// The modes that an honest store can show.
    pub const HONEST: [CrashMode; 3] = [Self::Before, Self::AfterWithoutAnswer, Self::HalfWrite];
}

/// Counts calls and says at which one the process dies. Clones share the count, so that a store
/// and a scratch directory can be one process.
#[derive(Debug, Clone)]
pub struct CrashPlan {
    point: Option<(u64, CrashMode)>,
    progress: Arc<Mutex<Progress>>,
}

#[derive(Debug, Default)]
struct Progress {
    calls: Vec<String>,
    life: Life,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Life {
    #[default]
    Alive,
    Dead,
}

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The call goes through.
    Live,
    /// The process dies at this call, in this way.
    DieNow(CrashMode),
    /// The process is dead already.
    DeadAlready,
}

impl CrashPlan {
    /// Only counts.
    pub fn never() -> Self {
        Self::build(None)
    }

    /// Dies at call number `call`; the first call is number 1.
    pub fn at(call: u64, mode: CrashMode) -> Self {
        Self::build(Some((call, mode)))
    }

    fn build(point: Option<(u64, CrashMode)>) -> Self {
        Self {
            point,
            progress: Arc::default(),
        }
    }

    /// Counts a call and decides on it.
    pub fn next(&self, call: impl fmt::Display) -> Fate {
        let mut progress = self.progress();
        if progress.life == Life::Dead {
            return Fate::DeadAlready;
        }
        progress.calls.push(call.to_string());
        match self.point {
            Some((at, mode)) if at == progress.calls.len() as u64 => {
                progress.life = Life::Dead;
                Fate::DieNow(mode)
            }
            _ => Fate::Live,
        }
    }

    /// Dies now, between two calls.
    pub fn kill(&self) {
        self.progress().life = Life::Dead;
    }

    /// Whether the process has died.
    pub fn is_dead(&self) -> bool {
        self.progress().life == Life::Dead
    }

    /// The calls so far, the deadly one included.
    pub fn calls(&self) -> Vec<String> {
        self.progress().calls.clone()
    }

    /// How many calls there were so far.
    pub fn count(&self) -> u64 {
        self.progress().calls.len() as u64
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store as one process sees it until it dies.
#[derive(Debug, Clone)]
pub struct CrashStore {
    inner: Arc<dyn Store>,
    plan: CrashPlan,
}

impl CrashStore {
    /// The store `inner` as seen by a process that follows `plan`.
    pub fn new(inner: Arc<dyn Store>, plan: CrashPlan) -> Self {
        Self { inner, plan }
    }

    /// Where the process stands.
    pub fn plan(&self) -> &CrashPlan {
        &self.plan
    }

    async fn step<T, F>(&self, call: Call, act: F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        match self.plan.next(&call) {
            Fate::Live => {
                let answer = act.await;
                // Another task of this process may have died meanwhile: then nobody hears the answer.
                if self.plan.is_dead() {
                    return Err(StoreError::Died { call });
                }
                answer
            }
            Fate::DieNow(CrashMode::AfterWithoutAnswer) => {
                let _never_heard = act.await;
                Err(StoreError::Died { call })
            }
            Fate::DieNow(_) | Fate::DeadAlready => Err(StoreError::Died { call }),
        }
    }
}

#[async_trait]
impl Store for CrashStore {
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Result<Created, StoreError> {
        let call = Call::on_key(Operation::Put, key);
        let torn = body.slice(..body.len() / 2);
        match self.plan.next(&call) {
            Fate::Live => {
                let answer = self.inner.put_if_absent(key, body).await;
                if !self.plan.is_dead() {
                    return answer;
                }
            }
            Fate::DieNow(CrashMode::AfterWithoutAnswer) => {
                let _never_heard = self.inner.put_if_absent(key, body).await;
            }
            Fate::DieNow(CrashMode::TornWrite) => {
                let _never_heard = self.inner.put_if_absent(key, torn).await;
            }
            Fate::DieNow(CrashMode::Before | CrashMode::HalfWrite) | Fate::DeadAlready => {}
        }
        Err(StoreError::Died { call })
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        let call = Call::on_key(Operation::Get, key);
        self.step(call, self.inner.get(key)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let call = Call::on_key(Operation::GetRange, key);
        self.step(call, self.inner.get_range(key, range)).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        let call = Call::on_key(Operation::Head, key);
        self.step(call, self.inner.head(key)).await
    }

    async fn list_page(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let call = Call::on_prefix(Operation::List, prefix);
        let page = self.inner.list_page(prefix, start_after, limit);
        self.step(call, page).await
    }

    async fn list_versions(&self, prefix: &Prefix) -> Result<Vec<Version>, StoreError> {
        let call = Call::on_prefix(Operation::ListVersions, prefix);
        self.step(call, self.inner.list_versions(prefix)).await
    }

    async fn get_version(&self, key: &Key, version: &VersionId) -> Result<Bytes, StoreError> {
        let call = Call::on_key(Operation::GetVersion, key);
        self.step(call, self.inner.get_version(key, version)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let call = Call::on_key(Operation::Delete, key);
        self.step(call, self.inner.delete(key)).await
    }

    async fn restore(&self, key: &Key, request: ThawRequest) -> Result<Thaw, StoreError> {
        let call = Call::on_key(Operation::Restore, key);
        self.step(call, self.inner.restore(key, request)).await
    }

    async fn retain_until(&self, key: &Key, until: Timestamp) -> Result<(), StoreError> {
        let call = Call::on_key(Operation::Retain, key);
        self.step(call, self.inner.retain_until(key, until)).await
    }

    async fn facts(&self) -> Result<StoreFacts, StoreError> {
        let call = Call::on_store(Operation::Facts);
        self.step(call, self.inner.facts()).await
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
