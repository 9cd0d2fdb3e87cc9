//! The port for finding records in the bytes of a log.
//!
//! Promise: pure: bytes in, answers out. Bytes are fed from the start of a file of the log on, without a hole.
//! Not here: which bytes to read (backstay-engine::plan).

use crate::SourceError;
use backstay_terms::Position;

/// What is looked for. Records that start before `from` are walked but never found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The first commit or abort whose time is later than this (microseconds since 2000-01-01 00:00:00 UTC).
    TransactionAfter(i64),
    /// The first commit or abort that is no later than this, after one that was later, at which the clock stepped back: what
    /// is disorder among neighbours and what is a step the format knows.
    SteppedBackTo(i64),
    /// The end of this transaction.
    Transaction(u32),
    /// The end of the transaction that this one was a part of.
    Subtransaction(u32),
    /// The restore point of this name.
    RestorePoint(String),
    /// The first record that starts at or after this position.
    RecordAt(Position),
    /// The last record that is complete in the bytes fed.
    LastComplete,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What it did holds.
    Committed,
    /// What it did is undone.
    Aborted,
}

/// A record that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Where it starts.
    pub start: Position,
    /// The position after its last byte.
    pub end: Position,
    /// Its time, if it carries one.
    pub time: Option<i64>,
    /// How the transaction ended, if the record ends one.
    pub outcome: Option<Outcome>,
    /// The transaction that the record ends.
    pub transaction: Option<u32>,
}

/// Where and how a scan begins.
#[derive(Clone, Debug)]
pub struct ScanOrder {
    /// The system.
    pub system: u64,
    /// The timeline of the bytes.
    pub timeline: u32,
    /// Bytes in a file of the log.
    pub segment_size: u64,
    /// The first byte that will be fed: the start of a file.
    pub begins: Position,
    /// Records before this are not looked at.
    pub from: Position,
    /// What is looked for.
    pub wanted: Wanted,
}

/// A format of log that can be scanned.
pub trait LogFormat: std::fmt::Debug + Send + Sync {
    /// Begins a scan.
    fn scan(&self, order: ScanOrder) -> Result<Box<dyn LogScanner>, SourceError>;
}

/// A scan in progress.
pub trait LogScanner: Send {
    /// Takes the next bytes. An error means that the bytes contradict themselves.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), SourceError>;

    /// What has been found so far; for `LastComplete` it moves on with every record.
    fn found(&self) -> Option<Hit>;
}
