//! A server with a slot, in memory.
//!
//! Promise: it behaves as PostgreSQL does where a stream could lose something: it believes what it is told, forgets what it
//! may, and moves its slot with the first report, also in an attempt that it then refuses. Its log grows when a test says so.
//! Not here: what a real server does (backstay-postgres).

use crate::shelf::{SYSTEM, log_bytes, name};
use async_trait::async_trait;
use backstay_engine::jobs::stream::{Cadence, Wish};
use backstay_repository::Repository;
use backstay_scenarios::Running;
use backstay_source::{
    Ancestor, BaseReader, BaseRequest, Finding, Identity, LogOffer, LogPiece, LogPlace, LogReader, LogSource,
    LogStart, LogStep, Preceding, Resume, Source, SourceError, SourceErrorKind,
};
use backstay_terms::{Durable, EngineKind, LogFacts, Position};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// Bytes of a segment: smaller than a server would take.
pub const SEGMENT: u64 = 64 << 10;

/// What happens when a reader has been given everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenSent {
    /// It waits for more.
    Wait,
    /// The stream is asked to stop.
    Stop,
}

/// Looks at each position that is confirmed, before the server believes it.
pub type Witness = Box<dyn Fn(u64) + Send + Sync>;

/// The server.
pub struct FakeServer {
    timeline: u32,
    /// Where timeline 2 left timeline 1.
    fork: u64,
    /// From this position on its bytes are of this seed: it runs on a copy of another server's disk.
    pub parted: Option<(u64, u64)>,
    /// Nothing before this is there any more.
    kept_from: u64,
    pub when_sent: WhenSent,
    pub witness: Witness,
    /// The system that answers at its address.
    pub system: Mutex<u64>,
    slot: Mutex<u64>,
    end: watch::Sender<u64>,
    /// What the next attempts to follow are refused with.
    pub refusals: Mutex<VecDeque<SourceErrorKind>>,
    /// What ended the conversations so far; how many there were tells a reader whether it is meant.
    broken: watch::Sender<Vec<SourceErrorKind>>,
    /// What was asked of it.
    pub asked: Mutex<Vec<Resume>>,
    /// Asks a stream to stop.
    pub stop: watch::Sender<Wish>,
}

impl fmt::Debug for FakeServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeServer")
            .field("slot", &self.slot)
            .field("end", &self.end)
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

impl FakeServer {
    /// On its first timeline, with everything up to `end`; its slot stands at the beginning.
    pub fn new(end: u64) -> FakeServer {
        FakeServer::promoted(1, 0, SEGMENT, SEGMENT, end)
    }

    /// On a timeline that left the first one at `fork`.
    pub fn promoted(timeline: u32, fork: u64, slot: u64, kept_from: u64, end: u64) -> FakeServer {
        FakeServer {
            timeline,
            fork,
            parted: None,
            kept_from,
            when_sent: WhenSent::Wait,
            witness: Box::new(|_| {}),
            system: Mutex::new(SYSTEM),
            slot: Mutex::new(slot),
            end: watch::Sender::new(end),
            refusals: Mutex::default(),
            broken: watch::Sender::new(Vec::new()),
            asked: Mutex::default(),
            stop: watch::Sender::new(Wish::Run),
        }
    }

    /// Where the slot stands.
    pub fn slot(&self) -> u64 {
        *self.slot.lock().unwrap()
    }

    /// More log is written, up to `end`.
    pub fn grow(&self, end: u64) {
        self.end.send_replace(end);
    }

    /// Ends the conversations that are going on.
    pub fn hang_up(&self, kind: SourceErrorKind) {
        self.broken.send_modify(|broken| broken.push(kind));
    }

    /// What was asked of it.
    pub fn asked(&self) -> Vec<Resume> {
        self.asked.lock().unwrap().clone()
    }

