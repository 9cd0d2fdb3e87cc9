//! A store that fails and lies where the script says so.
//!
//! Promise: a scripted fault happens at its call and nowhere else; `unused` names those that never came to pass.
//! Not here: the death of the process (crash).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use backstay_clock::{Clock, SystemClock};
use bytes::Bytes;
use jiff::Timestamp;

use crate::{
    Call, Created, Key, More, ObjectMeta, Operation, Page, Prefix, Store, StoreError, StoreFacts, Thaw,
    ThawRequest, Version, VersionId,
};

/// What goes wrong at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call has no effect and ends with an error.
    Refuse(FaultKind),
    /// The call takes effect, and times out.
    TimeoutAfterEffect,
    /// A body that is read lacks its second half.
    TruncatedBody,
    /// A body that is read has one byte too many.
    ExtendedBody,
    /// One bit of a body that is read is wrong: this one, counted from its start, modulo its length.
    BitFlip(u64),
    /// A body that is read is the first one that was ever put under the name (see `plant_old_version`).
    OldVersion,
    /// A get or head says that the object is not there, though it is.
    NotFoundYet,
    /// A listing lacks this many of its newest names.
    StaleList(usize),
    /// A listing begins at the prefix whatever it was asked to start after, and says that more follows.
    LoopingList,
    /// A put onto an existing name replaces the object and says that it stored it.
    PutOverwrites,
    /// A put says that it stored the object, and did not.
    LostPut,
    /// A delete says that it is done, and did nothing.
    LostDelete,
    /// The call is made only after this time has passed on the store's clock.
    Slow(Duration),
    /// The call is never made and never answered.
    Hang,
}

/// The errors that a call can be refused with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// [`StoreError::Unreachable`]
    Unreachable,
    /// [`StoreError::Busy`]
    Busy,
    /// [`StoreError::Timeout`], without effect.
    Timeout,
    /// [`StoreError::ShortRead`]
    ShortRead,
    /// [`StoreError::NotFound`]
    NotFound,
    /// [`StoreError::PermissionDenied`]
    PermissionDenied,
    /// [`StoreError::NoSpace`]
    NoSpace,
    /// [`StoreError::ReadOnly`]
    ReadOnly,
    /// [`StoreError::Other`]
    Other,
}

impl FaultKind {
    /// Every kind, for sweeps.
    pub const ALL: [FaultKind; 9] = [
        Self::Unreachable,
        Self::Busy,
        Self::Timeout,
        Self::ShortRead,
        Self::NotFound,
        Self::PermissionDenied,
        Self::NoSpace,
        Self::ReadOnly,
        Self::Other,
    ];

    /// The error of this kind for a call.
    pub fn error(self, call: Call) -> StoreError {
        let detail = "as the test asked".to_owned();
        match self {
            Self::Unreachable => StoreError::Unreachable { call, detail },
            Self::Busy => StoreError::Busy { call, detail },
            Self::Timeout => timeout(call),
            Self::ShortRead => StoreError::ShortRead {
                call,
                expected: 2,
                received: 1,
            },
            Self::NotFound => StoreError::NotFound { call },
            Self::PermissionDenied => StoreError::PermissionDenied { call, detail },
            Self::NoSpace => StoreError::NoSpace { call, detail },
            Self::ReadOnly => StoreError::ReadOnly { call },
            Self::Other => StoreError::Other { call, detail },
        }
    }
}

/// At which calls a fault happens. Numbers begin at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At this call, all operations counted.
    Call(u64),
    /// At this call of one operation.
    Nth(Operation, u64),
    /// At every call of one operation.
    Every(Operation),
    /// At every call up to this one, all operations counted.
    Until(u64),
    /// At every call of one operation on a name that holds this text.
    Named(Operation, &'static str),
}

/// A store with scripted faults; the first rule that fits a call decides.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    script: Mutex<Script>,
}

#[derive(Debug, Default)]
struct Script {
    rules: Vec<Rule>,
    calls: u64,
    calls_of: BTreeMap<Operation, u64>,
    first_bodies: BTreeMap<Key, Bytes>,
}

