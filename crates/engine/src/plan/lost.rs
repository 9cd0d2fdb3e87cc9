//! Log that was stored once and is not there any more.
//!
//! Promise: whatever still tells of more is asked before anything is called the newest, and what a stream found to be lost
//! is remembered beside the log, for as long as the log would have been kept. What is named is looked for once more before;
//! what may have expired is not missed, and what is there again is not lost.
//! Not here: holes of which nothing tells (window), backups (lost_backups).

use super::catalog::Catalog;
use super::chain::Chain;
use super::restore::Request;
use super::retention::ExpiryPolicy;
use crate::EngineError;
use crate::jobs::losses::{Remembered, remembered};
use crate::jobs::stream::StreamsTold;
use backstay_repository::{
    Head, LineageRecord, LogStore, RangesSeen, missing, moment_of, stored_from, stretches,
};
use backstay_terms::{Branch, LogRange, Lsn, Position, RecoveryTarget, SourceName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Positions that were stored and are gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostLog {
    /// Of which branch.
    pub branch: Branch,
    /// The first one; none if nothing tells where what is lost began.
    pub from: Option<Position>,
    /// The position after the last one.
    pub to: Position,
    /// When that was told.
    pub told: Timestamp,
    /// What tells of it, in words that name it.
    pub by: String,
}

impl LostLog {
    /// The same as a range; it begins at zero where that is not known.
    pub fn range(&self) -> LogRange {
        LogRange {
            from: self.from.unwrap_or_default(),
            to: self.to,
        }
    }

    /// Whether it is of a lineage of the timeline of this one.
    fn is_beside(&self, branch: &Branch) -> bool {
        (self.branch.system, self.branch.timeline) == (branch.system, branch.timeline)
    }

    /// What must be there, so that nothing of it is lost.
    pub(crate) fn needed(&self) -> LogRange {
        LogRange {
            from: self.from.unwrap_or(Position(self.to.0.saturating_sub(1))),
            to: self.to,
        }
    }

    /// In words.
    pub fn words(&self) -> String {
        let (by, to) = (&self.by, Lsn::from(self.to));
        match self.from {
            Some(from) => format!(
                "the log from {} to {to} is lost: {by} tells that it was stored",
                Lsn::from(from)
            ),
            None => format!("the log up to {to} is lost: {by} tells that it was stored"),
        }
    }

    /// Whether a backup has everything that was lost, or was taken of another system since.
    pub fn is_behind(&self, head: &Head) -> bool {
        head.log
            .as_ref()
            .is_some_and(|log| match log.system == self.branch.system {
                true => log.stop >= self.to,
                false => head.began() > self.told,
            })
    }

    /// Whether a target may lie in it, or behind it, so that it cannot be reached for want of it. `end` is where the log that
    /// can be reached ends; where a base's own log is not reached, it is that.
    fn keeps_from(&self, target: &RecoveryTarget, system: u64, end: LogRange) -> bool {
        let LogRange { from, to } = self.range();
        let anywhere = matches!(target, RecoveryTarget::Transaction(_) | RecoveryTarget::Name(_));
        let holds = match target {
            RecoveryTarget::Lsn(lsn) => from <= Position::from(*lsn) && Position::from(*lsn) < to,
            _ => false,
        };
        let adjoins = from <= end.to && end.from < to;
        self.branch.system == system && (anywhere || holds || adjoins)
    }

    /// What of it is not in `stored`, piece by piece.
    fn lacking(&self, stored: &[LogRange]) -> Vec<LostLog> {
        let lacking = missing(self.needed(), stored).into_iter();
        let piece = |LogRange { from, to }| {
            let before = stored
                .iter()
                .map(|stretch| stretch.to)
                .filter(|end| *end <= from)
                .max();
            LostLog {
                from: self.from.map(|_| from).or(before),
                to,
                ..self.clone()
            }
        };
        lacking.map(piece).collect()
    }
}

/// What is known of a source, to look for what is lost of its log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    pub log: &'a LogStore,
    /// Every lineage record that opens.
    pub records: &'a [LineageRecord],
    /// Whether every record opens.
    pub all_open: bool,
    /// What was listed already; more than this may be stored by now.
    pub chain: Option<&'a Chain>,
    pub now: Timestamp,
}

