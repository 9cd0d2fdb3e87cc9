//! Plaintext laid out so that it is sealed where it lies.
//!
//! Promise: one allocation, made by the caller's measure, holds first the plaintext and then the container; so a pack of
//! 32 MiB costs 32 MiB. A proven container has been opened again, chunk by chunk, and compared (REPO-3).

use crate::container::SealError;
use crate::header::{CHUNK, HEADER_LENGTH, Header, SEALED_CHUNK, TAG, chunk_count, container_length};
use crate::key::{Salt, SecretKey};
use crate::kind::Kind;
use crate::open::{Opener, cipher, nonce, object_keys};
use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce, Tag};
use aws_lc_rs::error::Unspecified;
use std::fmt;

/// Plaintext that waits to be sealed: room for a header, then chunks with room for their tags between them.
#[derive(Clone)]
pub struct SealBuffer {
    bytes: Vec<u8>,
    plaintext: usize,
}

impl SealBuffer {
    /// With room for the container of so many bytes of plaintext; more may be appended.
    pub fn with_capacity(plaintext: usize) -> SealBuffer {
        let capacity = usize::try_from(container_length(plaintext as u64)).unwrap_or(HEADER_LENGTH);
        let mut bytes = Vec::with_capacity(capacity);
        bytes.resize(HEADER_LENGTH, 0);
        SealBuffer { bytes, plaintext: 0 }
    }

    /// Takes the next bytes of plaintext.
    pub fn append(&mut self, plaintext: &[u8]) {
        self.plaintext += plaintext.len();
        let mut rest = plaintext;
        while !rest.is_empty() {
            let filled = (self.bytes.len() - HEADER_LENGTH) % SEALED_CHUNK;
            if filled == CHUNK {
                self.bytes.extend_from_slice(&[0; TAG]);
                continue;
            }
            let (now, later) = rest.split_at(rest.len().min(CHUNK - filled));
            self.bytes.extend_from_slice(now);
            rest = later;
        }
    }

    /// Bytes of plaintext so far.
    pub fn len(&self) -> usize {
        self.plaintext
    }

    /// True if nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.plaintext == 0
    }

    /// The container, opened again and compared.
    pub fn seal_proven(
        self,
        kind: Kind,
        key: &SecretKey,
        name: &str,
        salt: &Salt,
    ) -> Result<Vec<u8>, SealError> {
        self.seal_and(Proof::EveryChunk, kind, key, name, salt)
    }

    pub(crate) fn seal_and(
        self,
        proof: Proof,
        kind: Kind,
        key: &SecretKey,
        name: &str,
        salt: &Salt,
    ) -> Result<Vec<u8>, SealError> {
        self.seal_by(proof, kind, key, name, salt, &seal_chunk)
    }

    /// `sealer` seals one chunk. A parameter, so that a test can be a machine that does it wrongly.
    fn seal_by(
        mut self,
        proof: Proof,
        kind: Kind,
        key: &SecretKey,
        name: &str,
        salt: &Salt,
        sealer: &Sealer,
    ) -> Result<Vec<u8>, SealError> {
        let length = u32::try_from(self.plaintext).map_err(|_| SealError::too_long(name, self.plaintext))?;
        let faulty = || SealError::faulty(name);
        let header = Header::new(kind, length, key.id(), name, *salt);
        let (object_key, commitment) = object_keys(key, &header, name);
        self.bytes.extend_from_slice(&[0; TAG]);
        self.bytes[..HEADER_LENGTH].copy_from_slice(&header.bytes(&commitment));
        // The opener reads the header anew and derives its keys anew: it shares nothing with the sealing side.
        let prover = match proof {
            Proof::EveryChunk => Some(Opener::of(kind, key, name, &self.bytes).map_err(|_| faulty())?),
            Proof::Nothing => None,
        };
        let cipher = cipher(&object_key);
        let mut plain = Vec::new();
        for (number, chunk) in (0..).zip(self.bytes[HEADER_LENGTH..].chunks_mut(SEALED_CHUNK)) {
            let (body, tag) = chunk.split_at_mut(chunk.len() - TAG);
            if prover.is_some() {
                plain.clear();
                plain.extend_from_slice(body);
            }
            let nonce = nonce(number, chunk_count(u64::from(length)));
            let sealed = sealer(&cipher, nonce, body).map_err(|_| faulty())?;
            tag.copy_from_slice(sealed.as_ref());
            if let Some(prover) = &prover {
                prove_chunk(prover, number, chunk, &plain).ok_or_else(faulty)?;
            }
        }
        Ok(self.bytes)
    }
}

