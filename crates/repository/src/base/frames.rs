//! Fills frames with the bytes of entries and compresses them on worker threads.
//!
//! Promise: extents name the frame that truly holds their bytes; compressed frames come out in the order of their
//! numbers; at most `IN_WORK_MAX` frames are in work, by at most `WORKERS_MAX` threads, so memory is bounded.
//! Not here: packs (base::packs).

use super::tables::Extent;
use crate::RepositoryError;
use backstay_codec::{Compressor, Decompressor, FRAME_PLAINTEXT};
use std::collections::VecDeque;
use std::sync::mpsc;
use tokio::sync::oneshot;

/// Frames that may be compressed or wait for their turn at the same time.
const IN_WORK_MAX: usize = 6;

/// Threads that compress: more than one source can feed.
const WORKERS_MAX: usize = 4;

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

/// A frame to compress.
#[derive(Debug)]
struct Job {
    number: u32,
    plain: Vec<u8>,
    answer: oneshot::Sender<Answer>,
}

/// The frame, and the emptied buffer to fill again.
type Answer = Result<(Frame, Vec<u8>), RepositoryError>;

/// Cuts the stream of bytes into frames.
#[derive(Debug, Default)]
pub(crate) struct FrameFiller {
    filling: Vec<u8>,
    number: u32,
    /// Each has a thread behind it, which ends when this does. One task per frame would be simpler, but then tokio
    /// starts a thread for many of them (38 when measured), each with memory of its own.
    workers: Vec<mpsc::Sender<Job>>,
    in_work: VecDeque<oneshot::Receiver<Answer>>,
    idle: Vec<Vec<u8>>,
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
        let empty = self.idle.pop().unwrap_or_default();
        let plain = std::mem::replace(&mut self.filling, empty);
        let (answer, answered) = oneshot::channel();
        let number = self.number;
        self.number += 1;
        let job = Job {
            number,
            plain,
            answer,
        };
        // Refused only by a thread that panicked: then the answer never comes, and `next` says so.
        let _ = self.worker().send(job);
        self.in_work.push_back(answered);
    }

    /// Whose turn it is. Frames cost about the same, so nobody waits long behind another.
    fn worker(&mut self) -> &mpsc::Sender<Job> {
        if self.workers.is_empty() {
            self.workers = (0..worker_count()).map(|_| start_worker()).collect();
        }
        &self.workers[self.number as usize % self.workers.len()]
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
        let Some(work) = self.in_work.pop_front() else {
            return Ok(None);
        };
        let failed = |_| RepositoryError::OutOfOrder {
            what: "a thread that compresses failed".to_owned(),
        };
        let (frame, empty) = work.await.map_err(failed)??;
        self.idle.push(empty);
        Ok(Some(frame))
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

/// Asked once: the system's answer costs some twenty calls.
fn worker_count() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(WORKERS_MAX))
}

fn start_worker() -> mpsc::Sender<Job> {
    let (sender, jobs) = mpsc::channel::<Job>();
    tokio::task::spawn_blocking(move || work(&jobs));
    sender
}

/// Compresses with one context: a fresh one for each frame costs more than a frame of pages that compress well.
fn work(jobs: &mpsc::Receiver<Job>) {
    let mut compressor = None;
    while let Ok(Job {
        number,
        plain,
        answer,
    }) = jobs.recv()
    {
        // Nobody listens when the backup was abandoned.
        let _ = answer.send(compress(&mut compressor, number, plain));
    }
}

fn compress(compressor: &mut Option<Compressor>, number: u32, mut plain: Vec<u8>) -> Answer {
    let compressor = match compressor {
        Some(compressor) => compressor,
        empty => empty.insert(Compressor::new(LEVEL).map_err(RepositoryError::encoding)?),
    };
    let compressed = compressor.compress(&plain).map_err(RepositoryError::encoding)?;
    if number.is_multiple_of(PROVEN_ONE_IN) {
        prove(number, &compressed, &plain)?;
    }
    let frame = Frame {
        plain: plain.len() as u32,
        compressed,
    };
    plain.clear();
    Ok((frame, plain))
}

fn prove(number: u32, compressed: &[u8], plain: &[u8]) -> Result<(), RepositoryError> {
    let again = Decompressor::new().and_then(|mut d| d.decompress(compressed, plain.len()));
    if again.map_err(RepositoryError::encoding)? == plain {
        return Ok(());
    }
    let what = format!("frame {number} does not decompress to what was compressed: memory or zstd is faulty");
    Err(RepositoryError::Unencodable { what })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that compress to about half.
    fn content(length: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_u32;
        let mut step = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 28) as u8
        };
        (0..length).map(|_| step()).collect()
    }

    async fn frames_of(pieces: &[&[u8]]) -> (Vec<Extent>, Vec<Frame>) {
        let (mut filler, mut extents, mut frames) = (FrameFiller::default(), Vec::new(), Vec::new());
        for (entry, piece) in (0..).zip(pieces) {
            extents.extend(filler.append(entry, 0, piece));
            while let Some(frame) = filler.next_over_bound().await.unwrap() {
                frames.push(frame);
            }
            assert!(filler.in_work.len() <= IN_WORK_MAX);
        }
        filler.close_frame();
        while let Some(frame) = filler.next().await.unwrap() {
            frames.push(frame);
        }
        assert!(filler.idle.len() <= IN_WORK_MAX + 1);
        (extents, frames)
    }

    #[tokio::test]
    async fn extents_lead_to_the_very_bytes_through_buffers_used_again() {
        let bytes = content(41 * FRAME_PLAINTEXT + 77);
        let pieces: Vec<&[u8]> = bytes.chunks(100_003).collect();
        let (extents, frames) = frames_of(&pieces).await;
        let mut decompressor = Decompressor::new().unwrap();
        let mut open = |frame: &Frame| decompressor.decompress(&frame.compressed, frame.plain as usize);
        let plain: Vec<Vec<u8>> = frames.iter().map(|frame| open(frame).unwrap()).collect();
        assert_eq!(plain.concat(), bytes);
        let mut again: Vec<Vec<u8>> = vec![Vec::new(); pieces.len()];
        for extent in &extents {
            let (skip, length) = (extent.skip as usize, extent.length as usize);
            let entry = &mut again[extent.entry as usize];
            assert_eq!(entry.len() as u64, extent.offset);
            entry.extend_from_slice(&plain[extent.frame as usize][skip..skip + length]);
        }
        assert_eq!(again.concat(), bytes);
    }

    #[test]
    fn a_frame_that_does_not_decompress_to_its_plaintext_is_refused() {
        let compressed = Compressor::new(LEVEL).unwrap().compress(b"one").unwrap();
        prove(16, &compressed, b"one").unwrap();
        let error = prove(16, &compressed, b"two").unwrap_err();
        let says = "frame 16 does not decompress to what was compressed: memory or zstd is faulty";
        assert!(error.to_string().contains(says), "{error}");
    }
}
