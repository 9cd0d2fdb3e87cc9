//! Words for a log and what is stored of it: position, range, branch, lineage; and for who keeps what how long.
//!
//! Promise: the text forms here are the ones in object names: fixed width, lower case, sorting like the values.
//! Not here: the names themselves (backstay-repository::layout).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The kind of system a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// PostgreSQL 13 to 18.
    Postgres,
    /// Redis 6.2 to 8, Valkey.
    Redis,
    /// Qdrant 1.12 and later.
    Qdrant,
}

impl EngineKind {
    /// The word in object names.
    pub fn name(self) -> &'static str {
        match self {
            EngineKind::Postgres => "postgres",
            EngineKind::Redis => "redis",
            EngineKind::Qdrant => "qdrant",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How long a backup is kept, chosen at its birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RetentionClass {
    /// 35 days.
    #[serde(rename = "35d")]
    Days35,
    /// 365 days.
    #[serde(rename = "1y")]
    Year1,
    /// 1096 days.
    #[serde(rename = "3y")]
    Years3,
    /// 2557 days.
    #[serde(rename = "7y")]
    Years7,
}

impl RetentionClass {
    /// Every class, shortest first.
    pub const ALL: [RetentionClass; 4] = [
        RetentionClass::Days35,
        RetentionClass::Year1,
        RetentionClass::Years3,
        RetentionClass::Years7,
    ];

    /// The promise in days.
    pub fn days(self) -> i64 {
        match self {
            RetentionClass::Days35 => 35,
            RetentionClass::Year1 => 365,
            RetentionClass::Years3 => 1096,
            RetentionClass::Years7 => 2557,
        }
    }

    /// The word in object names and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            RetentionClass::Days35 => "35d",
            RetentionClass::Year1 => "1y",
            RetentionClass::Years3 => "3y",
            RetentionClass::Years7 => "7y",
        }
    }
}

impl fmt::Display for RetentionClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for RetentionClass {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = RetentionClass::ALL.into_iter().find(|class| class.name() == text);
        known.ok_or_else(|| format!("{text:?} is not a retention class: expected 35d, 1y, 3y or 7y"))
    }
}

/// A position in a log: an LSN, or a Redis replication offset. Positions of different branches do not compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Sixteen lower-case hexadecimal digits: the form in object names.
    pub fn hex(self) -> String {
        format!("{:016x}", self.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The bytes from `from` up to and without `to`. `from <= to`; equal for a time mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogRange {
    /// The first position.
    pub from: Position,
    /// The position after the last.
    pub to: Position,
}

impl LogRange {
    /// The range, or none if it would end before it begins.
    pub fn new(from: Position, to: Position) -> Option<LogRange> {
        (from <= to).then_some(LogRange { from, to })
    }

    /// How many bytes it spans.
    pub fn length(self) -> u64 {
        self.to.0.saturating_sub(self.from.0)
    }

    /// True for a time mark: no bytes.
    pub fn is_mark(self) -> bool {
        self.from == self.to
    }
}

/// One history of bytes; told apart from another by what was attached and compared, not by the server's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lineage(pub u32);

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl From<Lineage> for String {
    fn from(lineage: Lineage) -> String {
        lineage.to_string()
    }
}

impl TryFrom<String> for Lineage {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Lineage {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        fixed_hex(text, 8)
            .map(|n| Lineage(n as u32))
            .ok_or_else(|| format!("{text:?} is not a lineage: expected 8 hex digits"))
    }
}

/// One branch of a log: the system, its timeline, and the lineage of bytes on it.
/// In names: `<system, 16 hex>/<timeline, 8 hex>.<lineage, 8 hex>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Branch {
    /// PostgreSQL's system identifier; for Redis a number derived from the replication id.
    pub system: u64,
    /// The timeline number.
    pub timeline: u32,
    /// The lineage.
    pub lineage: Lineage,
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}/{:08x}.{}", self.system, self.timeline, self.lineage)
    }
}

impl FromStr for Branch {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("{text:?} is not a branch of a log");
        let (system, rest) = text.split_once('/').ok_or_else(refuse)?;
        let (timeline, lineage) = rest.split_once('.').ok_or_else(refuse)?;
        Ok(Branch {
            system: fixed_hex(system, 16).ok_or_else(refuse)?,
            timeline: fixed_hex(timeline, 8).ok_or_else(refuse)? as u32,
            lineage: lineage.parse()?,
        })
    }
}

/// Reads exactly `digits` lower-case hexadecimal digits.
pub(crate) fn fixed_hex(text: &str, digits: usize) -> Option<u64> {
    let lower_hex = text
        .bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (text.len() == digits && lower_hex)
        .then(|| u64::from_str_radix(text, 16).ok())
        .flatten()
}

impl FromStr for Position {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        fixed_hex(text, 16)
            .map(Position)
            .ok_or_else(|| format!("{text:?} is not a position: expected 16 hex digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn branches_are_read_back(system in any::<u64>(), timeline in any::<u32>(), lineage in any::<u32>()) {
            let branch = Branch { system, timeline, lineage: Lineage(lineage) };
            prop_assert_eq!(branch.to_string().parse::<Branch>(), Ok(branch));
        }

        #[test]
        fn positions_sort_like_their_names(a in any::<u64>(), b in any::<u64>()) {
            prop_assert_eq!(Position(a).cmp(&Position(b)), Position(a).hex().cmp(&Position(b).hex()));
        }
    }

    #[test]
    fn upper_case_and_short_names_are_refused() {
        for text in ["00000000000000AB", "ab", "", "000000000000000g"] {
            assert!(text.parse::<Position>().is_err());
        }
    }
}
