//! What can go wrong in a repository.
//!
//! Promise: a variant is something that a caller can act on; messages name the object; none holds a secret.

use backstay_codec::{Cause, KeyId, UnsealError};
use backstay_store::StoreError;

/// An error of the repository.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no repository here.
    #[error("there is no repository at this place: repository.json is not there")]
    Absent,
    /// `init` found a repository.
    #[error("there is already a repository at this place: {id}")]
    AlreadyThere {
        /// The id of the one that is there.
        id: String,
    },
    /// The place holds objects but no repository.json.
    #[error("this place is not empty and holds no repository: it has {example}")]
    NotEmpty {
        /// One object found.
        example: String,
    },
    /// `repository.json` is gone, and what belongs to it is there.
    #[error("repository.json is gone, and what belongs to its repository is there: {example}")]
    Headless {
        /// One object found.
        example: String,
    },
    /// It is another repository than the configuration says.
    #[error("this is repository {found}, not {expected}")]
    OtherRepository {
        /// The id found.
        found: String,
        /// The id expected.
        expected: String,
    },
    /// `repository.json` names another repository than the one of which everything is that is stored.
    #[error(
        "repository.json says that this is repository {found}, and what is stored here is of repository {stored}: {example}"
    )]
    OtherId {
        /// The id in `repository.json`.
        found: String,
        /// The id in what is stored.
        stored: String,
        /// One object that says so.
        example: String,
    },
    /// `repository.json` does not say which repository this is.
    #[error("repository.json does not say which repository this is: {what}")]
    NoIdentity {
        /// What is wrong with it.
        what: String,
    },
    /// `repository.json` is not what it was when this process opened the repository.
    #[error("the repository {opened} was replaced while this ran: {what}")]
    Replaced {
        /// The id of the one that was opened.
        opened: String,
        /// What is there now.
        what: String,
    },
    /// An object has a format version that this program does not know.
    #[error("{object} has format version {format}; this program reads version 1")]
    NewerFormat {
        /// The object.
        object: String,
        /// Its version.
        format: u32,
    },
    /// An object cannot be opened.
    #[error("{key}: {source}")]
    Sealed {
        /// The object's name.
        key: String,
        /// Why.
        source: UnsealError,
    },
    /// No configured key opens an envelope.
    #[error("no configured key opens {envelope}; it was made for {recipients}")]
    NoKey {
        /// The envelope.
        envelope: String,
        /// Who could open it.
        recipients: String,
    },
    /// An object names a key that no envelope gave.
    #[error("{object} is sealed with key {id}, which no envelope that can be opened holds")]
    UnknownKey {
        /// The object.
        object: String,
        /// The key's id.
        id: KeyId,
    },
    /// A key, passphrase or recipient cannot be used.
    #[error("{what}")]
    Key {
        /// What is wrong.
        what: String,
    },
    /// An object is authentic but does not say what it must.
    #[error("{object} is malformed: {what}")]
    Malformed {
        /// The object.
        object: String,
        /// What is wrong.
        what: String,
    },
    /// An object is not the one that was recorded.
    #[error("{object} differs from its record: {what}")]
    Differs {
        /// The object.
        object: String,
        /// How.
        what: String,
    },
    /// Something cannot be written in this format.
    #[error("{what}")]
    Unencodable {
        /// What.
        what: String,
    },
    /// A key is too old to seal with.
    #[error("{what}")]
    KeyTooOld {
        /// Which and how old.
        what: String,
    },
    /// A table or pack that a head names is gone, or shorter than it was.
    #[error("{object} is damaged: {what}")]
    Incomplete {
        /// The object.
        object: String,
        /// What is left of it.
        what: &'static str,
    },
    /// Bytes of the log that were asked for are not stored.
    #[error("the log of {source_name} has a gap: nothing is stored from {from} to {to}")]
    Gap {
        /// The source.
        source_name: String,
        /// First position missing.
        from: backstay_terms::Position,
        /// First position present again.
        to: backstay_terms::Position,
    },
    /// Bytes of the log are stored, and no copy of them can be read.
    #[error("{damage}; no other copy of the log from {from} to {to} can be read")]
    Unreadable {
        /// First position that nothing gives.
        from: backstay_terms::Position,
        /// Where something may be read again.
        to: backstay_terms::Position,
        /// What is wrong with the best copy.
        damage: Box<RepositoryError>,
    },
    /// One lineage holds log of two servers: nothing of either is lost, and it is not known which one is meant.
    #[error(
        "two servers were streamed as {source_name} at the same time: {branch} holds different bytes of both from {fork} on, \
         some of them by the epoch {epoch}"
    )]
    TwoServers {
        /// The source.
        source_name: String,
        /// The lineage.
        branch: backstay_terms::Branch,
        /// Up to here they are one history.
        fork: backstay_terms::Position,
        /// The epoch that is to leave.
        epoch: backstay_terms::EpochId,
    },
    /// A caller broke the order of calls or gave bytes that do not continue.
    #[error("{what}")]
    OutOfOrder {
        /// How.
        what: String,
    },
}

/// Whoever reads it must not think that the objects are worth nothing.
fn headless_advice() -> String {
    format!(
        "remove nothing: bring repository.json back from a copy of the repository; or write it again, the id is on the \
         recovery sheet: {}",
        info_again("ID")
    )
}

