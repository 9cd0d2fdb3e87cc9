//! `wal gaps` and `wal settle`: the stored log itself.

use super::seen::{Seen, chosen, closed_json, exit_of};
use crate::access;
use crate::cli::Services;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::Look;
use crate::render::table::{Column, Table};
use crate::session::Session;
use backstay_engine::jobs::recorded::recorded;
use backstay_engine::jobs::stream::settle_all;
use backstay_engine::{EngineError, Fact, Observer};
use backstay_terms::{ByteCount, LogRange, Lsn, SourceName};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Lists the gaps of the stored log.
pub async fn gaps(session: &mut Session, arguments: &Services) -> Result<Box<dyn Report>, Failure> {
    let seen = Seen::of_all(session, arguments).await?;
    Ok(Box::new(Gaps { seen }))
}

struct Gaps {
    seen: Vec<Seen>,
}

impl Gaps {
    /// Services of which no log is stored and none is known to be lost.
    fn without_log(&self) -> impl Iterator<Item = &SourceName> {
        let without = self.seen.iter().filter(|seen| seen.is_without_log());
        without.map(|seen| &seen.service)
    }

    /// Where there is no gap: of which services the stored log is whole.
    fn whole(&self) -> String {
        let stored = self.seen.iter().filter(|seen| !seen.stored_log.is_empty());
        let (open, closed): (Vec<&Seen>, Vec<&Seen>) = stored.partition(|seen| seen.closed.is_empty());
        let names: Vec<String> = open.iter().map(|seen| seen.service.to_string()).collect();
        if open.is_empty() {
            return String::new();
        }
        let of = match closed.is_empty() {
            true => String::new(),
            false => format!(" of {}", names.join(", ")),
        };
        format!("no gaps: the stored log{of} is whole from its first byte to its last\n")
    }

    /// Every gap with what tells that it was stored once, and what is lost beside them.
    fn all(&self) -> Vec<(&SourceName, LogRange, Option<&str>)> {
        let mut all = Vec::new();
        for seen in &self.seen {
            let mut gaps: Vec<(LogRange, Option<&str>)> = Vec::new();
            for gap in &seen.window.gaps {
                let touches = |range: LogRange| range.from < gap.to && gap.from < range.to;
                let mut lost = seen.lost_log.iter();
                let by = lost
                    .find(|lost| touches(lost.range()))
                    .map(|lost| lost.by.as_str());
                gaps.push((*gap, by));
            }
            for lost in &seen.lost_log {
                let range = lost.range();
                let within = |gap: &LogRange| gap.from <= range.from && range.to <= gap.to;
                if !seen.window.gaps.iter().any(within) {
                    gaps.push((range, Some(&lost.by)));
                }
            }
            gaps.sort();
            all.extend(gaps.into_iter().map(|(gap, by)| (&seen.service, gap, by)));
        }
        all
    }
}

/// What a table of gaps cannot say of a service.
fn note(seen: &Seen) -> Option<String> {
    let service = &seen.service;
    let closed = |words| {
        format!(
            "{service}: {words}; no restore crosses what cannot be opened\n  next: backstay verify {service}\n"
        )
    };
    match seen.untold_line() {
        None if seen.is_empty() => Some(format!(
            "{service}: nothing is stored of it, neither log nor a backup; begin with: backstay stream {service}, and backstay backup {service}\n"
        )),
        None if seen.is_without_log() => Some(format!(
            "{service}: no log is stored, so it has no gaps: only its backups can be restored; store it with: backstay stream {service}\n"
        )),
        None => seen.closed_words().map(closed),
        untold => untold,
    }
}

impl Report for Gaps {
    fn human(&self, look: &Look) -> String {
        let mut table = Table::new([
            Column::needed("SERVICE"),
            Column::needed("FROM"),
            Column::needed("TO"),
            Column::useful("MISSING").right(),
            Column::extra("TOLD BY"),
        ]);
        let all = self.all();
        for (service, gap, by) in &all {
            let missing = ByteCount(gap.length()).to_string();
            let (from, to) = (Lsn::from(gap.from).to_string(), Lsn::from(gap.to).to_string());
            let by = by.unwrap_or("-").to_owned();
            table.row([service.to_string(), from, to, missing, by]);
        }
        let gaps = match all.is_empty() {
            false => {
                table.render(look)
                    + "points before a gap can be recovered up to it, points after it from the next backup on\n"
            }
            true => self.whole(),
        };
        gaps + &self.seen.iter().filter_map(note).collect::<String>()
    }

