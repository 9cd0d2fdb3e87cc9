//! What was stored of a source once and is not there any more, at the end: the newest log, the newest backup.
//!
//! A hole has log after it. What is lost at the end leaves none: the stored log merely ends earlier, and an older backup is
//! the newest. So whatever still tells that there was more is asked before anything is called the newest.
//! Promise: what is named is looked for once more before; what may have expired is not missed.
//! Not here: holes (latest, window), heads that cannot be opened (unread), older backups (jobs::verify).

use super::catalog::Catalog;
use super::chain::Chain;
use super::restore::{EPOCH_2000, Request, show_time, stretch_of};
use super::retention::ExpiryPolicy;
use super::window::newest_time;
use crate::EngineError;
use crate::jobs::backup::Committed;
use crate::jobs::stream::StreamsTold;
use backstay_repository::layout::RunMoment;
use backstay_repository::{Head, LineageRecord, LogStore, RepositoryError, Witness, moment_of, stretches};
use backstay_terms::{BackupId, Branch, Lsn, Position, RecoveryTarget, RunId, SourceName};
use jiff::{SignedDuration, Timestamp};
use tracing::warn;

/// How long backups are promised at most: records of older runs miss none.
const PROMISED_MAX: SignedDuration = SignedDuration::from_hours(24 * 2557);

/// At most so many records of backups are opened for one answer.
const RECORDS_MAX: usize = 100;

/// A backup that a run committed, that is newer than every one that is there, and whose head is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostBackup {
    /// Which.
    pub backup: BackupId,
    /// The run that committed it.
    pub run: RunId,
    /// When that run ended.
    pub committed: Timestamp,
    /// The end of its promise.
    pub promised: Timestamp,
}

/// Log at the end of a lineage that was stored and is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LostEnd {
    /// The end of what is stored; none if nothing is.
    pub stored: Option<Position>,
    /// What tells of more.
    pub witness: Witness,
}

/// The furthest witness of a branch: lineage records, log indexes, runs of streams.
pub(crate) async fn witness(
    log: &LogStore,
    branch: &Branch,
    records: &[LineageRecord],
    streams: &StreamsTold,
    since: Timestamp,
) -> Result<Option<Witness>, RepositoryError> {
    let of_log = log.witness(branch, records, since).await?;
    let of_runs = streams
        .reach(branch, &log.moves().await?)
        .map(|(reach, record)| Witness {
            reach,
            told: record.finished,
            by: format!("the record of the run {}", record.started.run),
        });
    Ok(of_log.into_iter().chain(of_runs).reduce(Witness::further))
}

/// The moment before which what was stored may have expired.
pub(crate) fn missed_since(log: &LogStore, now: Timestamp) -> Timestamp {
    let kept = ExpiryPolicy::of(log.place().engine).settled;
    now.checked_sub(kept).unwrap_or(Timestamp::MIN)
}

/// The end of the lineage that is followed, where it was stored once and is gone.
pub(super) async fn lost_end(
    catalog: &Catalog,
    chain: &Chain,
    now: Timestamp,
) -> Result<Option<LostEnd>, EngineError> {
    let Some(target) = chain.target() else {
        return Ok(None);
    };
    let log = &catalog.log;
    let since = missed_since(log, now);
    let streams = StreamsTold::read(log.repository(), &catalog.source, since).await?;
    let Some(witness) = witness(log, &target.branch, &catalog.records, &streams, since).await? else {
        return Ok(None);
    };
    let end = |chain: &Chain| chain.stretches(None).last().map(|last| last.to);
    if end(chain) >= Some(witness.reach) {
        return Ok(None);
    }
    // A stream may have stored it since the catalog was read.
    let ranges = log.ranges(&target.branch, None).await?;
    let listed = stretches(ranges.iter().map(|stored| &stored.name.range));
    let stored = end(chain).max(listed.last().map(|last| last.to));
    Ok((stored < Some(witness.reach)).then_some(LostEnd { stored, witness }))
}

/// What tells that log of a source was stored of which nothing is left, neither ranges nor lineage records.
pub(crate) async fn lost_log(log: &LogStore, now: Timestamp) -> Result<Option<String>, EngineError> {
    let (records, strays) = log.record_names().await?;
    if !records.is_empty() || !strays.is_empty() || log.any_range().await?.is_some() {
        return Ok(None);
    }
    if log.has_indexes().await? {
        return Ok(Some("log indexes name it".to_owned()));
    }
    let source = &log.place().source;
    let streams = StreamsTold::read(log.repository(), source, missed_since(log, now)).await?;
    let attached = streams.attached;
    Ok(attached.map(|(run, at)| format!("the run {run} streamed it from {at} on")))
}

