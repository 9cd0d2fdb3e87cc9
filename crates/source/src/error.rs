//! What can go wrong at a source or a restore target, as the engine needs to know it.
//!
//! Promise: `kind` is what a caller can act on; `what` and `advice` are for people and hold no secret.

use std::{fmt, io};

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No.
    Never,
    /// Yes, after a while.
    Later,
}

/// What kind of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// Nobody answers, or the connection broke.
    Unreachable,
    /// The credential is wrong or missing, or its role lacks a right.
    Unauthenticated,
    /// The system is configured so that this cannot work.
    Refused,
    /// Someone else uses it: the replication slot, every connection, the port.
    Conflict,
    /// The log asked for is gone from the source: a gap.
    LogGone,
    /// The source's log ends before the place we would resume at: another history of bytes.
    LogBehind,
    /// The source is another system than before.
    OtherSystem,
    /// What arrived contradicts itself or a checksum.
    Damaged,
    /// The target directory cannot be used as it is; nothing was changed.
    TargetRefused,
    /// No space is left on this machine: the disk, a quota or a limit on the size of files is full.
    NoSpace,
    /// Another input/output failure on this machine.
    Local,
    /// Something that should not happen by the protocol's book.
    Protocol,
}

/// An error of a source or a restore target.
#[derive(Debug)]
pub struct SourceError {
    /// What a caller can act on.
    pub kind: SourceErrorKind,
    /// What is wrong and where; lines after the first are what another program said.
    pub what: String,
    /// What to do.
    pub advice: String,
}

impl SourceError {
    /// An error of `kind`.
    pub fn new(kind: SourceErrorKind, what: impl Into<String>, advice: impl Into<String>) -> SourceError {
        SourceError {
            kind,
            what: what.into(),
            advice: advice.into(),
        }
    }

    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self.kind {
            SourceErrorKind::Unreachable | SourceErrorKind::Conflict => Retry::Later,
            _ => Retry::Never,
        }
    }
}

impl SourceErrorKind {
    /// That of a local write that failed.
    pub fn of_local(error: &io::Error) -> SourceErrorKind {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                SourceErrorKind::NoSpace
            }
            _ => SourceErrorKind::Local,
        }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for SourceError {}