#[derive(Debug)]
struct Rule {
    when: When,
    fault: Fault,
    used: u64,
}

impl FaultyStore {
    /// A store without faults yet, on the machine's clock.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            clock: Arc::new(SystemClock::new()),
            script: Mutex::default(),
        }
    }

    /// Lets [`Fault::Slow`] wait on another clock.
    pub fn on_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Adds a rule.
    pub fn with(self, when: When, fault: Fault) -> Self {
        self.add(when, fault);
        self
    }

    /// Adds a rule in mid-course.
    pub fn add(&self, when: When, fault: Fault) {
        let rule = Rule { when, fault, used: 0 };
        self.script().rules.push(rule);
    }

    /// From now on nothing goes wrong any more.
    pub fn heal(&self) {
        self.script().rules.clear();
    }

    /// What [`Fault::OldVersion`] shall return for a name.
    pub fn plant_old_version(&self, key: &Key, body: Bytes) {
        self.script().first_bodies.insert(key.clone(), body);
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.script().calls
    }

    /// How many calls of one operation there were.
    pub fn calls_of(&self, operation: Operation) -> u64 {
        self.script()
            .calls_of
            .get(&operation)
            .copied()
            .unwrap_or_default()
    }

    /// The rules that no call has met yet: a sweep with such a rule proved nothing.
    pub fn unused(&self) -> Vec<(When, Fault)> {
        let script = self.script();
        let unused = script.rules.iter().filter(|rule| rule.used == 0);
        unused.map(|rule| (rule.when, rule.fault)).collect()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the call and finds its fault; refusals end the call here, waits happen here.
    async fn draw(&self, call: &Call) -> Result<Option<Fault>, StoreError> {
        let fault = self.script().next(call);
        match fault {
            Some(Fault::Refuse(kind)) => return Err(kind.error(call.clone())),
            Some(Fault::Slow(length)) => self.clock.sleep(length).await,
            Some(Fault::Hang) => std::future::pending().await,
            _ => {}
        }
        Ok(fault)
    }

    /// What a read ends with.
    fn read(&self, fault: Option<Fault>, key: &Key, call: Call, body: Bytes) -> Result<Bytes, StoreError> {
        match fault {
            Some(Fault::TimeoutAfterEffect) => Err(timeout(call)),
            Some(Fault::NotFoundYet) => Err(StoreError::NotFound { call }),
            Some(Fault::TruncatedBody) => Ok(body.slice(..body.len() / 2)),
            Some(Fault::ExtendedBody) => Ok([body.as_ref(), &[0]].concat().into()),
            Some(Fault::BitFlip(bit)) => Ok(flip(&body, bit)),
            Some(Fault::OldVersion) => {
                let old = self.script().first_bodies.get(key).cloned();
                old.ok_or(StoreError::NotFound { call })
            }
            _ => Ok(body),
        }
    }

    /// What any other call ends with.
    fn end<T>(fault: Option<Fault>, call: Call, value: T) -> Result<T, StoreError> {
        match fault {
            Some(Fault::TimeoutAfterEffect) => Err(timeout(call)),
            Some(Fault::NotFoundYet) => Err(StoreError::NotFound { call }),
            _ => Ok(value),
        }
    }
}

