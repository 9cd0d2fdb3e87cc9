//! `backup`: takes a full backup now.
//!
//! Promise: how long it is kept is chosen before its first byte is written, because its names and its keys carry the class;
//! the choice and its reason are printed.

use crate::access;
use crate::cli::Backup;
use crate::codes::Code;
use crate::commands::scratch::Scratch;
use crate::config::Service;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::Look;
use crate::session::Session;
use crate::signals::Signals;
use crate::watch::Watch;
use backstay_engine::jobs::backup::BackupJob;
use backstay_engine::jobs::stream::settle_all;
use backstay_engine::plan::class::{self, Because, Chosen};
use backstay_engine::plan::show_time;
use backstay_repository::{Head, HeadVerdict, Repository};
use backstay_source::{Checkpoint, SourceErrorKind};
use backstay_terms::{EngineKind, RetentionClass};
use serde_json::{Value, json};
use std::sync::Arc;

/// Takes a backup, or ends at once when a signal asks for it: what was stored of it is seen by nobody.
pub async fn backup(session: &mut Session, arguments: &Backup) -> Result<Box<dyn Report>, Failure> {
    let mut signals = Signals::listen()?;
    let watch = Arc::new(Watch::new(session.progress()));
    let asked = tokio::select! {
        taken = take(session, arguments, &watch) => {
            watch.finish();
            return taken;
        }
        by = signals.next() => by,
    };
    watch.finish();
    session.leave_threads();
    let help = format!(
        "see what is there: backstay list {0}; then take it again: backstay backup {0}",
        arguments.service
    );
    Err(Failure::new(
        asked.code(),
        "stopped by a signal before the backup was complete",
        help,
    ))
}

async fn take(
    session: &mut Session,
    arguments: &Backup,
    watch: &Arc<Watch>,
) -> Result<Box<dyn Report>, Failure> {
    let config = session.config()?;
    let service = config.service(&arguments.service)?;
    let repository = access::repository(session).await?;
    settle_all(&repository, &service.name, watch.as_ref()).await?;
    let scratch = Scratch::make().map_err(|error| {
        let help = "set TMPDIR to a directory that you may write to";
        let code = match SourceErrorKind::of_local(&error) {
            SourceErrorKind::NoSpace => Code::NoSpace,
            _ => Code::LocalFile,
        };
        Failure::new(code, "no scratch directory can be made", help).caused_by(&error)
    })?;
    let chosen = choose(&repository, service, arguments.keep).await?;
    let job = BackupJob {
        name: service.name.clone(),
        source: Arc::new(access::server(session, service)?),
        repository,
        class: chosen.class,
        checkpoint: if arguments.spread {
            Checkpoint::Spread
        } else {
            Checkpoint::Fast
        },
        rate_max: arguments.rate_max,
        scratch: scratch.path().to_owned(),
        observer: watch.clone(),
    };
    let head = job.run().await?;
    watch.finish();
    for notice in &head.notices {
        session.printer.warning(notice);
    }
    Ok(Box::new(Taken { head, chosen }))
}

/// The class that was asked for, else that of the rank which is still open.
async fn choose(
    repository: &Repository,
    service: &Service,
    asked: Option<RetentionClass>,
) -> Result<Chosen, Failure> {
    if let Some(class) = asked {
        return Ok(Chosen::asked(class));
    }
    let now = repository.now();
    let rivals = class::rivals(repository, EngineKind::Postgres, &service.name, now).await?;
    Ok(class::choose(&rivals, service.retention.policy(), now))
}

struct Taken {
    head: Head,
    chosen: Chosen,
}

impl Taken {
    /// Why it is kept for so long. A damaged backup keeps its class and loses its rank.
    fn because(&self) -> String {
        let because = &self.chosen.because;
        match (self.head.verdict, because) {
            (HeadVerdict::Damaged, Because::FirstOfWeek { .. } | Because::FirstOfDay { .. }) => {
                format!("meant to be {because}; the next one takes its place")
            }
            _ => because.to_string(),
        }
    }
}

impl Report for Taken {
    fn human(&self, _: &Look) -> String {
        let head = &self.head;
        let seconds = head.finished.duration_since(head.created).as_secs_f64();
        let mut text = format!("backup    {}\n", head.backup);
        if let Some(log) = &head.log {
            text.push_str(&format!("at        {}\n", show_time(log.stop_time)));
        }
        text.push_str(&format!(
            "holds     {} files, {} with its WAL; {} stored in {seconds:.1} s\nkept      {}, until {}: {}\n",
            head.totals.files,
            head.totals.bytes,
            head.totals.stored,
            head.class,
            crate::time::to_the_second(head.expires_at),
            self.because()
        ));
        for damage in &head.damage {
            text.push_str(&format!("damaged   {damage}\n"));
        }
        text
    }

    fn json(&self) -> Value {
        json!({ "backup": self.head, "kept": self.chosen })
    }

    fn exit(&self) -> Exit {
        match self.head.verdict {
            HeadVerdict::Good => Exit::Done,
            HeadVerdict::Damaged => Exit::Incomplete,
        }
    }
}
