//! What can go wrong with a store, as things a caller can act on.
//!
//! Promise: every variant names the call; whether to try again is a property of the error.
//! Not here: trying again (retry).

use std::time::Duration;

use backstay_clock::print_duration;

use crate::{Call, KeyFault, Operation};

/// An error of a store. `detail` is the store's own text, for people only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no such object or version.
    #[error("cannot {call}: it is not there")]
    NotFound {
        /// The call that failed.
        call: Call,
    },
    /// The credentials or file modes do not allow it.
    #[error("cannot {call}: permission denied ({detail})")]
    PermissionDenied {
        /// The call that failed.
        call: Call,
        /// What the store said.
        detail: String,
    },
    /// This kind of store cannot do that at all.
    #[error("cannot {call}: this store does not support it ({detail})")]
    NotSupported {
        /// The call that failed.
        call: Call,
        /// What is missing.
        detail: String,
    },
    /// The store could not be reached or broke off. What a put did is unknown.
    #[error("cannot {call}: the store is unreachable ({detail})")]
    Unreachable {
        /// The call that failed.
        call: Call,
        /// What the transport said.
        detail: String,
    },
    /// The store asks us to slow down, or has a passing fault.
    #[error("cannot {call}: the store is busy ({detail})")]
    Busy {
        /// The call that failed.
        call: Call,
        /// What the store said.
        detail: String,
    },
    /// No answer in time. What a put did is unknown.
    #[error("cannot {call}: no answer within {}", print_duration(*.after))]
    Timeout {
        /// The call that failed.
        call: Call,
        /// How long we waited.
        after: Duration,
    },
    /// Fewer or more bytes arrived than were announced or asked for.
    #[error("cannot {call}: {received} bytes arrived instead of {expected}")]
    ShortRead {
        /// The call that failed.
        call: Call,
        /// How many bytes should have come.
        expected: u64,
        /// How many bytes came.
        received: u64,
    },
    /// A range that the object does not have.
    #[error("cannot {call}: bytes {start}..{end} are not in an object of {size} bytes")]
    OutOfRange {
        /// The call that failed.
        call: Call,
        /// The first byte asked for.
        start: u64,
        /// The byte after the last one asked for.
        end: u64,
        /// The object's size in bytes.
        size: u64,
    },
    /// What the store holds or says cannot be true.
    #[error("cannot {call}: the store is damaged ({detail})")]
    Damaged {
        /// The call that failed.
        call: Call,
        /// What is wrong.
        detail: String,
    },
    /// Under a name that belongs to this run alone lie bytes that this run did not write.
    #[error("cannot {call}: other bytes lie under this name ({detail})")]
    Foreign {
        /// The call that failed.
        call: Call,
        /// What differs.
        detail: String,
    },
    /// Under the name of an object, or on the way to it, lies what is none; it was not opened.
    #[error("cannot {call}: {what} lies there, which is no object")]
    NotAnObject {
        /// The call that failed.
        call: Call,
        /// What lies there, with its article.
        what: &'static str,
    },
    /// A text that cannot name an object.
    #[error("{text:?} cannot name an object: {fault}")]
    InvalidKey {
        /// The text.
        text: String,
        /// What is wrong with it.
        fault: KeyFault,
    },
    /// The store is full.
    #[error("cannot {call}: no space is left ({detail})")]
    NoSpace {
        /// The call that failed.
        call: Call,
        /// What the store said.
        detail: String,
    },
    /// The store takes no changes.
    #[error("cannot {call}: the store is read-only")]
    ReadOnly {
        /// The call that failed.
        call: Call,
    },
    /// A test let the process die at or before this call. Never seen outside of tests.
    #[error("cannot {call}: the process died here, as the test asked")]
    Died {
        /// The call that failed.
        call: Call,
    },
    /// Anything else.
    #[error("cannot {call}: {detail}")]
    Other {
        /// The call that failed.
        call: Call,
        /// What happened.
        detail: String,
    },
}

/// Whether the same call may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Trying again changes nothing.
    Never,
    /// Trying again changes nothing until somebody has helped: given space, rights or a place that can be written. Who can
    /// wait for that may; who is to be repeated anyway should not.
    AfterHelp,
    /// The cause may pass by itself.
    Later,
}

impl StoreError {
    /// A store that answers no call, whichever it was.
    pub fn silent(after: Duration) -> StoreError {
        let call = Call::on_store(Operation::Put);
        StoreError::Timeout { call, after }
    }

    /// Whether the same call may succeed later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. } | Self::Busy { .. } | Self::Timeout { .. } | Self::ShortRead { .. } => {
                Retry::Later
            }
            Self::NoSpace { .. } | Self::ReadOnly { .. } | Self::PermissionDenied { .. } => Retry::AfterHelp,
            Self::NotFound { .. }
            | Self::NotSupported { .. }
            | Self::OutOfRange { .. }
            | Self::Damaged { .. }
            | Self::Foreign { .. }
            | Self::NotAnObject { .. }
            | Self::InvalidKey { .. }
            | Self::Died { .. }
            | Self::Other { .. } => Retry::Never,
        }
    }

    /// What a person can do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "check the repository's place and name; list what is there",
            Self::PermissionDenied { .. } => {
                "give the user or role that runs this the right to do it, or use the role that has it"
            }
            Self::NotSupported { .. } => "use a store that can do it, or do without",
            Self::Unreachable { .. } | Self::Timeout { .. } => {
                "check address, network and certificates; the call can be repeated"
            }
            Self::Busy { .. } => "wait; lower the number of parallel calls if it stays so",
            Self::ShortRead { .. } => "repeat the call; if it stays so, the object is cut off: run verify",
            Self::OutOfRange { .. } | Self::Damaged { .. } => {
                "run verify to see what else is damaged, and keep the store as it is until then"
            }
            Self::Foreign { .. } => {
                "stop every other writer into this repository and look who wrote the object"
            }
            Self::NotAnObject { .. } => {
                "move away what lies there, and bring the object back from a copy of the repository"
            }
            Self::InvalidKey { .. } => {
                "use letters, digits, dot, underscore and hyphen; no segment may begin with a dot"
            }
            Self::NoSpace { .. } => "free space or enlarge the store, then run again",
            Self::ReadOnly { .. } => "mount the store for writing, or write elsewhere",
            Self::Died { .. } => "this is a test: open a new store over the same image",
            Self::Other { .. } => "read the detail; run check",
        }
    }

    /// The call that failed; none for a text that never became a call.
    pub fn call(&self) -> Option<&Call> {
        match self {
            Self::NotFound { call }
            | Self::PermissionDenied { call, .. }
            | Self::NotSupported { call, .. }
            | Self::Unreachable { call, .. }
            | Self::Busy { call, .. }
            | Self::Timeout { call, .. }
            | Self::ShortRead { call, .. }
            | Self::OutOfRange { call, .. }
            | Self::Damaged { call, .. }
            | Self::Foreign { call, .. }
            | Self::NotAnObject { call, .. }
            | Self::NoSpace { call, .. }
            | Self::ReadOnly { call }
            | Self::Died { call }
            | Self::Other { call, .. } => Some(call),
            Self::InvalidKey { .. } => None,
        }
    }

    /// The operation that failed, if there was one.
    pub fn operation(&self) -> Option<Operation> {
        self.call().map(|call| call.operation)
    }
}
