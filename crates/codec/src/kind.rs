//! The kinds of sealed objects, and the key that seals each.
//!
//! Promise: the numbers and key classes of the format document, section 2; a number is never given a second meaning.

use crate::key::KeyClass;
use std::fmt;

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

    /// The words of the format document.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Pack => "pack",
            Kind::Head => "head",
            Kind::RootTable => "root table",
            Kind::PackList => "pack list",
            Kind::FileTable => "file table",
            Kind::ExtentTable => "extent table",
            Kind::FrameTable => "frame table",
            Kind::ServerManifest => "server manifest",
            Kind::PageIndex => "page index",
            Kind::RangeIndex => "range index",
            Kind::RangeData => "range data",
            Kind::LogIndex => "log index",
            Kind::LineageRecord => "lineage record",
            Kind::History => "history file",
            Kind::Run => "run record",
            Kind::Drill => "drill record",
            Kind::Audit => "audit record",
            Kind::Hold => "hold",
        }
    }

    /// The kind with this number; none for a number that this version does not know.
    pub fn with_number(number: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Its number in headers.
    pub fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_numbers_of_the_format_document() {
        let numbers: Vec<u8> = Kind::ALL.iter().map(|kind| kind.number()).collect();
        assert_eq!(numbers, (1..=18).collect::<Vec<u8>>());
        assert_eq!((Kind::with_number(0), Kind::with_number(19)), (None, None));
    }

    #[test]
    fn each_kind_is_sealed_by_the_class_of_the_format_document() {
        let of = |class| {
            Kind::ALL
                .into_iter()
                .filter(move |kind| kind.key_class() == class)
        };
        let numbers = |class| of(class).map(Kind::number).collect::<Vec<u8>>();
        assert_eq!(numbers(KeyClass::Data), [1, 5, 6, 7, 8, 11]);
        assert_eq!(numbers(KeyClass::Index), [9]);
        assert_eq!(
            numbers(KeyClass::Facts),
            [2, 3, 4, 10, 12, 13, 14, 15, 16, 17, 18]
        );
    }
}
