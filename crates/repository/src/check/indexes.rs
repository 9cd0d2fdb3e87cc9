//! Checks log indexes, and remembers which ranges they name: what an index names was stored once.
//!
//! Promise: each index is opened on its own.
//! Not here: what becomes of a range that is named and not there (holes).

use super::{CheckFinding, keep};
use crate::layout::RangeName;
use crate::{LogStore, RepositoryError};
use backstay_store::list_all;
use backstay_terms::{Branch, LogRange};
use std::collections::BTreeMap;

/// The positions that indexes name, by branch.
pub type Indexed = BTreeMap<Branch, Vec<LogRange>>;

impl LogStore {
    /// Opens every log index of the source.
    pub async fn check_indexes(&self) -> Result<(Indexed, Vec<CheckFinding>), RepositoryError> {
        let (mut named, mut findings) = (Indexed::new(), Vec::new());
        let moves = self.moves().await?;
        let prefix = self.place.all_indexes_prefix()?;
        for object in list_all(self.repository.store(), &prefix, None).await? {
            let Some((branch, hour, epoch)) = self.place.of_any_index(&object.key) else {
                findings.push(CheckFinding::stray(object.key.as_str()));
                continue;
            };
            let place = self.place.index(&branch, &hour, &epoch)?;
            let lines = self.gathered_in(&place, &epoch).await;
            let Some(lines) = keep(&mut findings, object.key.as_str(), lines)? else {
                continue;
            };
            let ranges = lines.filter_map(|line| line.range.parse::<RangeName>().ok());
            named
                .entry(moves.lineage_of(branch, &epoch))
                .or_default()
                .extend(ranges.map(|name| name.range));
        }
        Ok((named, findings))
    }
}
