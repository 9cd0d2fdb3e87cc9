//! What can be wrong with a container.
//!
//! Promise: every message names the object and begins with what is wrong: `key`, `name` or `content`.

use crate::key::KeyId;
use crate::kind::Kind;

/// Which of the three is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The key.
    Key,
    /// The name.
    Name,
    /// The content.
    Content,
}

/// A container cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// It does not begin like one.
    #[error("content: {name} is not a Backstay object")]
    NotAContainer {
        /// The logical name.
        name: String,
    },
    /// Another format version than 1.
    #[error("content: {name} has format version {version}; this program opens version 1")]
    UnknownFormat {
        /// The logical name.
        name: String,
        /// The version found.
        version: u8,
    },
    /// Another suite, or another chunk size, than the one of suite 1.
    #[error(
        "content: {name} has suite {suite} with chunks of 2^{chunk_log} bytes; this program opens suite 1 with 2^16"
    )]
    UnknownSuite {
        /// The logical name.
        name: String,
        /// The suite found.
        suite: u8,
        /// The logarithm of the chunk size found.
        chunk_log: u8,
    },
    /// It holds something else.
    #[error("content: {name} is of kind {found}{}, not a {expected}", known(*found))]
    WrongKind {
        /// The logical name.
        name: String,
        /// The kind expected.
        expected: Kind,
        /// The kind found.
        found: u8,
    },
    /// It is sealed with another key.
    #[error("key: {name} is sealed with key {found}, not with {given}")]
    WrongKey {
        /// The logical name.
        name: String,
        /// The key that it names.
        found: KeyId,
        /// The key at hand.
        given: KeyId,
    },
    /// It was written under another name.
    #[error("name: {name} was written under another name")]
    WrongName {
        /// The logical name.
        name: String,
    },
    /// Its end is missing.
    #[error("content: {name} is truncated: {found} bytes instead of {expected}")]
    Truncated {
        /// The logical name.
        name: String,
        /// Bytes found.
        found: u64,
        /// Bytes expected, at least.
        expected: u64,
    },
    /// Something follows its end.
    #[error("content: {name} is too long: {found} bytes instead of {expected}")]
    TooLong {
        /// The logical name.
        name: String,
        /// Bytes found.
        found: u64,
        /// Bytes expected.
        expected: u64,
    },
    /// It has been changed.
    #[error("content: {name} is damaged: {what}")]
    Damaged {
        /// The logical name.
        name: String,
        /// Where.
        what: String,
    },
}

impl UnsealError {
    /// Which of the three is wrong.
    pub fn cause(&self) -> Cause {
        match self {
            Self::WrongKey { .. } => Cause::Key,
            Self::WrongName { .. } => Cause::Name,
            _ => Cause::Content,
        }
    }

    /// What a person can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::UnknownFormat { .. } | Self::UnknownSuite { .. } => {
                "a newer version of this program wrote it, or its first bytes are damaged: open it with the newest version"
            }
            Self::WrongKey { .. } => "add the key that was in use then to `keys` in the configuration",
            Self::WrongName { .. } => "somebody moved or replaced the object: put it back under its own name",
            _ => "the object is damaged or is another one: restore it from a copy, or use another backup",
        }
    }

    /// A length that is not `expected`.
    pub(crate) fn wrong_length(name: &str, found: u64, expected: u64) -> UnsealError {
        let name = name.to_owned();
        if found < expected {
            return Self::Truncated {
                name,
                found,
                expected,
            };
        }
        Self::TooLong {
            name,
            found,
            expected,
        }
    }

    pub(crate) fn damaged(name: &str, what: impl Into<String>) -> UnsealError {
        let (name, what) = (name.to_owned(), what.into());
        Self::Damaged { name, what }
    }
}

fn known(number: u8) -> String {
    Kind::with_number(number).map_or_else(String::new, |kind| format!(" ({kind})"))
}
