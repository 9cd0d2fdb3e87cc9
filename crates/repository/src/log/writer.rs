//! Writes one branch of one source's log, in one epoch.
//!
//! Promise: pieces are contiguous; a `Durable` states only what is stored without a hole from the first piece on
//! (LOG-1); every byte is written to a settled range by this writer, or by settling later from live ranges (LOG-2).
//! The writer cuts and seals; the caller drives the uploads, so that reading never waits for the store.
//! Not here: when to cut (backstay-engine::jobs::stream), settling after a restart (log::settle).

use super::index::{Gathering, IndexLine, IndexUpload, Wanted};
use super::range::{RangeKeys, encode};
use crate::base::required;
use crate::layout::{EnvelopePlace, Level, LogPlace, Place, RangeName};
use crate::objects::on_worker;
use crate::{Repository, RepositoryError};
use backstay_codec::KeyClass;
use backstay_terms::{Branch, Durable, EpochId, LogFacts, LogMark, LogRange, Position};
use bytes::{Bytes, BytesMut};
use jiff::{SignedDuration, Timestamp};
use std::collections::VecDeque;

/// A log epoch's key seals nothing older than this (KEY-1).
pub const EPOCH_AGE_MAX: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A settled range holds at most this much.
pub const SETTLED_BYTES_MAX: u64 = 16 << 20;

/// A piece that is held in memory until a settled range with it is stored.
#[derive(Clone, Debug)]
struct Held {
    begins: Position,
    bytes: Bytes,
    facts: LogFacts,
}

impl Held {
    fn ends(&self) -> Position {
        Position(self.begins.0 + self.bytes.len() as u64)
    }
}

/// A range ready to be sealed and stored.
#[derive(Debug)]
pub struct Upload {
    repository: Repository,
    keys: RangeKeys,
    place: Place,
    branch: Branch,
    epoch: EpochId,
    born: Timestamp,
    level: Level,
    range: LogRange,
    facts: LogFacts,
    pieces: Vec<Bytes>,
    name: String,
}

/// A range that is stored. Only an upload that ended well makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// Its branch.
    pub branch: Branch,
    /// Its level.
    pub level: Level,
    /// Its positions.
    pub range: LogRange,
    /// The object's bytes.
    pub size: u64,
    line: Option<IndexLine>,
}

impl Upload {
    /// Seals and stores the range. The store's retries repeat the same bytes under the same name.
    pub async fn run(self) -> Result<Stored, RepositoryError> {
        refuse_if_old(&self.repository, &self.epoch, self.born)?;
        let Upload {
            repository,
            keys,
            place,
            branch,
            level,
            range,
            facts,
            pieces,
            name,
            ..
        } = self;
        let at = place.key.clone();
        let (object, index) = on_worker(move || encode(&place, &keys, facts, &concatenate(&pieces))).await?;
        let size = object.len() as u64;
        repository.put_once(&at, object).await?;
        let line = (level == Level::Settled).then(|| IndexLine::new(name, level, size, index));
        Ok(Stored {
            branch,
            level,
            range,
            size,
            line,
        })
    }

    /// The positions that it covers.
    pub fn range(&self) -> LogRange {
        self.range
    }
}

fn concatenate(pieces: &[Bytes]) -> Bytes {
    if let [one] = pieces {
        return one.clone();
    }
    let mut all = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| all.extend_from_slice(piece));
    all.freeze()
}

/// How far a writer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogWriterState {
    /// The end of what was appended.
    pub appended: Position,
    /// Everything before this is stored.
    pub durable: Position,
    /// The end of what live or settled uploads have been cut for.
    pub sent: Position,
    /// Everything before this is stored, or being stored, in settled ranges.
    pub settled: Position,
    /// Bytes held in memory.
    pub held: u64,
}

/// Writes a log.
#[derive(Debug)]
pub struct LogWriter {
    repository: Repository,
    place: LogPlace,
    branch: Branch,
    epoch: EpochId,
    born: Timestamp,
    keys: RangeKeys,
    number: u32,
    first: Option<Position>,
    appended: Position,
    sent: Position,
    settled_cut: Position,
    held: VecDeque<Held>,
    stored: Vec<LogRange>,
    durable: Position,
    gathering: Gathering,
}

