//! The commands: each turns its arguments into a report or a failure.
//!
//! Promise: a command prints nothing itself but notes, warnings and progress through the session.

pub mod config;
pub mod key;
pub mod version;
