//! What a restore says whose target is full in the middle.
//!
//! Promise: how much is missing, counted when it failed; what it has written itself counts as free, because running it again
//! removes that first.
//! Not here: the refusal beforehand (the adapter's `inspect`).

use super::RestoreJob;
use crate::EngineError;
use backstay_source::{SourceError, SourceErrorKind, Space};
use backstay_terms::ByteCount;

/// The same error with figures, if it is that no space is left.
pub(super) fn counted(job: &RestoreJob, error: EngineError) -> EngineError {
    match error {
        EngineError::Source(error) if error.kind == SourceErrorKind::NoSpace => {
            let (need, _) = job.need();
            let what = match job.target.space(&need) {
                Ok(space) => format!("{}; {}", error.what, words(space)),
                Err(_) => error.what,
            };
            SourceError { what, ..error }.into()
        }
        error => error,
    }
}

fn words(Space { needed, free }: Space) -> String {
    let missing = ByteCount(needed.saturating_sub(free));
    let (needed, free) = (ByteCount(needed), ByteCount(free));
    match missing {
        ByteCount::ZERO => format!(
            "the restore needs {needed} and {free} can be used: look for a quota, or for a limit on the size of files (ulimit -f)"
        ),
        missing => format!("the restore needs {needed} and {free} can be used: {missing} are missing"),
    }
}
