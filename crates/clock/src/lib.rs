//! Time and chance, asked for through ports.
//!
//! Promise: nothing else in the workspace reads the system's clock or waits on it,
//! so every wait, deadline and retry can be driven by a test.
//! Not here: calendars and recovery targets (terms), the system's random numbers (repository).

mod backoff;
mod chance;
mod deadline;
mod printed;
#[cfg(any(test, feature = "testing"))]
mod sim;
mod system;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

pub use backoff::Backoff;
pub use chance::{Chance, SeededChance};
pub use deadline::Deadline;
pub use printed::print_duration;
#[cfg(any(test, feature = "testing"))]
pub use sim::SimClock;
pub use system::SystemClock;

/// Where every part of Backstay asks for the time.
#[async_trait]
pub trait Clock: fmt::Debug + Send + Sync {
    /// The wall clock. It may step in either direction: for names and records, never for measuring.
    fn now(&self) -> Timestamp;

    /// Monotonic time since an arbitrary start: for measuring and for deadlines.
    fn instant(&self) -> Duration;

    /// Returns when `length` has passed on [`Clock::instant`]. Dropping the future cancels the wait.
    async fn sleep(&self, length: Duration);
}
