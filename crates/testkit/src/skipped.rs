//! Tests that this machine or this user cannot run.
//!
//! Promise: none passes in silence; `scripts/test` counts and shows these lines.

/// Says that a test, or a part of one, did not run, and what it would have needed.
pub fn skipped(what: &str, why: &str) {
    println!("skipped: {what}: {why}");
}
