//! The header of a container, and what can be wrong with one.
//!
//! Promise: the table of the format document, section 2. `Header::read` says whether key, name or content is wrong.

use crate::digest::digest;
use crate::key::{KeyClass, KeyId, Salt};

/// Bytes of plaintext in a chunk.
pub const CHUNK: usize = 1 << 16;
/// Bytes of a chunk's tag.
pub(crate) const TAG: usize = 16;
/// Bytes before the first chunk: header and commitment.
pub const HEADER_LENGTH: usize = 112;

const MAGIC: &[u8; 8] = b"BACKSTAY";
const VERSION: u8 = 1;
const SUITE: u8 = 1;
const CHUNK_LOG: u8 = 16;

/// What a container holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Compressed frames of files.
    Pack = 1,
    /// The commit of a backup.
    Head = 2,
    /// The table of tables.
    RootTable = 3,
    /// The packs.
    PackList = 4,
    /// The files.
    FileTable = 5,
    /// Which bytes lie where.
    ExtentTable = 6,
    /// Where frames lie.
    FrameTable = 7,
    /// The server's own manifest.
    ServerManifest = 8,
    /// Keyed hashes of pages.
    PageIndex = 9,
    /// What is known about a range.
    RangeIndex = 10,
    /// A range's bytes.
    RangeData = 11,
    /// Range indexes of an hour.
    LogIndex = 12,
    /// Where a stream attached.
    LineageRecord = 13,
    /// A timeline history file.
    History = 14,
    /// A run.
    Run = 15,
    /// A drill.
    Drill = 16,
    /// An audit record.
    Audit = 17,
    /// A hold.
    Hold = 18,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 18] = [
        Kind::Pack,
        Kind::Head,
        Kind::RootTable,
        Kind::PackList,
        Kind::FileTable,
        Kind::ExtentTable,
        Kind::FrameTable,
        Kind::ServerManifest,
        Kind::PageIndex,
        Kind::RangeIndex,
        Kind::RangeData,
        Kind::LogIndex,
        Kind::LineageRecord,
        Kind::History,
        Kind::Run,
        Kind::Drill,
        Kind::Audit,
        Kind::Hold,
    ];

    /// The class of key that seals it.
    pub fn key_class(self) -> KeyClass {
        match self {
            Kind::Pack | Kind::FileTable | Kind::ExtentTable | Kind::FrameTable => KeyClass::Data,
            Kind::ServerManifest | Kind::RangeData => KeyClass::Data,
            Kind::PageIndex => KeyClass::Index,
            _ => KeyClass::Facts,
        }
    }

    fn from_byte(byte: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Which of the three is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The key.
    Key,
    /// The name.
    Name,
    /// The content.
    Content,
}

/// A container cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// It does not begin like one.
    #[error("content: {name} is not a Backstay object")]
    NotAContainer {
        /// The logical name.
        name: String,
    },
    /// A newer or damaged format.
    #[error(
        "content: {name} has format version {version} and suite {suite}; this program opens version 1, suite 1"
    )]
    UnknownFormat {
        /// The logical name.
        name: String,
        /// The version found.
        version: u8,
        /// The suite found.
        suite: u8,
    },
    /// It holds something else.
    #[error("content: {name} holds kind {found}, not {expected:?}")]
    WrongKind {
        /// The logical name.
        name: String,
        /// The kind expected.
        expected: Kind,
        /// The kind found.
        found: u8,
    },
    /// It is sealed with another key.
    #[error("key: {name} is sealed with key {found}, not with {given}")]
    WrongKey {
        /// The logical name.
        name: String,
        /// The key that it names.
        found: KeyId,
        /// The key at hand.
        given: KeyId,
    },
    /// It was written under another name.
    #[error("name: {name} was written under another name")]
    WrongName {
        /// The logical name.
        name: String,
    },
    /// It has been changed.
    #[error("content: {name} is damaged: {what}")]
    Damaged {
        /// The logical name.
        name: String,
        /// Where.
        what: String,
    },
}

