//! Resolves a target to the start of a record, because that is what the server compares.
//!
//! Promise: what cannot be reached is refused here, before anything is touched, with the nearest point on either side.

use super::catalog::Catalog;
use super::names;
use super::restore::{Request, seconds_since_2000, show_time};
use super::window::newest_time;
use crate::{EngineError, Side};
use backstay_repository::{Head, HeadLog};
use backstay_source::{Hit, LogFormat, Outcome, RecoveryStop, ScanOrder, Wanted};
use backstay_terms::{LogFacts, LogPointKind, LogRange, Lsn, Position, RecordBounds, RecoveryTarget};
use jiff::Timestamp;

/// A target that has been found in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Where to stop.
    pub stop: RecoveryStop,
    /// Log is needed up to here.
    pub needs: Position,
    /// The time of the record that was found.
    pub time: Option<i64>,
    /// How the transaction ended, where the record after which it stops ends one.
    pub outcome: Option<Outcome>,
}

impl Resolved {
    fn after(hit: Hit) -> Resolved {
        Resolved {
            stop: RecoveryStop::After(hit.start),
            needs: hit.end,
            time: hit.time,
            outcome: hit.outcome,
        }
    }
}

/// Looks for targets in the log after one base.
pub(crate) struct Resolver<'a> {
    pub catalog: &'a Catalog,
    pub format: &'a dyn LogFormat,
    pub log: &'a HeadLog,
    pub timeline: u32,
    /// The contiguous log that holds the base's stop.
    pub stretch: LogRange,
}

