//! Backups that a run committed, that are still promised, and whose head is not there.
//!
//! Promise: one past its promise may have expired and is not missed, and what is missed is looked for once more before it is
//! named. `latest` and `immediate` never go back behind one in silence, and a point that only it may reach is lost, not outside
//! of what can be recovered.
//! Not here: heads that cannot be opened (unread), what is left of one whose record is gone too (headless).

use super::catalog::Catalog;
use super::headless::HeadlessBackup;
use super::restore::{EPOCH_2000, Request, show_time, stretch_of};
use super::window::newest_time;
use crate::jobs::backup::Committed;
use crate::{EngineError, Side};
use backstay_repository::layout::RunMoment;
use backstay_repository::{Head, moment_of};
use backstay_terms::{BackupId, Lsn, RecoveryTarget, RunId, Suffix};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;

/// How long backups are promised at most: records of older runs miss none.
const PROMISED_MAX: SignedDuration = SignedDuration::from_hours(24 * 2557);

/// At most so many records of backups are opened for one answer, the newest.
const RECORDS_MAX: usize = 200;

/// Whoever expired one may have had another clock.
pub(crate) const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_hours(1);

/// A backup that a run committed, and whose head is gone.
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
    /// True if it is newer than every one that is there.
    pub is_newest: bool,
}

impl LostBackup {
    /// What is lost, in words.
    pub fn words(&self) -> String {
        let LostBackup {
            backup,
            run,
            committed,
            ..
        } = self;
        format!("backup {backup} is gone: the run {run} committed it on {committed}")
    }

    /// Whether a target may lie after the point at which it is consistent.
    fn may_reach(&self, target: &RecoveryTarget) -> bool {
        let begun = moment_of(&self.backup).map(|begun| begun.as_microsecond() - EPOCH_2000 * 1_000_000);
        match target {
            RecoveryTarget::Time(time) => begun.is_none_or(|begun| begun <= *time),
            _ => true,
        }
    }
}