impl UnsealError {
    /// Which of the three is wrong.
    pub fn cause(&self) -> Cause {
        match self {
            Self::WrongKey { .. } => Cause::Key,
            Self::WrongName { .. } => Cause::Name,
            _ => Cause::Content,
        }
    }
}

/// The first 80 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    kind: u8,
    plaintext_length: u32,
    key_id: KeyId,
    name_check: [u8; 16],
    salt: Salt,
}

impl Header {
    pub(crate) fn new(kind: Kind, plaintext_length: u32, key_id: KeyId, name: &str, salt: Salt) -> Header {
        Header {
            kind: kind as u8,
            plaintext_length,
            key_id,
            name_check: name_check(name),
            salt,
        }
    }

    /// Reads the header of the container that `bytes` begin with, and compares the name.
    pub fn read(bytes: &[u8], name: &str) -> Result<Header, UnsealError> {
        let own = || name.to_owned();
        let short = || UnsealError::Damaged {
            name: own(),
            what: "it is shorter than a header".into(),
        };
        if bytes.get(..8).is_none_or(|magic| magic != MAGIC) {
            return Err(UnsealError::NotAContainer { name: own() });
        }
        let byte = |at: usize| bytes.get(at).copied().ok_or_else(short);
        let (version, suite) = (byte(8)?, byte(9)?);
        if (version, suite, byte(11)?) != (VERSION, SUITE, CHUNK_LOG) {
            return Err(UnsealError::UnknownFormat {
                name: own(),
                version,
                suite,
            });
        }
        if bytes.len() < HEADER_LENGTH {
            return Err(short());
        }
        let header = Header {
            kind: byte(10)?,
            plaintext_length: u32::from_be_bytes(array(bytes, 12).ok_or_else(short)?),
            key_id: KeyId(array(bytes, 16).ok_or_else(short)?),
            name_check: array(bytes, 32).ok_or_else(short)?,
            salt: Salt(array(bytes, 48).ok_or_else(short)?),
        };
        if header.name_check != name_check(name) {
            return Err(UnsealError::WrongName { name: own() });
        }
        Ok(header)
    }

    pub(crate) fn check_kind(&self, expected: Kind, name: &str) -> Result<(), UnsealError> {
        if Kind::from_byte(self.kind) == Some(expected) {
            return Ok(());
        }
        Err(UnsealError::WrongKind {
            name: name.to_owned(),
            expected,
            found: self.kind,
        })
    }

    /// The header's bytes before the salt: what the object's key binds.
    pub(crate) fn bound(&self) -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&[VERSION, SUITE, self.kind, CHUNK_LOG]);
        bytes[12..16].copy_from_slice(&self.plaintext_length.to_be_bytes());
        bytes[16..32].copy_from_slice(&self.key_id.0);
        bytes[32..48].copy_from_slice(&self.name_check);
        bytes
    }

    /// Bytes of plaintext.
    pub fn plaintext_length(&self) -> u64 {
        u64::from(self.plaintext_length)
    }

    /// The key that it is sealed with.
    pub fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// Its salt.
    pub fn salt(&self) -> &Salt {
        &self.salt
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn name_check(name: &str) -> [u8; 16] {
    let digest = digest(&[b"backstay/1/name\0", name.as_bytes()].concat());
    let mut check = [0; 16];
    check.copy_from_slice(&digest.0[..16]);
    check
}

/// The length of the container of so much plaintext.
pub fn container_length(plaintext: u64) -> u64 {
    let chunks = plaintext.div_ceil(CHUNK as u64).max(1);
    HEADER_LENGTH as u64 + plaintext + chunks * TAG as u64
}

/// The plaintext of a container of this length; none if no container is so long.
pub fn plaintext_length(container: u64) -> Option<u64> {
    let body = container.checked_sub(HEADER_LENGTH as u64)?;
    let chunks = body.div_ceil((CHUNK + TAG) as u64).max(1);
    let plaintext = body.checked_sub(chunks * TAG as u64)?;
    (container_length(plaintext) == container && plaintext <= u64::from(u32::MAX)).then_some(plaintext)
}
