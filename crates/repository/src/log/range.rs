//! One log range as an object: its index, then its bytes, each a container.
//!
//! Promise: the encoding of the format document, section 5.1; what is read back has the length and the digest that
//! its index states.
//! Not here: which pieces become a range (log::writer), which ranges are read (log::store).

use crate::RepositoryError;
use crate::base::LEVEL;
use crate::layout::Place;
use backstay_codec::{
    Compressor, Decompressor, FRAME_PLAINTEXT, Header, Kind, Salt, SecretKey, Sha256, container_length,
    digest, seal_proven, unseal,
};
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

/// Opens the data container and gives the bytes of the log.
pub(crate) fn decode_bytes(
    place: &Place,
    data_key: &SecretKey,
    container: Bytes,
    index: &RangeIndex,
    range: LogRange,
) -> Result<Vec<u8>, RepositoryError> {
    let sealed = |source| RepositoryError::Sealed {
        key: place.key.to_string(),
        source,
    };
    let data = unseal(Kind::RangeData, data_key, &place.logical, &container).map_err(sealed)?;
    // The sealed bytes go before as many decompressed ones come.
    drop(container);
    let bytes = decompress_frames(place, &data, index, range.length())?;
    if digest(&bytes) != index.sha256 {
        return Err(RepositoryError::malformed(
            &place.key,
            "its bytes have another SHA-256 than its index states",
        ));
    }
    Ok(bytes)
}

fn decompress_frames(
    place: &Place,
    data: &[u8],
    index: &RangeIndex,
    length: u64,
) -> Result<Vec<u8>, RepositoryError> {
    let refuse = |what: &str| RepositoryError::malformed(&place.key, what);
    let length = usize::try_from(length).map_err(|_| refuse("its range is too long"))?;
    let mut decompressor = Decompressor::new().map_err(RepositoryError::encoding)?;
    let mut bytes = Vec::with_capacity(length.min(256 << 20));
    let mut rest = data;
    for compressed in &index.frames {
        let (frame, later) = rest
            .split_at_checked(*compressed as usize)
            .ok_or_else(|| refuse("a frame reaches beyond its data"))?;
        let plain = length.saturating_sub(bytes.len()).min(FRAME_PLAINTEXT);
        let decompressed = decompressor
            .decompress(frame, plain)
            .map_err(|e| refuse(&e.to_string()))?;
        bytes.extend_from_slice(&decompressed);
        rest = later;
    }
    if bytes.len() != length || !rest.is_empty() {
        return Err(refuse("its frames do not add up to its range"));
    }
    Ok(bytes)
}
