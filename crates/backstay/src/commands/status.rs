//! `status`: can I recover, from when, to when, and is that what was promised.
//!
//! Promise: one line per service answers; what is wrong follows with the next command to type.
//! Not here: what counts as wrong (status::complaints).

mod complaints;

use super::seen::{NO_SERVICES, Seen, chosen, last_trouble, lost_json, misdated_words, moment, show_range};
use crate::access;
use crate::cli::{OnViolation, Status as Arguments};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::{Look, Mark};
use crate::render::table::{Column, Table};
use crate::session::Session;
use crate::units::{count, print_duration};
use backstay_engine::plan::show_time;
use backstay_postgres::base_backup::BaseFacts;
use backstay_repository::RunFinished;
use backstay_terms::EngineKind;
use complaints::Complaint;
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

impl Answer {
    fn violates(&self) -> bool {
        self.seen.behind(self.now).is_none_or(|behind| behind > self.rpo)
    }

    /// Whether somebody must act: the objective does not hold, or the newest cannot be restored.
    fn alarms(&self) -> bool {
        self.violates() || self.state().0 == Mark::Bad
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
            OnViolation::Exit if self.answers.iter().any(Answer::alarms) => Exit::Objective,
            _ if self.answers.iter().any(|answer| answer.seen.trouble.is_some()) => Exit::Incomplete,
            _ => Exit::Done,
        }
    }
}
