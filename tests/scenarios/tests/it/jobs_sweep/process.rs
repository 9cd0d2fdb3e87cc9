//! One process of the sweep: the engine's jobs over a store that may die, beside a server that plays its recording.
//!
//! Promise: each verb runs the job that the program runs, on a simulated clock; what the outside world was told survives in
//! the ledger. Not here: what must hold afterwards (invariants), where it dies (sweep).

use super::conversation::{Act, Conversation, PassingClock, source};
use super::wire::Reported;
use super::wrong::ConfirmsEarly;
use backstay_clock::{SeededChance, SimClock};
use backstay_codec::SecretKey;
use backstay_engine::jobs::backup::BackupJob;
use backstay_engine::jobs::expire::ExpireJob;
use backstay_engine::jobs::stream::{Cadence, StreamJob, Wish, settle_all};
use backstay_engine::plan::retention::ExpiryPolicy;
use backstay_engine::{EngineError, Fact, Observer, Silent};
use backstay_repository::{Head, Known, LogStore, Recipient, Repository, RepositoryError, SystemChance};
use backstay_source::{Checkpoint, LogSource};
use backstay_store::faults::{CrashPlan, CrashStore};
use backstay_store::{Key, MemoryImage, MemoryStore, Store};
use backstay_terms::{EngineKind, Position, RetentionClass, SourceName};
use backstay_testkit::pg::Room;
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// What a process is started to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Make the repository.
    Init,
    /// A second key for everything that is there.
    Rotate,
    /// A base backup of the primary.
    Backup,
    /// The stream of the primary to the end of its log.
    Stream,
    /// The stream of the promoted standby, from where the primary's is stored.
    FollowPromotion,
    /// Live ranges become settled ones.
    Settle,
    /// What is past its promise goes.
    Expire,
    /// As `Stream`, killed as soon as the end of the log is durable: nothing is settled.
    StreamKilled,
    /// As `Stream`, from a source whose reader confirms what it merely hands on: a planted bug.
    StreamConfirmedEarly,
}

/// What the outside world was told; survives every death of a cell.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// By the recorded server: how far each timeline is durable.
    pub reported: Reported,
    heads: Arc<Mutex<Vec<Head>>>,
}

impl Ledger {
    /// Backups whose commit was acknowledged.
    pub fn heads(&self) -> Vec<Head> {
        self.heads.lock().unwrap().clone()
    }
}

/// A store with its clock: what a process finds.
#[derive(Clone, Debug)]
pub struct Scene {
    pub clock: SimClock,
    pub memory: MemoryStore,
}

impl Scene {
    /// Nothing yet.
    pub fn empty() -> Scene {
        let clock = SimClock::starting_at(jiff::Timestamp::from_second(1_800_000_000).unwrap());
        Scene::at(clock, MemoryImage::default())
    }

    fn at(clock: SimClock, image: MemoryImage) -> Scene {
        let memory = MemoryStore::from_snapshot(Arc::new(clock.clone()), image);
        Scene { clock, memory }
    }

    /// The same objects at the same moment, in a world of their own.
    pub fn copy(&self) -> Scene {
        use backstay_clock::Clock;
        Scene::at(SimClock::starting_at(self.clock.now()), self.memory.snapshot())
    }

    /// The names that contain this.
    pub fn names(&self, part: &str) -> Vec<Key> {
        self.objects(part).into_iter().map(|(key, _)| key).collect()
    }

    /// The objects whose name contains this.
    pub fn objects(&self, part: &str) -> Vec<(Key, Bytes)> {
        let image = self.memory.snapshot();
        let named = image.objects().filter(|(key, _)| key.as_str().contains(part));
        named.map(|(key, body)| (key.clone(), body.clone())).collect()
    }

    pub async fn open(&self, keys: &[u8]) -> Result<Repository, RepositoryError> {
        self.open_over(Arc::new(self.memory.clone()), keys).await
    }

    /// Over another view of the same objects.
    pub async fn open_over(&self, store: Arc<dyn Store>, keys: &[u8]) -> Result<Repository, RepositoryError> {
        open(store, &self.clock, keys).await
    }
}

async fn open(store: Arc<dyn Store>, clock: &SimClock, keys: &[u8]) -> Result<Repository, RepositoryError> {
    let recipients: Vec<Recipient> = keys.iter().map(|byte| key(*byte)).collect();
    Repository::open(
        store,
        Arc::new(clock.clone()),
        Arc::new(SystemChance),
        &recipients,
    )
    .await
}

fn key(byte: u8) -> Recipient {
    Recipient::Raw(SecretKey::new([byte; 32]))
}

pub fn name() -> SourceName {
    "orders".parse().unwrap()
}

/// A process that follows a crash plan.
#[derive(Debug)]
pub struct Process<'a> {
    pub conversation: &'a Conversation,
    pub scene: &'a Scene,
    pub ledger: &'a Ledger,
    pub plan: CrashPlan,
}

