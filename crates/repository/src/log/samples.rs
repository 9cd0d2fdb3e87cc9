//! Branches and lineage records for the tests of this folder.

use super::{AttachReason, LineageKind, LineageRecord};
use backstay_terms::{Branch, EpochId, Lineage, Position, RecordId};
use jiff::Timestamp;

pub(super) fn branch(lineage: u32) -> Branch {
    Branch {
        system: 7,
        timeline: 1,
        lineage: Lineage(lineage),
    }
}

/// The first record of a branch.
pub(super) fn first(branch: Branch, id: RecordId, epoch: EpochId) -> LineageRecord {
    LineageRecord {
        format: 1,
        kind: LineageKind::Attach,
        id,
        created: Timestamp::UNIX_EPOCH,
        branch,
        from: Position(0),
        history: None,
        parent: None,
        reason: AttachReason::First,
        epoch,
        segment_size: 16 << 20,
        server_end: Position(0),
        frontier: None,
        over: vec![],
        moved: None,
        after: None,
    }
}
