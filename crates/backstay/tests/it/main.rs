//! The built program, run as a person runs it.
//!
//! Promise: output is compared whole with the files in `golden`; `BLESS=1` rewrites them.

#![allow(clippy::unwrap_used, clippy::panic)]

mod ahead;
mod bad_config;
mod bad_repository;
mod bad_server;
mod config;
mod demo;
mod dialogue;
mod documents;
mod expire;
mod full_target;
mod golden;
mod in_place;
mod json_page;
mod key;
mod lineage;
mod live;
mod lost;
mod majors;
mod mask;
mod mounted;
mod output;
mod past;
mod program;
mod progress;
mod rare;
mod restore_apart;
mod restore_fetch;
mod restore_odd;
mod restore_words;
mod retention;
mod runs;
mod signals;
mod standby;
mod terminal;
mod tree;
mod unreadable;
mod wal_fetch;
mod whole_loop;
