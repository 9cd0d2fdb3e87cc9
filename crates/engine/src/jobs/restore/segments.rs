//! Assembles the log segments that a restore needs and places them.
//!
//! Promise: every needed position is covered by the base's own log or by the chain's; where both hold it, the bytes must
//! be equal, else the restore stops; bytes after what is needed are zero or true log, never something else.

use super::{RestoreJob, worker};
use crate::EngineError;
use crate::plan::SegmentPlan;
use backstay_repository::{BaseReader, FileRow};
use backstay_terms::{EntryHeader, EntryKind, EntryPath, EntryRole, LogRange, Lsn, Position, Timeline};
use bytes::Bytes;

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
        let histories = self.catalog.log.histories(self.plan.log.system).await?;
        for link in &chain.links {
            let Some(digest) = &link.history else { continue };
            let timeline = link.branch.timeline;
            if let Some(content) = histories.get(&(timeline, digest.clone())) {
                let name = Timeline(timeline).history_file_name();
                self.place_whole(EntryRole::History, name, content.to_vec())
                    .await?;
            }
        }
        Ok(())
    }

    async fn assemble(&self, base: &BaseReader, segment: &SegmentPlan) -> Result<Vec<u8>, EngineError> {
        let size = self.plan.log.segment_size;
        let whole = LogRange {
            from: segment.begins,
            to: Position(segment.begins.0 + size),
        };
        let mut content = vec![0; size as usize];
        let mut own = None;
        if let Some((file, covers)) = self.own_segment(base, whole) {
            let bytes = base.read_range(&file, 0..file.size).await?;
            let kept = (covers.to.0 - whole.from.0) as usize;
            copy(&mut content, 0, bytes.get(..kept).unwrap_or(&bytes));
            own = Some(covers);
        }
        let chain = self.catalog.chain.as_ref();
        let stretches = chain.map(|chain| chain.stretches(None)).unwrap_or_default();
        for stretch in &stretches {
            let part = LogRange {
                from: stretch.from.max(whole.from),
                to: stretch.to.min(whole.to),
            };
            if part.from < part.to {
                let bytes = self.catalog.bytes_in(part).await?;
                self.refuse_if_different(own, part, &bytes, &content, whole)?;
                copy(&mut content, (part.from.0 - whole.from.0) as usize, &bytes);
            }
        }
        let covered: Vec<LogRange> = stretches.into_iter().chain(own).collect();
        let covered = backstay_repository::stretches(&covered);
        match backstay_repository::missing(segment.needed, &covered).first() {
            Some(gap) => Err(self.catalog.gap(*gap)),
            None => Ok(content),
        }
    }

    /// The base's own copy of a segment, and the positions of it that are content and not padding.
    fn own_segment(&self, base: &BaseReader, whole: LogRange) -> Option<(FileRow, LogRange)> {
        let log = &self.plan.log;
        let covers = LogRange {
            from: whole.from,
            to: whole.to.min(log.stop),
        };
        if covers.from >= covers.to || log.start >= whole.to {
            return None;
        }
        let size = backstay_terms::WalSegmentSize::new(log.segment_size)?;
        let number = size.segment_holding(Lsn(whole.from.0));
        let is_it = |file: &&FileRow| {
            let name = file
                .path
                .as_text()
                .and_then(|name| name.parse::<backstay_terms::WalFileName>().ok());
            file.role == EntryRole::Wal && name.and_then(|name| name.segment(size)) == Some(number)
        };
        base.files().iter().find(is_it).map(|file| (file.clone(), covers))
    }

    fn refuse_if_different(
        &self,
        own: Option<LogRange>,
        part: LogRange,
        bytes: &[u8],
        content: &[u8],
        whole: LogRange,
    ) -> Result<(), EngineError> {
        let Some(own) = own else { return Ok(()) };
        let both = LogRange {
            from: part.from.max(own.from),
            to: part.to.min(own.to),
        };
        if both.from >= both.to {
            return Ok(());
        }
        let slice = |bytes: &[u8], origin: Position| -> Option<Bytes> {
            let range = (both.from.0 - origin.0) as usize..(both.to.0 - origin.0) as usize;
            bytes.get(range).map(Bytes::copy_from_slice)
        };
        if slice(bytes, part.from) == slice(content, whole.from) {
            return Ok(());
        }
        let (from, to) = (Lsn::from(both.from), Lsn::from(both.to));
        let backup = &self.plan.head.backup;
        let what = format!(
            "the log of backup {backup} and the streamed log differ between {from} and {to}: two histories"
        );
        Err(EngineError::Integrity { what })
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
        worker(move || {
            let mut sink = target.place(&header)?;
            sink.write(&content)?;
            Ok(sink.close()?)
        })
        .await
    }
}

fn copy(into: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = into.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}