impl Known<'_> {
    /// Everything of which something tells that it was stored, and that is not there; by branch and position.
    pub async fn lost(&self) -> Result<Vec<LostLog>, EngineError> {
        let since = missed_since(self.log, self.now);
        let (repository, source) = (self.log.repository(), &self.log.place().source);
        let streams = StreamsTold::read(repository, source, since).await?;
        let remembered = remembered(repository, source, since).await?;
        let mut told: BTreeMap<Branch, Vec<LostLog>> = BTreeMap::new();
        for loss in self.told(&streams, since).await? {
            told.entry(loss.branch).or_default().push(loss);
        }
        for Remembered { found, lost } in remembered {
            if lost.told >= since && !self.has_come_back(&lost, found) {
                told.entry(lost.branch).or_default().push(lost);
            }
        }
        let recorded = self.records.iter().map(|record| record.branch);
        let branches: BTreeSet<Branch> = recorded.chain(told.keys().copied()).collect();
        let mut lost = Vec::new();
        for branch in branches {
            lost.extend(
                self.of_branch(branch, told.remove(&branch).unwrap_or_default())
                    .await?,
            );
        }
        Ok(lost)
    }

    /// What witnesses and runs of streams tell.
    async fn told(&self, streams: &StreamsTold, since: Timestamp) -> Result<Vec<LostLog>, EngineError> {
        let recorded = self.records.iter().map(|record| record.branch);
        let indexed = self.log.indexed_branches().await?;
        let mut told = Vec::new();
        for branch in recorded.chain(indexed).collect::<BTreeSet<_>>() {
            let witnesses = self.log.witnesses(&branch, self.records, since).await?;
            told.extend(witnesses.into_iter().map(|witness| LostLog {
                branch,
                from: witness.from,
                to: witness.reach,
                told: witness.told,
                by: witness.by,
            }));
        }
        let moves = self.log.moves().await?;
        for (branch, reach, record) in streams.reaches(&moves) {
            let of_branch = |known: &&LineageRecord| known.branch == branch;
            told.push(LostLog {
                branch,
                from: stored_from(self.records.iter().filter(of_branch), reach, since),
                to: reach,
                told: record.finished,
                by: format!("the record of the run {}", record.started.run),
            });
        }
        Ok(told)
    }

    /// Where nothing told how far log was stored, all before a new lineage counts as lost until an older record is there again.
    fn has_come_back(&self, lost: &LostLog, found: Timestamp) -> bool {
        let of_branch = |record: &&LineageRecord| record.branch == lost.branch;
        let began_then = self
            .records
            .iter()
            .filter(of_branch)
            .all(|record| record.created >= found);
        lost.from.is_none() && began_then && self.records.iter().any(|record| record.created < found)
    }

    async fn of_branch(&self, branch: Branch, mut told: Vec<LostLog>) -> Result<Vec<LostLog>, EngineError> {
        let link = self
            .chain
            .and_then(|chain| chain.links.iter().find(|link| link.branch == branch));
        // Without a record of it nothing finds what is stored of a branch.
        let counts = !self.all_open || self.records.iter().any(|record| record.branch == branch);
        if let Some(link) = link.filter(|link| link.cut.is_empty()) {
            let stored = stretches(link.ranges.iter().map(|stored| &stored.name.range));
            if told.iter().all(|loss| missing(loss.needed(), &stored).is_empty()) {
                return Ok(Vec::new());
            }
        } else if link.is_none() && self.chain.is_some() && told.is_empty() {
            return Ok(Vec::new());
        }
        let RangesSeen { ranges, cut } = self.log.ranges_seen(&branch, None).await?;
        told.extend(cut.iter().filter_map(|cut| {
            let LogRange { from, to } = cut.name.range;
            let told = moment_of(&cut.name.epoch).filter(|told| *told >= missed_since(self.log, self.now))?;
            (from < to).then(|| LostLog {
                branch,
                from: Some(from),
                to,
                told,
                by: format!("the name of an object that has {} bytes, {},", cut.size, cut.name),
            })
        }));
        let stored = match counts {
            true => stretches(ranges.iter().map(|stored| &stored.name.range)),
            false => Vec::new(),
        };
        Ok(joined(
            told.iter().flat_map(|loss| loss.lacking(&stored)).collect(),
        ))
    }
}

