//! Plans a restore: which base, which log, where to stop.
//!
//! Promise: a plan that is given out can be carried out with what is stored; everything else is refused with the nearest
//! point that can be reached. The target is always an explicit record start on an explicit timeline.

use super::catalog::Catalog;
use super::earlier::{before_the_oldest, part_of_another};
use super::headless::refuse_if_newer_is_untold;
use super::latest::refuse_unless_last;
use super::lost::because_lost;
use super::lost_backups::{because_backup_lost, refuse_if_newer_is_lost};
use super::passed_over::{PassedOverBackup, passed_over, why_passed_over};
use super::resolve::{Resolved, Resolver, consistent_stop, refuse};
use super::rivals::{contested, refuse_if_contested};
use super::two_servers::refuse_two_servers;
use crate::{EngineError, Side};
use backstay_repository::{Head, HeadLog, HeadVerdict};
use backstay_source::{LogFormat, Outcome, RecoveryStop};
use backstay_terms::{
    BackupId, ByteCount, LogPointKind, LogRange, Lsn, Position, RecoveryTarget, Timeline, WalFileName,
    WalSegmentNumber, WalSegmentSize,
};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// What a person asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The target.
    pub target: RecoveryTarget,
    /// A backup by name; none: the planner chooses.
    pub base: Option<BackupId>,
    /// The time now.
    pub now: Timestamp,
}

impl Request {
    /// Whether the newest point is asked for, whatever it is: who names a backup, a time or a position has chosen.
    pub(super) fn means_the_newest(&self) -> bool {
        self.base.is_none() && matches!(self.target, RecoveryTarget::Latest | RecoveryTarget::Immediate)
    }
}

/// One segment to place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentPlan {
    /// Its name.
    pub name: WalFileName,
    /// Its first position.
    pub begins: Position,
    /// What of it must be there.
    pub needed: LogRange,
}

/// A plan.
#[derive(Clone, Debug)]
pub struct RestorePlan {
    /// The backup.
    pub head: Head,
    /// The log that it starts from.
    pub log: HeadLog,
    /// The timeline to recover along.
    pub timeline: u32,
    /// Where to stop.
    pub stop: RecoveryStop,
    /// The time of the record at which it stops, where it has one.
    pub time: Option<i64>,
    /// How the transaction ended, where the record after which it stops ends one.
    pub outcome: Option<Outcome>,
    /// The segments of the log to replay, in order; none when the base's own log is enough.
    pub segments: Vec<SegmentPlan>,
    /// The end of the log to replay.
    pub needs: Position,
    /// Directories outside of the target that replaying this log writes into.
    pub written_by_log: Vec<String>,
    /// Where the newest is meant: newer backups of another history, the newest first.
    pub passed_over: Vec<PassedOverBackup>,
    /// The highest timeline known of this system.
    pub timeline_highest: u32,
    /// The target as asked.
    pub target: RecoveryTarget,
}

impl RestorePlan {
    /// Bytes of log to replay, in whole segments.
    pub fn log_bytes(&self) -> u64 {
        self.segments.len() as u64 * self.log.segment_size
    }

    /// How many files of the base are placed, and their bytes: all, less its own log where whole segments are assembled in
    /// its place.
    pub fn content(&self) -> (u64, ByteCount) {
        let totals = &self.head.totals;
        let size = WalSegmentSize::new(self.log.segment_size).filter(|_| !self.segments.is_empty());
        let replaced = size.map_or(0, |size| {
            let last = Lsn(self.log.stop.0.saturating_sub(1).max(self.log.start.0));
            1 + size.segment_holding(last).0 - size.segment_holding(self.log.start.into()).0
        });
        let bytes = totals.bytes.0.saturating_sub(replaced * self.log.segment_size);
        (totals.files.saturating_sub(replaced), ByteCount(bytes))
    }

    /// The time of the transaction whose end is the last record to be replayed; none where that is another record or not
    /// known.
    pub fn ends_with_transaction(&self) -> Option<i64> {
        self.time.filter(|_| self.outcome.is_some())
    }

    /// The stop, in words that name one point for ever.
    pub fn stop_words(&self) -> String {
        match self.stop {
            RecoveryStop::Consistent => format!("immediate:{}", self.head.backup),
            RecoveryStop::After(at) => format!("after:{}/{}", self.timeline, Lsn::from(at)),
            RecoveryStop::Before(at) => format!("before:{}/{}", self.timeline, Lsn::from(at)),
        }
    }
}

