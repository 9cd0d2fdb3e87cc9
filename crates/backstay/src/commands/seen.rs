//! What is known of a service: its backups, what can be recovered, what went wrong last. For `status`, `list`, `window`,
//! `show` and `check`.
//!
//! Promise: only names, heads and facts are read, never data.
//! Not here: how it is shown.

use crate::access;
use crate::cli::Services;
use crate::config::{Config, Service};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::look::Look;
use crate::session::Session;
use crate::time::POSTGRES_EPOCH;
use crate::units::{count, print_duration};
use backstay_engine::plan::{
    Catalog, ClosedPart, HeadlessBackup, LostBackup, LostLog, Rival, Unread, Unreadable, Window,
    latest_refused, told_once, window,
};
use backstay_repository::layout::{self, RunMoment};
use backstay_repository::{Head, Repository, RepositoryError, RunFinished, RunResult};
use backstay_store::{Key, list_all};
use backstay_terms::{EngineKind, LogRange, Lsn, RunId, SourceName};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;
use tracing::warn;

/// What a list of services says when there is none.
pub const NO_SERVICES: &str = "the configuration has no services yet: add one under services: NAME: { postgresql: \"host=HOST user=NAME dbname=postgres\" }\n";

/// How far back a failed run is worth mentioning.
const TROUBLE_AGE_MAX: SignedDuration = SignedDuration::from_hours(7 * 24);

/// At most so many run records are opened for one answer.
const RUNS_MAX: usize = 100;

/// What is wrong with the times of a backup, if its name is ahead of its source's clock or of ours.
pub fn misdated_words(head: &Head, now: Timestamp) -> Option<String> {
    let ahead = Duration::try_from(head.ahead_of(now))
        .ok()
        .filter(|ahead| !ahead.is_zero())?;
    let hours = Duration::from_secs(ahead.as_secs() / 60 * 60);
    let backup = &head.backup;
    Some(format!(
        "backup {backup} is named {} later than its server's clock or this one says: a clock was wrong; if it was the backup's, it is kept for so much \
         longer, until {}",
        print_duration(hours),
        head.kept_until().strftime("%Y-%m-%d"),
    ))
}

/// One service with what is known about it.
#[derive(Debug)]
pub struct Seen {
    /// The service.
    pub service: SourceName,
    /// Its backups, oldest first.
    pub heads: Vec<Head>,
    /// What can be recovered.
    pub window: Window,
    /// Lineages that hold log which the present one never had.
    pub rivals: Vec<Rival>,
    /// Heads and lineage records that cannot be opened; each was warned of when it was read.
    pub unread: Unread,
    /// Parts of the log that cannot be opened, by position, likewise.
    pub closed: Vec<ClosedPart>,
    /// Everything of both.
    pub unreadable: Vec<Unreadable>,
    /// Backups that were committed and are gone, oldest first.
    pub lost: Vec<LostBackup>,
    /// Backups without a head, newer than every one that has one, of which no run tells or whose run died, oldest first.
    pub headless: Vec<HeadlessBackup>,
    /// The log that is stored along the present lineage, by position.
    pub stored_log: Vec<LogRange>,
    /// Log that was stored and is gone, by branch and position; each stretch once.
    pub lost_log: Vec<LostLog>,
    /// Why `--to latest` is refused, and what to type instead; none if it is not.
    pub latest_refused: Option<Failure>,
    /// Why nothing else can be told of it.
    pub trouble: Option<Failure>,
}

impl Seen {
    /// Reads what is stored of the service of the arguments, or of each of the configuration.
    pub async fn of_all(session: &mut Session, arguments: &Services) -> Result<Vec<Seen>, Failure> {
        let config = session.config()?;
        let services = chosen(&config, arguments.service.as_deref())?;
        let repository = access::repository(session).await?;
        let now = session.clock.now();
        Seen::of_each(&repository, &services, now).await
    }

