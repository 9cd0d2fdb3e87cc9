//! `stream`: follows a service's log until it is stopped by a signal.

use crate::access;
use crate::cli::Stream;
use crate::codes::Code;
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::Look;
use crate::session::Session;
use crate::watch::Watch;
use backstay_engine::jobs::stream::{Cadence, StreamJob, Wish};
use backstay_repository::SystemChance;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Streams until SIGINT or SIGTERM: the first stores what is held and stops, the second stops at once.
pub async fn stream(session: &mut Session, arguments: &Stream) -> Result<Box<dyn Report>, Failure> {
    // Before anything else: a signal that comes while we attach must not kill us either.
    let mut signals = Signals::listen()?;
    let config = session.config()?;
    let service = config.service(&arguments.service)?;
    let repository = access::repository(session).await?;
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
        () = signals.next() => {
            session.printer.note("stopping: what is held is being stored; a second signal stops at once");
            // The receiver lives in the job, which goes on until it returns.
            let _ = stop.send(Wish::Stop);
            tokio::select! {
                outcome = &mut run => outcome?,
                () = signals.next() => return Err(interrupted()),
            }
        }
    }
    Ok(Box::new(Stopped {
        service: service.name.to_string(),
    }))
}

/// SIGINT and SIGTERM.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Signals, Failure> {
        let refuse = |error: std::io::Error| {
            let help = "check the limits on open files of this user (ulimit -n)";
            Failure::new(Code::Other, "signals cannot be received", help).caused_by(&error)
        };
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).map_err(refuse)?,
            interrupt: signal(SignalKind::interrupt()).map_err(refuse)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn interrupted() -> Failure {
    let help = "nothing confirmed is lost: the server keeps the rest, and the next stream goes on from there";
    Failure::new(
        Code::Interrupted,
        "stopped by a second signal before everything was stored",
        help,
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
