//! What tests of streams share: servers with small segments, attaching, and what a stream gave.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay_clock::SystemClock;
use backstay_postgres::replication::command::SlotName;
use backstay_postgres::replication::stream::{Slot, StreamError, StreamOptions, WalStream};
use backstay_source::{LogPiece, LogStep, Preceding, Resume, SourceError, SourceErrorKind};
use backstay_terms::{Durable, LogFacts, LogMark, Lsn, Position};
use backstay_testkit::pg::{PgOptions, PgServer, parse};

pub const SEGMENT: u64 = 1 << 20;
/// No test waits longer for a fact.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub async fn server_with(conf: &[&str]) -> PgServer {
    PgServer::start_with(PgOptions {
        conf: conf.iter().map(|line| (*line).to_owned()).collect(),
        wal_segment_mebibytes: 1,
        ..PgOptions::default()
    })
    .await
}

pub fn options(server: &PgServer, slot: Option<&str>) -> StreamOptions {
    StreamOptions {
        conninfo: parse(&(server.conninfo_text() + " application_name=backstay")),
        slot: slot.map(|name| Slot::CreateIfMissing(SlotName::new(name).unwrap())),
        made_slot: Arc::default(),
        clock: Arc::new(SystemClock::new()),
    }
}

/// A server lets go of a slot a moment after the connection that used it has ended.
pub async fn attach(server: &PgServer, slot: Option<&str>, resume: Resume) -> WalStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match WalStream::attach(options(server, slot), resume, &Preceding::none()).await {
            Err(StreamError::SlotInUse { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            attached => return attached.unwrap(),
        }
    }
}

pub async fn refused(server: &PgServer, slot: Option<&str>, resume: Resume) -> StreamError {
    WalStream::attach(options(server, slot), resume, &Preceding::none())
        .await
        .unwrap_err()
}

pub fn after(stream: &WalStream, timeline: u32, position: Lsn) -> Resume {
    Resume::After {
        system: stream.start().identity.place.system,
        timeline,
        position: position.into(),
    }
}

pub async fn lsn(server: &PgServer, sql: &str) -> Lsn {
    server.value(sql).await.parse().unwrap()
}

pub async fn flushed(server: &PgServer) -> Lsn {
    lsn(server, "SELECT pg_current_wal_flush_lsn()").await
}

pub async fn step(stream: &mut WalStream) -> LogStep {
    tokio::time::timeout(PATIENCE, stream.next())
        .await
        .unwrap()
        .unwrap()
}

pub async fn confirm(stream: &mut WalStream, position: Lsn) {
    stream.confirm(&Durable::attest(position.into())).await.unwrap();
}

/// What a test keeps of a stream, as a repository would.
#[derive(Default)]
pub struct Kept {
    pub from: Option<Position>,
    pub bytes: Vec<u8>,
    pub facts: LogFacts,
    pub marks: Vec<LogMark>,
}

impl Kept {
    pub fn add(&mut self, piece: LogPiece) {
        let from = *self.from.get_or_insert(piece.begins);
        assert_eq!(
            piece.begins.0,
            from.0 + self.bytes.len() as u64,
            "pieces are contiguous"
        );
        assert_eq!(
            piece.begins.0 / SEGMENT,
            (piece.ends().0 - 1) / SEGMENT,
            "no piece crosses a segment's border"
        );
        self.bytes.extend_from_slice(&piece.bytes);
        self.facts = std::mem::take(&mut self.facts).join(piece.facts);
    }

    pub fn end(&self) -> Lsn {
        Lsn(self.from.map_or(0, |from| from.0) + self.bytes.len() as u64)
    }

    pub async fn read_to(&mut self, stream: &mut WalStream, position: Lsn) {
        while self.end() < position {
            match step(stream).await {
                LogStep::Piece(piece) => self.add(piece),
                LogStep::Mark(mark) => self.marks.push(mark),
                LogStep::FlushWanted => confirm(stream, self.end()).await,
                other => panic!("{other:?}"),
            }
        }
    }

    pub async fn read_to_without_confirming(&mut self, stream: &mut WalStream, position: Lsn) {
        while self.end() < position {
            if let LogStep::Piece(piece) = step(stream).await {
                self.add(piece);
            }
        }
    }

    /// Compares with the segments that the server still has on `timeline`.
    pub fn assert_equals_files(&self, server: &PgServer, timeline: u32) {
        let from = self.from.unwrap().0;
        for (n, segment) in self.bytes.chunks(SEGMENT as usize).enumerate() {
            let number = from / SEGMENT + n as u64;
            let name = format!("{timeline:08X}{:08X}{:08X}", number >> 12, number & 0xFFF);
            let file = std::fs::read(server.data_dir().join("pg_wal").join(&name)).unwrap();
            assert!(
                file[..segment.len()] == *segment,
                "{name} differs from what was streamed"
            );
        }
    }
}

pub async fn work(server: &PgServer, rows: u32) {
    server.sql("CREATE TABLE IF NOT EXISTS t (a int, b text)").await;
    server
        .sql(&format!(
            "INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, {rows}) n"
        ))
        .await;
}

pub fn kind(error: StreamError) -> SourceErrorKind {
    SourceError::from(error).kind
}
