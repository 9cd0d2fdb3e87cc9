//! Opens any part of a container.
//!
//! Promise: a part costs the sealed chunks that hold it, no more, and each of them is authenticated.

use crate::header::{CHUNK, HEADER_LENGTH, Header, SEALED_CHUNK, TAG, chunk_count, container_length};
use crate::key::{Salt, SecretKey, derive};
use crate::kind::Kind;
use crate::unseal_error::UnsealError;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::ops::Range;
use zeroize::Zeroizing;

/// Opens chunks of one container.
#[derive(Debug)]
pub struct Opener {
    name: String,
    cipher: LessSafeKey,
    plaintext_length: u64,
}

impl Opener {
    /// For the container with this name, salt and plaintext length, whose header need not be read.
    pub fn new(
        kind: Kind,
        key: &SecretKey,
        name: &str,
        salt: &Salt,
        plaintext_length: u64,
    ) -> Result<Opener, UnsealError> {
        let too_long = |_| UnsealError::damaged(name, "its recorded length is more than a container holds");
        let length = u32::try_from(plaintext_length).map_err(too_long)?;
        let header = Header::new(kind, length, key.id(), name, *salt);
        let (object_key, _) = object_keys(key, &header, name);
        Ok(Opener::with(&object_key, &header, name))
    }

    /// For a whole container; checks its header, its commitment and its length.
    pub fn of(kind: Kind, key: &SecretKey, name: &str, container: &[u8]) -> Result<Opener, UnsealError> {
        Opener::of_beginning(kind, key, name, container, container.len() as u64)
    }

    /// For a container of `found` bytes of which the beginning is at hand; checks the same.
    pub fn of_beginning(
        kind: Kind,
        key: &SecretKey,
        name: &str,
        beginning: &[u8],
        found: u64,
    ) -> Result<Opener, UnsealError> {
        let header = Header::read(beginning, name)?;
        header.check(kind, key, name)?;
        let expected = container_length(header.plaintext_length());
        let (object_key, commitment) = object_keys(key, &header, name);
        // The commitment first: a changed length is a changed header, not a truncation.
        if *header.commitment() != commitment {
            return Err(UnsealError::damaged(name, "its header was changed"));
        }
        if found != expected {
            return Err(UnsealError::wrong_length(name, found, expected));
        }
        Ok(Opener::with(&object_key, &header, name))
    }

    /// How many bytes of plaintext the container has.
    pub fn plaintext_length(&self) -> u64 {
        self.plaintext_length
    }

    fn with(object_key: &[u8; 32], header: &Header, name: &str) -> Opener {
        Opener {
            name: name.to_owned(),
            cipher: cipher(object_key),
            plaintext_length: header.plaintext_length(),
        }
    }

    /// The bytes of the object that must be fetched for these bytes of plaintext: whole chunks, at least one.
    pub fn sealed_range(&self, plain: Range<u64>) -> Range<u64> {
        let chunks = self.chunks_with(&plain);
        let body = self.plaintext_length + self.chunks() * TAG as u64;
        let at = |chunk: u64| HEADER_LENGTH as u64 + (chunk * SEALED_CHUNK as u64).min(body);
        at(chunks.start)..at(chunks.end)
    }

    /// The plaintext in `plain`, from the bytes that `sealed_range` named.
    pub fn open_range(&self, plain: Range<u64>, sealed: &[u8]) -> Result<Vec<u8>, UnsealError> {
        if plain.start > plain.end || plain.end > self.plaintext_length {
            return Err(UnsealError::damaged(&self.name, "a part reaches beyond its end"));
        }
        let wanted = self.sealed_range(plain.clone());
        let (found, expected) = (sealed.len() as u64, wanted.end - wanted.start);
        if found != expected {
            return Err(UnsealError::wrong_length(&self.name, found, expected));
        }
        let first = self.chunks_with(&plain).start;
        let mut opened = self.open_chunks(first, sealed)?;
        let skip = plain.start - first * CHUNK as u64;
        opened.truncate((skip + plain.end - plain.start) as usize);
        opened.drain(..skip as usize);
        Ok(opened)
    }

    /// The plaintext of whole sealed chunks that follow each other; the first of them has the number `first`.
    pub fn open_chunks(&self, first: u64, sealed: &[u8]) -> Result<Vec<u8>, UnsealError> {
        let mut opened = Vec::new();
        self.open_chunks_onto(first, sealed, &mut opened)?;
        Ok(opened)
    }

    /// The same, appended to what was opened before; after an error nothing is.
    pub fn open_chunks_onto(
        &self,
        first: u64,
        sealed: &[u8],
        opened: &mut Vec<u8>,
    ) -> Result<(), UnsealError> {
        let tags = sealed.len().div_ceil(SEALED_CHUNK) * TAG;
        let before = opened.len();
        opened.resize(before + sealed.len().saturating_sub(tags), 0);
        let mut rest = opened.get_mut(before..).unwrap_or_default();
        for (place, chunk) in sealed.chunks(SEALED_CHUNK).enumerate() {
            let number = first.saturating_add(place as u64);
            let length = chunk.len().saturating_sub(TAG).min(rest.len());
            let (now, later) = rest.split_at_mut(length);
            if let Err(error) = self.open_chunk(number, chunk, now) {
                opened.truncate(before);
                return Err(error);
            }
            rest = later;
        }
        Ok(())
    }

    /// Opens one chunk into a place that is as long as its plaintext.
    pub(crate) fn open_chunk(
        &self,
        number: u64,
        sealed: &[u8],
        opened: &mut [u8],
    ) -> Result<(), UnsealError> {
        let changed = || UnsealError::damaged(&self.name, format!("chunk {number} was changed"));
        let (body, tag) = sealed.split_at_checked(opened.len()).ok_or_else(changed)?;
        self.cipher
            .open_separate_gather(nonce(number, self.chunks()), Aad::empty(), body, tag, opened)
            .map_err(|_| changed())
    }

    /// The numbers of the chunks that hold `plain`, cut to the container; at least one.
    fn chunks_with(&self, plain: &Range<u64>) -> Range<u64> {
        let first = (plain.start / CHUNK as u64).min(self.chunks() - 1);
        let last = plain.end.div_ceil(CHUNK as u64).clamp(first + 1, self.chunks());
        first..last
    }

    fn chunks(&self) -> u64 {
        chunk_count(self.plaintext_length)
    }
}

pub(crate) fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("AES-256-GCM takes 32-byte keys"))
}

/// `u64 chunk number || u32 last flag`, big-endian (STREAM); `count` is the number of chunks in the container.
pub(crate) fn nonce(number: u64, count: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[11] = u8::from(number == count - 1);
    Nonce::assume_unique_for_key(bytes)
}

/// The object's key and its commitment.
pub(crate) fn object_keys(key: &SecretKey, header: &Header, name: &str) -> (Zeroizing<[u8; 32]>, [u8; 32]) {
    let mut okm = Zeroizing::new([0; 64]);
    let info: [&[u8]; 3] = [b"backstay/1/object\0", &header.bound(), name.as_bytes()];
    derive(key.bytes(), &header.salt().0, &info, okm.as_mut());
    let (mut object_key, mut commitment) = (Zeroizing::new([0; 32]), [0; 32]);
    object_key.copy_from_slice(&okm[..32]);
    commitment.copy_from_slice(&okm[32..]);
    (object_key, commitment)
}
