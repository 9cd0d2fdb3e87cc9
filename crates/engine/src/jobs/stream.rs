//! Follows a source's log and stores it, for as long as it is not stopped.
//!
//! Promise: settles what a crash left before it connects; resumes where the stored log ends; tells the source only what
//! is durable; a gap, another history of bytes or a server behind us is recorded and told, never passed over.
//! Not here: lineage rules (backstay-repository), the wire (the adapter), one attachment (stream::attachment).

mod attach;
mod attachment;
mod cadence;

pub use cadence::Cadence;

use crate::{EngineError, Fact, Observer};
use attachment::Attachment;
use backstay_clock::{Backoff, Chance};
use backstay_repository::{Damaged, LogStore, Repository};
use backstay_source::{LogSource, Source, SourceErrorKind};
use backstay_terms::{ByteCount, EngineKind, LogRange, SourceName};
use std::sync::Arc;
use tokio::sync::watch;

/// Whether a stream should go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Go on.
    Run,
    /// Store what is held and stop.
    Stop,
}

/// Why a stream came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It was asked to stop.
    Stopped,
    /// The source ended the conversation.
    SourceEnded,
    /// The epoch is old: attach again with new keys.
    EpochOver,
}

/// How the attachments of a run went so far.
#[derive(Clone, Copy, Debug)]
struct Course {
    /// Attempts in a row that failed.
    failures: u32,
    /// So many conflicts in a row are borne.
    conflicts_max: u32,
    /// Whether live ranges may wait to be settled.
    leftovers: Leftovers,
    /// Where the next attachment begins.
    origin: Origin,
}

impl Course {
    fn new() -> Course {
        Course {
            failures: 0,
            conflicts_max: CONFLICTS_MAX_FIRST,
            leftovers: Leftovers::Possible,
            origin: Origin::Frontier,
        }
    }

    fn attached(&mut self) {
        (self.failures, self.leftovers) = (0, Leftovers::Possible);
        self.conflicts_max = CONFLICTS_MAX_AGAIN;
    }
}

/// Where an attachment begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Where the stored log ends.
    Frontier,
    /// As early as the source still can: what lies between is lost.
    AfterGap,
    /// Where the source's log ends now: even what its slot names is gone. A slot follows what its client reports, and the
    /// attempt that found the gap may have moved it back (walsender.c, PhysicalConfirmReceivedLocation). Nothing is
    /// reported before the attachment is recorded and something is stored, so the slot keeps what it has till then.
    FromNow,
}

/// How often in a row a slot or every connection may be found in use before a stream that never attached gives up.
const CONFLICTS_MAX_FIRST: u32 = 5;

/// The same for a stream that was attached: what is in its way is most likely its own walsender of before, which a broken
/// network keeps for wal_sender_timeout, a minute by default. Fifteen waits are longer, whatever is drawn.
const CONFLICTS_MAX_AGAIN: u32 = 15;

/// Whether live ranges may wait to be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leftovers {
    Possible,
    None,
}

/// A stream to run.
#[derive(Clone, Debug)]
pub struct StreamJob {
    /// The service.
    pub name: SourceName,
    /// The running system.
    pub source: Arc<dyn Source>,
    /// Where to.
    pub repository: Repository,
    /// When to store what.
    pub cadence: Cadence,
    /// Jitter.
    pub chance: Arc<dyn Chance>,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
}

/// The waits between attempts to attach.
const REATTACH: Backoff = Backoff {
    base: std::time::Duration::from_millis(200),
    factor: 2,
    max: std::time::Duration::from_secs(15),
};

impl StreamJob {
    /// Runs until stopped or until an error that waiting cannot cure.
    pub async fn run(&self, log: &dyn LogSource, mut wish: watch::Receiver<Wish>) -> Result<(), EngineError> {
        let mut course = Course::new();
        loop {
            match self.attach_once(log, &mut wish, &mut course).await {
                Ok(Left::Stopped) => return Ok(()),
                Ok(Left::EpochOver) => course.failures = 0,
                Ok(Left::SourceEnded) => course.failures += 1,
                Err(error) => self.bear(error, &mut course)?,
            }
            if self.wait_or_stop(&mut wish, course.failures).await == Wish::Stop {
                return Ok(());
            }
        }
    }

