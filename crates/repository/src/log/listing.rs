//! Lists the log with the ages of its objects, and the history files, one by one.
//!
//! Promise: a name that is no range and no history file is given back as a stray: who must prove that something is not
//! there cannot pass over what he does not understand.
//! Not here: bytes and facts (log::store).

use super::coverage::StoredRange;
use super::lineage::history_digest;
use super::store::{LogStore, SPAN_MAX};
use crate::inventory::StoredObject;
use crate::layout::{Level, LogPlace, month};
use crate::{LineageRecord, RepositoryError};
use backstay_codec::Kind;
use backstay_store::{ObjectMeta, list_all};
use backstay_terms::{Branch, Position, RecordId};
use bytes::Bytes;
use std::collections::BTreeMap;

/// A range with the time at which it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgedRange {
    /// The range.
    pub stored: StoredRange,
    /// Its object.
    pub object: StoredObject,
}

/// What is stored of a branch, by position, level and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchObjects {
    /// The branch.
    pub branch: Branch,
    /// Its ranges at all levels.
    pub ranges: Vec<AgedRange>,
    /// Objects with names of ranges that are too small to be any: they count as not stored.
    pub cut: Vec<AgedRange>,
}

impl BranchObjects {
    /// From everything that is listed of a branch.
    pub fn of(branch: Branch, mut listed: Vec<AgedRange>) -> BranchObjects {
        sort(&mut listed);
        let (cut, ranges) = listed.into_iter().partition(|range| range.stored.is_cut());
        BranchObjects { branch, ranges, cut }
    }
}

impl LogStore {
    /// What is stored of every branch.
    pub(crate) async fn branches(
        &self,
        strays: &mut Vec<StoredObject>,
    ) -> Result<Vec<BranchObjects>, RepositoryError> {
        let moves = self.moves().await?;
        let mut branches: BTreeMap<Branch, Vec<AgedRange>> = BTreeMap::new();
        for level in Level::ALL {
            let prefix = self.place.ranges_prefix(level, None)?;
            for object in list_all(self.repository.store(), &prefix, None).await? {
                match aged(&self.place, level, object) {
                    Ok(range) => {
                        let StoredRange { branch, name, .. } = &range.stored;
                        let lineage = moves.lineage_of(*branch, &name.epoch);
                        branches.entry(lineage).or_default().push(range);
                    }
                    Err(stray) => strays.push(stray),
                }
            }
        }
        let sorted = branches.into_iter();
        Ok(sorted
            .map(|(branch, listed)| BranchObjects::of(branch, listed))
            .collect())
    }

    /// The branches of which any range is stored; the one that was stored to last comes last.
    pub async fn branch_names(&self) -> Result<Vec<Branch>, RepositoryError> {
        let newest = |objects: &BranchObjects| objects.ranges.iter().map(|range| range.object.modified).max();
        let mut branches = self.branches(&mut Vec::new()).await?;
        branches.sort_by_key(newest);
        Ok(branches.into_iter().map(|objects| objects.branch).collect())
    }

    /// What is stored of one branch from a position on, and the names there that are no ranges.
    pub async fn listed(
        &self,
        branch: &Branch,
        from: Position,
    ) -> Result<(BranchObjects, Vec<StoredObject>), RepositoryError> {
        self.listed_since(branch, Some(from)).await
    }

    /// The same, from the first position on if none is given.
    pub(super) async fn listed_since(
        &self,
        branch: &Branch,
        from: Option<Position>,
    ) -> Result<(BranchObjects, Vec<StoredObject>), RepositoryError> {
        let (mut ranges, mut strays) = (Vec::new(), Vec::new());
        let begin = from.map(|from| Position(from.0.saturating_sub(SPAN_MAX)));
        let moves = self.moves().await?;
        for place in moves.places_of(*branch) {
            for level in Level::ALL {
                let prefix = self.place.ranges_prefix(level, Some(&place))?;
                let after = begin
                    .map(|begin| self.place.range_start_after(level, &place, begin))
                    .transpose()?;
                for object in list_all(self.repository.store(), &prefix, after.as_ref()).await? {
                    match aged(&self.place, level, object) {
                        Ok(range) if moves.lineage_of(place, &range.stored.name.epoch) == *branch => {
                            ranges.push(range);
                        }
                        Ok(_) => {}
                        Err(stray) => strays.push(stray),
                    }
                }
            }
        }
        Ok((BranchObjects::of(*branch, ranges), strays))
    }
}

