//! The regular look at what must be there: the log that this run stored, and the keys that open it.
//!
//! Promise: names are listed, and the wraps of the keys that this process holds are opened; what can be put back is. What
//! stays lost is told once for each attachment.
//! Not here: when to look, and which loss is new (stream::presence).

use super::StreamJob;
use crate::Fact;
use backstay_repository::{KeysFate, KeysGone, LogStore, RepositoryError, missing, stretches};
use backstay_terms::{Branch, EpochId, LogRange};
use std::collections::BTreeSet;

/// What a look found.
#[derive(Debug)]
pub(super) struct Looked {
    /// Positions that were stored and are gone.
    pub missing: Vec<LogRange>,
    /// Keys that no wrap gave any more.
    pub keys: Vec<KeysGone>,
}

/// Looks for what is held of a branch, and for the keys of the epoch that is running and of those before it.
pub(super) async fn look(
    log: LogStore,
    branch: Branch,
    held: LogRange,
    running: EpochId,
) -> Result<Looked, RepositoryError> {
    let stored = log.ranges(&branch, Some(held.from)).await?;
    let covered = stretches(stored.iter().map(|stored| &stored.name.range));
    Ok(Looked {
        missing: missing(held, &covered),
        keys: log.keep_keys(&stored, Some(&running)).await?,
    })
}

/// Tells of keys that were gone. `known` are the epochs whose keys are lost for good.
pub(super) fn tell_keys(job: &StreamJob, keys: Vec<KeysGone>, known: &mut BTreeSet<EpochId>) {
    for gone in keys {
        if gone.fate == KeysFate::PutBack || known.insert(gone.epoch.clone()) {
            job.observer.observe(&Fact::KeysGone(gone));
        }
    }
}
