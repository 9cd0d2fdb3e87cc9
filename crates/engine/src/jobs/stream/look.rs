//! The regular look at what must be there: the log that this run stored, and the keys that open it.
//!
//! Promise: names are listed, and the wraps of the keys that this process holds are opened; what can be put back is. What
//! stays lost is told once for each attachment.
//! Not here: when to look, and which loss is new (stream::presence).

use super::StreamJob;
use super::cadence::Whose;
use super::presence::Presence;
use crate::EngineError;
use crate::Fact;
use backstay_repository::{
    KeysFate, KeysGone, LogStore, RepositoryError, Stored, Upload, missing, stretches,
};
use backstay_terms::{Branch, EpochId, LogRange};
use std::collections::BTreeSet;
use std::time::Duration;
use tracing::warn;

/// How long a stream that ends waits for its last look.
const LAST_LOOK_MAX: Duration = Duration::from_secs(5);

/// What a look found.
#[derive(Debug)]
pub(super) struct Looked {
    /// Positions that were stored and are gone.
    pub missing: Vec<LogRange>,
    /// Keys that no wrap gave any more.
    pub keys: Vec<KeysGone>,
    /// Months whose records no wrap opened any more; their keys are stored again.
    pub months: Vec<String>,
}

/// Looks for what is held of a branch, and for the keys of the epoch that is running and of those before it.
pub(super) async fn look(
    log: LogStore,
    branch: Branch,
    held: LogRange,
    running: EpochId,
) -> Result<Looked, RepositoryError> {
    // Keys are put back into their own repository alone.
    log.repository().refuse_if_replaced().await?;
    let stored = log.ranges(&branch, Some(held.from)).await?;
    let covered = stretches(stored.iter().map(|stored| &stored.name.range));
    Ok(Looked {
        missing: missing(held, &covered),
        keys: log.keep_keys(&stored, Some(&running)).await?,
        months: log.repository().keep_month_keys().await?,
    })
}

/// Stores a range. Before it counts as stored, and so before anything after it can be confirmed, the repository is asked for.
pub(super) async fn upload(upload: Upload, log: LogStore, whose: Whose) -> Result<Stored, RepositoryError> {
    let stored = upload.run().await?;
    if whose == Whose::Asked {
        log.repository().refuse_if_replaced().await?;
    }
    Ok(stored)
}

/// Looks once more before this process, the only one that can put its keys back, forgets them. A store that does not answer holds
/// nobody up: everything is stored.
///
/// # Errors
/// Another repository lies there by now.
pub(super) async fn look_last(
    job: &StreamJob,
    log: &LogStore,
    running: EpochId,
    (presence, keyless): (&mut Presence, &mut BTreeSet<EpochId>),
) -> Result<(), EngineError> {
    let clock = job.repository.clock();
    let held = presence.look(clock.instant());
    let Some((branch, held)) = held.filter(|(_, held)| !held.is_mark()) else {
        return Ok(());
    };
    let looked = tokio::select! {
        looked = look(log.clone(), branch, held, running) => looked,
        () = clock.sleep(LAST_LOOK_MAX) => {
            warn!("the store does not answer: whether what was stored is still there is not known");
            return Ok(());
        }
    };
    match looked.map_err(EngineError::from) {
        Ok(looked) => tell(job, looked, (presence, keyless)),
        Err(error) if error.is_replaced() => return Err(error),
        Err(error) => warn!(%error, "whether what was stored is still there is not known"),
    }
    Ok(())
}

/// Tells what a look found.
pub(super) fn tell(
    job: &StreamJob,
    looked: Looked,
    (presence, keyless): (&mut Presence, &mut BTreeSet<EpochId>),
) {
    for LogRange { from, to } in presence.missing(looked.missing) {
        job.observer.observe(&Fact::LogLost { from, to, by: None });
    }
    tell_keys(job, looked.keys, keyless);
    for month in looked.months {
        job.observer.observe(&Fact::MonthKeyGone { month });
    }
}

/// Tells of keys that were gone. `known` are the epochs whose keys are lost for good.
pub(super) fn tell_keys(job: &StreamJob, keys: Vec<KeysGone>, known: &mut BTreeSet<EpochId>) {
    for gone in keys {
        if gone.fate == KeysFate::PutBack || known.insert(gone.epoch.clone()) {
            job.observer.observe(&Fact::KeysGone(gone));
        }
    }
}
