//! Reads a container from its beginning to its end, or what of it is wanted, without holding it.
//!
//! Promise: holds one request and a few opened chunks; every chunk is authenticated before a byte of it is given out, and
//! none is fetched or opened twice on the way forward.
//! Not here: what the plaintext means.

use crate::RepositoryError;
use crate::layout::Place;
use backstay_codec::{CHUNK, Opener, SEALED_CHUNK, UnsealError};
use backstay_store::{Key, Store};
use bytes::{Buf, Bytes};
use std::ops::Range;

/// Bytes of plaintext in one request. An allocator keeps what was freed for each thread that ever held one, so a restore
/// with many workers pays for this many times over (measured: docs/benchmarks.md).
pub(crate) const REQUEST: u64 = 512 << 10;

/// A container whose chunks can be opened.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The object that it lies in.
    pub place: Place,
    /// Where in it.
    pub offset: u64,
    /// Its key and its length.
    pub opener: Opener,
}

impl Opened {
    fn length(&self) -> u64 {
        self.opener.plaintext_length()
    }

    /// The sealed chunks that hold these bytes of the plaintext.
    pub async fn fetch(&self, store: &dyn Store, plain: Range<u64>) -> Result<Bytes, RepositoryError> {
        let chunks = self.opener.sealed_range(plain);
        let chunks = self.offset + chunks.start..self.offset + chunks.end;
        let sealed = store.get_range(&self.place.key, chunks).await;
        sealed.map_err(RepositoryError::of_named)
    }

    /// An error of opening it.
    pub fn sealed(&self, source: UnsealError) -> RepositoryError {
        RepositoryError::Sealed {
            key: self.place.key.to_string(),
            source,
        }
    }
}

/// A place in the plaintext of a container that moves on.
#[derive(Debug)]
pub(crate) struct Window {
    container: Opened,
    /// Whole sealed chunks that were fetched and not opened; they follow what is opened.
    sealed: Bytes,
    /// What is opened and may still be wanted. It ends at a chunk's border or with the pack.
    opened: Vec<u8>,
    /// Where that begins.
    begins: u64,
}

impl Window {
    pub fn of(container: Opened) -> Window {
        Window::beginning_with(container, Bytes::new())
    }

    /// With sealed chunks that were fetched already, from the first one on.
    pub fn beginning_with(container: Opened, sealed: Bytes) -> Window {
        Window {
            container,
            sealed,
            opened: Vec::new(),
            begins: 0,
        }
    }

    /// The object that it lies in.
    pub fn key(&self) -> &Key {
        &self.container.place.key
    }

    /// Whether the plaintext ends here.
    pub fn ends_at(&self, position: u64) -> bool {
        position == self.container.length()
    }

    /// Opens the one chunk of an empty container: nothing else would look at it.
    pub async fn prove_empty(&mut self, store: &dyn Store) -> Result<(), RepositoryError> {
        if self.container.length() > 0 {
            return Ok(());
        }
        if self.sealed.is_empty() {
            self.sealed = self.container.fetch(store, 0..0).await?;
        }
        let opened = self.container.opener.open_chunks(0, &self.sealed);
        opened.map(drop).map_err(|source| self.container.sealed(source))
    }

    fn ends(&self) -> u64 {
        self.begins + self.opened.len() as u64
    }

    /// These bytes of the plaintext.
    pub async fn reach(&mut self, store: &dyn Store, wanted: Range<u64>) -> Result<&[u8], RepositoryError> {
        if wanted.end > self.container.length() {
            let what = "a part lies beyond its end";
            return Err(RepositoryError::malformed(&self.container.place.key, what));
        }
        self.move_to(wanted.start);
        while self.ends() < wanted.end {
            if self.sealed.is_empty() {
                let next = self.ends()..(self.ends() + REQUEST).min(self.container.length());
                self.sealed = self.container.fetch(store, next).await?;
            }
            self.open_up_to(wanted.end)?;
        }
        let (from, to) = (wanted.start - self.begins, wanted.end - self.begins);
        Ok(self.opened.get(from as usize..to as usize).unwrap_or_default())
    }

    /// Forgets what lies before `start`; what was fetched and lies after it is kept.
    fn move_to(&mut self, start: u64) {
        if (self.begins..self.ends()).contains(&start) {
            self.opened.drain(..(start - self.begins) as usize);
            self.begins = start;
            return;
        }
        let chunk = start / CHUNK as u64 * CHUNK as u64;
        let ahead = start
            .checked_sub(self.ends())
            .map(|_| chunk.saturating_sub(self.ends()) / CHUNK as u64);
        let skipped = ahead.map(|chunks| chunks as usize * SEALED_CHUNK);
        match skipped.filter(|bytes| *bytes <= self.sealed.len()) {
            Some(bytes) => self.sealed.advance(bytes),
            None => self.sealed.clear(),
        }
        self.opened.clear();
        self.begins = chunk;
    }

    /// Opens fetched chunks, up to the one that holds the byte before `end`.
    fn open_up_to(&mut self, end: u64) -> Result<(), RepositoryError> {
        let chunks = (end - self.ends()).div_ceil(CHUNK as u64) as usize;
        let now = self
            .sealed
            .split_to((chunks * SEALED_CHUNK).min(self.sealed.len()));
        let first = self.ends() / CHUNK as u64;
        let opened = self
            .container
            .opener
            .open_chunks_onto(first, &now, &mut self.opened);
        opened.map_err(|source| {
            self.sealed.clear();
            self.container.sealed(source)
        })
    }
}
