//! A clock that moves only when a test says so.
//!
//! Promise: no sleeper ever waits for real time, and sleepers wake in the order of their moments.
//! A cancelled sleep leaves nothing behind.
//! Not here: tokio's own timers; code under test asks `Clock`, so none run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{oneshot, watch};

use crate::Clock;

/// How often `run_for` lets other tasks have a turn after it woke one.
const TURNS: usize = 32;

/// A simulated clock; clones share the same time.
#[derive(Debug, Clone)]
pub struct SimClock {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    mode: Mode,
    state: Mutex<State>,
    sleeping: watch::Sender<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Sleepers wait for `advance`.
    Waiting,
    /// A sleep returns at once and moves the clock.
    Jumping,
}

#[derive(Debug)]
struct State {
    wall_at_start: Timestamp,
    elapsed: Duration,
    sleepers: BTreeMap<Moment, oneshot::Sender<()>>,
    sleeps_begun: u64,
}

/// When a sleeper wakes; the number keeps those of one instant in the order in which they lay down.
type Moment = (Duration, u64);

impl SimClock {
    /// A clock that stands at 2026-01-01T00:00:00Z until it is advanced.
    pub fn new() -> Self {
        let wall = Timestamp::from_second(1_767_225_600).expect("a date of our own is in range");
        Self::starting_at(wall)
    }

    /// A clock that stands at `wall` until it is advanced.
    pub fn starting_at(wall: Timestamp) -> Self {
        Self::build(wall, Mode::Waiting)
    }

    /// A clock on which a sleep returns at once and moves the time by its length: for retry tests.
    pub fn jumping() -> Self {
        Self::build(Self::new().now(), Mode::Jumping)
    }

    fn build(wall_at_start: Timestamp, mode: Mode) -> Self {
        let state = State {
            wall_at_start,
            elapsed: Duration::ZERO,
            sleepers: BTreeMap::new(),
            sleeps_begun: 0,
        };
        Self {
            shared: Arc::new(Shared {
                mode,
                state: Mutex::new(state),
                sleeping: watch::Sender::new(0),
            }),
        }
    }

    /// Moves the time and wakes everybody whose moment has come, in order. The woken tasks
    /// run afterwards and see the new time; use [`SimClock::run_for`] when they sleep in loops.
    pub fn advance(&self, length: Duration) {
        let until = self.instant().saturating_add(length);
        while self.wake_next(until) {}
        self.state().elapsed = until;
    }

    /// Moves the time sleeper by sleeper, and gives the woken tasks turns to run and to sleep
    /// again at the right time. Deterministic on a current-thread runtime.
    pub async fn run_for(&self, length: Duration) {
        let until = self.instant().saturating_add(length);
        take_turns().await;
        while self.wake_next(until) {
            take_turns().await;
        }
        self.state().elapsed = until;
    }

    /// Steps the wall clock alone, as an administrator or a time server does.
    pub fn step_wall(&self, by: SignedDuration) {
        let mut state = self.state();
        state.wall_at_start = state
            .wall_at_start
            .checked_add(by)
            .expect("tests step within the range of timestamps");
    }

    /// How many tasks sleep now.
    pub fn sleepers(&self) -> usize {
        self.state().sleepers.len()
    }

    /// Returns when at least `count` tasks sleep: the fact to wait for before advancing.
    pub async fn until_sleepers(&self, count: usize) {
        let mut sleeping = self.shared.sleeping.subscribe();
        sleeping
            .wait_for(|now| *now >= count)
            .await
            .expect("the sender lives in self");
    }

    fn wake_next(&self, until: Duration) -> bool {
        let mut state = self.state();
        let Some(first) = state.sleepers.first_entry() else {
            return false;
        };
        let at = first.key().0;
        if at > until {
            return false;
        }
        let sleeper = first.remove();
        state.elapsed = state.elapsed.max(at);
        self.shared.sleeping.send_replace(state.sleepers.len());
        // A sleeper that was cancelled meanwhile has no receiver; that is no error.
        let _cancelled = sleeper.send(());
        true
    }

    fn lie_down(&self, length: Duration) -> (Moment, oneshot::Receiver<()>) {
        let (wake, woken) = oneshot::channel();
        let mut state = self.state();
        state.sleeps_begun += 1;
        let moment = (state.elapsed.saturating_add(length), state.sleeps_begun);
        state.sleepers.insert(moment, wake);
        self.shared.sleeping.send_replace(state.sleepers.len());
        (moment, woken)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let state = self.state();
        state
            .wall_at_start
            .checked_add(state.elapsed)
            .unwrap_or(Timestamp::MAX)
    }

    fn instant(&self) -> Duration {
        self.state().elapsed
    }

    async fn sleep(&self, length: Duration) {
        if self.shared.mode == Mode::Jumping {
            self.advance(length);
            return tokio::task::yield_now().await;
        }
        if length.is_zero() {
            return tokio::task::yield_now().await;
        }
        let (moment, woken) = self.lie_down(length);
        let _bed = Bed { clock: self, moment };
        let _woken = woken.await;
    }
}

/// Takes a sleeper off the list when its future is dropped.
struct Bed<'a> {
    clock: &'a SimClock,
    moment: Moment,
}

impl Drop for Bed<'_> {
    fn drop(&mut self) {
        let mut state = self.clock.state();
        if state.sleepers.remove(&self.moment).is_some() {
            self.clock.shared.sleeping.send_replace(state.sleepers.len());
        }
    }
}

async fn take_turns() {
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests;
