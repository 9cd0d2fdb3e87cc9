//! The store as a whole: every adapter and wrapper against the one suite, crashes, faults, order.
//!
//! Promise: no test sleeps or needs anything but a scratch directory.
//! Not here: names, which have their tests beside the code.
#![allow(clippy::unwrap_used, clippy::panic)]

mod conformance;
mod crash;
mod directory;
mod faults;
mod limit;
mod meddling;
mod order;
mod retry;
mod support;