/// Losses without those that another one tells of too. Where nothing tells where one began, it may be of any lineage of its
/// timeline: what another of them lost before its end is no second loss.
pub fn told_once(lost: &[LostLog]) -> Vec<LostLog> {
    let tells_of_both = |other: &LostLog, loss: &LostLog| {
        let reaches =
            other.to > loss.to || other.to == loss.to && (loss.from.is_some() || other.branch < loss.branch);
        other.from.is_none() && other.branch != loss.branch && other.is_beside(&loss.branch) && reaches
    };
    let is_told = |loss: &LostLog| lost.iter().any(|other| tells_of_both(other, loss));
    lost.iter().filter(|loss| !is_told(loss)).cloned().collect()
}

/// Losses of one branch that touch are one; what reaches further tells of it.
fn joined(mut lost: Vec<LostLog>) -> Vec<LostLog> {
    lost.sort_by_key(|loss| (loss.range(), loss.told));
    let mut joined: Vec<LostLog> = Vec::new();
    for loss in lost {
        match joined.last_mut() {
            Some(last) if loss.range().from <= last.to => {
                if loss.to > last.to {
                    let from = last.from;
                    *last = LostLog { from, ..loss };
                }
            }
            _ => joined.push(loss),
        }
    }
    joined
}

/// The moment before which what was stored may have expired.
pub(crate) fn missed_since(log: &LogStore, now: Timestamp) -> Timestamp {
    let kept = ExpiryPolicy::of(log.place().engine).settled;
    now.checked_sub(kept).unwrap_or(Timestamp::MIN)
}

/// Log of which nothing is left, neither ranges nor lineage records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LostWhole {
    /// What tells that it was stored.
    pub tells: String,
    /// Whether the newest stream told how far it was stored.
    pub has_end: bool,
}

/// What tells that log of a source was stored of which nothing is left.
pub(crate) async fn lost_whole(log: &LogStore, now: Timestamp) -> Result<Option<LostWhole>, EngineError> {
    let (records, strays) = log.record_names().await?;
    if !records.is_empty() || !strays.is_empty() || log.any_range().await?.is_some() {
        return Ok(None);
    }
    let source = &log.place().source;
    let streams = StreamsTold::read(log.repository(), source, missed_since(log, now)).await?;
    let tells = match (log.has_indexes().await?, &streams.attached) {
        (true, _) => "log indexes name it".to_owned(),
        (false, Some((run, at))) => format!("the run {run} streamed it from {at} on"),
        (false, None) => return Ok(None),
    };
    let has_end = streams.attached.is_some() && streams.died().is_none();
    Ok(Some(LostWhole { tells, has_end }))
}

