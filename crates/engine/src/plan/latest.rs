//! What `latest` means: the end of everything stored, or a refusal.
//!
//! Promise: `latest` never goes back behind a point that can be recovered: not behind log after a gap, and not behind a
//! backup that the log does not reach, also where the base is chosen by hand. `status` and a restore say the same,
//! because both ask here.
//! Not here: the last record itself (resolve).

use super::catalog::Catalog;
use super::headless::refuse_if_newer_is_untold;
use super::lost::{LostWhole, because_lost, lost_end, lost_whole, refusal_of};
use super::lost_backups::refuse_if_newer_is_lost;
use super::resolve::last_record;
use super::restore::{Request, nothing_usable, show_time, stretch_of};
use super::two_servers::refuse_two_servers;
use crate::{EngineError, Side};
use backstay_repository::{Head, HeadLog, RepositoryError};
use backstay_terms::{LogRange, Lsn, RecoveryTarget};
use jiff::Timestamp;

/// Why `latest` is refused, if it is; none also where no backup is stored at all.
///
/// # Errors
/// Whatever reading facts of the log says.
pub async fn latest_refused(catalog: &Catalog, now: Timestamp) -> Result<Option<EngineError>, EngineError> {
    let request = Request {
        target: RecoveryTarget::Latest,
        base: None,
        now,
    };
    catalog.look_at_keys().await?;
    loop {
        match refuse_newest(catalog, &request).await {
            Ok(()) => return Ok(None),
            Err(
                error @ (EngineError::Unreachable { .. }
                | EngineError::NoSuchThing { .. }
                | EngineError::Unreadable { .. }
                | EngineError::Lost { .. }
                | EngineError::Repository(RepositoryError::TwoServers { .. })
                | EngineError::Integrity { .. }),
            ) => return Ok(Some(error)),
            Err(error) => catalog.close(error)?,
        }
    }
}

async fn refuse_newest(catalog: &Catalog, request: &Request) -> Result<(), EngineError> {
    catalog.unread.refuse(catalog, request)?;
    refuse_two_servers(catalog, None)?;
    let Some((head, log)) = newest(catalog, request.now).await? else {
        return match catalog.heads.is_empty() {
            true => Ok(()),
            false => Err(nothing_usable(catalog, request)),
        };
    };
    let stretch = stretch_of(catalog, head, log).await?;
    refuse_unless_last(catalog, request, (head, log), stretch).await?;
    refuse_if_newer_is_lost(catalog, request, head).await?;
    refuse_if_newer_is_untold(catalog, request, head).await?;
    catalog.unread.refuse_older(catalog, request, log, stretch).await
}

/// The newest usable backup that is not of another lineage.
async fn newest(catalog: &Catalog, now: Timestamp) -> Result<Option<(&Head, &HeadLog)>, EngineError> {
    for head in catalog.heads.iter().rev().filter(|head| head.is_usable(now)) {
        let Some(log) = &head.log else { continue };
        if catalog.is_on_chain(head).await? || !catalog.is_elsewhere(head).await? {
            return Ok(Some((head, log)));
        }
    }
    Ok(None)
}

/// Refuses unless the end of `stretch`, the log that goes on from a base, is the end of everything stored.
///
/// # Errors
/// `Unreachable` with what lies beyond; `Lost` when that was stored and is gone; `Unreadable` when it cannot be opened;
/// `Integrity` when log is stored and no record of its lineage.
pub(super) async fn refuse_unless_last(
    catalog: &Catalog,
    request: &Request,
    base: (&Head, &HeadLog),
    stretch: Option<LogRange>,
) -> Result<(), EngineError> {
    let Err(refusal) = refuse_unless_end(catalog, request, base, stretch).await else {
        return Ok(());
    };
    let (_, log) = base;
    let end = stretch.map_or(log.range(), |LogRange { to, .. }| LogRange { from: to, to });
    Err(because_lost(catalog, refusal, request, (log.system, end)).await?)
}

async fn refuse_unless_end(
    catalog: &Catalog,
    request: &Request,
    base: (&Head, &HeadLog),
    stretch: Option<LogRange>,
) -> Result<(), EngineError> {
    let (head, log) = base;
    let Some(chain) = &catalog.chain else {
        return refuse_if_log_has_no_record(catalog, head, request.now).await;
    };
    if let Some(part) = catalog.closed_beyond(stretch.map_or(log.start, |stretch| stretch.to)) {
        let last = match stretch {
            Some(stretch) => last_target(catalog, log, stretch).await,
            None => "--to immediate".to_owned(),
        };
        return Err(catalog.refuse_latest(part, &last));
    }
    let Some(stretch) = stretch else {
        return Err(unreached(catalog, request, head, log).await);
    };
    refuse_if_a_gap_follows(catalog, log, stretch).await?;
    match newest(catalog, request.now).await? {
        Some((newest, its)) if lies_beyond(its, log, stretch) => {
            return Err(unreached(catalog, request, newest, its).await);
        }
        _ => {}
    }
    match lost_end(catalog, chain, request.now).await? {
        Some(lost) => {
            let last = last_target(catalog, log, stretch).await;
            let stored = chain.stretches(None).last().map(|last| last.to);
            Err(refusal_of(lost, stored, &catalog.source, &last))
        }
        None => Ok(()),
    }
}

