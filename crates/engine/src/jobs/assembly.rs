//! Assembles segments of a log from a base's own copy and from a chain's ranges.
//!
//! Promise: where both hold a position, the bytes must be equal, else nothing is given out; where one of them is damaged,
//! the other serves, and where both are, that is an error and never a hole. Positions that nobody holds are zero in the
//! content and missing in `covered`, so that the caller decides what a hole means.
//! Not here: which segments are needed (plan::restore), whether a hole is the end (jobs::fetch), placing them.

use crate::EngineError;
use crate::plan::{Chain, bytes_along, file_of};
use backstay_repository::{BaseReader, FileRow, HeadLog, LogStore, RepositoryError};
use backstay_terms::{LogRange, Lsn, Position, WalSegmentSize};
use tracing::warn;

/// Bytes of a segment that are assembled at once: it has up to 1 GiB. A settled range has at most as many and begins at a
/// border of these, unless a stream was attached in between, so that hardly any is read twice.
pub(crate) const PART_BYTES: u64 = 16 << 20;

/// Where the bytes of a log come from.
#[derive(Debug)]
pub(crate) struct Assembly<'a> {
    /// The log.
    pub log: &'a LogStore,
    /// A lineage with its ancestors, listed.
    pub chain: Option<&'a Chain>,
    /// A base that carries log of its own.
    pub base: Option<(&'a BaseReader, &'a HeadLog)>,
    /// From here on nothing is needed, and what cannot be read is left out; none: everything is needed.
    pub until: Option<Position>,
}

/// A segment or a part of one, as far as it is stored.
#[derive(Debug)]
pub(crate) struct Assembled {
    /// Its bytes; zero where nothing is stored.
    pub content: Vec<u8>,
    /// Every stretch that chain and base hold, also outside of the part.
    pub covered: Vec<LogRange>,
}

/// What a base's own copy of a segment gives.
enum Own {
    /// These positions.
    Holds(LogRange),
    /// It would hold these positions, and cannot be read.
    Damaged(LogRange, RepositoryError),
    /// Nothing.
    Nothing,
}

impl Own {
    fn covers(&self) -> Option<LogRange> {
        match self {
            Own::Holds(range) => Some(*range),
            Own::Damaged(..) | Own::Nothing => None,
        }
    }
}

