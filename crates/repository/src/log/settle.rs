//! Settles: reads back live ranges that no settled range covers and writes them as settled ones.
//!
//! Promise: needs the store and the keys, never the source; never joins two lineages (LIN-1); where a range that is to
//! be settled overlaps any other, their bytes must be equal, else nothing is written and the error names both (LOG-2). Nothing
//! is written over damage: positions that no live range gives stay unsettled and are named. Running it twice, or twice at
//! once, only costs bytes.
//! Not here: when it runs (backstay-engine::jobs).

use super::copies::{Candidate, Selection};
use super::coverage::{StoredRange, missing, shared, stretches};
use super::index::Wanted;
use super::range::RangeIndex;
use super::store::LogStore;
use super::writer::{LogWriter, SETTLED_BYTES_MAX};
use crate::RepositoryError;
use crate::layout::Level;
use backstay_terms::{Branch, EpochId, LogRange, Position};
use bytes::Bytes;
use tracing::warn;

/// What settling did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Live ranges read back.
    pub read: u64,
    /// Settled ranges written.
    pub written: u64,
    /// Bytes of log settled.
    pub bytes: u64,
    /// What could not be settled.
    pub damaged: Vec<Damaged>,
}

/// Positions that no live range gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The positions.
    pub range: LogRange,
    /// What is wrong, with the name of the object.
    pub what: String,
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
        self.compare_overlaps(&ranges, &uncovered).await?;
        let live: Vec<StoredRange> = ranges.into_iter().filter(|r| r.level == Level::Live).collect();
        for stretch in uncovered {
            let mut rest = stretch;
            while let Some(lost) = self
                .settle_up_to_damage(branch, rest, &live, file_size, &mut done)
                .await?
            {
                rest.from = lost.range.to;
                done.damaged.push(lost);
            }
        }
        Ok(done)
    }

    /// LOG-2, before anything is written: every two ranges that overlap each other and `uncovered` hold equal bytes.
    /// Ranges that overlap nothing cost nothing here.
    async fn compare_overlaps(
        &self,
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
                let before_bytes = self.bytes_once(before, held).await?;
                let next_bytes = self.bytes_once(next, &mut bytes).await?;
                if let (Some(before_bytes), Some(next_bytes)) = (before_bytes, next_bytes) {
                    self.compare((before, before_bytes), (next, next_bytes))?;
                }
            }
            kept.push((next, bytes));
        }
        Ok(())
    }

    /// None if the range is damaged or its key lost: it contradicts nobody.
    async fn bytes_once(
        &self,
        stored: &StoredRange,
        held: &mut Option<Bytes>,
    ) -> Result<Option<Bytes>, RepositoryError> {
        if held.is_none() {
            match self.range(stored).await {
                Ok((_, bytes)) => *held = Some(bytes),
                Err(error) if error.is_damage() || error.is_about_keys() => {
                    warn!(branch = %stored.branch, %error, "a damaged range is compared with no other");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(held.clone())
    }

    fn compare(
        &self,
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
        let key = |stored: &StoredRange| self.place_of(stored).map(|place| place.key.to_string());
        let (from, to) = (both.from, both.to);
        Err(RepositoryError::Differs {
            object: key(two)?,
            what: format!("{} holds other bytes between {from} and {to}", key(one)?),
        })
    }

    /// Settles `wanted` from its beginning to its end, or to the first position that nobody gives, which is returned.
    async fn settle_up_to_damage(
        &self,
        branch: &Branch,
        wanted: LogRange,
        live: &[StoredRange],
        file_size: u64,
        done: &mut Settled,
    ) -> Result<Option<Damaged>, RepositoryError> {
        let mut at = wanted.from;
        let mut lost = None;
        let mut run: Option<LogWriter> = None;
        let mut from: Option<EpochId> = None;
        while at < wanted.to && lost.is_none() {
            let (next, index, bytes) = match self.next_live(live, at, from.as_ref()).await {
                Ok(found) => found,
                Err(RepositoryError::Unreadable { damage, .. }) => {
                    lost = Some(damaged(at, wanted.to, live, &damage));
                    continue;
                }
                Err(error) => return Err(error),
            };
            done.read += 1;
            let range = next.name.range;
            // What two epochs stored may turn out to be of two servers: each is copied by an epoch of its own.
            if from.as_ref() != Some(&next.name.epoch)
                && let Some(mut writer) = run.take()
            {
                self.end_settling(&mut writer, file_size, done).await?;
            }
            let begins = from.as_ref().map_or(range.from, |_| at);
            from = Some(next.name.epoch);
            let writer = match &mut run {
                Some(writer) => writer,
                None => run.insert(self.begin_settling(branch).await?),
            };
            writer.append(
                begins,
                bytes.slice((begins.0 - range.from.0) as usize..),
                index.facts,
            )?;
            at = range.to;
            self.store_settled(writer, file_size, Store::WhatIsFull, done)
                .await?;
        }
        if let Some(mut writer) = run {
            self.end_settling(&mut writer, file_size, done).await?;
        }
        Ok(lost)
    }

    /// The same of one epoch, as long as it has more.
    async fn next_live(
        &self,
        live: &[StoredRange],
        at: Position,
        of: Option<&EpochId>,
    ) -> Result<(StoredRange, RangeIndex, Bytes), RepositoryError> {
        let own = live.iter().filter(|stored| Some(&stored.name.epoch) == of);
        match self.live_at(&own.cloned().collect::<Vec<_>>(), at).await {
            Err(RepositoryError::Gap { .. } | RepositoryError::Unreadable { .. }) => {
                self.live_at(live, at).await
            }
            answer => answer,
        }
    }

    /// The live range that holds `at` and reaches furthest of those that can be read.
    async fn live_at(
        &self,
        live: &[StoredRange],
        at: Position,
    ) -> Result<(StoredRange, RangeIndex, Bytes), RepositoryError> {
        let wanted = LogRange {
            from: at,
            to: Position(at.0 + 1),
        };
        let holding = Candidate::of(live, wanted);
        let mut selection = Selection::new(wanted, holding).map_err(|gap| self.gap(gap))?;
        while let Some(choice) = selection.next_copy()? {
            match self.range(&choice.from).await {
                Ok((index, bytes)) => return Ok((choice.from, index, bytes)),
                Err(error) => selection.pass_over(&choice, error)?,
            }
        }
        Err(self.gap(wanted))
    }

    async fn begin_settling(&self, branch: &Branch) -> Result<LogWriter, RepositoryError> {
        let epoch = self.repository.new_id("settle")?;
        LogWriter::begin(&self.repository, self.place.clone(), *branch, epoch).await
    }

    async fn end_settling(
        &self,
        writer: &mut LogWriter,
        file_size: u64,
        done: &mut Settled,
    ) -> Result<(), RepositoryError> {
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

/// Nobody gives `at`: the next one who could give anything is a live range that begins later.
fn damaged(at: Position, until: Position, live: &[StoredRange], damage: &RepositoryError) -> Damaged {
    let later = live.iter().map(|r| r.name.range.from).filter(|from| *from > at);
    let to = later.min().map_or(until, |next| next.min(until));
    Damaged {
        range: LogRange { from: at, to },
        what: damage.to_string(),
    }
}
