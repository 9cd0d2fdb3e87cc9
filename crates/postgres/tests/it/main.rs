//! Integration tests against a real PostgreSQL.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod connection;
mod stream_live;
mod wal_real;
