//! Which of two backups is the newer one, and what its own times are worth.
//!
//! Promise: the clock of the source decides, for it is the one in the log, and where that one stands in the future, the log
//! does: a backup of a machine whose clock was wrong is neither the newest for as long, nor the oldest.
//! Not here: which backups are of one history (engine).

use super::head::{Head, HeadLog};
use crate::STORE_SKEW_MAX;
use backstay_terms::{BackupId, TimedId};
use jiff::{SignedDuration, Timestamp};
use std::borrow::Borrow;

/// Seconds of 2000-01-01 00:00:00 UTC, from which a source's times count.
const EPOCH_2000: i64 = 946_684_800;

impl HeadLog {
    /// The source's clock at the stop; none where it tells nothing, as one that begins at its epoch.
    pub fn stopped(&self) -> Option<Timestamp> {
        if self.stop_time <= 0 {
            return None;
        }
        let epoch = Timestamp::from_second(EPOCH_2000).ok()?;
        epoch
            .checked_add(SignedDuration::from_micros(self.stop_time))
            .ok()
    }
}

impl Head {
    /// How far its name and its times lie ahead of its source's clock; zero where clocks differ by less than
    /// [`STORE_SKEW_MAX`], or by less than the backup took.
    pub fn ahead(&self) -> SignedDuration {
        let stopped = self.log.as_ref().and_then(HeadLog::stopped);
        let ahead = stopped.map(|stopped| self.created.duration_since(stopped));
        ahead
            .filter(|ahead| *ahead > STORE_SKEW_MAX)
            .unwrap_or(SignedDuration::ZERO)
    }

    /// The same of its source's clock or of ours, whichever is more.
    pub fn ahead_of(&self, now: Timestamp) -> SignedDuration {
        let of_ours = self.created.duration_since(now);
        match of_ours > STORE_SKEW_MAX {
            true => of_ours.max(self.ahead()),
            false => self.ahead(),
        }
    }

    /// When it began, by its source's clock as far as its own was ahead.
    pub fn began(&self) -> Timestamp {
        less(self.created, self.ahead())
    }

    /// When all of it was stored, likewise.
    pub fn completed(&self) -> Timestamp {
        less(self.finished, self.ahead())
    }

    /// The id that it would have had then: to be compared with the ids of others.
    pub fn dated(&self) -> BackupId {
        let moment = crate::layout::moment(self.began());
        match self.ahead().is_zero() {
            true => self.backup.clone(),
            false => TimedId::new(&moment, self.backup.kind(), self.backup.suffix())
                .unwrap_or_else(|_| self.backup.clone()),
        }
    }
}

fn less(time: Timestamp, length: SignedDuration) -> Timestamp {
    time.checked_sub(length).unwrap_or(time)
}

/// Sorts backups, the oldest first.
pub fn oldest_first<H: Borrow<Head>>(heads: &mut [H], now: Timestamp) {
    let told: Vec<(HeadLog, Timestamp)> = heads
        .iter()
        .filter_map(|head| {
            let log = head.borrow().log.clone()?;
            let told = believed(&log, now)?;
            Some((log, told))
        })
        .collect();
    heads.sort_by_cached_key(|head| {
        let head = head.borrow();
        let stop = head.log.as_ref().map(|log| log.stop);
        (moment(head, &told, now), stop, head.created, head.backup.clone())
    });
}

fn moment(head: &Head, told: &[(HeadLog, Timestamp)], now: Timestamp) -> Timestamp {
    let Some(log) = head.log.as_ref().filter(|log| log.stopped().is_some()) else {
        return head.created;
    };
    believed(log, now).unwrap_or_else(|| {
        // Not later than what stands behind it in its log.
        let behind = told.iter().filter(|(other, _)| is_behind(other, log));
        behind.map(|(_, told)| *told).min().unwrap_or(now)
    })
}

fn is_behind(other: &HeadLog, log: &HeadLog) -> bool {
    (other.system, other.timeline) == (log.system, log.timeline) && other.stop > log.stop
}

/// The source's clock at the stop, unless it stands in the future.
fn believed(log: &HeadLog, now: Timestamp) -> Option<Timestamp> {
    let stopped = log.stopped()?;
    (stopped.duration_since(now) <= STORE_SKEW_MAX).then_some(stopped)
}

#[cfg(test)]
mod tests;