impl Assembly<'_> {
    /// The positions `whole`, which lie in one segment.
    pub async fn assemble(&self, whole: LogRange) -> Result<Assembled, EngineError> {
        let size = usize::try_from(whole.length()).map_err(RepositoryError::encoding)?;
        let mut content = vec![0; size];
        let own = self.take_own(whole, &mut content).await?;
        let stretches = self.chain.map(|chain| chain.stretches(None)).unwrap_or_default();
        if let Own::Damaged(covers, error) = own {
            self.pass_over_own(covers, error, &stretches)?;
            self.take_stretches(whole, None, &stretches, &mut content).await?;
            return Ok(Assembled {
                content,
                covered: stretches,
            });
        }
        self.take_stretches(whole, own.covers(), &stretches, &mut content)
            .await?;
        let covered: Vec<LogRange> = stretches.into_iter().chain(own.covers()).collect();
        let covered = backstay_repository::stretches(&covered);
        Ok(Assembled { content, covered })
    }

    /// Copies what the base has of the segment.
    async fn take_own(&self, whole: LogRange, content: &mut [u8]) -> Result<Own, EngineError> {
        let Some((base, file, at, covers)) = self.own_segment(whole) else {
            return Ok(Own::Nothing);
        };
        let ends = at.saturating_add(covers.length()).min(file.size);
        match base.read_range(&file, at.min(ends)..ends).await {
            Ok(bytes) => {
                copy(content, 0, &bytes);
                Ok(Own::Holds(covers))
            }
            Err(error) if error.is_damage() => Ok(Own::Damaged(covers, error)),
            Err(error) => Err(error.into()),
        }
    }

    /// The base's own copy is damaged: an error unless the stretches hold all of it.
    fn pass_over_own(
        &self,
        covers: LogRange,
        error: RepositoryError,
        stretches: &[LogRange],
    ) -> Result<(), EngineError> {
        if !backstay_repository::missing(covers, stretches).is_empty() {
            return Err(error.into());
        }
        let LogRange { from, to } = covers;
        warn!(%from, %to, %error, "a base's damaged copy of the log is passed over");
        Ok(())
    }

    /// Copies what the chain has of the segment; where that is damaged, what the base has stays.
    async fn take_stretches(
        &self,
        whole: LogRange,
        own: Option<LogRange>,
        stretches: &[LogRange],
        content: &mut [u8],
    ) -> Result<(), EngineError> {
        for stretch in stretches {
            let mut rest = LogRange {
                from: stretch.from.max(whole.from),
                to: stretch.to.min(whole.to),
            };
            while rest.from < rest.to {
                rest.from = self.take_part(whole, own, rest, content).await?;
            }
        }
        Ok(())
    }

    /// Copies `part`, or what of it lies before a damage that the base's own copy makes good; returns where to go on.
    async fn take_part(
        &self,
        whole: LogRange,
        own: Option<LogRange>,
        part: LogRange,
        content: &mut [u8],
    ) -> Result<Position, EngineError> {
        let taken = bytes_along(self.log, self.chain, part, |begins, bytes| {
            self.refuse_if_different(own, begins, bytes, content, whole)?;
            copy(content, (begins.0 - whole.from.0) as usize, bytes);
            Ok(())
        });
        let error = match taken.await {
            Ok(()) => return Ok(part.to),
            Err(EngineError::Repository(error)) => error,
            Err(error) => return Err(error),
        };
        if let Some(from) = self.not_needed(&error) {
            let at = (from.0 - whole.from.0) as usize;
            content.get_mut(at..).unwrap_or_default().fill(0);
            warn!(%from, %error, "log after what is needed cannot be read and is left out");
            return Ok(part.to);
        }
        let Some(LogRange { from, to }) = made_good(own, &error) else {
            return Err(error.into());
        };
        warn!(%from, %to, %error, "damaged log is taken from a base's own copy");
        Ok(to)
    }

    /// Where a damage begins that lies wholly after what is needed.
    fn not_needed(&self, error: &RepositoryError) -> Option<Position> {
        let RepositoryError::Unreadable { from, .. } = error else {
            return None;
        };
        self.until.filter(|until| until <= from).map(|_| *from)
    }

    /// An error that names a gap.
    pub fn gap(&self, gap: LogRange) -> EngineError {
        self.log.gap(gap).into()
    }

    /// The base's own copy of the segment, where in it the wanted positions begin, and which of them are content and not
    /// padding.
    fn own_segment(&self, whole: LogRange) -> Option<(&BaseReader, FileRow, u64, LogRange)> {
        let (base, log) = self.base?;
        let size = WalSegmentSize::new(log.segment_size)?;
        let begins = whole.from.0 - whole.from.0 % size.bytes();
        let covers = LogRange {
            from: whole.from,
            to: whole.to.min(log.stop),
        };
        if covers.from >= covers.to || log.start.0 >= begins.saturating_add(size.bytes()) {
            return None;
        }
        let file = file_of(base, size, Position(begins))?;
        Some((base, file, whole.from.0 - begins, covers))
    }

    fn refuse_if_different(
        &self,
        own: Option<LogRange>,
        begins: Position,
        bytes: &[u8],
        content: &[u8],
        whole: LogRange,
    ) -> Result<(), EngineError> {
        let Some(own) = own else { return Ok(()) };
        let both = LogRange {
            from: begins.max(own.from),
            to: Position(begins.0 + bytes.len() as u64).min(own.to),
        };
        if both.from >= both.to {
            return Ok(());
        }
        fn slice(bytes: &[u8], both: LogRange, origin: Position) -> Option<&[u8]> {
            bytes.get((both.from.0 - origin.0) as usize..(both.to.0 - origin.0) as usize)
        }
        if slice(bytes, both, begins) == slice(content, both, whole.from) {
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

/// The positions of a damage that the base's own copy holds.
fn made_good(own: Option<LogRange>, error: &RepositoryError) -> Option<LogRange> {
    let (own, RepositoryError::Unreadable { from, to, .. }) = (own?, error) else {
        return None;
    };
    let (from, to) = (*from, own.to.min(*to));
    (own.from <= from && from < to).then_some(LogRange { from, to })
}

fn copy(into: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = into.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}
