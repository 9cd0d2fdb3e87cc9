//! PostgreSQL's own words: timeline, system identifier, WAL segments and their file names.
//!
//! Promise: names and numbers follow access/xlog_internal.h for every segment size from 1 MiB to 1 GiB.
//! Not here: the contents of segments (backstay-postgres::wal).

use crate::Lsn;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A timeline of a cluster; 1 after initdb, a new number after each promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl Timeline {
    /// The name of this timeline's history file, for example `00000002.history`.
    pub fn history_file_name(self) -> String {
        format!("{:08X}.history", self.0)
    }

    /// A history file that only keeps the number from being taken: a promoted server takes the first number whose
    /// history file does not exist (`findNewestTimeLine` looks for the file, not into it). Should a person ever name
    /// the number as the target, the server finds no ancestor in the file and refuses.
    pub fn reserving_history(self) -> String {
        format!("# backstay: timeline {self} is in use elsewhere; its number is not to be taken\n")
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number that initdb gave the cluster; every copy of the cluster has it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemIdentifier(pub u64);

impl fmt::Display for SystemIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Serialize for SystemIdentifier {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SystemIdentifier {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map(SystemIdentifier)
            .map_err(serde::de::Error::custom)
    }
}

/// `server_version_num`: 150020 is 15.20.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServerVersion(pub u32);

impl ServerVersion {
    /// The major version: 15 for 150020.
    pub fn major(self) -> u32 {
        self.0 / 10_000
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.0 % 10_000)
    }
}

/// The size of a WAL segment: a power of two from 1 MiB to 1 GiB, fixed when the cluster is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct WalSegmentSize(u64);

impl WalSegmentSize {
    /// The size that initdb chooses: 16 MiB.
    pub const DEFAULT: WalSegmentSize = WalSegmentSize(16 << 20);

    /// The size if it is one that PostgreSQL allows (IsValidWalSegSize).
    pub fn new(bytes: u64) -> Option<WalSegmentSize> {
        (bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes)).then_some(WalSegmentSize(bytes))
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// The segment that holds the byte at `lsn`.
    pub fn segment_holding(self, lsn: Lsn) -> WalSegmentNumber {
        WalSegmentNumber(lsn.0 / self.0)
    }

    /// The first byte of the segment that holds `lsn`.
    pub fn start_of_segment_holding(self, lsn: Lsn) -> Lsn {
        Lsn(lsn.0 & !(self.0 - 1))
    }

    /// The first byte of `segment`.
    pub fn start_of(self, segment: WalSegmentNumber) -> Lsn {
        Lsn(segment.0.saturating_mul(self.0))
    }

    /// The first byte at or after `lsn` that begins a segment.
    pub fn segment_border_at_or_after(self, lsn: Lsn) -> Lsn {
        let start = self.start_of_segment_holding(lsn);
        if start == lsn { lsn } else { start.plus(self.0) }
    }
}

impl TryFrom<u64> for WalSegmentSize {
    type Error = String;
    fn try_from(bytes: u64) -> Result<Self, String> {
        WalSegmentSize::new(bytes).ok_or_else(|| format!("{bytes} is not a WAL segment size"))
    }
}

impl From<WalSegmentSize> for u64 {
    fn from(size: WalSegmentSize) -> u64 {
        size.0
    }
}

/// The number of a segment, counted from the start of the log (XLogSegNo).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WalSegmentNumber(pub u64);

impl WalSegmentNumber {
    /// The segment after this one.
    pub fn next(self) -> WalSegmentNumber {
        WalSegmentNumber(self.0.saturating_add(1))
    }
}

/// The name of a WAL segment file: timeline and segment number, 24 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalFileName {
    /// The timeline in the name.
    pub timeline: Timeline,
    high: u32,
    low: u32,
}

impl WalFileName {
    /// The name of `segment` on `timeline` (XLogFileName).
    pub fn new(timeline: Timeline, segment: WalSegmentNumber, size: WalSegmentSize) -> WalFileName {
        let per_id = 0x1_0000_0000 / size.bytes();
        WalFileName {
            timeline,
            high: (segment.0 / per_id) as u32,
            low: (segment.0 % per_id) as u32,
        }
    }

    /// The segment that the name stands for, or none if no segment of that size has this name.
    pub fn segment(self, size: WalSegmentSize) -> Option<WalSegmentNumber> {
        let per_id = 0x1_0000_0000 / size.bytes();
        let low = u64::from(self.low);
        (low < per_id).then(|| WalSegmentNumber(u64::from(self.high) * per_id + low))
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.0, self.high, self.low)
    }
}

impl FromStr for WalFileName {
    type Err = String;

    fn from_str(text: &str) -> Result<WalFileName, String> {
        let refuse = || format!("{text:?} is not the name of a WAL segment");
        if text.len() != 24
            || !text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
        {
            return Err(refuse());
        }
        let part = |from: usize| {
            let digits = text.get(from..from + 8).unwrap_or_default();
            u32::from_str_radix(digits, 16).map_err(|_| refuse())
        };
        Ok(WalFileName {
            timeline: Timeline(part(0)?),
            high: part(8)?,
            low: part(16)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn file_names_are_read_back_at_every_segment_size(
            power in 20u32..=30, timeline in 1u32.., lsn in any::<u64>(),
        ) {
            let size = WalSegmentSize::new(1 << power).unwrap();
            let segment = size.segment_holding(Lsn(lsn));
            let name = WalFileName::new(Timeline(timeline), segment, size);
            let read: WalFileName = name.to_string().parse().unwrap();
            prop_assert_eq!(read, name);
            prop_assert_eq!(read.segment(size), Some(segment));
        }
    }

    #[test]
    fn a_known_segment_has_its_known_name() {
        let size = WalSegmentSize::DEFAULT;
        let name = WalFileName::new(
            Timeline(7),
            size.segment_holding("3/A1000028".parse().unwrap()),
            size,
        );
        assert_eq!(name.to_string(), "0000000700000003000000A1");
        assert_eq!(
            size.start_of_segment_holding("3/A1000028".parse().unwrap())
                .to_string(),
            "3/A1000000"
        );
    }

    #[test]
    fn sizes_that_postgresql_refuses_are_refused() {
        for bytes in [0, 1 << 19, (1 << 24) + 1, 3 << 20, 1 << 31] {
            assert_eq!(WalSegmentSize::new(bytes), None);
        }
    }
}
