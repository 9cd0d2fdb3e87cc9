//! What the memory tests feed and fill: a base that is made as it is asked for, and a store that forgets.
//!
//! Promise: neither holds more than a few MiB, whatever the size of the base.
//! Not here: what is measured (memory).

use async_trait::async_trait;
use backstay_clock::{Chance, Clock, SeededChance, SystemClock};
use backstay_source::{
    BaseEnd, BaseReader, BaseRequest, BaseStep, Finding, Identity, LogOffer, LogPlace, Source, SourceError,
    Verdict,
};
use backstay_store::{
    Call, Created, Key, More, ObjectMeta, Operation, Page, Prefix, Store, StoreClock, StoreError, StoreFacts,
    StoreKind, Support, Thaw, ThawRequest, Version, VersionId,
};
use backstay_terms::{EngineKind, EntryHeader, EntryKind, EntryPath, EntryRole, Position};
use bytes::Bytes;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

/// How long the store takes for each object: long enough that packs wait for it.
const STORE_TAKES: Duration = Duration::from_millis(400);

/// What a body may have to be kept: heads and envelopes are read back, packs and tables are not.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// A slow store that forgets what it is given, but for sizes and small bodies.
#[derive(Debug)]
pub struct Forgetful {
    clock: SystemClock,
    objects: Mutex<BTreeMap<Key, (u64, Option<Bytes>)>>,
}

impl Forgetful {
    pub fn new() -> Forgetful {
        Forgetful {
            clock: SystemClock::new(),
            objects: Mutex::default(),
        }
    }

    fn kept(&self, operation: Operation, key: &Key) -> Result<Bytes, StoreError> {
        let objects = self.objects.lock().unwrap();
        let body = objects.get(key).and_then(|(_, body)| body.clone());
        body.ok_or_else(|| StoreError::NotFound {
            call: Call::on_key(operation, key),
        })
    }
}

fn not_here(call: Call) -> StoreError {
    let detail = "a backup does not need it".to_owned();
    StoreError::NotSupported { call, detail }
}

#[async_trait]
impl Store for Forgetful {
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Result<Created, StoreError> {
        self.clock.sleep(STORE_TAKES).await;
        let size = body.len() as u64;
        // A copy: a slice would keep what it was cut from.
        let kept = (body.len() <= KEPT_BYTES_MAX).then(|| Bytes::copy_from_slice(&body));
        let before = self.objects.lock().unwrap().insert(key.clone(), (size, kept));
        assert!(before.is_none(), "{key} was written twice");
        Ok(Created::Now)
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        self.kept(Operation::Get, key)
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let body = self.kept(Operation::GetRange, key)?;
        Ok(body.slice(range.start as usize..range.end as usize))
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        Ok(meta(key, self.kept(Operation::Head, key)?.len() as u64))
    }

    async fn list_page(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let objects = self.objects.lock().unwrap();
        let found = objects
            .iter()
            .filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| *key > after));
        let objects: Vec<ObjectMeta> = found.map(|(key, (size, _))| meta(key, *size)).collect();
        assert!(objects.len() <= limit, "one page is enough here");
        Ok(Page {
            objects,
            more: More::No,
        })
    }

    async fn list_versions(&self, prefix: &Prefix) -> Result<Vec<Version>, StoreError> {
        Err(not_here(Call::on_prefix(Operation::ListVersions, prefix)))
    }

    async fn get_version(&self, key: &Key, _version: &VersionId) -> Result<Bytes, StoreError> {
        Err(not_here(Call::on_key(Operation::GetVersion, key)))
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        Err(not_here(Call::on_key(Operation::Delete, key)))
    }

    async fn restore(&self, key: &Key, _request: ThawRequest) -> Result<Thaw, StoreError> {
        Err(not_here(Call::on_key(Operation::Restore, key)))
    }

    async fn retain_until(&self, key: &Key, _until: Timestamp) -> Result<(), StoreError> {
        Err(not_here(Call::on_key(Operation::Retain, key)))
    }

    async fn facts(&self) -> Result<StoreFacts, StoreError> {
        Ok(StoreFacts {
            kind: StoreKind::Memory,
            place: "nowhere".to_owned(),
            conditional_put: Support::Yes,
            versioning: Support::No,
            object_lock: Support::No,
            lifecycle: Support::No,
            clock: StoreClock::ThisMachine,
        })
    }
}

