//! The log: ranges at two levels, lineages, history files.

mod copies;
mod coverage;
mod epoch_keys;
mod hidden;
mod index;
mod lineage;
mod listing;
mod moves;
mod order;
mod range;
#[cfg(test)]
mod samples;
mod settle;
mod store;
mod twins;
mod witness;
mod writer;

pub use copies::{Candidate, Choice, Selection, choose};
pub use coverage::{RangesSeen, StoredRange, gaps, missing, stretch_at, stretches};
pub use epoch_keys::{KeysFate, KeysGone};
pub use hidden::{HiddenRecord, KnownLineages};
pub use index::{IndexUpload, Wanted};
pub use lineage::{
    Attach, AttachReason, Known, LineageKind, LineageRecord, Parent, PassedOver, Presented,
    PresentedAncestor, decide, history_digest, new_lineage,
};
pub use listing::{AgedRange, BranchObjects, HistoryName};
pub use moves::{Moved, Moves};
pub use range::RangeIndex;
pub use settle::{Damaged, Settled};
pub(crate) use store::SPAN_MAX;
pub use store::{LogStore, RecordsSeen, UnreadableRecord};
pub use twins::{Compared, Leaving, Twins};
pub use witness::{Witness, stored_from};
pub use writer::{LogWriter, LogWriterState, SETTLED_BYTES_MAX, Stored, Upload};
