//! What is known about a piece of a log without its bytes: boundaries, times, points, marks.
//!
//! Promise: `LogFacts::join` of adjacent pieces gives the facts of the joined piece; it is associative.
//! A record counts to the piece in which it *ends*; its start may lie in an earlier piece.
//! Times are microseconds since 2000-01-01 00:00:00 UTC on the source's clock (PostgreSQL's TimestampTz).
//! Not here: how the facts are found (backstay-postgres::wal) or stored (backstay-repository).

use crate::Position;
use serde::{Deserialize, Serialize};

/// Where the records of a piece lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordBounds {
    /// How many records end in the piece.
    pub count: u64,
    /// Start of the first record that ends in the piece.
    pub first_start: Position,
    /// What that record names as the start of its predecessor (xl_prev): ties the piece to the one before.
    pub first_previous: Position,
    /// Start of the last record that ends in the piece.
    pub last_start: Position,
    /// The position after the last record's last byte, not aligned.
    pub last_end: Position,
}

/// The commits and aborts of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionBounds {
    /// How many there are.
    pub count: u64,
    /// The smallest time among them; times are not ordered by position.
    pub time_min: i64,
    /// The largest time among them.
    pub time_max: i64,
    /// The smallest transaction id, compared as an unsigned number.
    pub xid_min: u32,
    /// The largest transaction id, compared as an unsigned number.
    pub xid_max: u32,
    /// The start of the last commit or abort.
    pub last_start: Position,
    /// The time of the last commit or abort by position.
    pub last_time: i64,
}

/// What kind of point a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogPointKind {
    /// A named restore point.
    RestorePoint,
    /// The end of a base backup; its checksum identifies the backup's place in this history of bytes.
    BackupEnd,
    /// The first record after a promotion.
    EndOfRecovery,
    /// A tablespace was made in the directory that the point names: replaying the record writes there, wherever the
    /// data directory is.
    Tablespace,
}

/// A record worth finding again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPoint {
    /// Start of the record.
    pub start: Position,
    /// What it is.
    pub kind: LogPointKind,
    /// The name of a restore point, the absolute path of a tablespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its time, where the record carries one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<i64>,
    /// The record's own checksum (xl_crc).
    pub crc: u32,
}

/// The source's clock stood at `time` when everything before `position` had been written and nothing after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogMark {
    /// The end of the log at that moment.
    pub position: Position,
    /// The source's clock.
    pub time: i64,
}

/// Facts about a piece of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFacts {
    /// Its records; none if no record ends in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<RecordBounds>,
    /// Its commits and aborts; none if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transactions: Option<TransactionBounds>,
    /// Its points, by position.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<LogPoint>,
    /// The newest mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<LogMark>,
}

impl LogFacts {
    /// The facts of this piece followed by `next`.
    pub fn join(mut self, next: LogFacts) -> LogFacts {
        self.records = merge(self.records, next.records, RecordBounds::then);
        self.transactions = merge(self.transactions, next.transactions, TransactionBounds::then);
        self.points.extend(next.points);
        self.mark = merge(self.mark, next.mark, Ord::max);
        self
    }
}

fn merge<T>(first: Option<T>, second: Option<T>, join: fn(T, T) -> T) -> Option<T> {
    match (first, second) {
        (Some(first), Some(second)) => Some(join(first, second)),
        (first, second) => first.or(second),
    }
}

impl RecordBounds {
    fn then(self, next: RecordBounds) -> RecordBounds {
        RecordBounds {
            count: self.count + next.count,
            last_start: next.last_start,
            last_end: next.last_end,
            ..self
        }
    }
}

impl TransactionBounds {
    fn then(self, next: TransactionBounds) -> TransactionBounds {
        TransactionBounds {
            count: self.count + next.count,
            time_min: self.time_min.min(next.time_min),
            time_max: self.time_max.max(next.time_max),
            xid_min: self.xid_min.min(next.xid_min),
            xid_max: self.xid_max.max(next.xid_max),
            last_start: next.last_start,
            last_time: next.last_time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: u64, time: i64) -> LogFacts {
        LogFacts {
            records: Some(RecordBounds {
                count: 1,
                first_start: Position(start),
                first_previous: Position(start - 1),
                last_start: Position(start),
                last_end: Position(start + 1),
            }),
            transactions: Some(TransactionBounds {
                count: 1,
                time_min: time,
                time_max: time,
                xid_min: start as u32,
                xid_max: start as u32,
                last_start: Position(start),
                last_time: time,
            }),
            points: vec![],
            mark: Some(LogMark {
                position: Position(start + 1),
                time,
            }),
        }
    }

    #[test]
    fn joining_is_associative_and_keeps_the_bounds() {
        let (a, b, c) = (piece(10, 500), LogFacts::default(), piece(30, 400));
        let left = a.clone().join(b.clone()).join(c.clone());
        let right = a.join(b.join(c));
        assert_eq!(left, right);
        let times = left
            .transactions
            .map(|t| (t.time_min, t.time_max, t.last_time, t.count));
        assert_eq!(times, Some((400, 500, 400, 2)));
        assert_eq!(
            left.records.map(|r| (r.first_start.0, r.last_end.0)),
            Some((10, 31))
        );
    }
}
