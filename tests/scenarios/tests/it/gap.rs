//! After a gap: whatever a source was told may be forgotten is stored, or the repository says that it is lost.
//!
//! Promise: the process dies at every call of the store while a stream attaches after a gap, and is opened again; the
//! source is a fake that behaves as a server with a slot does: what it is told to forget it forgets.
//! Not here: what a real server does with a report (backstay-postgres, stream_live).

use crate::shelf::{SYSTEM, Shelf, Written, branch, key, log_bytes, name};
use async_trait::async_trait;
use backstay_clock::SeededChance;
use backstay_engine::Silent;
use backstay_engine::jobs::stream::{Cadence, StreamJob, Wish};
use backstay_repository::{LogStore, Repository, missing, stretches};
use backstay_source::{
    Ancestor, BaseReader, BaseRequest, Finding, Identity, LogOffer, LogPiece, LogPlace, LogReader, LogSource,
    LogStart, LogStep, Preceding, Resume, Source, SourceError, SourceErrorKind,
};
use backstay_store::faults::{CrashMode, CrashPlan, CrashStore};
use backstay_terms::{Durable, EngineKind, LogFacts, LogRange, Position};
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

const SEGMENT: u64 = 64 << 10;
/// Stored before the gap: up to here.
const FRONTIER: u64 = 2 * SEGMENT + 1000;
/// The source has nothing before this any more.
const KEPT_FROM: u64 = 5 * SEGMENT;
/// Its log ends here.
const END: u64 = 6 * SEGMENT + 5000;
/// Where timeline 2 left timeline 1, for a source that was promoted meanwhile.
const FORK: u64 = 4 * SEGMENT + 77;

/// A server with a slot.
#[derive(Debug)]
struct Server {
    timeline: u32,
    /// Where the slot stands; the attempt that finds the gap moves it there.
    slot: Mutex<u64>,
    asked: Mutex<Vec<Resume>>,
    stop: watch::Sender<Wish>,
}

impl Server {
    fn identity(&self) -> Identity {
        let ancestor = Ancestor {
            timeline: 1,
            history: None,
            left_at: Position(FORK),
        };
        Identity {
            engine: EngineKind::Postgres,
            version: "15".into(),
            place: LogPlace {
                system: SYSTEM,
                timeline: self.timeline,
                position: Position(END),
            },
            segment_size: SEGMENT,
            history: (self.timeline == 2).then(|| Bytes::from_static(b"1\t0/4004D\tx\n")),
            ancestors: if self.timeline == 2 {
                vec![ancestor]
            } else {
                vec![]
            },
        }
    }

    fn told(&self, position: u64) {
        *self.slot.lock().unwrap() = position;
    }
}

/// The source as the job sees it.
#[derive(Clone, Debug)]
struct Shared(Arc<Server>);

#[async_trait]
impl Source for Shared {
    async fn identify(&self) -> Result<Identity, SourceError> {
        Ok(self.0.identity())
    }

    async fn check(&self) -> Vec<Finding> {
        Vec::new()
    }

    async fn begin_base(&self, _: BaseRequest) -> Result<Box<dyn BaseReader>, SourceError> {
        Err(SourceError::new(SourceErrorKind::Refused, "no base here", ""))
    }

    fn log(&self) -> LogOffer<'_> {
        LogOffer::Follow(self)
    }
}

#[async_trait]
impl LogSource for Shared {
    async fn follow(&self, resume: Resume, _: &Preceding) -> Result<Box<dyn LogReader>, SourceError> {
        self.0.asked.lock().unwrap().push(resume);
        let position = match resume {
            Resume::Fresh => *self.0.slot.lock().unwrap(),
            // As a server does: it believes the first report before it looks for the bytes.
            Resume::After { position, .. } => {
                self.0.told(position.0);
                position.0
            }
            Resume::At { position, .. } => position.0,
        };
        if position < KEPT_FROM {
            return Err(SourceError::new(SourceErrorKind::LogGone, "removed", ""));
        }
        let identity = self.0.identity();
        let start = LogStart {
            timeline: self.0.timeline,
            from: Position(position / SEGMENT * SEGMENT),
            history: identity.history.clone(),
            identity,
        };
        let at = start.from.0;
        let server = self.0.clone();
        Ok(Box::new(Following { server, start, at }))
    }
}

struct Following {
    server: Arc<Server>,
    start: LogStart,
    at: u64,
}

#[async_trait]
impl LogReader for Following {
    fn start(&self) -> &LogStart {
        &self.start
    }

    async fn next(&mut self) -> Result<LogStep, SourceError> {
        if self.at == END {
            // Everything has been sent: the test is over when it is stored.
            self.server.stop.send_replace(Wish::Stop);
            return std::future::pending().await;
        }
        let to = (self.at + 10_000)
            .min(self.at / SEGMENT * SEGMENT + SEGMENT)
            .min(END);
        let bytes = Bytes::from(log_bytes(u64::from(self.server.timeline), self.at, to));
        let begins = Position(std::mem::replace(&mut self.at, to));
        let facts = LogFacts::default();
        Ok(LogStep::Piece(LogPiece { begins, bytes, facts }))
    }

