//! The steps of the demo, in order.
//!
//! Promise: `end` leaves no server and no stream of the story, however far it was told.
//! Not here: what is compared (proofs), when the story is cut short (demo).

use super::proofs::{Content, Proof, Seen, contents};
use super::server::{Server, connect, one, run};
use super::streaming::Streaming;
use super::{Kept, Told, defect};
use crate::cli::Demo;
use crate::codes::Code;
use crate::commands::scratch::Scratch;
use crate::failure::Failure;
use crate::keys;
use crate::new_file;
use crate::render::shell;
use crate::session::Session;
use backstay_clock::Clock;
use backstay_engine::Silent;
use backstay_engine::jobs::backup::BackupJob;
use backstay_engine::jobs::restore::{RestoreJob, Restored};
use backstay_engine::plan::{Catalog, Request, plan};
use backstay_postgres::replication::command::SlotName;
use backstay_postgres::replication::stream::Slot;
use backstay_postgres::wal::PostgresLog;
use backstay_postgres::{Connection, Conninfo, PostgresDirectory, PostgresSource, RestoreOptions};
use backstay_repository::{Head, Recipient, Repository, SystemChance};
use backstay_source::{Checkpoint, RecoveryAction, StartRequest, WalDelivery};
use backstay_store::LocalDirectory;
use backstay_terms::{EngineKind, RecoveryTarget, RetentionClass, SourceName};
use serde_json::Value;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long the copy may take.
const WAIT_MAX: Duration = Duration::from_secs(90);

/// Rows of 100 bytes and more that make about 300 MB with their index.
const LOAD: [&str; 4] = [
    "CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL, placed timestamptz NOT NULL, note text NOT NULL)",
    "INSERT INTO orders SELECT n, n % 9973, timestamptz '2026-01-01' + n * interval '1 second', md5(n::text) || md5((n * 7)::text) || repeat('.', 40) FROM generate_series(1, 1400000) n",
    "CREATE TABLE customers AS SELECT n AS id, md5(n::text) AS name FROM generate_series(1, 9973) n",
    "CHECKPOINT",
];

/// The files that open what is kept.
const CONFIG: &str = "backstay.yaml";
const KEY: &str = "backstay.key";

const MORE: &str =
    "INSERT INTO orders SELECT n, 1, now(), 'after the backup' FROM generate_series(1400001, 1450000) n";
const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 946684800000000";

