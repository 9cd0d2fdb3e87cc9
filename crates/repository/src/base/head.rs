//! The head of a backup: its commit, and all that can be known without its data.
//!
//! Promise: the JSON is the one of the format document, section 4.4; at most 64 KiB; unknown fields are ignored so
//! that later writers may add some, an unknown `format` is refused.
//! Not here: when a head may be written (base::writer, REPO-4).

use crate::RepositoryError;
use crate::layout::BackupPlace;
use backstay_codec::{KeyId, Sha256};
use backstay_terms::{
    BackupId, ByteCount, EngineKind, GenerationId, LogRange, Position, RetentionClass, SourceName,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The largest head, in bytes of JSON.
pub const HEAD_BYTES_MAX: usize = 64 << 10;

/// The longest that an increment may follow its full, in days.
pub const GENERATION_DAYS_MAX: i64 = 28;

/// Full or increment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupKind {
    /// Every page.
    Full,
    /// The pages that changed since the generation's full.
    Increment,
}

impl BackupKind {
    /// The word in ids.
    pub fn name(self) -> &'static str {
        match self {
            BackupKind::Full => "full",
            BackupKind::Increment => "incr",
        }
    }
}

/// Whether the source vouches for the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadVerdict {
    /// Every check held.
    Good,
    /// Complete, but the source's own files were damaged.
    Damaged,
}

/// The ids of a generation's keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadKeyIds {
    /// The data key.
    pub data: KeyId,
    /// The index key.
    pub index: KeyId,
    /// The facts key.
    pub facts: KeyId,
}

/// An object named by name, size and digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedObject {
    /// The last element of its name.
    pub name: String,
    /// The object's bytes.
    pub size: u64,
    /// The object's SHA-256.
    pub sha256: Sha256,
}

/// What a backup holds, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Files, directories and links.
    pub files: u64,
    /// Bytes of the files.
    pub bytes: ByteCount,
    /// Bytes of this backup's objects.
    pub stored: ByteCount,
    /// Packs.
    pub packs: u32,
}

/// The record that ends a base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndPoint {
    /// Its start.
    pub start: Position,
    /// Its checksum.
    pub crc: u32,
}

/// The log that a backup needs to become consistent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadLog {
    /// The system.
    pub system: u64,
    /// The timeline at the stop.
    pub timeline: u32,
    /// Where recovery must begin.
    pub start: Position,
    /// Where the base is consistent.
    pub stop: Position,
    /// Bytes in a file of the log.
    pub segment_size: u64,
    /// The source's clock at or after the stop: microseconds since 2000-01-01 00:00:00 UTC.
    pub stop_time: i64,
    /// The record that ends the base.
    pub end_point: Option<EndPoint>,
}

impl HeadLog {
    /// The positions that the backup itself carries.
    pub fn range(&self) -> LogRange {
        LogRange {
            from: self.start,
            to: self.stop.max(self.start),
        }
    }
}

/// The head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// 1.
    pub format: u32,
    /// The repository's id.
    pub repository: String,
    /// The engine.
    pub service: EngineKind,
    /// The source.
    pub source: SourceName,
    /// The retention class.
    pub class: RetentionClass,
    /// The generation.
    pub generation: GenerationId,
    /// The backup.
    pub backup: BackupId,
    /// Full or increment.
    pub kind: BackupKind,
    /// The generation's full, for an increment.
    pub base: Option<BackupId>,
    /// When the run began, by the store's clock.
    pub created: Timestamp,
    /// When all was stored.
    pub finished: Timestamp,
    /// The promise.
    pub expires_at: Timestamp,
    /// Good or damaged.
    pub verdict: HeadVerdict,
    /// What is damaged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<String>,
    /// The server's version.
    pub version: String,
    /// Backstay's version.
    pub writer: String,
    /// The generation's keys.
    pub key_ids: HeadKeyIds,
    /// The root table.
    pub root: NamedObject,
    /// Numbers.
    pub totals: Totals,
    /// The log it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<HeadLog>,
    /// Facts for the engine's restore.
    pub engine: serde_json::Value,
    /// What the server said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

impl Head {
    /// Where the backup lies.
    pub fn place(&self) -> BackupPlace {
        BackupPlace {
            engine: self.service,
            source: self.source.clone(),
            class: self.class,
            generation: self.generation.clone(),
            backup: self.backup.clone(),
        }
    }

    /// The bytes of the head; refused above 64 KiB.
    pub fn to_json(&self) -> Result<Vec<u8>, RepositoryError> {
        let json = serde_json::to_vec(self).map_err(RepositoryError::encoding)?;
        if json.len() > HEAD_BYTES_MAX {
            let what = format!(
                "the head would be {} bytes long; it may have {HEAD_BYTES_MAX}",
                json.len()
            );
            return Err(RepositoryError::Unencodable { what });
        }
        Ok(json)
    }

    /// Reads a head and compares what it says of itself with where it lies.
    pub fn from_json(json: &[u8], place: &BackupPlace) -> Result<Head, RepositoryError> {
        let object = format!("the head of backup {}", place.backup);
        let head: Head = serde_json::from_slice(json).map_err(|e| RepositoryError::malformed(&object, e))?;
        if head.format != 1 {
            return Err(RepositoryError::NewerFormat {
                object,
                format: head.format,
            });
        }
        // The class is not bound by the sealing: a copy into a longer class is legal and keeps its head.
        let moved = BackupPlace {
            class: head.class,
            ..place.clone()
        };
        if head.place() != moved {
            return Err(RepositoryError::malformed(&object, "it describes another backup"));
        }
        Ok(Head {
            class: place.class,
            ..head
        })
    }

    /// True if the backup counts: good and not past its promise.
    pub fn is_usable(&self, now: Timestamp) -> bool {
        self.verdict == HeadVerdict::Good && now < self.expires_at
    }
}

/// The promise of a backup: `min(created + R, full.created + R + 28 d)`.
pub fn expires_at(class: RetentionClass, created: Timestamp, full_created: Timestamp) -> Timestamp {
    let days = |count: i64| SignedDuration::from_hours(24 * count);
    let own = created.saturating_add(days(class.days()));
    let bound = full_created.saturating_add(days(class.days() + GENERATION_DAYS_MAX));
    match (own, bound) {
        (Ok(own), Ok(bound)) => own.min(bound),
        _ => Timestamp::MAX,
    }
}
