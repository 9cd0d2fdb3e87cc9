//! Settles: reads back live ranges that no settled range covers and writes them as settled ones.
//!
//! Promise: needs the store and the keys, never the source; never joins two lineages (LIN-1); where a range that is to
//! be settled overlaps any other, their bytes must be equal, else nothing is written and the error names both (LOG-2). Running it
//! twice, or twice at once, only costs bytes.
//! Not here: when it runs (backstay-engine::jobs).

use super::coverage::{StoredRange, missing, stretches};
use super::index::Wanted;
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
        self.compare_overlaps(branch, &ranges, &uncovered).await?;
        let live: Vec<StoredRange> = ranges.into_iter().filter(|r| r.level == Level::Live).collect();
        for stretch in uncovered {
            let epoch = self.repository.new_id("settle")?;
            let mut writer = LogWriter::begin(&self.repository, self.place.clone(), *branch, epoch).await?;
            self.settle_stretch(branch, stretch, &live, file_size, &mut writer, &mut done)
                .await?;
        }
        Ok(done)
    }

    /// LOG-2, before anything is written: every two ranges that overlap each other and `uncovered` hold equal bytes.
    /// Ranges that overlap nothing cost nothing here.
    async fn compare_overlaps(
        &self,
        branch: &Branch,
        ranges: &[StoredRange],
        uncovered: &[LogRange],
    ) -> Result<(), RepositoryError> {
        let live = |r: &&StoredRange| r.level == Level::Live;
        let touched: Vec<LogRange> = ranges
            .iter()
            .filter(live)
            .map(|r| r.name.range)
            .filter(|range| uncovered.iter().any(|stretch| shared(range, stretch).is_some()))
            .collect();
        let concerned = ranges.iter().filter(|r| {
            let range = r.name.range;
            touched.iter().any(|live| shared(&range, live).is_some())
        });
        // In the order of their beginnings; a range is kept while a later one may still overlap it.
        let mut kept: Vec<(&StoredRange, Option<Bytes>)> = Vec::new();
        for next in concerned {
            kept.retain(|(before, _)| before.name.range.to > next.name.range.from);
            let mut bytes = None;
            for (before, held) in &mut kept {
                let before_bytes = self.bytes_once(branch, before, held).await?;
                let next_bytes = self.bytes_once(branch, next, &mut bytes).await?;
                self.compare(branch, (before, before_bytes), (next, next_bytes))?;
            }
            kept.push((next, bytes));
        }
        Ok(())
    }

    async fn bytes_once(
        &self,
        branch: &Branch,
        stored: &StoredRange,
        held: &mut Option<Bytes>,
    ) -> Result<Bytes, RepositoryError> {
        if let Some(bytes) = held {
            return Ok(bytes.clone());
        }
        let (_, bytes) = self.range(branch, stored).await?;
        Ok(held.insert(bytes).clone())
    }

    fn compare(
        &self,
        branch: &Branch,
        (one, one_bytes): (&StoredRange, Bytes),
        (two, two_bytes): (&StoredRange, Bytes),
    ) -> Result<(), RepositoryError> {
        let Some(both) = shared(&one.name.range, &two.name.range) else {
            return Ok(());
        };
        let of = |stored: &StoredRange, bytes: &Bytes| {
            let begins = stored.name.range.from.0;
            bytes.slice((both.from.0 - begins) as usize..(both.to.0 - begins) as usize)
        };
        if of(one, &one_bytes) == of(two, &two_bytes) {
            return Ok(());
        }
        let key = |stored: &StoredRange| {
            let place = self.place.range(stored.level, branch, &stored.name);
            place.map(|place| place.key.to_string())
        };
        let (from, to) = (both.from, both.to);
        Err(RepositoryError::Differs {
            object: key(two)?,
            what: format!("{} holds other bytes between {from} and {to}", key(one)?),
        })
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
        while at.is_none_or(|at| at < stretch.to) {
            let wanted = at.unwrap_or(stretch.from);
            let Some(next) = reaching(live, wanted) else { break };
            let (index, bytes) = self.range(branch, next).await?;
            done.read += 1;
            let begins = at.unwrap_or(next.name.range.from);
            let fresh = bytes.slice((begins.0 - next.name.range.from.0) as usize..);
            writer.append(begins, fresh, index.facts)?;
            at = Some(next.name.range.to);
            self.store_settled(writer, file_size, Store::WhatIsFull, done)
                .await?;
        }
        self.store_settled(writer, file_size, Store::Everything, done)
            .await?;
        match writer.cut_index(Wanted::Everything)? {
            Some(index) => index.run().await,
            None => Ok(()),
        }
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

/// The positions that two ranges both hold.
fn shared(one: &LogRange, two: &LogRange) -> Option<LogRange> {
    let (from, to) = (one.from.max(two.from), one.to.min(two.to));
    (from < to).then_some(LogRange { from, to })
}

/// The live range that holds `position` and reaches furthest.
fn reaching(live: &[StoredRange], position: Position) -> Option<&StoredRange> {
    let holding = live
        .iter()
        .filter(|r| r.name.range.from <= position && position < r.name.range.to);
    holding.max_by_key(|r| r.name.range.to)
}
