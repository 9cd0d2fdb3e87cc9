//! The rows of a file table in memory, packed.
//!
//! Promise: rows come out as they went in and in their order. A row takes about a third of what it takes as a value: its
//! path without what it shares with the path before, numbers as short as they are, one allocation for all.
//! Not here: the form in which rows are stored (tables).

use super::tables::{FileRow, FileSource};
use backstay_codec::Sha256;
use backstay_terms::{EntryKind, EntryPath, EntryRole};
use std::ops::Range;

/// A row that begins a block has its whole path, so that reading may begin there.
const BLOCK: usize = 64;

/// Rows of a file table.
#[derive(Debug, Default)]
pub(super) struct FileList {
    packed: Vec<u8>,
    /// Where each block begins.
    blocks: Vec<usize>,
    length: usize,
    /// The path of the row before.
    before: Vec<u8>,
}

impl FileList {
    /// Appends a row.
    pub fn push(&mut self, row: &FileRow) {
        if self.length.is_multiple_of(BLOCK) {
            self.blocks.push(self.packed.len());
            self.before.clear();
        }
        self.length += 1;
        let path = row.path.as_bytes();
        let shared = path.iter().zip(&self.before).take_while(|(a, b)| a == b).count();
        let rest = path.get(shared..).unwrap_or_default();
        let into = &mut self.packed;
        put_number(into, shared as u64);
        put_text(into, rest);
        self.before.truncate(shared);
        self.before.extend_from_slice(rest);
        put_number(into, row.n.into());
        put_role(into, row.role);
        put_kind(into, &row.kind);
        put_number(into, row.size);
        put_number(into, row.mode.into());
        put_number(into, zigzag(row.modified));
        into.push(match row.from {
            FileSource::Own => 0,
            FileSource::Full => 1,
        });
        into.push(u8::from(row.sha256.is_some()));
        into.extend(row.sha256.iter().flat_map(|digest| digest.0));
    }

    /// Gives back what growing left over.
    pub fn shrink(&mut self) {
        self.packed.shrink_to_fit();
        self.before = Vec::new();
    }

    /// Every row, in order.
    pub fn iter(&self) -> Files<'_> {
        self.range(0..self.length)
    }

    /// The rows at these places.
    pub fn range(&self, places: Range<usize>) -> Files<'_> {
        let ends = places.end.min(self.length);
        let begins = places.start.min(ends);
        let block = begins / BLOCK;
        let at = self.blocks.get(block).copied().unwrap_or(self.packed.len());
        let mut files = Files {
            rest: self.packed.get(at..).unwrap_or_default(),
            place: block * BLOCK,
            ends,
            path: Vec::new(),
        };
        while files.place < begins {
            files.next();
        }
        files
    }
}

/// Rows of a file table, in order.
#[derive(Clone, Debug)]
pub struct Files<'a> {
    rest: &'a [u8],
    place: usize,
    ends: usize,
    path: Vec<u8>,
}

impl Iterator for Files<'_> {
    type Item = FileRow;

    fn next(&mut self) -> Option<FileRow> {
        if self.place >= self.ends {
            return None;
        }
        self.place += 1;
        let row = self.take_row();
        debug_assert!(row.is_some(), "what push wrote is read back");
        row
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.ends.saturating_sub(self.place);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Files<'_> {}

impl Files<'_> {
    fn take_row(&mut self) -> Option<FileRow> {
        let shared = self.number()? as usize;
        self.path.truncate(shared);
        let rest = self.text()?;
        self.path.extend_from_slice(rest);
        Some(FileRow {
            path: EntryPath::new(self.path.clone()).ok()?,
            n: self.number()?.try_into().ok()?,
            role: self.role()?,
            kind: self.kind()?,
            size: self.number()?,
            mode: self.number()?.try_into().ok()?,
            modified: unzigzag(self.number()?),
            from: match self.byte()? {
                0 => FileSource::Own,
                _ => FileSource::Full,
            },
            sha256: match self.byte()? {
                0 => None,
                _ => Some(Sha256(self.bytes(32)?.try_into().ok()?)),
            },
        })
    }

    fn bytes(&mut self, count: usize) -> Option<&'_ [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u64> {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7F).checked_shl(shift)?;
            shift += 7;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
    }

    fn role(&mut self) -> Option<EntryRole> {
        Some(match self.byte()? {
            0 => EntryRole::Data,
            1 => EntryRole::Tablespace(self.number()?.try_into().ok()?),
            2 => EntryRole::Wal,
            3 => EntryRole::History,
            4 => EntryRole::Settings,
            5 => EntryRole::Configuration,
            _ => EntryRole::ServerManifest,
        })
    }

    fn kind(&mut self) -> Option<EntryKind> {
        Some(match self.byte()? {
            0 => EntryKind::File,
            1 => EntryKind::Directory,
            _ => EntryKind::Link(String::from_utf8(self.text()?.to_vec()).ok()?),
        })
    }
}

