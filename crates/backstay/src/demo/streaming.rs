//! The stream that runs beside the story.
//!
//! Promise: it is stopped, or ended and waited for; it never outlives the story.
//! Not here: what it stores (engine).

use super::defect;
use crate::failure::Failure;
use backstay_engine::jobs::stream::{Cadence, StreamJob, Wish};
use backstay_engine::{EngineError, Fact, Observer};
use backstay_postgres::PostgresSource;
use backstay_repository::{Repository, SystemChance};
use backstay_terms::{Lsn, Position, SourceName};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long its answer may be waited for.
const WAIT_MAX: Duration = Duration::from_secs(90);

/// Remembers how far the log is durable.
#[derive(Debug)]
struct Frontier {
    position: watch::Sender<Position>,
}

impl Observer for Frontier {
    fn observe(&self, fact: &Fact) {
        if let Fact::LogDurable { position } = fact {
            self.position.send_replace(*position);
        }
    }
}

/// A running stream.
#[derive(Debug)]
pub struct Streaming {
    stop: watch::Sender<Wish>,
    durable: watch::Receiver<Position>,
    task: JoinHandle<Result<(), EngineError>>,
}

impl Streaming {
    /// Begins to stream.
    pub fn start(name: SourceName, source: Arc<PostgresSource>, repository: Repository) -> Streaming {
        let (position, durable) = watch::channel(Position::default());
        let (stop, wish) = watch::channel(Wish::Run);
        let cadence = Cadence {
            live_after: Duration::from_secs(1),
            ..Cadence::default()
        };
        let job = StreamJob {
            name,
            source: source.clone(),
            repository,
            cadence,
            chance: Arc::new(SystemChance),
            observer: Arc::new(Frontier { position }),
        };
        let task = tokio::spawn(async move { job.run(source.as_ref(), wish).await });
        Streaming { stop, durable, task }
    }

    /// Waits until everything before `lsn` is confirmed as durable.
    pub async fn wait_for(&self, lsn: &str) -> Result<Lsn, Failure> {
        let wanted: Lsn = lsn
            .parse()
            .map_err(|_| defect("the server's position cannot be read"))?;
        let mut durable = self.durable.clone();
        let reached = durable.wait_for(|position| Lsn::from(*position) >= wanted);
        let reached = tokio::time::timeout(WAIT_MAX, reached).await;
        match reached {
            Ok(Ok(position)) => Ok(Lsn::from(*position)),
            _ => Err(defect("the stream did not store the log in time")),
        }
    }

    /// Lets it store what it holds.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        // The receiver is gone only when the stream has ended already.
        let _ = self.stop.send(Wish::Stop);
        match tokio::time::timeout(WAIT_MAX, &mut self.task).await {
            Ok(Ok(outcome)) => Ok(outcome?),
            _ => Err(defect("the stream did not stop")),
        }
    }

    /// Ends it where it is.
    pub async fn end(self) {
        if !self.task.is_finished() {
            self.task.abort();
            // That it was ended is what was asked for.
            let _ = self.task.await;
        }
    }
}
