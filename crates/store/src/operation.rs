//! Which call was made on what, for errors and meters.
//!
//! Promise: every error names the operation and its subject.
//! Not here: counting (meter).

use std::fmt;

use crate::{Key, Prefix};

/// The calls of [`crate::Store`], and the few of a directory alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `put_if_absent`
    Put,
    /// `get`
    Get,
    /// `get_range`
    GetRange,
    /// `head`
    Head,
    /// `list_page`
    List,
    /// `list_versions`
    ListVersions,
    /// `get_version`
    GetVersion,
    /// `delete`
    Delete,
    /// `restore`
    Restore,
    /// `retain_until`
    Retain,
    /// `facts`
    Facts,
    /// Opening or making a directory store.
    Open,
    /// `LocalDirectory::secure_what_is_there`
    Secure,
    /// `LocalDirectory::sweep_leftovers`
    Sweep,
}

impl Operation {
    /// Whether the call may change what the store holds.
    pub fn changes_state(self) -> bool {
        matches!(self, Self::Put | Self::Delete | Self::Restore | Self::Retain)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::GetRange => "get range of",
            Self::Head => "head",
            Self::List => "list",
            Self::ListVersions => "list versions of",
            Self::GetVersion => "get version of",
            Self::Delete => "delete",
            Self::Restore => "thaw",
            Self::Retain => "lock",
            Self::Facts => "ask facts of",
            Self::Open => "open",
            Self::Secure => "make durable",
            Self::Sweep => "sweep",
        })
    }
}

/// One call: an operation and the key, prefix or store that it was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What was asked.
    pub operation: Operation,
    /// The key or prefix; `the store` when it was about neither.
    pub subject: String,
}

impl Call {
    /// A call about one object.
    pub fn on_key(operation: Operation, key: &Key) -> Self {
        Self {
            operation,
            subject: key.to_string(),
        }
    }

    /// A call about the names under a prefix.
    pub fn on_prefix(operation: Operation, prefix: &Prefix) -> Self {
        Self {
            operation,
            subject: format!("{prefix}*"),
        }
    }

    /// A call about a whole store, at its place.
    pub fn at_place(operation: Operation, place: &str) -> Self {
        Self {
            operation,
            subject: place.to_owned(),
        }
    }

    /// A call about the store itself.
    pub fn on_store(operation: Operation) -> Self {
        Self {
            operation,
            subject: "the store".to_owned(),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation, self.subject)
    }
}
