//! What streams found to be lost when they attached, as they remember it in the repository.
//!
//! Promise: a loss is written before the lineage record of the attachment that found it, outside of the log's folder: after
//! that record what is stored looks whole again. What is written here is read back here.
//! Not here: finding it (plan::lost), what it means (plan, verify).

use super::recorded::ended;
use crate::EngineError;
use crate::plan::LostLog;
use backstay_repository::layout::RunMoment;
use backstay_repository::{Repository, RepositoryError};
use backstay_terms::SourceName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;

/// The verb of the records.
const VERB: &str = "loss";

/// At most so many records are opened for one answer, the newest.
const OPENED_MAX: usize = 100;

/// The figures of a record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Figures {
    lost: Vec<LostLog>,
}

/// A loss that a stream found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// When.
    pub found: Timestamp,
    /// What.
    pub lost: LostLog,
}

impl Remembered {
    /// Whether this tells of a loss already.
    pub fn has(&self, loss: &LostLog) -> bool {
        let (known, new) = (self.lost.range(), loss.range());
        self.lost.branch == loss.branch && known.from <= new.from && new.to <= known.to
    }
}

/// Writes what was found to be lost.
pub(crate) async fn remember(
    repository: &Repository,
    source: &SourceName,
    lost: Vec<LostLog>,
) -> Result<(), EngineError> {
    let started = repository.run_started(VERB, source.as_str()).await?;
    let figures = serde_json::to_value(Figures { lost }).map_err(RepositoryError::encoding)?;
    Ok(repository
        .run_finished(&ended(repository, started, None, figures))
        .await?)
}

/// What was found to be lost of a source since a moment.
pub(crate) async fn remembered(
    repository: &Repository,
    source: &SourceName,
    since: Timestamp,
) -> Result<Vec<Remembered>, EngineError> {
    let mut remembered = Vec::new();
    let names = repository.run_names(VERB, since).await?;
    let ended = names
        .into_iter()
        .rev()
        .filter(|(_, moment)| *moment == RunMoment::Finished);
    for (run, _) in ended.take(OPENED_MAX) {
        let record = match repository.read_run_finished(&run).await {
            Err(error) if error.is_about_the_object() => {
                warn!(%run, %error, "the record of a loss cannot be read and is passed over; see: backstay verify");
                continue;
            }
            record => record?,
        };
        if record.started.source != source.as_str() {
            continue;
        }
        let figures: Figures = serde_json::from_value(record.figures).unwrap_or_default();
        let found = record.finished;
        remembered.extend(figures.lost.into_iter().map(|lost| Remembered { found, lost }));
    }
    Ok(remembered)
}
