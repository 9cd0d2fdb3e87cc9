//! Reads a source's log: what is stored, what is known about it, and its bytes.
//!
//! Promise: bytes are given only whole and checked; a position that is not stored is an error that names the gap.
//! Not here: choosing a base or a target (backstay-engine::plan).

use super::copies::{Candidate, Selection};
use super::coverage::{RangesSeen, StoredRange, stretches};
use super::hidden::{HiddenRecord, KnownLineages, STREAMED, hidden};
use super::lineage::{Known, LineageRecord, frontier, history_digest};
use super::listing::{AgedRange, BranchObjects};
use super::moves::{MOVE, Moves};
use super::order::oldest_first;
use super::range::{RangeBytes, RangeIndex, decode_index, index_length};
use crate::inventory::StoredObject;
use crate::layout::{EnvelopePlace, Level, LogPlace, Place, month};
use crate::objects::{Opened, REQUEST, Window};
use crate::{Repository, RepositoryError};
use backstay_codec::{HEADER_LENGTH, Header, Kind, Opener, SEALED_CHUNK, SecretKey};
use backstay_store::{Key, list_all};
use backstay_terms::{Branch, EngineKind, EpochId, LogRange, Position, RecordId, SourceName};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tracing::warn;

/// A range spans at most this many positions, so listing from a position begins this much before it.
pub const SPAN_MAX: u64 = 256 << 20;

/// How much of a range is fetched at first to read its index.
const INDEX_FIRST_BYTES: u64 = 4 << 10;

/// A lineage record that is there and cannot be opened.
#[derive(Clone, Debug)]
pub struct UnreadableRecord {
    /// Its id, which tells when it was written.
    pub id: RecordId,
    /// The object.
    pub object: StoredObject,
    /// Why it cannot be opened.
    pub why: Arc<RepositoryError>,
}

/// The lineage records of a source.
#[derive(Clone, Debug, Default)]
pub struct RecordsSeen {
    /// Those that open, oldest first.
    pub records: Vec<LineageRecord>,
    /// The others, oldest first.
    pub unreadable: Vec<UnreadableRecord>,
}

/// The log of one source.
#[derive(Clone, Debug)]
pub struct LogStore {
    pub(crate) repository: Repository,
    pub(crate) place: LogPlace,
    /// Records that move epochs never change: each is opened once.
    moved: Arc<Mutex<BTreeMap<RecordId, LineageRecord>>>,
}

impl LogStore {
    /// The log of this source.
    pub fn new(repository: &Repository, engine: EngineKind, source: &SourceName) -> LogStore {
        LogStore {
            repository: repository.clone(),
            place: LogPlace {
                engine,
                source: source.clone(),
            },
            moved: Arc::default(),
        }
    }

    /// The repository that holds it.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Where its objects lie.
    pub fn place(&self) -> &LogPlace {
        &self.place
    }

    /// Opens the keys of an epoch.
    ///
    /// # Errors
    /// `NoKey` if no configured key does.
    pub async fn open_epoch(&self, epoch: &EpochId) -> Result<(), RepositoryError> {
        let envelope = EnvelopePlace::epoch(self.place.engine, &self.place.source, epoch);
        self.repository.open_envelope(&envelope).await.map(drop)
    }

    /// What is stored of a lineage, at all levels, from a position on (all if none is given), by position. An object that is
    /// too small to be a range counts as not stored.
    pub async fn ranges(
        &self,
        branch: &Branch,
        from: Option<Position>,
    ) -> Result<Vec<StoredRange>, RepositoryError> {
        Ok(self.ranges_seen(branch, from).await?.ranges)
    }

    /// The same, with the objects that are too small.
    pub async fn ranges_seen(
        &self,
        branch: &Branch,
        from: Option<Position>,
    ) -> Result<RangesSeen, RepositoryError> {
        let (BranchObjects { ranges, cut, .. }, _) = self.listed_since(branch, from).await?;
        let stored = |aged: Vec<AgedRange>| aged.into_iter().map(|range| range.stored).collect();
        Ok(RangesSeen {
            ranges: stored(ranges),
            cut: stored(cut),
        })
    }

