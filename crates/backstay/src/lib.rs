//! The program: command line, configuration, wiring and everything that a person sees.
//!
//! Promise: this is the only room that prints, parses configuration or reads the environment. It is a library with a
//! thin `main`, so that tests and generated documents can look at its tables.
//! Not here: what a backup or a restore is (engine).

pub mod access;
pub mod arguments;
pub mod ask;
pub mod checks;
pub mod cli;
pub mod codes;
pub mod commands;
pub mod config;
pub mod demo;
pub mod environment;
pub mod exit;
pub mod failure;
pub mod identity;
pub mod keys;
pub mod logging;
pub mod new_file;
pub mod process;
pub mod render;
pub mod secret;
pub mod session;
pub mod signals;
pub mod suggest;
pub mod time;
pub mod units;
pub mod usage;
pub mod wal_fetch_guard;
pub mod watch;
pub mod wire;
