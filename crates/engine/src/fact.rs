//! Everything that happens, as one stream.
//!
//! Promise: an observer never fails and never blocks a job; facts hold no secret and no plaintext.
//! Not here: what becomes of facts (printing, metrics, notices).

use backstay_repository::KeysGone;
use backstay_source::{BaseProgress, Kept};
use backstay_terms::{BackupId, Branch, ByteCount, Position, SourceName};
use jiff::Timestamp;
use std::fmt;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A base moves on.
    BaseProgress(BaseProgress),
    /// A backup is committed.
    BackupCommitted {
        /// Which.
        backup: BackupId,
        /// Bytes stored for it.
        stored: ByteCount,
    },
    /// A stream attached.
    StreamAttached {
        /// To which branch.
        branch: Branch,
        /// From where.
        from: Position,
        /// In words: why there.
        reason: String,
    },
    /// Nothing is stored of the system, and it kept its log under this name before: it may have done so for another
    /// repository, which then gets a gap.
    SlotTakenOver {
        /// The name.
        slot: String,
    },
    /// A new lineage began although an older one was expected: someone should look.
    LineageBegan {
        /// The new branch.
        branch: Branch,
        /// Why.
        reason: String,
    },
    /// More than one lineage holds log of its own, and nobody has said which one counts: a restore of what is newest is
    /// refused till then.
    LineagesContested {
        /// The source.
        source: SourceName,
        /// The lineages that contest the present one.
        rivals: Vec<Branch>,
    },
    /// Another stream of the same server stores the same log into the same lineage.
    LogShared {
        /// The lineage.
        branch: Branch,
    },
    /// Log is durable up to here.
    LogDurable {
        /// The position.
        position: Position,
    },
    /// A range was stored.
    RangeStored {
        /// `live`, `settled` or `mark`.
        level: &'static str,
        /// First position.
        from: Position,
        /// Position after the last.
        to: Position,
    },
    /// The log has a hole: a new base is needed.
    LogGap {
        /// What is missing, in words.
        what: String,
    },
    /// Stored log cannot be read, and only live ranges hold it: it stays unsettled.
    LogDamaged {
        /// First position.
        from: Position,
        /// Where something can be read again.
        to: Position,
        /// What is wrong with which object.
        what: String,
    },
    /// Live ranges were settled.
    Settled {
        /// Bytes.
        bytes: ByteCount,
    },
    /// Something failed and will be tried again.
    Retrying {
        /// What failed.
        error: String,
        /// When it is tried again, in milliseconds.
        after_ms: u64,
    },
    /// For a while now nothing could be stored: someone should act. The stream goes on trying.
    Outage {
        /// What failed last.
        error: String,
        /// What to do.
        advice: String,
        /// For how long, in milliseconds.
        lasts_ms: u64,
        /// When this run stored log last; none if it has stored none.
        stored: Option<Timestamp>,
        /// What the source keeps meanwhile, where it tells.
        kept: Option<Kept>,
    },
    /// Log is stored again after an outage that was told.
    OutageOver {
        /// For how long nothing was stored, in milliseconds.
        lasted_ms: u64,
    },
    /// The stream was stopped before everything that it had received was stored.
    StoppedUnstored {
        /// Everything before this is stored and confirmed.
        stored: Position,
        /// Everything before this was received.
        received: Position,
        /// What the source keeps, where it tells.
        kept: Option<Kept>,
    },
    /// Log that was confirmed is gone from the repository: a new base is needed.
    LogLost {
        /// First position.
        from: Position,
        /// Position after the last.
        to: Position,
        /// What tells of it; none if this stream stored it itself.
        by: Option<String>,
    },
    /// Log that was confirmed was damaged or gone in the repository; the source still had it, and it is stored again.
    LogStoredAgain {
        /// First position.
        from: Position,
        /// Position after the last.
        to: Position,
        /// What told of it.
        by: String,
    },
    /// The keys of stored log were gone from the repository: someone should find out why.
    KeysGone(KeysGone),
    /// The key of a month's records was gone from the repository and is stored again: someone should find out why.
    MonthKeyGone {
        /// Which month, as `YYYY-MM`.
        month: String,
    },
    /// A backup, its parts or a piece of log went.
    Expired {
        /// Its first object.
        object: String,
        /// Bytes.
        bytes: ByteCount,
    },
    /// A restore goes on without its record in the repository.
    RestoreNotRecorded {
        /// What follows from it.
        consequence: &'static str,
        /// Why it could not be written.
        error: String,
    },
    /// A restore moves on.
    RestoreProgress {
        /// Bytes of files placed.
        done: u64,
        /// All bytes of files.
        total: u64,
    },
    /// A step of a restore began.
    RestoreStep {
        /// In words.
        step: String,
    },
}

/// Is told everything that happens.
pub trait Observer: fmt::Debug + Send + Sync {
    /// Takes a fact.
    fn observe(&self, fact: &Fact);
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn observe(&self, _fact: &Fact) {}
}