    /// Which epochs were moved to another lineage than the one they stored under. A record of it that cannot be opened is
    /// passed over, loudly: who reads bytes compares those that two epochs hold, and settling finds out again.
    pub async fn moves(&self) -> Result<Moves, RepositoryError> {
        let mut records = Vec::new();
        for (id, _) in self.record_names().await?.0 {
            if id.kind() != MOVE {
                continue;
            }
            match self.moving_record(&id).await {
                Ok(record) => records.push(record),
                Err(error) if error.is_about_the_object() => {
                    warn!(source = %self.place.source, %error, "a record that moves log cannot be opened; see: backstay verify");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Moves::of(&oldest_first(records)))
    }

    async fn moving_record(&self, id: &RecordId) -> Result<LineageRecord, RepositoryError> {
        let known = || self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = known().get(id) {
            return Ok(record.clone());
        }
        let record = self.record(id).await?;
        known().insert(id.clone(), record.clone());
        Ok(record)
    }

    pub(super) fn place_of(&self, stored: &StoredRange) -> Result<Place, RepositoryError> {
        self.place.range(stored.level, &stored.branch, &stored.name)
    }

    /// The name of some range of this source, whatever its branch; none if nothing of its log is stored.
    pub async fn any_range(&self) -> Result<Option<Key>, RepositoryError> {
        for level in Level::ALL {
            let prefix = self.place.ranges_prefix(level, None)?;
            let page = self.repository.store().list_page(&prefix, None, 1).await?;
            if let Some(object) = page.objects.into_iter().next() {
                return Ok(Some(object.key));
            }
        }
        Ok(None)
    }

    /// The index part of a range.
    pub async fn index_of(&self, stored: &StoredRange) -> Result<RangeIndex, RepositoryError> {
        let place = self.place_of(stored)?;
        let store = self.repository.store();
        let first = store
            .get_range(&place.key, 0..stored.size.min(INDEX_FIRST_BYTES))
            .await?;
        let length = index_length(&place, &first)?;
        if length > stored.size {
            let what = "its index claims to be longer than the object is";
            return Err(RepositoryError::malformed(&place.key, what));
        }
        let container = if length <= first.len() as u64 {
            first
        } else {
            store.get_range(&place.key, 0..length).await?
        };
        self.open_index(&place, stored, &container).await
    }

    /// The index and the bytes of a range.
    pub async fn range(&self, stored: &StoredRange) -> Result<(RangeIndex, Bytes), RepositoryError> {
        let mut bytes = Vec::with_capacity(stored.name.range.length().min(SPAN_MAX) as usize);
        let take = |_, part: &[u8]| {
            bytes.extend_from_slice(part);
            Ok::<_, RepositoryError>(())
        };
        let index = self.read_range(stored, take).await?;
        Ok((index, Bytes::from(bytes)))
    }

    /// The same, frame by frame: what was given counts only when there is no error.
    async fn read_range<E: From<RepositoryError>>(
        &self,
        stored: &StoredRange,
        mut take: impl FnMut(Position, &[u8]) -> Result<(), E>,
    ) -> Result<RangeIndex, E> {
        let (index, window) = self.open_range(stored).await?;
        let range = stored.name.range;
        let mut bytes = RangeBytes::new(window, &index, range)?;
        while let Some((begins, frame)) = bytes.next_frame(self.repository.store()).await? {
            take(Position(range.from.0 + begins), frame)?;
            // A frame is little work, a range is much: others come in between.
            tokio::task::yield_now().await;
        }
        Ok(index)
    }

    async fn open_range(&self, stored: &StoredRange) -> Result<(RangeIndex, Window), RepositoryError> {
        let place = self.place_of(stored)?;
        let store = self.repository.store();
        let mut first = store.get_range(&place.key, 0..stored.size.min(REQUEST)).await?;
        let offset = index_length(&place, &first)?;
        if offset + HEADER_LENGTH as u64 > first.len() as u64 {
            // A long index, or an object that is shorter than its index says.
            first = store.get(&place.key).await?;
        }
        let index = self.open_index(&place, stored, &first).await?;
        let data = first.slice((offset as usize).min(first.len())..);
        let key = self.key_for(Kind::RangeData, &place, stored, &data).await?;
        let found = stored.size.saturating_sub(offset);
        let opener = Opener::of_beginning(Kind::RangeData, &key, &place.logical, &data, found);
        let opener = opener.map_err(|source| RepositoryError::Sealed {
            key: place.key.to_string(),
            source,
        })?;
        let sealed = whole_chunks(
            data.slice(HEADER_LENGTH.min(data.len())..),
            found - HEADER_LENGTH as u64,
        );
        let data = Opened {
            place,
            offset,
            opener,
        };
        Ok((index, Window::beginning_with(data, sealed)))
    }

    /// The bytes of a branch in `wanted`, one copy of each position.
    pub async fn read(&self, branch: &Branch, wanted: LogRange) -> Result<Vec<u8>, RepositoryError> {
        let stored = self.ranges(branch, Some(wanted.from)).await?;
        self.read_from(wanted, &stored).await
    }

    /// The same, from ranges that the caller has listed.
    pub async fn read_from(
        &self,
        wanted: LogRange,
        stored: &[StoredRange],
    ) -> Result<Vec<u8>, RepositoryError> {
        let mut bytes = vec![0; wanted.length() as usize];
        let take = |begins: Position, part: &[u8]| {
            put(&mut bytes, begins.0 - wanted.from.0, part);
            Ok::<_, RepositoryError>(())
        };
        self.read_copies(wanted, Candidate::of(stored, wanted), take)
            .await?;
        Ok(bytes)
    }

    /// The same, from whatever may give it and part by part: a damaged copy is passed over where another one holds its
    /// positions, and what it had given is given again.
    pub async fn read_copies<E: From<RepositoryError>>(
        &self,
        wanted: LogRange,
        candidates: Vec<Candidate>,
        mut take: impl FnMut(Position, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.refuse_two_servers(wanted, &candidates).await?;
        let mut selection = Selection::new(wanted, candidates).map_err(|gap| self.gap(gap))?;
        while let Some(choice) = selection.next_copy()? {
            // Errors of `take` go out, those of reading are the copy's.
            let mut refused = None;
            let read = self.read_range(&choice.from, |begins, frame| {
                let Some((begins, part)) = choice.part(begins, frame) else {
                    return Ok(());
                };
                take(begins, part).map_err(|error| {
                    refused = Some(error);
                    RepositoryError::OutOfOrder {
                        what: "what was read was refused".into(),
                    }
                })
            });
            let read = read.await;
            if let Some(error) = refused {
                return Err(error);
            }
            match read {
                Ok(_) => selection.taken(&choice),
                Err(error) => selection.pass_over(&choice, error)?,
            }
        }
        Ok(())
    }

    /// An error that names a gap.
    pub fn gap(&self, gap: LogRange) -> RepositoryError {
        RepositoryError::Gap {
            source_name: self.place.source.to_string(),
            from: gap.from,
            to: gap.to,
        }
    }

    async fn open_index(
        &self,
        place: &Place,
        stored: &StoredRange,
        object: &[u8],
    ) -> Result<RangeIndex, RepositoryError> {
        let key = self.key_for(Kind::RangeIndex, place, stored, object).await?;
        let length = index_length(place, object)? as usize;
        decode_index(place, &key, object.get(..length).unwrap_or(object))
    }

    async fn key_for(
        &self,
        kind: Kind,
        place: &Place,
        stored: &StoredRange,
        container: &[u8],
    ) -> Result<SecretKey, RepositoryError> {
        let sealed = |source| RepositoryError::Sealed {
            key: place.key.to_string(),
            source,
        };
        let header = Header::read(container, &place.logical).map_err(sealed)?;
        let envelope = EnvelopePlace::epoch(self.place.engine, &self.place.source, &stored.name.epoch);
        self.repository
            .key_with_id(header.key_id(), kind.key_class(), &envelope, &place.key)
            .await
    }
}

/// Lineage records and history files.
impl LogStore {
    /// Every lineage record that says something of its branch, oldest first: within a lineage by its positions, between lineages by the clocks of the writers.
    pub async fn records(&self) -> Result<Vec<LineageRecord>, RepositoryError> {
        let mut records = Vec::new();
        for (id, _) in self.record_names().await?.0 {
            records.push(self.record(&id).await?);
        }
        let records = oldest_first(records);
        Ok(Moves::of(&records).without_moved(records))
    }

    /// Every lineage record, and those that cannot be opened.
    pub async fn records_seen(&self) -> Result<RecordsSeen, RepositoryError> {
        let mut seen = self.every_record().await?;
        seen.records = Moves::of(&seen.records).without_moved(seen.records);
        Ok(seen)
    }

    /// Also those of attachments whose epoch was moved out of their branch.
    pub(super) async fn every_record(&self) -> Result<RecordsSeen, RepositoryError> {
        let mut seen = RecordsSeen::default();
        for (id, object) in self.record_names().await?.0 {
            match self.record(&id).await {
                Ok(record) => seen.records.push(record),
                Err(error) if error.is_about_the_object() => {
                    let why = Arc::new(error);
                    seen.unreadable.push(UnreadableRecord { id, object, why });
                }
                Err(error) => return Err(error),
            }
        }
        seen.records = oldest_first(seen.records);
        Ok(seen)
    }

    /// Stores a lineage record.
    pub async fn put_record(&self, record: &LineageRecord) -> Result<(), RepositoryError> {
        let json = serde_json::to_vec(record).map_err(RepositoryError::encoding)?;
        self.repository
            .put_fact(self.place.lineage(&record.id)?, Kind::LineageRecord, json)
            .await
    }

    /// Every lineage with how far it is stored, oldest record first; a branch appears once, with its newest record. Records
    /// that cannot be opened are passed over, loudly.
    pub async fn known(&self) -> Result<Vec<Known>, RepositoryError> {
        Ok(self.known_lineages().await?.known)
    }

    /// The same, with the records that were passed over.
    ///
    /// # Errors
    /// The refusal of the configured keys, if they open no record and no month of facts.
    pub async fn known_lineages(&self) -> Result<KnownLineages, RepositoryError> {
        let (records, hidden) = self.records_and_hidden().await?;
        let known = self.known_of(&records).await?;
        Ok(KnownLineages { known, hidden })
    }

    /// Every lineage record that says something of its branch, oldest first, and those that cannot be opened, with a warning
    /// of each.
    ///
    /// # Errors
    /// As `known_lineages`.
    pub async fn records_and_hidden(
        &self,
    ) -> Result<(Vec<LineageRecord>, Vec<HiddenRecord>), RepositoryError> {
        let RecordsSeen {
            records: every,
            unreadable,
        } = self.every_record().await?;
        let records = Moves::of(&every).without_moved(every.clone());
        if unreadable.is_empty() {
            return Ok((records, Vec::new()));
        }
        if records.is_empty() {
            self.repository.refuse_strange_keys().await?;
        }
        for UnreadableRecord { object, why, .. } in &unreadable {
            let (source, object) = (&self.place.source, &object.name);
            warn!(
                %source, object, error = %why,
                "a lineage record cannot be opened and is passed over; see: backstay verify"
            );
        }
        let hidden = hidden(unreadable, &every, &self.branches(&mut Vec::new()).await?);
        Ok((records, hidden))
    }

    async fn known_of(&self, records: &[LineageRecord]) -> Result<Vec<Known>, RepositoryError> {
        let mut newest: Vec<&LineageRecord> = Vec::new();
        for record in records {
            newest.retain(|known| known.branch != record.branch);
            newest.push(record);
        }
        let mut known = Vec::new();
        for record in newest {
            let ranges = self.ranges(&record.branch, None).await?;
            let stretches = stretches(ranges.iter().map(|r| &r.name.range));
            let of_branch: Vec<_> = records.iter().filter(|r| r.branch == record.branch).collect();
            let frontier = frontier(&of_branch, &stretches);
            known.push(Known {
                record: record.clone(),
                frontier,
                last: frontier.and_then(|frontier| last_epoch(&ranges, frontier)),
                reach: stretches.last().map(|stretch| stretch.to),
            });
        }
        Ok(known)
    }

    /// Stores a history file unless it is there.
    pub async fn put_history(
        &self,
        system: u64,
        timeline: u32,
        content: &[u8],
    ) -> Result<(), RepositoryError> {
        let place = self.place.history(system, timeline, &history_digest(content))?;
        let listed = list_all(self.repository.store(), &(&place.key).into(), None).await?;
        if !listed.is_empty() {
            return Ok(());
        }
        let stored = self
            .repository
            .put_fact(place.clone(), Kind::History, content.to_vec())
            .await;
        match stored {
            // Its name follows from its content: another process that stored it at this moment sealed the same bytes.
            Err(RepositoryError::Differs { .. }) if self.history_holds(&place, content).await? => Ok(()),
            answer => answer,
        }
    }

    async fn history_holds(&self, place: &Place, content: &[u8]) -> Result<bool, RepositoryError> {
        let month = month(self.repository.now());
        let stored = self
            .repository
            .get_fact_of_any_month(place, Kind::History, &month)
            .await?;
        Ok(stored == content)
    }
}

/// The epoch of a range that ends there; of a stream rather than of one that settled.
fn last_epoch(ranges: &[StoredRange], frontier: Position) -> Option<EpochId> {
    let ends = |stored: &&StoredRange| !stored.name.range.is_mark() && stored.name.range.to == frontier;
    let epochs = ranges.iter().filter(ends).map(|stored| &stored.name.epoch);
    epochs
        .max_by_key(|epoch| (epoch.kind() == STREAMED, *epoch))
        .cloned()
}

/// Copies `part` to its place in `bytes`.
fn put(bytes: &mut [u8], at: u64, part: &[u8]) {
    if let Some(place) = bytes.get_mut(at as usize..at as usize + part.len()) {
        place.copy_from_slice(part);
    }
}

/// The whole chunks at the beginning of `sealed`, of a container that has `all` bytes of them.
fn whole_chunks(mut sealed: Bytes, all: u64) -> Bytes {
    if (sealed.len() as u64) < all {
        sealed.truncate(sealed.len() / SEALED_CHUNK * SEALED_CHUNK);
    }
    sealed
}