/// Everything that the steps share, and what they started.
#[derive(Debug)]
pub struct Story {
    place: PathBuf,
    keep: bool,
    name: SourceName,
    steps: Vec<(&'static str, Duration)>,
    server: Server,
    streaming: Option<Streaming>,
    copy: Arc<PostgresDirectory>,
}

impl Story {
    /// Makes a directory for all of it. The session removes it when nothing can write there any more.
    pub fn begin(session: &mut Session, arguments: &Demo) -> Result<Story, Failure> {
        let refuse = |error: std::io::Error| {
            let help = "set TMPDIR to a directory that you may write to";
            Failure::new(Code::LocalFile, "no directory for the demo can be made", help).caused_by(&error)
        };
        let room = Scratch::make().map_err(refuse)?;
        let place = room.path().to_owned();
        // The unprivileged server has to reach its own directories inside.
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o711)).map_err(refuse)?;
        let path = session.environment().get("PATH").unwrap_or_default();
        let server = Server::new(&place, &path)?;
        if arguments.keep {
            room.keep();
        } else {
            session.remove_at_the_end(room);
        }
        let name = "demo"
            .parse()
            .map_err(|e: backstay_terms::IdError| Failure::new(Code::Other, e.to_string(), "report this"))?;
        let options = RestoreOptions::new(place.join("restored"), Arc::clone(&session.clock));
        let copy = Arc::new(PostgresDirectory::new(RestoreOptions {
            sockets: place.clone(),
            ..options
        }));
        Ok(Story {
            server,
            place,
            keep: arguments.keep,
            name,
            steps: Vec::new(),
            streaming: None,
            copy,
        })
    }

    /// Runs every step.
    pub async fn tell(&mut self, session: &mut Session) -> Result<Told, Failure> {
        let clock = Arc::clone(&session.clock);
        let mut watch = Stopwatch {
            clock: clock.clone(),
            since: clock.instant(),
        };
        session.printer.note("A PostgreSQL server is made and filled ...");
        let mut source = self.fill(clock.as_ref()).await?;
        self.step(session, &mut watch, "made and filled a server");

        let repository = self.repository(clock.clone()).await?;
        self.write_config()?;
        let postgres = Arc::new(self.source(clock.clone())?);
        self.streaming = Some(Streaming::start(
            self.name.clone(),
            postgres.clone(),
            repository.clone(),
        ));
        let head = self.backup(postgres, repository.clone()).await?;
        let what = "took an encrypted backup while the log streams";
        self.step(session, &mut watch, what);

        let accident = Accident::happen(&mut source).await?;
        let what = "wrote 50,000 rows more, then DROPPED the table";
        self.step(session, &mut watch, what);

        let confirmed = self.streaming()?.wait_for(&accident.dropped).await?;
        self.server.stop(clock.as_ref()).await;
        let what = "the drop itself is stored; the server is killed";
        self.step(session, &mut watch, what);
        self.streaming()?.stop().await?;

        let restored = self.restore(repository, accident.moment).await?;
        let evidence = restored.evidence;
        let connected = evidence.ok_or_else(|| defect("the restored server was not started"))?;
        let after = contents(&mut connect(&connected.connect).await?).await?;
        let what = "restored to the moment before the drop and started the copy";
        self.step(session, &mut watch, what);
        let seen = Seen {
            before: &accident.before,
            after: &after,
            head: &head,
            confirmed,
            dropped: &accident.dropped,
        };
        Ok(self.told(seen.proofs(), &head, connected.connect))
    }

    async fn fill(&mut self, clock: &dyn Clock) -> Result<Connection, Failure> {
        self.server.start(clock).await?;
        let mut source = self.server.connect().await?;
        for sql in LOAD {
            run(&mut source, sql).await?;
        }
        Ok(source)
    }

    fn step(&mut self, session: &mut Session, watch: &mut Stopwatch, what: &'static str) {
        let length = watch.lap();
        session
            .printer
            .note(&format!("{:>6.1} s  {what}", length.as_secs_f64()));
        self.steps.push((what, length));
    }

    async fn repository(&self, clock: Arc<dyn Clock>) -> Result<Repository, Failure> {
        let directory = LocalDirectory::create(&self.place.join("repository"), clock.clone()).await?;
        let (key, line) = keys::new_master()?;
        self.write(KEY, &line)?;
        let recipients = [Recipient::Raw(key)];
        Ok(Repository::init(Arc::new(directory), clock, Arc::new(SystemChance), &recipients).await?)
    }

    /// With it every command finds the repository that is kept.
    fn write_config(&self) -> Result<(), Failure> {
        let connection = Value::from(self.server.conninfo_text());
        let config = format!(
            "version: 1\nrepo: file://./repository\nkeys: [ {{ file: ./{KEY} }} ]\nservices:\n  {}: {{ postgresql: {connection} }}",
            self.name
        );
        self.write(CONFIG, &config)
    }

    fn write(&self, name: &str, line: &str) -> Result<(), Failure> {
        let content = Zeroizing::new(format!("{line}\n"));
        let written = new_file::write(&self.place.join(name), content.as_bytes());
        written.map_err(|error| defect(&format!("{name} cannot be written")).caused_by(&error))
    }

    fn source(&self, clock: Arc<dyn Clock>) -> Result<PostgresSource, Failure> {
        let conninfo = Conninfo::parse(&self.server.conninfo_text(), &|_| None)
            .map_err(|error| Failure::from(&error))?;
        let slot = SlotName::new("backstay_demo").ok_or_else(|| defect("the slot's name is refused"))?;
        Ok(PostgresSource::new(
            conninfo,
            Some(Slot::CreateIfMissing(slot)),
            clock,
        ))
    }

    async fn backup(&self, source: Arc<PostgresSource>, repository: Repository) -> Result<Head, Failure> {
        let scratch = self.place.join("scratch");
        std::fs::create_dir(&scratch).map_err(|e| defect(&e.to_string()))?;
        let job = BackupJob {
            name: self.name.clone(),
            source,
            repository,
            class: RetentionClass::Days35,
            checkpoint: Checkpoint::Fast,
            rate_max: None,
            scratch,
            observer: Arc::new(Silent),
        };
        Ok(job.run().await?)
    }

    async fn restore(&self, repository: Repository, moment: i64) -> Result<Restored, Failure> {
        let catalog = Catalog::read(&repository, EngineKind::Postgres, &self.name, None).await?;
        let request = Request {
            target: RecoveryTarget::Time(moment),
            base: None,
            now: repository.now(),
        };
        let plan = plan(&catalog, &request, &PostgresLog).await?;
        let job = RestoreJob {
            repository,
            catalog,
            plan,
            target: self.copy.clone(),
            action: RecoveryAction::Promote,
            delivery: WalDelivery::Placed,
            start: Some(StartRequest {
                port: free_port()?,
                wait_max: WAIT_MAX,
            }),
            observer: Arc::new(Silent),
            workers: 2,
        };
        Ok(job.run().await?)
    }

    fn streaming(&mut self) -> Result<&mut Streaming, Failure> {
        self.streaming
            .as_mut()
            .ok_or_else(|| defect("the stream was not started"))
    }

    fn told(&self, proofs: Vec<Proof>, head: &Head, connect: String) -> Told {
        Told {
            proofs,
            steps: self.steps.clone(),
            database: head.totals.bytes,
            stored: head.totals.stored,
            kept: self.keep.then(|| Kept {
                place: self.place.clone(),
                connect,
                look: self.look(head),
                stop: self.stop(head),
            }),
        }
    }

    fn look(&self, head: &Head) -> String {
        let config = self.place.join(CONFIG).display().to_string();
        shell::line(["backstay", "list", head.source.as_str(), "--config", &config])
    }

    fn stop(&self, head: &Head) -> String {
        let mut words = self.copy.pg_ctl(&head.version);
        words.extend(["-m", "fast", "stop"].map(str::to_owned));
        shell::line(words)
    }

    /// Where all of it is.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Stops what still runs. A copy that was restored is left running only if it is to be kept.
    pub async fn end(mut self, session: &mut Session, told: Result<Told, Failure>) -> Result<Told, Failure> {
        self.server.stop(session.clock.as_ref()).await;
        if let Some(streaming) = self.streaming.take() {
            streaming.end().await;
        }
        if self.keep && told.is_ok() {
            return told;
        }
        let stopped = self.copy.stop().await;
        if self.keep {
            session
                .printer
                .note(&format!("kept      {}", self.place.display()));
        }
        let told = told?;
        stopped?;
        Ok(told)
    }
}

