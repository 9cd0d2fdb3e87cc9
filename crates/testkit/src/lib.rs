//! Real servers, crash points and fakes for tests.
//!
//! Promise: what is started here is stopped here, and its files are removed.
//! Not here: anything that the program needs to run.

#![allow(clippy::unwrap_used, clippy::panic)]

pub mod pg;
mod skipped;

pub use skipped::skipped;
