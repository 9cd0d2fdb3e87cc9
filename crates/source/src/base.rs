//! The port for bases: a stream of steps that describe files.
//!
//! Promise: steps of several entries may interleave and entries may come in any order, so that an adapter may read
//! with several connections; bytes of one entry come in ascending offsets without overlap. `End` comes last, once.
//! Not here: what becomes of the bytes (backstay-repository::base_writer).

use crate::SourceError;
use async_trait::async_trait;
use backstay_terms::{EntryHeader, LogPoint, Position};
use bytes::Bytes;
use std::path::PathBuf;

/// How the server should reach its checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// At once, with a burst of writes.
    Fast,
    /// Spread over the server's usual time.
    Spread,
}

/// What the engine asks of a base.
#[derive(Clone, Debug)]
pub struct BaseRequest {
    /// The label under which the server logs it.
    pub label: String,
    /// How to reach the checkpoint.
    pub checkpoint: Checkpoint,
    /// An upper bound for the server's reading, in kB/s; none: as fast as it goes.
    pub rate_max: Option<u32>,
    /// A directory of this run for what must not be held in memory; the caller removes it.
    pub scratch: PathBuf,
}

/// A base being read.
#[async_trait]
pub trait BaseReader: Send {
    /// The next step. After `End`, or an error, it is not called again.
    async fn next(&mut self) -> Result<BaseStep, SourceError>;
}

/// One step of a base.
#[derive(Debug)]
pub enum BaseStep {
    /// A new entry; `number` counts from 0 and is never reused.
    Entry {
        /// The entry's number within this base.
        number: u32,
        /// What it is.
        header: EntryHeader,
    },
    /// Bytes of an entry that is open.
    Bytes {
        /// The entry.
        number: u32,
        /// Where in the entry they lie.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// The entry is complete; comes for directories and links too.
    EntryEnd {
        /// The entry.
        number: u32,
    },
    /// Nothing but news for the person who waits.
    Progress(BaseProgress),
    /// All is read and checked.
    End(Box<BaseEnd>),
}

/// What the source does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The server works towards its checkpoint.
    WaitingForCheckpoint,
    /// Files are being read.
    Copying,
    /// The log from start to stop is being completed.
    CollectingLog,
    /// Everything is being compared with the server's manifest.
    Checking,
}

/// How far a base is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseProgress {
    /// What is being done.
    pub phase: Phase,
    /// Bytes read.
    pub done: u64,
    /// An estimate of all bytes; it may be exceeded.
    pub estimate: Option<u64>,
}

/// Whether the source vouches for the base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every check of the source and of the reader held.
    Good,
    /// Complete, but the source found damage in its own files; each text names a file and what is wrong.
    Damaged(Vec<String>),
}

/// The log that the base needs to become consistent; none for engines without a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseLog {
    /// The system.
    pub system: u64,
    /// The timeline at the stop.
    pub timeline: u32,
    /// Where recovery must begin.
    pub start: Position,
    /// Where the base is consistent.
    pub stop: Position,
    /// The record that ends the base; identifies its place in one history of bytes.
    pub end_point: Option<LogPoint>,
    /// The source's clock at or after the stop: microseconds since 2000-01-01 00:00:00 UTC.
    pub stop_time: i64,
    /// Bytes in a file of the log.
    pub segment_size: u64,
}

/// How a base ended.
#[derive(Clone, Debug)]
pub struct BaseEnd {
    /// Whether it is good.
    pub verdict: Verdict,
    /// The log it needs.
    pub log: Option<BaseLog>,
    /// The version for people.
    pub version: String,
    /// What the adapter's restore needs to know later, as JSON of the adapter's own shape; never secret.
    pub engine_facts: serde_json::Value,
    /// What the server said meanwhile.
    pub notices: Vec<String>,
}