/// What was there before the table was dropped, and when and where that was.
struct Accident {
    before: Vec<Content>,
    /// Microseconds since 2000-01-01 00:00:00 UTC, before the drop.
    moment: i64,
    /// The end of the log after it.
    dropped: String,
}

impl Accident {
    async fn happen(source: &mut Connection) -> Result<Accident, Failure> {
        run(source, MORE).await?;
        let before = contents(source).await?;
        let moment = one(source, NOW).await?;
        let moment = moment
            .parse()
            .map_err(|_| defect("the server's clock is not a number"))?;
        run(source, "DROP TABLE orders").await?;
        let dropped = one(source, "SELECT pg_current_wal_flush_lsn()").await?;
        Ok(Accident {
            before,
            moment,
            dropped,
        })
    }
}

struct Stopwatch {
    clock: Arc<dyn Clock>,
    since: Duration,
}

impl Stopwatch {
    fn lap(&mut self) -> Duration {
        let now = self.clock.instant();
        let length = now.saturating_sub(self.since);
        self.since = now;
        length
    }
}

fn free_port() -> Result<u16, Failure> {
    let listener = TcpListener::bind(("127.0.0.1", 0));
    let port = listener
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port());
    port.map_err(|error| defect(&format!("no port is free: {error}")))
}
