//! The format and the jobs carry other engines: a Redis-like log and a Qdrant-like set, from fake sources.
//!
//! Proves sections 7 and 8 of the format document: later work adds kinds of sources and changes no format.

use async_trait::async_trait;
use backstay_clock::{SeededChance, SystemClock};
use backstay_codec::SecretKey;
use backstay_engine::Silent;
use backstay_engine::jobs::backup::BackupJob;
use backstay_engine::jobs::stream::Cadence;
use backstay_repository::{BaseReader, LogStore, Recipient, Repository, stretches};
use backstay_scenarios::Running;
use backstay_source::{
    BaseEnd, BaseLog, BaseReader as BasePort, BaseRequest, BaseStep, Checkpoint, Finding, Identity, LogOffer,
    LogPiece, LogPlace, LogReader, LogSource, LogStart, LogStep, Preceding, Resume, Source, SourceError,
    Verdict,
};
use backstay_store::MemoryStore;
use backstay_terms::{
    Durable, EngineKind, EntryHeader, EntryKind, EntryPath, EntryRole, LogFacts, LogRange, Lsn, Position,
    RecordBounds, RetentionClass, SourceName,
};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Redis' offset counts from 1; ranges are cut anywhere.
const FIRST: u64 = 1;
const NO_FILES: u64 = 1 << 40;

fn command(n: u64) -> Vec<u8> {
    format!("*3\r\n$3\r\nSET\r\n$6\r\nk{n:05}\r\n$2\r\nvv\r\n").into_bytes()
}

#[derive(Debug)]
struct Fake {
    engine: EngineKind,
    log: Vec<u8>,
    files: Vec<(&'static str, EntryRole, Vec<u8>)>,
}

impl Fake {
    fn identity(&self) -> Identity {
        let position = Position(FIRST + self.log.len() as u64);
        Identity {
            engine: self.engine,
            version: "7.0.15".into(),
            place: LogPlace {
                system: 0x1234,
                timeline: 1,
                position,
            },
            segment_size: NO_FILES,
            history: None,
            ancestors: Vec::new(),
        }
    }
}

#[async_trait]
impl Source for Fake {
    async fn identify(&self) -> Result<Identity, SourceError> {
        Ok(self.identity())
    }

    async fn check(&self) -> Vec<Finding> {
        Vec::new()
    }

    async fn begin_base(&self, _request: BaseRequest) -> Result<Box<dyn BasePort>, SourceError> {
        let mut steps = VecDeque::new();
        for (number, (path, role, content)) in self.files.iter().enumerate() {
            let number = number as u32;
            let path = EntryPath::new(*path).unwrap();
            let size = content.len() as u64;
            let header = EntryHeader {
                role: *role,
                path,
                kind: EntryKind::File,
                size,
                mode: 0o600,
                modified: 0,
            };
            steps.push_back(BaseStep::Entry { number, header });
            steps.push_back(BaseStep::Bytes {
                number,
                offset: 0,
                bytes: Bytes::from(content.clone()),
            });
            steps.push_back(BaseStep::EntryEnd { number });
        }
        let offset = Position(FIRST + 10);
        let log = (self.engine == EngineKind::Redis).then_some(BaseLog {
            system: 0x1234,
            timeline: 1,
            start: offset,
            stop: offset,
            end_point: None,
            stop_time: 0,
            segment_size: NO_FILES,
        });
        let engine_facts = serde_json::json!({ "fake": true });
        let end = BaseEnd {
            verdict: Verdict::Good,
            log,
            version: "7.0.15".into(),
            engine_facts,
            notices: Vec::new(),
        };
        steps.push_back(BaseStep::End(Box::new(end)));
        Ok(Box::new(Steps(steps)))
    }

    fn log(&self) -> LogOffer<'_> {
        match self.engine {
            EngineKind::Redis => LogOffer::Follow(self),
            _ => LogOffer::None,
        }
    }
}

struct Steps(VecDeque<BaseStep>);

#[async_trait]
impl BasePort for Steps {
    async fn next(&mut self) -> Result<BaseStep, SourceError> {
        Ok(self.0.pop_front().expect("not called after the end"))
    }
}

#[async_trait]
impl LogSource for Fake {
    async fn follow(&self, resume: Resume, _: &Preceding) -> Result<Box<dyn LogReader>, SourceError> {
        let from = match resume {
            Resume::Fresh => Position(FIRST),
            Resume::After { position, .. } | Resume::At { position, .. } => position,
        };
        let identity = self.identity();
        let start = LogStart {
            identity,
            timeline: 1,
            from,
            history: None,
        };
        let rest = self.log[(from.0 - FIRST) as usize..].to_vec();
        Ok(Box::new(Following {
            start,
            rest,
            at: from,
        }))
    }
}

