//! Scenarios against a real PostgreSQL 15.
#![allow(clippy::unwrap_used, clippy::panic)]

mod first_loop;
mod outage;
mod stream;
mod targets;
