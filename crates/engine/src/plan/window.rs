//! Which points can be recovered: from when, to when, with which gaps.
//!
//! Promise: the lower bound is the end of the oldest usable base, the upper bound the newest point that the stored log
//! proves; a base that the log does not reach is a point of its own, never part of a range. Log that cannot be opened
//! belongs to no range.

use super::catalog::Catalog;
use crate::EngineError;
use backstay_terms::{BackupId, LogRange, Position};
use jiff::Timestamp;
use serde::Serialize;

/// A mark proves quiet up to one second before its time: a commit's time is taken before its record is written.
pub const QUIET_MARGIN: i64 = 1_000_000;

/// A range of points that can be recovered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WindowRange {
    /// The oldest base of the range.
    pub base: BackupId,
    /// Where it is consistent.
    pub from: Position,
    /// The end of the stretch.
    pub to: Position,
    /// The clock at `from`: microseconds since 2000-01-01 00:00:00 UTC.
    pub from_time: i64,
    /// The newest time that can be aimed at.
    pub to_time: i64,
}

/// What can be recovered of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Ranges, oldest first.
    pub ranges: Vec<WindowRange>,
    /// Holes of the log between stretches, and one that the newest attachment declared.
    pub gaps: Vec<LogRange>,
    /// Bases that no range holds: each is the one point at which it is consistent.
    pub points: Vec<(BackupId, i64)>,
}

impl Window {
    /// The newest recoverable time.
    pub fn newest(&self) -> Option<i64> {
        let points = self.points.iter().map(|(_, time)| *time);
        self.ranges.iter().map(|range| range.to_time).chain(points).max()
    }

    /// The oldest recoverable time.
    pub fn oldest(&self) -> Option<i64> {
        let points = self.points.iter().map(|(_, time)| *time);
        self.ranges
            .iter()
            .map(|range| range.from_time)
            .chain(points)
            .min()
    }
}

/// Computes the window from the catalog.
pub async fn window(catalog: &Catalog, now: Timestamp) -> Result<Window, EngineError> {
    catalog.look_at_keys().await?;
    loop {
        match window_of_open(catalog, now).await {
            Err(error) => catalog.close(error)?,
            answer => return answer,
        }
    }
}

/// The window of what is not known to be closed.
async fn window_of_open(catalog: &Catalog, now: Timestamp) -> Result<Window, EngineError> {
    let stretches = catalog.stretches(None);
    let stored = catalog.chain.as_ref().map(|chain| chain.stretches(None));
    let mut gaps = backstay_repository::gaps(&stored.unwrap_or_default());
    gaps.extend(catalog.gap_at_the_end());
    let mut window = Window {
        gaps,
        ..Window::default()
    };
    for head in catalog.heads.iter().filter(|head| head.is_usable(now)) {
        let Some(log) = &head.log else {
            continue;
        };
        let stretch = stretches.iter().find(|s| s.from <= log.stop && log.stop < s.to);
        match stretch {
            Some(stretch) if catalog.is_on_chain(head).await? => {
                let known = window.ranges.iter_mut().find(|range| range.to == stretch.to);
                if let Some(range) = known {
                    if log.stop < range.from {
                        range.base = head.backup.clone();
                        (range.from, range.from_time) = (log.stop, log.stop_time);
                    }
                    continue;
                }
                let to_time = newest_time(
                    catalog,
                    LogRange {
                        from: log.stop,
                        to: stretch.to,
                    },
                )
                .await?;
                window.ranges.push(WindowRange {
                    base: head.backup.clone(),
                    from: log.stop,
                    to: stretch.to,
                    from_time: log.stop_time,
                    to_time: to_time.unwrap_or(log.stop_time).max(log.stop_time),
                });
            }
            _ => window.points.push((head.backup.clone(), log.stop_time)),
        }
    }
    window.ranges.sort_by_key(|range| range.from);
    Ok(window)
}

/// The newest time that the log in `stretch` proves: a commit or abort, or a mark less its margin.
pub(crate) async fn newest_time(catalog: &Catalog, stretch: LogRange) -> Result<Option<i64>, EngineError> {
    let mark = catalog
        .newest_mark(stretch.from, stretch.to)
        .await?
        .map(|time| time - QUIET_MARGIN);
    let Some(chain) = &catalog.chain else {
        return Ok(mark);
    };
    let choices = chain.choose(stretch).map_err(|gap| catalog.gap(gap))?;
    for choice in choices.iter().rev() {
        if let Some(time) = catalog.last_time_in(choice).await? {
            return Ok(mark.max(Some(time)));
        }
    }
    Ok(mark)
}
