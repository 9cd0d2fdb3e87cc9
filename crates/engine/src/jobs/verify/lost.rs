//! Finds backups that a run committed, that are still promised, and whose head is not there.
//!
//! Promise: a backup past its promise may have expired, and one whose run never said that it succeeded may have died: neither
//! is missed. What is missed is looked for once more before it is named.
//! Not here: what a run record says (jobs::backup::committed).

use crate::EngineError;
use crate::jobs::backup::Committed;
use crate::plan::{CLOCKS_DIFFER, Fate, fate_of, may_be_expired};
use backstay_repository::layout::BackupPlace;
use backstay_repository::{
    BackupObjects, CheckFinding, HeadState, Invariant, Inventory, Repository, RunFinished,
};
use backstay_terms::{BackupId, EngineKind, RetentionClass, SourceName};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// The backups of one source by their names.
#[derive(Debug, Default)]
pub(super) struct Backups {
    heads: BTreeSet<BackupId>,
    /// What is left of those without a head: its class, and how many tables and packs.
    parts: BTreeMap<BackupId, (RetentionClass, usize)>,
}

impl Backups {
    /// Adds what is listed of a source.
    pub fn add(&mut self, inventory: &Inventory) {
        for backup in &inventory.backups {
            let id = backup.place.backup.clone();
            match backup.head {
                HeadState::Absent => drop(
                    self.parts
                        .insert(id, (backup.place.class, backup.parts().count())),
                ),
                HeadState::Opened(..) | HeadState::Closed(..) => drop(self.heads.insert(id)),
            }
        }
    }

    /// The finding for a backup that is missed, unless it may have gone by right.
    pub async fn missed(
        &self,
        repository: &Repository,
        run: &RunFinished,
    ) -> Result<Option<CheckFinding>, EngineError> {
        let Some(committed) = Committed::by(run) else {
            return Ok(None);
        };
        if self.heads.contains(&committed.backup) {
            return Ok(None);
        }
        let parts = self.parts.get(&committed.backup);
        let promised = committed.promised_until(run, parts.map(|(class, _)| *class));
        let now = repository
            .now()
            .saturating_add(CLOCKS_DIFFER)
            .unwrap_or(Timestamp::MAX);
        let Some(source) = run
            .started
            .source
            .parse::<SourceName>()
            .ok()
            .filter(|_| now < promised)
        else {
            return Ok(None);
        };
        // It may have been committed after the names were listed.
        for engine in [EngineKind::Postgres, EngineKind::Redis, EngineKind::Qdrant] {
            let places = repository.backup_places(engine, &source).await?;
            if places.iter().any(|place| place.backup == committed.backup) {
                return Ok(None);
            }
        }
        Ok(Some(finding(&committed, run, source, promised, parts)))
    }
}

/// The finding for a backup without a head of which no run tells: a process that died has left the record that it began.
pub(super) async fn untold(
    repository: &Repository,
    source: &SourceName,
    backup: &BackupObjects,
) -> Result<Option<CheckFinding>, EngineError> {
    let id = &backup.place.backup;
    if may_be_expired(id, backup.place.class, repository.now())
        || fate_of(repository, source, id).await? != Fate::Untold
    {
        return Ok(None);
    }
    // It may have been committed after the names were listed.
    let places = repository.backup_places(backup.place.engine, source).await?;
    if places.iter().any(|place| place.backup == *id) {
        return Ok(None);
    }
    let what = format!(
        "the head of backup {id} is not there, and no run tells of it: it may have been committed; {} of its tables and packs \
         are there",
        backup.parts().count()
    );
    let next = format!("bring it back from a copy of the repository, or: backstay backup {source}");
    let at = backup.place.head()?.key.to_string();
    Ok(Some(CheckFinding::new(at, Invariant::Repo4, what).then(next)))
}

fn finding(
    committed: &Committed,
    run: &RunFinished,
    source: SourceName,
    promised: Timestamp,
    parts: Option<&(RetentionClass, usize)>,
) -> CheckFinding {
    let next = format!("bring it back from a copy of the repository, or: backstay backup {source}");
    let left = match parts {
        Some((_, count)) => {
            format!("{count} of its tables and packs are there, and nothing opens them without it")
        }
        None => "and nothing else of it is there".to_owned(),
    };
    let what = format!(
        "the head of backup {} is not there: the run {} committed it on {}, and it is promised until {promised}; {left}",
        committed.backup, run.started.run, run.finished
    );
    let at = place_of(committed, source.clone(), parts.map(|(class, _)| *class));
    let object = at.unwrap_or_else(|| format!("a backup of {source}"));
    CheckFinding::new(object, Invariant::Repo4, what).then(next)
}

fn place_of(committed: &Committed, source: SourceName, left: Option<RetentionClass>) -> Option<String> {
    let place = BackupPlace {
        // The only engine that is backed up yet.
        engine: EngineKind::Postgres,
        source,
        class: committed.class.or(left)?,
        generation: committed.generation.clone()?,
        backup: committed.backup.clone(),
    };
    Some(place.head().ok()?.key.to_string())
}
