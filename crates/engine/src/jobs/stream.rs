//! Follows a source's log and stores it, for as long as it is not stopped.
//!
//! Promise: settles what a crash left before it connects; resumes where the stored log ends; tells the source only what
//! is durable; a gap, another history of bytes or a server behind us is recorded and told, never passed over. A store that
//! takes nothing more is waited for, however long, once the stream has been attached; the source keeps its log meanwhile.
//! Not here: lineage rules (backstay-repository), the wire (the adapter), one attachment (stream::attachment).

mod attach;
mod attachment;
mod cadence;
mod company;
mod look;
mod outage;
mod own;
mod presence;
mod said;
mod standing;
mod told;
mod watching;

pub use cadence::Cadence;
pub(crate) use told::StreamsTold;

use crate::{EngineError, Fact, Observer};
use attachment::Attachment;
use backstay_clock::{Backoff, Chance};
use backstay_repository::{Compared, Damaged, LogStore, Repository, RepositoryError};
use backstay_source::{LogSource, Source, SourceErrorKind};
use backstay_terms::{Branch, ByteCount, EngineKind, LogRange, SourceName};
use outage::LOUD_AFTER;
use presence::Presence;
use standing::{Standing, Trouble};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use told::Telling;

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
    /// Another server is streamed under this name: what this stream stored is this lineage now, where it goes on.
    Apart(Branch),
}

/// How the attachments of a run went so far.
#[derive(Clone, Copy, Debug)]
struct Course {
    /// Attempts in a row after which nothing more was stored.
    failures: u32,
    /// Conflicts in a row.
    conflicts: u32,
    /// Whether source and store took us once.
    attached: Attached,
    /// Whether live ranges may wait to be settled.
    leftovers: Leftovers,
    /// Where the next attachment begins.
    origin: Origin,
    /// The lineage that this stream follows; another one of its timeline may be newer.
    own: Option<Branch>,
}

impl Course {
    fn new() -> Course {
        Course {
            failures: 0,
            conflicts: 0,
            attached: Attached::Never,
            leftovers: Leftovers::Possible,
            origin: Origin::Frontier,
            own: None,
        }
    }

    fn attached(&mut self) {
        (self.conflicts, self.leftovers) = (0, Leftovers::Possible);
        self.attached = Attached::Once;
    }

    /// An attachment is over. It ends a row of failures only if it stored something, or was quiet for long: a store that is
    /// nearly full may take the small objects of each attachment and none of the log.
    fn left(&mut self, progress: Progress, lived: Duration, left: &Result<Left, EngineError>) {
        let refused = matches!(left, Err(EngineError::Repository(_)));
        if progress > Progress::Nothing || (lived >= LOUD_AFTER && !refused) {
            self.failures = 0;
        }
        // Whatever ended it: what it stored is where the next one goes on.
        if progress == Progress::Log || left.is_ok() {
            self.origin = Origin::Frontier;
        }
    }

    fn conflicts_max(&self) -> u32 {
        match self.attached {
            Attached::Never => CONFLICTS_MAX_FIRST,
            Attached::Once => CONFLICTS_MAX_AGAIN,
        }
    }
}

/// Whether a stream was attached before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attached {
    Never,
    Once,
}

/// What an attachment got stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Progress {
    /// Nothing.
    Nothing,
    /// A range that counts for nothing yet, or a mark.
    Something,
    /// Log, from the attachment's first byte on.
    Log,
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
    base: Duration::from_millis(200),
    factor: 2,
    max: Duration::from_secs(15),
};

impl StreamJob {
    /// Runs until stopped or until an error that waiting cannot cure. One that is stopped while the store takes nothing or does
    /// not answer ends with what the store said: what it held is not stored.
    pub async fn run(&self, log: &dyn LogSource, wish: watch::Receiver<Wish>) -> Result<(), EngineError> {
        let standing = Standing::default();
        let outcome = tokio::select! {
            outcome = self.run_recorded(log, wish.clone(), &standing) => outcome,
            () = watching::overdue(self, wish.clone()) => Err(watching::cut_short(self, &standing)),
            never = watching::watch(self, log, &standing) => match never {},
        };
        if outcome.is_err() && *wish.borrow() == Wish::Stop {
            watching::tell_unstored(self, log, &standing).await;
        }
        outcome
    }

    async fn run_recorded(
        &self,
        log: &dyn LogSource,
        wish: watch::Receiver<Wish>,
        standing: &Standing,
    ) -> Result<(), EngineError> {
        let mut telling = Telling::default();
        let outcome = self.follow(log, wish, (&mut telling, standing)).await;
        telling.ended(&self.repository, outcome).await
    }

