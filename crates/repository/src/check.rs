//! Looks at what is stored and names what is not as the format document says.
//!
//! Promise: what concerns one object becomes a finding with the invariant that it breaks; a store that cannot be reached
//! or asked stops the check, because then nothing is known. Nothing is written. What is held in memory is names, the
//! tables of one backup, one pack, and the ranges of a log that overlap at one position.
//! Not here: when to check and how deep (backstay-engine::jobs::verify), records inside the log (the adapters).

mod backups;
mod facts;
mod hiding;
mod holes;
mod indexes;
mod log;
mod runs;
mod sizes;
mod wraps;

pub use backups::BackupContent;
pub use hiding::Hiding;
pub use holes::{Hole, HoleContext, HoleKind};
pub use indexes::Indexed;
pub use log::{LogCheck, LogIndexes, Unsettled};
pub use runs::RunsWanted;

use crate::RepositoryError;
use backstay_codec::Cause;
use backstay_store::StoreError;
use serde::Serialize;

/// The invariants of the format document that a check can find broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Invariant {
    /// An object is what was written under its name.
    #[serde(rename = "REPO-1")]
    Repo1,
    /// A container holds what its record says.
    #[serde(rename = "REPO-3")]
    Repo3,
    /// What a head names is there.
    #[serde(rename = "REPO-4")]
    Repo4,
    /// A head references its own generation only.
    #[serde(rename = "REPO-5")]
    Repo5,
    /// An envelope can be opened.
    #[serde(rename = "KEY-2")]
    Key2,
    /// The key that an object names is in its envelope.
    #[serde(rename = "KEY-3")]
    Key3,
    /// Increments and wraps carry the key ids of the full's head.
    #[serde(rename = "KEY-4")]
    Key4,
    /// Every confirmed byte is in a stored range.
    #[serde(rename = "LOG-1")]
    Log1,
    /// The ranges of a lineage hold one history of bytes.
    #[serde(rename = "LOG-2")]
    Log2,
    /// A mark stands where it may.
    #[serde(rename = "LOG-3")]
    Log3,
    /// A lineage has its record.
    #[serde(rename = "LIN-1")]
    Lin1,
    /// A reader finds the history of every timeline.
    #[serde(rename = "LIN-3")]
    Lin3,
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckFinding {
    /// The object, or the place where it should be.
    pub object: String,
    /// What it breaks.
    pub invariant: Invariant,
    /// What was found.
    pub what: String,
    /// What to do or type; where a check knows nothing better, the verification fills it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl CheckFinding {
    /// A finding.
    pub fn new(object: impl Into<String>, invariant: Invariant, what: impl Into<String>) -> CheckFinding {
        CheckFinding {
            object: object.into(),
            invariant,
            what: what.into(),
            next: None,
        }
    }

    /// The same with what to type.
    #[must_use]
    pub fn then(self, next: impl Into<String>) -> CheckFinding {
        CheckFinding {
            next: Some(next.into()),
            ..self
        }
    }

    /// The finding that an error about an object is; any other error stops the check.
    pub(crate) fn of(
        object: impl Into<String>,
        error: RepositoryError,
    ) -> Result<CheckFinding, RepositoryError> {
        if !error.is_about_the_object() {
            return Err(error);
        }
        let object = error.object().unwrap_or_else(|| object.into());
        Ok(CheckFinding::new(object, invariant_of(&error), error.to_string()))
    }
}

impl RepositoryError {
    /// True if the error tells something about an object; false if it tells about the store or about us.
    pub fn is_about_the_object(&self) -> bool {
        match self {
            Self::Store(error) => matches!(
                error,
                StoreError::NotFound { .. }
                    | StoreError::ShortRead { .. }
                    | StoreError::OutOfRange { .. }
                    | StoreError::Damaged { .. }
                    | StoreError::NotAnObject { .. }
            ),
            Self::Sealed { .. } | Self::NoKey { .. } | Self::UnknownKey { .. } | Self::Key { .. } => true,
            Self::Malformed { .. } | Self::Differs { .. } | Self::Incomplete { .. } => true,
            Self::Gap { .. } | Self::Unreadable { .. } => true,
            Self::NewerFormat { .. } | Self::OtherRepository { .. } => true,
            _ => false,
        }
    }
}

impl RepositoryError {
    /// The object that it is about, where it names one.
    pub fn object(&self) -> Option<String> {
        match self {
            Self::Store(error) => Some(error.call()?.subject.clone()),
            Self::Sealed { key, .. } => Some(key.clone()),
            Self::Differs { object, .. } if object.contains('/') => Some(object.clone()),
            Self::Malformed { object, .. } if object.contains('/') => Some(object.clone()),
            Self::NewerFormat { object, .. } | Self::UnknownKey { object, .. } => Some(object.clone()),
            Self::Incomplete { object, .. } => Some(object.clone()),
            Self::Unreadable { damage, .. } => damage.object(),
            _ => None,
        }
    }
}

fn invariant_of(error: &RepositoryError) -> Invariant {
    match error {
        RepositoryError::Store(_) | RepositoryError::Incomplete { .. } => Invariant::Repo4,
        RepositoryError::Unreadable { damage, .. } => invariant_of(damage),
        RepositoryError::NoKey { .. } | RepositoryError::Key { .. } => Invariant::Key2,
        RepositoryError::UnknownKey { .. } => Invariant::Key3,
        RepositoryError::Sealed { source, .. } if source.cause() == Cause::Key => Invariant::Key3,
        RepositoryError::Sealed { .. } | RepositoryError::OtherRepository { .. } => Invariant::Repo1,
        RepositoryError::Gap { .. } => Invariant::Log1,
        _ => Invariant::Repo3,
    }
}

/// Keeps a finding, or gives the value on.
pub(crate) fn keep<T>(
    findings: &mut Vec<CheckFinding>,
    object: impl Into<String>,
    answer: Result<T, RepositoryError>,
) -> Result<Option<T>, RepositoryError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            findings.push(CheckFinding::of(object, error)?);
            Ok(None)
        }
    }
}
