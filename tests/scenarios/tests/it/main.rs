//! Scenarios against a real PostgreSQL 15.
#![allow(clippy::unwrap_used, clippy::panic)]

mod border;
mod crashes;
mod damage;
mod delivery;
mod expire;
mod fake;
mod fetch;
mod first_loop;
mod full;
mod gap;
mod golden;
mod jobs_sweep;
mod lineages;
mod loss;
mod memory;
mod other_engines;
mod outage;
mod python;
mod refusals;
mod rivals;
mod shelf;
mod stream;
mod targets;
mod unreadable;
mod verify;