/// Makes a plan. Log that cannot be opened counts as not stored, and what is refused because of it names it.
pub async fn plan(
    catalog: &Catalog,
    request: &Request,
    format: &dyn LogFormat,
) -> Result<RestorePlan, EngineError> {
    catalog.look_at_keys().await?;
    loop {
        match plan_with_open(catalog, request, format).await {
            Err(refusal @ (EngineError::Unreachable { .. } | EngineError::NoSuchThing { .. })) => {
                return Err(because_backup_lost(catalog, refusal, request).await?);
            }
            Err(error) => catalog.close(error)?,
            answer => return answer,
        }
    }
}

async fn plan_with_open(
    catalog: &Catalog,
    request: &Request,
    format: &dyn LogFormat,
) -> Result<RestorePlan, EngineError> {
    catalog.unread.refuse(catalog, request)?;
    if matches!(request.target, RecoveryTarget::Latest) {
        refuse_two_servers(catalog, None)?;
    }
    let candidates = candidates(catalog, request)?;
    let oldest = candidates.last().copied();
    let (mut refused, mut tried) = (None, BTreeMap::new());
    for head in candidates {
        let Some(log) = head.log.clone() else { continue };
        let stretch = stretch_of(catalog, head, &log).await?;
        if stretch.is_none()
            && let Some(why) = why_passed_over(catalog, request, head, &log).await?
        {
            tried.insert(head.backup.clone(), why);
            continue;
        }
        if matches!(request.target, RecoveryTarget::Latest)
            && let Err(error) = refuse_unless_last(catalog, request, (head, &log), stretch).await
        {
            refused = Some(error);
            break;
        }
        if let Some(plan) = try_base(catalog, request, format, head, &log, stretch).await? {
            refuse_two_servers(catalog, Some(plan.needs))?;
            refuse_if_contested(catalog, request, &plan)?;
            refuse_if_newer_is_lost(catalog, request, head).await?;
            refuse_if_newer_is_untold(catalog, request, head).await?;
            catalog
                .unread
                .refuse_older(catalog, request, &log, stretch)
                .await?;
            let passed_over = passed_over(catalog, request, (head, &log), &tried);
            return Ok(RestorePlan { passed_over, ..plan });
        }
        if refused.is_some() {
            continue;
        }
        let refusal = refuse(catalog, request, head, stretch).await?;
        let end = stretch.map_or(log.range(), |LogRange { to, .. }| LogRange { from: to, to });
        let refusal = catalog.because_closed(refusal, &request.target, end);
        refused = Some(because_lost(catalog, refusal, request, (log.system, end)).await?);
    }
    // What the present lineage does not hold, a rival may.
    if !catalog.rivals.is_empty() {
        return Err(contested(catalog));
    }
    if let Some(earlier) = before_the_oldest(catalog, request, format, oldest).await {
        return Err(earlier);
    }
    if let Some(part) = part_of_another(catalog, request, format, oldest).await {
        return Err(part);
    }
    Err(refused.unwrap_or_else(|| nothing_usable(catalog, request)))
}

/// The contiguous log that holds a base's own and goes on from it; none where the stored log does not reach the base.
///
/// # Errors
/// Whatever reading facts of the log says.
pub(super) async fn stretch_of(
    catalog: &Catalog,
    head: &Head,
    log: &HeadLog,
) -> Result<Option<LogRange>, EngineError> {
    if !catalog.is_on_chain(head).await? {
        return Ok(None);
    }
    let stretches = catalog.stretches(Some(log.range()));
    let holds = |stretch: &LogRange| stretch.from <= log.start && log.stop <= stretch.to;
    Ok(stretches.into_iter().find(holds))
}

async fn try_base(
    catalog: &Catalog,
    request: &Request,
    format: &dyn LogFormat,
    head: &Head,
    log: &HeadLog,
    stretch: Option<LogRange>,
) -> Result<Option<RestorePlan>, EngineError> {
    let target = &request.target;
    let Some(stretch) = stretch else {
        // The log does not reach this base: it is one point.
        let alone = matches!(target, RecoveryTarget::Immediate)
            || matches!(target, RecoveryTarget::Latest) && catalog.chain.is_none();
        return Ok(alone.then(|| snapshot(catalog, request, head, log)));
    };
    let timeline = catalog
        .chain
        .as_ref()
        .and_then(|chain| chain.target())
        .map_or(log.timeline, |link| link.branch.timeline);
    let log_only = catalog.stretches(None);
    let within = log_only
        .into_iter()
        .find(|s| s.from <= log.stop && log.stop <= s.to)
        .unwrap_or(stretch);
    let resolver = Resolver {
        catalog,
        format,
        log,
        timeline,
        stretch: within,
    };
    let resolved = resolver.resolve(target).await?;
    let Some(resolved) = resolved else { return Ok(None) };
    let plan = make(catalog, request, head, log, timeline, resolved);
    Ok(Some(RestorePlan {
        written_by_log: written_by_log(catalog, log.stop, plan.needs).await?,
        ..plan
    }))
}

