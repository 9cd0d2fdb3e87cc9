//! What tells how far a branch was stored once, beside the ranges themselves.
//!
//! Promise: a witness is never beyond what was stored when it was written: lineage records name the frontier at which a
//! stream resumed, log indexes name ranges that are stored. What cannot be opened witnesses nothing.
//! Not here: what run records say, and what it means that less is stored now (backstay-engine::plan).

use super::lineage::{LineageKind, LineageRecord};
use super::store::LogStore;
use crate::RepositoryError;
use crate::expire::moment_of;
use crate::layout::{Place, RangeName};
use backstay_store::list_all;
use backstay_terms::{Branch, EpochId, Position};
use jiff::Timestamp;
use tracing::warn;

/// So many of the newest indexes of a branch are opened: those of one hour, or of two epochs that overlap.
const INDEXES_MAX: usize = 4;

/// Something that tells how far a branch was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Everything up to here was stored, or was in what was lost before.
    pub reach: Position,
    /// When it was written; of an index, when its epoch began.
    pub told: Timestamp,
    /// What it is, in words that name it.
    pub by: String,
}

impl Witness {
    /// The one that reaches further.
    #[must_use]
    pub fn further(self, other: Witness) -> Witness {
        if other.reach > self.reach { other } else { self }
    }
}

impl LogStore {
    /// The furthest of the witnesses of a branch since `since`; `records` are those of the source. Whoever compares it with
    /// what is stored lists that afterwards: a stream may run.
    pub async fn witness(
        &self,
        branch: &Branch,
        records: &[LineageRecord],
        since: Timestamp,
    ) -> Result<Option<Witness>, RepositoryError> {
        let resumed = records.iter().filter(|record| {
            record.kind == LineageKind::Attach && record.branch == *branch && record.created >= since
        });
        let of_records = resumed.filter_map(|record| {
            Some(Witness {
                reach: record.frontier?,
                told: record.created,
                by: format!("the lineage record {}", record.id),
            })
        });
        let of_indexes = self.indexed(branch, since).await?;
        Ok(of_records.chain(of_indexes).reduce(Witness::further))
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
            let reach = self.reach_in(&place, &epoch).await?;
            witnesses.extend(reach.map(|reach| Witness {
                reach,
                told,
                by: format!("the log index {}", place.key),
            }));
        }
        Ok(witnesses)
    }

    async fn reach_in(&self, place: &Place, epoch: &EpochId) -> Result<Option<Position>, RepositoryError> {
        match self.gathered_in(place, epoch).await {
            Ok(lines) => {
                let ranges = lines.filter_map(|line| line.range.parse::<RangeName>().ok());
                Ok(ranges.map(|name| name.range.to).max())
            }
            Err(error) if error.is_about_the_object() => {
                warn!(%error, "an index of the log that cannot be opened is passed over");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
