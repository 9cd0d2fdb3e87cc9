//! pg_control: who a data directory is, and where its last checkpoint lies.
//!
//! Promise: read only when its checksum holds and its version is one that we know.
//! Source: catalog/pg_control.h of each release; places that differ are in wal::versions. The file's first 32 bytes have
//! kept their form in every version, the layout up to `data_checksum_version` in 13 to 18.
//! Not here: when it is written during a restore (restore).

use crate::wal::page::Fields;
use crate::wal::versions::VersionFacts;
use backstay_terms::{Lsn, SystemIdentifier, Timeline, WalSegmentSize};
use crc32c::crc32c;
use std::fmt;

/// The size of the file (PG_CONTROL_FILE_SIZE).
pub const CONTROL_FILE_BYTES: usize = 8192;
/// A checkpoint position that no WAL holds: a server that trusts it refuses to start.
pub const NO_CHECKPOINT: Lsn = Lsn(0xDEAD);

const CHECKPOINT_AT: usize = 32;

/// What the server did last (DBState).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// Being made by initdb.
    Starting,
    /// Shut down cleanly.
    ShutDown,
    /// A standby, shut down cleanly.
    ShutDownInRecovery,
    /// Shutting down.
    ShuttingDown,
    /// In crash recovery.
    InCrashRecovery,
    /// In archive recovery, or a standby.
    InArchiveRecovery,
    /// Running, or crashed while it ran.
    InProduction,
}

/// The words of pg_controldata.
impl fmt::Display for ClusterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClusterState::Starting => "starting up",
            ClusterState::ShutDown => "shut down",
            ClusterState::ShutDownInRecovery => "shut down in recovery",
            ClusterState::ShuttingDown => "shutting down",
            ClusterState::InCrashRecovery => "in crash recovery",
            ClusterState::InArchiveRecovery => "in archive recovery",
            ClusterState::InProduction => "in production",
        })
    }
}

/// Whether data pages carry checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataChecksums {
    /// They do not.
    Off,
    /// They do, in the form of this version number (1 so far).
    Version(u32),
}

/// What pg_control says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// The cluster.
    pub system: SystemIdentifier,
    /// The version of the file's layout.
    pub control_version: u32,
    /// The version of the system catalogs: differs between major versions, and between betas.
    pub catalog_version: u32,
    /// What the server did last.
    pub state: ClusterState,
    /// Where the last checkpoint record starts.
    pub checkpoint: Lsn,
    /// Where redo begins from there.
    pub redo: Lsn,
    /// The timeline of that checkpoint.
    pub timeline: Timeline,
    /// The timeline before it; differs in the first checkpoint after a promotion.
    pub previous_timeline: Timeline,
    /// In a recovery: where it must at least go before the data is consistent; 0 otherwise.
    pub recovery_end_min: Lsn,
    /// The timeline of that position.
    pub recovery_end_min_timeline: Timeline,
    /// Bytes in a data page.
    pub page_bytes: u32,
    /// Bytes in a WAL page.
    pub wal_page_bytes: u32,
    /// The size of a WAL segment.
    pub segment_size: WalSegmentSize,
    /// Whether data pages carry checksums.
    pub data_checksums: DataChecksums,
}

/// pg_control cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlFileError {
    /// Too short.
    #[error("pg_control has {0} bytes, expected {CONTROL_FILE_BYTES}")]
    Length(usize),
    /// A layout that we do not know.
    #[error("pg_control is of version {0}, which no PostgreSQL from 13 to 18 writes")]
    Version(u32),
    /// Its bytes are not those that were written.
    #[error("pg_control has checksum {found:08X}, computed {computed:08X}")]
    Checksum {
        /// In the file.
        found: u32,
        /// Of its bytes.
        computed: u32,
    },
    /// A field has a value that it cannot have.
    #[error("pg_control: {field} is {value}")]
    Field {
        /// Which.
        field: &'static str,
        /// The value.
        value: u64,
    },
}

impl ControlFileError {
    /// What the person can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Version(_) => "use a server of version 13 to 18 on a little-endian machine",
            _ => "the file is damaged: restore the directory again from a backup",
        }
    }
}

impl ControlFile {
    /// Reads the file's bytes.
    pub fn parse(bytes: &[u8]) -> Result<ControlFile, ControlFileError> {
        let version = checked_version(bytes)?;
        let fields = Fields(bytes);
        let checksum_version = fields.u32(252);
        Ok(ControlFile {
            system: SystemIdentifier(fields.u64(0)),
            control_version: version.control_version,
            catalog_version: fields.u32(12),
            state: state(fields.u32(16))?,
            checkpoint: Lsn(fields.u64(CHECKPOINT_AT)),
            redo: Lsn(fields.u64(40)),
            timeline: Timeline(fields.u32(48)),
            previous_timeline: Timeline(fields.u32(52)),
            recovery_end_min: Lsn(fields.u64(136)),
            recovery_end_min_timeline: Timeline(fields.u32(144)),
            page_bytes: fields.u32(216),
            wal_page_bytes: fields.u32(224),
            segment_size: segment_size(fields.u32(228))?,
            data_checksums: match checksum_version {
                0 => DataChecksums::Off,
                version => DataChecksums::Version(version),
            },
        })
    }
}

