//! The write-ahead log as bytes: pages, records, what they mean, and where a recovery target lies in them.
//!
//! Promise: nothing here does I/O; every check that PostgreSQL's own reader makes is made, plus those that tell a
//! flipped byte from an end of the log.
//! Not here: how the bytes arrive (replication::stream), where they are kept (repository).

pub mod facts;
#[cfg(test)]
pub(crate) mod forge;
pub mod page;
pub mod record;
pub mod scan;
pub mod versions;
pub mod walker;

pub use facts::FactsOfPiece;
pub use page::{Damage, WalDamage, WalIdentity};
pub use record::{CheckpointKind, Ended, Meaning, Record};
pub use scan::PostgresLog;
pub use versions::VersionFacts;
pub use walker::{EndOfWal, LastRecord, Walker};
