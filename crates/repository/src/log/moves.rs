//! Which lineage a stored range is read as.
//!
//! Promise: pure. What an epoch stored is of the branch in its name, unless a lineage record moved that epoch out: then
//! every object of it under that branch is the record's lineage's, and no other's. Where two records move one epoch, the
//! older one counts.
//! Not here: finding out who has to go (log::twins), reading records (log::store).

use super::lineage::{LineageKind, LineageRecord};
use backstay_terms::{Branch, EpochId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The kind in the id of a record that moves epochs: readers of the log open these alone.
pub(super) const MOVE: &str = "move";

/// Epochs that stored their log under a branch whose history is another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The branch in the names of their objects.
    pub branch: Branch,
    /// The epochs.
    pub epochs: Vec<EpochId>,
}

/// Every move of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    to: BTreeMap<(Branch, EpochId), Branch>,
}

impl Moves {
    /// What these records move; `records` are oldest first.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a LineageRecord>) -> Moves {
        let mut moves = Moves::default();
        for record in records.into_iter().filter(|r| r.kind == LineageKind::Attach) {
            let Some(moved) = &record.moved else { continue };
            for epoch in &moved.epochs {
                let from = (moved.branch, epoch.clone());
                moves.to.entry(from).or_insert(record.branch);
            }
        }
        moves
    }

    /// The lineage of what `epoch` stored under `branch`.
    pub fn lineage_of(&self, branch: Branch, epoch: &EpochId) -> Branch {
        let (mut at, mut seen) = (branch, BTreeSet::from([branch]));
        while let Some(next) = self
            .to
            .get(&(at, epoch.clone()))
            .filter(|next| seen.insert(**next))
        {
            at = *next;
        }
        at
    }

    /// The branches under which log of a lineage may be stored, its own among them.
    pub fn places_of(&self, lineage: Branch) -> BTreeSet<Branch> {
        let mut places = BTreeSet::from([lineage]);
        while let Some(more) = self
            .to
            .iter()
            .find(|((from, _), to)| places.contains(*to) && !places.contains(from))
        {
            places.insert(more.0.0);
        }
        places
    }

    /// The epochs that were moved out of a branch, and where to.
    pub fn out_of(&self, branch: Branch) -> impl Iterator<Item = (&EpochId, Branch)> {
        let of_branch = move |((from, _), _): &(&(Branch, EpochId), &Branch)| *from == branch;
        let moved = self.to.iter().filter(of_branch);
        moved.map(|((_, epoch), to)| (epoch, *to))
    }

    /// The records without those of attachments whose epoch was moved out of their branch: they say nothing of it.
    pub(crate) fn without_moved(&self, mut records: Vec<LineageRecord>) -> Vec<LineageRecord> {
        records.retain(|record| {
            record.kind != LineageKind::Attach
                || self.lineage_of(record.branch, &record.epoch) == record.branch
        });
        records
    }
}

#[cfg(test)]
mod tests {
    use super::super::lineage::AttachReason;
    use super::super::samples::{branch, first};
    use super::*;
    use backstay_terms::{Suffix, TimedId};

    fn epoch(number: u64) -> EpochId {
        TimedId::new("20261123T020011Z", "log", Suffix::from_chance(number << 14)).unwrap()
    }

    fn moving(from: u32, epochs: &[u64], to: u32) -> LineageRecord {
        let moved = Moved {
            branch: branch(from),
            epochs: epochs.iter().map(|number| epoch(*number)).collect(),
        };
        let id = TimedId::new("20261123T020011Z", MOVE, Suffix::from_chance(1)).unwrap();
        LineageRecord {
            reason: AttachReason::Differs,
            moved: Some(moved),
            ..first(branch(to), id, epoch(epochs[0]))
        }
    }

    #[test]
    fn what_was_moved_is_of_one_lineage_and_found_under_every_branch_it_lies_under() {
        let records = [moving(1, &[1, 2], 2), moving(2, &[2], 3), moving(1, &[1], 9)];
        let moves = Moves::of(&records);
        let of = |number| moves.lineage_of(branch(1), &epoch(number)).lineage.0;
        assert_eq!([of(1), of(2), of(3)], [2, 3, 1], "the older record counts");
        assert_eq!(moves.places_of(branch(3)), [1, 2, 3].map(branch).into());
        assert_eq!(moves.places_of(branch(1)), [branch(1)].into());
    }

    #[test]
    fn moves_in_a_circle_end() {
        let moves = Moves::of(&[moving(1, &[1], 2), moving(2, &[1], 1)]);
        assert_eq!(moves.lineage_of(branch(1), &epoch(1)), branch(2));
        assert_eq!(moves.places_of(branch(1)), [branch(1), branch(2)].into());
    }

    #[test]
    fn an_attachment_whose_epoch_was_moved_says_nothing_of_the_branch_any_more() {
        let of = |number| LineageRecord {
            epoch: epoch(number),
            moved: None,
            ..moving(1, &[1], 1)
        };
        let adoption = LineageRecord {
            kind: LineageKind::Adopt,
            ..of(2)
        };
        let records = vec![of(1), of(2), adoption.clone(), moving(1, &[2], 2)];
        let kept = Moves::of(&records).without_moved(records.clone());
        assert_eq!(kept, [of(1), adoption, moving(1, &[2], 2)]);
    }
}