/// Backups newer than every one that is there, as runs tell that committed them, oldest first.
pub async fn lost_backups(catalog: &Catalog, now: Timestamp) -> Result<Vec<LostBackup>, EngineError> {
    let repository = catalog.log.repository();
    let there = |backup: &BackupId| {
        catalog.heads.iter().any(|head| head.backup == *backup)
            || catalog
                .unread
                .heads
                .iter()
                .any(|head| head.place.backup == *backup)
    };
    let newest = catalog
        .heads
        .iter()
        .map(|head| &head.backup)
        .chain(catalog.unread.heads.iter().map(|head| &head.place.backup))
        .max();
    let since = newest
        .and_then(moment_of)
        .or_else(|| now.checked_sub(PROMISED_MAX).ok())
        .unwrap_or(Timestamp::MIN);
    let mut lost = Vec::new();
    let names = repository.run_names("backup", since).await?;
    let ended = names.into_iter().rev().filter(|(run, moment)| {
        *moment == RunMoment::Finished && moment_of(run).is_some_and(|began| began >= since)
    });
    for (run, _) in ended.take(RECORDS_MAX) {
        let record = match repository.read_run_finished(&run).await {
            Err(error) if error.is_about_the_object() => {
                warn!(%run, %error, "the record of a backup cannot be read and is passed over; see: backstay verify");
                continue;
            }
            record => record?,
        };
        if record.started.source != catalog.source.as_str() {
            continue;
        }
        let Some(committed) = Committed::by(&record).filter(|committed| !there(&committed.backup)) else {
            continue;
        };
        let promised = committed.promised_until(&record, None);
        if now < promised {
            lost.push(LostBackup {
                backup: committed.backup,
                run,
                committed: record.finished,
                promised,
            });
        }
    }
    if lost.is_empty() {
        return Ok(lost);
    }
    // One may have been committed after the heads were listed.
    let places = repository
        .backup_places(catalog.log.place().engine, &catalog.source)
        .await?;
    lost.retain(|lost| places.iter().all(|place| place.backup != lost.backup));
    lost.reverse();
    Ok(lost)
}

/// Refuses `immediate` and `latest` where a newer backup than the chosen one was committed and is gone, unless the log
/// proves that it goes on past the moment at which that one was complete. Whoever names a base has chosen.
pub(super) async fn refuse_if_newer_is_lost(
    catalog: &Catalog,
    request: &Request,
    head: &Head,
) -> Result<(), EngineError> {
    let newest_is_meant = matches!(request.target, RecoveryTarget::Latest | RecoveryTarget::Immediate);
    if !newest_is_meant || request.base.is_some() {
        return Ok(());
    }
    let lost = lost_backups(catalog, request.now).await?;
    let Some(lost) = lost.last() else {
        return Ok(());
    };
    let proven = match request.target {
        RecoveryTarget::Latest => proven_time(catalog, head).await?,
        _ => None,
    };
    if proven.is_some_and(|proven| proven >= lost.committed.as_microsecond() - EPOCH_2000 * 1_000_000) {
        return Ok(());
    }
    let (source, backup) = (&catalog.source, &head.backup);
    let at = head.log.as_ref().map_or(String::new(), |log| {
        format!(", consistent at {}", show_time(log.stop_time))
    });
    Err(EngineError::Lost {
        what: format!(
            "the newest backup {} of {source} is gone: the run {} committed it on {}, and it is promised until {}",
            lost.backup, lost.run, lost.committed, lost.promised
        ),
        advice: format!(
            "bring it back from a copy of the repository, or go back on purpose to {backup}{at}: --base {backup} --to immediate; \
             see what is missing: backstay verify {source}"
        ),
    })
}

async fn proven_time(catalog: &Catalog, head: &Head) -> Result<Option<i64>, EngineError> {
    let Some(log) = &head.log else { return Ok(None) };
    let Some(mut after_stop) = stretch_of(catalog, head, log).await? else {
        return Ok(None);
    };
    after_stop.from = log.stop;
    newest_time(catalog, after_stop).await
}

impl LostEnd {
    /// Why `latest` is refused; `last` is the last point that is left, as a target.
    pub fn refusal(self, source: &SourceName, last: &str) -> EngineError {
        let Witness { reach, by, .. } = self.witness;
        let stored = match self.stored {
            Some(stored) => format!("ends at {}", Lsn::from(stored)),
            None => "is not there any more".to_owned(),
        };
        EngineError::Lost {
            what: format!(
                "log of {source} is lost: {by} tells that it was stored up to {}, and what is stored {stored}",
                Lsn::from(reach)
            ),
            advice: format!(
                "bring it back from a copy of the repository, or recover the last point that is left: {last}; \
                 and take a new backup now: backstay backup {source}"
            ),
        }
    }
}
