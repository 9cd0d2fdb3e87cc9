//! Looks at a stream from beside: says loudly that nothing is stored, and ends one that was stopped and cannot end.
//!
//! Promise: whatever an attachment waits for, an outage is said, and a stop ends within [`STOP_MAX`] and the little that asking
//! the source takes. Nothing is confirmed here.
//! Not here: what is received and stored (stream::attachment), when an outage is said (stream::outage).

use super::standing::{Look, Loud, Standing, Trouble};
use super::{StreamJob, Wish, stop_wished};
use crate::{EngineError, Fact};
use backstay_repository::{RepositoryError, StoreError};
use backstay_source::{Kept, LogSource, SourceError, SourceErrorKind};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;

/// How long a stream that is stopped has for its last writes. Together with what follows it stays below half a minute.
const STOP_MAX: Duration = Duration::from_secs(20);

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long the source may take to tell what it keeps.
const KEPT_MAX: Duration = Duration::from_secs(5);

/// Says each outage, for as long as it is polled.
pub(super) async fn watch(job: &StreamJob, log: &dyn LogSource, standing: &Standing) -> Infallible {
    let clock = job.repository.clock();
    loop {
        clock.sleep(LOOK_EVERY).await;
        match standing.loud(clock.instant()) {
            Look::Quiet => {}
            Look::Loud(loud) => tell(job, log, loud).await,
            Look::Over(lasted) => tell_over(job, lasted),
        }
    }
}

async fn tell(job: &StreamJob, log: &dyn LogSource, loud: Loud) {
    let Loud {
        lasts,
        stored_at: stored,
        trouble,
    } = loud;
    // What is tried again now is nearer to the cause than what ended the last attempt.
    let now = job.repository.store().trouble().map(RepositoryError::Store);
    let now = now.map(|error| Trouble::of(&error.into()));
    let Trouble { error, advice } = now.or(trouble).unwrap_or_else(|| Trouble {
        error: "no answer comes".to_owned(),
        advice: "look whether the store of the repository and the server answer".to_owned(),
    });
    let kept = kept(job, log).await;
    job.observer.observe(&Fact::Outage {
        error,
        advice,
        lasts_ms: lasts.as_millis() as u64,
        stored,
        kept,
    });
}

/// Says that log is stored again.
pub(super) fn tell_over(job: &StreamJob, lasted: Duration) {
    let lasted_ms = lasted.as_millis() as u64;
    job.observer.observe(&Fact::OutageOver { lasted_ms });
}

/// None where the source does not tell now.
async fn kept(job: &StreamJob, log: &dyn LogSource) -> Option<Kept> {
    tokio::select! {
        kept = log.kept() => kept.ok().flatten(),
        () = job.repository.clock().sleep(KEPT_MAX) => None,
    }
}

/// Returns when a stop was asked for and has not come to its end.
pub(super) async fn overdue(job: &StreamJob, mut wish: watch::Receiver<Wish>) {
    stop_wished(&mut wish).await;
    job.repository.clock().sleep(STOP_MAX).await;
}

/// What a stop that did not come to its end is ended with.
pub(super) fn cut_short(job: &StreamJob, standing: &Standing) -> EngineError {
    let trouble = job.repository.store().trouble();
    if trouble.is_none() && standing.unstored().is_none() {
        let what = "what was being done did not end after the stop; everything received is stored";
        let advice = "look whether the server and the store of the repository answer; nothing is lost";
        return SourceError::new(SourceErrorKind::Unreachable, what, advice).into();
    }
    let silent = || StoreError::silent(STOP_MAX);
    RepositoryError::Store(trouble.unwrap_or_else(silent)).into()
}

/// Says what a stop left unstored.
pub(super) async fn tell_unstored(job: &StreamJob, log: &dyn LogSource, standing: &Standing) {
    if let Some((stored, received)) = standing.unstored() {
        let kept = kept(job, log).await;
        job.observer.observe(&Fact::StoppedUnstored {
            stored,
            received,
            kept,
        });
    }
}
