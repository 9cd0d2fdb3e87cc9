//! The invariants of the format document, by id, over the objects that survived.
//!
//! Promise: what is broken comes back as sentences that begin with the id; nothing is repaired on the way.

use std::collections::BTreeSet;

use backstay_repository::layout::{self, BackupPlace, Level, RunMoment};
use backstay_repository::{BaseReader, LogStore, Repository, RepositoryError, StoredRange};
use backstay_store::{MemoryImage, MemoryStore};
use backstay_terms::{Branch, EngineKind, LogRange};
use std::sync::Arc;

use super::containers::refuse;
use super::flow::files;
use super::ledger::{Acknowledged, Ledger};
use super::server::{END, log_bytes};
use crate::support::*;

/// What may be expected of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faith {
    /// Objects are whole or absent: everything must be readable.
    Honest,
    /// An object may be torn: reading may be refused, but gives nothing wrong.
    Torn,
}

/// REPO-1 and REPO-2: what was there is there, unchanged.
pub fn changed(before: &MemoryImage, after: &MemoryImage) -> Vec<String> {
    let mut found = Vec::new();
    for (key, body) in before.objects() {
        match after.get(key) {
            None => found.push(format!("REPO-2: {key} is gone")),
            Some(now) if now != body => found.push(format!("REPO-1: {key} holds other bytes than before")),
            Some(_) => {}
        }
    }
    found
}

/// Everything that a reader can see must hold.
pub async fn broken(world: &World, image: &MemoryImage, ledger: &Ledger, faith: Faith) -> Vec<String> {
    let mut found = Vec::new();
    if faith == Faith::Honest {
        let refused = image
            .objects()
            .filter_map(|(key, body)| refuse(image, key, body, [7; 32]));
        found.extend(refused);
    }
    let store = Arc::new(MemoryStore::from_snapshot(world.clock(), image.clone()));
    let acknowledged = ledger.read();
    match world.open_over(store, &[raw_key(7)]).await {
        Ok(repository) => {
            let mut reader = Reader {
                repository,
                acknowledged,
                faith,
                found,
            };
            reader.examine(image).await;
            found = reader.found;
        }
        Err(error) => {
            let nothing = acknowledged.heads.is_empty() && acknowledged.durable.is_empty();
            if !(nothing && matches!(error, RepositoryError::Absent)) && faith == Faith::Honest {
                found.push(format!("OPEN: {error}"));
            }
        }
    }
    found
}

/// A process that reads what survived.
struct Reader {
    repository: Repository,
    acknowledged: Acknowledged,
    faith: Faith,
    found: Vec<String>,
}

impl Reader {
    async fn examine(&mut self, image: &MemoryImage) {
        self.heads().await;
        self.runs(image);
        if let Err(error) = self.log(image).await {
            self.refused("LOG-1", &error.to_string());
        }
    }

    /// Refusing to read is a fault only where every object is whole.
    fn refused(&mut self, id: &str, what: &str) {
        if self.faith == Faith::Honest {
            self.found.push(format!("{id}: {what}"));
        }
    }

    /// REPO-4: a head that can be seen is a backup that can be read; what was committed can be seen.
    async fn heads(&mut self) {
        let places = self
            .repository
            .backup_places(EngineKind::Postgres, &source())
            .await
            .unwrap();
        for head in self.acknowledged.heads.clone() {
            if !places.contains(&head.place()) {
                self.found
                    .push(format!("REPO-4: {} was committed and is not there", head.backup));
            }
        }
        for place in places {
            match self.read_backup(&place).await {
                Err(error) => self.refused("REPO-4", &format!("{} is visible: {error}", place.backup)),
                Ok(true) => {}
                Ok(false) => self
                    .found
                    .push(format!("REPO-4: {} has other content", place.backup)),
            }
        }
    }

    async fn read_backup(&self, place: &BackupPlace) -> Result<bool, RepositoryError> {
        let reader = BaseReader::open(&self.repository, place).await?;
        let same = read_whole(&reader, 2).await? == contents_of(&files());
        let manifest = files().pop().map(|entry| entry.content);
        // REPO-5: what is read lies in the head's own generation and class: its place gave every name.
        Ok(same && Some(reader.server_manifest().await?) == manifest)
    }

