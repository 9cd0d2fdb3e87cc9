//! `window`: the ranges of time that can be recovered, and the gaps between them.

use super::seen::{NO_SERVICES, Seen, closed_json, exit_of, lost_json, moment, show_range};
use crate::cli::Services;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::Look;
use crate::render::table::{Column, Table};
use crate::session::Session;
use backstay_engine::plan::{WindowRange, show_time};
use backstay_terms::Lsn;
use serde_json::{Value, json};

/// The ranges, gaps and points of one service, or of all.
pub async fn window(session: &mut Session, arguments: &Services) -> Result<Box<dyn Report>, Failure> {
    let seen = Seen::of_all(session, arguments).await?;
    Ok(Box::new(Windows { seen }))
}

struct Windows {
    seen: Vec<Seen>,
}

fn add_rows(table: &mut Table, seen: &Seen, look: &Look) {
    let service = seen.service.to_string();
    let lsn = |from, to| format!("{} {} {}", Lsn::from(from), look.arrow(), Lsn::from(to));
    for range in &seen.window.ranges {
        let times = show_range(look, range.from_time, range.to_time);
        let lsn = lsn(range.from, range.to);
        table.row([
            service.clone(),
            "range".to_owned(),
            times,
            lsn,
            range.base.to_string(),
        ]);
    }
    for gap in &seen.window.gaps {
        let lsn = lsn(gap.from, gap.to);
        table.row([service.as_str(), "gap", "cannot be recovered", &lsn, "-"]);
    }
    for lost in &seen.lost_log {
        let range = lost.range();
        let lsn = lsn(range.from, range.to);
        table.row([service.as_str(), "lost", "was stored and is gone", &lsn, "-"]);
    }
    for part in &seen.closed {
        let lsn = lsn(part.range.from, part.range.to);
        table.row([service.as_str(), "unreadable", "cannot be opened", &lsn, "-"]);
    }
    for (backup, time) in &seen.window.points {
        let time = look.time(moment(*time));
        table.row([service.as_str(), "point", &time, "-", backup.as_str()]);
    }
    if seen.trouble.is_some() {
        table.row([service.as_str(), "unknown", "cannot be told", "-", "-"]);
    } else if seen.window.newest().is_none() {
        table.row([service.as_str(), "nothing", "no usable backup", "-", "-"]);
    }
}

impl Report for Windows {
    fn human(&self, look: &Look) -> String {
        if self.seen.is_empty() {
            return NO_SERVICES.to_owned();
        }
        let mut table = Table::new([
            Column::needed("SERVICE"),
            Column::needed("KIND"),
            Column::needed("RECOVERABLE"),
            Column::useful("LSN"),
            Column::extra("BASE"),
        ]);
        for seen in &self.seen {
            add_rows(&mut table, seen, look);
        }
        let untold: String = self.seen.iter().filter_map(Seen::untold_line).collect();
        table.render(look) + &untold
    }

    fn json(&self) -> Value {
        let range = |range: &WindowRange| {
            json!({
                "from": show_time(range.from_time), "to": show_time(range.to_time), "base": range.base,
                "from_lsn": Lsn::from(range.from), "to_lsn": Lsn::from(range.to),
            })
        };
        let one = |seen: &Seen| {
            json!({
                "service": seen.service,
                "ranges": seen.window.ranges.iter().map(range).collect::<Vec<_>>(),
                "gaps": seen.window.gaps.iter().map(|gap| json!({
                    "from_lsn": Lsn::from(gap.from), "to_lsn": Lsn::from(gap.to),
                })).collect::<Vec<_>>(),
                "lost": seen.lost_log.iter().map(lost_json).collect::<Vec<_>>(),
                "unreadable": seen.closed.iter().map(closed_json).collect::<Vec<_>>(),
                "points": seen.window.points.iter().map(|(backup, time)| json!({
                    "backup": backup, "at": show_time(*time),
                })).collect::<Vec<_>>(),
                "trouble": seen.trouble.as_ref().map(|trouble| &trouble.message),
            })
        };
        json!({ "services": self.seen.iter().map(one).collect::<Vec<_>>() })
    }

    fn exit(&self) -> Exit {
        exit_of(&self.seen)
    }
}
