//! `status`: can I recover, from when, to when, and is that what was promised.
//!
//! Promise: one line per service answers; what is wrong follows with the next command to type.

use super::seen::{NO_SERVICES, Seen, chosen, last_trouble, lost_json, moment, show_range};
use crate::access;
use crate::cli::{OnViolation, Status as Arguments};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::{Look, Mark};
use crate::render::table::{Column, Table};
use crate::session::Session;
use crate::units::{count, print_duration};
use backstay_engine::plan::{LostLog, show_time};
use backstay_postgres::base_backup::BaseFacts;
use backstay_repository::RunFinished;
use backstay_terms::{EngineKind, Lsn};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

/// Answers for one service, or for all.
pub async fn status(session: &mut Session, arguments: &Arguments) -> Result<Box<dyn Report>, Failure> {
    let config = session.config()?;
    let services = chosen(&config, arguments.services.service.as_deref())?;
    let repository = access::repository(session).await?;
    let now = session.clock.now();
    let mut answers = Vec::new();
    let all = Seen::of_each(&repository, &services, now).await?;
    for (service, seen) in services.into_iter().zip(all) {
        answers.push(Answer {
            seen,
            rpo: service.objective.rpo.value,
            trouble: last_trouble(&repository, &service.name, now).await?,
            now,
        });
    }
    Ok(Box::new(Status {
        answers,
        on_violation: arguments.on_violation(),
    }))
}

struct Answer {
    seen: Seen,
    rpo: Duration,
    trouble: Option<RunFinished>,
    now: Timestamp,
}

/// What is not as it should be, and what to type.
struct Complaint {
    mark: Mark,
    what: String,
    next: String,
}

impl Answer {
    fn violates(&self) -> bool {
        self.seen.behind(self.now).is_none_or(|behind| behind > self.rpo)
    }

    fn state(&self) -> (Mark, &'static str) {
        let complaints = self.complaints();
        let has = |mark| complaints.iter().any(|complaint| complaint.mark == mark);
        match (has(Mark::Bad), has(Mark::Warning)) {
            (true, _) => (Mark::Bad, "failing"),
            (false, true) => (Mark::Warning, "warn"),
            (false, false) => (Mark::Good, "ok"),
        }
    }

    /// The kind of server, with its major version where a backup tells it.
    fn engine(&self) -> String {
        let kind = EngineKind::Postgres.name();
        let facts = self.seen.heads.last().map(|head| head.engine.clone());
        let facts = facts.and_then(|facts| serde_json::from_value::<BaseFacts>(facts).ok());
        facts.map_or_else(
            || kind.to_owned(),
            |facts| format!("{kind} {}", facts.version.major()),
        )
    }

    /// The size of what the newest backup restores.
    fn size(&self) -> String {
        let newest = self.seen.heads.last();
        newest.map_or_else(|| "-".to_owned(), |head| head.totals.bytes.to_string())
    }

    fn recoverable(&self, look: &Look) -> String {
        let window = &self.seen.window;
        let ranges = window.ranges.iter();
        let mut parts: Vec<String> = ranges
            .map(|range| show_range(look, range.from_time, range.to_time))
            .collect();
        // A backup that the log does not reach is one point, never the end of a range.
        let newest = window.points.iter().map(|(_, time)| *time).max();
        parts.extend(newest.map(|time| match window.points.len() {
            1 => format!("at {}", look.time(moment(time))),
            more => format!(
                "at {} and {} before",
                look.time(moment(time)),
                count(more - 1, "point")
            ),
        }));
        match parts.is_empty() {
            true if self.seen.trouble.is_some() => "unknown".to_owned(),
            true => "nothing".to_owned(),
            false => parts.join(", "),
        }
    }