/// A `repository.json` to write by hand.
fn info_again(id: &str) -> String {
    format!("{{\"format\":1,\"repository\":\"{id}\",\"created\":\"2026-01-01T00:00:00Z\"}}")
}

impl RepositoryError {
    /// An object whose content makes no sense.
    pub fn malformed(object: impl std::fmt::Display, what: impl std::fmt::Display) -> RepositoryError {
        RepositoryError::Malformed {
            object: object.to_string(),
            what: what.to_string(),
        }
    }

    /// A value that cannot be encoded.
    pub fn encoding(error: impl std::fmt::Display) -> RepositoryError {
        RepositoryError::Unencodable {
            what: format!("a record cannot be encoded: {error}"),
        }
    }

    /// What an object that a head names is when the store says this of it: one that is absent or shorter is damaged.
    pub(crate) fn of_named(error: StoreError) -> RepositoryError {
        let object = |error: &StoreError| error.call().map(|call| call.subject.clone());
        let what = match &error {
            StoreError::NotFound { .. } => "it is gone",
            StoreError::OutOfRange { .. } => "it is shorter than it was written",
            StoreError::NotAnObject { .. } => "something that is no object lies in its place",
            _ => return error.into(),
        };
        match object(&error) {
            Some(object) => RepositoryError::Incomplete { object, what },
            None => error.into(),
        }
    }

    /// Refuses an object of a format version that this program does not know.
    pub(crate) fn refuse_newer(object: impl std::fmt::Display, format: u32) -> Result<(), RepositoryError> {
        match format {
            1 => Ok(()),
            format => Err(RepositoryError::NewerFormat {
                object: object.to_string(),
                format,
            }),
        }
    }

    /// Whether an object is there and bad, or gone: another copy of what it holds may serve instead. A key that is missing
    /// and a store that may answer later are no damage, and no copy may hide them.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Sealed { source, .. } => source.cause() != Cause::Key,
            Self::Malformed { .. } | Self::Differs { .. } | Self::Incomplete { .. } => true,
            Self::Unreadable { damage, .. } => damage.is_damage(),
            Self::Store(error) => matches!(
                error,
                StoreError::NotFound { .. }
                    | StoreError::OutOfRange { .. }
                    | StoreError::Damaged { .. }
                    | StoreError::NotAnObject { .. }
                    | StoreError::Foreign { .. }
            ),
            _ => false,
        }
    }

    /// Whether a key is what lacks.
    pub fn is_about_keys(&self) -> bool {
        match self {
            Self::NoKey { .. } | Self::UnknownKey { .. } | Self::Key { .. } => true,
            Self::Unreadable { damage, .. } => damage.is_about_keys(),
            _ => false,
        }
    }

    /// What to do.
    pub fn advice(&self) -> String {
        match self {
            Self::Store(error) => error.advice().to_owned(),
            Self::Absent => "check `repo` in the configuration, or create one with: backstay init".into(),
            Self::AlreadyThere { .. } => "use it as it is, or choose another place for the new one".into(),
            Self::NotEmpty { .. } => "choose an empty place, or remove what is there if it is yours".into(),
            Self::Headless { .. } | Self::NoIdentity { .. } => headless_advice(),
            Self::OtherRepository { .. } => {
                "check `repo` in the configuration: it leads to another repository".into()
            }
            Self::OtherId { stored, .. } => format!(
                "remove nothing: bring repository.json back from a copy of the repository; or write it again, if the recovery \
                 sheet has the same id: {}",
                info_again(stored)
            ),
            Self::Replaced { opened, .. } => format!(
                "remove nothing, and find out who changed it; bring the repository back, or repository.json from a copy of it: {}; \
                 then run the same again",
                info_again(opened)
            ),
            Self::NewerFormat { .. } => "use a newer Backstay".into(),
            Self::Sealed { source, .. } => sealed_advice(source.cause()).into(),
            Self::NoKey { .. } | Self::UnknownKey { .. } => {
                "add the key that was in use then to `keys` in the configuration; nothing else can open it"
                    .into()
            }
            Self::Key { .. } => "check `keys` in the configuration".into(),
            Self::Malformed { .. } | Self::Differs { .. } | Self::Incomplete { .. } => {
                "run: backstay verify; restore from another backup or copy meanwhile".into()
            }
            Self::Unreadable { damage, .. } => damage.advice(),
            Self::Unencodable { .. } | Self::OutOfOrder { .. } => {
                "this is a defect of Backstay: please report it".into()
            }
            Self::TwoServers { source_name, .. } => format!(
                "run: backstay wal settle {source_name}; it tells the two apart and loses nothing; \
                 then see: backstay lineage list {source_name}"
            ),
            Self::KeyTooOld { .. } => "take a new full backup, or restart the stream".into(),
            Self::Gap { .. } => {
                "choose a point before the gap, or after the next base; see: backstay wal gaps".into()
            }
        }
    }
}

fn sealed_advice(cause: Cause) -> &'static str {
    match cause {
        Cause::Key => "add the key that was in use then to `keys` in the configuration",
        Cause::Name => {
            "the object was renamed or put in place of another: restore the original, or use another backup"
        }
        Cause::Content => "the object is damaged: restore it from a copy, or use another backup",
    }
}
