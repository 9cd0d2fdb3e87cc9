//! What several tests need: a world with a clock and a store, content from a seed, a backup from a list of files.
//!
//! Promise: the same seed gives the same bytes; every process of a world draws other names.
//! Not here: assertions on what is stored.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use backstay_clock::{Chance, Clock, SeededChance, SimClock};
use backstay_codec::SecretKey;
use backstay_repository::layout::BackupPlace;
use backstay_repository::{
    BackupOrder, BackupSummary, BaseReader, BaseWriter, FileRow, Head, HeadVerdict, PackReading, Recipient,
    Repository, RepositoryError,
};
use backstay_store::{
    Created, Key, MemoryImage, MemoryStore, ObjectMeta, Page, Prefix, Store, StoreError, StoreFacts, Thaw,
    ThawRequest, Version, VersionId,
};
use backstay_terms::{EngineKind, EntryHeader, EntryKind, EntryPath, EntryRole, RetentionClass, SourceName};
use bytes::Bytes;
use jiff::Timestamp;

/// A store, the time, and processes that open it.
#[derive(Debug, Clone)]
pub struct World {
    pub clock: SimClock,
    pub memory: MemoryStore,
    processes: Arc<AtomicU64>,
}

impl World {
    pub fn new() -> World {
        let clock = SimClock::new();
        World {
            memory: MemoryStore::new(Arc::new(clock.clone())),
            processes: Arc::new(AtomicU64::new(1)),
            clock,
        }
    }

    /// The store of this world.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.memory.clone())
    }

    /// The clock of this world.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    /// Chance of a new process.
    pub fn chance(&self) -> Arc<dyn Chance> {
        let process = self.processes.fetch_add(1, Ordering::Relaxed);
        Arc::new(SeededChance::new(process << 32))
    }

    /// Makes the repository with one master key.
    pub async fn init(&self) -> Repository {
        self.init_with(&[raw_key(7)]).await.unwrap()
    }

    pub async fn init_with(&self, recipients: &[Recipient]) -> Result<Repository, RepositoryError> {
        Repository::init(self.store(), self.clock(), self.chance(), recipients).await
    }

    /// Opens it in a new process that knows no key yet.
    pub async fn open(&self) -> Repository {
        self.open_with(&[raw_key(7)]).await.unwrap()
    }

    pub async fn open_with(&self, recipients: &[Recipient]) -> Result<Repository, RepositoryError> {
        self.open_over(self.store(), recipients).await
    }

    pub async fn open_over(
        &self,
        store: Arc<dyn Store>,
        recipients: &[Recipient],
    ) -> Result<Repository, RepositoryError> {
        Repository::open(store, self.clock(), self.chance(), recipients).await
    }

    /// The names of all objects that begin with `prefix`.
    pub fn names(&self, prefix: &str) -> Vec<Key> {
        let image = self.memory.snapshot();
        let names = image.objects().map(|(key, _)| key.clone());
        names.filter(|key| key.as_str().starts_with(prefix)).collect()
    }

    pub fn body(&self, key: &Key) -> Bytes {
        self.memory.snapshot().get(key).unwrap().clone()
    }
}

/// The master key whose bytes are all `byte`.
pub fn raw_key(byte: u8) -> Recipient {
    Recipient::Raw(SecretKey::new([byte; 32]))
}

pub fn source() -> SourceName {
    "orders".parse().unwrap()
}

/// Bytes that no compressor shortens.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let chance = SeededChance::new(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&chance.next_u64().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Bytes that shrink much, but no two stretches of which are equal.
pub fn prose(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 64);
    let mut line = seed;
    while bytes.len() < length {
        bytes.extend_from_slice(format!("row {line:>20} of the table of orders\n").as_bytes());
        line = line.wrapping_add(1);
    }
    bytes.truncate(length);
    bytes
}

/// An entry with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub header: EntryHeader,
    pub content: Vec<u8>,
}

pub fn file(path: impl Into<Vec<u8>>, content: Vec<u8>) -> Entry {
    entry(EntryRole::Data, path, EntryKind::File, content)
}

pub fn entry(role: EntryRole, path: impl Into<Vec<u8>>, kind: EntryKind, content: Vec<u8>) -> Entry {
    let header = EntryHeader {
        role,
        path: EntryPath::new(path).unwrap(),
        kind,
        size: content.len() as u64,
        mode: 0o600,
        modified: 1_767_000_000,
    };
    Entry { header, content }
}

/// The server's own manifest, as an entry.
pub fn manifest(content: Vec<u8>) -> Entry {
    entry(
        EntryRole::ServerManifest,
        "backup_manifest",
        EntryKind::File,
        content,
    )
}

