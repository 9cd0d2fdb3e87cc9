//! What tells how far a branch was stored once, beside the ranges themselves.
//!
//! Promise: a witness is never beyond what was stored when it was written: lineage records name the frontier at which a
//! stream resumed, log indexes name ranges that are stored. What cannot be opened witnesses nothing.
//! Not here: what run records say, and what it means that less is stored now (backstay-engine::plan).

use super::coverage::stretches;
use super::lineage::{LineageKind, LineageRecord};
use super::store::LogStore;
use crate::RepositoryError;
use crate::expire::moment_of;
use crate::layout::{Place, RangeName};
use backstay_store::{Key, list_all};
use backstay_terms::{Branch, EpochId, LogRange, Position};
use jiff::Timestamp;
use tracing::warn;

/// So many of the newest indexes of a branch are opened: those of one hour, or of two epochs that overlap.
const INDEXES_MAX: usize = 4;

/// Something that tells what of a branch was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Everything from here to the reach was stored, where that is known.
    pub from: Option<Position>,
    /// Everything up to here was stored, or was in what was lost before.
    pub reach: Position,
    /// When it was written; of an index, when its epoch began.
    pub told: Timestamp,
    /// What it is, in words that name it.
    pub by: String,
}

/// From where on everything up to `reach` was stored once: the last place at which a stream began anew, for the first time or
/// behind a gap; where one resumed it goes on. `records` are those of the branch. None if that was before `since`: what is
/// older may have expired.
pub fn stored_from<'a>(
    records: impl Iterator<Item = &'a LineageRecord>,
    reach: Position,
    since: Timestamp,
) -> Option<Position> {
    let began_anew = records.filter(|record| {
        record.kind == LineageKind::Attach && record.frontier.is_none() && record.from < reach
    });
    let last = began_anew.max_by_key(|record| (record.from, record.created))?;
    (last.created >= since).then_some(last.from)
}

impl LogStore {
    /// The witnesses of a branch since `since`; `records` are those of the source. Whoever compares them with what is stored
    /// lists that afterwards: a stream may run.
    pub async fn witnesses(
        &self,
        branch: &Branch,
        records: &[LineageRecord],
        since: Timestamp,
    ) -> Result<Vec<Witness>, RepositoryError> {
        let mut witnesses = self.indexed(branch, since).await?;
        let of_branch = || records.iter().filter(|record| record.branch == *branch);
        let resumed =
            of_branch().filter(|record| record.kind == LineageKind::Attach && record.created >= since);
        for record in resumed {
            let Some(reach) = record.frontier else { continue };
            witnesses.push(Witness {
                from: stored_from(of_branch(), reach, since),
                reach,
                told: record.created,
                by: format!("the lineage record {}", record.id),
            });
        }
        Ok(witnesses)
    }

    /// The branches of which a log index is stored.
    pub async fn indexed_branches(&self) -> Result<Vec<Branch>, RepositoryError> {
        let prefix = self.place.all_indexes_prefix()?;
        let (mut branches, mut after) = (Vec::new(), None);
        loop {
            let page = self
                .repository
                .store()
                .list_page(&prefix, after.as_ref(), 1)
                .await?;
            let Some(object) = page.objects.into_iter().next() else {
                return Ok(branches);
            };
            // Names of indexes begin with a digit; a name that is of no index is passed over alone.
            after = Some(match self.place.of_any_index(&object.key) {
                Some((branch, ..)) => {
                    branches.push(branch);
                    Key::new(format!("{}z", self.place.indexes_prefix(&branch)?.as_str()))?
                }
                None => object.key,
            });
        }
    }

    /// Whether a log index of this source is stored: where one is, ranges were.
    pub async fn has_indexes(&self) -> Result<bool, RepositoryError> {
        let prefix = self.place.all_indexes_prefix()?;
        let page = self.repository.store().list_page(&prefix, None, 1).await?;
        Ok(!page.objects.is_empty())
    }

    /// What the newest indexes of a branch name.
    async fn indexed(&self, branch: &Branch, since: Timestamp) -> Result<Vec<Witness>, RepositoryError> {
        let (moves, mut named) = (self.moves().await?, Vec::new());
        for under in moves.places_of(*branch) {
            let objects =
                list_all(self.repository.store(), &self.place.indexes_prefix(&under)?, None).await?;
            let indexes = objects
                .iter()
                .filter_map(|object| self.place.of_index(&under, &object.key));
            let own = indexes.filter(|(_, epoch)| moves.lineage_of(under, epoch) == *branch);
            named.extend(own.map(|(hour, epoch)| (hour, epoch, under)));
        }
        named.sort();
        let mut witnesses = Vec::new();
        for (hour, epoch, under) in named.into_iter().rev().take(INDEXES_MAX) {
            let Some(told) = moment_of(&epoch).filter(|told| *told >= since) else {
                continue;
            };
            let place = self.place.index(&under, &hour, &epoch)?;
            let last = self.last_in(&place, &epoch).await?;
            witnesses.extend(last.map(|last| Witness {
                from: Some(last.from),
                reach: last.to,
                told,
                by: format!("the log index {}", place.key),
            }));
        }
        Ok(witnesses)
    }

    /// The last stretch that an index names.
    async fn last_in(&self, place: &Place, epoch: &EpochId) -> Result<Option<LogRange>, RepositoryError> {
        match self.gathered_in(place, epoch).await {
            Ok(lines) => {
                let names = lines.filter_map(|line| line.range.parse::<RangeName>().ok());
                let ranges: Vec<LogRange> = names.map(|name| name.range).collect();
                Ok(stretches(&ranges).last().copied())
            }
            Err(error) if error.is_about_the_object() => {
                warn!(%error, "an index of the log that cannot be opened is passed over");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