impl LogWriter {
    /// Begins an epoch on a branch: its envelope is stored and opened again (KEY-2).
    pub async fn begin(
        repository: &Repository,
        place: LogPlace,
        branch: Branch,
        epoch: EpochId,
    ) -> Result<LogWriter, RepositoryError> {
        let envelope = EnvelopePlace::epoch(place.engine, &place.source, &epoch);
        let keys = repository
            .create_envelope(&envelope, &[KeyClass::Data, KeyClass::Facts])
            .await?;
        let keys = RangeKeys {
            data: required(&keys.data, "data")?,
            facts: required(&keys.facts, "facts")?,
        };
        let at = Position::default();
        Ok(LogWriter {
            born: repository.now(),
            repository: repository.clone(),
            place,
            branch,
            epoch,
            keys,
            number: 0,
            first: None,
            appended: at,
            sent: at,
            settled_cut: at,
            held: VecDeque::new(),
            stored: Vec::new(),
            durable: at,
            gathering: Gathering::default(),
        })
    }

    /// Continues the epoch on another branch, after a change of timeline. Everything must have been settled and be
    /// durable; uploads of the old branch that end later count for nothing here.
    pub fn switch_branch(&mut self, branch: Branch) -> Result<(), RepositoryError> {
        if self.settled_cut != self.appended || self.durable != self.appended {
            return Err(out_of_order(
                "the timeline changed before its log was settled and durable".into(),
            ));
        }
        let at = Position::default();
        (self.branch, self.first, self.stored) = (branch, None, Vec::new());
        (self.appended, self.sent, self.settled_cut, self.durable) = (at, at, at, at);
        self.held.clear();
        Ok(())
    }

    /// The branch being written.
    pub fn branch(&self) -> Branch {
        self.branch
    }

    /// The epoch.
    pub fn epoch(&self) -> &EpochId {
        &self.epoch
    }

    /// When the epoch's keys were made.
    pub fn born(&self) -> Timestamp {
        self.born
    }

    /// How far it is.
    pub fn state(&self) -> LogWriterState {
        let held = self.held.iter().map(|piece| piece.bytes.len() as u64).sum();
        let LogWriter {
            appended,
            durable,
            sent,
            settled_cut,
            ..
        } = *self;
        LogWriterState {
            appended,
            durable,
            sent,
            settled: settled_cut,
            held,
        }
    }

    /// Takes the next piece. The first one sets where this epoch begins; everything before it counts as durable.
    pub fn append(&mut self, begins: Position, bytes: Bytes, facts: LogFacts) -> Result<(), RepositoryError> {
        if self.first.is_none() {
            self.first = Some(begins);
            (self.appended, self.sent, self.settled_cut, self.durable) = (begins, begins, begins, begins);
        }
        if begins != self.appended {
            return Err(out_of_order(format!(
                "log bytes came at {begins} instead of {}",
                self.appended
            )));
        }
        let piece = Held { begins, bytes, facts };
        self.appended = piece.ends();
        self.held.push_back(piece);
        Ok(())
    }

    /// Cuts a live range of everything unsent, ending at a piece's end and not crossing a border of `file_size`.
    pub fn cut_live(
        &mut self,
        file_size: u64,
        mark: Option<LogMark>,
    ) -> Result<Option<Upload>, RepositoryError> {
        if self.sent == self.appended {
            return Ok(None);
        }
        let to = border_after(self.sent, file_size).min(self.appended);
        let upload = self.cut(Level::Live, LogRange { from: self.sent, to }, mark)?;
        self.sent = to;
        Ok(Some(upload))
    }

    /// Cuts a settled range of up to 16 MiB of what is unsettled, not crossing a border of `file_size`. A single piece
    /// that is longer becomes a range of its own.
    pub fn cut_settled(
        &mut self,
        file_size: u64,
        mark: Option<LogMark>,
    ) -> Result<Option<Upload>, RepositoryError> {
        if self.settled_cut == self.appended {
            return Ok(None);
        }
        let limit = Position(self.settled_cut.0.saturating_add(SETTLED_BYTES_MAX));
        let border = border_after(self.settled_cut, file_size).min(self.appended);
        let whole = |piece: &&Held| piece.begins >= self.settled_cut && piece.ends() <= border;
        let mut ends = self.held.iter().filter(whole).map(Held::ends);
        let Some(first) = ends.next() else {
            return Err(out_of_order(
                "one piece of log crosses the border of a file".into(),
            ));
        };
        let to = ends.take_while(|end| *end <= limit).last().unwrap_or(first);
        let upload = self.cut(
            Level::Settled,
            LogRange {
                from: self.settled_cut,
                to,
            },
            mark,
        )?;
        self.settled_cut = to;
        self.sent = self.sent.max(to);
        Ok(Some(upload))
    }

    /// How many bytes `cut_settled` could settle up to the next border of `file_size`.
    pub fn unsettled(&self) -> u64 {
        self.appended.0 - self.settled_cut.0
    }

