//! Carries out a restore plan.
//!
//! Promise: nothing is touched before the target has agreed to everything; every file's SHA-256 is compared while it is
//! written; the directory becomes startable only after all of it is on disk. The run is recorded from the moment at which
//! the directory is taken.
//! Not here: the plan (plan::restore), what a data directory is (the adapter), assembling segments (restore::segments).

mod delivery;
mod record;
mod segments;
mod space;

pub use delivery::{LogWish, deliver};

use crate::plan::{Catalog, RestorePlan, show_time};
use crate::supervisor::{Stopping, Supervisor};
use crate::{EngineError, Fact, Observer};

use backstay_repository::{BaseReader, Cursor, Digest, FileRow, PackReading, Repository, RepositoryError};
use backstay_source::{
    Evidence, FileSink, Need, Recovery, RecoveryAction, Restore, StartRequest, Ticket, WalDelivery,
};
use backstay_terms::{EntryKind, EntryRole};
use record::Progress;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A restore to carry out.
#[derive(Debug)]
pub struct RestoreJob {
    /// Where from.
    pub repository: Repository,
    /// What is stored.
    pub catalog: Catalog,
    /// What to do.
    pub plan: RestorePlan,
    /// Where to.
    pub target: Arc<dyn Restore>,
    /// What happens at the stop.
    pub action: RecoveryAction,
    /// How the server gets its log; see [`deliver`].
    pub delivery: WalDelivery,
    /// Start the server and prove it.
    pub start: Option<StartRequest>,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
    /// How many files are written at once.
    pub workers: usize,
}

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Files placed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Log segments placed; none when the server fetches them.
    pub segments: usize,
    /// What the started server showed.
    pub evidence: Option<Evidence>,
}

impl RestoreJob {
    /// What the target will need; also what `inspect` is asked.
    pub fn need(&self) -> (Need, Ticket) {
        let head = &self.plan.head;
        (
            delivery::need(&self.plan, &self.delivery),
            Ticket {
                backup: head.backup.to_string(),
                target: self.plan.stop_words(),
            },
        )
    }

    /// Finds what the target refuses; changes nothing.
    ///
    /// # Errors
    /// The first reason to refuse.
    pub fn inspect(&self) -> Result<(), EngineError> {
        let (need, ticket) = self.need();
        self.target.inspect(&need, &ticket)?;
        if let Some(request) = &self.start {
            self.target.inspect_start(&need, request)?;
        }
        Ok(())
    }

    /// Restores.
    pub async fn run(&self) -> Result<Restored, EngineError> {
        let (_, ticket) = self.need();
        self.inspect()?;
        if let Some(rehearsal) = delivery::rehearsal(&self.plan, &self.delivery) {
            self.target.rehearse(&rehearsal).await?;
        }
        let base = BaseReader::open(&self.repository, &self.plan.head.place()).await?;
        self.step("begin");
        self.target.begin(&ticket)?;
        let started = self.record_start().await;
        let mut progress = Progress::default();
        let outcome = self.carry_out(&base, &mut progress).await;
        let outcome = outcome.map_err(|error| space::counted(self, error));
        if let Some(started) = started {
            self.record_end(started, &progress, outcome.as_ref().err()).await;
        }
        outcome?;
        Ok(progress.restored)
    }

    async fn carry_out(&self, base: &BaseReader, progress: &mut Progress) -> Result<(), EngineError> {
        let done = &mut progress.restored;
        self.step("files");
        (done.files, done.bytes) = self.place_files(base).await?;
        self.step("log");
        if self.delivery == WalDelivery::Placed {
            done.segments = self.place_log(base).await?;
        }
        self.place_histories().await?;
        self.step("settings and sync");
        let recovery = self.recovery();
        let (target, settings) = (self.target.clone(), recovery.clone());
        worker("end of the restore", move || Ok(target.finish(&settings)?)).await?;
        progress.startable = true;
        if let Some(request) = &self.start {
            self.step("start and recovery");
            let evidence = self.target.start(request, &recovery).await?;
            done.evidence = Some(self.with_the_last_transaction(evidence));
        }
        Ok(())
    }

    /// The server's figure leaves out the record after which it stopped; where that ends a transaction the plan has its time.
    fn with_the_last_transaction(&self, evidence: Evidence) -> Evidence {
        match self.plan.ends_with_transaction() {
            None => evidence,
            Some(time) => Evidence {
                last_transaction: Some(show_time(time)),
                transaction_before_stop: None,
                ..evidence
            },
        }
    }

