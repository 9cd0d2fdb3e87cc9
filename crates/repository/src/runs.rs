//! Facts that are written once under the month's key: runs, lineage records, history files.
//!
//! Promise: a run writes `started` before its work and `finished` after it; a missing `finished` is a failure. Two
//! processes that both make a month's key harm nobody: an object names the key that it needs (KEY-3).
//! Not here: what a run does.

use crate::base::required;
use crate::envelopes::{Opens, WrapSeen};
use crate::layout::{self, EnvelopePlace, Place, RunMoment};
use crate::{Repository, RepositoryError};
use backstay_codec::{KeyClass, Kind, SecretKey};
use backstay_store::{Key, Prefix, list_all};
use backstay_terms::{RunId, SourceName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use tracing::{error, warn};

/// So many envelopes are opened at most to prove that a key is one of this repository.
const ENVELOPES_TRIED_MAX: usize = 20;

/// Written before a run's work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStarted {
    /// 1.
    pub format: u32,
    /// The run.
    pub run: RunId,
    /// What it does: `backup`, `restore`, `settle`, `expire`, `verify`, `adopt`, `stream`, `loss`.
    pub verb: String,
    /// Of which source.
    pub source: String,
    /// When.
    pub started: Timestamp,
    /// Backstay's version.
    pub version: String,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunResult {
    /// All done.
    Succeeded,
    /// Nothing to rely on.
    Failed,
    /// Done, but not all of it.
    Incomplete,
}

/// Written after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFinished {
    /// What was written before.
    #[serde(flatten)]
    pub started: RunStarted,
    /// When it ended.
    pub finished: Timestamp,
    /// How.
    pub result: RunResult,
    /// What went wrong.
    pub error: Option<String>,
    /// Numbers of this verb.
    pub figures: serde_json::Value,
}

/// How backups ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupRuns {
    /// What those records say that open.
    pub ended: Vec<RunFinished>,
    /// The others, of any source: they may tell of a backup that was committed.
    pub unreadable: Vec<RunId>,
}

/// The figure by which a restore says that its copy goes on needing the repository's log.
pub const NEEDS_LOG: &str = "needs_log";

impl RunFinished {
    /// Whether what the run left behind still fetches log from the repository.
    pub fn needs_log(&self) -> bool {
        self.figures.get(NEEDS_LOG).and_then(serde_json::Value::as_bool) == Some(true)
    }
}

impl Repository {
    /// Writes that a run begins.
    pub async fn run_started(&self, verb: &str, source: &str) -> Result<RunStarted, RepositoryError> {
        let run = self.new_id(verb)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let (verb, source, started) = (verb.to_owned(), source.to_owned(), self.now());
        let record = RunStarted {
            format: 1,
            run,
            verb,
            source,
            started,
            version,
        };
        let json = serde_json::to_vec(&record).map_err(RepositoryError::encoding)?;
        self.put_fact(layout::run(&record.run, RunMoment::Started)?, Kind::Run, json)
            .await?;
        Ok(record)
    }

    /// Writes how a run ended.
    pub async fn run_finished(&self, record: &RunFinished) -> Result<(), RepositoryError> {
        let json = serde_json::to_vec(record).map_err(RepositoryError::encoding)?;
        self.put_fact(
            layout::run(&record.started.run, RunMoment::Finished)?,
            Kind::Run,
            json,
        )
        .await
    }

    /// The records of runs of one kind since a moment, by their names, oldest first.
    pub async fn run_names(
        &self,
        kind: &str,
        since: Timestamp,
    ) -> Result<Vec<(RunId, RunMoment)>, RepositoryError> {
        let day = Key::new(since.strftime("facts/runs/%Y/%m/%d").to_string())?;
        let objects = list_all(self.store(), &layout::runs_prefix()?, Some(&day)).await?;
        let named = objects.iter().filter_map(|object| layout::of_run(&object.key));
        Ok(named.filter(|(run, _)| run.kind() == kind).collect())
    }

    /// One record of a run: what it began as, and how it ended if it is the last one.
    pub async fn read_run(
        &self,
        run: &RunId,
        moment: RunMoment,
    ) -> Result<(RunStarted, Option<RunFinished>), RepositoryError> {
        match moment {
            RunMoment::Started => Ok((self.read_run_started(run).await?, None)),
            RunMoment::Finished => {
                let record = self.read_run_finished(run).await?;
                Ok((record.started.clone(), Some(record)))
            }
        }
    }

