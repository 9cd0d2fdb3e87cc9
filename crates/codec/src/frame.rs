//! Frames: the unit of compression.
//!
//! Promise: decompression gives exactly what the caller expects, from exactly one zstd frame, and never allocates by a
//! frame's own claim. Not here: which bytes make a frame (backstay-repository).

use std::fmt;
use zstd::zstd_safe::{find_frame_compressed_size, get_frame_content_size};

/// Plaintext in one frame.
pub const FRAME_PLAINTEXT: usize = 256 << 10;

/// A frame cannot be made or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// zstd refuses.
    #[error("zstd: {what}")]
    Zstd {
        /// Its words.
        what: String,
    },
    /// Another length than recorded.
    #[error("a frame has {found} bytes instead of {expected}")]
    Length {
        /// Recorded.
        expected: usize,
        /// Found, or claimed by the frame.
        found: u64,
    },
    /// Not one whole frame.
    #[error("{bytes} bytes are not exactly one zstd frame")]
    NotOneFrame {
        /// How many there are.
        bytes: usize,
    },
}

impl FrameError {
    /// What a person can do.
    pub fn advice(&self) -> &'static str {
        "the object was sealed with these bytes, so it was written wrongly: use another backup, and report this"
    }
}

fn zstd_error(error: std::io::Error) -> FrameError {
    FrameError::Zstd {
        what: error.to_string(),
    }
}