/// What a stream that attaches finds to be lost. `begins` is what it attaches to, and from where.
pub(crate) async fn lost_at_attach(
    log: &LogStore,
    begins: (Branch, Position),
    now: Timestamp,
) -> Result<Vec<LostLog>, EngineError> {
    let seen = log.records_seen().await?;
    let known = Known {
        log,
        records: &seen.records,
        all_open: seen.unreadable.is_empty(),
        chain: None,
        now,
    };
    let mut lost = known.lost().await?;
    if !seen.records.is_empty() || !seen.unreadable.is_empty() {
        return Ok(lost);
    }
    // Log of which no record speaks is as good as gone.
    for branch in log.branch_names().await? {
        let ranges = log.ranges(&branch, None).await?;
        let known = |range: &LogRange| {
            lost.iter()
                .any(|loss| loss.branch == branch && loss.to >= range.to)
        };
        let unknown: Vec<LogRange> = stretches(ranges.iter().map(|stored| &stored.name.range));
        let unknown: Vec<LogRange> = unknown.into_iter().filter(|range| !known(range)).collect();
        lost.extend(unknown.into_iter().map(|LogRange { from, to }| LostLog {
            branch,
            from: Some(from),
            to,
            told: now,
            by: "what is stored of it, without any lineage record,".to_owned(),
        }));
    }
    let source = &log.place().source;
    let streams = StreamsTold::read(log.repository(), source, missed_since(log, now)).await?;
    let (begun, to) = begins;
    if let Some((run, told)) = streams
        .died()
        .or(streams.attached.as_ref().filter(|_| lost.is_empty()))
    {
        // Where a lineage is known to have reached as far, the run that died stored that one.
        let reaches = |loss: &&LostLog| loss.is_beside(&begun) && loss.to >= to;
        let furthest = lost.iter().filter(reaches).max_by_key(|loss| loss.to);
        lost.push(LostLog {
            branch: furthest.map_or(begun, |loss| loss.branch),
            from: None,
            to,
            told: *told,
            by: format!("the run {run}, which streamed from {told} on,"),
        });
    }
    let mut of_branches: BTreeMap<Branch, Vec<LostLog>> = BTreeMap::new();
    for loss in lost {
        of_branches.entry(loss.branch).or_default().push(loss);
    }
    Ok(of_branches.into_values().flat_map(joined).collect())
}

/// The end of the lineage that is followed, where it was stored once and is gone.
pub(super) async fn lost_end(
    catalog: &Catalog,
    chain: &Chain,
    now: Timestamp,
) -> Result<Option<LostLog>, EngineError> {
    let Some(target) = chain.target() else {
        return Ok(None);
    };
    let end = chain.stretches(None).last().map(|last| last.to);
    let lost = catalog.lost_log(now).await?;
    let at_the_end = lost
        .iter()
        .filter(|loss| loss.branch == target.branch && Some(loss.to) > end);
    Ok(at_the_end.max_by_key(|loss| loss.to).cloned())
}

/// A refusal of a target that cannot be reached because of what is lost. `end` is where the log that can be reached ends;
/// where a base's own log is not reached, it is that.
pub(super) async fn because_lost(
    catalog: &Catalog,
    refusal: EngineError,
    request: &Request,
    (system, end): (u64, LogRange),
) -> Result<EngineError, EngineError> {
    let EngineError::Unreachable { what, advice, .. } = &refusal else {
        return Ok(refusal);
    };
    let lost = catalog.lost_log(request.now).await?;
    let keeps = |loss: &&LostLog| loss.keeps_from(&request.target, system, end);
    let Some(loss) = lost.iter().rfind(keeps) else {
        return Ok(refusal);
    };
    Ok(EngineError::Lost {
        what: format!("{what}; {}", loss.words()),
        advice: format!("bring it back from a copy of the repository; or {advice}"),
    })
}

impl Catalog {
    /// What was stored of the log and is gone, by branch and position. Looked for once.
    pub async fn lost_log(&self, now: Timestamp) -> Result<&[LostLog], EngineError> {
        let look = || async {
            let known = Known {
                log: &self.log,
                records: &self.records,
                all_open: self.unread.records.is_empty(),
                chain: self.chain.as_ref(),
                now,
            };
            known.lost().await
        };
        Ok(self.lost.get_or_try_init(look).await?)
    }
}

/// Why `latest` is refused where the end is lost; `stored` is the end of what is left, `last` its last point, as a target.
pub(super) fn refusal_of(
    loss: LostLog,
    stored: Option<Position>,
    source: &SourceName,
    last: &str,
) -> EngineError {
    let stored = match stored {
        Some(stored) => format!("ends at {}", Lsn::from(stored)),
        None => "is not there any more".to_owned(),
    };
    EngineError::Lost {
        what: format!(
            "log of {source} is lost: {} tells that it was stored up to {}, and what is stored {stored}",
            loss.by,
            Lsn::from(loss.to)
        ),
        advice: format!(
            "bring it back from a copy of the repository, or recover the last point that is left: {last}; \
             and take a new backup now: backstay backup {source}"
        ),
    }
}
