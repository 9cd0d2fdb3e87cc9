//! A stream that runs beside a scenario.

use backstay_engine::jobs::stream::{Cadence, StreamJob, Wish};
use backstay_engine::{EngineError, Fact, Observer};
use backstay_postgres::PostgresSource;
use backstay_repository::{Repository, SystemChance};
use backstay_source::{LogSource, Source};
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
    count: watch::Sender<usize>,
    failed: watch::Sender<Option<String>>,
}

impl Observer for Heard {
    fn observe(&self, fact: &Fact) {
        if let Fact::LogDurable { position } = fact {
            self.position.send_replace(*position);
        }
        self.facts.lock().expect("no observer panics").push(fact.clone());
        self.count.send_modify(|count| *count += 1);
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
    /// Starts a stream of a PostgreSQL server.
    pub fn start(
        source: Arc<PostgresSource>,
        repository: &Repository,
        name: &SourceName,
        cadence: Cadence,
    ) -> Running {
        Running::follow(source.clone(), source, repository, name, cadence)
    }

    /// Starts a stream of any source with a log.
    pub fn follow(
        source: Arc<dyn Source>,
        log: Arc<dyn LogSource>,
        repository: &Repository,
        name: &SourceName,
        cadence: Cadence,
    ) -> Running {
        let (position, _) = watch::channel(Position::default());
        let (failed, _) = watch::channel(None);
        let heard = Arc::new(Heard {
            position,
            facts: Mutex::new(Vec::new()),
            count: watch::channel(0).0,
            failed,
        });
        let (stop, wish) = watch::channel(Wish::Run);
        let job = StreamJob {
            name: name.clone(),
            source,
            repository: repository.clone(),
            cadence,
            chance: Arc::new(SystemChance),
            observer: heard.clone(),
        };
        let hears = heard.clone();
        let task = tokio::spawn(async move {
            let ended = job.run(log.as_ref(), wish).await;
            let error = ended.as_ref().err().map(ToString::to_string);
            hears.failed.send_replace(error);
            ended
        });
        Running { stop, heard, task }
    }

    /// Waits until everything before `lsn` is confirmed; a stream that failed is told at once.
    pub async fn until_durable(&self, lsn: Lsn) {
        let mut position = self.heard.position.subscribe();
        let mut failed = self.heard.failed.subscribe();
        tokio::select! {
            _ = position.wait_for(|position| Lsn::from(*position) >= lsn) => {}
            error = failed.wait_for(Option::is_some) => {
                assert!(error.is_err(), "the stream ended: {:?}", error.map(|error| error.clone()));
            }
            () = tokio::time::sleep(WAIT_MAX) => {
                let (durable, facts) = (self.durable(), self.facts());
                assert!(durable >= lsn, "{lsn} was not confirmed in time, only {durable}; heard {facts:?}");
            }
        }
    }

    /// Waits until a fact of this kind was heard.
    pub async fn until_heard(&self, wanted: impl Fn(&Fact) -> bool) {
        let mut count = self.heard.count.subscribe();
        let heard = count.wait_for(|_| self.facts().iter().any(&wanted));
        let heard = tokio::time::timeout(WAIT_MAX, heard).await;
        assert!(
            heard.is_ok(),
            "it was not heard in time; heard {:?}",
            self.facts()
        );
    }

    /// Waits until this holds; looked at whenever something is heard, and once a while for what is not heard.
    pub async fn until(&self, holds: impl Fn(&Running) -> bool) {
        self.until_each(Duration::from_millis(50), || {}, holds).await;
    }

    /// The same on a clock of the test's own: `pass` lets time pass, whenever nothing was heard for a moment.
    pub async fn until_while(&self, pass: impl Fn(), holds: impl Fn(&Running) -> bool) {
        self.until_each(Duration::from_millis(2), pass, holds).await;
    }

    async fn until_each(&self, silence: Duration, pass: impl Fn(), holds: impl Fn(&Running) -> bool) {
        let mut count = self.heard.count.subscribe();
        let deadline = tokio::time::Instant::now() + WAIT_MAX;
        while !holds(self) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "it did not come true; heard {:?}",
                self.facts()
            );
            let heard = tokio::time::timeout(silence, count.changed());
            if heard.await.is_err() {
                pass();
            }
        }
    }

    /// How far the log is confirmed.
    pub fn durable(&self) -> Lsn {
        Lsn::from(*self.heard.position.borrow())
    }

    /// Whether it has ended by itself.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Everything heard so far.
    pub fn facts(&self) -> Vec<Fact> {
        self.heard.facts.lock().expect("no observer panics").clone()
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// What it ended with.
    pub async fn ended(self) -> Result<(), EngineError> {
        let ended = tokio::time::timeout(WAIT_MAX, self.task).await;
        ended
            .expect("the stream ends in time")
            .expect("the stream does not panic")
    }

    /// Asks it to stop, and waits for nothing.
    pub fn ask_to_stop(&self) {
        // The receiver is gone only when the stream has ended already.
        let _ = self.stop.send(Wish::Stop);
    }

    /// Stops it in its proper way.
    pub async fn stop(self) -> Result<(), EngineError> {
        self.ask_to_stop();
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
