//! Assembles segments of a log from a base's own copy and from a chain's ranges.
//!
//! Promise: where both hold a position, the bytes must be equal, else nothing is given out; positions that nobody holds
//! are zero in the content and missing in `covered`, so that the caller decides what a hole means.
//! Not here: which segments are needed (plan::restore), whether a hole is the end (jobs::fetch), placing them.

use crate::EngineError;
use crate::plan::{Chain, bytes_along, gap_in};
use backstay_repository::{BaseReader, FileRow, HeadLog, LogStore, RepositoryError};
use backstay_terms::{EntryRole, LogRange, Lsn, Position, WalFileName, WalSegmentSize};
use bytes::Bytes;

/// Where the bytes of a log come from.
#[derive(Debug)]
pub(crate) struct Assembly<'a> {
    /// The log.
    pub log: &'a LogStore,
    /// A lineage with its ancestors, listed.
    pub chain: Option<&'a Chain>,
    /// A base that carries log of its own.
    pub base: Option<(&'a BaseReader, &'a HeadLog)>,
}

/// A segment, as far as it is stored.
#[derive(Debug)]
pub(crate) struct Assembled {
    /// Its bytes; zero where nothing is stored.
    pub content: Vec<u8>,
    /// Every stretch that chain and base hold, also outside of the segment.
    pub covered: Vec<LogRange>,
}

impl Assembly<'_> {
    /// The segment `whole`.
    pub async fn assemble(&self, whole: LogRange) -> Result<Assembled, EngineError> {
        let size = usize::try_from(whole.length()).map_err(RepositoryError::encoding)?;
        let mut content = vec![0; size];
        let mut own = None;
        if let Some((base, file, covers)) = self.own_segment(whole) {
            let bytes = base.read_range(&file, 0..file.size).await?;
            let kept = (covers.to.0 - whole.from.0) as usize;
            copy(&mut content, 0, bytes.get(..kept).unwrap_or(&bytes));
            own = Some(covers);
        }
        let stretches = self.chain.map(|chain| chain.stretches(None)).unwrap_or_default();
        for stretch in &stretches {
            let part = LogRange {
                from: stretch.from.max(whole.from),
                to: stretch.to.min(whole.to),
            };
            if part.from < part.to {
                let bytes = bytes_along(self.log, self.chain, part).await?;
                self.refuse_if_different(own, part, &bytes, &content, whole)?;
                copy(&mut content, (part.from.0 - whole.from.0) as usize, &bytes);
            }
        }
        let covered: Vec<LogRange> = stretches.into_iter().chain(own).collect();
        let covered = backstay_repository::stretches(&covered);
        Ok(Assembled { content, covered })
    }

    /// An error that names a gap.
    pub fn gap(&self, gap: LogRange) -> EngineError {
        gap_in(self.log, gap)
    }

    /// The base's own copy of a segment, and the positions of it that are content and not padding.
    fn own_segment(&self, whole: LogRange) -> Option<(&BaseReader, FileRow, LogRange)> {
        let (base, log) = self.base?;
        let covers = LogRange {
            from: whole.from,
            to: whole.to.min(log.stop),
        };
        if covers.from >= covers.to || log.start >= whole.to {
            return None;
        }
        let size = WalSegmentSize::new(log.segment_size)?;
        let number = size.segment_holding(Lsn(whole.from.0));
        let is_it = |file: &&FileRow| {
            let name = file
                .path
                .as_text()
                .and_then(|name| name.parse::<WalFileName>().ok());
            file.role == EntryRole::Wal && name.and_then(|name| name.segment(size)) == Some(number)
        };
        let file = base.files().iter().find(is_it)?;
        Some((base, file.clone(), covers))
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
        let backup = self
            .base
            .map(|(base, _)| base.head().backup.to_string())
            .unwrap_or_default();
        let what = format!(
            "the log of backup {backup} and the streamed log differ between {from} and {to}: two histories"
        );
        Err(EngineError::Integrity { what })
    }
}

fn copy(into: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = into.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}
