//! Where a restore point of a name lies in the stored log of a lineage.
//!
//! Promise: a name is taken for one point only when it stands once in everything stored of the lineage and its
//! ancestors, also where no backup reaches it and before the base that would be chosen. Any narrower look makes the
//! same words mean another point as soon as a newer base is taken or an older one expires, and the copy that comes out
//! looks right. Where a part cannot be read, the name may stand there too: that is refused as well, with the positions
//! that are known.
//! Not here: finding the record in the bytes (resolve).

use super::catalog::Catalog;
use super::chain::Link;
use super::restore::show_time;
use crate::EngineError;
use backstay_repository::{StoredRange, missing, stretches};
use backstay_terms::{LogPointKind, LogRange, Lsn, Position};
use std::collections::BTreeMap;
use tracing::warn;

/// At most so many positions are listed, the newest.
const LISTED_MAX: usize = 20;

/// The restore points of one name, by position, each with its time.
type Points = BTreeMap<Position, Option<i64>>;

/// Refuses a name that means several points, or may.
///
/// # Errors
/// `Ambiguous`; whatever reading the facts of the log says, unless it is damage.
pub(super) async fn refuse_if_ambiguous(catalog: &Catalog, name: &str) -> Result<(), EngineError> {
    let (points, unread) = points_of(catalog, name).await?;
    match (points.len(), unread.first()) {
        (2.., _) => Err(several(catalog, name, &points)),
        (1, Some(unread)) => Err(perhaps_several(name, &points, *unread)),
        _ => Ok(()),
    }
}

/// The position of a name that stands once, wherever that is.
///
/// # Errors
/// Whatever reading the facts of the log says, unless it is damage.
pub(super) async fn only_point(catalog: &Catalog, name: &str) -> Result<Option<Position>, EngineError> {
    let (points, _) = points_of(catalog, name).await?;
    Ok(points.keys().next().copied().filter(|_| points.len() == 1))
}

/// All points of a name, and what of the log cannot be read.
async fn points_of(catalog: &Catalog, name: &str) -> Result<(Points, Vec<LogRange>), EngineError> {
    let mut points = Points::new();
    let mut unread = Vec::new();
    for link in catalog.chain.iter().flat_map(|chain| &chain.links) {
        unread.extend(add_points(catalog, link, name, &mut points).await?);
    }
    Ok((points, unread))
}

/// Adds the points of one lineage up to where its descendant left it; returns what of its log cannot be read.
async fn add_points(
    catalog: &Catalog,
    link: &Link,
    name: &str,
    points: &mut Points,
) -> Result<Vec<LogRange>, EngineError> {
    let (mut read, mut damaged) = (Vec::new(), Vec::new());
    let holds_log = |stored: &&StoredRange| !stored.name.range.is_mark();
    for stored in link.ranges.iter().filter(holds_log) {
        let facts = match catalog.facts_of(stored).await {
            Err(error) if error.is_damage() || error.is_about_keys() => {
                warn!(branch = %link.branch, %error, "a damaged range is not searched for restore points");
                damaged.push(stored.name.range);
                continue;
            }
            facts => facts?,
        };
        read.push(stored.name.range);
        let own = facts.points.iter().filter(|point| {
            point.kind == LogPointKind::RestorePoint
                && point.name.as_deref() == Some(name)
                && link.until.is_none_or(|until| point.start < until)
        });
        points.extend(own.map(|point| (point.start, point.time)));
    }
    let read = stretches(&read);
    let unread = damaged.into_iter().flat_map(|range| missing(range, &read));
    let before_the_fork = |range: &LogRange| link.until.is_none_or(|until| range.from < until);
    Ok(unread.filter(before_the_fork).collect())
}

fn several(catalog: &Catalog, name: &str, points: &Points) -> EngineError {
    let passed_over = points.len().saturating_sub(LISTED_MAX);
    let listed: Vec<String> = points.iter().skip(passed_over).map(show).collect();
    let older = match passed_over {
        0 => String::new(),
        more => format!(", and {more} older ones"),
    };
    EngineError::Ambiguous {
        what: format!(
            "restore point {name:?} stands {} times in the stored log of {}: at {}{older}",
            points.len(),
            catalog.source,
            listed.join(", at "),
        ),
        advice: format!("choose one by its position: {}", targets(points).join(" or ")),
    }
}

fn perhaps_several(name: &str, points: &Points, unread: LogRange) -> EngineError {
    let listed: Vec<String> = points.iter().map(show).collect();
    let (from, to) = (Lsn::from(unread.from), Lsn::from(unread.to));
    EngineError::Ambiguous {
        what: format!(
            "restore point {name:?} stands at {}, and whether it stands again between {from} and {to} cannot be told: \
             that log is damaged",
            listed.join(", at ")
        ),
        advice: format!(
            "if that is the one, name its position: {}",
            targets(points).join(" or ")
        ),
    }
}

fn show((at, time): (&Position, &Option<i64>)) -> String {
    let time = time.map(|time| format!(" ({})", show_time(time)));
    format!("{}{}", Lsn::from(*at), time.unwrap_or_default())
}

/// The newest ones that are listed, as targets.
fn targets(points: &Points) -> Vec<String> {
    let passed_over = points.len().saturating_sub(LISTED_MAX);
    let target = |at: &Position| format!("--to lsn:{}", Lsn::from(*at));
    points.keys().skip(passed_over).map(target).collect()
}
