//! Checks one branch of a log: names, range indexes and seams, bytes and overlaps.
//!
//! Promise: whatever is stored twice is compared byte by byte (LOG-2); each position is handed on once, in order, to
//! whoever can read the records. What is held are the ranges that overlap at one position.
//! Not here: records and their checksums (an adapter's `LogFormat`).

use super::{CheckFinding, Invariant, keep};
use crate::expire::moment_of;
use crate::layout::Level;
use crate::log::{AgedRange, BranchObjects, SPAN_MAX, missing, stretches};
use crate::{LogStore, RepositoryError};
use backstay_terms::{Branch, LogFacts, LogRange, Position};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;

/// Log that only live ranges hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unsettled {
    /// Of which branch.
    pub branch: Branch,
    /// Which positions.
    pub range: LogRange,
    /// When the oldest of these ranges was stored.
    pub since: Timestamp,
    /// When a bucket's own rule would remove it.
    pub lost_at: Timestamp,
}

/// What was read of the indexes of a branch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LogIndexes {
    /// Range indexes opened.
    pub opened: u64,
    /// Seams compared.
    pub seams: u64,
}

/// A check of one branch.
#[derive(Debug)]
pub struct LogCheck<'a> {
    log: &'a LogStore,
    pub(super) objects: &'a BranchObjects,
}

