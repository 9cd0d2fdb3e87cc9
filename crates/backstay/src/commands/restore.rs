//! `restore`: recovers a service to a point in time, into a new directory.
//!
//! Promise: the plan comes first; what cannot be reached is refused before anything is touched; production is never
//! written to.
//! Not here: the words with which a server fetches its log (restore::fetch_command).

mod again;
mod fetch_command;

use crate::access;
use crate::ask;
use crate::cli::{Action, LogDelivery, Restore};
use crate::codes::Code;
use crate::config::{Config, RepositoryPlace, Service};
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::Look;
use crate::render::shell;
use crate::session::Session;
use crate::time::{self, Target};
use crate::units::count;
use crate::watch::Watch;
use backstay_engine::jobs::restore::{LogWish, RestoreJob, Restored, deliver};
use backstay_engine::plan::{
    Catalog, PassedOver, PassedOverBackup, Request, RestorePlan, Unreadable, plan, show_time,
};
use backstay_postgres::base_backup::BaseFacts;
use backstay_postgres::wal::PostgresLog;
use backstay_postgres::{PostgresDirectory, Reserved, RestoreOptions};
use backstay_source::{Outcome, RecoveryAction, RecoveryStop, StartRequest, WalDelivery};
use backstay_terms::{ByteCount, EngineKind, Lsn};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Plans, and unless only the plan is wanted, restores.
pub async fn restore(session: &mut Session, arguments: &Restore) -> Result<Box<dyn Report>, Failure> {
    let config = session.config()?;
    let service = config.service(&arguments.service)?;
    let now = session.clock.now();
    let target = time::read_target(&arguments.to, now, &|| session.reading_zone())?;
    let repository = access::repository(session).await?;
    let catalog = Catalog::read(
        &repository,
        EngineKind::Postgres,
        &service.name,
        arguments.lineage,
    )
    .await?;
    let request = Request {
        target: target.target.clone(),
        base: arguments.base.clone(),
        now,
    };
    let plan = plan(&catalog, &request, &PostgresLog).await?;
    let mut planned = Planned {
        service: service.name.to_string(),
        echo: target,
        plan: plan.clone(),
        delivery: None,
        again: again::again(service.name.as_str(), &catalog, &plan),
        unreadable: catalog.unreadable(),
    };
    let Some(directory) = arguments.into.as_deref() else {
        return Ok(Box::new(planned));
    };
    let directory = absolute(directory)?;
    let target = Arc::new(PostgresDirectory::new(options(
        session, &config, service, arguments, &plan, &directory,
    )));
    let command = fetch_command::fetch_command(&config, service, &catalog, &plan)?;
    let delivery = deliver(&plan, wish(arguments.wal), command, target.as_ref())?;
    planned.delivery = Some(delivery.clone());
    let watch = Arc::new(Watch::new(session.progress()));
    let next = next(target.as_ref(), arguments, &plan);
    let job = RestoreJob {
        repository,
        catalog,
        plan,
        target,
        action: action(arguments.action),
        delivery,
        start: arguments.start.then_some(StartRequest {
            port: arguments.port,
            wait_max: arguments.wait,
        }),
        observer: watch.clone(),
        workers: workers(),
    };
    // What the plan says of the directory is said only of one that will do.
    job.inspect()?;
    if arguments.plan {
        return Ok(Box::new(planned));
    }
    session.printer.note(planned.human_text().trim_end());
    if !arguments.confirm {
        ask::proceed(session, "nothing was touched")?;
    }
    let restored = job.run().await;
    watch.finish();
    Ok(Box::new(Done {
        planned,
        directory,
        restored: restored?,
        next,
    }))
}

/// One for each processor, at most 8.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, |count| count.get().min(8))
}

/// What to type where the copy was not started: words that start it, and what it does then.
fn next(target: &PostgresDirectory, arguments: &Restore, plan: &RestorePlan) -> Vec<String> {
    let mut words = target.pg_ctl(&plan.head.version);
    let log = target.directory().join("start.log").display().to_string();
    let port = format!("-p {}", arguments.port);
    words.extend(["-l", &log, "-o", &port, "start"].map(str::to_owned));
    let then = match arguments.action {
        Action::Pause => {
            "it recovers to the target by itself and stays read-only there; SELECT pg_wal_replay_resume() makes it writable"
        }
        Action::Promote => "it recovers to the target by itself and is an ordinary server then",
        Action::Shutdown => "it recovers to the target by itself and stops there",
    };
    vec![shell::line(words), then.to_owned()]
}

