//! The port for logs: attach, read pieces in order, confirm what is durable.
//!
//! Promise: pieces of one reader are contiguous until a `TimelineEnd`; no piece crosses a border of the log's files.
//! Only a `Durable` confirms. `next` and `keep_alive` may be dropped at any await without losing anything.
//! Not here: when to store what (backstay-engine::jobs::stream).

use crate::{Identity, SourceError};
use async_trait::async_trait;
use backstay_terms::{ByteCount, Durable, LogFacts, LogMark, Position};
use bytes::Bytes;

/// Whether a source has a log.
#[derive(Debug)]
pub enum LogOffer<'a> {
    /// It has none: a base is a point.
    None,
    /// It can be followed.
    Follow(&'a dyn LogSource),
}

/// Where to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Nothing is stored yet: as early as the source's slot allows.
    Fresh,
    /// Everything before `position` on `timeline` of `system` is durable.
    After {
        /// The system.
        system: u64,
        /// The timeline.
        timeline: u32,
        /// The frontier.
        position: Position,
    },
    /// At `position` on `timeline` of `system`, and nothing is said to be durable: whatever the source keeps for us it
    /// keeps until the first `confirm`.
    At {
        /// The system.
        system: u64,
        /// The timeline.
        timeline: u32,
        /// Where to begin.
        position: Position,
    },
}

/// Stored log that ends at a border of the log's files, where a stream may begin: with it the adapter sees a record
/// that lies across the border, and whether the source's bytes continue the stored ones.
#[derive(Clone, Debug, Default)]
pub struct Preceding {
    /// The first position.
    pub begins: Position,
    /// The bytes; empty when nothing is stored there.
    pub bytes: Bytes,
}

impl Preceding {
    /// Nothing is stored.
    pub fn none() -> Preceding {
        Preceding::default()
    }

    /// The position after the last byte.
    pub fn ends(&self) -> Position {
        Position(self.begins.0.saturating_add(self.bytes.len() as u64))
    }
}

/// A source whose log can be followed.
#[async_trait]
pub trait LogSource: std::fmt::Debug + Send + Sync {
    /// Attaches. The first piece begins at the start of the file that holds the resume point, so that bytes already
    /// stored arrive once more and can be compared. Of the positions only that of `After` may be told to the source.
    async fn follow(&self, resume: Resume, preceding: &Preceding) -> Result<Box<dyn LogReader>, SourceError>;

    /// Takes back what `follow` made at the source, for a log of which nothing could be stored: a source keeps its log
    /// for whoever follows it, and would go on keeping it for nobody. What was there before `follow` stays.
    async fn forget(&self) -> Result<(), SourceError> {
        Ok(())
    }

    /// The name under which the source keeps its log for whoever follows it, where it did so before `follow` was called: it
    /// may do so for somebody else. None if `follow` made it, or if there is no such thing.
    fn kept_before(&self) -> Option<String> {
        None
    }

    /// What it keeps now for whoever follows it; none if there is no such thing.
    async fn kept(&self) -> Result<Option<Kept>, SourceError> {
        Ok(None)
    }
}

/// Log that a source keeps until it was confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Under which name.
    pub name: String,
    /// How much, where the source tells.
    pub bytes: Option<ByteCount>,
}

/// What the reader attached to.
#[derive(Clone, Debug)]
pub struct LogStart {
    /// The source at the moment of attaching; `place.position` is the end of its log.
    pub identity: Identity,
    /// The timeline that is being read.
    pub timeline: u32,
    /// The first position that will arrive.
    pub from: Position,
    /// The timeline's history file; none on the first timeline.
    pub history: Option<Bytes>,
}

/// A log being read.
#[async_trait]
pub trait LogReader: Send {
    /// What was attached to; changes after a `TimelineEnd`.
    fn start(&self) -> &LogStart;

    /// The next step. Answers the server's keepalives meanwhile.
    async fn next(&mut self) -> Result<LogStep, SourceError>;

    /// Keeps the connection alive without reading on, for as long as the caller has no room. Returns only on error.
    async fn keep_alive(&mut self) -> Result<(), SourceError>;

    /// Tells the source that everything before `durable` may be forgotten. Never goes backwards.
    async fn confirm(&mut self, durable: &Durable) -> Result<(), SourceError>;

    /// Ends the conversation in the source's proper way, after the last `confirm`.
    async fn finish(self: Box<Self>) -> Result<(), SourceError>;
}

/// Bytes of the log with what is known about them.
#[derive(Clone, Debug)]
pub struct LogPiece {
    /// The first position.
    pub begins: Position,
    /// The bytes; never empty.
    pub bytes: Bytes,
    /// Their facts.
    pub facts: LogFacts,
}

impl LogPiece {
    /// The position after the last byte.
    pub fn ends(&self) -> Position {
        Position(self.begins.0.saturating_add(self.bytes.len() as u64))
    }
}

/// One step of a log.
#[derive(Clone, Debug)]
pub enum LogStep {
    /// The next bytes.
    Piece(LogPiece),
    /// Nothing was written between the last piece and this moment.
    Mark(LogMark),
    /// What comes next does not continue the stored log that preceded it: another history of bytes. Comes before the
    /// first piece.
    OtherHistory,
    /// The source waits for our confirmation: store what is held, now.
    FlushWanted,
    /// The timeline ended at `switch`; the next pieces belong to `next`, from the start of the file that holds
    /// `switch`. `LogReader::start` already describes the next timeline.
    TimelineEnd {
        /// Where the old timeline ended.
        switch: Position,
        /// The next timeline.
        next: u32,
        /// Its history file.
        history: Bytes,
    },
    /// The source is shutting down or closed the stream.
    Ended,
}
