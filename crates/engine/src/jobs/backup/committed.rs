//! What the record of a run says of the backup that it committed.
//!
//! Promise: what is written here is read back here. Records of earlier versions name the backup alone.
//! Not here: run records (backstay-repository::runs).

use backstay_repository::{Head, RunFinished, RunResult, Totals, expires_at};
use backstay_terms::{BackupId, GenerationId, RetentionClass};
use jiff::Timestamp;
use serde::Deserialize;

/// A committed backup.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Committed {
    /// Which.
    pub backup: BackupId,
    /// Its generation.
    pub generation: Option<GenerationId>,
    /// Its class.
    pub class: Option<RetentionClass>,
    /// The end of its promise.
    pub expires_at: Option<Timestamp>,
}

impl Committed {
    /// What a head says.
    pub fn of(head: &Head) -> Committed {
        Committed {
            backup: head.backup.clone(),
            generation: Some(head.generation.clone()),
            class: Some(head.class),
            expires_at: Some(head.expires_at),
        }
    }

    /// The backup that a run committed; none if it failed.
    pub fn by(run: &RunFinished) -> Option<Committed> {
        if run.result == RunResult::Failed {
            return None;
        }
        serde_json::from_value(run.figures.clone()).ok()
    }

    /// The end of its promise. Records of earlier versions do not tell the class: what is left of the backup does, or else it is
    /// the shortest.
    pub fn promised_until(&self, run: &RunFinished, left: Option<RetentionClass>) -> Timestamp {
        let began = run.started.started;
        let class = self.class.or(left).unwrap_or(RetentionClass::Days35);
        self.expires_at.unwrap_or_else(|| expires_at(class, began, began))
    }

    /// The figures of its run.
    pub fn figures(&self, totals: &Totals) -> serde_json::Value {
        serde_json::json!({
            "backup": self.backup, "generation": self.generation, "class": self.class,
            "expires_at": self.expires_at, "totals": totals,
        })
    }
}
