//! The steps of the demo, in order.
//!
//! Promise: counts and digests of the tables are taken on the source before the accident and compared with the restored
//! server's, row by row through the digest.

use super::server::{Server, connect};
use super::{Held, Proof, Told};
use crate::cli::Demo;
use crate::codes::Code;
use crate::commands::scratch::Scratch;
use crate::failure::Failure;
use crate::session::Session;
use backstay_clock::Clock;
use backstay_codec::SecretKey;
use backstay_engine::jobs::backup::BackupJob;
use backstay_engine::jobs::restore::{RestoreJob, Restored};
use backstay_engine::jobs::stream::{Cadence, StreamJob, Wish};
use backstay_engine::plan::{Catalog, Request, plan};
use backstay_engine::{EngineError, Fact, Observer, Silent};
use backstay_postgres::replication::command::SlotName;
use backstay_postgres::replication::stream::Slot;
use backstay_postgres::wal::PostgresLog;
use backstay_postgres::{Connection, Conninfo, PostgresDirectory, PostgresSource, RestoreOptions};
use backstay_repository::{Head, Recipient, Repository, SystemChance};
use backstay_source::{Checkpoint, RecoveryAction, StartRequest, WalDelivery};
use backstay_store::LocalDirectory;
use backstay_terms::{EngineKind, Lsn, Position, RecoveryTarget, RetentionClass, SourceName};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long anything may be waited for.
const WAIT_MAX: Duration = Duration::from_secs(90);

/// Rows of 100 bytes and more that make about 300 MB with their index.
const LOAD: [&str; 4] = [
    "CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL, placed timestamptz NOT NULL, note text NOT NULL)",
    "INSERT INTO orders SELECT n, n % 9973, timestamptz '2026-01-01' + n * interval '1 second', md5(n::text) || md5((n * 7)::text) || repeat('.', 40) FROM generate_series(1, 1400000) n",
    "CREATE TABLE customers AS SELECT n AS id, md5(n::text) AS name FROM generate_series(1, 9973) n",
    "CHECKPOINT",
];

/// Everything that the steps share.
#[derive(Debug)]
pub struct Story {
    room: Scratch,
    keep: bool,
    path: String,
    name: SourceName,
    steps: Vec<(&'static str, Duration)>,
}

/// What a table holds: rows, and a digest over all of them in order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    rows: String,
    digest: String,
}

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

/// A stream that runs beside the story.
struct Running {
    stop: watch::Sender<Wish>,
    durable: watch::Receiver<Position>,
    task: JoinHandle<Result<(), EngineError>>,
}

impl Story {
    /// Makes a directory for all of it.
    pub fn begin(session: &Session, arguments: &Demo) -> Result<Story, Failure> {
        let refuse = |error: std::io::Error| {
            let help = "set TMPDIR to a directory that you may write to";
            Failure::new(Code::LocalFile, "no directory for the demo can be made", help).caused_by(&error)
        };
        let room = Scratch::make().map_err(refuse)?;
        // The unprivileged server has to reach its own directories inside.
        std::fs::set_permissions(room.path(), std::fs::Permissions::from_mode(0o711)).map_err(refuse)?;
        let path = session.environment().get("PATH").unwrap_or_default();
        let name = "demo"
            .parse()
            .map_err(|e: backstay_terms::IdError| Failure::new(Code::Other, e.to_string(), "report this"))?;
        Ok(Story {
            room,
            keep: arguments.keep,
            path,
            name,
            steps: Vec::new(),
        })
    }

