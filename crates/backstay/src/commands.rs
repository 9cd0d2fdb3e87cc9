//! The commands: each turns its arguments into a report or a failure.
//!
//! Promise: a command prints nothing itself but notes, warnings and progress through the session.

pub mod backup;
pub mod check;
pub mod config;
pub mod decrypt;
pub mod expire;
pub mod init;
pub mod key;
pub mod lineage;
pub mod list;
pub mod restore;
pub mod scratch;
pub mod seen;
pub mod show;
pub mod slot;
pub mod status;
pub mod stream;
pub mod verify;
pub mod version;
pub mod wal;
pub mod wal_fetch;
pub mod window;
