//! Checks run records.
//!
//! Promise: each record is opened on its own and must tell of the run in its name; what committed a backup is handed on, so
//! that a head which is gone can be missed.
//! Not here: which backups a run committed (backstay-engine::jobs::verify).

use super::{CheckFinding, Invariant, keep};
use crate::layout::{self, RunMoment};
use crate::{Repository, RepositoryError, RunFinished};
use backstay_store::list_all;
use backstay_terms::RunId;

/// So many records that cannot be read are enough to know that something is wrong with them all.
const FINDINGS_MAX: usize = 100;

/// Which records are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunsWanted {
    /// The last ones of runs of one kind: what they left in the repository can be missed.
    Ended(&'static str),
    /// Every one.
    All,
}

impl Repository {
    /// Opens run records; gives back those that tell how a run ended.
    pub async fn check_runs(
        &self,
        wanted: RunsWanted,
    ) -> Result<(Vec<RunFinished>, Vec<CheckFinding>), RepositoryError> {
        let (mut ended, mut findings) = (Vec::new(), Vec::new());
        for object in list_all(self.store(), &layout::runs_prefix()?, None).await? {
            let Some((run, moment)) = layout::of_run(&object.key) else {
                findings.push(CheckFinding::stray(object.key.as_str()));
                continue;
            };
            if layout::run(&run, moment)?.key != object.key {
                findings.push(CheckFinding::stray(object.key.as_str()));
                continue;
            }
            let is_wanted = match wanted {
                RunsWanted::Ended(kind) => moment == RunMoment::Finished && run.kind() == kind,
                RunsWanted::All => true,
            };
            if findings.len() >= FINDINGS_MAX {
                continue;
            }
            if !is_wanted {
                findings.extend(CheckFinding::too_small(&object));
                continue;
            }
            let read = self.read_run(&run, moment).await;
            let Some((told, record)) = keep(&mut findings, object.key.as_str(), read)? else {
                continue;
            };
            findings.extend(of_another(&run, &told.run, object.key.as_str()));
            ended.extend(record);
        }
        Ok((ended, findings))
    }
}

fn of_another(named: &RunId, told: &RunId, object: &str) -> Option<CheckFinding> {
    let what = || format!("it tells of the run {told}");
    (named != told).then(|| CheckFinding::new(object, Invariant::Repo1, what()))
}
