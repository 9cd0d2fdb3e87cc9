//! Hears what jobs do: progress to the person who waits, the rest to the log.
//!
//! Promise: never fails, never blocks a job for longer than drawing one line.

use crate::render::progress::{Progress, Step};
use backstay_engine::{Fact, Observer};
use backstay_repository::{KeysFate, KeysGone};
use backstay_source::{Kept, Phase};
use backstay_terms::{Branch, ByteCount, Lsn, Position, SourceName};
use std::sync::{Mutex, PoisonError};
use tracing::{debug, error, info, warn};

/// Shows progress and logs facts.
#[derive(Debug)]
pub struct Watch {
    progress: Mutex<Progress>,
}

impl Watch {
    /// Shows on `progress`.
    pub fn new(progress: Progress) -> Watch {
        Watch {
            progress: Mutex::new(progress),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .finish();
    }

    fn step(&self, phase: &str, done: u64, total: Option<u64>) {
        let step = Step {
            phase: phase.to_owned(),
            done: ByteCount(done),
            total: total.map(ByteCount),
        };
        self.progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .step(&step);
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::WaitingForCheckpoint => "checkpoint",
        Phase::Copying => "copy",
        Phase::CollectingLog => "log",
        Phase::Checking => "compare",
    }
}

fn lineages_contested(source: &SourceName, rivals: &[Branch]) {
    let rivals: Vec<String> = rivals.iter().map(ToString::to_string).collect();
    let rivals = rivals.join(", ");
    error!(%source, rivals, "more than one history of bytes is stored, and nobody has said which one counts; run backstay lineage list, then backstay lineage adopt");
}

fn log_lost(from: Position, to: Position, by: Option<&str>) {
    let (from, to) = (Lsn::from(from), Lsn::from(to));
    let by = by.unwrap_or("this stream");
    error!(%from, %to, by, "stored log is gone from the repository; take a new backup now, and find out why");
}

fn kept_words(kept: Option<&Kept>) -> String {
    match kept {
        Some(Kept {
            name,
            bytes: Some(bytes),
        }) => format!("the server keeps {bytes} of WAL in the slot {name}"),
        Some(Kept { name, bytes: None }) => format!("the server keeps the WAL in the slot {name}"),
        None => "the server keeps its WAL in the slot of this service".to_owned(),
    }
}

fn keys_gone(gone: &KeysGone) {
    let KeysGone { epoch, ranges, fate } = gone;
    match fate {
        KeysFate::PutBack => {
            error!(%epoch, ranges, "the wraps of this epoch's keys were gone from the repository and are stored again; find out why");
        }
        KeysFate::Lost => {
            error!(%epoch, ranges, "no wrap of this epoch's keys is left that opens: its log is lost unless a copy of the repository has one; take a new backup now, run backstay verify");
        }
    }
}

impl Observer for Watch {
    fn observe(&self, fact: &Fact) {
        match fact {
            Fact::BaseProgress(progress) => {
                self.step(phase(progress.phase), progress.done, progress.estimate)
            }
            Fact::RestoreProgress { done, total } => self.step("restore", *done, Some(*total)),
            Fact::RestoreStep { step } => debug!(step, "restore goes on"),
            Fact::RestoreNotRecorded { consequence, error } => {
                warn!(
                    error,
                    "this restore is not recorded in the repository: {consequence}"
                );
            }
            Fact::BackupCommitted { backup, stored } => info!(%backup, bytes = stored.0, "backup committed"),
            Fact::StreamAttached { branch, from, reason } => {
                info!(%branch, lsn = %Lsn::from(*from), reason, "stream attached");
            }
            Fact::SlotTakenOver { slot } => {
                warn!(
                    slot,
                    "this replication slot was there already, and nothing is stored here of this system: if the slot serves \
                     another repository, the log of that one gets a gap; then stop this stream and give the service a slot \
                     of its own: slot: NAME in the configuration"
                );
            }
            Fact::LineageBegan { branch, reason } => {
                error!(%branch, reason, "another history of bytes began; take a new backup, and find out why");
            }
            Fact::LineagesContested { source, rivals } => {
                lineages_contested(source, rivals);
            }
            Fact::LogShared { branch } => {
                info!(%branch, "another stream stores the same log of the same server here");
            }
            Fact::LogDurable { position } => debug!(lsn = %Lsn::from(*position), "log durable"),
            Fact::RangeStored { level, from, to } => {
                debug!(level, from = %Lsn::from(*from), to = %Lsn::from(*to), "range stored");
            }
            Fact::LogGap { what } => error!(what, "the log has a gap; take a new backup now"),
            Fact::LogDamaged { from, to, what } => {
                let (from, to) = (Lsn::from(*from), Lsn::from(*to));
                error!(%from, %to, what, "stored log is damaged and stays unsettled; run backstay verify, take a new backup");
            }
            Fact::Settled { bytes } => info!(bytes = bytes.0, "live ranges settled"),
            Fact::Expired { object, bytes } => info!(object, bytes = bytes.0, "expired"),
            Fact::LogLost { from, to, by } => {
                log_lost(*from, *to, by.as_deref());
            }
            Fact::LogStoredAgain { from, to, by } => {
                let (from, to) = (Lsn::from(*from), Lsn::from(*to));
                warn!(
                    %from, %to, by,
                    "stored log was damaged or gone in the repository; the server still had it, and it is stored again; find out why"
                );
            }
            Fact::KeysGone(gone) => keys_gone(gone),
            Fact::MonthKeyGone { month } => {
                error!(
                    month,
                    "the wraps of the key of this month's records were gone from the repository and are stored again; find out why"
                );
            }
            Fact::Retrying { error, after_ms } => warn!(error, after_ms, "will be tried again"),
            Fact::Outage {
                error,
                advice,
                lasts_ms,
                stored,
                kept,
            } => {
                let since = stored.map_or_else(|| "this stream began".to_owned(), crate::time::to_the_second);
                let kept = kept_words(kept.as_ref());
                error!(
                    since,
                    error,
                    advice,
                    kept,
                    lasts_ms,
                    "no log has been stored for a while; the stream goes on trying"
                );
            }
            Fact::OutageOver { lasted_ms } => info!(lasted_ms, "log is stored again"),
            Fact::StoppedUnstored {
                stored,
                received,
                kept,
            } => {
                let (stored, received) = (Lsn::from(*stored), Lsn::from(*received));
                let kept = kept_words(kept.as_ref());
                error!(
                    %stored, %received, kept,
                    "the stream was stopped before everything received was stored: what lies before `stored` is safe and confirmed, \
                     nothing after it was confirmed"
                );
            }
        }
    }
}
