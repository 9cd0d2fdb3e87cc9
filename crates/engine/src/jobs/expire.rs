//! Expires what its promise no longer covers.
//!
//! Promise: nothing goes that was not in the plan that was shown, and nothing that a plan made again just now would keep.
//! While our clock and the store's differ by more than five minutes, a hold stands, or a restore is under way, nothing goes
//! at all.
//! Not here: what may go (plan::retention), the order within one removal (backstay-repository::expire).

use super::recorded::ended;
use crate::plan::retention::{self, ExpiryPlan, ExpiryPolicy, RESTORE_MAX};
use crate::{EngineError, Fact, Observer};
use backstay_repository::{Carried, Hiding, Removal, Removed, Repository, RunStarted, STORE_SKEW_MAX};
use backstay_terms::{ByteCount, EngineKind, SourceName};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;

/// An expiry of one source.
#[derive(Clone, Debug)]
pub struct ExpireJob {
    /// The service.
    pub name: SourceName,
    /// Its engine.
    pub engine: EngineKind,
    /// From where.
    pub repository: Repository,
    /// How old things must be.
    pub policy: ExpiryPolicy,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
}

/// What an expiry did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Expired {
    /// What went.
    pub removed: Removed,
    /// Removals that were carried out.
    pub removals: u64,
    /// Removals of the shown plan that were not carried out, each with the reason.
    pub skipped: Vec<String>,
}

impl ExpireJob {
    /// What would go now. Changes nothing.
    pub async fn plan(&self) -> Result<ExpiryPlan, EngineError> {
        self.refuse_skew().await?;
        let now = self.repository.now();
        let since = restores_since(now);
        let inventory = self.repository.inventory(self.engine, &self.name, since).await?;
        self.refuse_hidden()?;
        Ok(retention::plan(&inventory, &self.policy, now))
    }

    /// Carries out what was shown, as far as a plan made now agrees.
    pub async fn run(&self, shown: &ExpiryPlan) -> Result<Expired, EngineError> {
        if (shown.engine, &shown.source) != (self.engine, &self.name) {
            let what = format!("the plan is for {}, not for {}", shown.source, self.name);
            let advice = "make the plan again".to_owned();
            return Err(EngineError::Refused { what, advice });
        }
        let fresh = self.plan().await?;
        if fresh.removals.is_empty() {
            return Ok(Expired::default());
        }
        let started = self.repository.run_started("expire", self.name.as_str()).await?;
        let mut done = Expired::default();
        let outcome = self.carry_out(shown, &fresh, &mut done).await;
        let recorded = self.record(started, &done, outcome.as_ref().err()).await;
        outcome?;
        recorded?;
        Ok(done)
    }

    async fn carry_out(
        &self,
        shown: &ExpiryPlan,
        fresh: &ExpiryPlan,
        done: &mut Expired,
    ) -> Result<(), EngineError> {
        let seen: BTreeSet<&str> = shown.removals.iter().flat_map(names).collect();
        for removal in &fresh.removals {
            let subject = names(removal).next().unwrap_or_default().to_owned();
            if !names(removal).all(|name| seen.contains(name)) {
                done.skipped
                    .push(format!("{subject}: it was not in the plan that was shown"));
                continue;
            }
            // One may have begun since the plan was made.
            let since = restores_since(self.repository.now());
            if let Some(restore) = self.repository.restores_under_way(since).await?.first() {
                done.skipped
                    .push(format!("{subject}: kept because of the restore {restore}"));
                continue;
            }
            let carried = self
                .repository
                .carry_out(self.engine, &self.name, removal)
                .await?;
            match carried {
                Carried::Out(removed) => {
                    done.removed.add(removed);
                    done.removals += 1;
                    self.observer.observe(&Fact::Expired {
                        object: subject,
                        bytes: ByteCount(removed.bytes),
                    });
                }
                Carried::Refused(because) => {
                    done.skipped.push(format!("{subject}: kept because of {because}"))
                }
            }
        }
        Ok(())
    }

    async fn record(
        &self,
        started: RunStarted,
        done: &Expired,
        error: Option<&EngineError>,
    ) -> Result<(), EngineError> {
        let figures = serde_json::json!({ "objects": done.removed.objects, "bytes": done.removed.bytes });
        let record = ended(&self.repository, started, error, figures);
        Ok(self.repository.run_finished(&record).await?)
    }

    /// A head that a link hides would make its packs look uncommitted.
    fn refuse_hidden(&self) -> Result<(), EngineError> {
        match self.repository.hiding().first() {
            None => Ok(()),
            Some(Hiding { name, what }) => Err(EngineError::Refused {
                what: format!(
                    "{name} in the repository is {what}: what it hides is not known, so nothing may go"
                ),
                advice: "move it away, and bring what belongs there back from a copy of the repository; then run expire again"
                    .to_owned(),
            }),
        }
    }

    async fn refuse_skew(&self) -> Result<(), EngineError> {
        match self.repository.store_skew().await? {
            Some(skew) if skew > STORE_SKEW_MAX => Err(EngineError::Refused {
                what: format!(
                    "the store's clock and this machine's differ by {} s",
                    skew.as_secs()
                ),
                advice: "set the clock right, then run expire again".into(),
            }),
            _ => Ok(()),
        }
    }
}

fn restores_since(now: Timestamp) -> Timestamp {
    now.checked_sub(RESTORE_MAX).unwrap_or(now)
}

fn names(removal: &Removal) -> impl Iterator<Item = &str> {
    removal.objects().into_iter().map(|object| object.name.as_str())
}
