//! `show`: one backup or one run in full.

use super::list::state;
use super::seen::{Seen, chosen, moment, show_range};
use crate::access;
use crate::cli::Show;
use crate::codes::Code;
use crate::config::Config;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::Look;
use crate::session::Session;
use crate::suggest;
use crate::units::count;
use backstay_repository::layout::{self, RunMoment};
use backstay_repository::{
    BaseReader, Head, HeadVerdict, Repository, RepositoryError, RunFinished, RunStarted, StoreError,
};
use backstay_terms::{BackupId, ByteCount, EntryRole, Lsn, RunId};
use serde_json::{Value, json};

/// Shows a backup, or after the word `run` a run.
pub async fn show(session: &mut Session, arguments: &Show) -> Result<Box<dyn Report>, Failure> {
    match (arguments.what.as_str(), arguments.which.as_deref()) {
        ("run", Some(id)) => show_run(session, id).await,
        ("run", None) => {
            let help = "give its id: backstay show run ID; status names the last one that failed";
            Err(Failure::new(Code::Usage, "which run is not said", help))
        }
        (backup, service) => show_backup(session, backup, service).await,
    }
}

async fn show_backup(
    session: &mut Session,
    backup: &str,
    service: Option<&str>,
) -> Result<Box<dyn Report>, Failure> {
    let config = session.config()?;
    let wanted = Wanted::read(backup, service, &config)?;
    let repository = access::repository(session).await?;
    let now = session.clock.now();
    for service in chosen(&config, service)? {
        let seen = Seen::of(&repository, service, now).await?;
        let found = match &wanted {
            Wanted::Latest => seen.heads.last().cloned(),
            Wanted::Backup(id) => seen.heads.iter().find(|head| head.backup == *id).cloned(),
        };
        if let (Wanted::Backup(id), None) = (&wanted, &found)
            && let Some(refusal) = seen.unread.refusal_of(&seen.service, id)
        {
            return Err(refusal.into());
        }
        if let Some(head) = found {
            let captured = captured(&repository, &head).await?;
            return Ok(Box::new(Shown { seen, head, captured }));
        }
    }
    let message = match &wanted {
        Wanted::Latest => "there is no backup yet".to_owned(),
        Wanted::Backup(id) => format!("there is no backup {id}"),
    };
    Err(Failure::new(
        Code::NotFound,
        message,
        "see which there are: backstay list",
    ))
}

enum Wanted {
    Latest,
    Backup(BackupId),
}

impl Wanted {
    fn read(text: &str, service: Option<&str>, config: &Config) -> Result<Wanted, Failure> {
        if text != "latest" {
            return text.parse().map(Wanted::Backup).map_err(|_| {
                let message = format!("{text:?} is neither latest, run nor the id of a backup");
                let help = match suggest::nearest(text, ["latest", "run"]) {
                    Some(near) => format!("did you mean {near}?"),
                    None => "see which there are: backstay list".to_owned(),
                };
                Failure::new(Code::Usage, message, help)
            });
        }
        if service.is_none() && config.services.len() > 1 {
            let names: Vec<String> = config.services.keys().map(ToString::to_string).collect();
            let help = "name the service: backstay show latest SERVICE";
            let failure = Failure::new(Code::Usage, "the latest of which service is not said", help);
            return Err(failure.fact("services", names.join(", ")));
        }
        Ok(Wanted::Latest)
    }
}

/// The settings and configuration texts among the files of a backup.
async fn captured(repository: &Repository, head: &Head) -> Result<Vec<String>, Failure> {
    let reader = BaseReader::open(repository, &head.place()).await?;
    let is_captured = |role: &EntryRole| matches!(role, EntryRole::Settings | EntryRole::Configuration);
    let files = reader.files().filter(|file| is_captured(&file.role));
    Ok(files.map(|file| file.path.to_string()).collect())
}

