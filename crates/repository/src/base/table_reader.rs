//! Reads the tables of a backup.
//!
//! Promise: every table has the digest that the root table recorded, the root that of the head; tables are compared with
//! each other before they are given out. Memory: one part beside what the rows say.
//! Not here: the form of rows (tables), the bytes of files (reader, cursor).

use super::file_list::FileList;
use super::head::Head;
use super::reader::envelope_of;
use super::table_writer::container_kind;
use super::tables::{
    Extent, FileRow, FrameRow, PackRow, Record, RootTable, TABLE_BYTES_MAX, TableKind, TableRow,
    line_by_line, lines, records,
};
use crate::layout::BackupPlace;
use crate::{Repository, RepositoryError};
use backstay_codec::{Decompressor, FrameError, Kind, plaintext_length};
use backstay_terms::EntryKind;
use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct Tables {
    pub head: Head,
    pub packs: Vec<PackRow>,
    pub files: FileList,
    pub frames: Vec<FrameRow>,
    /// By entry number, then by offset.
    extents: Vec<Extent>,
    pub manifest: Vec<TableRow>,
}

impl Tables {
    /// The extents of an entry, in the order of their offsets.
    pub fn extents_of(&self, entry: u32) -> &[Extent] {
        let from = self.extents.partition_point(|extent| extent.entry < entry);
        let rest = self.extents.get(from..).unwrap_or_default();
        let length = rest.partition_point(|extent| extent.entry == entry);
        rest.get(..length).unwrap_or_default()
    }

    fn add(&mut self, kind: TableKind, whole: &[u8], object: &str) -> Result<(), RepositoryError> {
        match kind {
            TableKind::PackList => self.packs.extend(lines(whole, object)?),
            TableKind::FileTable => {
                for row in line_by_line::<FileRow>(whole, object) {
                    self.files.push(&row?);
                }
            }
            TableKind::FrameTable => self.frames.extend(records::<FrameRow>(whole, object)?),
            TableKind::ExtentTable => self.extents.extend(records::<Extent>(whole, object)?),
            TableKind::ServerManifest => {}
        }
        Ok(())
    }
}

/// What a part of a table left over: tables of one kind are read as one, wherever they were cut.
#[derive(Default)]
struct Pending(BTreeMap<TableKind, Vec<u8>>);

impl Pending {
    /// The whole lines or records that are known with this part.
    fn take(&mut self, kind: TableKind, part: Vec<u8>) -> Vec<u8> {
        let rest = self.0.entry(kind).or_default();
        let mut whole = match rest.is_empty() {
            true => part,
            false => [std::mem::take(rest), part].concat(),
        };
        let end = match kind {
            TableKind::ExtentTable => whole.len() - whole.len() % Extent::LENGTH,
            TableKind::FrameTable => whole.len() - whole.len() % FrameRow::LENGTH,
            _ => whole
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |last| last + 1),
        };
        *rest = whole.split_off(end);
        whole
    }
}

