//! Work that is recorded in the repository before it begins and after it ends.
//!
//! Promise: work that succeeded and whose end could not be recorded is an error: its record would tell of a failure. Nothing is
//! recorded in another repository than the one that the work began in.
//! Not here: restores, which are carried out even if nothing can be recorded (restore::record).

use crate::EngineError;
use backstay_repository::{Repository, RunFinished, RunResult, RunStarted};
use backstay_terms::RunId;
use serde_json::Value;

/// Records `work` as a run of `verb` about `source`, and tells it which; `figures` tells the numbers of what succeeded.
///
/// # Errors
/// Those of the work, and of either record.
pub async fn recorded<T, W>(
    repository: &Repository,
    verb: &str,
    source: &str,
    work: impl FnOnce(RunId) -> W,
    figures: impl FnOnce(&T) -> Value,
) -> Result<T, EngineError>
where
    W: Future<Output = Result<T, EngineError>>,
{
    let started = repository.run_started(verb, source).await?;
    let outcome = work(started.run.clone()).await;
    if outcome.as_ref().is_err_and(EngineError::is_replaced) {
        return outcome;
    }
    let figures = outcome.as_ref().map_or(Value::Null, figures);
    let record = ended(repository, started, outcome.as_ref().err(), figures);
    let recorded = repository.run_finished(&record).await;
    let done = outcome?;
    recorded?;
    Ok(done)
}

/// The record of a run that ends now: failed if there is an error.
pub(crate) fn ended(
    repository: &Repository,
    started: RunStarted,
    error: Option<&EngineError>,
    figures: Value,
) -> RunFinished {
    RunFinished {
        started,
        finished: repository.now(),
        result: error.map_or(RunResult::Succeeded, |_| RunResult::Failed),
        error: error.map(EngineError::to_string),
        figures,
    }
}
