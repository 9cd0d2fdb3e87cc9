//! PostgreSQL as a source of bytes and as a place to restore to.
//!
//! This room knows the wire protocol, the replication commands, base backups and WAL of PostgreSQL 13 to 18.
//!
//! Promise: bytes are handed on exactly as the server sent them, and what the server says about them (errors,
//! warnings, checksums) travels with them.
//! Not here: where bytes are stored (repository), when to back up (engine), reading the environment (the binary).

pub mod base_backup;
mod connection;
pub mod conninfo;
pub mod control_file;
mod error;
mod in_place;
pub mod replication;
pub mod restore;
mod source;
pub mod timeline;
mod tls;
pub mod wal;
pub mod wire;

pub use connection::{Answer, Connection, CopyBoth, CopyBothMessage, CopyBothStart, Mode};
pub use conninfo::Conninfo;
pub use error::{PostgresError, Severity, SqlState, Untrusted};
pub use restore::{PostgresDirectory, Reserved, RestoreOptions};
pub use source::{PostgresSource, SlotState, SlotUse};
