//! Where each entry of a base goes, and the files being written.
//!
//! Promise: nothing is written outside the directory, its tablespaces and below `backstay/`. `global/pg_control` bears
//! another name until the restore is finished: without it PostgreSQL refuses to start, so an interrupted restore can
//! never be mistaken for a finished one.
//! Not here: recovery settings and links (finish).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use backstay_source::{FileSink, SourceError};
use backstay_terms::{EntryHeader, EntryKind, EntryRole};

use super::error::RestoreError;

/// What a restore leaves for a person to read.
pub(super) const AIDE: &str = "backstay";
/// pg_control while the restore is incomplete.
pub(super) const CONTROL_INCOMPLETE: &str = "global/pg_control.backstay-incomplete";
/// pg_control.
pub(super) const CONTROL: &str = "global/pg_control";
/// The source's tablespace_map, kept for its object identifiers.
pub(super) const TABLESPACE_MAP: &str = "backstay/tablespace_map";

const BUFFER_BYTES: usize = 256 << 10;

/// Where an entry goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Into the data directory.
    Directory(Vec<u8>),
    /// Into a tablespace's directory.
    Tablespace(u32, Vec<u8>),
    /// Nowhere, but the tablespace gets its link.
    Link(u32),
    /// Nowhere.
    Dropped,
}

/// Decides by role and path.
pub(super) fn place_of(entry: &EntryHeader) -> Result<Place, RestoreError> {
    let path = entry.path.as_bytes();
    if let EntryKind::Link(_) = entry.kind {
        return link(entry);
    }
    Ok(match entry.role {
        EntryRole::Data => data(path),
        EntryRole::Tablespace(oid) => Place::Tablespace(oid, path.to_vec()),
        EntryRole::Wal | EntryRole::History => Place::Directory(below(b"pg_wal/", path)),
        EntryRole::Settings | EntryRole::Configuration => {
            Place::Directory(below(b"backstay/configuration/", path))
        }
        EntryRole::ServerManifest => Place::Directory(b"backup_manifest".to_vec()),
    })
}

fn data(path: &[u8]) -> Place {
    match path {
        b"global/pg_control" => Place::Directory(CONTROL_INCOMPLETE.into()),
        // With this file the server would make the links anew at its first start, to where the tablespaces lay at the
        // source: on the same machine it would then run on the source's own files.
        b"tablespace_map" => Place::Directory(TABLESPACE_MAP.into()),
        // Of a backup taken from a standby: it would win over recovery.signal, and the copy would follow the source.
        b"standby.signal" | b"recovery.signal" | b"postmaster.pid" | b"postmaster.opts" => Place::Dropped,
        // What an earlier restore left in the source itself.
        _ if path == MARKER || path == AIDE.as_bytes() || path.starts_with(b"backstay/") => Place::Dropped,
        _ => Place::Directory(path.to_vec()),
    }
}

const MARKER: &[u8] = super::marker::MARKER.as_bytes();

fn below(directory: &[u8], path: &[u8]) -> Vec<u8> {
    [directory, path].concat()
}

fn link(entry: &EntryHeader) -> Result<Place, RestoreError> {
    let oid = entry
        .path
        .as_text()
        .and_then(|path| path.strip_prefix("pg_tblspc/"));
    let oid = oid.filter(|_| entry.role == EntryRole::Data);
    let oid = oid.and_then(|oid| oid.parse().ok());
    oid.map(Place::Link).ok_or_else(|| RestoreError::Entry {
        path: entry.path.to_string(),
        reason: "a link that is not a tablespace's",
    })
}

/// A file being written; compares its size at the end.
pub(super) struct PlacedFile {
    file: BufWriter<File>,
    path: PathBuf,
    missing: u64,
}

impl PlacedFile {
    pub(super) fn new(file: File, path: PathBuf, size: u64) -> Self {
        let capacity = usize::try_from(size).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
        Self {
            file: BufWriter::with_capacity(capacity, file),
            path,
            missing: size,
        }
    }

