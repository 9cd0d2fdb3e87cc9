//! Writes one backup.
//!
//! Promise: the order of writes of REPO-4: envelope (opened again), packs and tables, the LIST check, the head, the
//! head read back. `commit` consumes the writer, so nothing is written after the head and nothing twice.
//! Not here: what the bytes are (backstay-engine::jobs::backup), increments (base::increment, later).

use super::frames::FrameFiller;
use super::head::{BackupKind, Head, HeadKeyIds, HeadLog, HeadVerdict, NamedObject, Totals, expires_at};
use super::packs::PackWriter;
use super::table_writer::{TableWriter, required};
use super::tables::{FileRow, PackRow, TableKind, TableRow};
use crate::layout::{BackupPlace, EnvelopePlace};
use crate::{Repository, RepositoryError};
use backstay_codec::{Digest, KeyClass, KeySet, Kind};
use backstay_store::{Key, Prefix, list_all};
use backstay_terms::{
    ByteCount, EngineKind, EntryHeader, EntryKind, EntryRole, RetentionClass, RunId, SourceName,
};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// A generation's keys seal nothing older than this (KEY-1).
const GENERATION_AGE_MAX: SignedDuration = SignedDuration::from_hours(31 * 24);

/// What a new backup is to be.
#[derive(Clone, Debug)]
pub struct BackupOrder {
    /// The engine.
    pub engine: EngineKind,
    /// The source.
    pub source: SourceName,
    /// How long it is kept.
    pub class: RetentionClass,
    /// The run that takes it: its suffix becomes that of the backup, so that names tell which run is whose.
    pub run: Option<RunId>,
}

/// What the source said at the end.
#[derive(Clone, Debug)]
pub struct BackupSummary {
    /// Good or damaged.
    pub verdict: HeadVerdict,
    /// What is damaged.
    pub damage: Vec<String>,
    /// The server's version.
    pub version: String,
    /// The log that it needs.
    pub log: Option<HeadLog>,
    /// Facts for the engine's restore.
    pub engine: serde_json::Value,
    /// What the server said.
    pub notices: Vec<String>,
}

/// An entry whose bytes arrive.
#[derive(Debug)]
struct OpenEntry {
    header: EntryHeader,
    digest: Digest,
    received: u64,
}

/// Writes one full backup.
#[derive(Debug)]
pub struct BaseWriter {
    repository: Repository,
    place: BackupPlace,
    keys: KeySet,
    created: Timestamp,
    frames: FrameFiller,
    packs: PackWriter,
    tables: TableWriter,
    open: BTreeMap<u32, OpenEntry>,
    totals: Totals,
}

impl BaseWriter {
    /// Names the backup and stores its envelope; one wrap is read back and opened before data is spent (KEY-2).
    pub async fn begin(repository: &Repository, order: BackupOrder) -> Result<BaseWriter, RepositoryError> {
        let created = repository.now();
        let BackupOrder {
            engine,
            source,
            class,
            run,
        } = order;
        let kind = BackupKind::Full.name();
        let id = match run {
            Some(run) => repository.new_id_with(kind, run.suffix())?,
            None => repository.new_id(kind)?,
        };
        let envelope = EnvelopePlace::generation(engine, class, &source, &id);
        let classes = [KeyClass::Data, KeyClass::Index, KeyClass::Facts];
        let keys = repository.create_envelope(&envelope, &classes).await?;
        let place = BackupPlace {
            engine,
            source,
            class,
            generation: id.clone(),
            backup: id,
        };
        Ok(BaseWriter {
            packs: PackWriter::new(repository.clone(), place.clone(), required(&keys.data, "data")?),
            tables: TableWriter::new(repository.clone(), place.clone(), keys.clone()),
            frames: FrameFiller::default(),
            open: BTreeMap::new(),
            totals: Totals::default(),
            repository: repository.clone(),
            place,
            keys,
            created,
        })
    }

    /// Where the backup will lie.
    pub fn place(&self) -> &BackupPlace {
        &self.place
    }