    async fn attach_once(
        &self,
        log: &dyn LogSource,
        wish: &mut watch::Receiver<Wish>,
        course: &mut Course,
    ) -> Result<Left, EngineError> {
        // What an attachment before this one left in live ranges alone: needs the store and the keys, never the source.
        if course.leftovers == Leftovers::Possible {
            settle_all(&self.repository, &self.name, self.observer.as_ref()).await?;
            course.leftovers = Leftovers::None;
        }
        let attachment = Attachment::attach(self, log, course.origin).await?;
        course.attached();
        let left = attachment.follow(wish).await?;
        course.origin = Origin::Frontier;
        Ok(left)
    }

    /// Takes an error that the stream can live with; gives back any other.
    fn bear(&self, error: EngineError, course: &mut Course) -> Result<(), EngineError> {
        let kind = match &error {
            EngineError::Source(error) => Some(error.kind),
            _ => None,
        };
        course.failures += 1;
        match kind {
            // The log between our frontier and what the source still has is lost. Said loudly; the rest is followed.
            Some(SourceErrorKind::LogGone) if course.origin == Origin::Frontier => {
                self.observer.observe(&Fact::LogGap {
                    what: error.to_string(),
                });
                course.origin = Origin::AfterGap;
                course.failures = 0;
                Ok(())
            }
            Some(SourceErrorKind::LogGone) if course.origin == Origin::AfterGap => {
                course.origin = Origin::FromNow;
                course.failures = 0;
                Ok(())
            }
            // Somebody else streams, and will for longer than we may wait.
            Some(SourceErrorKind::Conflict) if course.failures > course.conflicts_max => Err(error),
            _ if error.is_passing() => {
                self.tell_retry(&error, course.failures);
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn tell_retry(&self, error: &EngineError, failures: u32) {
        let after_ms = REATTACH.step(failures.saturating_sub(1)).as_millis() as u64;
        self.observer.observe(&Fact::Retrying {
            error: error.to_string(),
            after_ms,
        });
    }

    async fn wait_or_stop(&self, wish: &mut watch::Receiver<Wish>, failures: u32) -> Wish {
        if *wish.borrow() == Wish::Stop {
            return Wish::Stop;
        }
        if failures == 0 {
            return Wish::Run;
        }
        let delay = REATTACH.delay(failures - 1, self.chance.as_ref());
        tokio::select! {
            () = self.repository.clock().sleep(delay) => Wish::Run,
            () = stop_wished(wish) => Wish::Stop,
        }
    }
}

/// Returns when the stream is asked to stop, or when nobody is left who could ask.
pub(crate) async fn stop_wished(wish: &mut watch::Receiver<Wish>) {
    let _ = wish.wait_for(|wish| *wish == Wish::Stop).await;
}

/// Settles every lineage of a source. Damage is told and stays as it is: it keeps nothing else from being settled.
pub async fn settle_all(
    repository: &Repository,
    name: &SourceName,
    observer: &dyn Observer,
) -> Result<(), EngineError> {
    let mut bytes = ByteCount::ZERO;
    for engine in [EngineKind::Postgres, EngineKind::Redis] {
        let log = LogStore::new(repository, engine, name);
        for known in log.known().await? {
            let settled = log
                .settle(&known.record.branch, known.record.segment_size)
                .await?;
            bytes += ByteCount(settled.bytes);
            for Damaged { range, what } in settled.damaged {
                let LogRange { from, to } = range;
                observer.observe(&Fact::LogDamaged { from, to, what });
            }
        }
    }
    if bytes != ByteCount::ZERO {
        observer.observe(&Fact::Settled { bytes });
    }
    Ok(())
}
