//! Names of objects, and prefixes of names.
//!
//! Promise: a `Key` is valid in every store that we write to: as an S3 key that needs no escaping, and
//! as a path that stays inside its directory. Temporary files begin with a dot, which no segment may.
//! Not here: which names exist and what they mean (repository::names).

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use crate::StoreError;

/// The longest name in bytes. S3 allows 1024; the rest is left for a prefix inside the bucket.
const KEY_LENGTH_MAX: usize = 900;

/// The longest segment in bytes: NAME_MAX of every Linux file system.
const SEGMENT_LENGTH_MAX: usize = 255;

/// The name of an object: `/`-separated segments of `A-Z a-z 0-9 . _ -`, none empty, none
/// beginning with a dot. Sorts by bytes, like every listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Checks a name.
    pub fn new(text: impl Into<String>) -> Result<Self, StoreError> {
        let text = text.into();
        match fault_of_key(&text) {
            None => Ok(Self(text)),
            Some(fault) => Err(StoreError::InvalidKey { text, fault }),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments, first to last; there is at least one.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The name under this one: `self/rest`.
    pub fn join(&self, rest: &str) -> Result<Self, StoreError> {
        Self::new(format!("{self}/{rest}"))
    }

    /// Whether the name begins with `prefix`.
    pub fn starts_with(&self, prefix: &Prefix) -> bool {
        self.0.starts_with(&prefix.0)
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        Self::new(text)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the names of a listing begin with: nothing, or the beginning of a [`Key`], cut anywhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Prefix(String);

impl Prefix {
    /// The prefix of every name.
    pub const fn everything() -> Self {
        Self(String::new())
    }

    /// Checks a prefix: empty, a [`Key`], or a [`Key`] followed by `/`.
    pub fn new(text: impl Into<String>) -> Result<Self, StoreError> {
        let text = text.into();
        let body = text.strip_suffix('/').unwrap_or(&text);
        match fault_of_key(body) {
            Some(fault) if !text.is_empty() => Err(StoreError::InvalidKey { text, fault }),
            _ => Ok(Self(text)),
        }
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&Key> for Prefix {
    fn from(key: &Key) -> Self {
        Self(key.0.clone())
    }
}

impl FromStr for Prefix {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        Self::new(text)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFault {
    /// There is no text at all.
    Empty,
    /// More than 900 bytes, or a segment of more than 255.
    TooLong,
    /// Two slashes in a row, or one at either end.
    EmptySegment,
    /// A segment begins with a dot: `.`, `..` or a hidden file.
    LeadingDot,
    /// A byte outside `A-Z a-z 0-9 . _ - /`.
    ForbiddenByte(u8),
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::TooLong => f.write_str("it is longer than 900 bytes or has a segment of more than 255"),
            Self::EmptySegment => f.write_str("it has an empty segment"),
            Self::LeadingDot => f.write_str("a segment begins with a dot"),
            Self::ForbiddenByte(byte) => {
                write!(f, "it holds the byte '{}'", byte.escape_ascii())
            }
        }
    }
}

fn fault_of_key(text: &str) -> Option<KeyFault> {
    if text.is_empty() {
        return Some(KeyFault::Empty);
    }
    if text.len() > KEY_LENGTH_MAX {
        return Some(KeyFault::TooLong);
    }
    text.split('/').find_map(fault_of_segment)
}

fn fault_of_segment(segment: &str) -> Option<KeyFault> {
    let forbidden = |byte: &u8| !(byte.is_ascii_alphanumeric() || b"._-".contains(byte));
    if segment.is_empty() {
        return Some(KeyFault::EmptySegment);
    }
    if segment.starts_with('.') {
        return Some(KeyFault::LeadingDot);
    }
    if segment.len() > SEGMENT_LENGTH_MAX {
        return Some(KeyFault::TooLong);
    }
    segment.bytes().find(forbidden).map(KeyFault::ForbiddenByte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Option<KeyFault> {
        match Key::new(text) {
            Err(StoreError::InvalidKey { fault, .. }) => Some(fault),
            Ok(_) => None,
            Err(other) => unreachable!("{other}"),
        }
    }

    #[test]
    fn names_outside_the_grammar_are_refused_with_the_reason() {
        let table = [
            ("", Some(KeyFault::Empty)),
            ("/a", Some(KeyFault::EmptySegment)),
            ("a/", Some(KeyFault::EmptySegment)),
            ("a//b", Some(KeyFault::EmptySegment)),
            (".", Some(KeyFault::LeadingDot)),
            ("a/../b", Some(KeyFault::LeadingDot)),
            ("a/.tmp-1", Some(KeyFault::LeadingDot)),
            ("lost+found", Some(KeyFault::ForbiddenByte(b'+'))),
            ("a b", Some(KeyFault::ForbiddenByte(b' '))),
            ("a\0b", Some(KeyFault::ForbiddenByte(0))),
            ("é", Some(KeyFault::ForbiddenByte(0xc3))),
            ("a\\b", Some(KeyFault::ForbiddenByte(b'\\'))),
            ("repository.json", None),
            ("wal-archive/live/main/7/1.ab/0-1.e-0", None),
        ];
        for (text, expected) in table {
            assert_eq!(fault(text), expected, "{text:?}");
        }
    }

    #[test]
    fn names_of_up_to_900_bytes_with_segments_of_up_to_255_are_taken() {
        let segment = "s".repeat(255);
        let longest = format!("{segment}/{segment}/{segment}/{}", "t".repeat(132));
        assert_eq!(longest.len(), 900);
        assert_eq!(fault(&longest), None);
        assert_eq!(fault(&format!("{longest}t")), Some(KeyFault::TooLong));
        assert_eq!(fault(&"s".repeat(256)), Some(KeyFault::TooLong));
    }

    #[test]
    fn a_prefix_may_be_empty_or_end_in_a_slash_or_inside_a_segment() {
        for text in ["", "a", "a/", "a/b-"] {
            assert_eq!(Prefix::new(text).expect("valid").as_str(), text);
        }
        for text in ["/", "a//", "../", "a/.", "a b"] {
            assert!(Prefix::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_refused_name_is_quoted_in_the_message() {
        let error = Key::new("a/../b").expect_err("refused");
        assert_eq!(
            error.to_string(),
            r#""a/../b" cannot name an object: a segment begins with a dot"#
        );
    }
}
