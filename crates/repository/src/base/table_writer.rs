//! Collects the tables of a backup and stores each part as soon as it is full.
//!
//! Promise: memory does not grow with the database: a part is stored at `PART_BYTES` and forgotten but for its row.
//! Not here: the rows' encodings (base::tables), the order towards the head (base::writer).

use super::frames::LEVEL;
use super::head::NamedObject;
use super::tables::{PackRow, Record, RootTable, TABLE_BYTES_MAX, TableKind, TableRow, push_line};
use crate::layout::BackupPlace;
use crate::{Repository, RepositoryError};
use backstay_codec::{Compressor, KeySet, Kind, SecretKey};
use backstay_terms::ByteCount;
use serde::Serialize;
use std::collections::BTreeMap;

/// A part is stored when it holds this much.
const PART_BYTES: usize = 4 << 20;

/// What is allocated for a part, once for each kind: a buffer that grows leaves its smaller selves in the allocator's
/// hands, and that was a fifth of the process.
const PART_CAPACITY: usize = PART_BYTES + (64 << 10);

/// Collects and stores tables.
#[derive(Debug)]
pub(crate) struct TableWriter {
    repository: Repository,
    place: BackupPlace,
    keys: KeySet,
    filling: BTreeMap<TableKind, Vec<u8>>,
    rows: Vec<TableRow>,
    stored: ByteCount,
}

impl TableWriter {
    pub fn new(repository: Repository, place: BackupPlace, keys: KeySet) -> TableWriter {
        let (filling, rows) = (BTreeMap::new(), Vec::new());
        TableWriter {
            repository,
            place,
            keys,
            filling,
            rows,
            stored: ByteCount::ZERO,
        }
    }

    /// Appends a binary record.
    pub async fn record<R: Record>(&mut self, kind: TableKind, record: &R) -> Result<(), RepositoryError> {
        record.encode(self.part(kind));
        self.store_if_full(kind).await
    }

    /// Appends a JSON line.
    pub async fn line<T: Serialize>(&mut self, kind: TableKind, row: &T) -> Result<(), RepositoryError> {
        push_line(row, self.part(kind))?;
        self.store_if_full(kind).await
    }

    /// Appends bytes as they are.
    pub async fn bytes(&mut self, kind: TableKind, bytes: &[u8]) -> Result<(), RepositoryError> {
        for piece in bytes.chunks(PART_BYTES) {
            self.part(kind).extend_from_slice(piece);
            self.store_if_full(kind).await?;
        }
        Ok(())
    }

    /// Stores the rest and the root table; returns the root and the bytes of all tables.
    pub async fn finish(
        mut self,
        packs: &[PackRow],
    ) -> Result<(NamedObject, Vec<TableRow>, ByteCount), RepositoryError> {
        for pack in packs {
            self.line(TableKind::PackList, pack).await?;
        }
        for kind in self.filling.keys().copied().collect::<Vec<_>>() {
            self.store_part(kind).await?;
        }
        let root = RootTable {
            format: 1,
            packs: packs.len() as u32,
            tables: std::mem::take(&mut self.rows),
        };
        let json = serde_json::to_vec(&root).map_err(RepositoryError::encoding)?;
        let facts = required(&self.keys.facts, "facts")?;
        let named = self
            .store("t0000".to_owned(), Kind::RootTable, facts, &json)
            .await?;
        Ok((named, root.tables, self.stored))
    }

    fn part(&mut self, kind: TableKind) -> &mut Vec<u8> {
        let empty = || Vec::with_capacity(PART_CAPACITY);
        self.filling.entry(kind).or_insert_with(empty)
    }

    async fn store_if_full(&mut self, kind: TableKind) -> Result<(), RepositoryError> {
        if self
            .filling
            .get(&kind)
            .is_some_and(|part| part.len() >= PART_BYTES)
        {
            self.store_part(kind).await?;
        }
        Ok(())
    }

    async fn store_part(&mut self, kind: TableKind) -> Result<(), RepositoryError> {
        let mut part = std::mem::take(self.part(kind));
        if part.is_empty() {
            return Ok(());
        }
        debug_assert!(
            part.len() <= TABLE_BYTES_MAX,
            "a part is stored as soon as it passes PART_BYTES"
        );
        let name = format!("t{:04}", self.rows.len() + 1);
        let sealed_as = container_kind(kind);
        let class = sealed_as.key_class();
        let key = required(&self.keys.get(class).cloned(), class.name())?;
        let NamedObject { name, size, sha256 } = self.store(name, sealed_as, key, &part).await?;
        self.rows.push(TableRow {
            name,
            kind,
            size,
            plain: part.len() as u64,
            sha256,
        });
        part.clear();
        self.filling.insert(kind, part);
        Ok(())
    }

    async fn store(
        &mut self,
        name: String,
        kind: Kind,
        key: SecretKey,
        plain: &[u8],
    ) -> Result<NamedObject, RepositoryError> {
        let compressed = Compressor::new(LEVEL)
            .and_then(|mut c| c.compress(plain))
            .map_err(RepositoryError::encoding)?;
        let named = self
            .repository
            .put_sealed(self.place.table(&name)?, kind, key, compressed, name)
            .await?;
        self.stored += ByteCount(named.size);
        Ok(named)
    }
}

/// As what a kind of table is sealed.
pub(crate) fn container_kind(kind: TableKind) -> Kind {
    match kind {
        TableKind::PackList => Kind::PackList,
        TableKind::FileTable => Kind::FileTable,
        TableKind::ExtentTable => Kind::ExtentTable,
        TableKind::FrameTable => Kind::FrameTable,
        TableKind::ServerManifest => Kind::ServerManifest,
    }
}

/// A key that this work cannot do without.
pub(crate) fn required(key: &Option<SecretKey>, class: &str) -> Result<SecretKey, RepositoryError> {
    let what = || RepositoryError::Key {
        what: format!("none of the configured keys gives the {class} key that this needs"),
    };
    key.clone().ok_or_else(what)
}
