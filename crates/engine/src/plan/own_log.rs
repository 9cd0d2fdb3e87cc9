//! The log that a backup brought itself, compared with a lineage.
//!
//! Promise: bytes are compared in the segment in which the backup began, which holds a checkpoint with its time, and in the
//! one in which it ended; what one of the two does not have is not compared.
//! Not here: comparing all of it, as a restore does (jobs::assembly).

use super::chain::Link;
use backstay_repository::{
    BaseReader, FileRow, Head, HeadLog, LogStore, RepositoryError, stretch_at, stretches,
};
use backstay_terms::{EntryRole, LogRange, Position, WalFileName, WalSegmentSize};

/// Whether the lineage has the bytes of the backup's own log.
pub(super) async fn own_log_is_of(
    log: &LogStore,
    link: &Link,
    head: &Head,
    own: &HeadLog,
) -> Result<bool, RepositoryError> {
    let Some(size) = WalSegmentSize::new(own.segment_size) else {
        return Ok(true);
    };
    let stored = stretches(link.ranges.iter().map(|range| &range.name.range));
    let base = BaseReader::open(log.repository(), &head.place()).await?;
    let begins = |position: Position| Position::from(size.start_of_segment_holding(position.into()));
    let first = begins(own.start);
    let last = begins(Position(own.stop.0.saturating_sub(1)));
    for segment in if first == last {
        vec![first]
    } else {
        vec![first, last]
    } {
        let whole = LogRange {
            from: segment.max(own.start),
            to: Position(segment.0 + size.bytes()).min(own.stop),
        };
        // The end is what the lineage is known to hold; it may begin in between.
        let Some(stretch) = stretch_at(&stored, Position(whole.to.0.saturating_sub(1))) else {
            continue;
        };
        let both = LogRange {
            from: whole.from.max(stretch.from),
            to: whole.to.min(stretch.to),
        };
        let Some(file) = file_of(&base, size, segment).filter(|_| both.from < both.to) else {
            continue;
        };
        let places = both.from.0 - segment.0..both.to.0 - segment.0;
        if base.read_range(&file, places).await? != log.read_from(both, &link.ranges).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The file of a base that holds the segment which begins there.
pub(crate) fn file_of(base: &BaseReader, size: WalSegmentSize, begins: Position) -> Option<FileRow> {
    let number = size.segment_holding(begins.into());
    let is_it = |file: &FileRow| {
        let name = file
            .path
            .as_text()
            .and_then(|name| name.parse::<WalFileName>().ok());
        file.role == EntryRole::Wal && name.and_then(|name| name.segment(size)) == Some(number)
    };
    base.files().find(is_it)
}
