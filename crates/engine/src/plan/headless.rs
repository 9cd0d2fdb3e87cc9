//! Backups of which packs and tables are stored, and no head: what became of them, as the records of runs tell.
//!
//! Promise: every backup is recorded as begun before anything of it is stored, and has the suffix of its run. One whose run never
//! ended died, or runs; one whose run left no record lost it, and may have been committed: `latest` and `immediate` never go
//! back behind it in silence.
//! Not here: those whose run says that it committed them (lost_backups), expiry (retention).

use super::catalog::Catalog;
use super::lost_backups::{itself, proven_time};
use super::restore::{EPOCH_2000, Request};
use crate::EngineError;
use crate::jobs::backup::Committed;
use backstay_repository::layout::RunMoment;
use backstay_repository::{Head, Headless, RUN_BEFORE_BACKUP, Repository, RunResult, expires_at, moment_of};
use backstay_terms::{BackupId, GenerationId, RecoveryTarget, RetentionClass, RunId, SourceName};
use jiff::{SignedDuration, Timestamp};

/// A backup that runs stores something so often.
const STORES_WITHIN: SignedDuration = SignedDuration::from_hours(1);

/// What became of a backup without a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// No run tells of it.
    Untold,
    /// This run began and never ended.
    Unended(RunId),
    /// Its run failed.
    Failed,
    /// This run committed it.
    Committed,
}

/// A backup without a head that is newer than every one that has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadlessBackup {
    /// What is stored of it.
    pub left: Headless,
    /// What became of it: no run tells, or its run never ended.
    pub fate: Fate,
}

impl HeadlessBackup {
    /// What is wrong, in words.
    pub fn words(&self) -> String {
        let Headless {
            backup,
            parts,
            stored,
            ..
        } = &self.left;
        match &self.fate {
            Fate::Unended(run) => {
                format!(
                    "the run {run} began the backup {backup} and never ended; it stored something last on {stored}"
                )
            }
            _ => format!(
                "{parts} packs and tables of the backup {backup} are stored, the last on {stored}, without its head, and no run \
                 tells of it: it may have been committed"
            ),
        }
    }

    /// Whether it may have been committed.
    pub fn is_untold(&self) -> bool {
        self.fate == Fate::Untold
    }
}

/// Whether the longest promise of a backup of this class is over: its removal may have begun.
pub(crate) fn may_be_expired(backup: &BackupId, class: RetentionClass, now: Timestamp) -> bool {
    moment_of(backup).is_some_and(|began| expires_at(class, began, began) <= now)
}

/// What became of a backup without a head.
pub(crate) async fn fate_of(
    repository: &Repository,
    source: &SourceName,
    backup: &BackupId,
) -> Result<Fate, EngineError> {
    let Some(began) = moment_of(backup) else {
        return Ok(Fate::Untold);
    };
    let since = began.saturating_sub(RUN_BEFORE_BACKUP).unwrap_or(Timestamp::MIN);
    let mut names = repository.run_names("backup", since).await?;
    names.retain(|(run, _)| run.suffix() == backup.suffix());
    let ended = names.iter().find(|(_, moment)| *moment == RunMoment::Finished);
    let Some((run, moment)) = ended.or(names.first()) else {
        return Ok(Fate::Untold);
    };
    let (started, ended) = match repository.read_run(run, *moment).await {
        // Verification names it.
        Err(error) if error.is_about_the_object() => return Ok(Fate::Unended(run.clone())),
        told => told?,
    };
    Ok(match ended {
        _ if started.source != source.as_str() => Fate::Untold,
        None => Fate::Unended(run.clone()),
        Some(record) => match Committed::by(&record) {
            Some(committed) if committed.backup == *backup => Fate::Committed,
            None if record.result == RunResult::Failed => Fate::Failed,
            _ => Fate::Untold,
        },
    })
}

/// Generation and id of a backup, as they sort by its source's clock.
fn dated(head: &Head) -> (GenerationId, BackupId) {
    match head.ahead().is_zero() {
        true => (head.generation.clone(), head.backup.clone()),
        false => (head.dated(), head.dated()),
    }
}

/// Those of which no run tells, and those whose run never ended and stores nothing any more; oldest first.
async fn headless_backups(catalog: &Catalog, now: Timestamp) -> Result<Vec<HeadlessBackup>, EngineError> {
    let (repository, source, engine) = (
        catalog.log.repository(),
        &catalog.source,
        catalog.log.place().engine,
    );
    // One whose clock was ahead hides no other.
    let dated: Vec<_> = catalog.heads.iter().map(dated).collect();
    let heads = dated.iter().map(|(generation, backup)| (generation, backup));
    let unread = catalog
        .unread
        .heads
        .iter()
        .map(|head| (&head.place.generation, &head.place.backup));
    let newest = heads.chain(unread).max_by_key(|(_, backup)| *backup);
    let mut found = Vec::new();
    for left in repository.headless(engine, source, newest).await? {
        if newest.is_some_and(|(_, newest)| left.backup <= *newest) {
            continue;
        }
        if may_be_expired(&left.backup, left.class, now) {
            continue;
        }
        let fate = fate_of(repository, source, &left.backup).await?;
        let is_told = match fate {
            Fate::Untold => true,
            Fate::Unended(_) => now.duration_since(left.stored) > STORES_WITHIN,
            Fate::Failed | Fate::Committed => false,
        };
        if is_told {
            found.push(HeadlessBackup { left, fate });
        }
    }
    if found.is_empty() {
        return Ok(found);
    }
    // One may have been committed after the heads were listed.
    let places = repository.backup_places(engine, source).await?;
    found.retain(|found| places.iter().all(|place| place.backup != found.left.backup));
    Ok(found)
}

/// Refuses `immediate` and `latest` where parts of a newer backup are there that may have been committed, unless the log
/// proves that it goes on past the moment at which the last of them was stored. Whoever names a base has chosen.
pub(super) async fn refuse_if_newer_is_untold(
    catalog: &Catalog,
    request: &Request,
    head: &Head,
) -> Result<(), EngineError> {
    if !request.means_the_newest() {
        return Ok(());
    }
    let found = catalog.headless(request.now).await?;
    let Some(untold) = found.iter().rfind(|found| found.is_untold()) else {
        return Ok(());
    };
    let stored = untold.left.stored.as_microsecond() - EPOCH_2000 * 1_000_000;
    let proven = match request.target {
        RecoveryTarget::Latest => proven_time(catalog, head).await?,
        _ => None,
    };
    if proven.is_some_and(|proven| proven >= stored) {
        return Ok(());
    }
    let source = &catalog.source;
    Err(EngineError::Lost {
        what: format!("the newest backup of {source} may be lost: {}", untold.words()),
        advice: format!(
            "bring its head back from a copy of the repository, or go back on purpose to {}; or take a new backup: \
             backstay backup {source}",
            itself(head)
        ),
    })
}

impl Catalog {
    /// Backups without a head that are newer than every one that has one, of which no run tells or whose run died. Looked for once.
    pub async fn headless(&self, now: Timestamp) -> Result<&[HeadlessBackup], EngineError> {
        Ok(self
            .headless
            .get_or_try_init(|| headless_backups(self, now))
            .await?)
    }
}