    /// Cuts a time mark: everything before it must be durable (LOG-3).
    pub fn cut_mark(&mut self, mark: LogMark) -> Result<Upload, RepositoryError> {
        if self.first.is_some() && mark.position != self.durable {
            let what = format!(
                "a mark at {} was offered while {} is durable",
                mark.position, self.durable
            );
            return Err(out_of_order(what));
        }
        self.cut(
            Level::Live,
            LogRange {
                from: mark.position,
                to: mark.position,
            },
            Some(mark),
        )
    }

    /// Records that an upload is stored; says what is durable now.
    pub fn complete(&mut self, stored: &Stored) -> Durable {
        if stored.branch != self.branch {
            return self.durable();
        }
        if let Some(line) = &stored.line {
            self.gathering.add(line.clone(), self.repository.now());
        }
        if !stored.range.is_mark() {
            self.stored.push(stored.range);
            self.advance_durable();
        }
        if stored.level == Level::Settled {
            self.forget_settled();
        }
        Durable::attest(self.durable)
    }

    /// Cuts the log index of an hour that is over, or of everything gathered.
    pub fn cut_index(&mut self, wanted: Wanted) -> Result<Option<IndexUpload>, RepositoryError> {
        let Some((hour, lines)) = self.gathering.take(self.repository.now(), wanted) else {
            return Ok(None);
        };
        let place = self.place.index(&self.branch, &hour, &self.epoch)?;
        let (repository, key) = (self.repository.clone(), self.keys.facts.clone());
        Ok(Some(IndexUpload {
            repository,
            place,
            key,
            lines,
        }))
    }

    /// What is durable now.
    pub fn durable(&self) -> Durable {
        Durable::attest(self.durable)
    }

    fn advance_durable(&mut self) {
        let durable = &mut self.durable;
        loop {
            let reaching = self
                .stored
                .iter()
                .filter(|range| range.from <= *durable)
                .map(|range| range.to)
                .max();
            match reaching {
                Some(to) if to > *durable => *durable = to,
                _ => break,
            }
        }
        self.stored.retain(|range| range.to > self.durable);
    }

    // A piece may be forgotten when it is settled *and* durable. A failed upload ends the epoch: what live ranges hold of
    // it is settled from the store, what they do not hold was never durable and is read again from the source.
    fn forget_settled(&mut self) {
        let limit = self.settled_cut.min(self.durable);
        while self.held.front().is_some_and(|piece| piece.ends() <= limit) {
            self.held.pop_front();
        }
    }

    fn cut(
        &mut self,
        level: Level,
        range: LogRange,
        mark: Option<LogMark>,
    ) -> Result<Upload, RepositoryError> {
        refuse_if_old(&self.repository, &self.epoch, self.born)?;
        let inside =
            |piece: &&Held| piece.begins >= range.from && piece.ends() <= range.to && !range.is_mark();
        let pieces: Vec<&Held> = self.held.iter().filter(inside).collect();
        let facts = pieces.iter().fold(LogFacts::default(), |facts, piece| {
            facts.join(piece.facts.clone())
        });
        // A mark travels with the range that ends where it stands.
        let mark = mark.filter(|mark| mark.position == range.to);
        let facts = facts.join(LogFacts {
            mark,
            ..LogFacts::default()
        });
        let pieces: Vec<Bytes> = pieces.iter().map(|piece| piece.bytes.clone()).collect();
        let length: usize = pieces.iter().map(Bytes::len).sum();
        if length as u64 != range.length() {
            return Err(out_of_order(format!(
                "{length} bytes are held for a range of {}",
                range.length()
            )));
        }
        let name = RangeName {
            range,
            epoch: self.epoch.clone(),
            number: self.number,
        };
        self.number += 1;
        let place = self.place.range(level, &self.branch, &name)?;
        let (repository, keys) = (self.repository.clone(), self.keys.clone());
        Ok(Upload {
            repository,
            keys,
            place,
            branch: self.branch,
            epoch: self.epoch.clone(),
            born: self.born,
            level,
            range,
            facts,
            pieces,
            name: name.to_string(),
        })
    }
}

/// KEY-1, asked when a range is cut and again when it is sealed: an upload may have waited.
fn refuse_if_old(repository: &Repository, epoch: &EpochId, born: Timestamp) -> Result<(), RepositoryError> {
    if repository.now().duration_since(born) <= EPOCH_AGE_MAX {
        return Ok(());
    }
    let what = format!("log epoch {epoch} is older than 7 days; its keys must seal nothing more");
    Err(RepositoryError::KeyTooOld { what })
}

/// The first border of files of this size after `position`.
fn border_after(position: Position, file_size: u64) -> Position {
    Position((position.0 / file_size + 1).saturating_mul(file_size))
}

fn out_of_order(what: String) -> RepositoryError {
    RepositoryError::OutOfOrder { what }
}
