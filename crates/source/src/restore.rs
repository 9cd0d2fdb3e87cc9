//! The port for restores: a directory that becomes a server's data directory.
//!
//! Promise: `inspect` changes nothing and finds everything that can be refused; between `begin` and `finish` the
//! directory carries a marker and cannot start; `finish` writes what makes it startable last and syncs everything.
//! File work is blocking on purpose: the engine calls it from worker threads.
//! Not here: which bytes and which log (backstay-engine::plan::restore).

use crate::SourceError;
use async_trait::async_trait;
use backstay_terms::{EntryHeader, Position};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a restore will need of its target.
#[derive(Clone, Debug)]
pub struct Need {
    /// Bytes of all files.
    pub bytes: u64,
    /// The version that the base was made with.
    pub version: String,
    /// The adapter's own facts from the base.
    pub engine_facts: serde_json::Value,
    /// Directories outside of the target that replaying the log of the plan writes into, whatever the target is.
    pub written_by_log: Vec<String>,
}

/// What a restore takes of its target's file systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes needed, with a margin.
    pub needed: u64,
    /// Bytes that may be used.
    pub free: u64,
}

impl Space {
    /// Whether there is enough.
    pub fn is_enough(&self) -> bool {
        self.free >= self.needed
    }
}

/// Which restore a directory belongs to while it is incomplete; written into the marker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The backup.
    pub backup: String,
    /// The resolved target, in words.
    pub target: String,
}

/// What happens when the target is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecoveryAction {
    /// Stays read-only.
    Pause,
    /// Becomes a primary on a new timeline.
    Promote,
    /// Shuts down.
    Shutdown,
}

/// Where recovery stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecoveryStop {
    /// As soon as the base is consistent.
    Consistent,
    /// After the record that starts here.
    After(Position),
    /// Before the record that starts here.
    Before(Position),
}

/// How the server gets the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalDelivery {
    /// Everything needed has been placed; nothing is fetched.
    Placed,
    /// The server calls this command, with `%f` and `%p` in it, for every file of the log.
    Command(String),
}

/// A first call of a delivery's command, made before anything is touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// The command, with `%f` and `%p` in it.
    pub command: String,
    /// The first file of the log that the server will ask for.
    pub file: String,
    /// The bytes that this file has.
    pub size: u64,
}

/// How the server is to recover.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// The timeline to recover along.
    pub timeline: u32,
    /// Where to stop.
    pub stop: RecoveryStop,
    /// What to do then.
    pub action: RecoveryAction,
    /// Where the log comes from.
    pub delivery: WalDelivery,
    /// The highest timeline number known anywhere, so that a promoted copy takes an unused one.
    pub timeline_highest: u32,
}

/// A file being written.
pub trait FileSink: Send {
    /// Appends bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<(), SourceError>;

    /// Ends the file; the caller has compared its digest.
    fn close(self: Box<Self>) -> Result<(), SourceError>;
}

/// How to start the restored server.
#[derive(Clone, Debug)]
pub struct StartRequest {
    /// The port to listen on.
    pub port: u16,
    /// How long recovery may take before it counts as failed.
    pub wait_max: Duration,
}

/// What a started server showed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The position up to which the server replayed.
    pub replayed: Position,
    /// Whether it still is in recovery (paused) or promoted.
    pub state: String,
    /// How to connect to it.
    pub connect: String,
    /// The time of the last transaction that ended in what was replayed, in RFC 3339, UTC; none where it is not known.
    pub last_transaction: Option<String>,
    /// The same without the record after which the server stopped, where nothing says what that record is.
    pub transaction_before_stop: Option<String>,
    /// Live rows per table where they could be counted: database, table, rows.
    pub rows: Vec<(String, String, u64)>,
    /// Tables that could not be counted, each with the reason.
    pub uncounted: Vec<String>,
}

/// A directory to restore into.
#[async_trait]
pub trait Restore: std::fmt::Debug + Send + Sync {
    /// Finds every reason to refuse; changes nothing. A directory with our own marker of the same ticket is accepted.
    fn inspect(&self, need: &Need, ticket: &Ticket) -> Result<(), SourceError>;

    /// Finds every reason why the server could not be started afterwards; changes nothing.
    fn inspect_start(&self, need: &Need, request: &StartRequest) -> Result<(), SourceError>;

    /// What the restore would take and what is there; changes nothing.
    fn space(&self, need: &Need) -> Result<Space, SourceError>;

    /// Runs a delivery's command as the server will: as its user, with nothing of our environment. Refuses unless it
    /// delivers the file. Leaves nothing behind.
    async fn rehearse(&self, rehearsal: &Rehearsal) -> Result<(), SourceError>;

    /// Creates the directory and the marker; removes what an interrupted restore of the same ticket left.
    fn begin(&self, ticket: &Ticket) -> Result<(), SourceError>;

    /// Opens a file, or makes a directory or link (then the sink takes no bytes). Called from several threads.
    fn place(&self, entry: &EntryHeader) -> Result<Box<dyn FileSink>, SourceError>;

    /// Writes recovery settings, syncs everything, makes the directory startable and removes the marker, in this order.
    fn finish(&self, recovery: &Recovery) -> Result<(), SourceError>;

    /// Starts the server, waits until it has reached its stop, and asks it what it holds.
    async fn start(&self, request: &StartRequest, recovery: &Recovery) -> Result<Evidence, SourceError>;
}
