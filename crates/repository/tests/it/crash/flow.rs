//! What the processes of the sweep do: make or open, back up, stream over a promotion, settle, rotate.
//!
//! Promise: the order of calls is the engine's; every acknowledgement is written into the ledger at the moment when a
//! caller could act on it.

use backstay_repository::layout::Level;
use backstay_repository::{
    Attach, AttachReason, BaseWriter, HeadVerdict, LineageKind, LineageRecord, LogStore, LogWriter, Parent,
    Recipient, Repository, RepositoryError, RunFinished, RunResult, Upload, decide, history_digest,
    new_lineage,
};
use backstay_terms::{Branch, EngineKind, LogFacts, LogMark, LogRange, Position};
use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::server::{END, FILE, HISTORY, SECOND, START, SWITCH, SYSTEM, log_bytes, presented};
use super::sweep::Process;
use crate::support::*;

/// Bytes in a piece; a file of the log is no multiple of it.
const PIECE: u64 = 1000;

/// The files of every backup of the sweep.
pub fn files() -> Vec<Entry> {
    vec![
        file("PG_VERSION", b"15\n".to_vec()),
        file("base/1/16384", prose(1, 20_000)),
        file("empty", vec![]),
        manifest(b"{\"files\": []}".to_vec()),
    ]
}

/// Everything that this crate does, in one process.
pub fn everything(process: &Process) -> BoxFuture<'_, Result<(), RepositoryError>> {
    Box::pin(async move {
        let repository = open_or_init(process).await?;
        back_up(process, &repository).await?;
        let log = LogStore::new(&repository, EngineKind::Postgres, &source());
        settle_all(&log).await?;
        stream(process, &repository, &log).await?;
        settle_all(&log).await?;
        rotate(process).await
    })
}

pub async fn open_or_init(process: &Process) -> Result<Repository, RepositoryError> {
    let (clock, recipients) = (process.world.clock(), [raw_key(7)]);
    let (store, chance) = (process.store.clone(), process.world.chance());
    match Repository::open(store, clock.clone(), chance, &recipients).await {
        Err(RepositoryError::Absent) => {
            Repository::init(process.store.clone(), clock, process.world.chance(), &recipients).await
        }
        answer => answer,
    }
}

async fn back_up(process: &Process, repository: &Repository) -> Result<(), RepositoryError> {
    let started = repository.run_started("backup", source().as_str()).await?;
    let mut writer = BaseWriter::begin(repository, order()).await?;
    write_entries(&mut writer, &files()).await?;
    process
        .ledger
        .committed(writer.commit(summary(HeadVerdict::Good)).await?);
    let finished = RunFinished {
        started,
        finished: repository.now(),
        result: RunResult::Succeeded,
        error: None,
        figures: serde_json::json!({}),
    };
    repository.run_finished(&finished).await
}

async fn settle_all(log: &LogStore) -> Result<(), RepositoryError> {
    for known in log.known().await? {
        log.settle(&known.record.branch, known.record.segment_size)
            .await?;
    }
    Ok(())
}

/// A second master key: every envelope gets a wrap for it.
async fn rotate(process: &Process) -> Result<(), RepositoryError> {
    let (clock, chance) = (process.world.clock(), process.world.chance());
    let recipients: [Recipient; 2] = [raw_key(7), raw_key(8)];
    let repository = Repository::open(process.store.clone(), clock, chance, &recipients).await?;
    for envelope in repository.envelopes().await? {
        repository.rewrap(&envelope).await?;
    }
    Ok(())
}

/// A stream's epoch on one branch.
struct Stream<'a> {
    process: &'a Process,
    log: &'a LogStore,
    repository: &'a Repository,
    writer: LogWriter,
}