/// Puts the checkpoint where no WAL is and makes the checksum right again. With backup_label in place the server never
/// looks at it; without, it refuses to start instead of starting from a checkpoint inside the backup, which would corrupt
/// the data silently.
pub fn poison_checkpoint(bytes: &mut [u8]) -> Result<(), ControlFileError> {
    let version = checked_version(bytes)?;
    put(bytes, CHECKPOINT_AT, &NO_CHECKPOINT.0.to_le_bytes())?;
    let checksum = crc32c(bytes.get(..version.control_crc_at).unwrap_or_default());
    put(bytes, version.control_crc_at, &checksum.to_le_bytes())
}

fn put(bytes: &mut [u8], place: usize, value: &[u8]) -> Result<(), ControlFileError> {
    let length = bytes.len();
    let field = bytes
        .get_mut(place..place + value.len())
        .ok_or(ControlFileError::Length(length))?;
    field.copy_from_slice(value);
    Ok(())
}

fn checked_version(bytes: &[u8]) -> Result<&'static VersionFacts, ControlFileError> {
    if bytes.len() != CONTROL_FILE_BYTES {
        return Err(ControlFileError::Length(bytes.len()));
    }
    let fields = Fields(bytes);
    let number = fields.u32(8);
    let version = VersionFacts::of_control_version(number).ok_or(ControlFileError::Version(number))?;
    let computed = crc32c(bytes.get(..version.control_crc_at).unwrap_or_default());
    let found = fields.u32(version.control_crc_at);
    if found != computed {
        return Err(ControlFileError::Checksum { found, computed });
    }
    Ok(version)
}

fn state(number: u32) -> Result<ClusterState, ControlFileError> {
    Ok(match number {
        0 => ClusterState::Starting,
        1 => ClusterState::ShutDown,
        2 => ClusterState::ShutDownInRecovery,
        3 => ClusterState::ShuttingDown,
        4 => ClusterState::InCrashRecovery,
        5 => ClusterState::InArchiveRecovery,
        6 => ClusterState::InProduction,
        value => {
            return Err(ControlFileError::Field {
                field: "state",
                value: value.into(),
            });
        }
    })
}

fn segment_size(bytes: u32) -> Result<WalSegmentSize, ControlFileError> {
    let refuse = ControlFileError::Field {
        field: "WAL segment size",
        value: bytes.into(),
    };
    WalSegmentSize::new(bytes.into()).ok_or(refuse)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::wal::versions::VERSIONS;

    /// A file of this version that a server would take.
    pub(crate) fn forged(version: &VersionFacts) -> Vec<u8> {
        let mut bytes = vec![0; CONTROL_FILE_BYTES];
        let mut put = |place: usize, value: &[u8]| bytes[place..place + value.len()].copy_from_slice(value);
        put(0, &7_000u64.to_le_bytes());
        put(8, &version.control_version.to_le_bytes());
        put(16, &1u32.to_le_bytes());
        put(32, &0x2000028u64.to_le_bytes());
        put(48, &3u32.to_le_bytes());
        put(228, &(16u32 << 20).to_le_bytes());
        put(252, &1u32.to_le_bytes());
        let checksum = crc32c(&bytes[..version.control_crc_at]);
        bytes[version.control_crc_at..][..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    #[test]
    fn each_version_is_read() {
        for version in &VERSIONS {
            let control = ControlFile::parse(&forged(version)).unwrap();
            assert_eq!(
                (control.system.0, control.timeline, control.state),
                (7000, Timeline(3), ClusterState::ShutDown)
            );
            assert_eq!(
                (control.checkpoint, control.data_checksums),
                (Lsn(0x2000028), DataChecksums::Version(1))
            );
        }
    }

    #[test]
    fn every_flipped_byte_that_counts_is_detected() {
        for version in &VERSIONS {
            let whole = forged(version);
            for place in 0..version.control_crc_at + 4 {
                let mut bytes = whole.clone();
                bytes[place] ^= 0x10;
                assert!(
                    ControlFile::parse(&bytes).is_err(),
                    "a flip at {place} was not noticed"
                );
            }
        }
    }

    #[test]
    fn a_poisoned_file_is_intact_and_its_checkpoint_is_nowhere() {
        for version in &VERSIONS {
            let whole = forged(version);
            let mut bytes = whole.clone();
            poison_checkpoint(&mut bytes).unwrap();
            let expected = ControlFile {
                checkpoint: Lsn(0xDEAD),
                ..ControlFile::parse(&whole).unwrap()
            };
            assert_eq!(ControlFile::parse(&bytes), Ok(expected));
        }
    }

    #[test]
    fn other_files_are_refused() {
        let message = |bytes: &[u8]| ControlFile::parse(bytes).unwrap_err().to_string();
        assert_eq!(message(&[]), "pg_control has 0 bytes, expected 8192");
        assert_eq!(
            message(&[0; 8192]),
            "pg_control is of version 0, which no PostgreSQL from 13 to 18 writes"
        );
        let mut bytes = forged(&VERSIONS[2]);
        bytes[40] = 1;
        assert!(message(&bytes).starts_with("pg_control has checksum "));
        assert_eq!(
            poison_checkpoint(&mut bytes).unwrap_err(),
            ControlFile::parse(&bytes).unwrap_err()
        );
    }
}
