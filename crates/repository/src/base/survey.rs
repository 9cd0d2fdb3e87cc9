//! Names every object of a backup from its head, its root table and its pack list.
//!
//! Promise: needs the facts key alone; what is read is compared with the digests that the head and the root record.
//! Not here: the other tables (base::reader).

use super::head::{Head, NamedObject};
use super::tables::{PackRow, RootTable, TABLE_BYTES_MAX, TableKind, TableRow, lines};
use crate::layout::{EnvelopePlace, Place};
use crate::{Repository, RepositoryError};
use backstay_codec::{Decompressor, FrameError, Kind, Sha256};

/// Everything that a head stands for.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    /// The root table and the tables it lists.
    pub tables: Vec<NamedObject>,
    /// The packs.
    pub packs: Vec<NamedObject>,
}

impl Repository {
    /// Reads the root table and the pack list of a backup.
    pub(crate) async fn survey(&self, head: &Head) -> Result<Survey, RepositoryError> {
        let place = head.place();
        let at = place.table(&head.root.name)?;
        let json = self
            .read_frame(head, &at, Kind::RootTable, &head.root.sha256, TABLE_BYTES_MAX)
            .await?;
        let root: RootTable =
            serde_json::from_slice(&json).map_err(|e| RepositoryError::malformed(&at.key, e))?;
        let mut tables = vec![head.root.clone()];
        let mut packs = Vec::new();
        for row in &root.tables {
            if row.kind == TableKind::PackList {
                let at = place.table(&row.name)?;
                let list = self
                    .read_frame(head, &at, Kind::PackList, &row.sha256, 2 * TABLE_BYTES_MAX)
                    .await?;
                packs.extend(
                    lines::<PackRow>(&list, at.key.as_str())?
                        .into_iter()
                        .map(named_pack),
                );
            }
            tables.push(named_table(row));
        }
        if packs.len() != root.packs as usize {
            let what = format!(
                "its pack list has {} packs and its root table {}",
                packs.len(),
                root.packs
            );
            return Err(RepositoryError::malformed(&at.key, what));
        }
        Ok(Survey { tables, packs })
    }

    /// One zstd frame whose length it states itself, below a bound.
    async fn read_frame(
        &self,
        head: &Head,
        at: &Place,
        kind: Kind,
        sha256: &Sha256,
        bytes_max: usize,
    ) -> Result<Vec<u8>, RepositoryError> {
        let place = head.place();
        let envelope = EnvelopePlace::generation(place.engine, place.class, &place.source, &place.generation);
        let compressed = self.get_recorded(at, kind, &envelope, sha256).await?;
        let mut decompressor = Decompressor::new().map_err(RepositoryError::encoding)?;
        let plain = match decompressor.decompress(&compressed, 0) {
            Err(FrameError::Length { found, .. }) if found <= bytes_max as u64 => {
                decompressor.decompress(&compressed, found as usize)
            }
            answer => answer,
        };
        plain.map_err(|e| RepositoryError::malformed(&at.key, e))
    }
}

fn named_pack(row: PackRow) -> NamedObject {
    let PackRow {
        name, size, sha256, ..
    } = row;
    NamedObject { name, size, sha256 }
}

fn named_table(row: &TableRow) -> NamedObject {
    NamedObject {
        name: row.name.clone(),
        size: row.size,
        sha256: row.sha256,
    }
}
