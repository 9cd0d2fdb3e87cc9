//! The commands of a replication connection.
//!
//! Promise: every command is built and its answer read in one place; what differs between server versions is in `version`.
//! Not here: the wire (wire, connection), base backups (base_backup).

pub mod command;
pub mod feed;
pub mod log_reader;
pub mod stream;
pub mod version;