    /// Begins an entry. Directories and links take no bytes, but are closed like files.
    pub async fn open_entry(&mut self, number: u32, header: EntryHeader) -> Result<(), RepositoryError> {
        if header.role != EntryRole::ServerManifest {
            self.totals.files += 1;
        }
        let entry = OpenEntry {
            header,
            digest: Digest::new(),
            received: 0,
        };
        if self.open.insert(number, entry).is_some() {
            return Err(out_of_order(format!("entry {number} was opened twice")));
        }
        Ok(())
    }

    /// Takes bytes of an open entry; they must continue where the last ones ended.
    pub async fn append(&mut self, number: u32, offset: u64, bytes: &[u8]) -> Result<(), RepositoryError> {
        self.refuse_if_old()?;
        let entry = self
            .open
            .get_mut(&number)
            .ok_or_else(|| out_of_order(format!("entry {number} is not open")))?;
        if entry.received != offset {
            let what = format!(
                "bytes of entry {number} came at {offset} instead of {}",
                entry.received
            );
            return Err(out_of_order(what));
        }
        if entry.header.kind != EntryKind::File {
            return Err(out_of_order(format!(
                "{} is no file and takes no bytes",
                entry.header.path
            )));
        }
        entry.received += bytes.len() as u64;
        if entry.header.role == EntryRole::ServerManifest {
            return self.tables.bytes(TableKind::ServerManifest, bytes).await;
        }
        entry.digest.update(bytes);
        self.totals.bytes += ByteCount::from(bytes.len());
        for extent in self.frames.append(number, offset, bytes) {
            self.tables.record(TableKind::ExtentTable, &extent).await?;
        }
        while let Some(frame) = self.frames.next_over_bound().await? {
            let row = self.packs.add(frame).await?;
            self.tables.record(TableKind::FrameTable, &row).await?;
        }
        Ok(())
    }

    /// Ends an entry; its size must be the one announced.
    pub async fn close_entry(&mut self, number: u32) -> Result<(), RepositoryError> {
        let entry = self
            .open
            .remove(&number)
            .ok_or_else(|| out_of_order(format!("entry {number} is not open")))?;
        if entry.header.role == EntryRole::ServerManifest {
            return Ok(());
        }
        if entry.received != entry.header.size {
            let (path, size, received) = (&entry.header.path, entry.header.size, entry.received);
            return Err(out_of_order(format!(
                "{path} was announced with {size} bytes and had {received}"
            )));
        }
        let digest = (entry.header.kind == EntryKind::File).then(|| entry.digest.finish());
        let row = FileRow::new(number, entry.header, digest);
        self.tables.line(TableKind::FileTable, &row).await
    }

    /// Stores what is left, checks by LIST that everything is there, writes the head and reads it back.
    pub async fn commit(mut self, summary: BackupSummary) -> Result<Head, RepositoryError> {
        self.refuse_if_old()?;
        if let Some((number, entry)) = self.open.first_key_value() {
            return Err(out_of_order(format!(
                "entry {number} ({}) is still open",
                entry.header.path
            )));
        }
        self.frames.close_frame();
        while let Some(frame) = self.frames.next().await? {
            let row = self.packs.add(frame).await?;
            self.tables.record(TableKind::FrameTable, &row).await?;
        }
        let BaseWriter {
            repository,
            place,
            keys,
            created,
            packs,
            tables,
            mut totals,
            ..
        } = self;
        let packs = packs.finish().await?;
        let (root, rows, table_bytes) = tables.finish(&packs).await?;
        check_listing(&repository, &place, &packs, &rows, &root).await?;
        totals.packs = packs.len() as u32;
        totals.stored = packs.iter().map(|pack| ByteCount(pack.size)).sum::<ByteCount>() + table_bytes;
        let head = make_head(&repository, &place, &keys, created, root, totals, summary)?;
        // Whoever sees the head must find the rest of its repository beside it.
        repository.refuse_if_replaced().await?;
        repository.commit_head(&place, &keys, &head).await?;
        Ok(head)
    }
}

