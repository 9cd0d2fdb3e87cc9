//! Backups of weeks ago, made with a clock that stands there: the program's own clock cannot be set from outside.

use crate::program::Place;
use backstay_clock::{Clock, SimClock, SystemClock};
use backstay_codec::parse_master_key;
use backstay_engine::Silent;
use backstay_engine::jobs::backup::BackupJob;
use backstay_engine::plan::class::{ClassPolicy, choose, rivals};
use backstay_postgres::PostgresSource;
use backstay_repository::{Head, Recipient, Repository, RunFinished, RunResult, SystemChance};
use backstay_source::Checkpoint;
use backstay_store::LocalDirectory;
use backstay_terms::{EngineKind, RetentionClass};
use backstay_testkit::pg::PgServer;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// In seconds.
const DAY: i64 = 24 * 3600;

/// No backup is kept for longer than the shortest promise.
pub const SHORTEST: ClassPolicy = ClassPolicy {
    weekly: None,
    daily: None,
    rest: RetentionClass::Days35,
};

/// What the configuration says when it says nothing.
const USUAL: ClassPolicy = ClassPolicy {
    weekly: Some(RetentionClass::Years7),
    daily: Some(RetentionClass::Year1),
    rest: RetentionClass::Days35,
};

/// Noon of the day that is so many days ago: an hour later is the same day.
fn noon(days: i64) -> Timestamp {
    let today = SystemClock::new().now().as_second() / DAY;
    Timestamp::from_second((today - days) * DAY + DAY / 2).unwrap()
}

/// The repository of a place that `init` made, some days ago; fewer than none are ahead.
pub struct Past {
    clock: SimClock,
    repository: Repository,
}

impl Past {
    pub async fn of(place: &Place, days: i64) -> Past {
        let clock = SimClock::starting_at(noon(days));
        let key = std::fs::read_to_string(place.directory.join("backstay.key")).unwrap();
        let recipients = [Recipient::Raw(parse_master_key(&key).unwrap())];
        let directory = place.directory.join("backups");
        let store = LocalDirectory::open(&directory, Arc::new(clock.clone())).await;
        let (store, now) = (Arc::new(store.unwrap()), Arc::new(clock.clone()));
        let repository = Repository::open(store, now, Arc::new(SystemChance), &recipients).await;
        Past {
            clock,
            repository: repository.unwrap(),
        }
    }

    /// Leaves the records of a run that failed with this error.
    pub async fn failed(&self, verb: &str, error: &str) {
        let started = self.repository.run_started(verb, "main").await.unwrap();
        let record = RunFinished {
            started,
            finished: self.repository.now(),
            result: RunResult::Failed,
            error: Some(error.to_owned()),
            figures: serde_json::Value::Null,
        };
        self.repository.run_finished(&record).await.unwrap();
    }

    /// Takes a backup of the class that the configuration would choose; an hour has passed after it.
    pub async fn backup(&self, server: &PgServer) -> Head {
        self.backup_by(server, USUAL).await
    }

    /// The same of the class that a policy chooses.
    pub async fn backup_by(&self, server: &PgServer, policy: ClassPolicy) -> Head {
        let name = "main".parse().unwrap();
        let now = self.repository.now();
        let heads = rivals(&self.repository, EngineKind::Postgres, &name, now).await;
        let scratch = server.room().dir(&format!("scratch-{now}"));
        let job = BackupJob {
            name,
            source: Arc::new(PostgresSource::new(
                server.conninfo(),
                None,
                Arc::new(SystemClock::new()),
            )),
            repository: self.repository.clone(),
            class: choose(&heads.unwrap(), policy, now).class,
            checkpoint: Checkpoint::Fast,
            rate_max: None,
            scratch,
            observer: Arc::new(Silent),
        };
        let head = job.run().await.unwrap();
        self.clock.advance(Duration::from_secs(3600));
        head
    }
}
