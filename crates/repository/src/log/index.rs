//! The log index: what is known about an epoch's settled ranges of one hour, gathered in one object.
//!
//! Promise: it repeats what the ranges say, so a missing one costs requests and nothing else; it is written once, by the
//! epoch that wrote the ranges. Layout: length of the JSON lines (u32), then one zstd frame of them.
//! Not here: when an hour is over (log::writer), who asks (backstay-engine::plan).

use super::coverage::StoredRange;
use super::range::RangeIndex;
use super::store::LogStore;
use crate::RepositoryError;
use crate::base::LEVEL;
use crate::layout::{EnvelopePlace, Level, Place};
use crate::{Repository, layout};
use backstay_codec::{Compressor, Decompressor, Kind, SecretKey, Sha256};
use backstay_store::list_all;
use backstay_terms::{Branch, EpochId, LogFacts};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use tracing::warn;

/// An index is refused when it claims to be longer than this.
const INDEX_BYTES_MAX: usize = 64 << 20;

/// One range in an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexLine {
    pub range: String,
    pub level: Level,
    pub size: u64,
    pub facts: LogFacts,
    pub sha256: Sha256,
}

impl IndexLine {
    pub fn new(name: String, level: Level, size: u64, index: RangeIndex) -> IndexLine {
        let RangeIndex { facts, sha256, .. } = index;
        IndexLine {
            range: name,
            level,
            size,
            facts,
            sha256,
        }
    }
}

/// An index ready to be sealed and stored.
#[derive(Debug)]
pub struct IndexUpload {
    pub(super) repository: Repository,
    pub(super) place: Place,
    pub(super) key: SecretKey,
    pub(super) lines: Vec<IndexLine>,
}

impl IndexUpload {
    /// Seals and stores the index.
    pub async fn run(self) -> Result<(), RepositoryError> {
        let mut plain = Vec::new();
        for line in &self.lines {
            serde_json::to_writer(&mut plain, line).map_err(RepositoryError::encoding)?;
            plain.push(b'\n');
        }
        let compressed = Compressor::new(LEVEL)
            .and_then(|mut c| c.compress(&plain))
            .map_err(RepositoryError::encoding)?;
        let content = [&(plain.len() as u32).to_be_bytes()[..], &compressed].concat();
        self.repository
            .put_sealed(self.place, Kind::LogIndex, self.key, content, String::new())
            .await?;
        Ok(())
    }
}

impl LogStore {
    /// What the stored indexes of a branch say, by level and name of the range.
    pub async fn gathered(
        &self,
        branch: &Branch,
    ) -> Result<HashMap<(Level, String), LogFacts>, RepositoryError> {
        let mut gathered = HashMap::new();
        for object in list_all(self.repository.store(), &self.place.indexes_prefix(branch)?, None).await? {
            let Some((hour, epoch)) = self.place.of_index(branch, &object.key) else {
                continue;
            };
            let place = self.place.index(branch, &hour, &epoch)?;
            match self.gathered_in(&place, &epoch).await {
                Ok(lines) => gathered.extend(lines.map(|line| ((line.level, line.range), line.facts))),
                // The ranges say the same.
                Err(error) if error.is_about_the_object() => {
                    warn!(%branch, %error, "an index of the log that cannot be opened is passed over");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(gathered)
    }

    pub(crate) async fn gathered_in(
        &self,
        place: &Place,
        epoch: &EpochId,
    ) -> Result<impl Iterator<Item = IndexLine> + use<>, RepositoryError> {
        let envelope = EnvelopePlace::epoch(self.place.engine, &self.place.source, epoch);
        let content = self
            .repository
            .get_sealed(place, Kind::LogIndex, &envelope)
            .await?;
        Ok(lines(&content, place)?.into_iter())
    }

    /// Where `gathered` holds a range.
    pub fn gathered_key(stored: &StoredRange) -> (Level, String) {
        (stored.level, stored.name.to_string())
    }
}

fn lines(content: &[u8], place: &Place) -> Result<Vec<IndexLine>, RepositoryError> {
    let refuse = |what: &str| RepositoryError::malformed(&place.key, what);
    let (length, frame) = content
        .split_at_checked(4)
        .ok_or_else(|| refuse("it has no length"))?;
    let length = length
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| refuse("it has no length"))? as usize;
    if length > INDEX_BYTES_MAX {
        return Err(refuse("it claims to be longer than indexes are"));
    }
    let plain = Decompressor::new().and_then(|mut d| d.decompress(frame, length));
    crate::base::lines(
        &plain.map_err(|e| RepositoryError::malformed(&place.key, e))?,
        place.key.as_str(),
    )
}

/// The lines of one hour.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    hour: String,
    lines: Vec<IndexLine>,
}

impl Gathering {
    /// Adds a range that was stored at `now`.
    pub fn add(&mut self, line: IndexLine, now: jiff::Timestamp) {
        if self.lines.is_empty() {
            self.hour = layout::hour(now);
        }
        self.lines.push(line);
    }

    /// The lines and their hour when it is over, or when everything is wanted.
    pub fn take(&mut self, now: jiff::Timestamp, wanted: Wanted) -> Option<(String, Vec<IndexLine>)> {
        let over = wanted == Wanted::Everything || layout::hour(now) != self.hour;
        (over && !self.lines.is_empty()).then(|| (self.hour.clone(), std::mem::take(&mut self.lines)))
    }
}

/// Which index is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The one of an hour that is over.
    OverHours,
    /// Also the one of the hour that is still running; the epoch or its branch ends.
    Everything,
}