    async fn keep_alive(&mut self) -> Result<(), SourceError> {
        std::future::pending().await
    }

    async fn confirm(&mut self, durable: &Durable) -> Result<(), SourceError> {
        self.server.told(durable.position().0);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(), SourceError> {
        Ok(())
    }
}

/// A repository that holds the log of timeline 1 up to the frontier.
async fn shelf() -> Shelf {
    let shelf = Shelf::with_segment(SEGMENT).await;
    shelf.attach(branch(1, 1), SEGMENT, None, None).await;
    let borders = [SEGMENT, 2 * SEGMENT, FRONTIER];
    shelf.log(branch(1, 1), &borders, 0, &[Written::Settled]).await;
    shelf
}

fn server(timeline: u32) -> Arc<Server> {
    Arc::new(Server {
        timeline,
        slot: Mutex::new(FRONTIER),
        asked: Mutex::default(),
        stop: watch::channel(Wish::Run).0,
    })
}

/// Streams until everything is stored or the store dies.
async fn stream(repository: Repository, server: &Arc<Server>) {
    server.stop.send_replace(Wish::Run);
    let source = Shared(server.clone());
    let job = StreamJob {
        name: name(),
        source: Arc::new(source.clone()),
        repository,
        cadence: Cadence::default(),
        chance: Arc::new(SeededChance::new(1)),
        observer: Arc::new(Silent),
    };
    let wish = server.stop.subscribe();
    // A store that died ends the job; what is left of it is looked at.
    let _ = job.run(&source, wish).await;
}

/// Whatever lies before the slot is stored, or lies before an attachment that says where the log goes on.
async fn assert_told_the_truth(shelf: &Shelf, server: &Server, what: &str) {
    let slot = *server.slot.lock().unwrap();
    let log = LogStore::new(&shelf.open().await, EngineKind::Postgres, &name());
    let (mut stored, mut begins) = (Vec::new(), Vec::new());
    for known in log.known().await.unwrap() {
        let ranges = log.ranges(&known.record.branch, None).await.unwrap();
        stored.extend(ranges.iter().map(|stored| stored.name.range));
    }
    for record in log.records().await.unwrap() {
        begins.push(record.from);
    }
    let wanted = LogRange {
        from: Position(SEGMENT),
        to: Position(slot),
    };
    for gap in missing(wanted, &stretches(&stored)) {
        let declared = begins.iter().any(|from| gap.to <= *from);
        assert!(
            declared,
            "{what}: the slot stands at {slot}, and nothing says that {gap:?} is lost"
        );
    }
}

async fn sweep(timeline: u32) -> u64 {
    let shelf = shelf().await;
    let counting = CrashPlan::never();
    let whole = shelf.copy();
    let store = CrashStore::new(Arc::new(whole.memory.clone()), counting.clone());
    let at_once = server(timeline);
    stream(whole.open_with(Arc::new(store), key(7)).await.unwrap(), &at_once).await;
    assert_eq!(*at_once.slot.lock().unwrap(), END, "{:?}", at_once.asked);
    for call in 1..=counting.count() {
        for mode in [CrashMode::Before, CrashMode::AfterWithoutAnswer] {
            let copy = shelf.copy();
            let server = server(timeline);
            let store = CrashStore::new(Arc::new(copy.memory.clone()), CrashPlan::at(call, mode));
            if let Ok(repository) = copy.open_with(Arc::new(store), key(7)).await {
                stream(repository, &server).await;
            }
            let what = format!("timeline {timeline}, died at {call}, {mode:?}");
            assert_told_the_truth(&copy, &server, &what).await;
            stream(copy.open().await, &server).await;
            assert_eq!(*server.slot.lock().unwrap(), END, "{what}");
            assert_told_the_truth(&copy, &server, &what).await;
        }
    }
    counting.count()
}

#[tokio::test]
async fn a_death_while_attaching_after_a_gap_loses_nothing_silently() {
    let calls = sweep(1).await;
    assert!(calls > 20, "{calls}");
}

#[tokio::test]
async fn the_same_when_the_server_was_promoted_meanwhile_and_its_log_goes_to_its_own_timeline() {
    let calls = sweep(2).await;
    assert!(calls > 20, "{calls}");
    let shelf = shelf().await;
    stream(shelf.open().await, &server(2)).await;
    let log = LogStore::new(&shelf.open().await, EngineKind::Postgres, &name());
    let known = log.known().await.unwrap();
    let timelines: Vec<u32> = known.iter().map(|known| known.record.branch.timeline).collect();
    assert_eq!(timelines, [1, 2]);
    let parent = known[1].record.parent.unwrap();
    assert_eq!((parent.branch, parent.fork), (branch(1, 1), Position(FORK)));
    let wanted = LogRange {
        from: Position(6 * SEGMENT),
        to: Position(END),
    };
    let bytes = log.read(&known[1].record.branch, wanted).await.unwrap();
    assert!(bytes == log_bytes(2, wanted.from.0, wanted.to.0));
}