    /// Runs every step.
    pub async fn tell(mut self, session: &mut Session) -> Result<Told, Failure> {
        let clock = Arc::clone(&session.clock);
        let mut watch = Stopwatch {
            clock: clock.clone(),
            since: clock.instant(),
        };
        session.printer.note("A PostgreSQL server is made and filled ...");
        let mut server = Server::start(self.room.path(), &self.path, clock.as_ref()).await?;
        let mut source = server.connect().await?;
        for sql in LOAD {
            run(&mut source, sql).await?;
        }
        self.step(session, &mut watch, "made and filled a server");

        let repository = self.repository(clock.clone()).await?;
        let postgres = Arc::new(self.source(&server, clock.clone())?);
        let running = self.stream(postgres.clone(), repository.clone());
        let head = self.backup(postgres, repository.clone()).await?;
        self.step(
            session,
            &mut watch,
            "took an encrypted backup while the log streams",
        );

        run(&mut source, "INSERT INTO orders SELECT n, 1, now(), 'after the backup' FROM generate_series(1400001, 1450000) n").await?;
        let before = contents(&mut source).await?;
        let moment = one(
            &mut source,
            "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 946684800000000",
        )
        .await?;
        let moment: i64 = moment
            .parse()
            .map_err(|_| defect("the server's clock is not a number"))?;
        run(&mut source, "DROP TABLE orders").await?;
        let dropped = one(&mut source, "SELECT pg_current_wal_flush_lsn()").await?;
        self.step(
            session,
            &mut watch,
            "wrote 50,000 rows more, then DROPPED the table",
        );

        let confirmed = wait_for(&running, &dropped).await?;
        server.kill();
        self.step(
            session,
            &mut watch,
            "the drop itself is stored; the server is killed",
        );
        stop(running).await?;

        let directory = self.directory(clock);
        let restored = self.restore(repository, moment, directory.clone()).await?;
        let copy = restored
            .evidence
            .as_ref()
            .map(|evidence| evidence.connect.clone());
        let mut copy = connect(&copy.ok_or_else(|| defect("the restored server was not started"))?).await?;
        let after = contents(&mut copy).await?;
        self.step(
            session,
            &mut watch,
            "restored to the moment before the drop and started the copy",
        );
        let proofs = proofs(&before, &after, &head, &confirmed, &dropped);
        self.finish(proofs, head, &directory).await
    }

    fn step(&mut self, session: &mut Session, watch: &mut Stopwatch, what: &'static str) {
        let length = watch.lap();
        session
            .printer
            .note(&format!("{:>6.1} s  {what}", length.as_secs_f64()));
        self.steps.push((what, length));
    }

    async fn repository(&self, clock: Arc<dyn Clock>) -> Result<Repository, Failure> {
        let directory = LocalDirectory::create(&self.room.path().join("repository"), clock.clone()).await?;
        let key = SecretKey::generate().map_err(|e| defect(&e.to_string()))?;
        let recipients = [Recipient::Raw(key)];
        Ok(Repository::init(Arc::new(directory), clock, Arc::new(SystemChance), &recipients).await?)
    }

    fn source(&self, server: &Server, clock: Arc<dyn Clock>) -> Result<PostgresSource, Failure> {
        let conninfo =
            Conninfo::parse(&server.conninfo_text(), &|_| None).map_err(|error| Failure::from(&error))?;
        let slot = SlotName::new("backstay_demo").ok_or_else(|| defect("the slot's name is refused"))?;
        Ok(PostgresSource::new(
            conninfo,
            Some(Slot::CreateIfMissing(slot)),
            clock,
        ))
    }

    fn stream(&self, source: Arc<PostgresSource>, repository: Repository) -> Running {
        let (position, durable) = watch::channel(Position::default());
        let (stop, wish) = watch::channel(Wish::Run);
        let cadence = Cadence {
            live_after: Duration::from_secs(1),
            ..Cadence::default()
        };
        let job = StreamJob {
            name: self.name.clone(),
            source: source.clone(),
            repository,
            cadence,
            chance: Arc::new(SystemChance),
            observer: Arc::new(Frontier { position }),
        };
        let task = tokio::spawn(async move { job.run(source.as_ref(), wish).await });
        Running { stop, durable, task }
    }

