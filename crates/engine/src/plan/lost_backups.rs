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
use backstay_terms::{BackupId, Lsn, RecoveryTarget, RunId};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use tracing::warn;

/// How long backups are promised at most: records of older runs miss none.
const PROMISED_MAX: SignedDuration = SignedDuration::from_hours(24 * 2557);

/// At most so many records of backups are opened for one answer, the newest.
const RECORDS_MAX: usize = 200;

/// A backup is named so soon after its run that no other run is its own.
const NAMED_WITHIN: SignedDuration = SignedDuration::from_secs(60);

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
    // Names tell the second.
    let closed = catalog.unread.heads.iter().map(|head| head.complete);
    let complete = catalog.heads.iter().map(|head| head.finished).chain(closed);
    let since = now.checked_sub(PROMISED_MAX).unwrap_or(Timestamp::MIN);
    let names = repository.run_names("backup", since).await?;
    let ended = names
        .into_iter()
        .filter(|(_, moment)| *moment == RunMoment::Finished);
    let ended: Vec<RunId> = ended.map(|(run, _)| run).collect();
    let mut lost = Vec::new();
    for run in unexplained(&ended, &there).into_iter().take(RECORDS_MAX) {
        let record = match repository.read_run_finished(run).await {
            Err(error) if error.is_about_the_object() => {
                warn!(%run, %error, "the record of a backup cannot be read and is passed over; see: backstay verify");
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

/// The runs, newest first, that do not each explain a backup that is there: of whichever source, or of one that is gone. Names
/// tell the second: of runs that began in one, none does, and neither does one whose backup may be that of an unexplained run
/// shortly before it.
fn unexplained<'a>(ended: &'a [RunId], there: &BTreeSet<&BackupId>) -> Vec<&'a RunId> {
    let named: Vec<Timestamp> = there.iter().filter_map(|backup| moment_of(backup)).collect();
    let began: Vec<Option<Timestamp>> = ended.iter().map(moment_of).collect();
    let at = |place: usize| began.get(place).copied().flatten();
    let mut unexplained = Vec::new();
    // Until then a backup may be that of an unexplained run.
    let mut doubt = Timestamp::MIN;
    for (place, run) in ended.iter().enumerate() {
        let Some(own) = at(place) else {
            unexplained.push(run);
            continue;
        };
        let last = own.saturating_add(NAMED_WITHIN).unwrap_or(Timestamp::MAX);
        let until = at(place + 1).map_or(last, |next| next.min(last));
        let is_own = |named: &Timestamp| own.max(doubt) <= *named && *named < until;
        if !named.iter().any(is_own) {
            unexplained.push(run);
            doubt = last;
        }
    }
    unexplained.reverse();
    unexplained
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
            let newer = catalog.heads.iter().filter(|head| head.finished > lost.committed);
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

#[cfg(test)]
mod tests {
    use super::*;
    use backstay_terms::{Suffix, TimedId};

    /// The names at these seconds of a minute, each with a suffix of its own.
    fn ids(kind: &str, seconds: &[u64]) -> Vec<TimedId> {
        let id = |(number, second): (usize, &u64)| {
            let time = format!("20261127T1000{second:02}Z");
            TimedId::new(&time, kind, Suffix::from_chance((number as u64 + 1) << 20)).unwrap()
        };
        seconds.iter().enumerate().map(id).collect()
    }

    fn opened(runs: &[u64], backups: &[u64]) -> usize {
        let (runs, backups) = (ids("backup", runs), ids("full", backups));
        unexplained(&runs, &backups.iter().collect()).len()
    }

    #[test]
    fn a_run_is_passed_over_only_if_no_other_can_be_that_of_the_backup() {
        assert_eq!(opened(&[0, 20, 40], &[0, 21, 40]), 0, "each has its own");
        assert_eq!(
            opened(&[0, 20, 40], &[0, 40]),
            2,
            "the second, and whose may be its"
        );
        assert_eq!(opened(&[0, 1], &[1]), 2, "it may be that of the first");
        assert_eq!(opened(&[0, 0], &[0, 0]), 2, "began in one second");
        assert_eq!(opened(&[0], &[]), 1);
    }
}