    /// Says that the record of a run cannot be read and is passed over; once, whoever asks for it again.
    pub fn pass_over(&self, run: &RunId, error: &RepositoryError) {
        if self.is_news(run) {
            warn!(%run, %error, "the record of a run cannot be read and is passed over; see: backstay verify");
        }
    }

    /// A run's first record.
    pub async fn read_run_started(&self, run: &RunId) -> Result<RunStarted, RepositoryError> {
        let place = layout::run(run, RunMoment::Started)?;
        let json = self.get_fact(&place, Kind::Run, run.moment()).await?;
        let record: RunStarted =
            serde_json::from_slice(&json).map_err(|e| RepositoryError::malformed(&place.key, e))?;
        RepositoryError::refuse_newer(&place.key, record.format)?;
        Ok(record)
    }

    /// A run's last record, if it finished.
    pub async fn read_run_finished(&self, run: &RunId) -> Result<RunFinished, RepositoryError> {
        let place = layout::run(run, RunMoment::Finished)?;
        let json = self.get_fact(&place, Kind::Run, run.moment()).await?;
        let record: RunFinished =
            serde_json::from_slice(&json).map_err(|e| RepositoryError::malformed(&place.key, e))?;
        RepositoryError::refuse_newer(&place.key, record.started.format)?;
        Ok(record)
    }

    /// How the backups of a source ended that began in these days, whole days.
    pub(crate) async fn backup_runs(
        &self,
        source: &SourceName,
        days: RangeInclusive<Timestamp>,
    ) -> Result<BackupRuns, RepositoryError> {
        let day = |moment: &Timestamp| moment.strftime("facts/runs/%Y/%m/%d").to_string();
        let last = day(days.end());
        let mut runs = BackupRuns::default();
        for object in list_all(
            self.store(),
            &layout::runs_prefix()?,
            Some(&Key::new(day(days.start()))?),
        )
        .await?
        {
            if object.key.as_str().get(..last.len()) > Some(last.as_str()) {
                break;
            }
            let Some((run, RunMoment::Finished)) = layout::of_run(&object.key) else {
                continue;
            };
            if run.kind() != "backup" {
                continue;
            }
            match self.read_run_finished(&run).await {
                Ok(record) if record.started.source == source.as_str() => runs.ended.push(record),
                Ok(_) => {}
                Err(error) if error.is_about_the_object() => runs.unreadable.push(run),
                Err(error) => return Err(error),
            }
        }
        Ok(runs)
    }

    /// Seals a fact with this month's key and stores it.
    pub(crate) async fn put_fact(
        &self,
        place: Place,
        kind: Kind,
        json: Vec<u8>,
    ) -> Result<(), RepositoryError> {
        let key = self.facts_key().await?;
        self.put_sealed(place, kind, key, json, String::new())
            .await
            .map(|_| ())
    }

    /// Opens a fact that was written around `moment` (`YYYYMMDD…`).
    pub(crate) async fn get_fact(
        &self,
        place: &Place,
        kind: Kind,
        moment: &str,
    ) -> Result<Vec<u8>, RepositoryError> {
        let part = |range: std::ops::Range<usize>| moment.get(range).unwrap_or_default();
        self.get_fact_of_any_month(place, kind, &format!("{}-{}", part(0..4), part(4..6)))
            .await
    }

    /// The same; if the month does not give the key, every other month is tried: a run may cross a month's end.
    pub(crate) async fn get_fact_of_any_month(
        &self,
        place: &Place,
        kind: Kind,
        month: &str,
    ) -> Result<Vec<u8>, RepositoryError> {
        match self.get_sealed(place, kind, &EnvelopePlace::facts(month)).await {
            Err(RepositoryError::UnknownKey { .. } | RepositoryError::NoKey { .. }) => {}
            answer => return answer,
        }
        for envelope in self
            .envelopes()
            .await?
            .iter()
            .filter(|e| e.name.starts_with("facts/"))
        {
            match self.get_sealed(place, kind, envelope).await {
                Err(RepositoryError::UnknownKey { .. } | RepositoryError::NoKey { .. }) => {}
                answer => return answer,
            }
        }
        self.get_sealed(place, kind, &EnvelopePlace::facts(month)).await
    }