fn options(
    session: &Session,
    config: &Config,
    service: &Service,
    arguments: &Restore,
    plan: &RestorePlan,
    directory: &Path,
) -> RestoreOptions {
    // The configuration names tablespaces by where they lie at the server, the backup by number and place.
    let facts = serde_json::from_value::<BaseFacts>(plan.head.engine.clone());
    let superuser = facts.as_ref().ok().and_then(|facts| facts.superuser.clone());
    let known = facts.map(|facts| facts.tablespaces).unwrap_or_default();
    let place = |location: &str| {
        service
            .tablespaces
            .get(Path::new(location))
            .map(|setting| setting.value.clone())
    };
    let tablespaces = known
        .iter()
        .filter_map(|known| Some((known.oid, place(&known.location)?)))
        .collect();
    let RepositoryPlace::Directory(repository) = &config.repository.value;
    let reserved = Reserved {
        directory: repository.clone(),
        what: "the repository",
    };
    RestoreOptions {
        tablespaces,
        reserved: vec![reserved],
        superuser: arguments.superuser.clone().or(superuser),
        binaries: arguments.bindir.clone(),
        ..RestoreOptions::new(directory, Arc::clone(&session.clock))
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| {
        let help = "give the directory as an absolute path";
        Failure::new(
            Code::LocalFile,
            format!("{} cannot be found", path.display()),
            help,
        )
        .caused_by(&error)
    })
}

fn action(action: Action) -> RecoveryAction {
    match action {
        Action::Pause => RecoveryAction::Pause,
        Action::Promote => RecoveryAction::Promote,
        Action::Shutdown => RecoveryAction::Shutdown,
    }
}

fn wish(delivery: LogDelivery) -> LogWish {
    match delivery {
        LogDelivery::Auto => LogWish::WhereItFits,
        LogDelivery::Place => LogWish::Place,
        LogDelivery::Fetch => LogWish::Fetch,
    }
}

struct Planned {
    service: String,
    echo: Target,
    plan: RestorePlan,
    /// None: the directory is not known.
    delivery: Option<WalDelivery>,
    /// The command that makes this plan again.
    again: String,
    /// What was passed over.
    unreadable: Vec<Unreadable>,
}

fn stop_words(plan: &RestorePlan) -> String {
    let time = plan
        .time
        .map(|time| format!(" ({})", show_time(time)))
        .unwrap_or_default();
    match plan.stop {
        RecoveryStop::Consistent => "as soon as the backup is consistent".to_owned(),
        RecoveryStop::After(at) => format!("after the record at {}{time}", Lsn::from(at)),
        RecoveryStop::Before(at) => format!("before the record at {}{time}", Lsn::from(at)),
    }
}

/// A line about the transaction that was aimed at.
fn outcome_words(plan: &RestorePlan) -> &'static str {
    match plan.outcome {
        Some(Outcome::Committed) => "  transaction committed: the copy holds what it did\n",
        Some(Outcome::Aborted) => {
            "  transaction aborted: the copy holds nothing of it, only what was committed before it ended\n"
        }
        None => "",
    }
}

impl Planned {
    fn human_text(&self) -> String {
        let plan = &self.plan;
        let head = &plan.head;
        let taken = show_time(plan.log.stop_time);
        let (files, bytes) = plan.content();
        let log = ByteCount(plan.log_bytes());
        format!(
            "Plan\n  service     {}\n  target      {}\n  base        {}  consistent at {taken}, {bytes} in {}\n{}  \
             replay      {} ({log}) on timeline {}\n{}{}  stops       {}\n{}  production  untouched\nSame as: {}\n",
            self.service,
            self.echo.echo,
            head.backup,
            count(files as usize, "file"),
            self.passed_over_words(),
            count(plan.segments.len(), "segment"),
            plan.timeline,
            self.delivery_words(),
            self.tablespace_words(),
            stop_words(plan),
            outcome_words(plan),
            self.again,
        )
    }

    fn delivery_words(&self) -> String {
        match &self.delivery {
            Some(WalDelivery::Command(command)) => {
                format!(
                    "  log         fetched by the server while it recovers, with\n              {command}\n"
                )
            }
            Some(WalDelivery::Placed) if !self.plan.segments.is_empty() => {
                "  log         placed in pg_wal and checked before the server starts\n".to_owned()
            }
            Some(WalDelivery::Placed) | None => String::new(),
        }
    }

