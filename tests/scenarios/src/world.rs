//! One service with its repository.

use crate::Running;
use backstay_clock::SystemClock;
use backstay_codec::SecretKey;
use backstay_engine::jobs::backup::BackupJob;
use backstay_engine::jobs::restore::{RestoreJob, Restored};
use backstay_engine::jobs::stream::Cadence;
use backstay_engine::plan::{Catalog, Request, RestorePlan, Window, plan, window};
use backstay_engine::{EngineError, Silent};
use backstay_postgres::replication::command::SlotName;
use backstay_postgres::replication::stream::Slot;
use backstay_postgres::wal::PostgresLog;
use backstay_postgres::{Conninfo, PostgresSource};
use backstay_repository::{Head, Recipient, Repository, RepositoryError, SystemChance};
use backstay_source::{Checkpoint, RecoveryAction, Restore, StartRequest, WalDelivery};
use backstay_store::{MemoryStore, Store};
use backstay_terms::{EngineKind, RecoveryTarget, RetentionClass, SourceName};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// One service, its store and its repository.
#[derive(Debug)]
pub struct World {
    /// The service.
    pub name: SourceName,
    /// The repository.
    pub repository: Repository,
}

impl World {
    /// A new repository in memory.
    pub async fn new() -> World {
        let clock = Arc::new(SystemClock::new());
        World::over(Arc::new(MemoryStore::new(clock))).await
    }

    /// A new repository in this store with a key of its own.
    pub async fn over(store: Arc<dyn Store>) -> World {
        World::made(store, &SecretKey::generate().expect("the system has randomness")).await
    }

    /// A new repository in this store with this key.
    pub async fn made(store: Arc<dyn Store>, key: &SecretKey) -> World {
        let clock = Arc::new(SystemClock::new());
        let repository = Repository::init(
            store,
            clock,
            Arc::new(SystemChance),
            &[Recipient::Raw(key.clone())],
        )
        .await;
        let repository = repository.expect("a repository can be made in an empty store");
        World {
            name: "orders".parse().expect("a valid name"),
            repository,
        }
    }

    /// The repository that is in this store.
    ///
    /// # Errors
    /// Whatever opening it says; a store may die under it.
    pub async fn opened(store: Arc<dyn Store>, key: &SecretKey) -> Result<World, RepositoryError> {
        let clock = Arc::new(SystemClock::new());
        let recipients = [Recipient::Raw(key.clone())];
        let repository = Repository::open(store, clock, Arc::new(SystemChance), &recipients).await?;
        Ok(World {
            name: "orders".parse().expect("a valid name"),
            repository,
        })
    }

    /// The server at `conninfo` as a source with a slot of our own.
    pub fn source(&self, conninfo: Conninfo) -> Arc<PostgresSource> {
        let slot = SlotName::new("backstay").expect("a valid name");
        let clock = Arc::new(SystemClock::new());
        Arc::new(PostgresSource::new(
            conninfo,
            Some(Slot::CreateIfMissing(slot)),
            clock,
        ))
    }

    /// Starts a stream with a rhythm for tests.
    pub fn stream(&self, source: Arc<PostgresSource>) -> Running {
        let cadence = Cadence {
            live_after: Duration::from_millis(100),
            mark_every: Duration::from_millis(500),
            ..Cadence::default()
        };
        Running::start(source, &self.repository, &self.name, cadence)
    }

    /// Takes a backup.
    pub async fn backup(&self, source: Arc<PostgresSource>, scratch: &Path) -> Result<Head, EngineError> {
        let job = BackupJob {
            name: self.name.clone(),
            source,
            repository: self.repository.clone(),
            class: RetentionClass::Days35,
            checkpoint: Checkpoint::Fast,
            rate_max: None,
            scratch: scratch.to_owned(),
            observer: Arc::new(Silent),
        };
        job.run().await
    }

    /// What is stored.
    pub async fn catalog(&self) -> Result<Catalog, EngineError> {
        Catalog::read(&self.repository, EngineKind::Postgres, &self.name, None).await
    }

    /// What can be recovered.
    pub async fn window(&self) -> Result<Window, EngineError> {
        window(&self.catalog().await?, self.repository.now()).await
    }

    /// Plans a restore.
    pub async fn plan(&self, target: &RecoveryTarget) -> Result<RestorePlan, EngineError> {
        let request = Request {
            target: target.clone(),
            base: None,
            now: self.repository.now(),
        };
        plan(&self.catalog().await?, &request, &PostgresLog).await
    }

    /// Plans and restores, and starts the copy.
    pub async fn restore(
        &self,
        target: &RecoveryTarget,
        into: Arc<dyn Restore>,
        action: RecoveryAction,
        port: u16,
    ) -> Result<Restored, EngineError> {
        self.restore_from(self.catalog().await?, target, into, action, port)
            .await
    }

    /// The same from what is stored of one lineage.
    pub async fn restore_from(
        &self,
        catalog: Catalog,
        target: &RecoveryTarget,
        into: Arc<dyn Restore>,
        action: RecoveryAction,
        port: u16,
    ) -> Result<Restored, EngineError> {
        let request = Request {
            target: target.clone(),
            base: None,
            now: self.repository.now(),
        };
        let plan = plan(&catalog, &request, &PostgresLog).await?;
        let job = RestoreJob {
            repository: self.repository.clone(),
            catalog,
            plan,
            target: into,
            action,
            delivery: WalDelivery::Placed,
            start: Some(StartRequest {
                port,
                wait_max: Duration::from_secs(120),
            }),
            observer: Arc::new(Silent),
            workers: 2,
        };
        job.run().await
    }
}