struct Shown {
    seen: Seen,
    head: Head,
    captured: Vec<String>,
}

impl Shown {
    /// What it can be restored to.
    fn reach(&self, look: &Look) -> String {
        let Some(log) = &self.head.log else {
            return "its own point: --to immediate".to_owned();
        };
        let holds = |from, to| from <= log.stop && log.stop <= to;
        match self
            .seen
            .window
            .ranges
            .iter()
            .find(|range| holds(range.from, range.to))
        {
            Some(range) => reach_of(look, log.stop_time, range.to_time),
            None => format!(
                "its own point only, {}: --to immediate",
                look.time(moment(log.stop_time))
            ),
        }
    }

    fn log_lines(&self, look: &Look) -> Vec<(&'static str, String)> {
        let Some(log) = &self.head.log else {
            return Vec::new();
        };
        let positions = format!(
            "{} {} {}",
            Lsn::from(log.start),
            look.arrow(),
            Lsn::from(log.stop)
        );
        vec![
            ("system", log.system.to_string()),
            ("log", format!("{positions}, timeline {}", log.timeline)),
            ("consistent", look.time(moment(log.stop_time))),
        ]
    }

    fn lines(&self, look: &Look) -> Vec<(&'static str, String)> {
        let head = &self.head;
        let ids = &head.key_ids;
        let mut lines = vec![
            ("backup", head.backup.to_string()),
            (
                "service",
                format!("{} ({} {})", head.source, head.service, head.version),
            ),
            (
                "kind",
                format!("{}, generation {}", head.kind.name(), head.generation),
            ),
            (
                "taken",
                format!(
                    "{} {} {}",
                    look.time(head.created),
                    look.arrow(),
                    look.time(head.finished)
                ),
            ),
            (
                "kept until",
                format!("{} (class {})", look.time(head.expires_at), head.class),
            ),
            ("state", state(&self.seen, head).to_owned()),
            ("restores to", self.reach(look)),
        ];
        lines.extend(self.log_lines(look));
        let totals = &head.totals;
        lines.extend([
            ("files", format!("{}, {}", totals.files, totals.bytes)),
            (
                "stored",
                format!("{} in {}", totals.stored, count(totals.packs as usize, "pack")),
            ),
            (
                "keys",
                format!("data {}, index {}, facts {}", ids.data, ids.index, ids.facts),
            ),
            (
                "captured",
                if self.captured.is_empty() {
                    "no settings".into()
                } else {
                    self.captured.join(", ")
                },
            ),
            ("written by", format!("backstay {}", head.writer)),
        ]);
        lines.extend(head.damage.iter().map(|damage| ("damaged", damage.clone())));
        lines.extend(head.notices.iter().map(|notice| ("server said", notice.clone())));
        lines
    }
}

/// The points of a backup that the log holds. The log of a moment ago may prove no time after the backup's own end yet.
fn reach_of(look: &Look, own_end: i64, newest: i64) -> String {
    match newest > own_end {
        true => format!("every point in {}", show_range(look, own_end, newest)),
        false => format!(
            "its own end, {}; the stored log proves no later time yet",
            look.time(moment(own_end))
        ),
    }
}

/// Labels in one column, texts in the next.
fn sheet<L: AsRef<str>>(lines: &[(L, String)]) -> String {
    let width = lines
        .iter()
        .map(|(label, _)| label.as_ref().len())
        .max()
        .unwrap_or(0);
    let line = |(label, text): &(L, String)| {
        let (label, text) = (label.as_ref(), crate::render::human::clean(text));
        format!("{label:width$}  {text}\n")
    };
    lines.iter().map(line).collect()
}

