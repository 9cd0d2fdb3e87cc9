//! Lineage records that cannot be opened: which lineage each speaks of, as far as the names of what is stored tell.
//!
//! Promise: pure. An attachment stores its record before the first range of its epoch, so an epoch that no record names, with
//! ranges of one lineage alone, gives away a record written just after that epoch began; one epoch stands for one record. Whatever is
//! not given away may speak of any lineage, also of one that nobody has seen.
//! Not here: reading the records (log::store), what a stream does about it (backstay-engine::jobs::stream).

use super::lineage::{Known, LineageRecord};
use super::listing::BranchObjects;
use super::store::UnreadableRecord;
use crate::moment_of;
use backstay_terms::{Branch, EpochId};
use jiff::SignedDuration;
use std::collections::{BTreeMap, BTreeSet};

/// An attachment stores its record so soon after its epoch began.
const RECORDED_WITHIN: SignedDuration = SignedDuration::from_mins(1);

/// The epochs of streams; settling makes some of its own, which no record names.
pub(super) const STREAMED: &str = "log";

/// A lineage record that cannot be opened.
#[derive(Clone, Debug)]
pub struct HiddenRecord {
    /// The record.
    pub record: UnreadableRecord,
    /// The lineage that it speaks of, where that is given away.
    pub of: Option<Branch>,
}

/// Every lineage of a source of which a record opens, and what cannot be opened beside them.
#[derive(Clone, Debug, Default)]
pub struct KnownLineages {
    /// Oldest record first; a branch appears once, with its newest record.
    pub known: Vec<Known>,
    /// Oldest first.
    pub hidden: Vec<HiddenRecord>,
}

impl KnownLineages {
    /// A hidden record because of which nobody knows whether this lineage is still the one to continue: it is no older than
    /// everything that is known of it, and may speak of another one.
    pub fn doubt_about(&self, branch: &Branch) -> Option<&HiddenRecord> {
        let own = self.known.iter().find(|known| known.record.branch == *branch)?;
        let may_follow = |hidden: &&HiddenRecord| {
            // Names tell the second.
            moment_of(&hidden.record.id)
                .is_none_or(|moment| own.record.created.duration_since(moment) < SignedDuration::from_secs(1))
        };
        let elsewhere = |hidden: &&HiddenRecord| hidden.of != Some(*branch);
        self.hidden.iter().filter(may_follow).find(elsewhere)
    }

    /// Whether a lineage beside this one may be stored of its timeline, of which no record opens.
    pub fn may_hide_another(&self, branch: &Branch) -> bool {
        self.hidden.iter().any(|hidden| match hidden.of {
            Some(of) => of != *branch && (of.system, of.timeline) == (branch.system, branch.timeline),
            None => true,
        })
    }
}

/// Tells of each record that cannot be opened which lineage it speaks of. `unreadable` are oldest first.
pub(super) fn hidden(
    unreadable: Vec<UnreadableRecord>,
    records: &[LineageRecord],
    stored: &[BranchObjects],
) -> Vec<HiddenRecord> {
    let named: BTreeSet<&EpochId> = records.iter().map(|record| &record.epoch).collect();
    let mut unnamed: BTreeMap<&EpochId, BTreeSet<Branch>> = BTreeMap::new();
    for objects in stored {
        for range in &objects.ranges {
            let epoch = &range.stored.name.epoch;
            if epoch.kind() == STREAMED && !named.contains(epoch) {
                unnamed.entry(epoch).or_default().insert(objects.branch);
            }
        }
    }
    let mut hidden = Vec::new();
    for record in unreadable {
        let began = |epoch: &EpochId| {
            let age = moment_of(&record.id)?.duration_since(moment_of(epoch)?);
            (SignedDuration::ZERO..=RECORDED_WITHIN)
                .contains(&age)
                .then_some(age)
        };
        let nearest = unnamed
            .keys()
            .filter_map(|epoch| Some((began(epoch)?, *epoch)))
            .min();
        let branches = nearest.and_then(|(_, epoch)| unnamed.remove(epoch));
        let of = branches
            .filter(|branches| branches.len() == 1)
            .and_then(|branches| branches.into_iter().next());
        hidden.push(HiddenRecord { record, of });
    }
    hidden
}

#[cfg(test)]
mod tests;
