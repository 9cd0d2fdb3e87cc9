//! The invariants of the format document, by id, over what survived and what the outside world was told.
//!
//! Promise: what is broken comes back as sentences that begin with the id; the survivor is read by a fresh process that
//! knows the first key alone, and compared with the recording, never with itself.

use super::conversation::{Conversation, SEGMENT};
use super::process::{Ledger, Scene, name};
use backstay_engine::plan::Catalog;
use backstay_repository::{BaseReader, Digest, LogStore, PackReading, Repository, RepositoryError, Sha256};
use backstay_store::{Key, MemoryImage};
use backstay_terms::{BackupId, EngineKind, LogRange, Position};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What every whole copy of the recorded base holds: file by file its digest.
pub type Content = BTreeMap<String, Sha256>;

/// Parts of backups whose files were found to be those of the recorded server.
static WHOLE: Mutex<BTreeMap<BackupId, Vec<(Key, Bytes)>>> = Mutex::new(BTreeMap::new());

/// What must be true of everything that can be seen.
#[derive(Debug)]
pub struct Examiner<'a> {
    pub conversation: &'a Conversation,
    pub content: &'a Content,
    pub ledger: &'a Ledger,
}

/// Whether objects may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// A writer deletes nothing.
    Forbidden,
    /// Expiry was asked for.
    Asked,
}

/// REPO-1 and REPO-2: what was there is there, unchanged.
pub fn changed(before: &MemoryImage, after: &MemoryImage, removal: Removal) -> Vec<String> {
    let mut found = Vec::new();
    for (key, body) in before.objects() {
        match after.get(key) {
            None if removal == Removal::Forbidden => found.push(format!("REPO-2: {key} is gone")),
            Some(now) if now != body => found.push(format!("REPO-1: {key} holds other bytes than before")),
            _ => {}
        }
    }
    found
}

impl Examiner<'_> {
    /// Whatever is broken.
    pub async fn broken(&self, scene: &Scene, removal: Removal) -> Vec<String> {
        let repository = match scene.open(&[7]).await {
            Ok(repository) => repository,
            Err(RepositoryError::Absent) if self.nothing_was_said() => return Vec::new(),
            Err(error) => return vec![format!("OPEN: {error}")],
        };
        let mut found = self.backups(scene, &repository, removal).await;
        found.extend(self.ranges(&repository).await);
        found.extend(self.reported(&repository).await);
        found
    }

    fn nothing_was_said(&self) -> bool {
        self.ledger.heads().is_empty() && self.ledger.reported.read().is_empty()
    }

    /// REPO-4: a head that can be seen is a backup that can be read whole; what was committed can be seen.
    async fn backups(&self, scene: &Scene, repository: &Repository, removal: Removal) -> Vec<String> {
        let mut found = Vec::new();
        let heads = match repository.heads(EngineKind::Postgres, &name()).await {
            Ok(heads) => heads,
            Err(error) => return vec![format!("REPO-4: a head is visible and cannot be read: {error}")],
        };
        for committed in self.ledger.heads() {
            let gone = !heads.iter().any(|head| head.backup == committed.backup);
            if gone && removal == Removal::Forbidden {
                found.push(format!(
                    "REPO-4: {} was committed and is not there",
                    committed.backup
                ));
            }
        }
        for head in heads {
            let whole = match BaseReader::open(repository, &head.place()).await {
                Ok(base) => self.is_whole(scene, &head.backup, &base).await,
                Err(error) => Err(error.to_string()),
            };
            if let Err(what) = whole {
                found.push(format!("REPO-4: {} is visible: {what}", head.backup));
            }
        }
        found
    }

    /// Parts that were read once and are the same bytes still are not read again.
    async fn is_whole(&self, scene: &Scene, backup: &BackupId, base: &BaseReader) -> Result<(), String> {
        let parts = scene.objects(&format!("/{backup}/"));
        let known = || WHOLE.lock().unwrap_or_else(PoisonError::into_inner);
        if known().get(backup) == Some(&parts) {
            return Ok(());
        }
        if &content(base).await? != self.content {
            return Err("its files are not those of the recorded server".to_owned());
        }
        known().insert(backup.clone(), parts);
        Ok(())
    }

    /// LIN-1 and LOG-2: a range belongs to a recorded lineage and holds the bytes of its own timeline.
    async fn ranges(&self, repository: &Repository) -> Vec<String> {
        let log = LogStore::new(repository, EngineKind::Postgres, &name());
        let (known, inventory) = (log.records().await, self.inventory(repository).await);
        let (known, inventory) = match (known, inventory) {
            (Ok(known), Ok(inventory)) => (known, inventory),
            (Err(error), _) | (_, Err(error)) => return vec![format!("LIN-1: {error}")],
        };
        let mut found = Vec::new();
        for branch in inventory {
            if !known.iter().any(|record| record.branch == branch) {
                found.push(format!("LIN-1: {branch} has ranges and no lineage record"));
            }
            let Ok(ranges) = log.ranges(&branch, None).await else {
                found.push(format!("LOG-2: {branch} cannot be listed"));
                continue;
            };
            for stored in ranges {
                let expected = self.recorded(branch.timeline, stored.name.range);
                let bytes = log.range(&stored).await.map(|(_, bytes)| bytes.to_vec());
                if bytes.ok().as_deref() != expected {
                    let (name, timeline) = (stored.name, branch.timeline);
                    found.push(format!(
                        "LIN-1: {name} holds other bytes than timeline {timeline}"
                    ));
                }
            }
        }
        found
    }

    async fn inventory(
        &self,
        repository: &Repository,
    ) -> Result<Vec<backstay_terms::Branch>, RepositoryError> {
        let since = jiff::Timestamp::UNIX_EPOCH;
        let inventory = repository.inventory(EngineKind::Postgres, &name(), since).await?;
        Ok(inventory.branches.iter().map(|branch| branch.branch).collect())
    }

    fn recorded(&self, timeline: u32, range: LogRange) -> Option<&[u8]> {
        self.conversation.wal.get(&timeline)?.part(range)
    }

    /// LOG-1: what the server was told is durable is served, and equal to what the server sent.
    async fn reported(&self, repository: &Repository) -> Vec<String> {
        let mut found = Vec::new();
        for (timeline, flushed) in self.ledger.reported.read() {
            let wal = &self.conversation.wal[&timeline];
            let range = LogRange {
                from: wal.from,
                to: Position(flushed),
            };
            if range.from >= range.to {
                continue;
            }
            match served(repository, timeline, range).await {
                Ok(bytes) if Some(bytes.as_slice()) == wal.part(range) => {}
                Ok(_) => found.push(format!("LOG-1: timeline {timeline} serves other bytes")),
                Err(what) => found.push(format!("LOG-1: {flushed:x} of timeline {timeline}: {what}")),
            }
        }
        found
    }
}

