//! Opens any part of a container.
//!
//! Promise: a part costs the sealed chunks that hold it, no more, and each of them is authenticated.

use crate::container::cipher;
use crate::header::{CHUNK, HEADER_LENGTH, Header, Kind, TAG, UnsealError};
use crate::key::{Salt, SecretKey, derive};
use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use std::ops::Range;
use zeroize::Zeroizing;

const SEALED_CHUNK: u64 = (CHUNK + TAG) as u64;

/// Opens chunks of one container.
#[derive(Debug)]
pub struct Opener {
    name: String,
    cipher: LessSafeKey,
    plaintext_length: u64,
}

impl Opener {
    /// For the container with this name, salt and plaintext length.
    pub fn new(
        kind: Kind,
        key: &SecretKey,
        name: &str,
        salt: &Salt,
        plaintext_length: u64,
    ) -> Result<Opener, UnsealError> {
        let too_long = |_| UnsealError::Damaged {
            name: name.to_owned(),
            what: "it is too long".into(),
        };
        let length = u32::try_from(plaintext_length).map_err(too_long)?;
        let header = Header::new(kind, length, key.id(), name, *salt);
        let (object_key, _) = object_keys(key, &header, name);
        Ok(Opener {
            name: name.to_owned(),
            cipher: cipher(&object_key),
            plaintext_length,
        })
    }

    /// The bytes of the object that must be fetched for these bytes of plaintext.
    pub fn sealed_range(&self, plain: Range<u64>) -> Range<u64> {
        let first = plain.start / CHUNK as u64;
        let last = plain
            .end
            .max(plain.start + 1)
            .div_ceil(CHUNK as u64)
            .min(self.chunks());
        let end = (last * SEALED_CHUNK).min(self.plaintext_length + self.chunks() * TAG as u64);
        let header = HEADER_LENGTH as u64;
        header + first * SEALED_CHUNK..header + end
    }

    /// The plaintext in `plain`, from the bytes that `sealed_range` named.
    pub fn open_range(&self, plain: Range<u64>, sealed: &[u8]) -> Result<Vec<u8>, UnsealError> {
        let first = plain.start / CHUNK as u64;
        let opened = self.open_chunks(first, sealed)?;
        let skip = plain.start - first * CHUNK as u64;
        let wanted = opened.get(skip as usize..(skip + plain.end - plain.start) as usize);
        wanted
            .map(<[u8]>::to_vec)
            .ok_or_else(|| self.damaged("a part reaches beyond its end"))
    }

    /// The plaintext of whole sealed chunks, the first of which has the number `first`.
    pub fn open_chunks(&self, first: u64, sealed: &[u8]) -> Result<Vec<u8>, UnsealError> {
        let mut opened = sealed.to_vec();
        let mut written = 0;
        let count = sealed.chunks(SEALED_CHUNK as usize).len();
        for place in 0..count {
            let number = first + place as u64;
            let begins = place * SEALED_CHUNK as usize;
            let ends = (begins + SEALED_CHUNK as usize).min(sealed.len());
            let nonce = nonce(number, number + 1 == self.chunks());
            let refuse = || self.damaged(&format!("chunk {number} was changed"));
            let chunk = opened.get_mut(begins..ends).ok_or_else(refuse)?;
            let length = self
                .cipher
                .open_in_place(nonce, Aad::empty(), chunk)
                .map_err(|_| refuse())?
                .len();
            opened.copy_within(begins..begins + length, written);
            written += length;
        }
        opened.truncate(written);
        Ok(opened)
    }

    fn chunks(&self) -> u64 {
        self.plaintext_length.div_ceil(CHUNK as u64).max(1)
    }

    fn damaged(&self, what: &str) -> UnsealError {
        UnsealError::Damaged {
            name: self.name.clone(),
            what: what.to_owned(),
        }
    }
}

/// `u64 chunk number || u32 last flag`, big-endian (STREAM).
pub(crate) fn nonce(number: u64, last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[11] = u8::from(last);
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
