//! Fills frames with the bytes of entries and compresses them on worker threads.
//!
//! Promise: extents name the frame that truly holds their bytes; compressed frames come out in the order of their
//! numbers; at most `IN_WORK_MAX` frames are in work, so memory is bounded.
//! Not here: packs (base::packs).

use super::tables::Extent;
use crate::RepositoryError;
use backstay_codec::{Compressor, Decompressor, FRAME_PLAINTEXT};
use std::collections::VecDeque;
use tokio::task::JoinHandle;

/// Frames that may be compressed or wait for their turn at the same time.
const IN_WORK_MAX: usize = 8;

/// One frame in so many is decompressed again and compared before it is stored.
const PROVEN_ONE_IN: u32 = 16;

/// The zstd level of everything that Backstay writes.
pub(crate) const LEVEL: i32 = 1;

/// A compressed frame.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Its plain length.
    pub plain: u32,
    /// The zstd frame.
    pub compressed: Vec<u8>,
}

/// Cuts the stream of bytes into frames.
#[derive(Debug, Default)]
pub(crate) struct FrameFiller {
    filling: Vec<u8>,
    number: u32,
    in_work: VecDeque<JoinHandle<Result<Frame, RepositoryError>>>,
}

impl FrameFiller {
    /// Takes bytes of an entry; returns where they went. Call `next_done` while it returns frames.
    pub fn append(&mut self, entry: u32, offset: u64, bytes: &[u8]) -> Vec<Extent> {
        let mut extents = Vec::with_capacity(1 + bytes.len() / FRAME_PLAINTEXT);
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let room = FRAME_PLAINTEXT - self.filling.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            let skip = self.filling.len() as u32;
            extents.push(Extent {
                entry,
                frame: self.number,
                skip,
                length: now.len() as u32,
                offset: at,
            });
            self.filling.extend_from_slice(now);
            at += now.len() as u64;
            rest = later;
            if self.filling.len() == FRAME_PLAINTEXT {
                self.close_frame();
            }
        }
        extents
    }

    /// Closes the frame that is being filled.
    pub fn close_frame(&mut self) {
        if self.filling.is_empty() {
            return;
        }
        let plain = std::mem::replace(&mut self.filling, Vec::with_capacity(FRAME_PLAINTEXT));
        let number = self.number;
        self.number += 1;
        self.in_work
            .push_back(tokio::task::spawn_blocking(move || compress(number, &plain)));
    }

    /// The next compressed frame, if one must be taken to keep memory bounded.
    pub async fn next_over_bound(&mut self) -> Result<Option<Frame>, RepositoryError> {
        if self.in_work.len() <= IN_WORK_MAX {
            return Ok(None);
        }
        self.next().await
    }

    /// The next compressed frame; none when all are out.
    pub async fn next(&mut self) -> Result<Option<Frame>, RepositoryError> {
        match self.in_work.pop_front() {
            None => Ok(None),
            Some(work) => joined(work.await).map(Some),
        }
    }
}

/// What a worker thread answered; a panic there becomes an error here.
pub(crate) fn joined<T>(
    answer: Result<Result<T, RepositoryError>, tokio::task::JoinError>,
) -> Result<T, RepositoryError> {
    answer.unwrap_or_else(|e| {
        Err(RepositoryError::OutOfOrder {
            what: format!("a worker thread failed: {e}"),
        })
    })
}

fn compress(number: u32, plain: &[u8]) -> Result<Frame, RepositoryError> {
    let compressed = Compressor::new(LEVEL)
        .and_then(|mut c| c.compress(plain))
        .map_err(RepositoryError::encoding)?;
    if number.is_multiple_of(PROVEN_ONE_IN) {
        let again = Decompressor::new().and_then(|mut d| d.decompress(&compressed, plain.len()));
        if again.map_err(RepositoryError::encoding)? != plain {
            let what = format!(
                "frame {number} does not decompress to what was compressed: memory or zstd is faulty"
            );
            return Err(RepositoryError::Unencodable { what });
        }
    }
    Ok(Frame {
        plain: plain.len() as u32,
        compressed,
    })
}
