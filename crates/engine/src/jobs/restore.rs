//! Carries out a restore plan.
//!
//! Promise: nothing is touched before the target has agreed to everything; every file's SHA-256 is compared while it is
//! written; the directory becomes startable only after all of it is on disk.
//! Not here: the plan (plan::restore), what a data directory is (the adapter), assembling segments (restore::segments).

mod delivery;
mod segments;

pub use delivery::{LogWish, deliver};

use crate::plan::{Catalog, RestorePlan};
use crate::{EngineError, Fact, Observer};

use backstay_repository::{BaseReader, Cursor, Digest, FileRow, PackReading, Repository, RepositoryError};
use backstay_source::{
    Evidence, FileSink, Need, Recovery, RecoveryAction, Restore, StartRequest, Ticket, WalDelivery,
};
use backstay_terms::{EntryKind, EntryRole};
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
#[derive(Clone, Debug, PartialEq, Eq)]
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

    /// Restores.
    pub async fn run(&self) -> Result<Restored, EngineError> {
        let (need, ticket) = self.need();
        self.target.inspect(&need, &ticket)?;
        if let Some(rehearsal) = delivery::rehearsal(&self.plan, &self.delivery) {
            self.target.rehearse(&rehearsal).await?;
        }
        let base = BaseReader::open(&self.repository, &self.plan.head.place()).await?;
        self.step("begin");
        self.target.begin(&ticket)?;
        self.step("files");
        let (files, bytes) = self.place_files(&base).await?;
        self.step("log");
        let segments = match self.delivery {
            WalDelivery::Placed => self.place_log(&base).await?,
            WalDelivery::Command(_) => 0,
        };
        self.place_histories().await?;
        self.step("settings and sync");
        let recovery = self.recovery();
        let (target, settings) = (self.target.clone(), recovery.clone());
        worker(move || Ok(target.finish(&settings)?)).await?;
        let evidence = match &self.start {
            Some(request) => {
                self.step("start and recovery");
                Some(self.target.start(request, &recovery).await?)
            }
            None => None,
        };
        Ok(Restored {
            files,
            bytes,
            segments,
            evidence,
        })
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
        let total = base.head().totals.bytes.0;
        let mut workers = tokio::task::JoinSet::new();
        let log = match self.plan.segments.is_empty() {
            true => OwnLog::Placed,
            false => OwnLog::Replaced,
        };
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
            workers.spawn_blocking(move || runtime.block_on(work.run(files)));
        }
        let mut files = 0;
        while let Some(outcome) = workers.join_next().await {
            files += outcome.map_err(|e| EngineError::Integrity {
                what: format!("a worker failed: {e}"),
            })??;
        }
        Ok((files, done.load(Ordering::Relaxed)))
    }
}

/// Runs blocking work away from the runtime.
async fn worker<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let failed = |e| EngineError::Integrity {
        what: format!("a worker failed: {e}"),
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

/// What becomes of the log that a base carries itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OwnLog {
    /// It is placed as it is.
    Placed,
    /// Assembled segments take its place.
    Replaced,
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
    /// Places the files at these places of the base's list.
    async fn run(self, files: Range<usize>) -> Result<u64, EngineError> {
        let mut cursor = self.base.cursor(PackReading::ByRanges);
        let mut placed = 0;
        for file in self.base.files().get(files).unwrap_or_default() {
            if self.log == OwnLog::Replaced && file.role == EntryRole::Wal {
                continue;
            }
            let mut sink = self.target.place(&file.header())?;
            if file.kind == EntryKind::File {
                self.fill(&mut cursor, file, sink.as_mut()).await?;
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
    ) -> Result<(), EngineError> {
        let mut digest = Digest::new();
        let mut failed = None;
        let read = cursor.read_file(file, |bytes| {
            digest.update(bytes);
            self.progress(bytes.len());
            sink.write(bytes).map_err(|error| {
                failed = Some(error);
                RepositoryError::OutOfOrder {
                    what: "writing a file failed".into(),
                }
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