/// The bytes of a timeline by its newest lineage and that one's ancestors. What a stream reports when it attaches after a
/// promotion is durable on the timeline before, which may be all there is yet.
async fn served(repository: &Repository, timeline: u32, range: LogRange) -> Result<Vec<u8>, String> {
    let log = LogStore::new(repository, EngineKind::Postgres, &name());
    let records = log.records().await.map_err(|error| error.to_string())?;
    let branch = records
        .iter()
        .rev()
        .map(|record| record.branch)
        .find(|branch| branch.timeline <= timeline);
    let branch = branch.ok_or("no lineage of it is recorded")?;
    let catalog = Catalog::read(repository, EngineKind::Postgres, &name(), Some(branch)).await;
    let bytes = catalog.map_err(|error| error.to_string())?.bytes_in(range).await;
    bytes.map_err(|error| error.to_string())
}

/// Every file of a base with the digest of its bytes.
pub async fn content(base: &BaseReader) -> Result<Content, String> {
    let (mut cursor, mut content) = (base.cursor(PackReading::ByRanges), Content::new());
    for file in base.files() {
        let mut digest = Digest::new();
        let read = cursor.read_file(&file, |bytes| {
            digest.update(bytes);
            Ok(())
        });
        read.await.map_err(|error| format!("{}: {error}", file.path))?;
        content.insert(format!("{:?} {}", file.role, file.path), digest.finish());
    }
    Ok(content)
}

/// What a settled repository has: no live range without a settled one.
pub async fn unsettled(scene: &Scene, keys: &[u8], end: Option<Position>) -> Vec<String> {
    let repository = match scene.open(keys).await {
        Ok(repository) => repository,
        Err(error) => return vec![format!("CONVERGE: {error}")],
    };
    let log = LogStore::new(&repository, EngineKind::Postgres, &name());
    let known = match log.known().await {
        Ok(known) => known,
        Err(error) => return vec![format!("CONVERGE: {error}")],
    };
    let mut found = Vec::new();
    for known in &known {
        let ranges = log.ranges(&known.record.branch, None).await.unwrap();
        assert_eq!(known.record.segment_size, SEGMENT);
        let waiting = LogStore::unsettled(&ranges);
        if !waiting.is_empty() {
            found.push(format!("CONVERGE: {waiting:?} is not settled"));
        }
    }
    let reached = known.iter().filter_map(|known| known.frontier).max();
    if end.is_some() && reached != end {
        found.push(format!(
            "CONVERGE: the log is stored up to {reached:?}, not to {end:?}"
        ));
    }
    found
}
