//! What can go wrong in a job, by what a caller can do about it.
//!
//! Promise: `kind` decides the exit code; message and advice are whole without the cause chain.

use backstay_repository::{RepositoryError, Retry, StoreError};
use backstay_source::{SourceError, SourceErrorKind};
use std::sync::Arc;

/// What a caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// None of the others.
    Other,
    /// The credential is refused.
    NotAuthorised,
    /// Refused before anything was changed.
    Refused,
    /// There is no such thing.
    NoSuchThing,
    /// The target lies before everything that can be recovered.
    BeforeWindow,
    /// The target lies after everything that can be recovered.
    AfterWindow,
    /// The target, or the way to it, lies in a gap of the log.
    InGap,
    /// The target means several points.
    Ambiguous,
    /// Someone else holds it.
    Conflict,
    /// Store or server unreachable.
    Unreachable,
    /// Something is damaged.
    Integrity,
    /// A key is wrong or missing.
    Key,
    /// A defect of ours.
    Defect,
}

/// On which side of what can be recovered a target lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Before the first point.
    Before,
    /// After the last point.
    After,
    /// In a gap between points.
    Gap,
}

/// An error of a job.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The source or the restore target failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The target cannot be reached.
    #[error("{what}")]
    Unreachable {
        /// On which side of what can be recovered.
        side: Side,
        /// Why, and the nearest points that can be reached.
        what: String,
        /// What to type instead.
        advice: String,
    },
    /// The target means several points of the stored log.
    #[error("{what}")]
    Ambiguous {
        /// Why, and which.
        what: String,
        /// How to name one of them.
        advice: String,
    },
    /// There is no such backup, run or service.
    #[error("{what}")]
    NoSuchThing {
        /// What was looked for and where.
        what: String,
        /// What to type.
        advice: String,
    },
    /// Refused before anything was changed.
    #[error("{what}")]
    Refused {
        /// Why.
        what: String,
        /// What to do.
        advice: String,
    },
    /// Something that is needed is stored and cannot be opened.
    #[error("{what}: {why}")]
    Unreadable {
        /// What is needed, and for what.
        what: String,
        /// Why it cannot be opened.
        why: Arc<RepositoryError>,
        /// What to type instead.
        advice: String,
    },
    /// Something was stored once and is gone, and without it the answer would be an older one.
    #[error("{what}")]
    Lost {
        /// What, and what tells of it.
        what: String,
        /// What to type instead.
        advice: String,
    },
    /// A task of a job panicked.
    #[error("the {task} stopped itself: {what}")]
    TaskFailed {
        /// Which.
        task: &'static str,
        /// What it said.
        what: String,
    },
    /// Something restored or verified is not what was recorded.
    #[error("{what}")]
    Integrity {
        /// What.
        what: String,
    },
}

impl EngineError {
    /// What a caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Repository(error) => repository_kind(error),
            Self::Unreadable { why, .. } => repository_kind(why),
            Self::Source(error) => source_kind(error.kind),
            Self::Unreachable {
                side: Side::Before, ..
            } => ErrorKind::BeforeWindow,
            Self::Unreachable {
                side: Side::After, ..
            } => ErrorKind::AfterWindow,
            Self::Unreachable { side: Side::Gap, .. } => ErrorKind::InGap,
            Self::Ambiguous { .. } => ErrorKind::Ambiguous,
            Self::NoSuchThing { .. } => ErrorKind::NoSuchThing,
            Self::Refused { .. } => ErrorKind::Refused,
            Self::Integrity { .. } | Self::Lost { .. } => ErrorKind::Integrity,
            Self::TaskFailed { .. } => ErrorKind::Defect,
        }
    }

    /// What to do.
    pub fn advice(&self) -> String {
        match self {
            Self::Repository(error) => error.advice(),
            Self::Source(error) => error.advice.clone(),
            Self::Unreachable { advice, .. }
            | Self::Ambiguous { advice, .. }
            | Self::NoSuchThing { advice, .. }
            | Self::Refused { advice, .. }
            | Self::Unreadable { advice, .. }
            | Self::Lost { advice, .. } => advice.clone(),
            Self::TaskFailed { .. } => {
                "report it with the lines above: this is a defect; what is stored stays readable, run again"
                    .into()
            }
            Self::Integrity { .. } => "do not use what was restored; run: backstay verify".into(),
        }
    }

    /// Whether another repository lies where this job's was: nothing more may be written there.
    pub(crate) fn is_replaced(&self) -> bool {
        matches!(self, Self::Repository(RepositoryError::Replaced { .. }))
    }

    /// Whether the same work may succeed later by itself.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Repository(RepositoryError::Store(error)) => error.retry() == Retry::Later,
            Self::Source(error) => error.retry() == backstay_source::Retry::Later,
            _ => false,
        }
    }

    /// Whether the store refuses, and takes the same work once somebody has given it space, rights or a place to write.
    pub fn waits_for_help(&self) -> bool {
        match self {
            Self::Repository(RepositoryError::Store(error)) => error.retry() == Retry::AfterHelp,
            _ => false,
        }
    }
}

