//! Backstay's format and its order of writes.
//!
//! Promise: `docs/internals/repository-format.md`. Nothing is overwritten (REPO-1), nothing is deleted by a writer
//! (REPO-2), what is acknowledged can be read back through what has been committed.
//! Not here: when to write and what (backstay-engine), the bytes of an object (backstay-codec), objects (backstay-store).

mod base;
mod check;
mod envelopes;
mod error;
mod expire;
mod inventory;
pub mod layout;
mod log;
mod objects;
mod recipients;
mod repository;
mod runs;
mod whose;

/// What a store answers, digests and age identities: engine knows stores and codec only through the repository.
pub use backstay_codec::{AgeIdentity, Digest, Sha256};
pub use backstay_store::{Retry, StoreError};
pub use base::{
    BackupKind, BackupOrder, BackupSummary, BaseReader, BaseWriter, Cursor, EndPoint, FileRow, FileSource,
    Head, HeadKeyIds, HeadLog, HeadVerdict, Headless, HeadsSeen, NamedObject, PackReading, Totals,
    UnreadableHead, expires_at, oldest_first,
};
pub use check::{
    BackupContent, CheckFinding, Hiding, Hole, HoleContext, HoleKind, Indexed, Invariant, LogCheck,
    LogIndexes, RunsWanted, Unsettled,
};
pub use envelopes::{EnvelopeSeen, Opens, WrapSeen};
pub use error::RepositoryError;
pub use expire::{Carried, Removal, Removed, STORE_SKEW_MAX, moment_of};
pub use inventory::{BackupObjects, GenerationWraps, HeadState, Inventory, RUN_BEFORE_BACKUP, StoredObject};
pub use log::{
    AgedRange, Attach, AttachReason, BranchObjects, Candidate, Choice, Compared, Damaged, HiddenRecord,
    HistoryName, IndexUpload, KeysFate, KeysGone, Known, KnownLineages, Leaving, LineageKind, LineageRecord,
    LogStore, LogWriter, LogWriterState, Moved, Moves, Parent, PassedOver, Presented, PresentedAncestor,
    RangeIndex, RangesSeen, RecordsSeen, SETTLED_BYTES_MAX, Selection, Settled, Stored, StoredRange, Twins,
    UnreadableRecord, Upload, Wanted, Witness, choose, decide, gaps, history_digest, missing, new_lineage,
    stored_from, stretch_at, stretches,
};
pub use recipients::{KeyWarning, Recipient};
pub use repository::{Repository, RepositoryInfo, SystemChance};
pub use runs::{BackupRuns, NEEDS_LOG, RunFinished, RunResult, RunStarted};
