//! What differs between PostgreSQL 13 and 18 in the replication protocol.
//!
//! Promise: no other file asks for a version number.
//! Not here: what differs in WAL (wal::versions). From the manuals and `repl_gram.y` of each; the program's tests run each.

use backstay_terms::ServerVersion;

use super::command::literal;
use crate::error::PostgresError;

/// The grammar and framing of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// 13 and 14: options by position, one copy for each archive.
    Positional,
    /// 15 to 18: options in parentheses, one copy for everything, each message with a type.
    Parenthesised,
}

/// Whether an archive ends with two blocks of zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveTrailer {
    /// It must.
    Required,
    /// The server leaves them out.
    Absent,
}

/// What a base backup does with tablespaces that lie in `pg_tblspc` itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InPlace {
    /// It sends them as any other.
    Sent,
    /// It leaves them out.
    LeftOut,
}

/// Until 15, do_pg_backup_start lists only links as tablespaces.
pub fn tablespaces_in_place(version: ServerVersion) -> InPlace {
    match version.major() {
        ..=15 => InPlace::LeftOut,
        _ => InPlace::Sent,
    }
}

/// What is asked of a base backup.
#[derive(Debug, Clone)]
pub struct BaseBackupOptions {
    /// The label in backup_label and the server's log.
    pub label: String,
    /// How to reach the checkpoint.
    pub checkpoint: backstay_source::Checkpoint,
    /// Upper bound of the server's reading in kB/s.
    pub rate_max: Option<u32>,
}

/// MAXPGPATH is 1024; the rest is room for the server's own words around the label.
const LABEL_BYTES_MAX: usize = 1000;
/// MAX_RATE_LOWER and MAX_RATE_UPPER of basebackup.c; values above 2^32 would wrap silently in the server's scanner.
const RATE_MIN: u32 = 32;
const RATE_MAX: u32 = 1 << 20;

impl Dialect {
    /// The dialect of a server.
    ///
    /// # Errors
    /// `Version` for anything but 13 to 18.
    pub fn of(version: ServerVersion) -> Result<Self, PostgresError> {
        match version.major() {
            13 | 14 => Ok(Self::Positional),
            15..=18 => Ok(Self::Parenthesised),
            _ => Err(PostgresError::Version(version.0)),
        }
    }

    /// The command that starts a base backup: with progress, tablespace map, page checks and a CRC-32C manifest, without
    /// WAL and without waiting for archiving, because we read the WAL ourselves.
    pub fn base_backup(self, options: &BaseBackupOptions) -> String {
        let label = literal(&label(&options.label));
        let rate = options.rate_max.map(|rate| rate.clamp(RATE_MIN, RATE_MAX));
        match self {
            Self::Positional => positional(&label, options.checkpoint, rate),
            Self::Parenthesised => parenthesised(&label, options.checkpoint, rate),
        }
    }

    /// Whether archives end with two blocks of zeroes (manual of 13 and 14, BASE_BACKUP: they are omitted).
    pub fn archive_trailer(self) -> ArchiveTrailer {
        match self {
            Self::Positional => ArchiveTrailer::Absent,
            Self::Parenthesised => ArchiveTrailer::Required,
        }
    }

    /// Whether `READ_REPLICATION_SLOT` exists (15 and later); else the view pg_replication_slots tells.
    pub fn reads_slots(self) -> SlotReading {
        match self {
            Self::Positional => SlotReading::View,
            Self::Parenthesised => SlotReading::Command,
        }
    }
}

/// Where a slot's position is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotReading {
    /// `READ_REPLICATION_SLOT` on a replication connection.
    Command,
    /// `pg_replication_slots` on an ordinary connection.
    View,
}

// The server refuses labels with newlines and long ones; a label is for people, so it is cut rather than refused.
fn label(text: &str) -> String {
    let mut label: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    label.truncate(label.floor_char_boundary(LABEL_BYTES_MAX));
    label
}

fn positional(label: &str, checkpoint: backstay_source::Checkpoint, rate: Option<u32>) -> String {
    let fast = match checkpoint {
        backstay_source::Checkpoint::Fast => " FAST",
        backstay_source::Checkpoint::Spread => "",
    };
    let rate = rate.map(|rate| format!(" MAX_RATE {rate}")).unwrap_or_default();
    format!(
        "BASE_BACKUP LABEL {label} PROGRESS{fast} NOWAIT{rate} TABLESPACE_MAP MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'"
    )
}

// VERIFY_CHECKSUMS is said although it is the default: the server keeps an earlier `false` for the whole session.
fn parenthesised(label: &str, checkpoint: backstay_source::Checkpoint, rate: Option<u32>) -> String {
    let checkpoint = match checkpoint {
        backstay_source::Checkpoint::Fast => "fast",
        backstay_source::Checkpoint::Spread => "spread",
    };
    let rate = rate.map(|rate| format!(", MAX_RATE {rate}")).unwrap_or_default();
    format!(
        "BASE_BACKUP (LABEL {label}, PROGRESS true, CHECKPOINT '{checkpoint}', WAL false, WAIT false{rate}, \
         TABLESPACE_MAP true, VERIFY_CHECKSUMS true, MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C')"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstay_source::Checkpoint;

    fn text(version: u32, checkpoint: Checkpoint, rate_max: Option<u32>) -> String {
        let options = BaseBackupOptions {
            label: "it's\nours".to_owned(),
            checkpoint,
            rate_max,
        };
        Dialect::of(ServerVersion(version)).unwrap().base_backup(&options)
    }

    #[test]
    fn each_dialect_has_its_own_grammar() {
        assert_eq!(
            text(140_012, Checkpoint::Fast, Some(7)),
            "BASE_BACKUP LABEL 'it''s ours' PROGRESS FAST NOWAIT MAX_RATE 32 TABLESPACE_MAP MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'"
        );
        assert_eq!(
            text(150_018, Checkpoint::Spread, None),
            "BASE_BACKUP (LABEL 'it''s ours', PROGRESS true, CHECKPOINT 'spread', WAL false, WAIT false, TABLESPACE_MAP true, \
             VERIFY_CHECKSUMS true, MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C')"
        );
        assert!(text(180_000, Checkpoint::Fast, Some(u32::MAX)).contains("MAX_RATE 1048576,"));
    }

    #[test]
    fn unknown_versions_are_refused() {
        for version in [0, 120_022, 190_000] {
            let error = Dialect::of(ServerVersion(version)).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("PostgreSQL server version {version} is not supported")
            );
        }
    }
}
