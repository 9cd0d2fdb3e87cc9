//! One log range as an object: its index, then its bytes, each a container.
//!
//! Promise: the encoding of the format document, section 5.1; what is read back has the length and the digest that
//! its index states.
//! Not here: which pieces become a range (log::writer), which ranges are read (log::store).

use crate::RepositoryError;
use crate::base::LEVEL;
use crate::layout::Place;
use crate::objects::Window;
use backstay_codec::{
    Compressor, Decompressor, Digest, FRAME_PLAINTEXT, Header, Kind, Salt, SecretKey, Sha256,
    container_length, digest, seal_proven, unseal,
};
use backstay_store::Store;
use backstay_terms::{LogFacts, LogRange};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The index part of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeIndex {
    /// 1.
    pub format: u32,
    /// What is known about the bytes.
    pub facts: LogFacts,
    /// SHA-256 of the bytes.
    pub sha256: Sha256,
    /// The compressed lengths of the frames.
    pub frames: Vec<u32>,
}

/// The keys of an epoch that ranges are sealed with.
#[derive(Clone, Debug)]
pub(crate) struct RangeKeys {
    pub data: SecretKey,
    pub facts: SecretKey,
}

/// The bytes of two containers that hold nothing: no range is smaller.
pub(super) fn range_bytes_min() -> u64 {
    2 * container_length(0)
}

/// Seals a range; returns its object and its index. `bytes` are those from `range.from` to `range.to`.
pub(crate) fn encode(
    place: &Place,
    keys: &RangeKeys,
    facts: LogFacts,
    bytes: &[u8],
) -> Result<(Bytes, RangeIndex), RepositoryError> {
    let mut compressor = Compressor::new(LEVEL).map_err(RepositoryError::encoding)?;
    let mut frames = Vec::new();
    let mut data = Vec::new();
    for frame in bytes.chunks(FRAME_PLAINTEXT) {
        let compressed = compressor.compress(frame).map_err(RepositoryError::encoding)?;
        frames.push(compressed.len() as u32);
        data.extend_from_slice(&compressed);
    }
    let index = RangeIndex {
        format: 1,
        facts,
        sha256: digest(bytes),
        frames,
    };
    let json = serde_json::to_vec(&index).map_err(RepositoryError::encoding)?;
    let seal = |kind, key: &SecretKey, plain: &[u8]| {
        let salt = Salt::random().map_err(RepositoryError::encoding)?;
        seal_proven(kind, key, &place.logical, &salt, plain).map_err(RepositoryError::encoding)
    };
    let mut object = seal(Kind::RangeIndex, &keys.facts, &json)?;
    object.extend_from_slice(&seal(Kind::RangeData, &keys.data, &data)?);
    Ok((Bytes::from(object), index))
}

/// How long the index container is, read from the object's first bytes.
pub(crate) fn index_length(place: &Place, object: &[u8]) -> Result<u64, RepositoryError> {
    let sealed = |source| RepositoryError::Sealed {
        key: place.key.to_string(),
        source,
    };
    Header::read(object, &place.logical)
        .map(|header| container_length(header.plaintext_length()))
        .map_err(sealed)
}

/// Opens the index container.
pub(crate) fn decode_index(
    place: &Place,
    facts_key: &SecretKey,
    container: &[u8],
) -> Result<RangeIndex, RepositoryError> {
    let sealed = |source| RepositoryError::Sealed {
        key: place.key.to_string(),
        source,
    };
    let json = unseal(Kind::RangeIndex, facts_key, &place.logical, container).map_err(sealed)?;
    let index: RangeIndex =
        serde_json::from_slice(&json).map_err(|e| RepositoryError::malformed(&place.key, e))?;
    if index.format != 1 {
        return Err(RepositoryError::NewerFormat {
            object: place.key.to_string(),
            format: index.format,
        });
    }
    Ok(index)
}

/// The bytes of a range, read from its data container frame by frame.
pub(crate) struct RangeBytes<'a> {
    window: Window,
    index: &'a RangeIndex,
    decompressor: Decompressor,
    /// How many frames were read, and where the next one lies in the data.
    read: usize,
    position: u64,
    plain: Vec<u8>,
    digest: Digest,
    given: u64,
    length: u64,
}

impl<'a> RangeBytes<'a> {
    pub fn new(window: Window, index: &'a RangeIndex, range: LogRange) -> Result<Self, RepositoryError> {
        Ok(RangeBytes {
            window,
            index,
            decompressor: Decompressor::new().map_err(RepositoryError::encoding)?,
            read: 0,
            position: 0,
            plain: Vec::new(),
            digest: Digest::new(),
            given: 0,
            length: range.length(),
        })
    }

    /// The next bytes and where in the range they begin; none at the end, when everything has the digest of the index.
    pub async fn next_frame(&mut self, store: &dyn Store) -> Result<Option<(u64, &[u8])>, RepositoryError> {
        let Some(compressed) = self.index.frames.get(self.read) else {
            self.window.prove_empty(store).await?;
            return self.end();
        };
        let wanted = self.position..self.position + u64::from(*compressed);
        let expected = (self.length - self.given).min(FRAME_PLAINTEXT as u64) as usize;
        let key = self.window.key().clone();
        let frame = self.window.reach(store, wanted.clone()).await?;
        self.decompressor
            .decompress_into(frame, expected, &mut self.plain)
            .map_err(|e| RepositoryError::malformed(&key, e))?;
        self.digest.update(&self.plain);
        self.read += 1;
        self.position = wanted.end;
        let begins = self.given;
        self.given += self.plain.len() as u64;
        Ok(Some((begins, &self.plain)))
    }

    fn end(&mut self) -> Result<Option<(u64, &[u8])>, RepositoryError> {
        let key = self.window.key();
        if self.given != self.length || !self.window.ends_at(self.position) {
            let what = "its frames do not add up to its range";
            return Err(RepositoryError::malformed(key, what));
        }
        if std::mem::take(&mut self.digest).finish() != self.index.sha256 {
            let what = "its bytes have another SHA-256 than its index states";
            return Err(RepositoryError::malformed(key, what));
        }
        Ok(None)
    }
}