    fn of_other_size(&self) -> SourceError {
        let path = self.path.display().to_string();
        let reason = "it does not have the size that was recorded";
        RestoreError::Entry { path, reason }.into()
    }
}

impl FileSink for PlacedFile {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        let missing = self.missing.checked_sub(bytes.len() as u64);
        self.missing = missing.ok_or_else(|| self.of_other_size())?;
        let written = self.file.write_all(bytes);
        Ok(written.map_err(RestoreError::io("write", &self.path))?)
    }

    // Not synced here: `finish` syncs everything at once, when the system has written most of it already.
    fn close(mut self: Box<Self>) -> Result<(), SourceError> {
        if self.missing != 0 {
            return Err(self.of_other_size());
        }
        let flushed = self.file.flush();
        Ok(flushed.map_err(RestoreError::io("write", &self.path))?)
    }
}

/// An entry of which no bytes are kept.
pub(super) struct Unkept;

impl FileSink for Unkept {
    fn write(&mut self, _: &[u8]) -> Result<(), SourceError> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), SourceError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use backstay_terms::EntryPath;

    fn header(role: EntryRole, path: &str, kind: EntryKind) -> EntryHeader {
        EntryHeader {
            role,
            path: EntryPath::new(path).unwrap(),
            kind,
            size: 0,
            mode: 0o600,
            modified: 0,
        }
    }

    fn place(role: EntryRole, path: &str) -> Place {
        place_of(&header(role, path, EntryKind::File)).unwrap()
    }

    fn inside(path: &str) -> Place {
        Place::Directory(path.into())
    }

    #[test]
    fn every_role_has_its_place() {
        let segment = "000000010000000000000002";
        assert_eq!(place(EntryRole::Data, "base/1/1259"), inside("base/1/1259"));
        assert_eq!(
            place(EntryRole::Data, "global/pg_control"),
            inside("global/pg_control.backstay-incomplete")
        );
        assert_eq!(
            place(EntryRole::Tablespace(16384), "PG_15_202209061/5/1"),
            Place::Tablespace(16384, b"PG_15_202209061/5/1".to_vec())
        );
        assert_eq!(
            place(EntryRole::Wal, segment),
            inside("pg_wal/000000010000000000000002")
        );
        assert_eq!(
            place(EntryRole::History, "00000002.history"),
            inside("pg_wal/00000002.history")
        );
        assert_eq!(
            place(EntryRole::Settings, "settings.json"),
            inside("backstay/configuration/settings.json")
        );
        assert_eq!(
            place(EntryRole::Configuration, "etc/pg_hba.conf"),
            inside("backstay/configuration/etc/pg_hba.conf")
        );
        assert_eq!(
            place(EntryRole::ServerManifest, "backup_manifest"),
            inside("backup_manifest")
        );
    }

    #[test]
    fn what_would_make_the_copy_follow_or_use_its_source_is_not_placed() {
        for path in [
            "standby.signal",
            "recovery.signal",
            "backstay/configuration/x",
            MARKER_NAME,
        ] {
            assert_eq!(place(EntryRole::Data, path), Place::Dropped);
        }
        assert_eq!(
            place(EntryRole::Data, "tablespace_map"),
            inside("backstay/tablespace_map")
        );
    }

    const MARKER_NAME: &str = "backstay.restore-incomplete";

    #[test]
    fn only_a_link_of_a_tablespace_is_taken() {
        let link = |path: &str| {
            let kind = EntryKind::Link("/etc".to_owned());
            place_of(&header(EntryRole::Data, path, kind))
        };
        assert_eq!(link("pg_tblspc/16384").unwrap(), Place::Link(16384));
        assert_eq!(
            link("pg_wal").unwrap_err().to_string(),
            "entry pg_wal: a link that is not a tablespace's"
        );
    }
}
