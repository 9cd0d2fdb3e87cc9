//! `status`, `window` and `list`: what can be recovered.

use crate::access;
use crate::cli::Services;
use crate::config::Service;
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::Look;
use crate::render::table::{Column, Table};
use crate::session::Session;
use backstay_engine::plan::{Catalog, Window, show_time, window};
use backstay_repository::{Head, HeadVerdict, Repository};
use backstay_terms::{EngineKind, Lsn};
use jiff::Timestamp;
use serde_json::{Value, json};

/// One service with what is known about it.
struct Seen {
    service: String,
    heads: Vec<Head>,
    window: Window,
}

async fn look_at(repository: &Repository, service: &Service, now: Timestamp) -> Result<Seen, Failure> {
    let catalog = Catalog::read(repository, EngineKind::Postgres, &service.name, None).await?;
    let window = window(&catalog, now).await?;
    Ok(Seen {
        service: service.name.to_string(),
        heads: catalog.heads,
        window,
    })
}

async fn look_at_all(session: &mut Session, arguments: &Services) -> Result<Vec<Seen>, Failure> {
    let config = session.config()?;
    let repository = access::repository(session).await?;
    let now = session.clock.now();
    let chosen: Vec<&Service> = match &arguments.service {
        Some(name) => vec![config.service(name)?],
        None => config.services.values().collect(),
    };
    let mut seen = Vec::new();
    for service in chosen {
        seen.push(look_at(&repository, service, now).await?);
    }
    Ok(seen)
}

/// Can I recover, from when, to when.
pub async fn status(session: &mut Session, arguments: &Services) -> Result<Box<dyn Report>, Failure> {
    let now = session.clock.now();
    Ok(Box::new(Status {
        seen: look_at_all(session, arguments).await?,
        now,
    }))
}

/// The ranges and the gaps.
pub async fn windows(session: &mut Session, arguments: &Services) -> Result<Box<dyn Report>, Failure> {
    Ok(Box::new(Windows {
        seen: look_at_all(session, arguments).await?,
    }))
}

/// The backups.
pub async fn list(session: &mut Session, arguments: &Services) -> Result<Box<dyn Report>, Failure> {
    Ok(Box::new(List {
        seen: look_at_all(session, arguments).await?,
    }))
}

struct Status {
    seen: Vec<Seen>,
    now: Timestamp,
}

impl Status {
    fn lag_seconds(&self, seen: &Seen) -> Option<i64> {
        let newest = seen.window.newest()?;
        let now = self.now.as_microsecond() - crate::time::POSTGRES_EPOCH;
        Some((now - newest).max(0) / 1_000_000)
    }
}

impl Report for Status {
    fn human(&self, look: &Look) -> String {
        let mut table = Table::new([
            Column::needed("SERVICE"),
            Column::needed("STATE"),
            Column::needed("RECOVERABLE"),
            Column::useful("BEHIND"),
            Column::useful("BACKUPS"),
        ]);
        for seen in &self.seen {
            let (oldest, newest) = (seen.window.oldest(), seen.window.newest());
            let state = match (&seen.window.ranges.is_empty(), newest) {
                (_, None) => "nothing",
                (true, _) => "snapshot-only",
                (false, _) => "ok",
            };
            let range = match (oldest, newest) {
                (Some(from), Some(to)) => format!("{} to {}", show_time(from), show_time(to)),
                _ => "no backup yet".to_owned(),
            };
            let lag = self
                .lag_seconds(seen)
                .map_or("-".to_owned(), |seconds| format!("{seconds} s"));
            table.row([
                seen.service.clone(),
                state.to_owned(),
                range,
                lag,
                seen.heads.len().to_string(),
            ]);
        }
        table.render(look)
    }

    fn json(&self) -> Value {
        let one = |seen: &Seen| {
            json!({
                "service": seen.service,
                "recoverable_from": seen.window.oldest().map(show_time),
                "recoverable_to": seen.window.newest().map(show_time),
                "behind_seconds": self.lag_seconds(seen),
                "backups": seen.heads.len(),
                "gaps": seen.window.gaps.len(),
            })
        };
        json!({ "services": self.seen.iter().map(one).collect::<Vec<_>>() })
    }
}