impl Script {
    fn next(&mut self, call: &Call) -> Option<Fault> {
        let operation = call.operation;
        self.calls += 1;
        let of_operation = self.calls_of.entry(operation).or_default();
        *of_operation += 1;
        let (calls, nth) = (self.calls, *of_operation);
        let fits = |when: When| match when {
            When::Call(at) => at == calls,
            When::Nth(of, at) => of == operation && at == nth,
            When::Every(of) => of == operation,
            When::Until(last) => calls <= last,
            When::Named(of, part) => of == operation && call.subject.contains(part),
        };
        let rule = self.rules.iter_mut().find(|rule| fits(rule.when))?;
        rule.used += 1;
        Some(rule.fault)
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Result<Created, StoreError> {
        let call = Call::on_key(Operation::Put, key);
        let fault = self.draw(&call).await?;
        self.script()
            .first_bodies
            .entry(key.clone())
            .or_insert_with(|| body.clone());
        match fault {
            Some(Fault::LostPut) => return Ok(Created::Now),
            Some(Fault::PutOverwrites) => self.inner.delete(key).await?,
            _ => {}
        }
        let created = self.inner.put_if_absent(key, body).await?;
        Self::end(fault, call, created)
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        let call = Call::on_key(Operation::Get, key);
        let fault = self.draw(&call).await?;
        let body = self.inner.get(key).await?;
        self.read(fault, key, call, body)
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let call = Call::on_key(Operation::GetRange, key);
        let fault = self.draw(&call).await?;
        let body = self.inner.get_range(key, range).await?;
        self.read(fault, key, call, body)
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        let call = Call::on_key(Operation::Head, key);
        let fault = self.draw(&call).await?;
        let meta = self.inner.head(key).await?;
        Self::end(fault, call, meta)
    }

    async fn list_page(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let call = Call::on_prefix(Operation::List, prefix);
        let fault = self.draw(&call).await?;
        let from = match fault {
            Some(Fault::LoopingList) => None,
            _ => start_after,
        };
        let mut page = self.inner.list_page(prefix, from, limit).await?;
        match fault {
            Some(Fault::LoopingList) => page.more = More::Yes,
            Some(Fault::StaleList(missing)) => forget_newest(&mut page, missing),
            _ => {}
        }
        Self::end(fault, call, page)
    }

    async fn list_versions(&self, prefix: &Prefix) -> Result<Vec<Version>, StoreError> {
        let call = Call::on_prefix(Operation::ListVersions, prefix);
        let fault = self.draw(&call).await?;
        let versions = self.inner.list_versions(prefix).await?;
        Self::end(fault, call, versions)
    }

    async fn get_version(&self, key: &Key, version: &VersionId) -> Result<Bytes, StoreError> {
        let call = Call::on_key(Operation::GetVersion, key);
        let fault = self.draw(&call).await?;
        let body = self.inner.get_version(key, version).await?;
        self.read(fault, key, call, body)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let call = Call::on_key(Operation::Delete, key);
        let fault = self.draw(&call).await?;
        if fault != Some(Fault::LostDelete) {
            self.inner.delete(key).await?;
        }
        Self::end(fault, call, ())
    }

    async fn restore(&self, key: &Key, request: ThawRequest) -> Result<Thaw, StoreError> {
        let call = Call::on_key(Operation::Restore, key);
        let fault = self.draw(&call).await?;
        let thaw = self.inner.restore(key, request).await?;
        Self::end(fault, call, thaw)
    }

    async fn retain_until(&self, key: &Key, until: Timestamp) -> Result<(), StoreError> {
        let call = Call::on_key(Operation::Retain, key);
        let fault = self.draw(&call).await?;
        self.inner.retain_until(key, until).await?;
        Self::end(fault, call, ())
    }

    async fn facts(&self) -> Result<StoreFacts, StoreError> {
        let call = Call::on_store(Operation::Facts);
        let fault = self.draw(&call).await?;
        let facts = self.inner.facts().await?;
        Self::end(fault, call, facts)
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

fn timeout(call: Call) -> StoreError {
    StoreError::Timeout {
        call,
        after: Duration::from_secs(30),
    }
}

fn flip(body: &Bytes, bit: u64) -> Bytes {
    let mut bytes = body.to_vec();
    let bits = bytes.len() as u64 * 8;
    if bits > 0 {
        let bit = bit % bits;
        // The place is smaller than the length, which is a usize.
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
    bytes.into()
}

fn forget_newest(page: &mut Page, missing: usize) {
    for _ in 0..missing {
        let newest = page
            .objects
            .iter()
            .enumerate()
            .max_by_key(|(_, object)| (object.modified, &object.key))
            .map(|(place, _)| place);
        if let Some(place) = newest {
            page.objects.remove(place);
        }
    }
}