fn aged(place: &LogPlace, level: Level, object: ObjectMeta) -> Result<AgedRange, StoredObject> {
    let Some((branch, name)) = place.of_range(level, &object.key) else {
        return Err(object.into());
    };
    let (size, object) = (object.size, StoredObject::from(object));
    let stored = StoredRange {
        branch,
        level,
        name,
        size,
    };
    Ok(AgedRange { stored, object })
}

fn sort(ranges: &mut [AgedRange]) {
    ranges.sort_by(|a, b| {
        let key = |r: &AgedRange| (r.stored.name.range, r.stored.level);
        key(a)
            .cmp(&key(b))
            .then_with(|| a.stored.name.cmp(&b.stored.name))
    });
}

/// A history file by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HistoryName {
    /// The timeline.
    pub timeline: u32,
    /// The first 16 hex digits of its SHA-256.
    pub digest: String,
}

impl LogStore {
    /// The names of a system's history files, each with its object, and the names there that are none.
    pub async fn history_names(
        &self,
        system: u64,
    ) -> Result<(Vec<(HistoryName, StoredObject)>, Vec<StoredObject>), RepositoryError> {
        let (mut names, mut strays) = (Vec::new(), Vec::new());
        let prefix = self.place.histories_prefix(system)?;
        for object in list_all(self.repository.store(), &prefix, None).await? {
            match self.place.of_history(system, &object.key) {
                Some((timeline, digest)) => names.push((HistoryName { timeline, digest }, object.into())),
                None => strays.push(object.into()),
            }
        }
        Ok((names, strays))
    }

    /// One history file; its content must have the digest of its name.
    pub async fn history(
        &self,
        system: u64,
        name: &HistoryName,
        object: &StoredObject,
    ) -> Result<Bytes, RepositoryError> {
        let place = self.place.history(system, name.timeline, &name.digest)?;
        let content = self
            .repository
            .get_fact_of_any_month(&place, Kind::History, &month(object.modified))
            .await?;
        if history_digest(&content) != name.digest {
            let what = "its content has another digest than its name";
            return Err(RepositoryError::malformed(&place.key, what));
        }
        Ok(Bytes::from(content))
    }

    /// The names of all lineage records, oldest first, and the names there that are none.
    pub async fn record_names(
        &self,
    ) -> Result<(Vec<(RecordId, StoredObject)>, Vec<StoredObject>), RepositoryError> {
        let (mut names, mut strays) = (Vec::new(), Vec::new());
        for object in list_all(self.repository.store(), &self.place.lineages_prefix()?, None).await? {
            let id = object.key.segments().next_back().and_then(|id| id.parse().ok());
            match id {
                Some(id) => names.push((id, object.into())),
                None => strays.push(object.into()),
            }
        }
        Ok((names, strays))
    }

    /// One lineage record; it must say the id that its name says.
    pub async fn record(&self, id: &RecordId) -> Result<LineageRecord, RepositoryError> {
        let place = self.place.lineage(id)?;
        let json = self
            .repository
            .get_fact(&place, Kind::LineageRecord, id.moment())
            .await?;
        let record: LineageRecord =
            serde_json::from_slice(&json).map_err(|e| RepositoryError::malformed(&place.key, e))?;
        RepositoryError::refuse_newer(&place.key, record.format)?;
        match record.id == *id {
            true => Ok(record),
            false => Err(RepositoryError::malformed(
                &place.key,
                "it describes another attachment",
            )),
        }
    }
}