impl Resolver<'_> {
    /// Finds the target; none if it lies beyond the stretch.
    pub async fn resolve(&self, target: &RecoveryTarget) -> Result<Option<Resolved>, EngineError> {
        match target {
            RecoveryTarget::Immediate => Ok(Some(self.consistent())),
            RecoveryTarget::Latest => self.latest().await.map(Some),
            RecoveryTarget::Time(time) => self.time(*time).await,
            RecoveryTarget::Lsn(lsn) => self.record_at((*lsn).into()).await,
            RecoveryTarget::Transaction(xid) => self.transaction(*xid).await,
            RecoveryTarget::Name(name) => self.name(name).await,
        }
    }

    fn consistent(&self) -> Resolved {
        Resolved {
            stop: consistent_stop(self.log),
            needs: self.log.stop,
            time: None,
            outcome: None,
        }
    }

    fn after_stop(&self) -> LogRange {
        LogRange {
            from: self.log.stop,
            to: self.stretch.to.max(self.log.stop),
        }
    }

    async fn latest(&self) -> Result<Resolved, EngineError> {
        Ok(match last_record(self.catalog, self.log, self.stretch).await? {
            Some(records) => Resolved {
                stop: RecoveryStop::After(records.last_start),
                needs: records.last_end,
                time: None,
                outcome: None,
            },
            None => self.consistent(),
        })
    }

    async fn time(&self, time: i64) -> Result<Option<Resolved>, EngineError> {
        let facts = self.catalog.facts_in(self.after_stop()).await?;
        let later = |facts: &LogFacts| facts.transactions.is_some_and(|t| t.time_max > time);
        for (place, (range, own)) in facts.iter().enumerate() {
            if !later(own) {
                continue;
            }
            if let Some(hit) = self.scan(*range, Wanted::TransactionAfter(time)).await? {
                let rest = facts.get(place..).unwrap_or_default();
                self.refuse_if_clock_stepped(time, hit, rest).await?;
                return Ok(Some(Resolved {
                    stop: RecoveryStop::Before(hit.start),
                    outcome: None,
                    ..Resolved::after(hit)
                }));
            }
        }
        // What the stored log proves: nothing later than its end is known to have happened by then.
        match newest_time(self.catalog, self.after_stop()).await? {
            Some(proven) if time <= proven => self.latest().await.map(Some),
            _ => Ok(None),
        }
    }

    /// `rest` begins with the range that holds the hit.
    async fn refuse_if_clock_stepped(
        &self,
        time: i64,
        hit: Hit,
        rest: &[(LogRange, LogFacts)],
    ) -> Result<(), EngineError> {
        let earlier = |facts: &LogFacts| facts.transactions.is_some_and(|t| t.time_min <= time);
        let Some((last, _)) = rest.iter().rfind(|(_, facts)| earlier(facts)) else {
            return Ok(());
        };
        let after_hit = LogRange {
            from: hit.start,
            to: last.to,
        };
        let wanted = Wanted::SteppedBackTo(time);
        let Some(again) = self.scan_from(hit.start, after_hit, wanted).await? else {
            return Ok(());
        };
        let (first, again) = (Lsn::from(hit.start), Lsn::from(again.start));
        Err(EngineError::Ambiguous {
            what: format!(
                "the server's clock stepped back: the transaction at {first} is later than the target, and the one at {again} is \
                 earlier again"
            ),
            advice: format!(
                "choose by position: --to lsn:{first}, or a position from {again} on; what is there: backstay window {}",
                self.catalog.source
            ),
        })
    }

    async fn record_at(&self, position: Position) -> Result<Option<Resolved>, EngineError> {
        let from = position.max(self.log.stop);
        if from >= self.stretch.to {
            return Ok(None);
        }
        let last = LogRange {
            from,
            to: self.stretch.to,
        };
        let hit = self.scan(last, Wanted::RecordAt(position)).await?;
        Ok(hit.map(Resolved::after))
    }

    async fn transaction(&self, xid: u32) -> Result<Option<Resolved>, EngineError> {
        for (range, facts) in self.catalog.facts_in(self.after_stop()).await? {
            let possible = facts
                .transactions
                .is_some_and(|t| t.xid_min <= xid && xid <= t.xid_max);
            if !possible {
                continue;
            }
            if let Some(hit) = self.scan(range, Wanted::Transaction(xid)).await? {
                return Ok(Some(Resolved::after(hit)));
            }
        }
        Ok(None)
    }

    /// The transaction that this one was a part of. Its end lies about where the numbers of transactions pass this one, or
    /// later, and its own number is lower.
    pub async fn whole_of(&self, xid: u32) -> Result<Option<u32>, EngineError> {
        let facts = self.catalog.facts_in(self.after_stop()).await?;
        let passed = facts
            .iter()
            .position(|(_, own)| own.transactions.is_some_and(|t| t.xid_max >= xid));
        let passed = passed.unwrap_or(facts.len());
        let before = facts.iter().take(passed);
        let first = before.clone().rposition(|(_, own)| own.transactions.is_some());
        for (range, own) in facts.iter().skip(first.unwrap_or(passed)) {
            if own.transactions.is_none_or(|t| t.xid_min >= xid) {
                continue;
            }
            if let Some(hit) = self.scan(*range, Wanted::Subtransaction(xid)).await? {
                return Ok(hit.transaction);
            }
        }
        Ok(None)
    }

    async fn name(&self, name: &str) -> Result<Option<Resolved>, EngineError> {
        names::refuse_if_ambiguous(self.catalog, name).await?;
        for (range, facts) in self.catalog.facts_in(self.after_stop()).await? {
            let named = |point: &&backstay_terms::LogPoint| {
                point.kind == LogPointKind::RestorePoint
                    && point.name.as_deref() == Some(name)
                    && point.start >= self.log.stop
            };
            if facts.points.iter().any(|point| named(&point))
                && let Some(hit) = self.scan(range, Wanted::RestorePoint(name.to_owned())).await?
            {
                return Ok(Some(Resolved::after(hit)));
            }
        }
        Ok(None)
    }

    /// Looks for a record after the base that ends in `within`.
    async fn scan(&self, within: LogRange, wanted: Wanted) -> Result<Option<Hit>, EngineError> {
        self.scan_from(self.log.stop, within, wanted).await
    }

    /// Looks for a record that starts at `from` or later: walks the log from the start of the file that holds `within.from`, or
    /// a file earlier for records that reach over, to `within.to`, file by file.
    async fn scan_from(
        &self,
        from: Position,
        within: LogRange,
        wanted: Wanted,
    ) -> Result<Option<Hit>, EngineError> {
        let size = self.log.segment_size;
        let own_file = within.from.0 / size * size;
        let earlier = Position(own_file.saturating_sub(size));
        let begins = if self.stretch.from <= earlier {
            earlier
        } else {
            Position(own_file)
        };
        let order = ScanOrder {
            system: self.log.system,
            timeline: self.timeline,
            segment_size: size,
            begins,
            from,
            wanted,
        };
        let mut scanner = self.format.scan(order)?;
        let mut at = begins;
        while at < within.to && scanner.found().is_none() {
            let next = Position((at.0 / size + 1) * size).min(within.to);
            scanner.feed(&self.catalog.bytes_in(LogRange { from: at, to: next }).await?)?;
            at = next;
        }
        Ok(scanner.found())
    }
}

/// The bounds of the last records of a stretch that start at or after the stop of a base.
///
/// # Errors
/// Whatever reading facts of the log says.
pub(super) async fn last_record(
    catalog: &Catalog,
    log: &HeadLog,
    stretch: LogRange,
) -> Result<Option<RecordBounds>, EngineError> {
    let after_stop = LogRange {
        from: log.stop,
        to: stretch.to.max(log.stop),
    };
    let facts = catalog.facts_in(after_stop).await?;
    let last = facts.iter().rev().find_map(|(_, facts)| facts.records);
    Ok(last.filter(|records| records.last_start >= log.stop))
}

