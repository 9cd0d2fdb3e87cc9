//! The kept WAL of a base backup, as whole segments.
//!
//! Promise: what lies before the stop is walked, record by record with its checksums, as it is handed on; what lies
//! after it is zeroes. Each scratch file is removed once it is read.
//! Not here: receiving (wal_tail).

use std::path::{Path, PathBuf};

use backstay_terms::{LogPoint, LogPointKind, Lsn, Timeline, WalFileName, WalSegmentSize};
use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::base_backup::spool::scratch_error;
use crate::error::PostgresError;
use crate::wal::{Meaning, Record, Walker};

const READ_BYTES: usize = 256 << 10;

/// Where a segment is kept.
pub(super) fn kept_path(scratch: &Path, name: WalFileName) -> PathBuf {
    scratch.join(format!("wal-{name}"))
}

/// The WAL from start to stop.
#[derive(Debug)]
pub(in crate::base_backup) struct ReadBack {
    pub(super) scratch: PathBuf,
    pub(super) timeline: Timeline,
    pub(super) size: WalSegmentSize,
    pub(super) start: Lsn,
    pub(super) next: Lsn,
    pub(super) stop: Lsn,
    pub(super) walker: Walker,
    pub(super) last: Option<Lsn>,
    pub(super) end_point: Option<LogPoint>,
    /// Where tablespaces were made on the way, in order.
    pub(super) tablespaces_made: Vec<String>,
}

/// One segment, whole. Its scratch file goes when this does.
#[derive(Debug)]
pub(in crate::base_backup) struct SegmentReader {
    pub(in crate::base_backup) name: WalFileName,
    path: PathBuf,
    file: File,
    content: u64,
    padding: u64,
}

impl ReadBack {
    /// The next segment; none after the one that holds the last byte before the stop.
    pub(in crate::base_backup) async fn next_segment(
        &mut self,
    ) -> Result<Option<SegmentReader>, PostgresError> {
        let begins = self.next;
        if begins >= self.stop {
            return Ok(None);
        }
        self.next = begins.plus(self.size.bytes());
        let name = WalFileName::new(self.timeline, self.size.segment_holding(begins), self.size);
        let path = kept_path(&self.scratch, name);
        let file = File::open(&path)
            .await
            .map_err(|source| scratch_error(&path, source))?;
        let content = self.size.bytes().min(self.stop.0 - begins.0);
        Ok(Some(SegmentReader {
            name,
            path,
            file,
            content,
            padding: self.size.bytes() - content,
        }))
    }

    /// The next bytes of a segment; empty at its end.
    pub(in crate::base_backup) async fn bytes(
        &mut self,
        reader: &mut SegmentReader,
    ) -> Result<Bytes, PostgresError> {
        if reader.content == 0 {
            return Ok(reader.padding());
        }
        let bytes = reader.content().await?;
        self.walk(&bytes)?;
        Ok(bytes)
    }

    fn walk(&mut self, bytes: &[u8]) -> Result<(), PostgresError> {
        let (start, stop) = (self.start, self.stop);
        let (last, end_point) = (&mut self.last, &mut self.end_point);
        let made = &mut self.tablespaces_made;
        let mut sink = |record: Record| {
            *last = Some(record.start);
            if ends_backup(&record, start, stop) {
                *end_point = Some(point(&record));
            }
            if let Meaning::TablespaceMade { location } = record.meaning
                && record.start >= start
                && !location.is_empty()
            {
                made.push(location);
            }
        };
        self.walker
            .feed(bytes, &mut sink)
            .map_err(|damage| self.failed(damage.to_string()))
    }

    /// The start of the last record before the stop, and the record that ends this backup, where the server wrote one
    /// (a standby does not).
    pub(in crate::base_backup) fn found(&self) -> Result<(Lsn, Option<LogPoint>), PostgresError> {
        let last = self.last.filter(|_| self.walker.unfinished().is_none());
        let last = last.ok_or_else(|| self.failed("it does not end with a whole record".to_owned()))?;
        Ok((last, self.end_point.clone()))
    }

    /// Where tablespaces were made between start and stop.
    pub(in crate::base_backup) fn tablespaces_made(&self) -> Vec<String> {
        self.tablespaces_made.clone()
    }

    fn failed(&self, reason: String) -> PostgresError {
        PostgresError::BackupWal {
            from: self.start.to_string(),
            to: self.stop.to_string(),
            reason,
        }
    }
}

// A standby made from a backup holds that backup's end record too, perhaps with the same start: the stop tells.
fn ends_backup(record: &Record, start: Lsn, stop: Lsn) -> bool {
    match record.meaning {
        Meaning::BackupEnd { start: begun } => begun == start && record.end.0.next_multiple_of(8) == stop.0,
        _ => false,
    }
}

fn point(record: &Record) -> LogPoint {
    LogPoint {
        start: record.start.into(),
        kind: LogPointKind::BackupEnd,
        name: None,
        time: None,
        crc: record.crc,
    }
}

impl SegmentReader {
    async fn content(&mut self) -> Result<Bytes, PostgresError> {
        let mut bytes = BytesMut::zeroed(part(self.content));
        let read = self.file.read_exact(&mut bytes).await;
        read.map_err(|source| scratch_error(&self.path, source))?;
        self.content -= bytes.len() as u64;
        Ok(bytes.freeze())
    }

    fn padding(&mut self) -> Bytes {
        let zeroes = BytesMut::zeroed(part(self.padding));
        self.padding -= zeroes.len() as u64;
        zeroes.freeze()
    }
}

fn part(left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(READ_BYTES)
}

impl Drop for SegmentReader {
    fn drop(&mut self) {
        // The scratch directory goes with the run.
        let _ = std::fs::remove_file(&self.path);
    }
}