fn meta(key: &Key, size: u64) -> ObjectMeta {
    let (key, modified) = (key.clone(), Timestamp::UNIX_EPOCH);
    ObjectMeta { key, size, modified }
}

/// A source whose base has this many bytes in this many files, and a server manifest of the usual length.
#[derive(Debug)]
pub struct Replayed {
    pub bytes: u64,
    pub files: u32,
}

#[async_trait]
impl Source for Replayed {
    async fn identify(&self) -> Result<Identity, SourceError> {
        let position = Position(16 << 20);
        let place = LogPlace {
            system: 7,
            timeline: 1,
            position,
        };
        Ok(Identity {
            engine: EngineKind::Postgres,
            version: "15".into(),
            place,
            segment_size: 16 << 20,
            history: None,
            ancestors: Vec::new(),
        })
    }

    async fn check(&self) -> Vec<Finding> {
        Vec::new()
    }

    async fn begin_base(&self, _request: BaseRequest) -> Result<Box<dyn BaseReader>, SourceError> {
        Ok(Box::new(Replay::new(self.bytes, self.files)))
    }

    fn log(&self) -> LogOffer<'_> {
        LogOffer::None
    }
}

/// The steps of a replayed base, made as they are asked for.
struct Replay {
    pool: Bytes,
    chance: SeededChance,
    rest: u64,
    files: u32,
    number: u32,
    open: Option<(EntryRole, u64, u64)>,
}

/// As the PostgreSQL client cuts what it reads.
const PIECE: u64 = 32 << 10;
const MANIFEST_LINE: u64 = 150;

impl Replay {
    fn new(bytes: u64, files: u32) -> Replay {
        let chance = SeededChance::new(20);
        let (rest, number, open) = (bytes, 0, None);
        Replay {
            pool: half_random(&chance),
            chance,
            rest,
            files,
            number,
            open,
        }
    }

    fn opens(&mut self) -> BaseStep {
        let number = self.number;
        let left = u64::from(self.files - number.min(self.files));
        let (role, path, size) = match left {
            0 => {
                let size = MANIFEST_LINE * u64::from(self.files);
                (EntryRole::ServerManifest, "backup_manifest".to_owned(), size)
            }
            1 => (EntryRole::Data, format!("base/5/{number}"), self.rest),
            // Up to twice the mean of what is left: the last one takes the rest.
            _ => {
                let size = self.chance.next_u64() % (2 * self.rest / left + 1);
                (EntryRole::Data, format!("base/5/{number}"), size)
            }
        };
        if role == EntryRole::Data {
            self.rest -= size;
        }
        self.open = Some((role, 0, size));
        let path = EntryPath::new(path).unwrap();
        let (kind, mode, modified) = (EntryKind::File, 0o600, 0);
        let header = EntryHeader {
            role,
            path,
            kind,
            size,
            mode,
            modified,
        };
        BaseStep::Entry { number, header }
    }

    fn piece(&mut self, offset: u64, size: u64) -> Bytes {
        let length = PIECE.min(size - offset) as usize;
        let from = self.chance.next_u64() as usize % (self.pool.len() - length);
        self.pool.slice(from..from + length)
    }
}

#[async_trait]
impl BaseReader for Replay {
    async fn next(&mut self) -> Result<BaseStep, SourceError> {
        let number = self.number;
        match self.open.take() {
            Some((role, offset, size)) if offset < size => {
                let bytes = self.piece(offset, size);
                self.open = Some((role, offset + bytes.len() as u64, size));
                Ok(BaseStep::Bytes {
                    number,
                    offset,
                    bytes,
                })
            }
            Some(_) => {
                self.number += 1;
                Ok(BaseStep::EntryEnd { number })
            }
            None if number > self.files => Ok(BaseStep::End(Box::new(end()))),
            None => Ok(self.opens()),
        }
    }
}

fn end() -> BaseEnd {
    BaseEnd {
        verdict: Verdict::Good,
        log: None,
        version: "15".into(),
        engine_facts: serde_json::Value::Null,
        notices: Vec::new(),
    }
}

/// 4 MiB in which every second byte is random: a frame cut from it compresses to a little more than half.
pub fn half_random(chance: &SeededChance) -> Bytes {
    let word = |_| (chance.next_u64() & 0x00FF_00FF_00FF_00FF).to_le_bytes();
    Bytes::from((0..4 << 17).flat_map(word).collect::<Vec<u8>>())
}
