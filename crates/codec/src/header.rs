//! The header of a container, and the lengths that follow from it.
//!
//! Promise: the table of the format document, section 2. `Header::read` takes any bytes.
//! Not here: keys and chunks (open, seal_buffer).

use crate::digest::digest;
use crate::key::{KeyId, Salt, SecretKey};
use crate::kind::Kind;
use crate::unseal_error::UnsealError;

/// Bytes of plaintext in a chunk.
pub const CHUNK: usize = 1 << 16;
/// Bytes of a chunk's tag.
pub(crate) const TAG: usize = 16;
/// Bytes of a full chunk as it is stored.
pub const SEALED_CHUNK: usize = CHUNK + TAG;
/// Bytes before the first chunk: header and commitment.
pub const HEADER_LENGTH: usize = 112;

const MAGIC: &[u8; 8] = b"BACKSTAY";
const VERSION: u8 = 1;
const SUITE: u8 = 1;
const CHUNK_LOG: u8 = 16;

/// The first 112 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    kind: u8,
    plaintext_length: u32,
    key_id: KeyId,
    name_check: [u8; 16],
    salt: Salt,
    commitment: [u8; 32],
}

impl Header {
    /// A header whose commitment is not yet known.
    pub(crate) fn new(kind: Kind, plaintext_length: u32, key_id: KeyId, name: &str, salt: Salt) -> Header {
        Header {
            kind: kind.number(),
            plaintext_length,
            key_id,
            name_check: name_check(name),
            salt,
            commitment: [0; 32],
        }
    }

    /// Reads the header of the container that `bytes` begin with, and compares the name.
    ///
    /// Errors: everything that the header alone can show, which is neither the kind nor the key that the caller wants.
    pub fn read(bytes: &[u8], name: &str) -> Result<Header, UnsealError> {
        let found = bytes.len() as u64;
        let short = || UnsealError::wrong_length(name, found, HEADER_LENGTH as u64);
        let magic = bytes.get(..MAGIC.len().min(bytes.len())).unwrap_or_default();
        if !MAGIC.starts_with(magic) {
            return Err(UnsealError::NotAContainer {
                name: name.to_owned(),
            });
        }
        let [version, suite, kind, chunk_log] = array(bytes, 8).ok_or_else(short)?;
        check_suite(name, version, suite, chunk_log)?;
        let header = Header {
            kind,
            plaintext_length: u32::from_be_bytes(array(bytes, 12).ok_or_else(short)?),
            key_id: KeyId(array(bytes, 16).ok_or_else(short)?),
            name_check: array(bytes, 32).ok_or_else(short)?,
            salt: Salt(array(bytes, 48).ok_or_else(short)?),
            commitment: array(bytes, 80).ok_or_else(short)?,
        };
        if header.name_check != name_check(name) {
            return Err(UnsealError::WrongName {
                name: name.to_owned(),
            });
        }
        Ok(header)
    }

    /// What the caller expects of the container.
    pub(crate) fn check(&self, kind: Kind, key: &SecretKey, name: &str) -> Result<(), UnsealError> {
        if self.kind != kind.number() {
            return Err(UnsealError::WrongKind {
                name: name.to_owned(),
                expected: kind,
                found: self.kind,
            });
        }
        let given = key.id();
        if self.key_id != given {
            return Err(UnsealError::WrongKey {
                name: name.to_owned(),
                found: self.key_id,
                given,
            });
        }
        Ok(())
    }

    /// The header's bytes before the salt: what the object's key binds.
    pub(crate) fn bound(&self) -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&[VERSION, SUITE, self.kind, CHUNK_LOG]);
        bytes[12..16].copy_from_slice(&self.plaintext_length.to_be_bytes());
        bytes[16..32].copy_from_slice(&self.key_id.0);
        bytes[32..48].copy_from_slice(&self.name_check);
        bytes
    }

    /// All of its bytes, with this commitment.
    pub(crate) fn bytes(&self, commitment: &[u8; 32]) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[..48].copy_from_slice(&self.bound());
        bytes[48..80].copy_from_slice(&self.salt.0);
        bytes[80..].copy_from_slice(commitment);
        bytes
    }

    /// What it holds; none for a kind that this version does not know.
    pub fn kind(&self) -> Option<Kind> {
        Kind::with_number(self.kind)
    }

    /// Bytes of plaintext.
    pub fn plaintext_length(&self) -> u64 {
        u64::from(self.plaintext_length)
    }

    /// The key that it is sealed with.
    pub fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// Its salt.
    pub fn salt(&self) -> &Salt {
        &self.salt
    }

    pub(crate) fn commitment(&self) -> &[u8; 32] {
        &self.commitment
    }
}

fn check_suite(name: &str, version: u8, suite: u8, chunk_log: u8) -> Result<(), UnsealError> {
    let name = || name.to_owned();
    match (version, suite, chunk_log) {
        (VERSION, SUITE, CHUNK_LOG) => Ok(()),
        (VERSION, ..) => Err(UnsealError::UnknownSuite {
            name: name(),
            suite,
            chunk_log,
        }),
        _ => Err(UnsealError::UnknownFormat {
            name: name(),
            version,
        }),
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn name_check(name: &str) -> [u8; 16] {
    let digest = digest(&[b"backstay/1/name\0", name.as_bytes()].concat());
    let mut check = [0; 16];
    check.copy_from_slice(&digest.0[..16]);
    check
}

/// The length of the container of so much plaintext.
pub fn container_length(plaintext: u64) -> u64 {
    let tags = chunk_count(plaintext).saturating_mul(TAG as u64);
    plaintext
        .saturating_add(tags)
        .saturating_add(HEADER_LENGTH as u64)
}

/// The plaintext of a container of this length; none if no container is so long.
pub fn plaintext_length(container: u64) -> Option<u64> {
    let body = container.checked_sub(HEADER_LENGTH as u64)?;
    let chunks = body.div_ceil(SEALED_CHUNK as u64).max(1);
    let plaintext = body.checked_sub(chunks * TAG as u64)?;
    (container_length(plaintext) == container && plaintext <= u64::from(u32::MAX)).then_some(plaintext)
}

/// Chunks of so much plaintext: an empty one has one empty chunk.
pub(crate) fn chunk_count(plaintext: u64) -> u64 {
    plaintext.div_ceil(CHUNK as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_belongs_to_a_container_only_if_a_plaintext_gives_it() {
        let mut last = 0;
        for plaintext in (0..3).chain(65_530..65_540).chain(131_066..131_080) {
            let container = container_length(plaintext);
            assert!(container > last, "{plaintext}");
            assert_eq!(plaintext_length(container), Some(plaintext));
            last = container;
        }
        // Between one full chunk and two chunks lie lengths that would hold a second chunk of nothing.
        let full = container_length(CHUNK as u64);
        for more in 1..=16 {
            assert_eq!(plaintext_length(full + more), None, "{more}");
        }
        assert_eq!((plaintext_length(0), plaintext_length(127)), (None, None));
        assert_eq!(plaintext_length(u64::MAX), None);
        assert_eq!(container_length(u64::MAX), u64::MAX);
    }
}
