//! Names that Backstay gives: sources, generations, backups, epochs, wraps, runs.
//!
//! Promise: a timed id is `YYYYMMDDTHHMMSSZ-<kind>-<suffix>` and sorts by time; the suffix is 50 random bits in ten
//! characters of base 32 (a-z, 2-7), so ids are never reused. `SourceName` is safe as one element of an object name.
//! Not here: the time and the chance themselves; whoever makes an id passes them in.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A text is not a valid name or id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct IdError {
    /// What was given.
    pub text: String,
    /// What would have been accepted.
    pub expected: &'static str,
}

/// The name of a service in the configuration and in object names: 1 to 63 of a-z, 0-9 and inner hyphens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceName(String);

impl SourceName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SourceName {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let characters = text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let edges = !text.starts_with('-') && !text.ends_with('-');
        if characters && edges && (1..=63).contains(&text.len()) {
            return Ok(SourceName(text.to_owned()));
        }
        let expected = "a service name: 1 to 63 characters of a-z, 0-9 and inner hyphens";
        Err(IdError {
            text: text.to_owned(),
            expected,
        })
    }
}

/// Ten characters of base 32: 50 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Suffix([u8; 10]);

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

impl Suffix {
    /// The suffix made of the low 50 bits of `chance`.
    pub fn from_chance(chance: u64) -> Suffix {
        let digit = |place: usize| ALPHABET[(chance >> (5 * place) & 31) as usize];
        Suffix(std::array::from_fn(digit))
    }

    fn parse(text: &str) -> Option<Suffix> {
        let bytes: [u8; 10] = text.as_bytes().try_into().ok()?;
        bytes
            .iter()
            .all(|b| ALPHABET.contains(b))
            .then_some(Suffix(bytes))
    }
}

impl fmt::Display for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{}", char::from(*b)))
    }
}

/// `YYYYMMDDTHHMMSSZ-<kind>-<suffix>`: unique, and sorting by time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimedId(String);

const TIMED: &str = "an id like 20261123T020011Z-full-k3q7mz2abc";

impl TimedId {
    /// The id of something of `kind` (a-z) made at `moment` (`YYYYMMDDTHHMMSSZ`, UTC).
    pub fn new(moment: &str, kind: &str, suffix: Suffix) -> Result<TimedId, IdError> {
        format!("{moment}-{kind}-{suffix}").parse()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The moment in it, `YYYYMMDDTHHMMSSZ`.
    pub fn moment(&self) -> &str {
        self.0.get(..16).unwrap_or_default()
    }

    /// The kind in it.
    pub fn kind(&self) -> &str {
        self.0.split('-').nth(1).unwrap_or_default()
    }

    /// The random bits in it.
    pub fn suffix(&self) -> Suffix {
        let last = self.0.split('-').nth(2).and_then(Suffix::parse);
        last.expect("an id is made with a suffix")
    }
}

fn is_moment(text: &str) -> bool {
    let shape = |(place, b): (usize, u8)| match place {
        8 => b == b'T',
        15 => b == b'Z',
        _ => b.is_ascii_digit(),
    };
    text.len() == 16 && text.bytes().enumerate().all(shape)
}

impl FromStr for TimedId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let parts: Vec<&str> = text.split('-').collect();
        let valid = match parts.as_slice() {
            [moment, kind, suffix] => {
                let word = (1..=16).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_lowercase());
                is_moment(moment) && word && Suffix::parse(suffix).is_some()
            }
            _ => false,
        };
        if valid {
            Ok(TimedId(text.to_owned()))
        } else {
            Err(IdError {
                text: text.to_owned(),
                expected: TIMED,
            })
        }
    }
}

macro_rules! text_form {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }
    )*};
}
text_form!(SourceName, TimedId);

/// A generation: one full backup and the increments against it.
pub type GenerationId = TimedId;
/// One backup.
pub type BackupId = TimedId;
/// One run of a log writer.
pub type EpochId = TimedId;
/// A lineage record, a hold, a drill, an audit entry.
pub type RecordId = TimedId;
/// A run of a job.
pub type RunId = TimedId;

/// The random name of one wrap of an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WrapId(pub Suffix);

impl fmt::Display for WrapId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for WrapId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let refuse = || IdError {
            text: text.to_owned(),
            expected: "the name of a key wrap: ten characters a-z, 2-7",
        };
        Suffix::parse(text).map(WrapId).ok_or_else(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn timed_ids_are_read_back(chance in any::<u64>()) {
            let id = TimedId::new("20261123T020011Z", "full", Suffix::from_chance(chance)).unwrap();
            prop_assert_eq!(id.to_string().parse::<TimedId>(), Ok(id.clone()));
            prop_assert_eq!((id.moment(), id.kind()), ("20261123T020011Z", "full"));
        }
    }

    #[test]
    fn names_that_could_leave_their_place_are_refused() {
        for text in ["", "-a", "a-", "A", "a/b", "..", "a.b", "a b", &"a".repeat(64)] {
            assert!(
                text.parse::<SourceName>().is_err(),
                "{text:?} was taken for a service name"
            );
        }
    }

    #[test]
    fn ids_of_another_shape_are_refused() {
        for text in [
            "",
            "20261123T020011Z-full",
            "20261123T020011Z-full-k3q7mz2ab1",
            "20261123 020011Z-full-k3q7mz2abc",
        ] {
            assert!(text.parse::<TimedId>().is_err(), "{text:?} was taken for an id");
        }
    }
}