    fn runs(&mut self, image: &MemoryImage) {
        let runs: BTreeSet<_> = image
            .objects()
            .filter(|(key, _)| key.as_str().starts_with("facts/runs/"))
            .filter_map(|(key, _)| {
                layout::of_run(key).map(|(run, moment)| (run, moment == RunMoment::Finished))
            })
            .collect();
        for (run, finished) in &runs {
            if *finished && !runs.contains(&(run.clone(), false)) {
                self.found.push(format!("RUNS: {run} finished and never started"));
            }
        }
    }

    async fn log(&mut self, image: &MemoryImage) -> Result<(), RepositoryError> {
        let log = LogStore::new(&self.repository, EngineKind::Postgres, &source());
        let branches = branches(&log, image);
        let recorded: BTreeSet<Branch> = log.records().await?.iter().map(|record| record.branch).collect();
        for branch in branches.iter().filter(|branch| !recorded.contains(branch)) {
            self.found
                .push(format!("LIN-1: {branch} has ranges and no lineage record"));
        }
        for branch in &branches {
            self.ranges(&log, branch).await;
        }
        for (branch, durable) in self.acknowledged.durable.clone() {
            match log.read(&branch, durable).await {
                Err(error) => self.refused("LOG-1", &error.to_string()),
                Ok(bytes) if bytes == log_bytes(branch.timeline, durable) => {}
                Ok(_) => self.found.push(format!("LOG-1: {branch} serves other bytes")),
            }
        }
        Ok(())
    }

    /// LOG-2: every range, at whatever level, holds the bytes of its own branch. LOG-3: marks stand on stored bytes.
    async fn ranges(&mut self, log: &LogStore, branch: &Branch) {
        let ranges = log.ranges(branch, None).await.unwrap();
        for stored in &ranges {
            match log.range(stored).await {
                Err(error) => self.refused("LOG-2", &error.to_string()),
                Ok((index, bytes)) => {
                    if bytes != log_bytes(branch.timeline, stored.name.range) {
                        self.found.push(format!(
                            "LOG-2: {} holds other bytes than its branch",
                            stored.name
                        ));
                    }
                    let mark = index.facts.mark.map(|mark| mark.position);
                    if mark.is_some_and(|at| !is_stored_up_to(&ranges, at.0)) {
                        self.found.push(format!(
                            "LOG-3: {} stands on bytes that are not stored",
                            stored.name
                        ));
                    }
                }
            }
        }
    }
}

fn is_stored_up_to(ranges: &[StoredRange], position: u64) -> bool {
    let mut holding = ranges.iter().map(|stored| stored.name.range);
    holding.any(|range| range.from.0 < position && position <= range.to.0)
}

fn branches(log: &LogStore, image: &MemoryImage) -> BTreeSet<Branch> {
    let names = image.objects().map(|(key, _)| key);
    let ranges = names.flat_map(|key| Level::ALL.map(|level| log.place().of_range(level, key)));
    ranges.flatten().map(|(branch, _)| branch).collect()
}

/// What must be true after a run that nothing disturbed.
pub async fn unconverged(world: &World, ledger: &Ledger) -> Vec<String> {
    let mut found = Vec::new();
    // The new recipient alone opens everything: rotation is complete.
    let repository = world.open_with(&[raw_key(8)]).await.unwrap();
    for place in repository
        .backup_places(EngineKind::Postgres, &source())
        .await
        .unwrap()
    {
        if let Err(error) = BaseReader::open(&repository, &place).await {
            found.push(format!(
                "CONVERGE: the new key does not open {}: {error}",
                place.backup
            ));
        }
    }
    let log = LogStore::new(&repository, EngineKind::Postgres, &source());
    let known = match log.known().await {
        Ok(known) => known,
        Err(error) => return vec![format!("CONVERGE: the new key does not open the log: {error}")],
    };
    for known in &known {
        let ranges = log.ranges(&known.record.branch, None).await.unwrap();
        let unsettled: Vec<LogRange> = LogStore::unsettled(&ranges);
        if !unsettled.is_empty() {
            found.push(format!("CONVERGE: {unsettled:?} is not settled"));
        }
        for range in &ranges {
            if let Err(error) = log.range(range).await {
                found.push(format!(
                    "CONVERGE: the new key does not open {}: {error}",
                    range.name
                ));
            }
        }
    }
    let ends = known.iter().map(|known| known.frontier);
    if ends.max().flatten() != Some(END) && !ledger.read().durable.is_empty() {
        found.push("CONVERGE: the stream did not reach the end of the log".to_owned());
    }
    found
}
