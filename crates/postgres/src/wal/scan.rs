//! The port `LogFormat`: finding a record in bytes of which only system, timeline and segment size are known.
//!
//! Promise: the version is read from the first page, everything else is checked as the walker checks it.
//! Not here: what it means that nothing was found (engine).

use super::page::{WalDamage, WalIdentity};
use super::record::{Ended, Meaning, Record};
use super::versions::VersionFacts;
use super::walker::Walker;
use crate::timeline::Ancestry;
use backstay_source::{Hit, LogFormat, LogScanner, Outcome, ScanOrder, SourceError, SourceErrorKind, Wanted};
use backstay_terms::{Lsn, SystemIdentifier, Timeline, WalSegmentSize};

/// By how much times must fall back before the clock counts as having stepped: microseconds.
/// Less than that is the ordinary disorder of transactions that end at the same moment.
const CLOCK_STEP_MIN: i64 = 1_000_000;

/// PostgreSQL's log.
#[derive(Clone, Copy, Debug, Default)]
pub struct PostgresLog;

impl LogFormat for PostgresLog {
    fn scan(&self, order: ScanOrder) -> Result<Box<dyn LogScanner>, SourceError> {
        let Some(segment_size) = WalSegmentSize::new(order.segment_size) else {
            return Err(protocol(format!(
                "{} is not a WAL segment size",
                order.segment_size
            )));
        };
        if segment_size.start_of_segment_holding(order.begins.into()) != Lsn::from(order.begins) {
            return Err(protocol(format!(
                "{} is not the start of a segment",
                Lsn::from(order.begins)
            )));
        }
        Ok(Box::new(Scan {
            order,
            segment_size,
            magic: Vec::new(),
            walker: None,
            time_highest: i64::MIN,
            found: None,
        }))
    }
}

struct Scan {
    order: ScanOrder,
    segment_size: WalSegmentSize,
    // The first bytes, until the version is known.
    magic: Vec<u8>,
    walker: Option<Walker>,
    // Of the ends of transactions that were walked since `from`.
    time_highest: i64,
    found: Option<Hit>,
}

impl LogScanner for Scan {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        if self.walker.is_some() {
            return self.walk(bytes);
        }
        self.magic.extend_from_slice(bytes);
        let Some(magic) = self.magic.first_chunk::<2>() else {
            return Ok(());
        };
        let magic = u16::from_le_bytes(*magic);
        let unknown = || {
            protocol(format!(
                "page magic {magic:04X} is of no PostgreSQL from 13 to 18"
            ))
        };
        let version = VersionFacts::of_page_magic(magic).ok_or_else(unknown)?;
        self.walker = Some(Walker::new(self.identity(version), self.order.begins.into()));
        let first = std::mem::take(&mut self.magic);
        self.walk(&first)
    }

    fn found(&self) -> Option<Hit> {
        self.found
    }
}

impl Scan {
    fn identity(&self, version: &'static VersionFacts) -> WalIdentity {
        WalIdentity {
            version,
            system: SystemIdentifier(self.order.system),
            segment_size: self.segment_size,
            ancestry: Ancestry::without_history(Timeline(self.order.timeline)),
        }
    }

    fn walk(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        let Scan {
            order,
            walker,
            time_highest,
            found,
            ..
        } = self;
        let Some(walker) = walker else { return Ok(()) };
        let looked_at = walker.feed(bytes, &mut |record| {
            if record.start < Lsn::from(order.from) {
                return;
            }
            let moves_on = order.wanted == Wanted::LastComplete;
            if (found.is_none() || moves_on) && answers(&order.wanted, &record, *time_highest) {
                *found = Some(hit(&record));
            }
            if let Meaning::TransactionEnd { time, .. } = record.meaning {
                *time_highest = time.max(*time_highest);
            }
        });
        looked_at.map_err(SourceError::from)
    }
}

/// Whether a record is the wanted one, after ends of transactions of which the latest was at `time_highest`.
fn answers(wanted: &Wanted, record: &Record, time_highest: i64) -> bool {
    match (wanted, &record.meaning) {
        (Wanted::LastComplete, _) => true,
        (Wanted::RecordAt(position), _) => record.start >= Lsn::from(*position),
        (Wanted::TransactionAfter(target), Meaning::TransactionEnd { time, .. }) => time > target,
        (Wanted::SteppedBackTo(target), Meaning::TransactionEnd { time, .. }) => {
            time <= target && time_highest > *target && time_highest.saturating_sub(*time) > CLOCK_STEP_MIN
        }
        (Wanted::Transaction(wanted), Meaning::TransactionEnd { xid, .. }) => xid == wanted,
        (
            Wanted::Subtransaction(wanted),
            Meaning::TransactionEnd {
                subtransactions: parts,
                ..
            },
        ) => parts.contains(wanted),
        (Wanted::RestorePoint(wanted), Meaning::RestorePoint { name, .. }) => name == wanted,
        _ => false,
    }
}

fn hit(record: &Record) -> Hit {
    let time = match record.meaning {
        Meaning::TransactionEnd { time, .. }
        | Meaning::RestorePoint { time, .. }
        | Meaning::EndOfRecovery { time, .. } => Some(time),
        _ => None,
    };
    let (outcome, transaction) = match record.meaning {
        Meaning::TransactionEnd { ended, xid, .. } => (Some(outcome(ended)), Some(xid)),
        _ => (None, None),
    };
    Hit {
        start: record.start.into(),
        end: record.end.into(),
        time,
        outcome,
        transaction,
    }
}