    fn identity(&self) -> Identity {
        let ancestor = Ancestor {
            timeline: 1,
            history: None,
            left_at: Position(self.fork),
        };
        Identity {
            engine: EngineKind::Postgres,
            version: "15".into(),
            place: LogPlace {
                system: *self.system.lock().unwrap(),
                timeline: self.timeline,
                position: Position(*self.end.borrow()),
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

    /// The start of the file that holds what was stored last, or where that is gone, of the one that comes next.
    fn begins(&self, resume: Resume, position: u64) -> u64 {
        let start = |position: u64| position / SEGMENT * SEGMENT;
        match resume {
            Resume::After { .. } if start(position - 1) >= self.kept_from => start(position - 1),
            _ => start(position),
        }
    }

    /// Its log.
    pub fn bytes(&self, from: u64, to: u64) -> Vec<u8> {
        let own = u64::from(self.timeline);
        let (parted, seed) = self.parted.unwrap_or((to, own));
        let parted = parted.clamp(from, to);
        [log_bytes(own, from, parted), log_bytes(seed, parted, to)].concat()
    }

    fn told(&self, position: u64) {
        *self.slot.lock().unwrap() = position;
    }
}

/// The server as the job sees it.
#[derive(Clone, Debug)]
pub struct FakeSource(pub Arc<FakeServer>);

#[async_trait]
impl Source for FakeSource {
    async fn identify(&self) -> Result<Identity, SourceError> {
        Ok(self.0.identity())
    }

    async fn check(&self) -> Vec<Finding> {
        Vec::new()
    }

    async fn begin_base(&self, _: BaseRequest) -> Result<Box<dyn BaseReader>, SourceError> {
        Err(error(SourceErrorKind::Refused))
    }

    fn log(&self) -> LogOffer<'_> {
        LogOffer::Follow(self)
    }
}

#[async_trait]
impl LogSource for FakeSource {
    async fn follow(&self, resume: Resume, _: &Preceding) -> Result<Box<dyn LogReader>, SourceError> {
        let server = self.0.clone();
        server.asked.lock().unwrap().push(resume);
        if let Some(kind) = server.refusals.lock().unwrap().pop_front() {
            return Err(error(kind));
        }
        let mut held_back = None;
        let position = match resume {
            Resume::Fresh => server.slot(),
            // As a server does: it believes the first report before it looks for the bytes. What would move the slot back the
            // adapter reports when they have arrived.
            Resume::After { position, .. } => {
                if server.slot() <= position.0 {
                    server.told(position.0);
                } else {
                    held_back = Some(position.0);
                }
                position.0
            }
            Resume::At { position, .. } => position.0,
        };
        if position < server.kept_from {
            return Err(error(SourceErrorKind::LogGone));
        }
        let identity = server.identity();
        let start = LogStart {
            timeline: server.timeline,
            from: Position(server.begins(resume, position)),
            history: identity.history.clone(),
            identity,
        };
        let at = start.from.0;
        let mut broken = server.broken.subscribe();
        broken.mark_unchanged();
        let end = server.end.subscribe();
        Ok(Box::new(Following {
            server,
            start,
            at,
            held_back,
            end,
            broken,
        }))
    }
}

/// Begins to stream it into a repository.
pub fn follow(server: &Arc<FakeServer>, repository: &Repository) -> Running {
    let source = Arc::new(FakeSource(server.clone()));
    Running::follow(source.clone(), source, repository, &name(), Cadence::default())
}

fn error(kind: SourceErrorKind) -> SourceError {
    SourceError::new(kind, format!("the server says {kind:?}"), "look at it")
}

struct Following {
    server: Arc<FakeServer>,
    start: LogStart,
    at: u64,
    /// Reported with the first bytes.
    held_back: Option<u64>,
    end: watch::Receiver<u64>,
    broken: watch::Receiver<Vec<SourceErrorKind>>,
}

impl Following {
    async fn until_broken(broken: &mut watch::Receiver<Vec<SourceErrorKind>>) -> SourceError {
        broken.changed().await.expect("the server outlives its readers");
        let kind = broken.borrow().last().copied();
        error(kind.expect("it was broken by a kind"))
    }
}

#[async_trait]
impl LogReader for Following {
    fn start(&self) -> &LogStart {
        &self.start
    }

    async fn next(&mut self) -> Result<LogStep, SourceError> {
        let at = self.at;
        if at == *self.end.borrow() && self.server.when_sent == WhenSent::Stop {
            self.server.stop.send_replace(Wish::Stop);
        }
        let end = tokio::select! {
            end = self.end.wait_for(|end| *end > at) => *end.expect("the server outlives its readers"),
            error = Self::until_broken(&mut self.broken) => return Err(error),
        };
        let to = (at + 10_000).min(at / SEGMENT * SEGMENT + SEGMENT).min(end);
        let bytes = Bytes::from(self.server.bytes(at, to));
        let begins = Position(std::mem::replace(&mut self.at, to));
        if let Some(durable) = self.held_back.take() {
            self.server.told(durable);
        }
        let facts = LogFacts::default();
        Ok(LogStep::Piece(LogPiece { begins, bytes, facts }))
    }

    async fn keep_alive(&mut self) -> Result<(), SourceError> {
        Err(Self::until_broken(&mut self.broken).await)
    }

    async fn confirm(&mut self, durable: &Durable) -> Result<(), SourceError> {
        (self.server.witness)(durable.position().0);
        self.server.told(durable.position().0);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(), SourceError> {
        Ok(())
    }
}