/// Follows the log from where it is stored to its end, over the promotion.
async fn stream(process: &Process, repository: &Repository, log: &LogStore) -> Result<(), RepositoryError> {
    let known = log.known().await?;
    let lineage = new_lineage(repository.chance());
    let fresh = |timeline| Branch {
        system: SYSTEM,
        timeline,
        lineage,
    };
    let (branch, from, reason, parent) = match decide(&presented(), &known) {
        Attach::Resume { branch, frontier } => {
            let first = if branch.timeline == 1 { START } else { SECOND };
            (branch, frontier.unwrap_or(first), AttachReason::Resumed, None)
        }
        Attach::Begin { reason, parent } if parent.is_some() => (fresh(2), SECOND, reason, parent),
        // Nothing is known: the first stream attached while the server was on timeline 1.
        Attach::Begin { reason, parent } => (fresh(1), START, reason, parent),
    };
    let epoch = repository.new_id("log")?;
    let writer = LogWriter::begin(repository, log.place().clone(), branch, epoch).await?;
    let mut stream = Stream {
        process,
        log,
        repository,
        writer,
    };
    if branch.timeline == 2 {
        log.put_history(SYSTEM, 2, HISTORY).await?;
        stream.attach(from, reason, parent).await?;
        return stream.follow(from, END).await;
    }
    stream.attach(from, reason, parent).await?;
    stream.follow(from, SWITCH).await?;
    stream.settle().await?;
    log.put_history(SYSTEM, 2, HISTORY).await?;
    stream.writer.switch_branch(fresh_second(repository))?;
    let parent = Some(Parent { branch, fork: SWITCH });
    stream.attach(SECOND, AttachReason::Timeline, parent).await?;
    stream.follow(SECOND, END).await
}

fn fresh_second(repository: &Repository) -> Branch {
    Branch {
        system: SYSTEM,
        timeline: 2,
        lineage: new_lineage(repository.chance()),
    }
}

impl Stream<'_> {
    async fn attach(
        &self,
        from: Position,
        reason: AttachReason,
        parent: Option<Parent>,
    ) -> Result<(), RepositoryError> {
        let branch = self.writer.branch();
        let record = LineageRecord {
            format: 1,
            kind: LineageKind::Attach,
            id: self.repository.new_id("attach")?,
            created: self.repository.now(),
            branch,
            from,
            history: (branch.timeline == 2).then(|| history_digest(HISTORY)),
            parent,
            reason,
            epoch: self.writer.epoch().clone(),
            segment_size: FILE,
            server_end: END,
            frontier: None,
            over: vec![],
            moved: None,
            after: None,
        };
        self.log.put_record(&record).await
    }

    /// Live ranges of two pieces, a settled range at the end of each file, a mark at the end.
    async fn follow(&mut self, from: Position, to: Position) -> Result<(), RepositoryError> {
        let timeline = self.writer.branch().timeline;
        let (mut at, mut pieces) = (from, 0);
        while at < to {
            let border = (at.0 / FILE + 1) * FILE;
            let next = Position((at.0 + PIECE).min(border).min(to.0));
            let bytes = Bytes::from(log_bytes(timeline, LogRange { from: at, to: next }));
            self.writer.append(at, bytes, LogFacts::default())?;
            pieces += 1;
            at = next;
            if pieces % 2 == 0
                && let Some(upload) = self.writer.cut_live(FILE, None)?
            {
                self.store(upload, from).await?;
            }
            if at.0 == border {
                self.settle().await?;
            }
        }
        while let Some(upload) = self.writer.cut_live(FILE, None)? {
            self.store(upload, from).await?;
        }
        let mark = LogMark {
            position: to,
            time: 820_000_000,
        };
        if from < to {
            let upload = self.writer.cut_mark(mark)?;
            self.store(upload, from).await?;
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), RepositoryError> {
        while let Some(upload) = self.writer.cut_settled(FILE, None)? {
            let first = upload.range().from;
            self.store(upload, first).await?;
        }
        Ok(())
    }

    async fn store(&mut self, upload: Upload, from: Position) -> Result<(), RepositoryError> {
        let stored = upload.run().await?;
        assert!(stored.level != Level::Held);
        let durable = self.writer.complete(&stored);
        let branch = self.writer.branch();
        self.process.ledger.durable(branch, from, durable.position());
        Ok(())
    }
}