struct Windows {
    seen: Vec<Seen>,
}

impl Report for Windows {
    fn human(&self, look: &Look) -> String {
        let mut table = Table::new([
            Column::needed("SERVICE"),
            Column::needed("KIND"),
            Column::needed("FROM"),
            Column::needed("TO"),
            Column::useful("LSN"),
        ]);
        for seen in &self.seen {
            let service = || seen.service.clone();
            for range in &seen.window.ranges {
                let lsn = format!("{} to {}", Lsn::from(range.from), Lsn::from(range.to));
                table.row([
                    service(),
                    "range".into(),
                    show_time(range.from_time),
                    show_time(range.to_time),
                    lsn,
                ]);
            }
            for gap in &seen.window.gaps {
                let lsn = format!("{} to {}", Lsn::from(gap.from), Lsn::from(gap.to));
                table.row([service(), "gap".into(), "-".into(), "-".into(), lsn]);
            }
            for (backup, time) in &seen.window.points {
                table.row([
                    service(),
                    "point".into(),
                    show_time(*time),
                    show_time(*time),
                    backup.to_string(),
                ]);
            }
        }
        table.render(look)
    }

    fn json(&self) -> Value {
        let one = |seen: &Seen| {
            let range = |range: &backstay_engine::plan::WindowRange| {
                json!({
                    "from": show_time(range.from_time), "to": show_time(range.to_time), "base": range.base,
                    "from_lsn": Lsn::from(range.from), "to_lsn": Lsn::from(range.to),
                })
            };
            json!({
                "service": seen.service,
                "ranges": seen.window.ranges.iter().map(range).collect::<Vec<_>>(),
                "gaps": seen.window.gaps.iter().map(|gap| json!({
                    "from_lsn": Lsn::from(gap.from), "to_lsn": Lsn::from(gap.to),
                })).collect::<Vec<_>>(),
                "points": seen.window.points.iter().map(|(backup, time)| json!({
                    "backup": backup, "at": show_time(*time),
                })).collect::<Vec<_>>(),
            })
        };
        json!({ "services": self.seen.iter().map(one).collect::<Vec<_>>() })
    }
}

struct List {
    seen: Vec<Seen>,
}

fn note(seen: &Seen, head: &Head) -> &'static str {
    match head.verdict {
        HeadVerdict::Damaged => "damaged",
        HeadVerdict::Good
            if seen
                .window
                .points
                .iter()
                .any(|(backup, _)| *backup == head.backup) =>
        {
            "snapshot-only"
        }
        HeadVerdict::Good => "pitr",
    }
}

impl Report for List {
    fn human(&self, look: &Look) -> String {
        let mut table = Table::new([
            Column::needed("SERVICE"),
            Column::needed("BACKUP"),
            Column::useful("TAKEN"),
            Column::useful("KIND"),
            Column::useful("SIZE"),
            Column::useful("STORED"),
            Column::useful("KEPT UNTIL"),
            Column::needed("STATE"),
        ]);
        for seen in &self.seen {
            for head in &seen.heads {
                table.row([
                    seen.service.clone(),
                    head.backup.to_string(),
                    crate::time::in_utc(head.created),
                    head.kind.name().to_owned(),
                    head.totals.bytes.to_string(),
                    head.totals.stored.to_string(),
                    crate::time::in_utc(head.expires_at),
                    note(seen, head).to_owned(),
                ]);
            }
        }
        table.render(look)
    }

    fn json(&self) -> Value {
        let one = |seen: &Seen| {
            let head = |head: &Head| {
                json!({
                    "backup": head.backup, "kind": head.kind, "created": head.created, "class": head.class,
                    "expires_at": head.expires_at, "bytes": head.totals.bytes, "stored": head.totals.stored,
                    "verdict": head.verdict, "state": note(seen, head),
                })
            };
            json!({ "service": seen.service, "backups": seen.heads.iter().map(head).collect::<Vec<_>>() })
        };
        json!({ "services": self.seen.iter().map(one).collect::<Vec<_>>() })
    }
}
