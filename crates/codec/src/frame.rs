//! Frames: the unit of compression.
//!
//! Promise: decompression never gives more than the caller expects and never allocates by a frame's own claim.

use std::fmt;

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
        /// Found.
        found: usize,
    },
}

fn zstd_error(error: std::io::Error) -> FrameError {
    FrameError::Zstd {
        what: error.to_string(),
    }
}

/// Compresses frames.
pub struct Compressor(zstd::bulk::Compressor<'static>);

impl Compressor {
    /// With this level.
    pub fn new(level: i32) -> Result<Compressor, FrameError> {
        zstd::bulk::Compressor::new(level)
            .map(Compressor)
            .map_err(zstd_error)
    }

    /// One frame of `plain`.
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
        let plain = self.0.decompress(frame, length).map_err(zstd_error)?;
        if plain.len() != length {
            return Err(FrameError::Length {
                expected: length,
                found: plain.len(),
            });
        }
        Ok(plain)
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decompressor")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_claims_more_than_expected_is_refused() {
        let bomb = Compressor::new(1).unwrap().compress(&vec![0; 1 << 20]).unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        assert!(decompressor.decompress(&bomb, 1 << 10).is_err());
        assert!(decompressor.decompress(&bomb, (1 << 20) + 1).is_err());
        assert_eq!(decompressor.decompress(&bomb, 1 << 20).unwrap(), vec![0; 1 << 20]);
    }
}