    fn json(&self) -> Value {
        let gap = |(service, gap, by): (&SourceName, LogRange, Option<&str>)| {
            json!({
                "service": service, "from_lsn": Lsn::from(gap.from), "to_lsn": Lsn::from(gap.to),
                "bytes": gap.length(), "lost_by": by,
            })
        };
        let untold = |seen: &Seen| {
            let trouble = &seen.trouble.as_ref()?.message;
            Some(json!({ "service": seen.service, "trouble": trouble }))
        };
        let unreadable = |seen: &Seen| {
            let of_service = |part| {
                let mut told = closed_json(part);
                told["service"] = json!(seen.service);
                told
            };
            seen.closed.iter().map(of_service).collect::<Vec<_>>()
        };
        json!({
            "gaps": self.all().into_iter().map(gap).collect::<Vec<_>>(),
            "unreadable": self.seen.iter().flat_map(unreadable).collect::<Vec<_>>(),
            "without_log": self.without_log().collect::<Vec<_>>(),
            "untold": self.seen.iter().filter_map(untold).collect::<Vec<_>>(),
        })
    }

    fn exit(&self) -> Exit {
        exit_of(&self.seen)
    }
}

/// Writes settled ranges for whatever only live ranges hold. Needs the repository and the keys, never the server. Damage
/// fails the command after everything else is settled.
pub async fn settle(session: &mut Session, arguments: &Services) -> Result<Box<dyn Report>, Failure> {
    let config = session.config()?;
    let services = chosen(&config, arguments.service.as_deref())?;
    let repository = access::repository(session).await?;
    let mut settled = Vec::new();
    let mut damaged = None;
    for service in services {
        let counter = Counter::default();
        let work = |_| async {
            settle_all(&repository, &service.name, &counter).await?;
            counter.outcome()
        };
        let figures = |bytes: &u64| json!({ "bytes": bytes });
        match recorded(&repository, "settle", service.name.as_str(), work, figures).await {
            Ok(bytes) => settled.push(SettledService {
                name: service.name.to_string(),
                bytes,
                apart: counter.apart(),
            }),
            Err(error @ EngineError::Integrity { .. }) => {
                damaged.get_or_insert(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    match damaged {
        Some(error) => Err(error.into()),
        None => Ok(Box::new(Settled { settled })),
    }
}

#[derive(Debug, Default)]
struct Counter {
    bytes: AtomicU64,
    damaged: Mutex<Vec<String>>,
    apart: Mutex<Vec<String>>,
}

impl Counter {
    /// The bytes that were settled; an integrity error if anything was damaged.
    fn outcome(&self) -> Result<u64, EngineError> {
        let damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(first) = damaged.first() else {
            return Ok(self.bytes.load(Ordering::Relaxed));
        };
        let what = match damaged.len() - 1 {
            0 => first.clone(),
            more => format!("{first}, and {more} more"),
        };
        Err(EngineError::Integrity { what })
    }
}

impl Counter {
    fn apart(&self) -> Vec<String> {
        std::mem::take(&mut *self.apart.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Counter {
    fn observe(&self, fact: &Fact) {
        match fact {
            Fact::Settled { bytes } => {
                self.bytes.fetch_add(bytes.0, Ordering::Relaxed);
            }
            Fact::LineageBegan { branch, reason } => {
                let mut apart = self.apart.lock().unwrap_or_else(PoisonError::into_inner);
                apart.push(format!("{branch}: {reason}"));
            }
            Fact::LogDamaged { from, to, what } => {
                let (from, to) = (Lsn::from(*from), Lsn::from(*to));
                let line = format!("the log from {from} to {to} is damaged and stays unsettled: {what}");
                let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
                damaged.push(line);
            }
            _ => {}
        }
    }
}

struct SettledService {
    name: String,
    bytes: u64,
    /// What was told apart, in words.
    apart: Vec<String>,
}

struct Settled {
    settled: Vec<SettledService>,
}

impl Report for Settled {
    fn human(&self, _: &Look) -> String {
        let mut text = String::new();
        for SettledService { name, bytes, apart } in &self.settled {
            for apart in apart {
                text += &format!(
                    "{name}: {apart}\n  next: backstay lineage list {name}; backstay backup {name}\n"
                );
            }
            text += &match bytes {
                0 => format!("{name}: everything was settled already\n"),
                bytes => format!("{name}: {} settled\n", ByteCount(*bytes)),
            };
        }
        text
    }

    fn json(&self) -> Value {
        let one = |of: &SettledService| json!({ "service": of.name, "bytes": of.bytes, "apart": of.apart });
        json!({ "services": self.settled.iter().map(one).collect::<Vec<_>>() })
    }
}
