//! `Lsn`: a position in a PostgreSQL write-ahead log.
//!
//! Promise: text form is PostgreSQL's (`16/B374D848`, hexadecimal halves without leading zeros).
//! Not here: which segment holds it (postgres.rs), what the bytes there mean (backstay-postgres).

use crate::Position;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A log sequence number: the offset of a byte in the write-ahead log of a cluster.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The value that PostgreSQL uses for "none" (InvalidXLogRecPtr, xlogdefs.h).
    pub const INVALID: Lsn = Lsn(0);

    /// The position `count` bytes later; saturates at the end of the space.
    pub fn plus(self, count: u64) -> Lsn {
        Lsn(self.0.saturating_add(count))
    }
}

impl From<Position> for Lsn {
    fn from(position: Position) -> Lsn {
        Lsn(position.0)
    }
}

impl From<Lsn> for Position {
    fn from(lsn: Lsn) -> Position {
        Position(lsn.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an LSN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an LSN: expected two hexadecimal numbers like 16/B374D848")]
pub struct LsnParseError {
    /// What was given.
    pub text: String,
}

impl FromStr for Lsn {
    type Err = LsnParseError;

    fn from_str(text: &str) -> Result<Lsn, LsnParseError> {
        let refuse = || LsnParseError {
            text: text.to_owned(),
        };
        let half = |part: &str| -> Option<u64> {
            let digits = (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u64::from_str_radix(part, 16).ok()).flatten()
        };
        let (high, low) = text.split_once('/').ok_or_else(refuse)?;
        let high = half(high).ok_or_else(refuse)?;
        let low = half(low).ok_or_else(refuse)?;
        Ok(Lsn(high << 32 | low))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Lsn, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(raw in any::<u64>()) {
            prop_assert_eq!(Lsn(raw).to_string().parse::<Lsn>(), Ok(Lsn(raw)));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "/",
            "1",
            "1/",
            "/1",
            "1/123456789",
            "g/0",
            "+1/0",
            "1/2/3",
            " 1/2",
        ] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?} was taken for an LSN");
        }
    }
}