/// Where replaying the log after a base makes tablespaces; what the base's own log makes is among its facts.
async fn written_by_log(catalog: &Catalog, from: Position, to: Position) -> Result<Vec<String>, EngineError> {
    let Some(range) = LogRange::new(from, to).filter(|range| !range.is_mark()) else {
        return Ok(Vec::new());
    };
    let facts = catalog.facts_in(range).await?;
    let points = facts.into_iter().flat_map(|(_, facts)| facts.points);
    let made = points.filter(|point| point.kind == LogPointKind::Tablespace && point.start < to);
    Ok(made.filter_map(|point| point.name).collect())
}

fn snapshot(catalog: &Catalog, request: &Request, head: &Head, log: &HeadLog) -> RestorePlan {
    RestorePlan {
        head: head.clone(),
        log: log.clone(),
        timeline: log.timeline,
        stop: consistent_stop(log),
        time: None,
        outcome: None,
        segments: Vec::new(),
        needs: log.stop,
        written_by_log: Vec::new(),
        passed_over: Vec::new(),
        timeline_highest: timeline_highest(catalog, log.system),
        target: request.target.clone(),
    }
}

fn make(
    catalog: &Catalog,
    request: &Request,
    head: &Head,
    log: &HeadLog,
    timeline: u32,
    resolved: Resolved,
) -> RestorePlan {
    let Resolved {
        stop,
        needs,
        time,
        outcome,
    } = resolved;
    if stop == consistent_stop(log) {
        // What a base carries itself is enough, and has the names of the base's own timeline: the chain's name for the
        // segment that holds a switch point is the descendant's, which recovery along this timeline never asks for.
        return RestorePlan {
            time,
            outcome,
            ..snapshot(catalog, request, head, log)
        };
    }
    let needs = needs.max(log.stop);
    RestorePlan {
        segments: segments(catalog, log, needs),
        needs,
        timeline,
        stop,
        time,
        outcome,
        ..snapshot(catalog, request, head, log)
    }
}

fn segments(catalog: &Catalog, log: &HeadLog, needs: Position) -> Vec<SegmentPlan> {
    let (Some(chain), Some(size)) = (&catalog.chain, WalSegmentSize::new(log.segment_size)) else {
        return Vec::new();
    };
    let first = size.segment_holding(log.start.into()).0;
    let last = size.segment_holding(Lsn(needs.0.saturating_sub(1))).0;
    let segment = |number: u64| {
        let number = WalSegmentNumber(number);
        let begins: Position = size.start_of(number).into();
        let ends = Position(begins.0 + size.bytes());
        let needed = LogRange {
            from: begins.max(log.start),
            to: ends.min(needs),
        };
        let name = chain
            .name_of(number, size)
            .unwrap_or_else(|| WalFileName::new(Timeline(log.timeline), number, size));
        SegmentPlan { name, begins, needed }
    };
    (first..=last).map(segment).collect()
}

/// The bases that may serve, the most fitting first.
fn candidates<'a>(catalog: &'a Catalog, request: &Request) -> Result<Vec<&'a Head>, EngineError> {
    if let Some(base) = &request.base {
        let named = catalog.heads.iter().find(|head| head.backup == *base);
        return named
            .map(|head| vec![head])
            .ok_or_else(|| EngineError::NoSuchThing {
                what: format!("there is no backup {base} of {}", catalog.source),
                advice: format!("see: backstay list {}", catalog.source),
            });
    }
    let fits = |head: &&Head| {
        let Some(log) = &head.log else { return false };
        match &request.target {
            RecoveryTarget::Time(time) => log.stop_time <= *time,
            RecoveryTarget::Lsn(lsn) => Lsn::from(log.stop) <= *lsn,
            _ => true,
        }
    };
    let usable: Vec<&Head> = catalog
        .heads
        .iter()
        .rev()
        .filter(|head| head.is_usable(request.now))
        .collect();
    if usable.is_empty() {
        return Err(nothing_usable(catalog, request));
    }
    let usable = of_one_system(catalog, usable)?;
    let fitting: Vec<&Head> = usable.iter().copied().filter(fits).collect();
    if fitting.is_empty() {
        return Err(before_every_base(catalog, request, usable.last().copied()));
    }
    Ok(fitting)
}