impl<'a> Files<'a> {
    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.number()? as usize;
        let (text, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(text)
    }
}

fn put_role(into: &mut Vec<u8>, role: EntryRole) {
    into.push(match role {
        EntryRole::Data => 0,
        EntryRole::Tablespace(_) => 1,
        EntryRole::Wal => 2,
        EntryRole::History => 3,
        EntryRole::Settings => 4,
        EntryRole::Configuration => 5,
        EntryRole::ServerManifest => 6,
    });
    if let EntryRole::Tablespace(oid) = role {
        put_number(into, oid.into());
    }
}

fn put_kind(into: &mut Vec<u8>, kind: &EntryKind) {
    match kind {
        EntryKind::File => into.push(0),
        EntryKind::Directory => into.push(1),
        EntryKind::Link(target) => {
            into.push(2);
            put_text(into, target.as_bytes());
        }
    }
}

fn put_text(into: &mut Vec<u8>, text: &[u8]) {
    put_number(into, text.len() as u64);
    into.extend_from_slice(text);
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn put_number(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

/// Small whatever its sign.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn role() -> impl Strategy<Value = EntryRole> {
        prop_oneof![
            Just(EntryRole::Data),
            any::<u32>().prop_map(EntryRole::Tablespace),
            Just(EntryRole::Wal),
            Just(EntryRole::History),
            Just(EntryRole::Settings),
            Just(EntryRole::Configuration),
            Just(EntryRole::ServerManifest),
        ]
    }

    fn kind() -> impl Strategy<Value = EntryKind> {
        prop_oneof![
            Just(EntryKind::File),
            Just(EntryKind::Directory),
            "[a-zé/]{0,9}".prop_map(EntryKind::Link),
        ]
    }

    fn row() -> impl Strategy<Value = FileRow> {
        // Not only text, and often with a common beginning.
        let path = ("(base/[0-9]{1,5}/)?", proptest::collection::vec(1u8..=255, 1..8))
            .prop_map(|(folder, name)| [folder.as_bytes(), &name].concat())
            .prop_filter_map("a path", |path| EntryPath::new(path).ok());
        let numbers = (any::<u32>(), any::<u64>(), any::<u32>(), any::<i64>());
        let rest = (any::<Option<[u8; 32]>>(), any::<bool>());
        (role(), path, kind(), numbers, rest).prop_map(|(role, path, kind, numbers, (digest, own))| {
            let (n, size, mode, modified) = numbers;
            FileRow {
                n,
                role,
                path,
                kind,
                size,
                mode,
                modified,
                sha256: digest.map(Sha256),
                from: if own { FileSource::Own } else { FileSource::Full },
            }
        })
    }

    fn list(rows: &[FileRow]) -> FileList {
        let mut list = FileList::default();
        rows.iter().for_each(|row| list.push(row));
        list.shrink();
        list
    }

    proptest! {
        #[test]
        fn rows_come_out_as_they_went_in(rows in proptest::collection::vec(row(), 0..200)) {
            let list = list(&rows);
            prop_assert_eq!(list.iter().len(), rows.len());
            prop_assert_eq!(list.iter().collect::<Vec<_>>(), rows);
        }

        #[test]
        fn any_part_can_be_read_alone(
            rows in proptest::collection::vec(row(), 0..200), from in 0usize..220, count in 0usize..220,
        ) {
            let ends = (from + count).min(rows.len());
            let expected = rows.get(from.min(ends)..ends).unwrap_or_default();
            let list = list(&rows);
            let found = list.range(from..from + count);
            prop_assert_eq!(found.len(), expected.len());
            prop_assert_eq!(found.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_row_of_a_relation_takes_less_than_sixty_bytes() {
        let rows: Vec<FileRow> = (0..1000u32)
            .map(|n| FileRow {
                n,
                role: EntryRole::Data,
                path: EntryPath::new(format!("base/16384/{}", 16_384 + n)).unwrap(),
                kind: EntryKind::File,
                size: 8192 * u64::from(n),
                mode: 0o600,
                modified: 1_795_000_000,
                sha256: Some(Sha256([7; 32])),
                from: FileSource::Own,
            })
            .collect();
        let bytes = list(&rows).packed.len();
        assert!(bytes < 60 * rows.len(), "{bytes} bytes");
    }
}
