//! Settles: reads back live ranges that no settled range covers and writes them as settled ones.
//!
//! Promise: needs the store and the keys, never the source; never joins two lineages (LIN-1); where live ranges
//! overlap, their bytes must be equal, else nothing is written and the error names the place (LOG-2). Running it
//! twice, or twice at once, only costs bytes.
//! Not here: when it runs (backstay-engine::jobs).

use super::coverage::{StoredRange, missing, stretches};
use super::store::LogStore;
use super::writer::{LogWriter, SETTLED_BYTES_MAX};
use crate::RepositoryError;
use crate::layout::Level;
use backstay_terms::{Branch, LogRange, Position};
use bytes::Bytes;

/// What settling did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Live ranges read back.
    pub read: u64,
    /// Settled ranges written.
    pub written: u64,
    /// Bytes of log settled.
    pub bytes: u64,
}

impl LogStore {
    /// What of a branch is stored in live ranges alone.
    pub fn unsettled(ranges: &[StoredRange]) -> Vec<LogRange> {
        let of = |live: bool| {
            ranges
                .iter()
                .filter(move |r| (r.level == Level::Live) == live)
                .map(|r| &r.name.range)
        };
        let covered = stretches(of(false));
        stretches(of(true))
            .into_iter()
            .flat_map(|stretch| missing(stretch, &covered))
            .collect()
    }

    /// Settles everything uncovered of a branch, cutting at borders of `file_size`.
    pub async fn settle(&self, branch: &Branch, file_size: u64) -> Result<Settled, RepositoryError> {
        let ranges = self.ranges(branch, None).await?;
        let mut done = Settled::default();
        let uncovered = Self::unsettled(&ranges);
        if uncovered.is_empty() {
            return Ok(done);
        }
        let live: Vec<StoredRange> = ranges.into_iter().filter(|r| r.level == Level::Live).collect();
        for stretch in uncovered {
            let epoch = self.repository.new_id("settle")?;
            let mut writer = LogWriter::begin(&self.repository, self.place.clone(), *branch, epoch).await?;
            self.settle_stretch(branch, stretch, &live, file_size, &mut writer, &mut done)
                .await?;
        }
        Ok(done)
    }

    async fn settle_stretch(
        &self,
        branch: &Branch,
        stretch: LogRange,
        live: &[StoredRange],
        file_size: u64,
        writer: &mut LogWriter,
        done: &mut Settled,
    ) -> Result<(), RepositoryError> {
        let mut at: Option<Position> = None;
        let mut last = Bytes::new();
        while at.is_none_or(|at| at < stretch.to) {
            let wanted = at.unwrap_or(stretch.from);
            let Some(next) = reaching(live, wanted) else { break };
            let (index, bytes) = self.range(branch, next).await?;
            done.read += 1;
            let begins = at.unwrap_or(next.name.range.from);
            let fresh = self.compare_overlap(branch, next.name.range, begins, &bytes, &last)?;
            writer.append(begins, fresh.clone(), index.facts)?;
            last = bytes;
            at = Some(next.name.range.to);
            self.store_settled(writer, file_size, Store::WhatIsFull, done)
                .await?;
        }
        self.store_settled(writer, file_size, Store::Everything, done)
            .await
    }

    /// The bytes of `range` from `begins` on; those before it must equal the end of the range taken before.
    fn compare_overlap(
        &self,
        branch: &Branch,
        range: LogRange,
        begins: Position,
        bytes: &Bytes,
        last: &Bytes,
    ) -> Result<Bytes, RepositoryError> {
        let overlap = (begins.0 - range.from.0) as usize;
        let shared = overlap.min(last.len());
        let before = last.slice(last.len() - shared..);
        let again = bytes.slice(overlap - shared..overlap);
        if before != again {
            let object = format!("branch {branch} of the log of {}", self.place.source);
            let what = format!("two live ranges hold different bytes before {begins}");
            return Err(RepositoryError::Differs { object, what });
        }
        Ok(bytes.slice(overlap..))
    }

    async fn store_settled(
        &self,
        writer: &mut LogWriter,
        file_size: u64,
        what: Store,
        done: &mut Settled,
    ) -> Result<(), RepositoryError> {
        loop {
            let unsettled = writer.unsettled();
            let at_border = writer.state().appended.0.is_multiple_of(file_size);
            let full = unsettled >= SETTLED_BYTES_MAX || at_border;
            if unsettled == 0 || (what == Store::WhatIsFull && !full) {
                return Ok(());
            }
            let Some(upload) = writer.cut_settled(file_size, None)? else {
                return Ok(());
            };
            let stored = upload.run().await?;
            done.written += 1;
            done.bytes += stored.range.length();
            writer.complete(&stored);
        }
    }
}

/// What to store now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    WhatIsFull,
    Everything,
}

/// The live range that holds `position` and reaches furthest.
fn reaching(live: &[StoredRange], position: Position) -> Option<&StoredRange> {
    let holding = live
        .iter()
        .filter(|r| r.name.range.from <= position && position < r.name.range.to);
    holding.max_by_key(|r| r.name.range.to)
}