/// The backups of the system whose log is followed; without log, of the only system there is. The newest backup of another
/// one is not the newest point of this one.
fn of_one_system<'a>(catalog: &Catalog, usable: Vec<&'a Head>) -> Result<Vec<&'a Head>, EngineError> {
    let source = &catalog.source;
    let system = |head: &Head| head.log.as_ref().map(|log| log.system);
    let target = catalog.chain.as_ref().and_then(|chain| chain.target());
    let Some(target) = target.map(|link| link.branch) else {
        let newest = usable.first().and_then(|head| system(head));
        return match usable.iter().find(|head| system(head) != newest) {
            None => Ok(usable),
            Some(other) => Err(EngineError::Refused {
                what: format!(
                    "{source} has backups of more than one system, {} among them",
                    other.backup
                ),
                advice: format!("name one: --base BACKUP --to immediate; see: backstay list {source}"),
            }),
        };
    };
    let own: Vec<&Head> = usable
        .into_iter()
        .filter(|head| system(head) == Some(target.system))
        .collect();
    if own.is_empty() {
        return Err(EngineError::NoSuchThing {
            what: format!(
                "every backup of {source} is of another system than the one whose log is followed, {target}"
            ),
            advice: format!(
                "take a backup of it: backstay backup {source}; or name one: --base BACKUP --to immediate"
            ),
        });
    }
    Ok(own)
}

fn before_every_base(catalog: &Catalog, request: &Request, oldest: Option<&Head>) -> EngineError {
    let log = oldest.and_then(|head| head.log.as_ref());
    let (target, first) = match &request.target {
        RecoveryTarget::Time(time) => (
            show_time(*time),
            log.map_or(String::new(), |log| show_time(log.stop_time)),
        ),
        other => (
            other.to_string(),
            log.map_or(String::new(), |log| Lsn::from(log.stop).to_string()),
        ),
    };
    let what = format!(
        "{target} lies before the first point of {} that can be recovered, {first}",
        catalog.source
    );
    EngineError::Unreachable {
        side: Side::Before,
        what,
        advice: format!(
            "choose a point from {first} on; see: backstay window {}",
            catalog.source
        ),
    }
}

/// Why no backup serves, with what may be restored by its name.
pub(super) fn nothing_usable(catalog: &Catalog, request: &Request) -> EngineError {
    let source = &catalog.source;
    let mut what = format!("there is no backup of {source} that can be restored");
    let mut advice = format!("take one: backstay backup {source}");
    match catalog.heads.last() {
        Some(head) if head.verdict == HeadVerdict::Damaged => {
            let backup = &head.backup;
            what += &format!(
                "; in the newest one that is stored, {backup}, files were damaged at the server already"
            );
            advice += &format!(
                "; or restore those as they are: backstay restore {source} --to immediate --base {backup}"
            );
        }
        Some(head) if !head.is_usable(request.now) => {
            what += &format!(
                "; the newest one that is stored, {}, is past its promise",
                head.backup
            );
            advice += &format!(
                "; or restore that one while it is still there: backstay restore {source} --base {}",
                head.backup
            );
        }
        Some(_) => what += "; those that are stored are of other lineages",
        None => {}
    }
    EngineError::NoSuchThing { what, advice }
}

fn timeline_highest(catalog: &Catalog, system: u64) -> u32 {
    let lineages = catalog
        .records
        .iter()
        .map(|record| record.branch)
        .filter(|branch| branch.system == system);
    let heads = catalog
        .heads
        .iter()
        .filter_map(|head| head.log.as_ref())
        .filter(|log| log.system == system);
    lineages
        .map(|branch| branch.timeline)
        .chain(heads.map(|log| log.timeline))
        .chain(catalog.unread.timelines(system))
        .max()
        .unwrap_or(1)
}

/// The moment from which the source's times count: 2000-01-01 00:00:00 UTC.
pub(super) const EPOCH_2000: i64 = 946_684_800;

/// Seconds from that moment to another.
pub(super) fn seconds_since_2000(now: Timestamp) -> i64 {
    now.as_second() - EPOCH_2000
}

/// A time of the source in RFC 3339, UTC.
pub fn show_time(micros: i64) -> String {
    let epoch = Timestamp::from_second(EPOCH_2000).unwrap_or(Timestamp::UNIX_EPOCH);
    epoch
        .checked_add(SignedDuration::from_micros(micros))
        .map_or_else(|_| format!("{micros} us"), |time| time.to_string())
}