/// Where a base alone is consistent. PostgreSQL 15 ends `recovery_target = 'immediate'` with FATAL when the log is cut
/// exactly at the stop, so the record that ended the base is named instead.
pub(crate) fn consistent_stop(log: &HeadLog) -> RecoveryStop {
    log.end_point
        .map_or(RecoveryStop::Consistent, |point| RecoveryStop::After(point.start))
}

/// Why a target is beyond a base's stretch, and the nearest points on either side.
pub(crate) async fn refuse(
    catalog: &Catalog,
    request: &Request,
    head: &Head,
    stretch: Option<LogRange>,
) -> Result<EngineError, EngineError> {
    let stop_time = head.log.as_ref().map(|log| log.stop_time);
    let proven = match (stretch, &head.log) {
        (Some(stretch), Some(log)) => {
            let after_stop = LogRange {
                from: log.stop,
                to: stretch.to.max(log.stop),
            };
            newest_time(catalog, after_stop).await?
        }
        _ => None,
    };
    let last = proven.max(stop_time).map_or("nothing".into(), show_time);
    Ok(match &request.target {
        RecoveryTarget::Time(time) => refuse_time(catalog, request, *time, last),
        RecoveryTarget::Transaction(xid) => refuse_transaction(catalog, request, *xid, &last),
        other => EngineError::Unreachable {
            side: Side::After,
            what: format!(
                "{other} is not in the stored log after {}, which reaches {last}",
                searched_after(request)
            ),
            advice: match (other, &head.log) {
                (RecoveryTarget::Lsn(_), Some(log)) => {
                    let nearest = last_position(catalog, head, log, stretch).await?;
                    format!("the nearest point that can be recovered: --to {nearest}")
                }
                _ => format!("see what can be recovered: backstay window {}", catalog.source),
            },
        },
    })
}

/// How to ask for the last position that a base reaches.
async fn last_position(
    catalog: &Catalog,
    head: &Head,
    log: &HeadLog,
    stretch: Option<LogRange>,
) -> Result<String, EngineError> {
    let records = match stretch {
        Some(stretch) => last_record(catalog, log, stretch).await?,
        None => None,
    };
    Ok(match records {
        Some(records) => format!("lsn:{}", Lsn::from(records.last_start)),
        None => format!("immediate --base {}", head.backup),
    })
}

/// From where the log was searched.
fn searched_after(request: &Request) -> String {
    match &request.base {
        Some(base) => format!("backup {base}"),
        None => "the oldest backup".to_owned(),
    }
}

/// A transaction is found by its commit or abort; one that has neither cannot be told from one that never was.
fn refuse_transaction(catalog: &Catalog, request: &Request, xid: u32, last: &str) -> EngineError {
    let after = searched_after(request);
    EngineError::Unreachable {
        side: Side::After,
        what: format!(
            "transaction {xid} neither committed nor aborted in the stored log after {after}, which reaches {last}: \
             it was in progress at its end, never ended, or ended before that backup"
        ),
        advice: format!(
            "choose a time or a position instead: backstay window {}; what has not ended is in no copy, also not in latest",
            catalog.source
        ),
    }
}

fn refuse_time(catalog: &Catalog, request: &Request, time: i64, last: String) -> EngineError {
    let usable = catalog.heads.iter().filter(|head| head.is_usable(request.now));
    let later = usable
        .filter_map(|head| head.log.as_ref())
        .map(|log| log.stop_time)
        .filter(|stop| *stop > time);
    let wanted = show_time(time);
    match later.min() {
        Some(next) => {
            let next = show_time(next);
            EngineError::Unreachable {
                side: Side::Gap,
                what: format!("{wanted} lies where nothing can be recovered: between {last} and {next}"),
                advice: format!(
                    "choose the nearest point on either side: --to \"{last}\" or --to \"{next}\""
                ),
            }
        }
        None => EngineError::Unreachable {
            side: Side::After,
            what: format!("{wanted} lies after the last point that can be recovered, {last}"),
            advice: match is_just_now(time, request.now) {
                Just::Now => format!(
                    "the nearest point that can be recovered: --to \"{last}\"; or try again: a stream that runs stores \
                     what is committed within about 5 s, and once a minute proves that nothing was"
                ),
                Just::NotNow => format!("the nearest point that can be recovered: --to \"{last}\""),
            },
        },
    }
}

/// Whether a running stream may reach a time soon.
enum Just {
    Now,
    NotNow,
}

/// Times up to two minutes ago: two marks of a quiet server.
fn is_just_now(time: i64, now: Timestamp) -> Just {
    match seconds_since_2000(now).abs_diff(time.div_euclid(1_000_000)) {
        0..=120 => Just::Now,
        _ => Just::NotNow,
    }
}