    async fn backup(&self, source: Arc<PostgresSource>, repository: Repository) -> Result<Head, Failure> {
        let scratch = self.room.path().join("scratch");
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

    async fn restore(
        &self,
        repository: Repository,
        moment: i64,
        target: Arc<PostgresDirectory>,
    ) -> Result<Restored, Failure> {
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
            target,
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

    fn directory(&self, clock: Arc<dyn Clock>) -> Arc<PostgresDirectory> {
        let options = RestoreOptions::new(self.place().join("restored"), clock);
        Arc::new(PostgresDirectory::new(RestoreOptions {
            sockets: self.place(),
            ..options
        }))
    }

    fn place(&self) -> PathBuf {
        self.room.path().to_owned()
    }

    async fn finish(
        self,
        proofs: Vec<Proof>,
        head: Head,
        directory: &PostgresDirectory,
    ) -> Result<Told, Failure> {
        if !self.keep {
            directory.stop().await?;
        }
        let kept = self.keep.then(|| self.place());
        let Story {
            room, keep, steps, ..
        } = self;
        if keep {
            room.keep();
        }
        Ok(Told {
            proofs,
            steps,
            database: head.totals.bytes,
            stored: head.totals.stored,
            kept,
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

fn defect(what: &str) -> Failure {
    Failure::new(
        Code::Other,
        format!("the demo cannot go on: {what}"),
        "run it again; if it stays, report it",
    )
}

async fn run(connection: &mut Connection, sql: &str) -> Result<(), Failure> {
    let answer = connection.simple_query(sql).await;
    answer
        .map(|_| ())
        .map_err(|error| Failure::from(backstay_source::SourceError::from(error)))
}

/// The first column of the first row.
async fn one(connection: &mut Connection, sql: &str) -> Result<String, Failure> {
    let answer = connection.simple_query(sql).await;
    let answer = answer.map_err(|error| Failure::from(backstay_source::SourceError::from(error)))?;
    let value = answer
        .first()
        .and_then(|rows| rows.rows.first())
        .and_then(|row| row.first().cloned().flatten());
    value.ok_or_else(|| defect("the server answered nothing"))
}

/// Rows and digests of both tables.
async fn contents(connection: &mut Connection) -> Result<Vec<Content>, Failure> {
    let mut contents = Vec::new();
    for table in ["orders", "customers"] {
        let rows = one(connection, &format!("SELECT count(*) FROM {table}")).await?;
        let digest = format!("SELECT md5(string_agg(md5(t::text), '' ORDER BY id)) FROM {table} t");
        contents.push(Content {
            rows,
            digest: one(connection, &digest).await?,
        });
    }
    Ok(contents)
}

/// Waits until everything before `lsn` is confirmed as durable.
async fn wait_for(running: &Running, lsn: &str) -> Result<Lsn, Failure> {
    let wanted: Lsn = lsn
        .parse()
        .map_err(|_| defect("the server's position cannot be read"))?;
    let mut durable = running.durable.clone();
    let reached = durable.wait_for(|position| Lsn::from(*position) >= wanted);
    let reached = tokio::time::timeout(WAIT_MAX, reached).await;
    match reached {
        Ok(Ok(position)) => Ok(Lsn::from(*position)),
        _ => Err(defect("the stream did not store the log in time")),
    }
}

async fn stop(running: Running) -> Result<(), Failure> {
    // The receiver is gone only when the stream has ended already.
    let _ = running.stop.send(Wish::Stop);
    let ended = tokio::time::timeout(WAIT_MAX, running.task).await;
    match ended {
        Ok(Ok(outcome)) => Ok(outcome?),
        _ => Err(defect("the stream did not stop")),
    }
}

fn free_port() -> Result<u16, Failure> {
    let listener = TcpListener::bind(("127.0.0.1", 0));
    let port = listener
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port());
    port.map_err(|error| defect(&format!("no port is free: {error}")))
}

fn proofs(before: &[Content], after: &[Content], head: &Head, confirmed: &Lsn, dropped: &str) -> Vec<Proof> {
    let proof = |name: &str, seen: String, equal: bool| Proof {
        name: name.into(),
        seen,
        held: Held::from_comparison(equal),
    };
    let rows = |contents: &[Content]| {
        contents
            .iter()
            .map(|c| c.rows.clone())
            .collect::<Vec<_>>()
            .join(" + ")
    };
    let digests = |contents: &[Content]| contents.iter().map(|c| c.digest.clone()).collect::<Vec<_>>();
    vec![
        proof(
            "every row is back",
            format!(
                "{} rows before the drop, {} after the restore",
                rows(before),
                rows(after)
            ),
            rows(before) == rows(after),
        ),
        proof(
            "every row is equal",
            format!(
                "digests over all columns of all rows: {}",
                digests(after).join(", ")
            ),
            digests(before) == digests(after),
        ),
        proof(
            "the log was stored past the accident",
            format!("the drop ended at {dropped}, {confirmed} was confirmed before the server was killed"),
            dropped.parse::<Lsn>().is_ok_and(|dropped| *confirmed >= dropped),
        ),
        proof(
            "the backup was complete and checked against the server's manifest",
            format!("{} files, verdict {:?}", head.totals.files, head.verdict),
            head.verdict == backstay_repository::HeadVerdict::Good && head.totals.files > 900,
        ),
    ]
}
