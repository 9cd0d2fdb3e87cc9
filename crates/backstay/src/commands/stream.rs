//! `stream`: follows a service's log until it is stopped by a signal.

use crate::access;
use crate::cli::Stream;
use crate::config::Service;
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::Look;
use crate::session::Session;
use crate::signals::{Asked, Signals};
use crate::watch::Watch;
use backstay_engine::jobs::stream::{Cadence, StreamJob, Wish};
use backstay_repository::SystemChance;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch;

/// Said wherever a stop left something unstored.
const NOTHING_LOST: &str =
    "nothing confirmed is lost: the server keeps the rest, and the next stream goes on from there";

/// Streams until SIGINT, SIGTERM or SIGHUP: the first stores what is held and stops, within a bounded time; a second SIGINT or
/// SIGTERM ends the process at once, whatever the store does.
pub async fn stream(session: &mut Session, arguments: &Stream) -> Result<Box<dyn Report>, Failure> {
    // Before anything else: a signal that comes while we attach must not kill us either.
    let mut signals = Signals::listen()?;
    let config = session.config()?;
    let service = config.service(&arguments.service)?;
    let opened = tokio::select! {
        repository = access::repository(session) => Some(repository?),
        _ = signals.next() => None,
    };
    let Some(repository) = opened else {
        session.leave_threads();
        return Ok(stopped(service));
    };
    let server = Arc::new(access::server(session, service)?);
    let job = StreamJob {
        name: service.name.clone(),
        source: server.clone(),
        repository,
        cadence: Cadence::default(),
        chance: Arc::new(SystemChance),
        observer: Arc::new(Watch::new(session.progress())),
    };
    let (stop, wish) = watch::channel(Wish::Run);
    let run = job.run(server.as_ref(), wish);
    tokio::pin!(run);
    tokio::select! {
        outcome = &mut run => outcome?,
        _ = signals.next() => {
            session.printer.note("stopping: what is held is being stored, for 20 s at most; a second signal stops at once");
            // The receiver lives in the job, which goes on until it returns.
            let _ = stop.send(Wish::Stop);
            tokio::select! {
                outcome = &mut run => if let Err(error) = outcome {
                    session.leave_threads();
                    return Err(Failure::from(error).or(NOTHING_LOST));
                },
                by = signals.again() => {
                    session.leave_threads();
                    return Err(cut_short(by));
                }
            }
        }
    }
    Ok(stopped(service))
}

fn stopped(service: &Service) -> Box<dyn Report> {
    Box::new(Stopped {
        service: service.name.to_string(),
    })
}

fn cut_short(by: Asked) -> Failure {
    Failure::new(
        by.code(),
        "stopped by a second signal before everything was stored",
        NOTHING_LOST,
    )
}

struct Stopped {
    service: String,
}

impl Report for Stopped {
    fn human(&self, _: &Look) -> String {
        format!("stopped   {}: everything received is stored\n", self.service)
    }

    fn json(&self) -> Value {
        json!({ "service": self.service, "stopped": true })
    }
}