/// A line for each of a run's numbers, under its name; those inside of others have theirs too.
fn figures(lines: &mut Vec<(String, String)>, name: &str, value: &Value) {
    let text = match value {
        Value::Null => return,
        Value::Object(inner) => {
            for (name, value) in inner {
                figures(lines, name, value);
            }
            return;
        }
        Value::Number(number) if is_bytes(name) => match number.as_u64() {
            Some(bytes) => ByteCount(bytes).to_string(),
            None => number.to_string(),
        },
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    lines.push((name.replace('_', " "), text));
}

/// Whether a number of this name counts bytes.
fn is_bytes(name: &str) -> bool {
    name == "stored" || name == "bytes" || name.ends_with("_bytes")
}

impl Report for Shown {
    fn human(&self, look: &Look) -> String {
        sheet(&self.lines(look))
    }

    fn json(&self) -> Value {
        json!({ "backup": self.head, "state": state(&self.seen, &self.head), "captured": self.captured })
    }

    fn exit(&self) -> Exit {
        match self.head.verdict {
            HeadVerdict::Good => Exit::Done,
            HeadVerdict::Damaged => Exit::Incomplete,
        }
    }
}

enum Run {
    Ended(Box<RunFinished>),
    Open(RunStarted),
}

async fn show_run(session: &mut Session, id: &str) -> Result<Box<dyn Report>, Failure> {
    let run: RunId = id.parse().map_err(|_| {
        let help = "an id looks like 20261123T021741Z-backup-…; status names the last one that failed";
        Failure::new(Code::Usage, format!("{id:?} is not the id of a run"), help)
    })?;
    let repository = access::repository(session).await?;
    let ended = layout::run(&run, RunMoment::Finished)?;
    let shown = match repository.store().head(&ended.key).await {
        Ok(_) => Run::Ended(Box::new(repository.read_run_finished(&run).await?)),
        Err(StoreError::NotFound { .. }) => Run::Open(started(&repository, &run).await?),
        Err(error) => return Err(error.into()),
    };
    Ok(Box::new(shown))
}

async fn started(repository: &Repository, run: &RunId) -> Result<RunStarted, Failure> {
    match repository.read_run_started(run).await {
        Err(RepositoryError::Store(StoreError::NotFound { .. })) => {
            let help = "status and check name the last one that failed";
            Err(Failure::new(
                Code::NotFound,
                format!("there is no run {run}"),
                help,
            ))
        }
        answer => Ok(answer?),
    }
}

impl Report for Run {
    fn human(&self, look: &Look) -> String {
        let (started, end) = match self {
            Run::Ended(record) => (&record.started, Some(record)),
            Run::Open(started) => (started, None),
        };
        let mut lines: Vec<(String, String)> = Vec::new();
        let mut line = |label: &str, text: String| lines.push((label.to_owned(), text));
        line("run", started.run.to_string());
        line("service", started.source.clone());
        line("did", format!("{} (backstay {})", started.verb, started.version));
        line("began", look.time(started.started));
        match end {
            Some(record) => {
                let result = format!("{:?}", record.result).to_lowercase();
                line("ended", format!("{} {result}", look.time(record.finished)));
                record.error.iter().for_each(|error| line("error", error.clone()));
                figures(&mut lines, "", &record.figures);
            }
            None => line(
                "ended",
                "not yet, or it was killed: nothing of it counts".to_owned(),
            ),
        }
        sheet(&lines)
    }

    fn json(&self) -> Value {
        match self {
            Run::Ended(record) => json!({ "run": record }),
            Run::Open(record) => json!({ "run": record }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_range_of_points_ends_before_it_begins() {
        let (look, second) = (Look::plain(), 1_000_000);
        let own = reach_of(&look, 60 * second, 60 * second);
        assert_eq!(
            own,
            "its own end, 2000-01-01T00:01:00Z; the stored log proves no later time yet"
        );
        assert_eq!(reach_of(&look, 60 * second, 35 * second), own);
        assert_eq!(
            reach_of(&look, 60 * second, 95 * second),
            "every point in 2000-01-01T00:01:00Z → 2000-01-01T00:01:35Z"
        );
    }
}
