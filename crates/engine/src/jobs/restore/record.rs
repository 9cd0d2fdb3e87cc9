//! A restore's records in its repository: expiry sees from them that what is stored is needed.
//!
//! Promise: a repository that cannot be written stops no restore; the observer is told once. Figures hold no name of a
//! database or table.
//! Not here: for how long a record without an end counts (plan::retention).

use super::{RestoreJob, Restored};
use crate::jobs::recorded::ended;
use crate::{EngineError, Fact};
use backstay_repository::{NEEDS_LOG, RepositoryError, RunStarted};
use backstay_source::{Evidence, WalDelivery};
use serde_json::{Value, json};

/// What has been done, as far as the restore came.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub restored: Restored,
    /// The directory can be started.
    pub startable: bool,
}

impl RestoreJob {
    /// Records the beginning; none if that cannot be.
    pub(super) async fn record_start(&self) -> Option<RunStarted> {
        let source = self.catalog.source.as_str();
        let started = self.repository.run_started("restore", source).await;
        started
            .map_err(|error| self.not_recorded(&error, "expire does not know of it while it runs"))
            .ok()
    }

    /// Records the end of what `started` began.
    pub(super) async fn record_end(
        &self,
        started: RunStarted,
        progress: &Progress,
        error: Option<&EngineError>,
    ) {
        let record = ended(&self.repository, started, error, self.figures(progress));
        if let Err(error) = self.repository.run_finished(&record).await {
            self.not_recorded(&error, "expire takes it to be under way for some days");
        }
    }

    fn not_recorded(&self, error: &RepositoryError, consequence: &'static str) {
        self.observer.observe(&Fact::RestoreNotRecorded {
            consequence,
            error: error.to_string(),
        });
    }

    fn figures(&self, progress: &Progress) -> Value {
        let Restored {
            files,
            bytes,
            segments,
            evidence,
        } = &progress.restored;
        let fetched = matches!(self.delivery, WalDelivery::Command(_));
        let (_, ticket) = self.need();
        json!({
            "backup": ticket.backup,
            "target": ticket.target,
            "files": files,
            "bytes": bytes,
            "segments": segments,
            "log": if fetched { "fetched" } else { "placed" },
            NEEDS_LOG: fetched && progress.startable && evidence.is_none(),
            "reached": evidence.as_ref().map(reached),
        })
    }
}

fn reached(evidence: &Evidence) -> Value {
    json!({
        "position": evidence.replayed,
        "state": evidence.state,
        "last_transaction": evidence.last_transaction,
    })
}