    async fn follow(
        &self,
        log: &dyn LogSource,
        mut wish: watch::Receiver<Wish>,
        (telling, standing): (&mut Telling, &Standing),
    ) -> Result<(), EngineError> {
        let (mut course, mut presence) = (Course::new(), Presence::default());
        loop {
            let mut unstored = Ok(());
            match self
                .attach_once(log, &mut wish, &mut course, &mut presence, (telling, standing))
                .await
            {
                Ok(Left::Stopped) => return Ok(()),
                Ok(Left::EpochOver) => (course.failures, presence) = (0, Presence::default()),
                Ok(Left::Apart(lineage)) => {
                    (course.failures, course.own, presence) = (0, Some(lineage), Presence::default());
                }
                Ok(Left::SourceEnded) => course.failures += 1,
                Err(error) if !self.bears(&error, &mut course, standing) => return Err(error),
                Err(error @ EngineError::Repository(_)) => unstored = Err(error),
                Err(_) => {}
            }
            if self.wait_or_stop(&mut wish, course.failures).await == Wish::Stop {
                return unstored;
            }
        }
    }

    async fn attach_once(
        &self,
        log: &dyn LogSource,
        wish: &mut watch::Receiver<Wish>,
        course: &mut Course,
        presence: &mut Presence,
        (telling, standing): (&mut Telling, &Standing),
    ) -> Result<Left, EngineError> {
        let clock = self.repository.clock();
        standing.apart(clock.instant(), None);
        // An emptied place would pass for one in which nothing was ever stored.
        self.repository.refuse_if_replaced().await?;
        // What an attachment before this one left in live ranges alone: needs the store and the keys, never the source.
        if course.leftovers == Leftovers::Possible {
            settle_all(&self.repository, &self.name, self.observer.as_ref()).await?;
            course.leftovers = Leftovers::None;
        }
        let attachment =
            Attachment::attach(self, log, (course.origin, course.own), (presence, standing)).await?;
        telling.attached(&self.repository, &self.name).await?;
        course.attached();
        course.own = Some(attachment.branch());
        let (began, mut progress) = (clock.instant(), Progress::Nothing);
        let left = attachment.follow(wish, &mut progress, telling).await;
        course.left(progress, clock.instant().saturating_sub(began), &left);
        left
    }

    /// Whether the stream can live with an error, and goes on.
    fn bears(&self, error: &EngineError, course: &mut Course, standing: &Standing) -> bool {
        let kind = match error {
            EngineError::Source(error) => Some(error.kind),
            _ => None,
        };
        course.failures += 1;
        if kind == Some(SourceErrorKind::Conflict) {
            course.conflicts += 1;
        }
        match kind {
            // The log between our frontier and what the source still has is lost. Said loudly; the rest is followed.
            Some(SourceErrorKind::LogGone) if course.origin == Origin::Frontier => {
                self.observer.observe(&Fact::LogGap {
                    what: error.to_string(),
                });
                course.origin = Origin::AfterGap;
                course.failures = 0;
                true
            }
            Some(SourceErrorKind::LogGone) if course.origin == Origin::AfterGap => {
                course.origin = Origin::FromNow;
                course.failures = 0;
                true
            }
            // Somebody else streams, and will for longer than we may wait.
            Some(SourceErrorKind::Conflict) if course.conflicts > course.conflicts_max() => false,
            _ if error.is_passing() => self.tell_retry(error, course, standing),
            // Whoever starts a stream is there to read why it cannot be; one that runs must not end for want of space.
            _ if error.waits_for_help() && course.attached == Attached::Once => {
                self.tell_retry(error, course, standing)
            }
            _ => false,
        }
    }

    fn tell_retry(&self, error: &EngineError, course: &Course, standing: &Standing) -> bool {
        let after_ms = REATTACH.step(course.failures.saturating_sub(1)).as_millis() as u64;
        self.observer.observe(&Fact::Retrying {
            error: error.to_string(),
            after_ms,
        });
        standing.apart(self.repository.clock().instant(), Some(Trouble::of(error)));
        true
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

/// Tells two servers apart that were streamed under one name, then settles every lineage of a source. Damage is told and
/// stays as it is: it keeps nothing else from being settled.
pub async fn settle_all(
    repository: &Repository,
    name: &SourceName,
    observer: &dyn Observer,
) -> Result<(), EngineError> {
    let mut bytes = ByteCount::ZERO;
    for engine in [EngineKind::Postgres, EngineKind::Redis] {
        let log = LogStore::new(repository, engine, name);
        let known = log.known().await?.into_iter();
        let mut waiting: Vec<(Branch, u64)> = known
            .map(|known| (known.record.branch, known.record.segment_size))
            .collect();
        while let Some((branch, file_size)) = waiting.pop() {
            let mut twins = log.tell_apart(&branch, None, Compared::Ends).await?;
            let settled = match log.settle(&branch, file_size).await {
                Err(error @ RepositoryError::Differs { .. }) => {
                    twins = log.tell_apart(&branch, None, Compared::Everything).await?;
                    if twins.leaving.is_empty() {
                        return Err(error.into());
                    }
                    log.settle(&branch, file_size).await?
                }
                settled => settled?,
            };
            company::tell_apart(observer, &twins.leaving);
            waiting.extend(twins.leaving.iter().map(|leaving| (leaving.to, file_size)));
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
