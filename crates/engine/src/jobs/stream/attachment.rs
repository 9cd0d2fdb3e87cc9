//! One attachment of a stream to a source, from attaching to leaving.
//!
//! Promise: reading never waits for the store until `held_max` bytes are held, and even then the connection is kept
//! alive; a range's failure ends the attachment, so that the next one resumes from what is stored.

use super::attach::{Attaching, Lineages, Overlap, preceding, record};
use super::cadence::{Due, Moments};
use super::company::{Company, tell_apart};
use super::look::{Looked, look, look_last, tell, tell_keys, upload};
use super::own::place;
use super::presence::Presence;
use super::said::{tell_attached, tell_lost, tell_rivals, tell_stored, tell_stored_again, tell_taken_over};
use super::standing::Standing;
use super::told::Telling;
use super::{Left, Origin, Progress, StreamJob, Wish, stop_wished};
use crate::supervisor::Supervisor;
use crate::{EngineError, Fact};
use backstay_repository::{
    AttachReason, Compared, LogStore, LogWriter, Parent, RepositoryError, Stored, Twins, Upload, Wanted,
    history_digest, new_lineage,
};
use backstay_source::{
    LogPiece, LogReader, LogSource, LogStep, Preceding, Resume, SourceError, SourceErrorKind,
};
use backstay_terms::{Branch, EpochId, LogMark, Position};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::watch;
use tracing::warn;

/// A stream that is attached.
pub(crate) struct Attachment<'a> {
    job: &'a StreamJob,
    log: LogStore,
    reader: Box<dyn LogReader>,
    writer: LogWriter,
    overlap: Option<Overlap>,
    frontier: Option<Position>,
    uploads: Supervisor<Result<Stored, RepositoryError>>,
    indexes: Supervisor<Result<(), RepositoryError>>,
    looks: Supervisor<Result<Looked, RepositoryError>>,
    comparisons: Supervisor<Result<Comparison, RepositoryError>>,
    company: Company,
    began: Position,
    presence: &'a mut Presence,
    standing: &'a Standing,
    /// Epochs whose keys are known to be lost.
    keyless: BTreeSet<EpochId>,
    progress: Progress,
    /// How far each branch is stored by this attachment.
    reached: BTreeMap<Branch, Position>,
    moments: Moments,
    mark: Option<LogMark>,
    file_size: u64,
}

