//! Lineages: which history of bytes a stream continues, or that it begins a new one.
//!
//! Promise: `decide` is pure and never lets bytes of two histories into one lineage: a new one begins when system,
//! timeline or history digest is new, or when the server's log ends before our frontier (LIN-1). Bytes that differ
//! are found by the stream while it reads them again.
//! Not here: storing records (log::view, log::writer), comparing bytes (backstay-engine::jobs::stream).

use super::coverage::stretch_at;
use super::moves::Moved;
use backstay_codec::digest_hex;
use backstay_terms::{Branch, EpochId, Lineage, LogRange, Position, RecordId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Attached by a stream, or adopted by a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineageKind {
    /// A stream attached.
    Attach,
    /// A person said that this is the source's present history.
    Adopt,
}

/// Why an epoch attached where it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachReason {
    /// Nothing was stored of this system.
    First,
    /// It continues the lineage.
    Resumed,
    /// The timeline or its history is new.
    Timeline,
    /// The server's log ends before our frontier.
    Behind,
    /// The bytes read again are not the stored ones.
    Differs,
    /// After a gap nothing could be compared, and the timeline has more than one lineage: whose bytes these are is not known.
    Unproven,
}

impl AttachReason {
    /// True if a lineage begins.
    pub fn begins_lineage(self) -> bool {
        self != AttachReason::Resumed
    }
}

/// Where a lineage left its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The parent.
    pub branch: Branch,
    /// The first position that is not shared.
    pub fork: Position,
}

/// A lineage that an adoption passes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// The lineage.
    pub branch: Branch,
    /// How far it was stored: what it holds beyond was never judged.
    pub reach: Position,
}

/// A lineage record. An adoption repeats the newest attachment of the branch that it adopts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineageRecord {
    /// 1.
    pub format: u32,
    /// Attached or adopted.
    pub kind: LineageKind,
    /// The record's id.
    pub id: RecordId,
    /// When.
    pub created: Timestamp,
    /// The branch attached to.
    pub branch: Branch,
    /// The first position that this epoch reads.
    pub from: Position,
    /// The digest of the timeline's history file.
    pub history: Option<String>,
    /// Where the lineage left its parent.
    pub parent: Option<Parent>,
    /// Why.
    pub reason: AttachReason,
    /// The epoch.
    pub epoch: EpochId,
    /// Bytes in a file of the log.
    pub segment_size: u64,
    /// The end of the server's log at that moment.
    pub server_end: Position,
    /// Up to here the lineage was stored when a stream resumed it; none if it did not, or its writer did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frontier: Option<Position>,
    /// What an adoption passes over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub over: Vec<PassedOver>,
    /// What other epochs stored under another branch and is this lineage's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Moved>,
    /// The epoch that stored what ends at the frontier: this one goes on with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<EpochId>,
}

/// The digest of a history file: the first 16 hex digits of its SHA-256.
pub fn history_digest(content: &[u8]) -> String {
    digest_hex(content).chars().take(16).collect()
}

/// A timeline that the presented one descends from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentedAncestor {
    /// The timeline.
    pub timeline: u32,
    /// The digest of its history file; none on the first timeline.
    pub history: Option<String>,
    /// Where its descendant left it.
    pub left_at: Position,
}

/// What a server presents when a stream attaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// The system.
    pub system: u64,
    /// The timeline.
    pub timeline: u32,
    /// The digest of its history file; none on the first timeline.
    pub history: Option<String>,
    /// The timelines that it descends from, oldest first.
    pub ancestors: Vec<PresentedAncestor>,
    /// The end of the server's log.
    pub server_end: Position,
}

/// A lineage and how far it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its newest attach record.
    pub record: LineageRecord,
    /// Where a stream goes on: the end of the stretch in which the newest attachment that stored anything began; none if nothing is stored.
    pub frontier: Option<Position>,
    /// The epoch that stored what ends there.
    pub last: Option<EpochId>,
    /// The end of the last range, which may lie beyond the frontier; none if nothing is stored.
    pub reach: Option<Position>,
}

/// Where a branch goes on: the end of the stretch in which the newest attachment that stored anything began. `records` are
/// those of the branch, oldest first.
///
/// Ranges are uploaded several at once. Where one never arrived, those that overtook it lie beyond this frontier: nothing
/// of them was ever confirmed, so the source still has everything from the frontier on, and a stream goes on there. Where log
/// is known to be lost an attachment had to begin later, and its record says so.
pub(super) fn frontier(records: &[&LineageRecord], stretches: &[LogRange]) -> Option<Position> {
    let began_in = |record: &&&LineageRecord| stretch_at(stretches, record.from);
    records
        .iter()
        .rev()
        .find_map(|record| began_in(&record))
        .map(|stretch| stretch.to)
}

/// What a stream does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attach {
    /// It continues a lineage.
    Resume {
        /// The branch.
        branch: Branch,
        /// Where to go on; none if nothing of it is stored.
        frontier: Option<Position>,
    },
    /// It begins one.
    Begin {
        /// Why.
        reason: AttachReason,
        /// Where it left its parent, where that is known.
        parent: Option<Parent>,
    },
}

/// Decides between continuing and beginning. `known` holds every lineage of the source, oldest record first.
///
/// A lineage of an ancestor is continued up to the switch point when our frontier does not lie beyond it: the rest of
/// the old timeline is still to be had. Past the switch point we hold what the new timeline never had: it begins anew.
pub fn decide(presented: &Presented, known: &[Known]) -> Attach {
    if let Some(own) = newest(known, presented.system, presented.timeline, &presented.history) {
        return match own.frontier {
            // Where the two histories parted is not known: the server may have written bytes of its own before the
            // place where its log ends now. Without proof there is no parent.
            Some(_) if own.reach.is_some_and(|reach| presented.server_end < reach) => Attach::Begin {
                reason: AttachReason::Behind,
                parent: None,
            },
            frontier => Attach::Resume {
                branch: own.record.branch,
                frontier,
            },
        };
    }
    for ancestor in presented.ancestors.iter().rev() {
        if let Some(own) = newest(known, presented.system, ancestor.timeline, &ancestor.history) {
            return match own.frontier {
                Some(frontier) if frontier <= ancestor.left_at => Attach::Resume {
                    branch: own.record.branch,
                    frontier: Some(frontier),
                },
                _ => leave(own, ancestor.left_at),
            };
        }
    }
    let same_system = known.iter().any(|k| k.record.branch.system == presented.system);
    let reason = if same_system {
        AttachReason::Timeline
    } else {
        AttachReason::First
    };
    Attach::Begin { reason, parent: None }
}

/// A new timeline that left `parent` at `fork`, as its history file says.
fn leave(parent: &Known, fork: Position) -> Attach {
    let branch = parent.record.branch;
    Attach::Begin {
        reason: AttachReason::Timeline,
        parent: Some(Parent { branch, fork }),
    }
}

fn newest<'a>(known: &'a [Known], system: u64, timeline: u32, history: &Option<String>) -> Option<&'a Known> {
    known.iter().rev().find(|k| {
        let branch = k.record.branch;
        branch.system == system && branch.timeline == timeline && k.record.history == *history
    })
}

/// A new lineage from chance.
pub fn new_lineage(chance: u64) -> Lineage {
    Lineage((chance >> 32) as u32)
}

#[cfg(test)]
mod tests;
