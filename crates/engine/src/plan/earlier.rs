//! What the stored log says of a transaction or a restore point that no backup reaches: it lies before the oldest backup, or
//! the transaction was a part of another one.
//!
//! Promise: looked for only when it was found nowhere else, and said only where it was found; log that cannot be read is passed
//! over, because the refusal that stands otherwise says that it may lie there.
//! Not here: targets that carry their place themselves, times and positions (restore).

use super::catalog::Catalog;
use super::names::only_point;
use super::resolve::Resolver;
use super::restore::{Request, show_time};
use crate::{EngineError, Side};
use backstay_repository::{Head, HeadLog};
use backstay_source::LogFormat;
use backstay_terms::{LogRange, Position, RecoveryTarget};

/// Why the target cannot be reached, if it lies before the oldest of all backups.
pub(super) async fn before_the_oldest(
    catalog: &Catalog,
    request: &Request,
    format: &dyn LogFormat,
    oldest: Option<&Head>,
) -> Option<EngineError> {
    let log = oldest?.log.as_ref()?;
    let is_earlier = match &request.target {
        _ if request.base.is_some() => false,
        RecoveryTarget::Name(name) => {
            let point = only_point(catalog, name).await.ok().flatten();
            point.is_some_and(|point| point < log.stop)
        }
        RecoveryTarget::Transaction(_) => ends_before(catalog, request, format, log).await,
        _ => false,
    };
    is_earlier.then(|| {
        let (target, first) = (&request.target, show_time(log.stop_time));
        EngineError::Unreachable {
            side: Side::Before,
            what: format!(
                "{target} is in the stored log before the first point of {} that can be recovered, {first}",
                catalog.source
            ),
            advice: format!("the nearest point that can be recovered: --to \"{first}\""),
        }
    })
}

/// Why a transaction has no end of its own, if it was a subtransaction.
pub(super) async fn part_of_another(
    catalog: &Catalog,
    request: &Request,
    format: &dyn LogFormat,
    oldest: Option<&Head>,
) -> Option<EngineError> {
    let RecoveryTarget::Transaction(xid) = request.target else {
        return None;
    };
    let log = oldest?.log.as_ref()?;
    for (from_its_start, stretch) in stretches_before(catalog, log, Position(u64::MAX)) {
        let resolver = resolver(catalog, format, &from_its_start, stretch);
        if let Ok(Some(whole)) = resolver.whole_of(xid).await {
            return Some(EngineError::NoSuchThing {
                what: format!("transaction {xid} is a subtransaction of {whole} and ends with it"),
                advice: format!("choose that one: --to xid:{whole}"),
            });
        }
    }
    None
}

async fn ends_before(catalog: &Catalog, request: &Request, format: &dyn LogFormat, log: &HeadLog) -> bool {
    for (from_its_start, stretch) in stretches_before(catalog, log, log.stop) {
        let resolver = resolver(catalog, format, &from_its_start, stretch);
        if let Ok(Some(_)) = resolver.resolve(&request.target).await {
            return true;
        }
    }
    false
}

/// The contiguous stored log up to a position, each stretch with the facts of a base that would have ended at its start.
fn stretches_before(catalog: &Catalog, log: &HeadLog, until: Position) -> Vec<(HeadLog, LogRange)> {
    let stretches = catalog.chain.iter().flat_map(|chain| chain.stretches(None));
    let before = stretches.filter_map(|stretch| LogRange::new(stretch.from, stretch.to.min(until)));
    before
        .map(|stretch| {
            let stop = stretch.from;
            (HeadLog { stop, ..log.clone() }, stretch)
        })
        .collect()
}

fn resolver<'a>(
    catalog: &'a Catalog,
    format: &'a dyn LogFormat,
    log: &'a HeadLog,
    stretch: LogRange,
) -> Resolver<'a> {
    let target = catalog.chain.as_ref().and_then(|chain| chain.target());
    Resolver {
        catalog,
        format,
        log,
        timeline: target.map_or(log.timeline, |link| link.branch.timeline),
        stretch,
    }
}
