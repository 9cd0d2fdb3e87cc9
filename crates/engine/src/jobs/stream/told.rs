//! What the run records of streams tell: that one was attached, and how far it had stored when it ended.
//!
//! Promise: a run is recorded when it is attached for the first time, after its lineage record: a run record of a stream
//! whose source has no lineage record tells that those were lost. What is written here is read back here.
//! Not here: run records (backstay-repository::runs), what it means that less is stored now (plan::lost).

use crate::EngineError;
use backstay_repository::layout::RunMoment;
use backstay_repository::{Moves, Repository, RepositoryError, RunFinished, RunResult, RunStarted};
use backstay_terms::{Branch, EpochId, Position, RunId, SourceName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The verb of the records.
const VERB: &str = "stream";

/// At most so many records are opened for one answer: other sources have records of their own between those of this one.
const OPENED_MAX: usize = 100;

/// So many ended runs of a source tell enough: each tells of the log up to its end.
const ENDED_MAX: usize = 5;

/// How far a branch was stored when a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    branch: String,
    reach: Position,
    /// The epoch that stored what lies before; earlier versions did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<EpochId>,
}

impl Stored {
    fn lineage(&self, moves: &Moves) -> Option<Branch> {
        let branch = self.branch.parse().ok()?;
        let moved = self.epoch.as_ref().map(|epoch| moves.lineage_of(branch, epoch));
        Some(moved.unwrap_or(branch))
    }
}

/// The figures of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Figures {
    stored: Vec<Stored>,
}

/// The record of a run that is going on.
#[derive(Debug, Default)]
pub(super) struct Telling {
    started: Option<RunStarted>,
    stored: BTreeMap<Branch, (Position, EpochId)>,
}

impl Telling {
    /// The run is attached. Written once.
    pub async fn attached(
        &mut self,
        repository: &Repository,
        source: &SourceName,
    ) -> Result<(), EngineError> {
        if self.started.is_none() {
            self.started = Some(repository.run_started(VERB, source.as_str()).await?);
        }
        Ok(())
    }

    /// Everything of `branch` before `reach` is stored, by this epoch in the end.
    pub fn stored(&mut self, branch: Branch, reach: Position, epoch: EpochId) {
        match self.stored.get(&branch) {
            Some((known, _)) if *known >= reach => {}
            _ => drop(self.stored.insert(branch, (reach, epoch))),
        }
    }

    /// The run is over. Where the store is what ended it nothing more is written.
    pub async fn ended(
        self,
        repository: &Repository,
        outcome: Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let (Some(started), false) = (self.started, matches!(outcome, Err(EngineError::Repository(_))))
        else {
            return outcome;
        };
        let stored = self.stored.into_iter().map(|(branch, (reach, epoch))| Stored {
            branch: branch.to_string(),
            reach,
            epoch: Some(epoch),
        });
        let figures = Figures {
            stored: stored.collect(),
        };
        let record = RunFinished {
            started,
            finished: repository.now(),
            result: match outcome {
                Ok(()) => RunResult::Succeeded,
                Err(_) => RunResult::Failed,
            },
            error: outcome.as_ref().err().map(ToString::to_string),
            figures: serde_json::to_value(figures).map_err(RepositoryError::encoding)?,
        };
        let recorded = repository.run_finished(&record).await;
        outcome?;
        Ok(recorded?)
    }
}

/// What the runs of a source tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamsTold {
    /// The newest that was attached.
    pub attached: Option<(RunId, Timestamp)>,
    ended: Vec<(RunFinished, Figures)>,
}

impl StreamsTold {
    /// Reads the newest records since a moment. One that cannot be opened tells nothing.
    pub async fn read(
        repository: &Repository,
        source: &SourceName,
        since: Timestamp,
    ) -> Result<StreamsTold, EngineError> {
        let mut told = StreamsTold::default();
        let names = repository.run_names(VERB, since).await?;
        for (run, moment) in names.into_iter().rev().take(OPENED_MAX) {
            if told.ended.len() >= ENDED_MAX {
                break;
            }
            if moment == RunMoment::Started && told.attached.is_some() {
                continue;
            }
            match repository.read_run(&run, moment).await {
                Ok((started, record)) if started.source == source.as_str() => told.take(started, record),
                Ok(_) => {}
                Err(error) if error.is_about_the_object() => repository.pass_over(&run, &error),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(told)
    }

    fn take(&mut self, started: RunStarted, record: Option<RunFinished>) {
        self.attached.get_or_insert((started.run, started.started));
        if let Some(record) = record {
            let figures = serde_json::from_value(record.figures.clone()).unwrap_or_default();
            self.ended.push((record, figures));
        }
    }

    /// How far each lineage was stored when each of the runs ended.
    pub fn reaches(&self, moves: &Moves) -> impl Iterator<Item = (Branch, Position, &RunFinished)> {
        self.ended.iter().flat_map(move |(record, figures)| {
            let named = figures.stored.iter();
            named.filter_map(move |stored| Some((stored.lineage(moves)?, stored.reach, record)))
        })
    }

    /// The newest run that was attached, if it never told how far it stored.
    pub fn died(&self) -> Option<&(RunId, Timestamp)> {
        let ended = |run: &RunId| self.ended.iter().any(|(record, _)| record.started.run == *run);
        self.attached.as_ref().filter(|(run, _)| !ended(run))
    }
}
