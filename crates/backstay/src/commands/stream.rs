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
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Streams until SIGINT or SIGTERM.
pub async fn stream(session: &mut Session, arguments: &Stream) -> Result<Box<dyn Report>, Failure> {
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
    let signals = tokio::spawn(wait_for_signal(stop));
    let outcome = job.run(server.as_ref(), wish).await;
    signals.abort();
    outcome?;
    Ok(Box::new(Stopped {
        service: service.name.to_string(),
    }))
}

async fn wait_for_signal(stop: watch::Sender<Wish>) -> Result<(), Failure> {
    let refuse = |error: std::io::Error| {
        Failure::new(
            Code::Other,
            "signals cannot be received",
            "report this with your kernel's version",
        )
        .caused_by(&error)
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(refuse)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refuse)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // The receiver is gone only when the job has ended already.
    let _ = stop.send(Wish::Stop);
    Ok(())
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
