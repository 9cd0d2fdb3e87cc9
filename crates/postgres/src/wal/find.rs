//! Finds the record at which a recovery must stop, by reading the log.
//!
//! Promise: what is found is what PostgreSQL itself would stop at, given as a record start, which is what the server
//! compares (`recovery_target_lsn`). A time stops before the first transaction end, in the order of the log, that is
//! later (xlogrecovery.c, recoveryStopsBefore: aborts and prepared transactions count, restore points do not).
//! Not here: choosing the base (engine), and what it means that nothing was found.

use super::page::{WalDamage, WalIdentity};
use super::record::{Meaning, Record};
use super::walker::{LastRecord, Walker};
use backstay_source::RecoveryStop;
use backstay_terms::{Lsn, RecoveryTarget};

/// By how much times must fall back before the clock counts as having stepped: microseconds.
/// Less than that is the ordinary disorder of transactions that end at the same moment.
pub const CLOCK_STEP_MIN: i64 = 1_000_000;
/// How many further candidates are named.
pub const RIVALS_MAX: usize = 16;

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Where to stop; none if the log does not reach the target.
    pub stop: Option<RecoveryStop>,
    /// Further records that answer to the same target, at most `RIVALS_MAX`: later restore points of the name, later ends
    /// of the transaction id, or, after a clock that stepped back, later places where the time was passed again.
    pub rivals: Vec<Lsn>,
    /// For a time: the log ends with the clock stepped back before the target, so that its end is a candidate too.
    pub stepped_back_at_end: Option<Lsn>,
    /// The last complete record that was read.
    pub last: Option<LastRecord>,
    /// The last transaction end before the stop, with its time.
    pub kept: Option<(Lsn, i64)>,
}

/// The log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FindError<E> {
    /// It is damaged.
    #[error(transparent)]
    Damage(#[from] WalDamage),
    /// Its bytes could not be had.
    #[error("{0}")]
    Bytes(E),
}

/// A search, fed with records.
#[derive(Debug)]
pub struct Search {
    target: RecoveryTarget,
    from: Lsn,
    found: Found,
    time_highest: i64,
    // The start of the transaction end at which times fell back, while they have not passed the target again.
    fallen: Option<Lsn>,
}

impl Search {
    /// A search for `target` among the records that start at `from` or later.
    /// `Immediate` is no matter of records; it finds nothing.
    pub fn new(target: RecoveryTarget, from: Lsn) -> Search {
        Search {
            target,
            from,
            found: Found::default(),
            time_highest: i64::MIN,
            fallen: None,
        }
    }

    /// Looks at the next record.
    pub fn see(&mut self, record: &Record) {
        if record.start >= self.from {
            self.consider(record);
        }
        self.found.last = Some(LastRecord {
            start: record.start,
            end: record.end,
        });
    }

    fn consider(&mut self, record: &Record) {
        match (&self.target, &record.meaning) {
            (RecoveryTarget::Latest, _) => self.found.stop = Some(after(record)),
            (RecoveryTarget::Lsn(target), _) if record.start <= *target && *target < record_reach(record) => {
                self.found.stop = Some(after(record));
            }
            // The target lies between this record and the one before, in padding or a page header.
            (RecoveryTarget::Lsn(target), _) if *target < record.start && self.found.stop.is_none() => {
                let before = self
                    .found
                    .last
                    .filter(|last| last.start >= self.from && last.start <= *target);
                self.found.stop = before.map(|last| RecoveryStop::After(last.start.into()));
            }
            (RecoveryTarget::Transaction(wanted), Meaning::TransactionEnd { xid, .. }) if xid == wanted => {
                self.hit(after(record), record.start);
            }
            (RecoveryTarget::Name(wanted), Meaning::RestorePoint { name, .. }) if name == wanted => {
                self.hit(after(record), record.start);
            }
            (RecoveryTarget::Time(target), Meaning::TransactionEnd { time, .. }) => {
                self.consider_time(record.start, *time, *target);
            }
            _ => {}
        }
        if let (Meaning::TransactionEnd { time, .. }, None) = (&record.meaning, &self.found.stop) {
            self.found.kept = Some((record.start, *time));
        }
    }

    fn consider_time(&mut self, start: Lsn, time: i64, target: i64) {
        let stepped = self.time_highest.saturating_sub(time) > CLOCK_STEP_MIN;
        self.time_highest = self.time_highest.max(time);
        if time > target {
            if self.found.stop.is_none() {
                self.found.stop = Some(RecoveryStop::Before(start.into()));
            } else if self.fallen.take().is_some() {
                self.rival(start);
            }
        } else if self.found.stop.is_some() && stepped {
            self.fallen.get_or_insert(start);
        }
    }

    fn hit(&mut self, stop: RecoveryStop, start: Lsn) {
        match self.found.stop {
            None => self.found.stop = Some(stop),
            Some(_) => self.rival(start),
        }
    }

    fn rival(&mut self, start: Lsn) {
        if self.found.rivals.len() < RIVALS_MAX {
            self.found.rivals.push(start);
        }
    }

    /// What was found.
    pub fn finish(mut self) -> Found {
        self.found.stepped_back_at_end = self.fallen;
        self.found
    }
}

fn after(record: &Record) -> RecoveryStop {
    RecoveryStop::After(record.start.into())
}

// The record answers for the padding that aligns its successor.
fn record_reach(record: &Record) -> Lsn {
    Lsn(record.end.0.checked_next_multiple_of(8).unwrap_or(record.end.0))
}

/// Searches the bytes from `begins` (a page start) on for `target` among the records that start at `from` or later.
/// The bytes may stop anywhere; what is incomplete there does not count.
pub fn find<B: AsRef<[u8]>, E>(
    identity: WalIdentity,
    target: RecoveryTarget,
    from: Lsn,
    begins: Lsn,
    bytes: impl IntoIterator<Item = Result<B, E>>,
) -> Result<Found, FindError<E>> {
    let mut walker = Walker::new(identity, begins);
    let mut search = Search::new(target, from);
    for part in bytes {
        let part = part.map_err(FindError::Bytes)?;
        walker.feed(part.as_ref(), &mut |record| search.see(&record))?;
    }
    Ok(search.finish())
}

#[cfg(test)]
mod tests;