impl fmt::Debug for SealBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealBuffer({} bytes)", self.plaintext)
    }
}

/// What is opened again before a container is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Nothing.
    Nothing,
    /// Every chunk.
    EveryChunk,
}

/// Seals a chunk where it lies and gives its tag.
type Sealer = dyn Fn(&LessSafeKey, Nonce, &mut [u8]) -> Result<Tag, Unspecified>;

fn seal_chunk(cipher: &LessSafeKey, nonce: Nonce, body: &mut [u8]) -> Result<Tag, Unspecified> {
    cipher.seal_in_place_separate_tag(nonce, Aad::empty(), body)
}

/// Something, if the chunk opens to `plain`.
fn prove_chunk(prover: &Opener, number: u64, sealed: &[u8], plain: &[u8]) -> Option<()> {
    let mut opened = vec![0; plain.len()];
    prover.open_chunk(number, sealed, &mut opened).ok()?;
    (opened == plain).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_that_opens_to_something_else_is_not_proven() {
        let (key, salt, plain) = (SecretKey::new([1; 32]), Salt([2; 32]), [3; 100]);
        let sealed = crate::seal(Kind::Pack, &key, "n", &salt, &plain).unwrap();
        let prover = Opener::of(Kind::Pack, &key, "n", &sealed).unwrap();
        let chunk = &sealed[HEADER_LENGTH..];
        assert_eq!(prove_chunk(&prover, 0, chunk, &plain), Some(()));
        assert_eq!(prove_chunk(&prover, 0, chunk, &[4; 100]), None);
        assert_eq!(prove_chunk(&prover, 1, chunk, &plain), None);
        assert_eq!(prove_chunk(&prover, 0, &chunk[..chunk.len() - 1], &plain), None);
    }

    /// Three chunks sealed by this sealer.
    fn sealed_by(proof: Proof, sealer: &Sealer) -> Result<Vec<u8>, SealError> {
        let mut buffer = SealBuffer::with_capacity(2 * CHUNK + 9);
        buffer.append(&[7; 2 * CHUNK + 9]);
        let (key, salt) = (SecretKey::new([1; 32]), Salt([2; 32]));
        buffer.seal_by(proof, Kind::Pack, &key, "n", &salt, sealer)
    }

    #[test]
    fn repo_3_a_machine_that_seals_wrongly_is_caught_before_anything_is_handed_out() {
        let flips_a_sealed_bit: &Sealer = &|cipher, nonce, body| {
            let tag = seal_chunk(cipher, nonce, body);
            // The last chunk alone, which is the short one.
            body[8] ^= u8::from(body.len() == 9);
            tag
        };
        let seals_other_plaintext: &Sealer = &|cipher, nonce, body| {
            body[0] ^= 0x10;
            seal_chunk(cipher, nonce, body)
        };
        let seals_nothing: &Sealer = &|cipher, nonce, body| seal_chunk(cipher, nonce, &mut body.to_vec());
        for sealer in [flips_a_sealed_bit, seals_other_plaintext, seals_nothing] {
            let faulty = sealed_by(Proof::EveryChunk, sealer).unwrap_err();
            assert_eq!(faulty, SealError::faulty("n"));
            assert!(
                sealed_by(Proof::Nothing, sealer).is_ok(),
                "the proof alone finds it"
            );
        }
        let right = sealed_by(Proof::EveryChunk, &seal_chunk).unwrap();
        assert_eq!(
            crate::unseal(Kind::Pack, &SecretKey::new([1; 32]), "n", &right).unwrap(),
            [7; 2 * CHUNK + 9]
        );
    }

    #[test]
    fn a_buffer_of_the_right_measure_is_allocated_once() {
        let mut buffer = SealBuffer::with_capacity(3 * CHUNK + 5);
        let address = buffer.bytes.as_ptr();
        (0..3).for_each(|_| buffer.append(&[7; CHUNK]));
        buffer.append(&[7; 5]);
        let sealed = buffer
            .seal_proven(Kind::Pack, &SecretKey::new([1; 32]), "n", &Salt([2; 32]))
            .unwrap();
        assert_eq!(sealed.as_ptr(), address);
        assert_eq!(sealed.len(), sealed.capacity());
    }
}
