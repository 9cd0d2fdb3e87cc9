//! Whether a transaction or a restore point that no backup reaches lies in the stored log before the oldest one.
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
use backstay_terms::{LogRange, RecoveryTarget};

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

async fn ends_before(catalog: &Catalog, request: &Request, format: &dyn LogFormat, log: &HeadLog) -> bool {
    let Some(chain) = &catalog.chain else {
        return false;
    };
    let timeline = chain.target().map_or(log.timeline, |link| link.branch.timeline);
    for stretch in chain.stretches(None) {
        let Some(stretch) = LogRange::new(stretch.from, stretch.to.min(log.stop)) else {
            continue;
        };
        let from_its_start = HeadLog {
            stop: stretch.from,
            ..log.clone()
        };
        let resolver = Resolver {
            catalog,
            format,
            log: &from_its_start,
            timeline,
            stretch,
        };
        if let Ok(Some(_)) = resolver.resolve(&request.target).await {
            return true;
        }
    }
    false
}
