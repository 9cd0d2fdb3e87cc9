//! How a stream stands with the store: what it has received, what of that is stored, and since when nothing was.
//!
//! Promise: shared by the attachment, which says what happens, and by whoever looks while an attachment waits for a store or a
//! source that does not answer. Moments are on the monotonic clock.
//! Not here: when an outage is said (outage), saying it (stream::watching).

use super::outage::{LOUD_AFTER, Outage};
use crate::EngineError;
use backstay_terms::Position;
use jiff::Timestamp;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How a stream stands.
#[derive(Debug, Default)]
pub(crate) struct Standing(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    outage: Outage,
    phase: Phase,
    received: Position,
    stored: Position,
    stored_at: Option<Timestamp>,
    trouble: Option<Trouble>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Not attached: nothing can be received.
    #[default]
    Apart,
    /// Since this moment.
    Attached(Duration),
}

/// What failed last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// In words.
    pub error: String,
    /// What to do.
    pub advice: String,
}

impl Trouble {
    /// An error of an attachment.
    pub fn of(error: &EngineError) -> Trouble {
        Trouble {
            error: error.to_string(),
            advice: error.advice(),
        }
    }
}

/// An outage to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loud {
    /// How long it has lasted.
    pub lasts: Duration,
    /// When log was stored last.
    pub stored_at: Option<Timestamp>,
    /// What failed last, if anything did: a store that does not answer fails at nothing.
    pub trouble: Option<Trouble>,
}

impl Standing {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt to attach begins, or one failed.
    pub fn apart(&self, now: Duration, trouble: Option<Trouble>) {
        let mut state = self.state();
        state.phase = Phase::Apart;
        state.outage.waits(now);
        state.trouble = trouble.or(state.trouble.take());
    }

    /// It is attached, and goes on after `stored`. What failed before is over only when something was stored.
    pub fn attached(&self, now: Duration, stored: Position) {
        let mut state = self.state();
        state.phase = Phase::Attached(now);
        (state.received, state.stored) = (stored, stored);
        if state.trouble.is_none() {
            state.outage = Outage::default();
        }
    }

    /// Everything before `received` has arrived, and before `stored` is stored.
    pub fn received(&self, now: Duration, (received, stored): (Position, Position)) {
        let mut state = self.state();
        (state.received, state.stored) = (received, stored);
        state.outage.waits(now);
    }

    /// Something was stored. Gives back how long nothing was, if that was said.
    pub fn stored(&self, (now, at): (Duration, Timestamp), stored: Position) -> Option<Duration> {
        let mut state = self.state();
        (state.stored_at, state.trouble) = (Some(at), None);
        state.stored = state.stored.max(stored);
        let lasted = state.outage.over(now);
        if state.is_waiting() {
            state.outage.waits(now);
        }
        lasted
    }

    /// Up to where is stored and up to where was received, if that is more.
    pub fn unstored(&self) -> Option<(Position, Position)> {
        let state = self.state();
        state.is_waiting().then_some((state.stored, state.received))
    }

    /// What is to be said now. A stream that is attached and has nothing to store is in no outage; after a while it has none
    /// behind it either.
    pub fn loud(&self, now: Duration) -> Look {
        let mut state = self.state();
        if let (Phase::Attached(since), false) = (state.phase, state.is_waiting()) {
            if now.saturating_sub(since) < LOUD_AFTER {
                return Look::Quiet;
            }
            state.trouble = None;
            return state.outage.over(now).map_or(Look::Quiet, Look::Over);
        }
        let Some(lasts) = state.outage.due(now) else {
            return Look::Quiet;
        };
        Look::Loud(Loud {
            lasts,
            stored_at: state.stored_at,
            trouble: state.trouble.clone(),
        })
    }
}

/// What a look finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing to say.
    Quiet,
    /// An outage is to be said.
    Loud(Loud),
    /// One that was said is over, having lasted so long.
    Over(Duration),
}

impl State {
    fn is_waiting(&self) -> bool {
        self.stored < self.received
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn said(standing: &Standing, until: u32) -> Vec<(u32, bool)> {
        let look = |now: u32| match standing.loud(SECOND * now) {
            Look::Quiet => None,
            Look::Loud(_) => Some((now, true)),
            Look::Over(_) => Some((now, false)),
        };
        (0..until).filter_map(look).collect()
    }

    #[test]
    fn a_stream_that_has_nothing_to_store_is_in_no_outage() {
        let standing = Standing::default();
        standing.apart(Duration::ZERO, None);
        standing.attached(SECOND, Position(7));
        assert_eq!(said(&standing, 1000), []);
        assert_eq!(standing.unstored(), None);
    }

    #[test]
    fn what_arrived_and_is_not_stored_is_an_outage_until_it_is() {
        let standing = Standing::default();
        standing.attached(Duration::ZERO, Position(7));
        standing.received(SECOND * 10, (Position(9), Position(7)));
        assert_eq!(said(&standing, 400), [(70, true), (370, true)]);
        assert_eq!(standing.unstored(), Some((Position(7), Position(9))));
        let at = Timestamp::UNIX_EPOCH;
        assert_eq!(
            standing.stored((SECOND * 500, at), Position(9)),
            Some(SECOND * 490)
        );
        assert_eq!(said(&standing, 2000), []);
    }

    #[test]
    fn an_attempt_to_attach_that_does_not_end_is_an_outage_and_one_that_did_is_over_after_a_quiet_minute() {
        let standing = Standing::default();
        standing.apart(Duration::ZERO, None);
        assert_eq!(said(&standing, 61), [(60, true)]);
        let trouble = Trouble {
            error: "it failed".to_owned(),
            advice: "help it".to_owned(),
        };
        standing.apart(SECOND * 100, Some(trouble));
        standing.attached(SECOND * 200, Position(7));
        assert_eq!(said(&standing, 300), [(260, false)]);
    }
}
