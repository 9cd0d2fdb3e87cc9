//! Seals plaintext into a container and opens whole containers.
//!
//! Promise: `unseal(seal(x)) == x`; a container that was shortened, lengthened, reordered, changed, renamed or given
//! another key is refused. `seal_proven` opens what it sealed before handing it out (REPO-3).

use crate::header::{HEADER_LENGTH, Header, Kind, UnsealError, container_length};
use crate::key::{Salt, SecretKey};
use crate::open::{Opener, nonce, object_keys};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, UnboundKey};

/// Plaintext cannot be sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// More than a container may hold.
    #[error("{name} would hold {length} bytes; a container holds at most {max}", max = u32::MAX)]
    TooLong {
        /// The logical name.
        name: String,
        /// The length.
        length: usize,
    },
    /// The sealed bytes did not open to what was sealed.
    #[error("{name} does not open to what was sealed: memory or processor is faulty")]
    Faulty {
        /// The logical name.
        name: String,
    },
}

/// Seals `plaintext`.
pub fn seal(
    kind: Kind,
    key: &SecretKey,
    name: &str,
    salt: &Salt,
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    let too_long = |_| SealError::TooLong {
        name: name.to_owned(),
        length: plaintext.len(),
    };
    let length = u32::try_from(plaintext.len()).map_err(too_long)?;
    let header = Header::new(kind, length, key.id(), name, *salt);
    let (object_key, commitment) = object_keys(key, &header, name);
    let mut sealed = Vec::with_capacity(container_length(u64::from(length)) as usize);
    sealed.extend_from_slice(&header.bound());
    sealed.extend_from_slice(&salt.0);
    sealed.extend_from_slice(&commitment);
    let cipher = cipher(&object_key);
    let chunks = plaintext.chunks(crate::CHUNK).collect::<Vec<_>>();
    let chunks = if chunks.is_empty() { vec![&[][..]] } else { chunks };
    for (number, chunk) in chunks.iter().enumerate() {
        let begins = sealed.len();
        sealed.extend_from_slice(chunk);
        let nonce = nonce(number as u64, number + 1 == chunks.len());
        let tag = sealed
            .get_mut(begins..)
            .map(|chunk| cipher.seal_in_place_separate_tag(nonce, Aad::empty(), chunk));
        let faulty = || SealError::Faulty {
            name: name.to_owned(),
        };
        let tag = tag.ok_or_else(faulty)?.map_err(|_| faulty())?;
        sealed.extend_from_slice(tag.as_ref());
    }
    Ok(sealed)
}

/// Seals `plaintext`, opens the result and compares.
pub fn seal_proven(
    kind: Kind,
    key: &SecretKey,
    name: &str,
    salt: &Salt,
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    let sealed = seal(kind, key, name, salt, plaintext)?;
    match unseal(kind, key, name, &sealed) {
        Ok(again) if again == plaintext => Ok(sealed),
        _ => Err(SealError::Faulty {
            name: name.to_owned(),
        }),
    }
}

/// Opens a whole container; nothing may follow it.
pub fn unseal(kind: Kind, key: &SecretKey, name: &str, bytes: &[u8]) -> Result<Vec<u8>, UnsealError> {
    let header = Header::read(bytes, name)?;
    header.check_kind(kind, name)?;
    let damaged = |what: String| UnsealError::Damaged {
        name: name.to_owned(),
        what,
    };
    if *header.key_id() != key.id() {
        return Err(UnsealError::WrongKey {
            name: name.to_owned(),
            found: *header.key_id(),
            given: key.id(),
        });
    }
    let expected = container_length(header.plaintext_length());
    if bytes.len() as u64 != expected {
        return Err(damaged(format!(
            "it is {} bytes long instead of {expected}",
            bytes.len()
        )));
    }
    let (_, commitment) = object_keys(key, &header, name);
    if bytes.get(80..HEADER_LENGTH) != Some(&commitment[..]) {
        return Err(damaged("its header was changed".into()));
    }
    let opener = Opener::new(kind, key, name, header.salt(), header.plaintext_length())?;
    opener.open_chunks(0, bytes.get(HEADER_LENGTH..).unwrap_or_default())
}

/// The first container of two that follow each other, and the rest.
pub fn split_container<'a>(name: &str, bytes: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), UnsealError> {
    let length = container_length(Header::read(bytes, name)?.plaintext_length());
    let split = usize::try_from(length)
        .ok()
        .and_then(|length| bytes.split_at_checked(length));
    split.ok_or_else(|| UnsealError::Damaged {
        name: name.to_owned(),
        what: "it ends within its first part".into(),
    })
}

pub(crate) fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("AES-256-GCM takes 32-byte keys"))
}

#[cfg(test)]
mod tests;
