//! Who a source is, and where its log stands.

use backstay_terms::{EngineKind, Position};
use bytes::Bytes;

/// A place in a source's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPlace {
    /// PostgreSQL's system identifier; for Redis derived from the replication id.
    pub system: u64,
    /// The timeline.
    pub timeline: u32,
    /// The position.
    pub position: Position,
}

/// A timeline that the source's own timeline descends from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// The timeline.
    pub timeline: u32,
    /// Where its descendant left it: the first position that is not shared.
    pub left_at: Position,
    /// Its own history file; none on the first timeline, or where the server does not have it.
    pub history: Option<Bytes>,
}

/// Who a source is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The kind of system.
    pub engine: EngineKind,
    /// The version for people: `15.20`.
    pub version: String,
    /// The end of its log now.
    pub place: LogPlace,
    /// The size at whose multiples the log is cut into files (PostgreSQL's WAL segment size), in bytes.
    pub segment_size: u64,
    /// The history file of its timeline; none on the first timeline.
    pub history: Option<Bytes>,
    /// The timelines it descends from, oldest first.
    pub ancestors: Vec<Ancestor>,
}