/// Reads and compares the tables of a backup.
pub(super) async fn read_tables(
    repository: &Repository,
    place: &BackupPlace,
    head: Head,
) -> Result<Tables, RepositoryError> {
    let root_place = place.table(&head.root.name)?;
    let envelope = envelope_of(place);
    let compressed = repository
        .get_recorded(&root_place, Kind::RootTable, &envelope, &head.root.sha256)
        .await?;
    let json = decompress_root(&compressed).map_err(|e| RepositoryError::malformed(&root_place.key, e))?;
    let root: RootTable =
        serde_json::from_slice(&json).map_err(|e| RepositoryError::malformed(&root_place.key, e))?;
    if root.format != 1 {
        return Err(RepositoryError::NewerFormat {
            object: root_place.key.to_string(),
            format: root.format,
        });
    }
    let object = place.backup.as_str();
    // As long as they will be: a list that grows leaves as much behind as it holds.
    let rows = |kind, shortest: usize| {
        let parts = root.tables.iter().filter(|row| row.kind == kind);
        let bytes: u64 = parts.map(|row| row.plain.min(2 * TABLE_BYTES_MAX as u64)).sum();
        bytes as usize / shortest
    };
    let mut tables = Tables {
        head,
        packs: Vec::new(),
        files: FileList::default(),
        frames: Vec::with_capacity(rows(TableKind::FrameTable, FrameRow::LENGTH)),
        extents: Vec::with_capacity(rows(TableKind::ExtentTable, Extent::LENGTH)),
        manifest: Vec::new(),
    };
    // One part at a time, and of it only what its rows say is kept: a backup may have many files.
    let mut pending = Pending::default();
    for row in root.tables {
        if row.kind == TableKind::ServerManifest {
            tables.manifest.push(row);
            continue;
        }
        let part = read_table(repository, place, &row).await?;
        let whole = pending.take(row.kind, part);
        tables.add(row.kind, &whole, object)?;
    }
    for (kind, rest) in pending.0 {
        tables.add(kind, &rest, object)?;
    }
    tables.files.shrink();
    tables
        .extents
        .sort_unstable_by_key(|extent| (extent.entry, extent.offset));
    check_tables(&tables, root.packs, object)?;
    Ok(tables)
}

/// The head records no plain length for the root table: its frame states it, and a table's bound holds.
fn decompress_root(compressed: &[u8]) -> Result<Vec<u8>, FrameError> {
    let mut decompressor = Decompressor::new()?;
    match decompressor.decompress(compressed, 0) {
        Err(FrameError::Length { found, .. }) if found <= TABLE_BYTES_MAX as u64 => {
            decompressor.decompress(compressed, found as usize)
        }
        answer => answer,
    }
}

/// Reads one table.
pub(super) async fn read_table(
    repository: &Repository,
    place: &BackupPlace,
    row: &TableRow,
) -> Result<Vec<u8>, RepositoryError> {
    let at = place.table(&row.name)?;
    let compressed = repository
        .get_recorded(&at, container_kind(row.kind), &envelope_of(place), &row.sha256)
        .await?;
    let plain = usize::try_from(row.plain)
        .ok()
        .filter(|plain| *plain <= 2 * TABLE_BYTES_MAX);
    let plain =
        plain.ok_or_else(|| RepositoryError::malformed(&at.key, "it claims to be longer than tables are"))?;
    let mut decompressor = Decompressor::new().map_err(RepositoryError::encoding)?;
    decompressor
        .decompress(&compressed, plain)
        .map_err(|e| RepositoryError::malformed(&at.key, e))
}

/// Every file of a full is covered exactly; every extent lies in its frame, every frame in its pack.
fn check_tables(tables: &Tables, packs: u32, object: &str) -> Result<(), RepositoryError> {
    let refuse = |what: String| Err(RepositoryError::malformed(object, what));
    if tables.packs.len() != packs as usize {
        return refuse(format!(
            "its pack list has {} packs and its root table {packs}",
            tables.packs.len()
        ));
    }
    for frame in &tables.frames {
        let end = u64::from(frame.position) + u64::from(frame.compressed);
        let pack = tables.packs.get(frame.pack as usize);
        if pack
            .and_then(|pack| plaintext_length(pack.size))
            .is_none_or(|length| end > length)
        {
            return refuse(format!("a frame lies beyond pack {}", frame.pack));
        }
    }
    let is_file = |file: &FileRow| file.kind == EntryKind::File;
    for file in tables.files.iter().filter(is_file) {
        let mut covered = 0;
        for extent in tables.extents_of(file.n) {
            let end = u64::from(extent.skip) + u64::from(extent.length);
            let frame = tables.frames.get(extent.frame as usize);
            if extent.offset != covered || frame.is_none_or(|frame| end > u64::from(frame.plain)) {
                return refuse(format!("the extents of {} do not fit", file.path));
            }
            covered += u64::from(extent.length);
        }
        if covered != file.size {
            return refuse(format!(
                "{} has {} bytes and extents for {covered}",
                file.path, file.size
            ));
        }
    }
    Ok(())
}
