//! Places the log segments that a restore needs.
//!
//! Promise: every needed position is covered by the base's own log or by the chain's; bytes after what is needed are zero
//! or true log, never something else.
//! Not here: where the bytes come from (jobs::assembly).

use super::{RestoreJob, worker};
use crate::EngineError;
use crate::jobs::assembly::{Assembly, PART_BYTES};
use crate::plan::SegmentPlan;
use backstay_repository::{BaseReader, HistoryName};
use backstay_source::FileSink;
use backstay_terms::{EntryHeader, EntryKind, EntryPath, EntryRole, LogRange, Position, Timeline};

/// Permission bits of a log segment.
const SEGMENT_MODE: u32 = 0o600;

impl RestoreJob {
    /// Places every segment of the plan; returns how many.
    pub(super) async fn place_log(&self, base: &BaseReader) -> Result<usize, EngineError> {
        for segment in &self.plan.segments {
            self.place_segment(base, segment).await?;
        }
        Ok(self.plan.segments.len())
    }

    /// Places the history files of the target's timeline and its ancestors.
    pub(super) async fn place_histories(&self) -> Result<(), EngineError> {
        let Some(chain) = &self.catalog.chain else {
            return Ok(());
        };
        let (log, system) = (&self.catalog.log, self.plan.log.system);
        let (names, _) = log.history_names(system).await?;
        for link in &chain.links {
            let Some(digest) = &link.history else { continue };
            let timeline = link.branch.timeline;
            let is_it = |name: &HistoryName| (name.timeline, &name.digest) == (timeline, digest);
            if let Some((name, object)) = names.iter().find(|(name, _)| is_it(name)) {
                let content = log.history(system, name, object).await?;
                let file = Timeline(timeline).history_file_name();
                self.place_whole(EntryRole::History, file, content.to_vec())
                    .await?;
            }
        }
        Ok(())
    }

    /// Places a segment part by part: it has up to 1 GiB.
    async fn place_segment(&self, base: &BaseReader, segment: &SegmentPlan) -> Result<(), EngineError> {
        let size = self.plan.log.segment_size;
        let ends = Position(segment.begins.0 + size);
        let mut sink = self.open(EntryRole::Wal, segment.name.to_string(), size).await?;
        let mut from = segment.begins;
        while from < ends {
            let to = Position(from.0 + PART_BYTES).min(ends);
            let content = self.assemble(base, segment.needed, LogRange { from, to }).await?;
            sink = write(sink, content).await?;
            from = to;
        }
        worker("worker that places log", move || Ok(sink.close()?)).await
    }

    /// The bytes of a part of a segment; what is needed of it is there.
    async fn assemble(
        &self,
        base: &BaseReader,
        needed: LogRange,
        part: LogRange,
    ) -> Result<Vec<u8>, EngineError> {
        let assembly = Assembly {
            log: &self.catalog.log,
            chain: self.catalog.chain.as_ref(),
            base: Some((base, &self.plan.log)),
            until: Some(self.plan.needs),
        };
        let assembled = assembly.assemble(part).await?;
        let needed = LogRange {
            from: needed.from.max(part.from),
            to: needed.to.min(part.to),
        };
        let missing = match needed.from < needed.to {
            true => backstay_repository::missing(needed, &assembled.covered),
            false => Vec::new(),
        };
        match missing.first() {
            Some(gap) => Err(assembly.gap(*gap)),
            None => Ok(assembled.content),
        }
    }

    async fn place_whole(&self, role: EntryRole, name: String, content: Vec<u8>) -> Result<(), EngineError> {
        let sink = self.open(role, name, content.len() as u64).await?;
        let sink = write(sink, content).await?;
        worker("worker that places log", move || Ok(sink.close()?)).await
    }

    async fn open(&self, role: EntryRole, name: String, size: u64) -> Result<Box<dyn FileSink>, EngineError> {
        let path = EntryPath::new(name).map_err(|e| EngineError::Integrity { what: e.to_string() })?;
        let modified = self.plan.head.created.as_second();
        let header = EntryHeader {
            role,
            path,
            kind: EntryKind::File,
            size,
            mode: SEGMENT_MODE,
            modified,
        };
        let target = self.target.clone();
        worker("worker that places log", move || Ok(target.place(&header)?)).await
    }
}

async fn write(mut sink: Box<dyn FileSink>, content: Vec<u8>) -> Result<Box<dyn FileSink>, EngineError> {
    worker("worker that places log", move || {
        sink.write(&content)?;
        Ok(sink)
    })
    .await
}
