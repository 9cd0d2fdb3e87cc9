//! Bases: how a backup is written and read.

mod cursor;
mod file_list;
mod frames;
mod head;
mod headless;
mod heads;
mod order;
mod packs;
mod reader;
mod survey;
mod table_reader;
mod table_writer;
mod tables;
mod writer;

pub use cursor::{Cursor, PackReading};
pub(crate) use frames::LEVEL;
pub use head::{
    BackupKind, EndPoint, Head, HeadKeyIds, HeadLog, HeadVerdict, NamedObject, Totals, expires_at,
};
pub use headless::Headless;
pub use heads::{HeadsSeen, UnreadableHead};
pub use order::oldest_first;
pub use reader::BaseReader;
pub(crate) use table_writer::required;
pub(crate) use tables::lines;
pub use tables::{FileRow, FileSource};
pub use writer::{BackupOrder, BackupSummary, BaseWriter};
