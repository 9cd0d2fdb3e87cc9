//! The tables of a backup: which files, where their bytes lie, in which packs.
//!
//! Promise: encodings are those of the format document, section 4.2; decoding checks lengths and refuses what does
//! not add up; `from_records(to_records(x)) == x`.
//! Not here: sealing and storing (base::writer, base::reader).

use crate::RepositoryError;
use backstay_codec::{Salt, Sha256};
use backstay_terms::{EntryHeader, EntryKind, EntryPath, EntryRole};
use serde::{Deserialize, Serialize};

/// A table holds at most this much before compression.
pub const TABLE_BYTES_MAX: usize = 32 << 20;

/// What a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableKind {
    /// The packs.
    PackList,
    /// The files.
    FileTable,
    /// Which bytes of a file lie in which frame.
    ExtentTable,
    /// Where each frame lies.
    FrameTable,
    /// The server's own manifest.
    ServerManifest,
}

/// A table as the root table names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRow {
    /// `t0001`.
    pub name: String,
    /// What it is.
    pub kind: TableKind,
    /// The object's bytes.
    pub size: u64,
    /// Bytes before compression.
    pub plain: u64,
    /// The object's SHA-256.
    pub sha256: Sha256,
}

/// The root table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootTable {
    /// 1.
    pub format: u32,
    /// How many packs there are.
    pub packs: u32,
    /// Every other table, in reading order.
    pub tables: Vec<TableRow>,
}

/// A pack as the pack list names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackRow {
    /// `p00000`.
    pub name: String,
    /// The object's bytes.
    pub size: u64,
    /// The object's SHA-256.
    pub sha256: Sha256,
    /// The salt of its container.
    pub salt: Salt,
}

/// Where the bytes of a file come from that its own extents do not cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSource {
    /// There are none.
    Own,
    /// From the file of the same role and path in the generation's full.
    Full,
}

/// A file, directory or link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRow {
    /// The entry's number.
    pub n: u32,
    /// What it is for.
    pub role: EntryRole,
    /// Its path.
    pub path: EntryPath,
    /// File, directory or link.
    pub kind: EntryKind,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970-01-01 00:00:00 UTC.
    pub modified: i64,
    /// SHA-256 of the content, for files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Where other bytes come from.
    pub from: FileSource,
}

impl FileRow {
    /// The row of an entry whose content has this digest.
    pub fn new(n: u32, header: EntryHeader, sha256: Option<Sha256>) -> FileRow {
        let EntryHeader {
            role,
            path,
            kind,
            size,
            mode,
            modified,
        } = header;
        FileRow {
            n,
            role,
            path,
            kind,
            size,
            mode,
            modified,
            sha256,
            from: FileSource::Own,
        }
    }

    /// The entry as its source announced it.
    pub fn header(&self) -> EntryHeader {
        let FileRow {
            role,
            path,
            kind,
            size,
            mode,
            modified,
            ..
        } = self.clone();
        EntryHeader {
            role,
            path,
            kind,
            size,
            mode,
            modified,
        }
    }
}

/// `length` bytes of entry `entry` at `offset` are the frame's plaintext from `skip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    /// The entry's number.
    pub entry: u32,
    /// The frame's number.
    pub frame: u32,
    /// Bytes of the frame's plaintext before the extent.
    pub skip: u32,
    /// How many bytes.
    pub length: u32,
    /// Where in the entry.
    pub offset: u64,
}

/// Where a frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRow {
    /// The pack's number.
    pub pack: u32,
    /// Where in the pack's plaintext.
    pub position: u32,
    /// Its compressed length.
    pub compressed: u32,
    /// Its plain length.
    pub plain: u32,
}

/// A record of fixed length in a binary table.
pub trait Record: Sized {
    /// Bytes of one record.
    const LENGTH: usize;
    /// Appends the record.
    fn encode(&self, into: &mut Vec<u8>);
    /// Reads a record of `LENGTH` bytes.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes)
}

impl Record for Extent {
    const LENGTH: usize = 24;

    fn encode(&self, into: &mut Vec<u8>) {
        for number in [self.entry, self.frame, self.skip, self.length] {
            into.extend_from_slice(&number.to_be_bytes());
        }
        into.extend_from_slice(&self.offset.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Extent> {
        let word = |place: usize| u32_at(bytes, 4 * place);
        Some(Extent {
            entry: word(0)?,
            frame: word(1)?,
            skip: word(2)?,
            length: word(3)?,
            offset: u64_at(bytes, 16)?,
        })
    }
}

impl Record for FrameRow {
    const LENGTH: usize = 16;

    fn encode(&self, into: &mut Vec<u8>) {
        for number in [self.pack, self.position, self.compressed, self.plain] {
            into.extend_from_slice(&number.to_be_bytes());
        }
    }

    fn decode(bytes: &[u8]) -> Option<FrameRow> {
        let word = |place: usize| u32_at(bytes, 4 * place);
        Some(FrameRow {
            pack: word(0)?,
            position: word(1)?,
            compressed: word(2)?,
            plain: word(3)?,
        })
    }
}

/// Reads a binary table.
pub fn records<R: Record>(bytes: &[u8], object: &str) -> Result<Vec<R>, RepositoryError> {
    let refuse =
        || RepositoryError::malformed(object, format!("its length is not a multiple of {}", R::LENGTH));
    let chunks = bytes.chunks(R::LENGTH);
    chunks.map(|chunk| R::decode(chunk).ok_or_else(refuse)).collect()
}

/// Reads a table of JSON lines.
pub fn lines<T: serde::de::DeserializeOwned>(bytes: &[u8], object: &str) -> Result<Vec<T>, RepositoryError> {
    line_by_line(bytes, object).collect()
}

/// The same, without holding more than one row.
pub fn line_by_line<'a, T: serde::de::DeserializeOwned>(
    bytes: &'a [u8],
    object: &'a str,
) -> impl Iterator<Item = Result<T, RepositoryError>> + 'a {
    let filled = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    filled.map(move |line| serde_json::from_slice(line).map_err(|e| RepositoryError::malformed(object, e)))
}

/// Appends one JSON line.
pub fn push_line<T: Serialize>(row: &T, into: &mut Vec<u8>) -> Result<(), RepositoryError> {
    serde_json::to_writer(&mut *into, row).map_err(RepositoryError::encoding)?;
    into.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_are_read_back(words in proptest::collection::vec(any::<(u32, u32, u32, u32, u64)>(), 0..50)) {
            let extents: Vec<Extent> = words
                .iter()
                .map(|(entry, frame, skip, length, offset)| Extent {
                    entry: *entry, frame: *frame, skip: *skip, length: *length, offset: *offset,
                })
                .collect();
            let mut bytes = Vec::new();
            extents.iter().for_each(|extent| extent.encode(&mut bytes));
            prop_assert_eq!(records::<Extent>(&bytes, "t").unwrap(), extents);
        }

        #[test]
        fn a_torn_table_is_refused(length in 1usize..200) {
            let whole = length % FrameRow::LENGTH == 0;
            prop_assert_eq!(records::<FrameRow>(&vec![0; length], "t").is_ok(), whole);
        }
    }
}
