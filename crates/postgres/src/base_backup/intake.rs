//! From archives and the manifest to entries, each file checked on the way.
//!
//! Promise: a file's bytes pass through as slices of the read buffer; what is kept of it is one line in the ledger.
//! Not here: the conversation with the server (base_backup).

use std::path::Path;

use backstay_terms::{EntryHeader, EntryKind, EntryPath, EntryRole, Lsn, SystemIdentifier, Timeline};
use bytes::Bytes;

use super::ledger::{Comparison, Ledger};
use super::manifest::{ListedFile, ManifestReader, WalRange};
use super::outbox::{OpenEntry, Outbox};
use super::spool::{Spool, SpoolReader};
use super::tar::{TarEntry, TarEvent, TarReader};
use crate::error::PostgresError;
use crate::replication::version::ArchiveTrailer;

/// The archives of a base backup.
#[derive(Debug)]
pub(super) struct Intake {
    trailer: ArchiveTrailer,
    archive: Option<(EntryRole, TarReader)>,
    open: Option<Open>,
    ledger: Ledger,
}

#[derive(Debug)]
struct Open {
    entry: OpenEntry,
    kind: EntryKind,
    file: ListedFile,
}

impl Intake {
    pub(super) fn new(trailer: ArchiveTrailer, scratch: &Path) -> Self {
        Self {
            trailer,
            archive: None,
            open: None,
            ledger: Ledger::new(scratch),
        }
    }

    /// The next archive begins.
    pub(super) fn begin(&mut self, oid: Option<u32>) -> Result<(), PostgresError> {
        self.end_archive()?;
        let role = oid.map_or(EntryRole::Data, EntryRole::Tablespace);
        self.archive = Some((role, TarReader::default()));
        Ok(())
    }

    fn end_archive(&mut self) -> Result<(), PostgresError> {
        match self.archive.take() {
            Some((_, tar)) => tar.finish(self.trailer),
            None => Ok(()),
        }
    }

    /// Bytes of the archive.
    pub(super) async fn data(&mut self, mut bytes: Bytes, outbox: &mut Outbox) -> Result<(), PostgresError> {
        while let Some(event) = self.next(&mut bytes)? {
            match event {
                TarEvent::Entry(entry) => self.open = Some(self.opened(entry, outbox)?),
                TarEvent::Data(bytes) => {
                    if let Some(open) = &mut self.open {
                        open.file.checksum = crc32c::crc32c_append(open.file.checksum, &bytes);
                        open.file.size += bytes.len() as u64;
                        outbox.bytes(&mut open.entry, bytes);
                    }
                }
                TarEvent::EntryEnd => self.close(outbox).await?,
            }
        }
        Ok(())
    }

    fn next(&mut self, bytes: &mut Bytes) -> Result<Option<TarEvent>, PostgresError> {
        match &mut self.archive {
            Some((_, tar)) => tar.next(bytes),
            None => Err(PostgresError::protocol("bytes of no archive in a base backup")),
        }
    }

    fn opened(&self, entry: TarEntry, outbox: &mut Outbox) -> Result<Open, PostgresError> {
        let role = self.archive.as_ref().map_or(EntryRole::Data, |(role, _)| *role);
        let file = ListedFile {
            path: listed_path(role, &entry.path),
            size: 0,
            checksum: 0,
        };
        let TarEntry {
            path,
            kind,
            size,
            mode,
            modified,
        } = entry;
        let header = EntryHeader {
            role,
            path,
            kind: kind.clone(),
            size,
            mode,
            modified,
        };
        Ok(Open {
            entry: outbox.begin(header)?,
            kind,
            file,
        })
    }

    async fn close(&mut self, outbox: &mut Outbox) -> Result<(), PostgresError> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        outbox.end(open.entry);
        match open.kind {
            EntryKind::File => self.ledger.arrived(&open.file).await,
            EntryKind::Directory | EntryKind::Link(_) => Ok(()),
        }
    }

    /// All archives have ended; the manifest follows.
    pub(super) async fn into_check(mut self, scratch: &Path) -> Result<ManifestCheck, PostgresError> {
        self.end_archive()?;
        Ok(ManifestCheck {
            reader: ManifestReader::new(),
            kept: Spool::new(scratch, "backup_manifest"),
            comparison: self.ledger.into_comparison().await?,
        })
    }
}

// How the manifest names a file: as if tablespaces lay where their links are.
fn listed_path(role: EntryRole, path: &EntryPath) -> Vec<u8> {
    match role {
        EntryRole::Tablespace(oid) => [format!("pg_tblspc/{oid}/").as_bytes(), path.as_bytes()].concat(),
        _ => path.as_bytes().to_vec(),
    }
}

/// What the manifest must agree with besides files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) system: SystemIdentifier,
    pub(super) start: Lsn,
    pub(super) stop: Lsn,
    pub(super) timeline: Timeline,
}

/// The manifest, kept byte for byte and compared as it arrives.
pub(super) struct ManifestCheck {
    reader: ManifestReader,
    kept: Spool,
    comparison: Comparison,
}

impl std::fmt::Debug for ManifestCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManifestCheck").finish_non_exhaustive()
    }
}

impl ManifestCheck {
    /// Bytes of the manifest.
    pub(super) async fn data(&mut self, mut bytes: Bytes) -> Result<(), PostgresError> {
        self.kept.append(&bytes).await?;
        while let Some(listed) = self.reader.next(&mut bytes)? {
            self.comparison.listed(&listed).await?;
        }
        Ok(())
    }

    /// Everything was received: gives the manifest back, with its length.
    pub(super) async fn finish(self, bounds: Bounds) -> Result<(SpoolReader, u64), PostgresError> {
        let facts = self.reader.finish()?;
        self.comparison.finish().await?;
        if facts.system.is_some_and(|system| system != bounds.system) {
            return Err(PostgresError::Manifest(
                "it belongs to another cluster".to_owned(),
            ));
        }
        check_ranges(&facts.ranges, bounds)?;
        let length = self.kept.length();
        Ok((self.kept.into_reader().await?, length))
    }
}

// The timeline of the backup comes last or first, depending on the version: it is looked for.
fn check_ranges(ranges: &[WalRange], bounds: Bounds) -> Result<(), PostgresError> {
    let Bounds {
        start,
        stop,
        timeline,
        ..
    } = bounds;
    let fits = |range: &WalRange| range.timeline == timeline && range.start == start && range.end == stop;
    match ranges.iter().any(fits) {
        true => Ok(()),
        false => Err(PostgresError::Manifest(format!(
            "it does not list the WAL from {start} to {stop} of timeline {timeline}"
        ))),
    }
}