impl BaseWriter {
    /// KEY-1: a backup that takes longer than its keys may seal is given up.
    fn refuse_if_old(&self) -> Result<(), RepositoryError> {
        if self.repository.now().duration_since(self.created) <= GENERATION_AGE_MAX {
            return Ok(());
        }
        let what = format!(
            "generation {} is older than 31 days; its keys must seal nothing more",
            self.place.generation
        );
        Err(RepositoryError::KeyTooOld { what })
    }
}

fn out_of_order(what: String) -> RepositoryError {
    RepositoryError::OutOfOrder { what }
}

fn make_head(
    repository: &Repository,
    place: &BackupPlace,
    keys: &KeySet,
    created: Timestamp,
    root: NamedObject,
    totals: Totals,
    summary: BackupSummary,
) -> Result<Head, RepositoryError> {
    let key_ids = HeadKeyIds {
        data: required(&keys.data, "data")?.id(),
        index: required(&keys.index, "index")?.id(),
        facts: required(&keys.facts, "facts")?.id(),
    };
    let BackupSummary {
        verdict,
        damage,
        version,
        log,
        engine,
        notices,
    } = summary;
    Ok(Head {
        format: 1,
        repository: repository.id().to_owned(),
        service: place.engine,
        source: place.source.clone(),
        class: place.class,
        generation: place.generation.clone(),
        backup: place.backup.clone(),
        kind: BackupKind::Full,
        base: None,
        created,
        finished: repository.now(),
        expires_at: expires_at(place.class, created, created),
        writer: env!("CARGO_PKG_VERSION").to_owned(),
        verdict,
        damage,
        version,
        key_ids,
        root,
        totals,
        log,
        engine,
        notices,
    })
}

impl Repository {
    /// The commit: the head is written once and read back (REPO-4).
    async fn commit_head(
        &self,
        place: &BackupPlace,
        keys: &KeySet,
        head: &Head,
    ) -> Result<(), RepositoryError> {
        let at = place.head()?;
        let facts = required(&keys.facts, "facts")?;
        self.put_sealed(at.clone(), Kind::Head, facts, head.to_json()?, "head".into())
            .await?;
        let again = self.read_head(place).await?;
        if again != *head {
            let (object, what) = (
                at.key.to_string(),
                "the head read back is not the one that was written".to_owned(),
            );
            return Err(RepositoryError::Differs { object, what });
        }
        Ok(())
    }
}

/// REPO-4: what the store lists under both prefixes must be exactly what was written.
async fn check_listing(
    repository: &Repository,
    place: &BackupPlace,
    packs: &[PackRow],
    rows: &[TableRow],
    root: &NamedObject,
) -> Result<(), RepositoryError> {
    let mut expected: BTreeMap<Key, u64> = BTreeMap::new();
    for pack in packs {
        expected.insert(place.pack(&pack.name)?.key, pack.size);
    }
    for table in rows {
        expected.insert(place.table(&table.name)?.key, table.size);
    }
    expected.insert(place.table(&root.name)?.key, root.size);
    let mut listed = listing(repository, &place.packs_prefix()?).await?;
    listed.extend(listing(repository, &place.tables_prefix()?).await?);
    let size_of = |sizes: &BTreeMap<Key, u64>, key: &Key| match sizes.get(key) {
        Some(size) => format!("{size} bytes"),
        None => "nothing".to_owned(),
    };
    let wrong = expected.keys().chain(listed.keys());
    match wrong
        .into_iter()
        .find(|key| listed.get(*key) != expected.get(*key))
    {
        None => Ok(()),
        Some(key) => {
            let (found, written) = (size_of(&listed, key), size_of(&expected, key));
            Err(RepositoryError::Differs {
                object: key.to_string(),
                what: format!("the store lists {found} where {written} was written"),
            })
        }
    }
}

async fn listing(repository: &Repository, prefix: &Prefix) -> Result<BTreeMap<Key, u64>, RepositoryError> {
    let objects = list_all(repository.store(), prefix, None).await?;
    Ok(objects
        .into_iter()
        .map(|object| (object.key, object.size))
        .collect())
}
