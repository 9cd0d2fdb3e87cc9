//! Places the log segments that a restore needs.
//!
//! Promise: every needed position is covered by the base's own log or by the chain's; bytes after what is needed are zero
//! or true log, never something else.
//! Not here: where the bytes come from (jobs::assembly).

use super::{RestoreJob, worker};
use crate::EngineError;
use crate::jobs::assembly::Assembly;
use crate::plan::SegmentPlan;
use backstay_repository::{BaseReader, HistoryName};
use backstay_terms::{EntryHeader, EntryKind, EntryPath, EntryRole, LogRange, Position, Timeline};

/// Permission bits of a log segment.
const SEGMENT_MODE: u32 = 0o600;

impl RestoreJob {
    /// Places every segment of the plan; returns how many.
    pub(super) async fn place_log(&self, base: &BaseReader) -> Result<usize, EngineError> {
        for segment in &self.plan.segments {
            let content = self.assemble(base, segment).await?;
            self.place_whole(EntryRole::Wal, segment.name.to_string(), content)
                .await?;
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

    async fn assemble(&self, base: &BaseReader, segment: &SegmentPlan) -> Result<Vec<u8>, EngineError> {
        let whole = LogRange {
            from: segment.begins,
            to: Position(segment.begins.0 + self.plan.log.segment_size),
        };
        let assembly = Assembly {
            log: &self.catalog.log,
            chain: self.catalog.chain.as_ref(),
            base: Some((base, &self.plan.log)),
        };
        let assembled = assembly.assemble(whole).await?;
        match backstay_repository::missing(segment.needed, &assembled.covered).first() {
            Some(gap) => Err(assembly.gap(*gap)),
            None => Ok(assembled.content),
        }
    }

    async fn place_whole(&self, role: EntryRole, name: String, content: Vec<u8>) -> Result<(), EngineError> {
        let path = EntryPath::new(name).map_err(|e| EngineError::Integrity { what: e.to_string() })?;
        let size = content.len() as u64;
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
        worker("worker that places log", move || {
            let mut sink = target.place(&header)?;
            sink.write(&content)?;
            Ok(sink.close()?)
        })
        .await
    }
}