    /// Reads what is stored of each of several services. What is lost or damaged of one says nothing of the others: only
    /// where nothing can be told of any is that an error.
    pub async fn of_each(
        repository: &Repository,
        services: &[&Service],
        now: Timestamp,
    ) -> Result<Vec<Seen>, Failure> {
        let mut all = Vec::new();
        for service in services {
            match Seen::of(repository, service, now).await {
                Ok(seen) => all.push(seen),
                Err(failure) if is_of_one(&failure) => all.push(Seen::untold(service, failure)),
                Err(failure) => return Err(failure),
            }
        }
        if all.iter().all(|seen| seen.trouble.is_some())
            && let Some(failure) = all.iter_mut().find_map(|seen| seen.trouble.take())
        {
            return Err(failure);
        }
        Ok(all)
    }

    /// A service of which nothing can be told.
    fn untold(service: &Service, failure: Failure) -> Seen {
        Seen {
            service: service.name.clone(),
            heads: Vec::new(),
            window: Window::default(),
            rivals: Vec::new(),
            unread: Unread::default(),
            closed: Vec::new(),
            unreadable: Vec::new(),
            lost: Vec::new(),
            headless: Vec::new(),
            stored_log: Vec::new(),
            lost_log: Vec::new(),
            latest_refused: None,
            trouble: Some(failure),
        }
    }

    /// Reads what is stored of a service.
    pub async fn of(repository: &Repository, service: &Service, now: Timestamp) -> Result<Seen, Failure> {
        let catalog = Catalog::read(repository, EngineKind::Postgres, &service.name, None).await?;
        let window = window(&catalog, now).await?;
        let lost = catalog.lost_backups(now).await?.to_vec();
        let lost_log = told_once(catalog.lost_log(now).await?);
        let headless = catalog.headless(now).await?.to_vec();
        for LostBackup { backup, run, .. } in &lost {
            let service = &service.name;
            warn!(%service, %backup, %run, "a backup that this run committed is gone; see: backstay verify");
        }
        let latest_refused = latest_refused(&catalog, now).await?.map(Failure::from);
        let (closed, unreadable) = (catalog.closed_parts(), catalog.unreadable());
        let stored_log = catalog.chain.as_ref().map(|chain| chain.stretches(None));
        Ok(Seen {
            service: service.name.clone(),
            heads: catalog.heads,
            window,
            closed,
            unreadable,
            rivals: catalog.rivals,
            unread: catalog.unread,
            lost,
            headless,
            stored_log: stored_log.unwrap_or_default(),
            lost_log,
            latest_refused,
            trouble: None,
        })
    }

    /// A line that says why nothing can be told.
    pub fn untold_line(&self) -> Option<String> {
        let Failure { message, .. } = self.trouble.as_ref()?;
        let service = &self.service;
        Some(format!(
            "{service}: what is stored of it cannot be told: {message}\n  next: backstay verify {service}\n"
        ))
    }

    /// What is stored of the log and opens with no configured key; none if everything does.
    pub fn closed_words(&self) -> Option<String> {
        let ClosedPart { range, why, .. } = self.closed.first()?;
        Some(format!(
            "{} of the log cannot be opened, the first from {} to {}: {why}",
            count(self.closed.len(), "part"),
            Lsn::from(range.from),
            Lsn::from(range.to),
        ))
    }

    /// Whether no log is stored, and none is known to be lost.
    pub fn is_without_log(&self) -> bool {
        self.trouble.is_none() && self.stored_log.is_empty() && self.lost_log.is_empty()
    }

    /// Whether no backup is stored either, and none is known to be lost.
    pub fn is_empty(&self) -> bool {
        let heads = self.heads.is_empty() && self.unread.heads.is_empty();
        self.is_without_log() && heads && self.lost.is_empty() && self.headless.is_empty()
    }

    /// How much would be lost if the server were lost now.
    pub fn behind(&self, now: Timestamp) -> Option<Duration> {
        let newest = moment(self.window.newest()?);
        Some(Duration::try_from(now.duration_since(newest)).unwrap_or_default())
    }
}

