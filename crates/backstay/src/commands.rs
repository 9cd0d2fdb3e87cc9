//! The commands: each turns its arguments into a report or a failure.
//!
//! Promise: a command prints nothing itself but notes, warnings and progress through the session.

pub mod backup;
pub mod config;
pub mod init;
pub mod key;
pub mod restore;
pub mod scratch;
pub mod status;
pub mod stream;
pub mod version;