impl<'a> LogCheck<'a> {
    /// A check of what is listed of a branch.
    pub fn new(log: &'a LogStore, objects: &'a BranchObjects) -> LogCheck<'a> {
        LogCheck { log, objects }
    }

    /// Names that contradict the format: too long, across a border of the log's files, marks that are not live; and objects
    /// that are too small for what their names say, unless a later epoch stored the same positions again.
    pub fn names(&self, file_size: Option<u64>) -> Vec<CheckFinding> {
        let mut findings = Vec::new();
        for cut in self.objects.cut.iter().filter(|cut| !self.is_stored_again(cut)) {
            let LogRange { from, to } = cut.stored.name.range;
            let what = format!(
                "it has {} bytes, and no range is so small: what it held from {from} to {to} counts as not stored",
                cut.object.size
            );
            let next = "bring it back from a copy of the repository, or remove it and take a new backup";
            findings.push(CheckFinding::new(&cut.object.name, Invariant::Repo3, what).then(next.to_owned()));
        }
        for range in &self.objects.ranges {
            let LogRange { from, to } = range.stored.name.range;
            let mut wrong = |invariant, what: &str| {
                findings.push(CheckFinding::new(&range.object.name, invariant, what));
            };
            if to.0 - from.0 > SPAN_MAX {
                wrong(Invariant::Log2, "it spans more than 256 MiB of positions");
            }
            if from == to && range.stored.level != Level::Live {
                wrong(Invariant::Log3, "a time mark lies outside of the live level");
            }
            if file_size.is_some_and(|size| size > 0 && from < to && from.0 / size != (to.0 - 1) / size) {
                wrong(Invariant::Log2, "it crosses a border of the log's files");
            }
        }
        findings
    }

    fn is_stored_again(&self, cut: &AgedRange) -> bool {
        let name = &cut.stored.name;
        let later = self
            .objects
            .ranges
            .iter()
            .map(|range| &range.stored.name)
            .filter(|other| other.epoch != name.epoch && moment_of(&other.epoch) >= moment_of(&name.epoch));
        let later = stretches(later.map(|other| &other.range));
        !name.range.is_mark() && missing(name.range, &later).is_empty()
    }

    /// What has been in live ranges alone for longer than `age`.
    pub fn unsettled(&self, now: Timestamp, age: SignedDuration, live_for: SignedDuration) -> Vec<Unsettled> {
        let stored: Vec<_> = self
            .objects
            .ranges
            .iter()
            .map(|range| range.stored.clone())
            .collect();
        let mut unsettled = Vec::new();
        for range in LogStore::unsettled(&stored) {
            let holding = self.objects.ranges.iter().filter(|r| {
                let held = r.stored.name.range;
                r.stored.level == Level::Live && held.from < range.to && range.from < held.to
            });
            let Some(since) = holding.map(|r| r.object.modified).min() else {
                continue;
            };
            if now.duration_since(since) > age {
                unsettled.push(Unsettled {
                    branch: self.objects.branch,
                    range,
                    since,
                    lost_at: since.saturating_add(live_for).unwrap_or(Timestamp::MAX),
                });
            }
        }
        unsettled
    }

    /// Opens every range index and compares each seam: the first record of a range names the last one before it.
    pub async fn indexes(&self) -> Result<(LogIndexes, Vec<CheckFinding>), RepositoryError> {
        let (mut done, mut findings) = (LogIndexes::default(), Vec::new());
        // Where ranges end: the start of the last record before, as each of them knows it.
        let mut last_starts: BTreeMap<Position, Vec<Position>> = BTreeMap::new();
        for range in &self.objects.ranges {
            let name = range.stored.name.range;
            let index = self.log.index_of(&range.stored).await;
            let Some(index) = keep(&mut findings, &range.object.name, index)? else {
                continue;
            };
            done.opened += 1;
            findings.extend(facts_outside(range, &index.facts));
            if name.is_mark() {
                continue;
            }
            let before = last_starts.get(&name.from).cloned().unwrap_or_default();
            let here = match index.facts.records {
                None => before,
                Some(records) => {
                    for last in &before {
                        done.seams += 1;
                        if *last != records.first_previous {
                            let what = format!(
                                "its first record follows the one at {}, and the range before it ends with the one at {last}",
                                records.first_previous
                            );
                            findings.push(CheckFinding::new(&range.object.name, Invariant::Log2, what));
                        }
                    }
                    vec![records.last_start]
                }
            };
            let known = last_starts.entry(name.to).or_default();
            known.extend(here);
            known.sort();
            known.dedup();
            // Ranges come by their first position: what ended before cannot be asked for again.
            last_starts = last_starts.split_off(&name.from);
        }
        Ok((done, findings))
    }

    /// Reads every range, compares what is stored twice, and hands each position on once, in order. A piece that does not
    /// begin where the one before ended begins a stretch.
    pub async fn bytes(
        &self,
        mut take: impl FnMut(Position, &[u8]),
    ) -> Result<(u64, Vec<CheckFinding>), RepositoryError> {
        let (mut read, mut findings) = (0, Vec::new());
        let mut known: Vec<(Position, Bytes)> = Vec::new();
        for range in &self.objects.ranges {
            let LogRange { from, to } = range.stored.name.range;
            let content = self.log.range(&range.stored).await;
            let Some((_, bytes)) = keep(&mut findings, &range.object.name, content)? else {
                continue;
            };
            if from == to {
                continue;
            }
            read += bytes.len() as u64;
            known.retain(|(begins, bytes)| begins.0 + bytes.len() as u64 > from.0);
            if let Some(at) = known
                .iter()
                .find_map(|other| first_difference(from, &bytes, other))
            {
                let what = format!("it holds other bytes than another range of its branch from {at} on");
                findings.push(CheckFinding::new(&range.object.name, Invariant::Log2, what));
                continue;
            }
            let frontier = known
                .iter()
                .map(|(begins, bytes)| begins.0 + bytes.len() as u64)
                .max();
            let fresh = frontier.map_or(from, |end| from.max(Position(end)));
            if fresh < to {
                take(
                    fresh,
                    bytes.get((fresh.0 - from.0) as usize..).unwrap_or_default(),
                );
                known.push((from, bytes));
            }
        }
        Ok((read, findings))
    }

    /// The contiguous stretches of the branch.
    pub fn stretches(&self) -> Vec<LogRange> {
        stretches(self.objects.ranges.iter().map(|range| &range.stored.name.range))
    }
}

/// Facts that lie outside of their range.
fn facts_outside(range: &AgedRange, facts: &LogFacts) -> Option<CheckFinding> {
    let LogRange { from, to } = range.stored.name.range;
    if facts.mark.is_some_and(|mark| mark.position > to) {
        let what = format!("its mark stands after its end {to}");
        return Some(CheckFinding::new(&range.object.name, Invariant::Log3, what));
    }
    // A record counts to the range in which it ends; it may begin before.
    let records = facts.records?;
    let wrong = records.last_end > to || records.last_end <= from || records.last_start < records.first_start;
    let what = "its facts name records outside of its positions";
    wrong.then(|| CheckFinding::new(&range.object.name, Invariant::Repo3, what))
}

/// The first position at which two pieces of log differ.
fn first_difference(from: Position, bytes: &[u8], other: &(Position, Bytes)) -> Option<Position> {
    let (begins, known) = other;
    let start = from.max(*begins);
    let part =
        |bytes: &'_ [u8], origin: Position| bytes.get((start.0 - origin.0) as usize..).map(<[u8]>::to_vec);
    let (here, there) = (part(bytes, from)?, part(known, *begins)?);
    let at = here.iter().zip(&there).position(|(a, b)| a != b)?;
    Some(Position(start.0 + at as u64))
}
