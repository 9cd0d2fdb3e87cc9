//! Checks log indexes, and remembers which ranges they name: what an index names was stored once.
//!
//! Promise: each index is opened on its own; a size that it tells is another only where the object was changed.
//! Not here: what becomes of a range that is named and not there (holes).

use super::{CheckFinding, Invariant, keep};
use crate::layout::RangeName;
use crate::log::BranchObjects;
use crate::{LogStore, RepositoryError};
use backstay_store::list_all;
use backstay_terms::{Branch, LogRange};
use std::collections::{BTreeMap, HashMap};

/// The positions that indexes name, by branch.
pub type Indexed = BTreeMap<Branch, Vec<LogRange>>;

impl LogStore {
    /// Opens every log index of the source, and compares the sizes that it tells with those of what is stored.
    pub async fn check_indexes(
        &self,
        stored: &[BranchObjects],
    ) -> Result<(Indexed, Vec<CheckFinding>), RepositoryError> {
        let (mut named, mut findings) = (Indexed::new(), Vec::new());
        let moves = self.moves().await?;
        let sizes: HashMap<_, _> = stored
            .iter()
            .flat_map(|objects| &objects.ranges)
            .map(|range| {
                (
                    (range.stored.branch, Self::gathered_key(&range.stored)),
                    &range.object,
                )
            })
            .collect();
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
            let named = named.entry(moves.lineage_of(branch, &epoch)).or_default();
            for line in lines {
                named.extend(line.range.parse::<RangeName>().ok().map(|name| name.range));
                let told = line.size;
                match sizes.get(&(branch, (line.level, line.range))) {
                    Some(object) if object.size != told => {
                        let what = format!("it has {} bytes, and {} says {told}", object.size, place.key);
                        findings.push(CheckFinding::new(&object.name, Invariant::Repo3, what));
                    }
                    _ => {}
                }
            }
        }
        Ok((named, findings))
    }
}
