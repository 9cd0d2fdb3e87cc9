//! The recorded conversation: a real PostgreSQL 15 is backed up, followed, promoted over and followed again.
//!
//! Promise: recorded once in a run of the tests, from servers that are gone when it returns; the WAL that every cell is
//! compared with is the one in the recording. Template databases are dropped, so that a base has hundreds of files, not
//! a thousand. Not here: playing it (wire).

use super::wire::{Player, Recorder, Reported, SLOT, Script};
use async_trait::async_trait;
use backstay_clock::{Clock, SystemClock};
use backstay_postgres::replication::command::SlotName;
use backstay_postgres::replication::stream::Slot;
use backstay_postgres::{Conninfo, PostgresSource};
use backstay_scenarios::World;
use backstay_source::Source;
use backstay_terms::{LogRange, Lsn, Position};
use backstay_testkit::pg::{PgOptions, PgServer, Stop};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::stream::end_of_log;

/// Bytes of a segment of the recorded server.
pub const SEGMENT: u64 = 1 << 20;
/// Rows that each transaction adds to the table `t`.
pub const ROWS_OF_TRANSACTION: u64 = 100;
/// Rows of `t` when the primary stops.
pub const ROWS_OF_PRIMARY: u64 = 15 * ROWS_OF_TRANSACTION;

/// The server before and after its standby was promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Primary,
    Promoted,
}

impl Act {
    /// The timeline that the server is on.
    pub fn timeline(self) -> u32 {
        match self {
            Act::Primary => 1,
            Act::Promoted => 2,
        }
    }
}

/// Bytes of one timeline as they were streamed.
#[derive(Debug)]
pub struct Wal {
    pub from: Position,
    pub bytes: Vec<u8>,
}

impl Wal {
    pub fn end(&self) -> Position {
        Position(self.from.0 + self.bytes.len() as u64)
    }

    /// The bytes of a part of it; none when it holds not all of them.
    pub fn part(&self, range: LogRange) -> Option<&[u8]> {
        let from = range.from.0.checked_sub(self.from.0)?;
        self.bytes.get(from as usize..(from + range.length()) as usize)
    }
}

/// Everything recorded.
#[derive(Debug)]
pub struct Conversation {
    primary: Arc<Script>,
    promoted: Arc<Script>,
    pub wal: BTreeMap<u32, Wal>,
}

impl Conversation {
    /// Plays one of the two servers.
    pub fn play(&self, act: Act, reported: Reported) -> Player {
        let script = match act {
            Act::Primary => &self.primary,
            Act::Promoted => &self.promoted,
        };
        Player::start(script.clone(), reported)
    }

    /// Where the log of a server ends.
    pub fn end(&self, act: Act) -> Position {
        let script = match act {
            Act::Primary => &self.primary,
            Act::Promoted => &self.promoted,
        };
        streamed(script, act.timeline()).end()
    }

    /// Records it.
    pub async fn record() -> Conversation {
        let mut primary = small_server().await;
        let standby = primary.start_standby().await;
        let world = World::new().await;
        let first = record_primary(&world, &primary).await;
        let end = end_of_log(&primary).await;
        let caught_up = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'::pg_lsn");
        while standby.value(&caught_up).await != "t" {}
        primary.stop(Stop::Immediate).await;
        standby.promote().await;
        let second = record_promoted(&world, &standby).await;
        let wal = BTreeMap::from([
            (1, joined(streamed(&first, 1), streamed(&second, 1))),
            (2, streamed(&second, 2)),
        ]);
        Conversation {
            primary: Arc::new(first),
            promoted: Arc::new(second),
            wal,
        }
    }
}

/// The source at a recorder or a player.
pub fn source(conninfo: Conninfo, clock: Arc<dyn Clock>) -> Arc<PostgresSource> {
    let slot = Slot::CreateIfMissing(SlotName::new(SLOT).unwrap());
    Arc::new(PostgresSource::new(conninfo, Some(slot), clock))
}

/// A clock on which 10 ms pass whenever it is asked: reports to the server are spaced by as much, and no cell waits for it.
#[derive(Debug, Default)]
pub struct PassingClock {
    asked: AtomicU64,
}

#[async_trait]
impl Clock for PassingClock {
    fn now(&self) -> Timestamp {
        SystemClock::new().now()
    }

    fn instant(&self) -> Duration {
        Duration::from_millis(10 * self.asked.fetch_add(1, Ordering::Relaxed))
    }

    async fn sleep(&self, length: Duration) {
        SystemClock::new().sleep(length).await;
    }
}

async fn small_server() -> PgServer {
    let options = PgOptions {
        conf: vec!["wal_keep_size = 1GB".to_owned(), "autovacuum = off".to_owned()],
        wal_segment_mebibytes: (SEGMENT >> 20) as u32,
        ..PgOptions::default()
    };
    let server = PgServer::start_with(options).await;
    server.sql("UPDATE pg_database SET datistemplate = false").await;
    for statement in [
        "DROP DATABASE template0",
        "DROP DATABASE template1",
        "CREATE TABLE t (n int)",
    ] {
        server.sql(statement).await;
    }
    server
}

/// A stream from its first byte, with a backup beside it and more than two segments of log.
async fn record_primary(world: &World, server: &PgServer) -> Script {
    let recorder = Recorder::before(&server.socket_dir());
    let source = source(recorder.conninfo(), Arc::new(SystemClock::new()));
    let running = world.stream(source.clone());
    load(&running, server, 3).await;
    let head = world.backup(source.clone(), &server.room().dir("scratch")).await;
    let base = head.unwrap().log.unwrap();
    assert_eq!(base.segment_size, SEGMENT);
    for _ in 0..2 {
        load(&running, server, 3).await;
        server.sql("SELECT pg_switch_wal()").await;
    }
    load(&running, server, 6).await;
    running.stop().await.unwrap();
    // The last word about where the log ends lies beyond everything that was streamed.
    source.identify().await.unwrap();
    recorder.end().await
}

async fn record_promoted(world: &World, server: &PgServer) -> Script {
    let recorder = Recorder::before(&server.socket_dir());
    let source = source(recorder.conninfo(), Arc::new(SystemClock::new()));
    let running = world.stream(source.clone());
    load(&running, server, 6).await;
    running.stop().await.unwrap();
    source.identify().await.unwrap();
    recorder.end().await
}

/// Transactions, each of which is waited for: each one comes in messages of its own.
async fn load(running: &backstay_scenarios::Running, server: &PgServer, transactions: usize) {
    for _ in 0..transactions {
        let insert = format!("INSERT INTO t SELECT generate_series(1, {ROWS_OF_TRANSACTION})");
        server.sql(&insert).await;
        let end: Lsn = end_of_log(server).await;
        running.until_durable(end).await;
    }
}

fn streamed(script: &Script, timeline: u32) -> Wal {
    let (from, bytes) = script.wal(timeline).expect("this timeline was streamed");
    Wal {
        from: Position(from),
        bytes,
    }
}

/// The earlier part and the later one, which overlap or touch.
fn joined(earlier: Wal, later: Wal) -> Wal {
    let mut whole = earlier;
    let overlap = (whole.end().0 - later.from.0) as usize;
    whole
        .bytes
        .extend_from_slice(later.bytes.get(overlap..).unwrap_or_default());
    whole
}