    fn passed_over_words(&self) -> String {
        let words = |passed: &PassedOverBackup| {
            let (backup, taken) = (&passed.backup, show_time(passed.consistent));
            let why = match passed.why {
                PassedOver::OtherSystem => "of another system than the one whose log is followed",
                PassedOver::OtherHistory => "of another history than the one that is followed",
                PassedOver::UnclearHistory => {
                    "of a timeline with several lineages, and no log shows which one"
                }
            };
            format!(
                "  not taken   {backup}  consistent at {taken}, newer and {why}; to take it: --base {backup} --to immediate\n"
            )
        };
        self.plan.passed_over.iter().map(words).collect()
    }

    fn tablespace_words(&self) -> String {
        let made = self.plan.written_by_log.iter();
        made.map(|location| {
            format!("  tablespace  made by the log in {location}: an empty directory there is needed\n")
        })
        .collect()
    }

    fn value(&self) -> Value {
        let plan = &self.plan;
        let (files, bytes) = plan.content();
        let (kind, lsn) = match plan.stop {
            RecoveryStop::Consistent => ("consistent", plan.log.stop),
            RecoveryStop::After(at) => ("after", at),
            RecoveryStop::Before(at) => ("before", at),
        };
        json!({
            "service": self.service,
            "target": self.echo.echo,
            "backup": plan.head.backup,
            "consistent_at": show_time(plan.log.stop_time),
            "bytes": bytes,
            "files": files,
            "timeline": plan.timeline,
            "segments": plan.segments.len(),
            "same_as": self.again,
            "unreadable": self.unreadable,
            "written_by_log": plan.written_by_log,
            "passed_over": plan.passed_over.iter().map(|passed| json!({
                "backup": passed.backup, "consistent_at": show_time(passed.consistent), "why": passed.why,
            })).collect::<Vec<_>>(),
            "restore_command": match &self.delivery {
                Some(WalDelivery::Command(command)) => Some(command),
                Some(WalDelivery::Placed) | None => None,
            },
            "stop": {
                "kind": kind, "lsn": Lsn::from(lsn), "time": plan.time.map(show_time),
                "transaction": plan.outcome.map(|outcome| match outcome {
                    Outcome::Committed => "committed",
                    Outcome::Aborted => "aborted",
                }),
            },
        })
    }
}

impl Report for Planned {
    fn human(&self, _: &Look) -> String {
        self.human_text()
    }

    fn json(&self) -> Value {
        json!({ "plan": self.value() })
    }
}

struct Done {
    planned: Planned,
    directory: PathBuf,
    restored: Restored,
    /// Lines for whoever starts it by hand.
    next: Vec<String>,
}

impl Report for Done {
    fn human(&self, _: &Look) -> String {
        let restored = &self.restored;
        let log = match &self.planned.delivery {
            Some(WalDelivery::Command(_)) => String::new(),
            Some(WalDelivery::Placed) | None => format!(", and {}", count(restored.segments, "log segment")),
        };
        let mut text = format!(
            "restored  {}, {}{log} into {}\n",
            count(restored.files as usize, "file"),
            ByteCount(restored.bytes),
            self.directory.display()
        );
        match &restored.evidence {
            None => text.push_str(&format!("next      {}\n", self.next.join("\n          "))),
            Some(evidence) => {
                let state = &evidence.state;
                text.push_str(&format!("reached   {}, {state}\n", Lsn::from(evidence.replayed)));
                if let Some(time) = &evidence.last_transaction {
                    text.push_str(&format!("last      transaction at {time}\n"));
                }
                if let Some(time) = &evidence.transaction_before_stop {
                    text.push_str(&format!(
                        "last      transaction at {time}, before the record at the stop\n"
                    ));
                }
                for (database, table, rows) in &evidence.rows {
                    text.push_str(&format!("rows      {rows:>10}  {database}.{table}\n"));
                }
                for left_out in &evidence.uncounted {
                    text.push_str(&format!("uncounted {left_out}\n"));
                }
                text.push_str(&format!("connect   {}\n", evidence.connect));
            }
        }
        text
    }

    fn json(&self) -> Value {
        let restored = &self.restored;
        json!({
            "plan": self.planned.value(),
            "directory": self.directory.display().to_string(),
            "files": restored.files,
            "bytes": restored.bytes,
            "segments": restored.segments,
            "evidence": restored.evidence,
        })
    }
}