    /// This month's key: the stored one, or a new one.
    async fn facts_key(&self) -> Result<SecretKey, RepositoryError> {
        let envelope = EnvelopePlace::facts(&layout::month(self.now()));
        if let Some(key) = self.month_key(&envelope.name) {
            return Ok(key);
        }
        self.refuse_strange_keys().await?;
        let wraps = list_all(self.store(), &envelope.prefix()?, None).await?;
        let keys = match wraps.is_empty() {
            true => self.create_envelope(&envelope, &[KeyClass::Facts]).await?,
            false => match self.open_envelope(&envelope).await {
                // Wraps of other recipients only: this process makes a key that it can open itself.
                Err(RepositoryError::NoKey { .. }) => {
                    self.tell_damaged_wraps(&envelope).await?;
                    self.create_envelope(&envelope, &[KeyClass::Facts]).await?
                }
                // A process that died while it made the month's key left wraps for some recipients only.
                Ok(keys) => {
                    self.rewrap(&envelope).await?;
                    keys
                }
                Err(error) => return Err(error),
            },
        };
        let key = required(&keys.facts, "facts")?;
        self.remember_month(envelope.name, key.clone());
        Ok(key)
    }

    /// Whoever writes with a key that opens nothing of this repository writes what its owner cannot read: the key is another
    /// one, or was mistyped. Wraps for age alone prove nothing: they cannot be opened here.
    pub(crate) async fn refuse_strange_keys(&self) -> Result<(), RepositoryError> {
        let prefix = Prefix::new("facts/keys/")?;
        let objects = list_all(self.store(), &prefix, None).await?;
        let mut months: Vec<EnvelopePlace> = objects
            .iter()
            .filter_map(|object| layout::envelope_of_wrap(&object.key))
            .collect();
        months.dedup();
        let mut refusal = None;
        for month in months.iter().rev() {
            let seen = self.look_at_envelope(month).await?;
            if seen.opens() == Opens::Yes {
                return Ok(());
            }
            let provable = |wrap: &WrapSeen| {
                wrap.recipient.starts_with("raw ") || wrap.recipient.starts_with("passphrase ")
            };
            // One that names a key of ours and does not open is damaged: it says nothing against the key.
            if seen
                .wraps
                .iter()
                .any(|wrap| provable(wrap) && !self.is_ours(wrap))
            {
                refusal = refusal.or(seen.refusal());
            }
        }
        match refusal {
            Some(refusal) if !self.opens_any_envelope().await? => Err(refusal),
            _ => Ok(()),
        }
    }

    fn is_ours(&self, wrap: &WrapSeen) -> bool {
        self.recipient_names().contains(&wrap.recipient)
    }

    /// Whether a configured key opens anything beside the months: then it is a key of this repository.
    async fn opens_any_envelope(&self) -> Result<bool, RepositoryError> {
        let envelopes = self.envelopes().await?;
        let others = envelopes
            .iter()
            .filter(|envelope| !envelope.name.starts_with("facts/"));
        for envelope in others.rev().take(ENVELOPES_TRIED_MAX) {
            if self.look_at_envelope(envelope).await?.opens() == Opens::Yes {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Names the wraps of a month that should open and do not, and those of keys that nobody configured: either may be why
    /// a new key is made. Of a wrap for age nothing can be told.
    async fn tell_damaged_wraps(&self, month: &EnvelopePlace) -> Result<(), RepositoryError> {
        for wrap in self.look_at_envelope(month).await?.wraps {
            let WrapSeen {
                object, recipient, ..
            } = &wrap;
            if wrap.wrap.is_none() || self.is_ours(&wrap) && !recipient.starts_with("age ") {
                error!(
                    object,
                    recipient,
                    "a wrap of this month's key is damaged: what was sealed with it cannot be read, and a new key is made; \
                     bring it back from a copy; see: backstay verify"
                );
            } else if !recipient.starts_with("age ") {
                warn!(
                    object,
                    recipient,
                    "a wrap of this month's key is damaged or of a key that is not configured, and a new key is made; see: \
                     backstay verify"
                );
            }
        }
        Ok(())
    }
}
