//! The repository as a whole: what is written is read back, what was changed is refused, what a crash leaves is sound.
//!
//! Promise: no test sleeps or needs anything but memory; random tests print what repeats them.
//! Not here: names, lineages and tables, which have their tests beside the code.
#![allow(clippy::unwrap_used, clippy::panic)]

mod base;
mod crash;
mod envelopes;
mod envelopes_planted;
mod log;
mod log_index;
mod log_property;
mod moved;
mod pages;
mod raw;
mod settle;
mod support;
mod tamper;
mod twins;