/// Backups that are missed, as runs tell that committed them, oldest first.
pub async fn lost_backups(catalog: &Catalog, now: Timestamp) -> Result<Vec<LostBackup>, EngineError> {
    let repository = catalog.log.repository();
    let unread = catalog.unread.heads.iter().map(|head| &head.place.backup);
    let there: BTreeSet<&BackupId> = catalog
        .heads
        .iter()
        .map(|head| &head.backup)
        .chain(unread)
        .collect();
    let closed = catalog.unread.heads.iter().map(|head| head.complete);
    let complete = catalog.heads.iter().map(Head::completed).chain(closed);
    let since = now.checked_sub(PROMISED_MAX).unwrap_or(Timestamp::MIN);
    let names = repository.run_names("backup", since).await?;
    // A backup has the suffix of its run. Those of earlier versions have not: their records are opened.
    let own: BTreeSet<Suffix> = there.iter().map(|backup| backup.suffix()).collect();
    let ended = names
        .iter()
        .rev()
        .filter(|(run, moment)| *moment == RunMoment::Finished && !own.contains(&run.suffix()));
    let mut lost = Vec::new();
    for (run, _) in ended.take(RECORDS_MAX) {
        let record = match repository.read_run_finished(run).await {
            Err(error) if error.is_about_the_object() => {
                repository.pass_over(run, &error);
                continue;
            }
            record => record?,
        };
        if record.started.source != catalog.source.as_str() {
            continue;
        }
        let Some(committed) = Committed::by(&record).filter(|committed| !there.contains(&committed.backup))
        else {
            continue;
        };
        let promised = committed.promised_until(&record, None);
        if now.saturating_add(CLOCKS_DIFFER).is_ok_and(|now| now < promised) {
            lost.push(LostBackup {
                is_newest: complete.clone().all(|complete| complete <= record.finished),
                backup: committed.backup,
                run: run.clone(),
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
    if !request.means_the_newest() {
        return Ok(());
    }
    let lost = catalog.lost_backups(request.now).await?;
    let Some(lost) = lost.iter().rfind(|lost| lost.is_newest) else {
        return Ok(());
    };
    let proven = match request.target {
        RecoveryTarget::Latest => proven_time(catalog, head).await?,
        _ => None,
    };
    if proven.is_some_and(|proven| proven >= lost.committed.as_microsecond() - EPOCH_2000 * 1_000_000) {
        return Ok(());
    }
    let source = &catalog.source;
    Err(EngineError::Lost {
        what: format!(
            "the newest backup {} of {source} is gone: the run {} committed it on {}, and it is promised until {}",
            lost.backup, lost.run, lost.committed, lost.promised
        ),
        advice: format!(
            "bring it back from a copy of the repository, or go back on purpose to {}; \
             see what is missing: backstay verify {source}",
            itself(head)
        ),
    })
}

/// A backup that is there, with how to go back to it.
pub(super) fn itself(head: &Head) -> String {
    let backup = &head.backup;
    let at = head.log.as_ref().map_or(String::new(), |log| {
        format!(", consistent at {}", show_time(log.stop_time))
    });
    format!("{backup}{at}: --base {backup} --to immediate")
}

pub(super) async fn proven_time(catalog: &Catalog, head: &Head) -> Result<Option<i64>, EngineError> {
    let Some(log) = &head.log else { return Ok(None) };
    let Some(mut after_stop) = stretch_of(catalog, head, log).await? else {
        return Ok(None);
    };
    after_stop.from = log.stop;
    newest_time(catalog, after_stop).await
}

/// A refusal of what only a backup that is gone may reach: no newer one that is there lies before it.
pub(super) async fn because_backup_lost(
    catalog: &Catalog,
    refusal: EngineError,
    request: &Request,
) -> Result<EngineError, EngineError> {
    let (what, advice, side) = match &refusal {
        EngineError::Unreachable { what, advice, side } => (what, advice, Some(*side)),
        EngineError::NoSuchThing { what, advice } => (what, advice, None),
        _ => return Ok(refusal),
    };
    let lost = catalog.lost_backups(request.now).await?;
    let usable = catalog.heads.iter().any(|head| head.is_usable(request.now));
    let found = match (&request.base, side) {
        (Some(base), None) => lost.iter().find(|lost| lost.backup == *base),
        (Some(_), Some(_)) => None,
        (None, None) => lost.last().filter(|_| !usable),
        (None, Some(side)) => lost.iter().rfind(|lost| {
            let newer = catalog
                .heads
                .iter()
                .filter(|head| head.completed() > lost.committed);
            let mut serving =
                newer.filter(|head| head.is_usable(request.now) && lies_before(head, request, side));
            lost.may_reach(&request.target) && serving.next().is_none()
        }),
    };
    let mut words = found.map(LostBackup::words);
    if words.is_none() && !usable {
        let headless = catalog.headless(request.now).await?;
        words = headless
            .iter()
            .rfind(|found| found.is_untold())
            .map(HeadlessBackup::words);
    }
    let Some(words) = words else { return Ok(refusal) };
    Ok(EngineError::Lost {
        what: format!("{what}; {words}"),
        advice: format!("bring it back from a copy of the repository; or {advice}"),
    })
}

/// Whether a target lies after the point of a backup, as far as the target tells.
fn lies_before(head: &Head, request: &Request, side: Side) -> bool {
    let Some(log) = &head.log else { return false };
    match &request.target {
        RecoveryTarget::Time(time) => log.stop_time <= *time,
        RecoveryTarget::Lsn(lsn) => Lsn::from(log.stop) <= *lsn,
        _ => side != Side::Before,
    }
}

impl Catalog {
    /// The backups that are missed, oldest first. Looked for once.
    pub async fn lost_backups(&self, now: Timestamp) -> Result<&[LostBackup], EngineError> {
        Ok(self
            .lost_backups
            .get_or_try_init(|| lost_backups(self, now))
            .await?)
    }
}