    fn complaints(&self) -> Vec<Complaint> {
        let service = &self.seen.service;
        if let Some(trouble) = &self.seen.trouble {
            return vec![Complaint {
                mark: Mark::Bad,
                what: format!("what is stored of it cannot be told: {}", trouble.message),
                next: format!("backstay verify {service}; {}", trouble.help.join("; ")),
            }];
        }
        let mut complaints: Vec<Complaint> = self.objective_complaint().into_iter().collect();
        if !self.seen.rivals.is_empty() {
            let rivals = self.seen.rivals.iter().map(|rival| rival.branch.to_string());
            let rivals = rivals.collect::<Vec<_>>().join(", ");
            complaints.push(Complaint {
                mark: Mark::Bad,
                what: format!(
                    "there is more than one history of bytes, and nobody has said which one counts; besides what is shown: {rivals}"
                ),
                next: format!(
                    "backstay lineage list {service}, then backstay lineage adopt {service} LINEAGE"
                ),
            });
        }
        if !self.seen.window.gaps.is_empty() {
            let gaps = count(self.seen.window.gaps.len(), "gap");
            complaints.push(Complaint {
                mark: Mark::Warning,
                what: format!("the log has {gaps}"),
                next: format!("backstay wal gaps {service}"),
            });
        }
        let unreadable = self.seen.unread.objects();
        if let Some(first) = unreadable.first() {
            complaints.push(Complaint {
                mark: Mark::Warning,
                what: format!(
                    "{} cannot be opened: {}",
                    count(unreadable.len(), "backup or lineage record"),
                    first.why
                ),
                next: format!("backstay verify {service}"),
            });
        }
        if let Some(first) = self.seen.closed.first() {
            complaints.push(Complaint {
                mark: Mark::Warning,
                what: format!(
                    "{} of the log cannot be opened, the first from {} to {}: {}",
                    count(self.seen.closed.len(), "part"),
                    Lsn::from(first.range.from),
                    Lsn::from(first.range.to),
                    first.why
                ),
                next: format!("backstay verify {service}"),
            });
        }
        complaints.extend(self.loss_complaints());
        if let Some(refused) = &self.seen.latest_refused {
            let lost = refused.code.exit() == Exit::Integrity;
            complaints.push(Complaint {
                mark: if lost { Mark::Bad } else { Mark::Warning },
                what: format!("--to latest is refused: {}", refused.message),
                next: refused.help.join("; "),
            });
        }
        if let Some(run) = &self.trouble {
            let error = run.error.as_deref().unwrap_or("it does not say why");
            complaints.push(Complaint {
                mark: Mark::Warning,
                what: format!("the last {} failed: {error}", run.started.verb),
                next: format!("backstay show run {}", run.started.run),
            });
        }
        complaints
    }

    /// A loss is as bad as it can be until a backup has everything that was lost, or is newer.
    fn loss_complaints(&self) -> Vec<Complaint> {
        let (service, heads) = (&self.seen.service, &self.seen.heads);
        let next = || format!("bring it back from a copy of the repository, or: backstay backup {service}");
        let more = |count: usize| match count {
            0 | 1 => String::new(),
            all => format!("; and {} more", all - 1),
        };
        let mark = |is_bad: bool| if is_bad { Mark::Bad } else { Mark::Warning };
        let backup = self.seen.lost.last().map(|lost| Complaint {
            mark: mark(lost.is_newest),
            what: lost.words() + &more(self.seen.lost.len()),
            next: next(),
        });
        let headless = self.seen.headless.last().map(|headless| Complaint {
            mark: mark(headless.is_untold()),
            what: headless.words(),
            next: format!("backstay verify {service}; take a new backup: backstay backup {service}"),
        });
        let usable = || heads.iter().filter(|head| head.is_usable(self.now));
        let is_open = |lost: &&LostLog| !usable().any(|head| lost.is_behind(head));
        let log = &self.seen.lost_log;
        let worst = log.iter().rfind(is_open).or(log.last());
        let log = worst.map(|lost| Complaint {
            mark: mark(is_open(&lost)),
            what: lost.words() + &more(log.len()),
            next: next(),
        });
        backup.into_iter().chain(headless).chain(log).collect()
    }

    fn objective_complaint(&self) -> Option<Complaint> {
        let service = &self.seen.service;
        let (what, next) = match self.seen.behind(self.now) {
            None if self.seen.heads.is_empty() => (
                "nothing can be recovered: there is no backup yet".to_owned(),
                format!("backstay backup {service}"),
            ),
            None => (
                "nothing can be recovered: no backup is usable".to_owned(),
                format!("backstay list {service}"),
            ),
            Some(behind) if behind > self.rpo => {
                let over = print_duration(rounded(behind - self.rpo));
                let next = match self.seen.window.ranges.is_empty() {
                    true => format!(
                        "backstay stream {service} (nothing follows the log), then backstay backup {service}"
                    ),
                    false => format!("backstay stream {service}, and see that it goes on running"),
                };
                (format!("RPO is over its objective by {over}"), next)
            }
            Some(_) => return None,
        };
        let mark = Mark::Bad;
        Some(Complaint { mark, what, next })
    }
}