/// Compresses frames.
pub struct Compressor(zstd::bulk::Compressor<'static>);

impl Compressor {
    /// With this level of zstd; 1 is the format's usual one (the format allows any).
    pub fn new(level: i32) -> Result<Compressor, FrameError> {
        zstd::bulk::Compressor::new(level)
            .map(Compressor)
            .map_err(zstd_error)
    }

    /// One frame of `plain`; it records its length.
    pub fn compress(&mut self, plain: &[u8]) -> Result<Vec<u8>, FrameError> {
        self.0.compress(plain).map_err(zstd_error)
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compressor")
    }
}

/// Decompresses frames.
pub struct Decompressor(zstd::bulk::Decompressor<'static>);

impl Decompressor {
    /// A new one.
    pub fn new() -> Result<Decompressor, FrameError> {
        zstd::bulk::Decompressor::new()
            .map(Decompressor)
            .map_err(zstd_error)
    }

    /// The plaintext of one frame, which must be exactly `length` bytes.
    pub fn decompress(&mut self, frame: &[u8], length: usize) -> Result<Vec<u8>, FrameError> {
        check_frame(frame, length)?;
        let plain = self.0.decompress(frame, length).map_err(zstd_error)?;
        check_length(plain.len() as u64, length)?;
        Ok(plain)
    }

    /// The same, in place of what `plain` held: whoever reads many frames needs one place for them.
    pub fn decompress_into(
        &mut self,
        frame: &[u8],
        length: usize,
        plain: &mut Vec<u8>,
    ) -> Result<(), FrameError> {
        check_frame(frame, length)?;
        plain.clear();
        plain.reserve_exact(length);
        self.0.decompress_to_buffer(frame, plain).map_err(zstd_error)?;
        check_length(plain.len() as u64, length)
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decompressor")
    }
}

/// What can be known before anything is allocated.
fn check_frame(frame: &[u8], length: usize) -> Result<(), FrameError> {
    if find_frame_compressed_size(frame) != Ok(frame.len()) {
        return Err(FrameError::NotOneFrame { bytes: frame.len() });
    }
    match get_frame_content_size(frame) {
        Ok(Some(claimed)) => check_length(claimed, length),
        _ => Ok(()),
    }
}

fn check_length(found: u64, expected: usize) -> Result<(), FrameError> {
    if found == expected as u64 {
        return Ok(());
    }
    Err(FrameError::Length { expected, found })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_that_claims_more_than_expected_is_refused() {
        let bomb = Compressor::new(1).unwrap().compress(&vec![0; 1 << 20]).unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        for expected in [0, 1 << 10, (1 << 20) - 1, (1 << 20) + 1, usize::MAX] {
            let found = 1 << 20;
            assert_eq!(
                decompressor.decompress(&bomb, expected),
                Err(FrameError::Length { expected, found })
            );
        }
        assert_eq!(decompressor.decompress(&bomb, 1 << 20).unwrap(), vec![0; 1 << 20]);
    }

    #[test]
    fn a_frame_that_lies_about_its_length_is_refused() {
        // 3 MB of zeros in a frame whose header is then changed to claim 1 KiB: the claim passes, the content does not.
        let mut bomb = Compressor::new(1).unwrap().compress(&vec![0; 3_000_000]).unwrap();
        // RFC 8878: magic, descriptor (size of 4 bytes, window follows), window, size.
        assert_eq!(
            (bomb[4], &bomb[6..10]),
            (0b1000_0000, &3_000_000_u32.to_le_bytes()[..])
        );
        bomb[6..10].copy_from_slice(&1024_u32.to_le_bytes());
        let refused = Decompressor::new().unwrap().decompress(&bomb, 1024);
        assert!(matches!(refused, Err(FrameError::Zstd { .. })), "{refused:?}");
    }

    #[test]
    fn a_frame_without_a_length_gives_no_more_than_expected() {
        // RFC 8878: window descriptor 0x50 (1 MiB), no size; one block repeats a byte 100,000 times and is the last.
        let block = (100_000_u32 << 3 | 1 << 1 | 1).to_le_bytes();
        let bomb = [&[0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x50][..], &block[..3], &[7]].concat();
        let mut decompressor = Decompressor::new().unwrap();
        assert_eq!(decompressor.decompress(&bomb, 100_000).unwrap(), vec![7; 100_000]);
        // Room that is left from a longer frame is no permission.
        let mut roomy = Vec::with_capacity(200_000);
        let (expected, found) = (99_999, 100_000);
        assert_eq!(
            decompressor.decompress_into(&bomb, 99_999, &mut roomy),
            Err(FrameError::Length { expected, found })
        );
        assert!(decompressor.decompress(&bomb, 99_999).is_err());
        let (expected, found) = (100_001, 100_000);
        assert_eq!(
            decompressor.decompress(&bomb, 100_001),
            Err(FrameError::Length { expected, found })
        );
    }

    #[test]
    fn two_frames_and_cut_frames_are_not_one_frame() {
        let frame = Compressor::new(1).unwrap().compress(b"once").unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        let twice = [frame.clone(), frame.clone()].concat();
        for (bytes, length) in [(&twice[..], 8), (&frame[..frame.len() - 1], 4), (&[][..], 0)] {
            let bytes_found = bytes.len();
            assert_eq!(
                decompressor.decompress(bytes, length),
                Err(FrameError::NotOneFrame { bytes: bytes_found })
            );
        }
    }

    proptest! {
        #[test]
        fn a_frame_gives_back_what_was_compressed(
            plain in proptest::collection::vec(0u8..4, 0..FRAME_PLAINTEXT / 64),
            level in -5i32..4,
        ) {
            let frame = Compressor::new(level).unwrap().compress(&plain).unwrap();
            let mut place = vec![9; plain.len() / 2];
            Decompressor::new().unwrap().decompress_into(&frame, plain.len(), &mut place).unwrap();
            prop_assert_eq!(&place, &plain);
            prop_assert_eq!(Decompressor::new().unwrap().decompress(&frame, plain.len()).unwrap(), plain);
        }

        #[test]
        fn a_changed_frame_gives_an_error_or_the_recorded_length(place in 0usize..1000, bit in 0u8..8) {
            let plain: Vec<u8> = (0..2000u32).map(|n| (n * n % 61) as u8).collect();
            let mut frame = Compressor::new(1).unwrap().compress(&plain).unwrap();
            let place = place % frame.len();
            frame[place] ^= 1 << bit;
            if let Ok(other) = Decompressor::new().unwrap().decompress(&frame, plain.len()) {
                prop_assert_eq!(other.len(), plain.len());
            }
        }
    }
}