/// Positions of another system or timeline are not compared.
fn lies_beyond(newest: &HeadLog, log: &HeadLog, stretch: LogRange) -> bool {
    (newest.system, newest.timeline) == (log.system, log.timeline) && newest.stop > stretch.to
}

async fn refuse_if_a_gap_follows(
    catalog: &Catalog,
    log: &HeadLog,
    stretch: LogRange,
) -> Result<(), EngineError> {
    let stretches = catalog.stretches(Some(log.range()));
    let stored = stretches
        .iter()
        .map(|later| later.from)
        .find(|from| *from > stretch.to);
    let declared = catalog
        .gap_at_the_end()
        .map(|gap| gap.to)
        .filter(|from| *from > stretch.to);
    let Some(after) = stored.or(declared) else {
        return Ok(());
    };
    let (from, to) = (Lsn::from(stretch.to), Lsn::from(after));
    let last = last_target(catalog, log, stretch).await;
    Err(EngineError::Unreachable {
        side: Side::Gap,
        what: format!(
            "the newest log cannot be reached: it has a gap from {from} to {to} after the newest base"
        ),
        advice: format!("recover the last point before the gap: {last}; and take a new backup now"),
    })
}

/// The last point of a stretch as a target.
async fn last_target(catalog: &Catalog, log: &HeadLog, stretch: LogRange) -> String {
    // Damage there is told when somebody aims at it.
    match last_record(catalog, log, stretch).await {
        Ok(Some(last)) => format!("--to lsn:{}", Lsn::from(last.last_start)),
        Ok(None) | Err(_) => "--to immediate".to_owned(),
    }
}

/// A backup that no stored log reaches.
async fn unreached(catalog: &Catalog, request: &Request, head: &Head, log: &HeadLog) -> EngineError {
    let (backup, source) = (&head.backup, &catalog.source);
    let which = match newest(catalog, request.now).await {
        Ok(Some((newest, _))) if newest.backup == *backup => "the newest backup",
        _ => "backup",
    };
    let stretches = catalog.stretches(None);
    let consistent = show_time(log.stop_time);
    let what = match stretches.last() {
        Some(last) if last.to <= log.stop => format!(
            "the stored log ends at {} and does not reach {which} {backup}, consistent at {consistent}",
            Lsn::from(last.to)
        ),
        _ => format!("no stored log goes on from {which} {backup}, consistent at {consistent}"),
    };
    let itself = match &request.base {
        Some(_) => format!("--base {backup} --to immediate"),
        None => "--to immediate".to_owned(),
    };
    let older = match end_of_log(catalog, request).await {
        Some(target) => format!("; or the last point of the log: {target}"),
        None => String::new(),
    };
    EngineError::Unreachable {
        side: Side::Gap,
        what,
        advice: format!(
            "recover the backup itself: {itself}{older}; and let the log go on: backstay stream {source}"
        ),
    }
}

/// The last point that a backup and the log after it reach; of the base that was asked for, if one was.
async fn end_of_log(catalog: &Catalog, request: &Request) -> Option<String> {
    let asked = |head: &&Head| request.base.as_ref().is_none_or(|base| head.backup == *base);
    for head in catalog.heads.iter().rev().filter(asked) {
        let Some(log) = head.log.as_ref().filter(|_| head.is_usable(request.now)) else {
            continue;
        };
        // What cannot be read is no point to name.
        if let Ok(Some(stretch)) = stretch_of(catalog, head, log).await {
            let target = last_target(catalog, log, stretch).await;
            return Some(match &request.base {
                Some(base) => format!("--base {base} {target}"),
                None => target,
            });
        }
    }
    None
}

/// Without lineage records a source never streamed, and its newest base is its newest point. Log that no record speaks
/// of says otherwise, as does a stream that was attached once: `latest` would go back behind what was confirmed, unless this
/// base has all of it.
async fn refuse_if_log_has_no_record(
    catalog: &Catalog,
    head: &Head,
    now: Timestamp,
) -> Result<(), EngineError> {
    let (log, source) = (&catalog.log, &catalog.source);
    if let Some(LostWhole { tells, has_end }) = lost_whole(log, now).await? {
        let lost = catalog.lost_log(now).await?;
        if has_end && !lost.is_empty() && lost.iter().all(|loss| loss.is_behind(head)) {
            return Ok(());
        }
        return Err(EngineError::Lost {
            what: format!("all log of {source} is lost: {tells}, and nothing of it is stored any more"),
            advice: format!(
                "bring it back from a copy of the repository, or recover the newest backup itself: --to immediate; \
                 and take a new backup now: backstay backup {source}"
            ),
        });
    }
    let Some(range) = log.any_range().await? else {
        return Ok(());
    };
    Err(EngineError::Integrity {
        what: format!(
            "log of {source} is stored ({range}) and no record of its lineage: what is newest cannot be told"
        ),
    })
}