/// To the second, or to the minute when it is hours.
fn rounded(length: Duration) -> Duration {
    let unit = if length.as_secs() < 3600 { 1 } else { 60 };
    Duration::from_secs(length.as_secs() / unit * unit)
}

struct Status {
    answers: Vec<Answer>,
    on_violation: OnViolation,
}

impl Status {
    fn table(&self, look: &Look) -> String {
        let mut table = Table::new([
            Column::needed("SERVICE"),
            Column::extra("ENGINE"),
            Column::needed("STATE"),
            Column::needed("RECOVERABLE"),
            Column::needed("RPO (GOAL)"),
            Column::useful("GAPS").right(),
            Column::useful("BACKUPS").right(),
            Column::extra("SIZE").right(),
        ]);
        for answer in &self.answers {
            let (mark, word) = answer.state();
            let behind = answer.seen.behind(answer.now).map(rounded);
            let behind = behind.map_or("-".to_owned(), print_duration);
            table.row([
                answer.seen.service.to_string(),
                answer.engine(),
                format!("{} {word}", look.sign(mark)),
                answer.recoverable(look),
                format!("{behind} ({})", print_duration(answer.rpo)),
                answer.seen.window.gaps.len().to_string(),
                answer.seen.heads.len().to_string(),
                answer.size(),
            ]);
        }
        table.render(look)
    }
}

impl Report for Status {
    fn human(&self, look: &Look) -> String {
        if self.answers.is_empty() {
            return NO_SERVICES.to_owned();
        }
        let mut text = self.table(look);
        for answer in &self.answers {
            for complaint in answer.complaints() {
                let Complaint { mark, what, next } = complaint;
                let (mark, service) = (look.mark(mark), &answer.seen.service);
                text.push_str(&format!("\n{mark} {service}: {what}\n  next: {next}\n"));
            }
        }
        text
    }

    fn json(&self) -> Value {
        let one = |answer: &Answer| {
            let seen = &answer.seen;
            json!({
                "service": seen.service,
                "engine": answer.engine(),
                "bytes": seen.heads.last().map(|head| head.totals.bytes),
                "state": answer.state().1,
                "recoverable_from": seen.window.oldest().map(show_time),
                "recoverable_to": seen.window.newest().map(show_time),
                "rpo_seconds": seen.behind(answer.now).map(|behind| behind.as_secs()),
                "rpo_objective_seconds": answer.rpo.as_secs(),
                "objective_met": !answer.violates(),
                "backups": seen.heads.len(),
                "gaps": seen.window.gaps.len(),
                "rival_lineages": seen.rivals.iter().map(|rival| rival.branch.to_string()).collect::<Vec<_>>(),
                "unreadable": seen.unreadable,
                "lost": seen.lost.iter().map(|lost| &lost.backup).collect::<Vec<_>>(),
                "lost_log": seen.lost_log.iter().map(lost_json).collect::<Vec<_>>(),
                "points": seen.window.points.len(),
                "latest_refused": seen.latest_refused.as_ref().map(|refused| &refused.message),
                "trouble": seen.trouble.as_ref().map(|trouble| &trouble.message),
                "last_failed_run": answer.trouble.as_ref().map(|run| json!({
                    "run": run.started.run, "verb": run.started.verb, "finished": run.finished, "error": run.error,
                })),
            })
        };
        json!({ "services": self.answers.iter().map(one).collect::<Vec<_>>() })
    }

    fn exit(&self) -> Exit {
        match self.on_violation {
            OnViolation::Exit if self.answers.iter().any(Answer::violates) => Exit::Objective,
            _ if self.answers.iter().any(|answer| answer.seen.trouble.is_some()) => Exit::Incomplete,
            _ => Exit::Done,
        }
    }
}