fn repository_kind(error: &RepositoryError) -> ErrorKind {
    match error {
        RepositoryError::Store(error) => store_kind(error),
        RepositoryError::Absent | RepositoryError::AlreadyThere { .. } | RepositoryError::NotEmpty { .. } => {
            ErrorKind::Refused
        }
        RepositoryError::Headless { .. }
        | RepositoryError::NoIdentity { .. }
        | RepositoryError::OtherRepository { .. }
        | RepositoryError::OtherId { .. }
        | RepositoryError::Replaced { .. }
        | RepositoryError::NewerFormat { .. } => ErrorKind::Refused,
        RepositoryError::NoKey { .. } | RepositoryError::UnknownKey { .. } | RepositoryError::Key { .. } => {
            ErrorKind::Key
        }
        RepositoryError::Unreadable { damage, .. } if damage.is_about_keys() => ErrorKind::Key,
        RepositoryError::Sealed { .. }
        | RepositoryError::Malformed { .. }
        | RepositoryError::Differs { .. }
        | RepositoryError::Incomplete { .. }
        | RepositoryError::TwoServers { .. }
        | RepositoryError::Unreadable { .. } => ErrorKind::Integrity,
        RepositoryError::Gap { .. } => ErrorKind::InGap,
        RepositoryError::KeyTooOld { .. } => ErrorKind::Refused,
        RepositoryError::Unencodable { .. } | RepositoryError::OutOfOrder { .. } => ErrorKind::Other,
    }
}

fn store_kind(error: &StoreError) -> ErrorKind {
    match error {
        StoreError::PermissionDenied { .. } => ErrorKind::NotAuthorised,
        StoreError::NotFound { .. } => ErrorKind::NoSuchThing,
        StoreError::Damaged { .. }
        | StoreError::ShortRead { .. }
        | StoreError::Foreign { .. }
        | StoreError::NotAnObject { .. } => ErrorKind::Integrity,
        error if error.retry() == Retry::Later => ErrorKind::Unreachable,
        _ => ErrorKind::Other,
    }
}

fn source_kind(kind: SourceErrorKind) -> ErrorKind {
    match kind {
        SourceErrorKind::Unreachable => ErrorKind::Unreachable,
        SourceErrorKind::Unauthenticated => ErrorKind::NotAuthorised,
        SourceErrorKind::Refused
        | SourceErrorKind::TargetRefused
        | SourceErrorKind::OtherSystem
        | SourceErrorKind::NoSpace => ErrorKind::Refused,
        SourceErrorKind::Conflict => ErrorKind::Conflict,
        SourceErrorKind::LogGone | SourceErrorKind::LogBehind => ErrorKind::Refused,
        SourceErrorKind::Damaged => ErrorKind::Integrity,
        SourceErrorKind::Local | SourceErrorKind::Protocol => ErrorKind::Other,
    }
}