    /// How the server will recover.
    pub fn recovery(&self) -> Recovery {
        Recovery {
            timeline: self.plan.timeline,
            stop: self.plan.stop,
            action: self.action,
            delivery: self.delivery.clone(),
            timeline_highest: self.plan.timeline_highest,
        }
    }

    fn step(&self, step: &str) {
        self.observer.observe(&Fact::RestoreStep {
            step: step.to_owned(),
        });
    }

    async fn place_files(&self, base: &BaseReader) -> Result<(u64, u64), EngineError> {
        let done = Arc::new(AtomicU64::new(0));
        let log = match self.plan.segments.is_empty() {
            true => OwnLog::Placed,
            false => OwnLog::Replaced,
        };
        let total = base
            .files()
            .filter(|file| log.is_placed(file))
            .map(|file| file.size)
            .sum();
        let mut workers = Supervisor::new();
        for files in base.partition(self.workers.max(1)) {
            let work = PlaceFiles {
                base: base.clone(),
                log,
                target: self.target.clone(),
                observer: self.observer.clone(),
                done: done.clone(),
                total,
            };
            let runtime = tokio::runtime::Handle::current();
            workers.start_blocking("worker that places files", move |stopping| {
                runtime.block_on(work.run(files, stopping))
            });
        }
        let mut files = 0;
        while let Some(outcome) = workers.next().await {
            match outcome.and_then(|placed| placed) {
                Ok(placed) => files += placed,
                Err(error) => {
                    // Nothing is written after the error is told.
                    workers.stop().await;
                    return Err(error);
                }
            }
        }
        Ok((files, done.load(Ordering::Relaxed)))
    }
}

/// Runs blocking work away from the runtime; `name` is for errors: a noun.
async fn worker<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let mut alone = Supervisor::new();
    alone.start_blocking(name, |_| work());
    let ended = alone.next().await;
    ended.unwrap_or_else(|| {
        Err(EngineError::TaskFailed {
            task: name,
            what: "it gave no result".to_owned(),
        })
    })?
}

/// What becomes of the log that a base carries itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OwnLog {
    /// It is placed as it is.
    Placed,
    /// Assembled segments take its place.
    Replaced,
}

impl OwnLog {
    fn is_placed(self, file: &FileRow) -> bool {
        self == OwnLog::Placed || file.role != EntryRole::Wal
    }
}

/// One worker's share of the files.
struct PlaceFiles {
    base: BaseReader,
    log: OwnLog,
    target: Arc<dyn Restore>,
    observer: Arc<dyn Observer>,
    done: Arc<AtomicU64>,
    total: u64,
}

impl PlaceFiles {
    /// Places the files at these places of the base's list; ends early when it is asked to stop, as nobody then wants
    /// the count.
    async fn run(self, files: Range<usize>, stopping: Stopping) -> Result<u64, EngineError> {
        let mut cursor = self.base.cursor(PackReading::ByRanges);
        let mut placed = 0;
        for file in self.base.files_at(files).filter(|file| self.log.is_placed(file)) {
            if stopping.is_asked() {
                break;
            }
            let mut sink = self.target.place(&file.header())?;
            if file.kind == EntryKind::File {
                self.fill(&mut cursor, &file, sink.as_mut(), &stopping).await?;
            }
            sink.close()?;
            placed += 1;
        }
        Ok(placed)
    }

    async fn fill(
        &self,
        cursor: &mut Cursor,
        file: &FileRow,
        sink: &mut dyn FileSink,
        stopping: &Stopping,
    ) -> Result<(), EngineError> {
        let mut digest = Digest::new();
        let mut failed = None;
        let read = cursor.read_file(file, |bytes| {
            if stopping.is_asked() {
                return Err(cut_short("another worker failed"));
            }
            digest.update(bytes);
            self.progress(bytes.len());
            sink.write(bytes).map_err(|error| {
                failed = Some(error);
                cut_short("writing a file failed")
            })
        });
        let read = read.await;
        if let Some(error) = failed {
            return Err(error.into());
        }
        read?;
        compare(file, digest)
    }

    fn progress(&self, bytes: usize) {
        let done = self.done.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        self.observer.observe(&Fact::RestoreProgress {
            done,
            total: self.total,
        });
    }
}

fn cut_short(what: &str) -> RepositoryError {
    RepositoryError::OutOfOrder {
        what: what.to_owned(),
    }
}

fn compare(file: &FileRow, digest: Digest) -> Result<(), EngineError> {
    if file.sha256 == Some(digest.finish()) {
        return Ok(());
    }
    Err(EngineError::Integrity {
        what: format!(
            "{} is not what was backed up: its SHA-256 is another one",
            file.path
        ),
    })
}
