//! The built program, run as a person runs it.
//!
//! Promise: output is compared whole with the files in `golden`; `BLESS=1` rewrites them.

#![allow(clippy::unwrap_used, clippy::panic)]

mod bad_config;
mod config;
mod documents;
mod golden;
mod key;
mod output;
mod program;
mod wal_fetch;
