//! Integration tests against a real PostgreSQL.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod base_backup;
mod connection;
mod received;
mod restore_kit;
mod restore_recovery;
mod restore_refusals;
mod scratch;
mod source;
mod stream_kit;
mod stream_live;
mod stream_slot;
mod tls;
mod wal_real;