/// Lost log as an object.
pub fn lost_json(lost: &LostLog) -> Value {
    json!({
        "lineage": lost.branch.to_string(), "from_lsn": lost.from.map(Lsn::from), "to_lsn": Lsn::from(lost.to), "by": lost.by,
    })
}

/// A part of the log that cannot be opened as an object.
pub fn closed_json(part: &ClosedPart) -> Value {
    let LogRange { from, to } = part.range;
    json!({
        "from_lsn": Lsn::from(from), "to_lsn": Lsn::from(to), "object": part.object, "why": part.why.to_string(),
    })
}

/// Whether a failure is about what is stored of one service, and not about the store.
fn is_of_one(failure: &Failure) -> bool {
    matches!(
        failure.code.exit(),
        Exit::Integrity | Exit::Key | Exit::OutsideWindow
    )
}

/// How an answer about several services ends.
pub fn exit_of(seen: &[Seen]) -> Exit {
    match seen.iter().any(|seen| seen.trouble.is_some()) {
        true => Exit::Incomplete,
        false => Exit::Done,
    }
}

/// The service of that name, or all of the configuration.
pub fn chosen<'a>(config: &'a Config, name: Option<&str>) -> Result<Vec<&'a Service>, Failure> {
    match name {
        Some(name) => Ok(vec![config.service(name)?]),
        None => Ok(config.services.values().collect()),
    }
}

/// A time of the source (microseconds since 2000-01-01 00:00:00 UTC) as a moment.
pub fn moment(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros.saturating_add(POSTGRES_EPOCH)).unwrap_or(Timestamp::MAX)
}

/// A range of times, to the second and inside the range at both ends, so that what is printed can be aimed at.
pub fn show_range(look: &Look, from: i64, to: i64) -> String {
    let up = from.saturating_add(999_999).min(to.max(from));
    format!(
        "{} {} {}",
        look.time(moment(up)),
        look.arrow(),
        look.time(moment(to))
    )
}

/// The newest failed run of a service in the last week, unless the same verb has succeeded since. Restores do not count:
/// whoever runs one is told, and its failure says nothing of whether the service is protected.
pub async fn last_trouble(
    repository: &Repository,
    service: &SourceName,
    now: Timestamp,
) -> Result<Option<RunFinished>, Failure> {
    let mut ended = Vec::new();
    for run in finished_runs(repository, now).await? {
        match repository.read_run_finished(&run).await {
            // Whether the log goes on is seen from the log: a stream that runs has no last record.
            Ok(record) if record.started.source == service.as_str() && record.started.verb != "stream" => {
                ended.push(record);
            }
            // A record that our keys do not open tells nothing about this service.
            Ok(_) | Err(RepositoryError::NoKey { .. } | RepositoryError::UnknownKey { .. }) => {}
            Err(error) if error.is_about_the_object() => repository.pass_over(&run, &error),
            Err(error) => return Err(error.into()),
        }
    }
    // Names tell the second in which a run began.
    ended.sort_by_key(|record| Reverse(record.finished));
    let mut succeeded = BTreeSet::new();
    for record in ended {
        match record.result {
            RunResult::Succeeded => succeeded.insert(record.started.verb.clone()),
            _ if !succeeded.contains(&record.started.verb) => return Ok(Some(record)),
            _ => false,
        };
    }
    Ok(None)
}

/// Runs of the last week that ended, the newest first; no restores.
async fn finished_runs(repository: &Repository, now: Timestamp) -> Result<Vec<RunId>, Failure> {
    let since = now.checked_sub(TROUBLE_AGE_MAX).unwrap_or(Timestamp::MIN);
    let after = Key::new(since.strftime("facts/runs/%Y/%m/%d").to_string()).map_err(RepositoryError::from)?;
    let prefix = layout::runs_prefix()?;
    let objects = list_all(repository.store(), &prefix, Some(&after)).await?;
    let ended = objects
        .iter()
        .rev()
        .filter_map(|object| match layout::of_run(&object.key) {
            Some((run, RunMoment::Finished)) if run.kind() != "restore" => Some(run),
            _ => None,
        });
    Ok(ended.take(RUNS_MAX).collect())
}