pub fn order() -> BackupOrder {
    BackupOrder {
        run: None,
        engine: EngineKind::Postgres,
        source: source(),
        class: RetentionClass::Days35,
    }
}

pub fn summary(verdict: HeadVerdict) -> BackupSummary {
    let damage = match verdict {
        HeadVerdict::Good => vec![],
        HeadVerdict::Damaged => vec!["base/5/1259 has a wrong checksum in block 3".to_owned()],
    };
    BackupSummary {
        verdict,
        damage,
        version: "15.10".into(),
        log: None,
        engine: serde_json::json!({"checkpoint": "0/2000060"}),
        notices: vec!["all required WAL segments have been archived".into()],
    }
}

/// Writes a good backup, one entry after the other.
pub async fn back_up(repository: &Repository, entries: &[Entry]) -> Result<Head, RepositoryError> {
    let mut writer = BaseWriter::begin(repository, order()).await?;
    write_entries(&mut writer, entries).await?;
    writer.commit(summary(HeadVerdict::Good)).await
}

/// Writes entries one after the other.
pub async fn write_entries(writer: &mut BaseWriter, entries: &[Entry]) -> Result<(), RepositoryError> {
    for (number, entry) in entries.iter().enumerate() {
        let number = number as u32;
        writer.open_entry(number, entry.header.clone()).await?;
        if !entry.content.is_empty() {
            writer.append(number, 0, &entry.content).await?;
        }
        writer.close_entry(number).await?;
    }
    Ok(())
}

/// What identifies an entry, and its content.
pub type Contents = BTreeMap<(EntryRole, EntryPath), (EntryHeader, Vec<u8>)>;

pub fn contents_of(entries: &[Entry]) -> Contents {
    let kept = entries
        .iter()
        .filter(|e| e.header.role != EntryRole::ServerManifest);
    kept.map(|e| {
        (
            (e.header.role, e.header.path.clone()),
            (e.header.clone(), e.content.clone()),
        )
    })
    .collect()
}

/// Every file of a backup, as a restore reads it, through one cursor a part.
pub async fn read_whole(reader: &BaseReader, parts: usize) -> Result<Contents, RepositoryError> {
    read_all(reader, parts, PackReading::ByRanges).await
}

/// Every file of a backup.
pub async fn read_all(
    reader: &BaseReader,
    parts: usize,
    reading: PackReading,
) -> Result<Contents, RepositoryError> {
    let mut contents = Contents::new();
    for part in reader.partition(parts) {
        let mut cursor = reader.cursor(reading);
        for row in reader.files_at(part) {
            let mut content = Vec::new();
            cursor
                .read_file(&row, |piece| {
                    content.extend_from_slice(piece);
                    Ok(())
                })
                .await?;
            let before = contents.insert((row.role, row.path.clone()), (row.header(), content));
            assert!(before.is_none(), "{} is in two parts", row.path);
        }
    }
    Ok(contents)
}

pub async fn open_backup(repository: &Repository, head: &Head) -> Result<BaseReader, RepositoryError> {
    BaseReader::open(repository, &head.place()).await
}

pub fn row(reader: &BaseReader, path: &str) -> FileRow {
    let found = |row: &FileRow| row.path.as_text() == Some(path);
    reader.files().find(found).unwrap()
}

/// Where a head's backup lies, by the names of the format document alone.
pub fn name_of(place: &BackupPlace, role: &str, rest: &str) -> Key {
    let (generation, backup) = (&place.generation, &place.backup);
    Key::new(format!(
        "postgres-backups/{role}/{}/{}/{generation}/{backup}{rest}",
        place.class, place.source
    ))
    .unwrap()
}

/// A store whose listings still show an earlier moment: what another process sees that was a little faster.
#[derive(Debug)]
pub struct StaleListing {
    inner: Arc<dyn Store>,
    shown: MemoryStore,
}

impl StaleListing {
    pub fn over(inner: Arc<dyn Store>, shown: MemoryImage) -> Arc<dyn Store> {
        let clock = Arc::new(SimClock::new());
        let shown = MemoryStore::from_snapshot(clock, shown);
        Arc::new(StaleListing { inner, shown })
    }
}

#[async_trait]
impl Store for StaleListing {
    async fn list_page(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.shown.list_page(prefix, start_after, limit).await
    }

    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Result<Created, StoreError> {
        self.inner.put_if_absent(key, body).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.inner.get_range(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.inner.head(key).await
    }

    async fn list_versions(&self, prefix: &Prefix) -> Result<Vec<Version>, StoreError> {
        self.inner.list_versions(prefix).await
    }

    async fn get_version(&self, key: &Key, version: &VersionId) -> Result<Bytes, StoreError> {
        self.inner.get_version(key, version).await
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
}
