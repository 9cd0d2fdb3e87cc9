//! The facts of a piece of log, gathered from the records that end in it.
//!
//! Promise: the facts of adjacent pieces, joined, are the facts of the joined piece.
//! Not here: marks (replication::feed), which no record carries.

use super::record::{Meaning, Record};
use backstay_terms::{LogFacts, LogPoint, LogPointKind, RecordBounds, TransactionBounds};

/// Collects the records of one piece.
#[derive(Debug, Default)]
pub struct FactsOfPiece {
    facts: LogFacts,
}

impl FactsOfPiece {
    /// Adds a record that ends in the piece, in order.
    pub fn add(&mut self, record: &Record) {
        match &mut self.facts.records {
            Some(bounds) => {
                bounds.count += 1;
                bounds.last_start = record.start.into();
                bounds.last_end = record.end.into();
            }
            none => *none = Some(bounds_of(record)),
        }
        if let Meaning::TransactionEnd { time, xid, .. } = record.meaning {
            let ended = transaction_of(record, time, xid);
            let joined = LogFacts {
                transactions: self.facts.transactions,
                ..LogFacts::default()
            }
            .join(LogFacts {
                transactions: Some(ended),
                ..LogFacts::default()
            });
            self.facts.transactions = joined.transactions;
        }
        self.facts.points.extend(point_of(record));
    }

    /// The facts so far; the next piece begins.
    pub fn take(&mut self) -> LogFacts {
        std::mem::take(&mut self.facts)
    }
}

fn bounds_of(record: &Record) -> RecordBounds {
    RecordBounds {
        count: 1,
        first_start: record.start.into(),
        first_previous: record.previous.into(),
        last_start: record.start.into(),
        last_end: record.end.into(),
    }
}

fn transaction_of(record: &Record, time: i64, xid: u32) -> TransactionBounds {
    TransactionBounds {
        count: 1,
        time_min: time,
        time_max: time,
        xid_min: xid,
        xid_max: xid,
        last_start: record.start.into(),
        last_time: time,
    }
}

fn point_of(record: &Record) -> Option<LogPoint> {
    let (kind, name, time) = match &record.meaning {
        Meaning::RestorePoint { time, name } => (LogPointKind::RestorePoint, Some(name.clone()), Some(*time)),
        Meaning::BackupEnd { .. } => (LogPointKind::BackupEnd, None, None),
        Meaning::TablespaceMade { location } if !location.is_empty() => {
            (LogPointKind::Tablespace, Some(location.clone()), None)
        }
        Meaning::EndOfRecovery { time, .. } => (LogPointKind::EndOfRecovery, None, Some(*time)),
        // A recovery that reached its target on its own ends with a checkpoint instead of that record.
        Meaning::Checkpoint {
            timeline, previous, ..
        } if timeline != previous => (LogPointKind::EndOfRecovery, None, None),
        _ => return None,
    };
    Some(LogPoint {
        start: record.start.into(),
        kind,
        name,
        time,
        crc: record.crc,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::wal::forge::{Forge, MIB};
    use crate::wal::walker::Walker;
    use backstay_terms::{Lsn, Position};
    use proptest::prelude::*;

    fn log() -> Forge {
        let mut log = Forge::new(Lsn(MIB));
        log.filler(5000);
        log.commit(900, 50);
        log.restore_point("a", 60);
        log.filler(9000);
        log.abort(890, 40);
        log.backup_end(Lsn(MIB));
        log.tablespace(16_400, "/srv/fast disk");
        log.tablespace(16_401, "");
        log.shutdown_checkpoint(1, 1);
        log.end_of_recovery(70, 2, 1);
        log.shutdown_checkpoint(3, 2);
        log
    }

    fn facts(parts: &[&[u8]]) -> Vec<LogFacts> {
        let (mut walker, mut piece) = (Walker::new(log().identity, Lsn(MIB)), FactsOfPiece::default());
        let mut of_part = |part: &&[u8]| {
            walker.feed(part, &mut |record| piece.add(&record)).unwrap();
            piece.take()
        };
        parts.iter().map(&mut of_part).collect()
    }

    #[test]
    fn bounds_times_and_points_are_collected() {
        let log = log();
        let facts = facts(&[&log.bytes]).remove(0);
        let records = facts.records.unwrap();
        assert_eq!((records.count, records.first_start), (11, Position(MIB + 40)));
        assert_eq!(
            (records.last_start.0, records.last_end.0),
            (log.previous.0, log.at().0)
        );
        let ended = facts.transactions.unwrap();
        assert_eq!(
            (ended.count, ended.time_min, ended.time_max, ended.last_time),
            (2, 40, 50, 40)
        );
        assert_eq!(
            (ended.xid_min, ended.xid_max, ended.last_start.0),
            (890, 900, log.starts[4].0)
        );
        let points: Vec<_> = facts
            .points
            .iter()
            .map(|p| (p.kind, p.name.as_deref(), p.time, p.start.0))
            .collect();
        use LogPointKind::{BackupEnd, EndOfRecovery, RestorePoint, Tablespace};
        assert_eq!(
            points,
            [
                (RestorePoint, Some("a"), Some(60), log.starts[2].0),
                (BackupEnd, None, None, log.starts[5].0),
                (Tablespace, Some("/srv/fast disk"), None, log.starts[6].0),
                (EndOfRecovery, None, Some(70), log.starts[9].0),
                (EndOfRecovery, None, None, log.starts[10].0),
            ]
        );
    }

    proptest! {
        #[test]
        fn the_facts_of_pieces_join_to_the_facts_of_the_whole(cuts in prop::collection::vec(0usize..16_000, 0..6)) {
            let bytes = log().bytes;
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let joined = facts(&parts).into_iter().reduce(LogFacts::join);
            prop_assert_eq!(joined.unwrap(), facts(&[&bytes]).remove(0));
        }
    }
}