impl<'a> Attachment<'a> {
    /// Decides where to go on, attaches there, and stores the lineage record.
    pub async fn attach(
        job: &'a StreamJob,
        source: &dyn LogSource,
        (origin, own): (Origin, Option<Branch>),
        (presence, standing): (&'a mut Presence, &'a Standing),
    ) -> Result<Attachment<'a>, EngineError> {
        let identity = job.source.identify().await?;
        let log = LogStore::new(&job.repository, identity.engine, &job.name);
        let chance = job.repository.chance();
        let mut attaching = place(&log, source, &identity, (origin, own), chance).await?;
        let preceding = preceding(&log, &attaching, identity.segment_size).await?;
        let resume = attaching.resume(origin, &identity);
        let reader = match source.follow(resume, &preceding).await {
            // A new timeline whose switch file is gone begins as early as the source allows.
            Err(error) if error.kind == SourceErrorKind::LogGone && is_at_switch(origin, resume) => {
                source.follow(Resume::Fresh, &Preceding::none()).await?
            }
            answer => answer?,
        };
        if attaching.frontier == Some(reader.start().from) {
            let on_timeline = Lineages::on_timeline_of(&log, &attaching.branch).await?;
            warn!(branch = %attaching.branch, "the source has nothing any more of what is stored last: nothing can be compared");
            if on_timeline == Lineages::Several {
                attaching = attaching.apart(job.repository.chance());
            }
        }
        let is_first = attaching.reason == AttachReason::First;
        if is_first {
            tell_taken_over(job, source);
        }
        let begun = Self::begin(job, log, reader, (attaching, preceding), (presence, standing)).await;
        if begun.is_err() && is_first {
            forget(source).await;
        }
        begun
    }

    async fn begin(
        job: &'a StreamJob,
        log: LogStore,
        reader: Box<dyn LogReader>,
        (attaching, preceding): (Attaching, Preceding),
        (presence, standing): (&'a mut Presence, &'a Standing),
    ) -> Result<Attachment<'a>, EngineError> {
        let start = reader.start().clone();
        let repository = &job.repository;
        let epoch = repository.new_id("log")?;
        let writer =
            LogWriter::begin(repository, log.place().clone(), attaching.branch, epoch.clone()).await?;
        let first = attaching.frontier.unwrap_or(start.from);
        tell_lost(job, &log, (attaching.branch, first), &start, presence).await?;
        let (id, now) = (repository.new_id("attach")?, repository.now());
        record(&log, &attaching, &start.identity, &epoch, start.from, id, now).await?;
        let overlap = match attaching.frontier {
            Some(frontier) => {
                Overlap::read(&log, &attaching.branch, start.from, frontier, &preceding).await?
            }
            None => None,
        };
        tell_attached(job, &attaching, start.from);
        tell_rivals(job, &log, attaching.branch).await?;
        let mut keyless = BTreeSet::new();
        let stored = log.ranges(&attaching.branch, None).await?;
        tell_keys(job, log.keep_keys(&stored, None).await?, &mut keyless);
        let (instant, began) = (
            repository.clock().instant(),
            attaching.frontier.unwrap_or(start.from),
        );
        standing.attached(instant, began);
        let moments = Moments {
            unsent_since: None,
            unsettled_since: None,
            marked_at: instant,
            whose_at: Some(instant),
        };
        Ok(Attachment {
            job,
            log,
            reader,
            writer,
            overlap,
            frontier: attaching.frontier,
            uploads: Supervisor::new(),
            indexes: Supervisor::new(),
            looks: Supervisor::new(),
            comparisons: Supervisor::new(),
            company: Company::default(),
            began: first,
            presence,
            standing,
            keyless,
            progress: Progress::Nothing,
            reached: BTreeMap::new(),
            moments,
            mark: None,
            file_size: start.identity.segment_size,
        })
    }

    /// What is being followed.
    pub fn branch(&self) -> Branch {
        self.writer.branch()
    }

    /// Follows the log until stopped, until the source ends it, or until an error. No upload runs on after an error: the next
    /// attachment begins with what is stored. `progress` is what it got stored, however it ends.
    pub async fn follow(
        mut self,
        wish: &mut watch::Receiver<Wish>,
        progress: &mut Progress,
        telling: &mut Telling,
    ) -> Result<Left, EngineError> {
        let read = self.read(wish).await;
        let is_stopped = matches!(read, Ok(Left::Stopped));
        let left = match read {
            Ok(left) => self.drain().await.map(|()| left),
            error => error,
        };
        *progress = self.progress;
        for (branch, reach) in std::mem::take(&mut self.reached) {
            telling.stored(branch, reach, self.writer.epoch().clone());
        }
        self.looks.stop().await;
        self.comparisons.stop().await;
        if matches!(left, Ok(Left::Stopped | Left::EpochOver)) {
            let epoch = self.writer.epoch().clone();
            look_last(self.job, &self.log, epoch, (self.presence, &mut self.keyless)).await?;
        }
        if left.is_err() {
            self.uploads.stop().await;
            self.indexes.stop().await;
        }
        let left = match left {
            // The clock was set, or the machine slept. What is held the source still has, and new keys may seal it.
            Err(EngineError::Repository(error @ RepositoryError::KeyTooOld { .. })) if !is_stopped => {
                warn!(%error, "the clock has leapt forward: the stream goes on with new keys");
                Left::EpochOver
            }
            left => left?,
        };
        self.leave(left).await
    }

    /// Reads until there is a reason to leave.
    async fn read(&mut self, wish: &mut watch::Receiver<Wish>) -> Result<Left, EngineError> {
        let job = self.job;
        let clock = job.repository.clock();
        loop {
            if self.epoch_is_over() {
                return Ok(Left::EpochOver);
            }
            let room = self.writer.state().held < job.cadence.held_max;
            let due = self
                .next_due()
                .filter(|_| self.uploads.len() < job.cadence.uploads_max);
            let wait = due.map_or(Duration::from_secs(3600), |(at, _)| {
                at.saturating_sub(clock.instant())
            });
            tokio::select! {
                biased;
                () = stop_wished(wish) => return Ok(Left::Stopped),
                Some(stored) = self.uploads.next() => self.complete(stored??).await?,
                Some(ended) = self.indexes.next() => ended??,
                Some(looked) = self.looks.next() => tell(self.job, looked??, (self.presence, &mut self.keyless)),
                Some(found) = self.comparisons.next() => {
                    if let Some(apart) = self.tell_company(found??).await? {
                        return Ok(Left::Apart(apart));
                    }
                }
                () = clock.sleep(wait), if due.is_some() => self.do_due(due.map(|(_, due)| due))?,
                step = next_step(self.reader.as_mut(), room) => {
                    if self.take(step?).await? == Next::Leave {
                        return Ok(Left::SourceEnded);
                    }
                }
            }
        }
    }

    /// What is due first and when. One look at a time.
    fn next_due(&self) -> Option<(Duration, Due)> {
        let cadence = &self.job.cadence;
        let look = self.presence.next(cadence).filter(|_| self.looks.len() == 0);
        let compare = self.company.next(cadence).filter(|_| self.comparisons.len() == 0);
        let dues = [self.moments.next(cadence), look, compare];
        dues.into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    async fn take(&mut self, step: LogStep) -> Result<Next, EngineError> {
        match step {
            LogStep::Piece(piece) => self.take_piece(piece).await?,
            LogStep::Mark(mark) => {
                self.mark = Some(mark);
                self.store_mark()?;
            }
            LogStep::OtherHistory => self.begin_lineage(None, self.reader.start().from).await?,
            LogStep::FlushWanted => self.do_due(Some(Due::Live))?,
            LogStep::TimelineEnd {
                switch,
                next,
                history,
            } => self.change_timeline(switch, next, history).await?,
            LogStep::Ended => return Ok(Next::Leave),
        }
        Ok(Next::GoOn)
    }

    async fn take_piece(&mut self, piece: LogPiece) -> Result<(), EngineError> {
        if let Some(overlap) = &self.overlap
            && overlap.contradicts(piece.begins, &piece.bytes)
        {
            return self.begin_other_history(piece).await;
        }
        // Wholly stored already: it only had to be compared.
        if self.frontier.is_some_and(|frontier| piece.ends() <= frontier) {
            return Ok(());
        }
        self.overlap = None;
        self.append(piece)
    }

    fn append(&mut self, piece: LogPiece) -> Result<(), EngineError> {
        let now = self.job.repository.clock().instant();
        let ends = piece.ends();
        if self.writer.state().appended == Position::default() {
            self.presence.begins(self.writer.branch(), piece.begins, now);
        }
        self.writer.append(piece.begins, piece.bytes, piece.facts)?;
        self.standing.received(now, (ends, self.writer.state().durable));
        self.moments.unsent_since.get_or_insert(now);
        self.moments.unsettled_since.get_or_insert(now);
        let full = self.writer.unsettled() >= backstay_repository::SETTLED_BYTES_MAX;
        if full || ends.0.is_multiple_of(self.file_size) {
            self.store_settled(Amount::WhatIsFull)?;
        }
        Ok(())
    }

    fn do_due(&mut self, due: Option<Due>) -> Result<(), EngineError> {
        match due {
            Some(Due::Live) => {
                while let Some(upload) = self.writer.cut_live(self.file_size, self.mark)? {
                    self.start(upload);
                }
                self.moments.unsent_since = None;
            }
            Some(Due::Settle) => self.store_settled(Amount::Everything)?,
            Some(Due::Look) => self.look(),
            Some(Due::Compare) => self.compare(),
            None => {}
        }
        Ok(())
    }

    /// Lists, beside everything else, the names of what must be there. Listing goes from live to settled to held, as bytes do,
    /// so that nothing is missed on its way.
    fn look(&mut self) {
        let now = self.job.repository.clock().instant();
        let Some((branch, held)) = self.presence.look(now) else {
            return;
        };
        let looked = look(self.log.clone(), branch, held, self.writer.epoch().clone());
        self.looks.start("look at the stored log", looked);
    }

    /// Compares, beside everything else, what another stream stored at the positions of this one.
    fn compare(&mut self) {
        self.company.compares(self.job.repository.clock().instant());
        let (log, branch, began) = (self.log.clone(), self.writer.branch(), self.began);
        let epoch = self.writer.epoch().clone();
        self.comparisons
            .start("comparison with other streams", async move {
                let twins = log.tell_apart(&branch, Some(began), Compared::Ends).await?;
                let lineage = log.moves().await?.lineage_of(branch, &epoch);
                Ok(Comparison {
                    branch,
                    twins,
                    lineage,
                })
            });
    }

    /// Says what a comparison found; gives the lineage to go on with if this stream has to leave its own.
    async fn tell_company(&mut self, found: Comparison) -> Result<Option<Branch>, EngineError> {
        let Comparison {
            branch,
            twins,
            lineage,
        } = found;
        tell_apart(self.job.observer.as_ref(), &twins.leaving);
        if !twins.leaving.is_empty() {
            tell_rivals(self.job, &self.log, lineage).await?;
        }
        if self.company.is_news(&twins) {
            self.job.observer.observe(&Fact::LogShared { branch });
        }
        // A timeline may have ended since the comparison began.
        let has_to_leave = branch == self.writer.branch() && lineage != branch;
        Ok(has_to_leave.then_some(lineage))
    }

    fn store_settled(&mut self, amount: Amount) -> Result<(), EngineError> {
        if amount == Amount::Everything {
            self.moments.whose_at = None;
        }
        loop {
            let state = self.writer.state();
            let at_border = state.appended.0.is_multiple_of(self.file_size);
            let full = self.writer.unsettled() >= backstay_repository::SETTLED_BYTES_MAX || at_border;
            if amount == Amount::WhatIsFull && !full {
                break;
            }
            match self.writer.cut_settled(self.file_size, self.mark)? {
                Some(upload) => self.start(upload),
                None => break,
            }
        }
        let state = self.writer.state();
        let now = self.job.repository.clock().instant();
        self.moments.unsettled_since = (state.settled < state.appended).then_some(now);
        if state.sent == state.appended {
            self.moments.unsent_since = None;
        }
        Ok(())
    }

    fn store_mark(&mut self) -> Result<(), EngineError> {
        let now = self.job.repository.clock().instant();
        let Some(mark) = self.mark else { return Ok(()) };
        let state = self.writer.state();
        // Before the first byte of this attachment the frontier is what is stored.
        let (durable, appended) = match state.appended {
            Position(0) => (self.frontier, self.frontier),
            appended => (Some(state.durable), Some(appended)),
        };
        let everything_durable = durable == appended && durable == Some(mark.position);
        if everything_durable && self.moments.mark_is_due(now, &self.job.cadence) {
            let upload = self.writer.cut_mark(mark)?;
            self.moments.marked_at = now;
            self.start(upload);
        }
        Ok(())
    }

    fn start(&mut self, range: Upload) {
        let now = self.job.repository.clock().instant();
        let whose = self.moments.whose(now, &self.job.cadence);
        self.uploads
            .start("upload of log", upload(range, self.log.clone(), whose));
    }

    async fn complete(&mut self, stored: Stored) -> Result<(), EngineError> {
        let before = self.writer.state().durable;
        let durable = self.writer.complete(&stored);
        tell_stored(self.job, self.standing, &stored, durable.position());
        if !stored.range.is_mark() {
            self.company.stored();
        }
        self.progress = self.progress.max(match durable.position() > before {
            true => Progress::Log,
            false => Progress::Something,
        });
        self.presence.reaches(durable.position());
        tell_stored_again(self.job, self.presence);
        if self.writer.state().appended != Position::default() {
            self.reached.insert(self.writer.branch(), durable.position());
            self.reader.confirm(&durable).await?;
            self.job.observer.observe(&Fact::LogDurable {
                position: durable.position(),
            });
        }
        self.store_index(Wanted::OverHours)?;
        self.store_mark()
    }

    fn store_index(&mut self, wanted: Wanted) -> Result<(), EngineError> {
        if let Some(index) = self.writer.cut_index(wanted)? {
            self.indexes.start("upload of a log index", index.run());
        }
        Ok(())
    }

    /// Says goodbye to the source. Everything is stored and confirmed.
    async fn leave(self, left: Left) -> Result<Left, EngineError> {
        match self.reader.finish().await {
            Ok(()) => Ok(left),
            // Everything is stored; that the source is gone already is no failure of leaving.
            Err(error) if error.kind == SourceErrorKind::Unreachable => Ok(left),
            Err(error) => Err(error.into()),
        }
    }

    /// Stores everything that is held as settled ranges, and confirms it.
    async fn drain(&mut self) -> Result<(), EngineError> {
        self.store_settled(Amount::Everything)?;
        while let Some(stored) = self.uploads.next().await {
            self.complete(stored??).await?;
        }
        self.store_index(Wanted::Everything)?;
        while let Some(ended) = self.indexes.next().await {
            ended??;
        }
        Ok(())
    }

    /// The timeline ended: its rest is settled, and the next one begins a lineage of its own.
    async fn change_timeline(
        &mut self,
        switch: Position,
        next: u32,
        history: Bytes,
    ) -> Result<(), EngineError> {
        self.drain().await?;
        let old = self.writer.branch();
        let parent = Some(Parent {
            branch: old,
            fork: switch,
        });
        let digest = Some(history_digest(&history));
        let lineage = new_lineage(self.job.repository.chance());
        let branch = Branch {
            timeline: next,
            lineage,
            ..old
        };
        let attaching = Attaching {
            branch,
            reason: AttachReason::Timeline,
            parent,
            frontier: None,
            after: None,
            history: digest,
        };
        self.log.put_history(branch.system, next, &history).await?;
        let from = self.reader.start().from;
        self.switch_to(attaching, from).await
    }

    /// The bytes read again are not the stored ones: another history, which begins here.
    async fn begin_other_history(&mut self, piece: LogPiece) -> Result<(), EngineError> {
        // Without equal bytes before the difference nothing proves that the two were ever one.
        let proven = self
            .overlap
            .as_ref()
            .is_some_and(|overlap| overlap.proves_up_to(piece.begins));
        let parent = proven.then_some(Parent {
            branch: self.writer.branch(),
            fork: piece.begins,
        });
        self.begin_lineage(parent, piece.begins).await?;
        self.append(piece)
    }

    async fn begin_lineage(&mut self, parent: Option<Parent>, from: Position) -> Result<(), EngineError> {
        let old = self.writer.branch();
        let lineage = new_lineage(self.job.repository.chance());
        let attaching = Attaching {
            branch: Branch { lineage, ..old },
            reason: AttachReason::Differs,
            parent,
            frontier: None,
            after: None,
            history: self.reader.start().history.as_deref().map(history_digest),
        };
        self.switch_to(attaching, from).await
    }

    async fn switch_to(&mut self, attaching: Attaching, from: Position) -> Result<(), EngineError> {
        self.writer.switch_branch(attaching.branch)?;
        (self.overlap, self.frontier, self.mark) = (None, None, None);
        self.began = from;
        let start = self.reader.start().clone();
        let repository = &self.job.repository;
        let (id, now) = (repository.new_id("attach")?, repository.now());
        record(
            &self.log,
            &attaching,
            &start.identity,
            self.writer.epoch(),
            from,
            id,
            now,
        )
        .await?;
        tell_attached(self.job, &attaching, from);
        tell_rivals(self.job, &self.log, attaching.branch).await
    }

    fn epoch_is_over(&self) -> bool {
        let age = self.job.repository.now().duration_since(self.writer.born());
        Duration::try_from(age).is_ok_and(|age| age >= self.job.cadence.epoch_age)
    }
}

/// What a comparison with other streams found.
#[derive(Debug)]
struct Comparison {
    /// The branch that was followed then.
    branch: Branch,
    twins: Twins,
    /// The lineage of what this epoch stored there.
    lineage: Branch,
}

/// How much to settle.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Amount {
    WhatIsFull,
    Everything,
}

/// Whether to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    Leave,
}

async fn next_step(reader: &mut dyn LogReader, room: bool) -> Result<LogStep, SourceError> {
    if room {
        return reader.next().await;
    }
    reader.keep_alive().await?;
    Ok(LogStep::Ended)
}

fn is_at_switch(origin: Origin, resume: Resume) -> bool {
    origin == Origin::Frontier && matches!(resume, Resume::At { .. })
}

/// Nothing is stored of a source that was followed for the first time: it must not keep its log for nobody.
async fn forget(source: &dyn LogSource) {
    if let Err(error) = source.forget().await {
        warn!(%error, "the source still keeps its log for this stream, of which nothing was stored");
    }
}
