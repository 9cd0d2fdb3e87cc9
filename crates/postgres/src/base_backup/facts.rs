//! What a restore needs to know about a base backup.
//!
//! Promise: only additions: a field once written is read for ever. Never secret.
//! Not here: using them (restore).

use backstay_terms::{Lsn, ServerVersion, SystemIdentifier, Timeline, WalSegmentSize};
use serde::{Deserialize, Serialize};

/// The facts of one base backup; `BaseEnd::engine_facts` in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseFacts {
    /// The server's version.
    pub version: ServerVersion,
    /// The cluster.
    pub system: SystemIdentifier,
    /// The size of WAL segments in bytes.
    pub wal_segment_size: WalSegmentSize,
    /// Whether data pages carry checksums.
    pub data_checksums: DataChecksums,
    /// Where recovery begins.
    pub start: Lsn,
    /// Where the backup is consistent.
    pub stop: Lsn,
    /// The start of the last record before the stop: the recovery target, inclusive, of a restore that has nothing but
    /// this backup. PostgreSQL 15 ends `recovery_target = 'immediate'` with FATAL when no record follows the stop (measured).
    pub last_record: Lsn,
    /// The timeline at the start, which is that at the stop.
    pub timeline: Timeline,
    /// Tablespaces outside the data directory.
    pub tablespaces: Vec<TablespaceFact>,
    /// Where tablespaces were made outside of the data directory between start and stop: replaying the log writes there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tablespaces_made: Vec<String>,
    /// The role that initdb made, which is a superuser for ever, by its name at the backup; none: it could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superuser: Option<String>,
}

/// Whether data pages carry checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataChecksums {
    /// They do, and the server checked them while sending.
    On,
    /// They do not.
    Off,
}

/// A tablespace and where it lay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablespaceFact {
    /// Its object identifier.
    pub oid: u32,
    /// The absolute path at the server.
    pub location: String,
}