struct Following {
    start: LogStart,
    rest: Vec<u8>,
    at: Position,
}

#[async_trait]
impl LogReader for Following {
    fn start(&self) -> &LogStart {
        &self.start
    }

    async fn next(&mut self) -> Result<LogStep, SourceError> {
        if self.rest.is_empty() {
            std::future::pending::<()>().await;
        }
        // Cut anywhere, also within a command.
        let bytes: Vec<u8> = self.rest.drain(..self.rest.len().min(1_013)).collect();
        let begins = self.at;
        self.at = Position(begins.0 + bytes.len() as u64);
        let bounds = RecordBounds {
            count: 1,
            first_start: begins,
            first_previous: begins,
            last_start: begins,
            last_end: self.at,
        };
        let facts = LogFacts {
            records: Some(bounds),
            ..LogFacts::default()
        };
        Ok(LogStep::Piece(LogPiece {
            begins,
            bytes: Bytes::from(bytes),
            facts,
        }))
    }

    async fn keep_alive(&mut self) -> Result<(), SourceError> {
        std::future::pending().await
    }

    async fn confirm(&mut self, _durable: &Durable) -> Result<(), SourceError> {
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(), SourceError> {
        Ok(())
    }
}

async fn repository() -> Repository {
    let clock = Arc::new(SystemClock::new());
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let key = Recipient::Raw(SecretKey::generate().unwrap());
    Repository::init(store, clock, Arc::new(SeededChance::new(5)), &[key])
        .await
        .unwrap()
}

async fn backup(repository: &Repository, name: &SourceName, source: Arc<Fake>) -> BaseReader {
    let job = BackupJob {
        name: name.clone(),
        source,
        repository: repository.clone(),
        class: RetentionClass::Days35,
        checkpoint: Checkpoint::Fast,
        rate_max: None,
        scratch: std::env::temp_dir(),
        observer: Arc::new(Silent),
    };
    let head = job.run().await.unwrap();
    BaseReader::open(repository, &head.place()).await.unwrap()
}

async fn content(reader: &BaseReader, path: &str) -> Vec<u8> {
    let file = reader
        .files()
        .find(|file| file.path.as_text() == Some(path))
        .unwrap();
    reader.read_range(&file, 0..file.size).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_like_log_is_stored_settled_and_read_back_byte_for_byte() {
    let log: Vec<u8> = (0..4_000).flat_map(command).collect();
    let files = vec![("dump.rdb", EntryRole::Data, b"REDIS0011".repeat(1000))];
    let source = Arc::new(Fake {
        engine: EngineKind::Redis,
        log: log.clone(),
        files,
    });
    let (repository, name) = (repository().await, "cache".parse::<SourceName>().unwrap());
    let reader = backup(&repository, &name, source.clone()).await;
    assert_eq!(content(&reader, "dump.rdb").await, b"REDIS0011".repeat(1000));

    let end = Lsn(FIRST + log.len() as u64);
    let cadence = Cadence {
        live_after: Duration::from_millis(20),
        ..Cadence::default()
    };
    let running = Running::follow(source.clone(), source, &repository, &name, cadence);
    running.until_durable(end).await;
    running.kill().await;
    let store = LogStore::new(&repository, EngineKind::Redis, &name);
    let branch = store.known().await.unwrap()[0].record.branch;
    store.settle(&branch, NO_FILES).await.unwrap();
    let ranges = store.ranges(&branch, None).await.unwrap();
    assert!(LogStore::unsettled(&ranges).is_empty());
    let whole = stretches(ranges.iter().map(|range| &range.name.range));
    assert_eq!(
        whole,
        [LogRange {
            from: Position(FIRST),
            to: end.into()
        }]
    );
    assert_eq!(store.read(&branch, whole[0]).await.unwrap(), log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_qdrant_like_set_is_a_point_without_a_log() {
    let files = vec![
        ("docs/0.snapshot", EntryRole::Data, vec![7; 300_000]),
        ("docs/1.snapshot", EntryRole::Data, vec![8; 1]),
        ("aliases.json", EntryRole::Settings, b"{}".to_vec()),
    ];
    let source = Arc::new(Fake {
        engine: EngineKind::Qdrant,
        log: Vec::new(),
        files,
    });
    let (repository, name) = (repository().await, "vectors".parse::<SourceName>().unwrap());
    let reader = backup(&repository, &name, source).await;
    assert_eq!(reader.head().log, None);
    assert_eq!(content(&reader, "docs/0.snapshot").await, vec![7; 300_000]);
    assert_eq!(content(&reader, "aliases.json").await, b"{}");
}