impl Process<'_> {
    /// Does what it was started for, or dies.
    pub async fn run(&self, verb: Verb) -> Result<(), EngineError> {
        match verb {
            Verb::Init => self.init().await,
            Verb::Rotate => self.rotate().await,
            Verb::Backup => self.backup().await,
            Verb::Stream | Verb::StreamConfirmedEarly => self.stream(Act::Primary, verb).await,
            Verb::StreamKilled => match self.stream(Act::Primary, verb).await {
                Err(_) if self.plan.is_dead() => Ok(()),
                ended => ended,
            },
            Verb::FollowPromotion => self.stream(Act::Promoted, verb).await,
            Verb::Settle => settle_all(&self.open().await?, &name(), &Silent).await,
            Verb::Expire => self.expire().await,
        }
    }

    fn store(&self) -> Arc<dyn Store> {
        let memory = Arc::new(self.scene.memory.clone());
        Arc::new(CrashStore::new(memory, self.plan.clone()))
    }

    async fn open(&self) -> Result<Repository, EngineError> {
        Ok(open(self.store(), &self.scene.clock, &[7]).await?)
    }

    async fn init(&self) -> Result<(), EngineError> {
        match self.open().await {
            Err(EngineError::Repository(RepositoryError::Absent)) => {
                let (clock, chance) = (Arc::new(self.scene.clock.clone()), Arc::new(SystemChance));
                Repository::init(self.store(), clock, chance, &[key(7)]).await?;
                Ok(())
            }
            opened => opened.map(drop),
        }
    }

    async fn rotate(&self) -> Result<(), EngineError> {
        let repository = open(self.store(), &self.scene.clock, &[7, 8]).await?;
        for envelope in repository.envelopes().await? {
            repository.rewrap(&envelope).await?;
        }
        Ok(())
    }

    async fn backup(&self) -> Result<(), EngineError> {
        let repository = self.open().await?;
        let played = self.conversation.play(Act::Primary, self.ledger.reported.clone());
        let scratch = Room::new();
        let job = BackupJob {
            name: name(),
            source: source(played.conninfo(), Arc::new(PassingClock::default())),
            repository,
            class: RetentionClass::Days35,
            checkpoint: Checkpoint::Fast,
            rate_max: None,
            scratch: scratch.path().to_owned(),
            observer: Arc::new(Silent),
        };
        let taken = job.run().await;
        played.end().await;
        self.ledger.heads.lock().unwrap().push(taken?);
        Ok(())
    }

    async fn stream(&self, act: Act, verb: Verb) -> Result<(), EngineError> {
        let repository = self.open().await?;
        let played = self.conversation.play(act, self.ledger.reported.clone());
        let server = source(played.conninfo(), Arc::new(PassingClock::default()));
        let log: Arc<dyn LogSource> = match verb {
            Verb::StreamConfirmedEarly => Arc::new(ConfirmsEarly(server.clone())),
            _ => server.clone(),
        };
        let (stop, wish) = watch::channel(Wish::Run);
        let end = self.conversation.end(act);
        let job = StreamJob {
            name: name(),
            source: server,
            repository,
            cadence: at_once(),
            chance: Arc::new(SeededChance::new(1)),
            observer: Arc::new(StopsAt {
                end,
                reached: self.is_stored(act, end).await,
                clock: self.scene.clock.clone(),
                stop,
                kill: (verb == Verb::StreamKilled).then(|| self.plan.clone()),
            }),
        };
        let ended = job.run(log.as_ref(), wish).await;
        drop((job, log));
        played.end().await;
        ended
    }

    /// Whether an earlier process stored everything that this server has.
    async fn is_stored(&self, act: Act, end: Position) -> Reach {
        let repository = self.scene.open(&[7]).await.unwrap();
        let log = LogStore::new(&repository, EngineKind::Postgres, &name());
        let known = log.known().await.unwrap();
        let of_server = |known: &&Known| known.record.branch.timeline == act.timeline();
        match known
            .iter()
            .filter(of_server)
            .filter_map(|known| known.frontier)
            .max()
        {
            Some(frontier) if frontier >= end => Reach::Everything,
            _ => Reach::NotYet,
        }
    }

    async fn expire(&self) -> Result<(), EngineError> {
        let job = ExpireJob {
            name: name(),
            engine: EngineKind::Postgres,
            repository: self.open().await?,
            policy: ExpiryPolicy::of(EngineKind::Postgres),
            observer: Arc::new(Silent),
        };
        let plan = job.plan().await?;
        job.run(&plan).await.map(drop)
    }
}

/// Every piece is stored as it comes; marks come after the rest.
fn at_once() -> Cadence {
    Cadence {
        live_after: Duration::ZERO,
        mark_every: TICK * 5,
        ..Cadence::default()
    }
}

/// How far the simulated clock moves for every range that is stored.
const TICK: Duration = Duration::from_secs(1);

/// How much of the server's log was stored before a process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Everything,
    NotYet,
}

/// Stops the stream when everything is durable.
#[derive(Debug)]
struct StopsAt {
    end: Position,
    reached: Reach,
    clock: SimClock,
    stop: watch::Sender<Wish>,
    /// The process dies then, instead of leaving in its proper way.
    kill: Option<CrashPlan>,
}

impl Observer for StopsAt {
    fn observe(&self, fact: &Fact) {
        match fact {
            Fact::RangeStored { .. } => self.clock.advance(TICK),
            // A lineage is told from the one before by the time of its record.
            Fact::StreamAttached { .. } if self.reached == Reach::NotYet => self.clock.advance(TICK),
            Fact::LogDurable { position } if *position >= self.end => self.stop(),
            // Nothing will be said to be durable: it is all stored.
            Fact::StreamAttached { .. } if self.reached == Reach::Everything => self.stop(),
            _ => {}
        }
    }
}

impl StopsAt {
    fn stop(&self) {
        self.stop.send_replace(Wish::Stop);
        if let Some(plan) = &self.kill {
            plan.kill();
        }
    }
}
