//! Integration tests against a real PostgreSQL.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod base_backup;
mod connection;
mod received;
mod source;
mod stream_live;
mod tls;
mod wal_real;
