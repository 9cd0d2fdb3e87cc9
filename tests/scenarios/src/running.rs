//! A stream that runs beside a scenario.

use backstay_engine::jobs::stream::{Cadence, StreamJob, Wish};
use backstay_engine::{EngineError, Fact, Observer};
use backstay_postgres::PostgresSource;
use backstay_repository::{Repository, SystemChance};
use backstay_terms::{Lsn, Position, SourceName};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long anything may be waited for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Remembers what happened and how far the log is durable.
#[derive(Debug)]
pub struct Heard {
    position: watch::Sender<Position>,
    facts: Mutex<Vec<Fact>>,
}

impl Observer for Heard {
    fn observe(&self, fact: &Fact) {
        if let Fact::LogDurable { position } = fact {
            self.position.send_replace(*position);
        }
        self.facts.lock().expect("no observer panics").push(fact.clone());
    }
}

/// A running stream.
#[derive(Debug)]
pub struct Running {
    stop: watch::Sender<Wish>,
    heard: Arc<Heard>,
    task: JoinHandle<Result<(), EngineError>>,
}

impl Running {
    /// Starts a stream.
    pub fn start(
        source: Arc<PostgresSource>,
        repository: &Repository,
        name: &SourceName,
        cadence: Cadence,
    ) -> Running {
        let (position, _) = watch::channel(Position::default());
        let heard = Arc::new(Heard {
            position,
            facts: Mutex::new(Vec::new()),
        });
        let (stop, wish) = watch::channel(Wish::Run);
        let job = StreamJob {
            name: name.clone(),
            source: source.clone(),
            repository: repository.clone(),
            cadence,
            chance: Arc::new(SystemChance),
            observer: heard.clone(),
        };
        let task = tokio::spawn(async move { job.run(source.as_ref(), wish).await });
        Running { stop, heard, task }
    }

    /// Waits until everything before `lsn` is confirmed.
    pub async fn until_durable(&self, lsn: Lsn) {
        let mut position = self.heard.position.subscribe();
        let reached = position.wait_for(|position| Lsn::from(*position) >= lsn);
        let reached = tokio::time::timeout(WAIT_MAX, reached).await;
        assert!(
            matches!(reached, Ok(Ok(_))),
            "{lsn} was not confirmed in time; heard {:?}",
            self.facts()
        );
    }

    /// How far the log is confirmed.
    pub fn durable(&self) -> Lsn {
        Lsn::from(*self.heard.position.borrow())
    }

    /// Everything heard so far.
    pub fn facts(&self) -> Vec<Fact> {
        self.heard.facts.lock().expect("no observer panics").clone()
    }

    /// Stops it in its proper way.
    pub async fn stop(self) -> Result<(), EngineError> {
        // The receiver is gone only when the stream has ended already.
        let _ = self.stop.send(Wish::Stop);
        let ended = tokio::time::timeout(WAIT_MAX, self.task).await;
        ended
            .expect("the stream stops in time")
            .expect("the stream does not panic")
    }

    /// Ends it as a SIGKILL would: nothing more is stored or said.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}
