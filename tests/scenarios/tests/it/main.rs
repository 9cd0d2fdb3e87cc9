//! Scenarios against a real PostgreSQL 15.
#![allow(clippy::unwrap_used, clippy::panic)]

mod crashes;
mod first_loop;
mod golden;
mod other_engines;
mod outage;
mod stream;
mod targets;
