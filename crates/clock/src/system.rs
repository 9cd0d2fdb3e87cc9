//! The machine's own clock.
//!
//! Promise: `instant` never goes backwards; `sleep` waits at least as long as asked.
//! Not here: correcting a wrong wall clock; a store's Date header does that (engine).

use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;

use crate::Clock;

/// The clock of a running program. `sleep` needs a tokio runtime with its timer enabled.
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose `instant` counts from now.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn instant(&self) -> Duration {
        self.start.elapsed()
    }

    async fn sleep(&self, length: Duration) {
        tokio::time::sleep(length).await;
    }
}
