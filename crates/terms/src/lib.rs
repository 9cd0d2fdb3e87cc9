//! The field's words as types.
//!
//! Admission rule: a type belongs here when a database administrator would recognise it as a word of the field,
//! and when more than one room needs it.
//! Promise: values are valid by construction; nothing here does I/O, asks the time or draws chance.
//! Not here: how anything is stored (repository), spoken on a wire (postgres) or decided (engine).

mod bytes;
mod durable;
mod entry;
mod ids;
mod log;
mod log_facts;
mod lsn;
mod postgres;
mod target;

pub use bytes::{ByteCount, Rate};
pub use durable::Durable;
pub use entry::{EntryHeader, EntryKind, EntryPath, EntryPathError, EntryRole};
pub use ids::{
    BackupId, EpochId, GenerationId, IdError, RecordId, RunId, SourceName, Suffix, TimedId, WrapId,
};
pub use log::{Branch, EngineKind, Lineage, LogRange, Position, RetentionClass};
pub use log_facts::{LogFacts, LogMark, LogPoint, LogPointKind, RecordBounds, TransactionBounds};
pub use lsn::{Lsn, LsnParseError};
pub use postgres::{
    ServerVersion, SystemIdentifier, Timeline, WalFileName, WalSegmentNumber, WalSegmentSize,
};
pub use target::{RecoveryTarget, TargetError};