fn outcome(ended: Ended) -> Outcome {
    match ended {
        Ended::Committed | Ended::CommittedPrepared => Outcome::Committed,
        Ended::Aborted | Ended::AbortedPrepared => Outcome::Aborted,
    }
}

fn protocol(what: String) -> SourceError {
    SourceError::new(
        SourceErrorKind::Protocol,
        what,
        "report this: the log was read at the wrong place",
    )
}

impl From<WalDamage> for SourceError {
    fn from(damage: WalDamage) -> SourceError {
        SourceError::new(SourceErrorKind::Damaged, damage.to_string(), damage.advice())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::wal::forge::{Forge, MIB};
    use backstay_terms::Position;

    fn log() -> Forge {
        let mut log = Forge::new(Lsn(MIB));
        log.commit(10, 100);
        log.restore_point("a", 150);
        log.commit_with_parts(11, 200, &[12, 14]);
        log.filler(9000);
        log
    }

    fn order(wanted: Wanted) -> ScanOrder {
        let log = log();
        ScanOrder {
            system: log.identity.system.0,
            timeline: 1,
            segment_size: MIB,
            begins: Position(MIB),
            from: Position(MIB),
            wanted,
        }
    }

    fn scanned(order: ScanOrder) -> Option<(u64, Option<i64>)> {
        let mut scan = PostgresLog.scan(order).unwrap();
        for part in log().bytes.chunks(1) {
            scan.feed(part).unwrap();
        }
        scan.found().map(|hit| (hit.start.0, hit.time))
    }

    #[test]
    fn each_wanted_record_is_found() {
        let starts: Vec<u64> = log().starts.iter().map(|start| start.0).collect();
        let found = |wanted| scanned(order(wanted));
        assert_eq!(found(Wanted::TransactionAfter(100)), Some((starts[2], Some(200))));
        assert_eq!(found(Wanted::TransactionAfter(200)), None);
        assert_eq!(found(Wanted::Transaction(10)), Some((starts[0], Some(100))));
        assert_eq!(found(Wanted::Subtransaction(14)), Some((starts[2], Some(200))));
        assert_eq!(found(Wanted::Subtransaction(13)), None);
        assert_eq!(
            found(Wanted::RestorePoint("a".into())),
            Some((starts[1], Some(150)))
        );
        assert_eq!(
            found(Wanted::RecordAt(Position(starts[0] + 1))),
            Some((starts[1], Some(150)))
        );
        assert_eq!(found(Wanted::SteppedBackTo(150)), None);
        assert_eq!(found(Wanted::LastComplete), Some((starts[3], None)));
        let late = ScanOrder {
            from: Position(starts[1]),
            ..order(Wanted::Transaction(10))
        };
        assert_eq!(scanned(late), None);
    }

    #[test]
    fn other_bytes_and_other_places_are_refused() {
        let mut scan = PostgresLog.scan(order(Wanted::LastComplete)).unwrap();
        assert_eq!(
            scan.feed(&[0; 40]).unwrap_err().what,
            "page magic 0000 is of no PostgreSQL from 13 to 18"
        );
        let inside = ScanOrder {
            begins: Position(MIB + 8192),
            ..order(Wanted::LastComplete)
        };
        let refused = PostgresLog.scan(inside).map(|_| ()).unwrap_err();
        assert_eq!(refused.what, "0/102000 is not the start of a segment");
        let other = ScanOrder {
            system: 1,
            ..order(Wanted::LastComplete)
        };
        let refused = PostgresLog.scan(other).unwrap().feed(&log().bytes).unwrap_err();
        assert_eq!(refused.kind, SourceErrorKind::Damaged);
    }

    #[test]
    fn a_clock_that_stepped_back_to_a_time_is_found_and_the_disorder_of_neighbours_is_not() {
        const SECOND: i64 = 1_000_000;
        let at = |times: &[i64], target: i64, from: usize| {
            let mut log = Forge::new(Lsn(MIB));
            for (xid, time) in (10..).zip(times) {
                log.commit(xid, *time);
            }
            let starts: Vec<u64> = log.starts.iter().map(|start| start.0).collect();
            let mut scan = PostgresLog
                .scan(ScanOrder {
                    from: Position(starts[from]),
                    ..order(Wanted::SteppedBackTo(target))
                })
                .unwrap();
            scan.feed(&log.bytes).unwrap();
            let hit = scan.found()?;
            starts.iter().position(|start| *start == hit.start.0)
        };
        let hour = 3600 * SECOND;
        let stepped = [0, hour, 2 * hour, 10 * SECOND, 20 * SECOND];
        assert_eq!(at(&stepped, 15 * SECOND, 1), Some(3));
        // Closely: what the clock fell by counts, not how far below the target it fell.
        assert_eq!(at(&stepped, 10 * SECOND, 1), Some(3));
        assert_eq!(at(&stepped, 10 * SECOND - 1, 1), None);
        // Nothing later came before.
        assert_eq!(at(&stepped, 2 * hour, 1), None);
        assert_eq!(at(&stepped, 15 * SECOND, 3), None);
        let disorder = [0, 5 * SECOND, 4 * SECOND + 1, 6 * SECOND];
        assert_eq!(at(&disorder, 4 * SECOND + 500_000, 1), None);
        assert_eq!(at(&[0, 5 * SECOND, 4 * SECOND - 1], 4 * SECOND, 1), Some(2));
    }
}
