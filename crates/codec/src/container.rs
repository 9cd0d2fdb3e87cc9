//! Seals plaintext into a container and opens whole containers.
//!
//! Promise: `unseal(seal(x)) == x`; a container that was shortened, lengthened, reordered, changed, renamed or given
//! another key is refused. `seal_proven` opens what it sealed before handing it out (REPO-3).
//! Not here: parts of containers (open), plaintext that grows in place (seal_buffer).

use crate::header::{HEADER_LENGTH, Header, container_length};
use crate::key::{Salt, SecretKey};
use crate::kind::Kind;
use crate::open::Opener;
use crate::seal_buffer::{Proof, SealBuffer};
use crate::unseal_error::UnsealError;

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

impl SealError {
    /// What a person can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "report this: the program cuts objects long before this length",
            Self::Faulty { .. } => {
                "nothing was stored: test this machine's memory, and run on another machine"
            }
        }
    }

    pub(crate) fn too_long(name: &str, length: usize) -> SealError {
        let name = name.to_owned();
        Self::TooLong { name, length }
    }

    pub(crate) fn faulty(name: &str) -> SealError {
        Self::Faulty {
            name: name.to_owned(),
        }
    }
}

/// Seals `plaintext`. What is stored is sealed by `seal_proven`.
pub fn seal(
    kind: Kind,
    key: &SecretKey,
    name: &str,
    salt: &Salt,
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    filled(name, plaintext)?.seal_and(Proof::Nothing, kind, key, name, salt)
}

/// Seals `plaintext`, opens the result and compares.
pub fn seal_proven(
    kind: Kind,
    key: &SecretKey,
    name: &str,
    salt: &Salt,
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    filled(name, plaintext)?.seal_and(Proof::EveryChunk, kind, key, name, salt)
}

fn filled(name: &str, plaintext: &[u8]) -> Result<SealBuffer, SealError> {
    // Before anything is allocated: the caller may pass more than a container can hold.
    u32::try_from(plaintext.len()).map_err(|_| SealError::too_long(name, plaintext.len()))?;
    let mut buffer = SealBuffer::with_capacity(plaintext.len());
    buffer.append(plaintext);
    Ok(buffer)
}

/// Opens a whole container; nothing may follow it.
pub fn unseal(kind: Kind, key: &SecretKey, name: &str, bytes: &[u8]) -> Result<Vec<u8>, UnsealError> {
    let opener = Opener::of(kind, key, name, bytes)?;
    opener.open_chunks(0, bytes.get(HEADER_LENGTH..).unwrap_or_default())
}

/// The first container of two that follow each other, and the rest. Where it ends is not yet authenticated: opening
/// the first one does that.
pub fn split_container<'a>(name: &str, bytes: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), UnsealError> {
    let length = container_length(Header::read(bytes, name)?.plaintext_length());
    let split = usize::try_from(length)
        .ok()
        .and_then(|length| bytes.split_at_checked(length));
    split.ok_or_else(|| UnsealError::wrong_length(name, bytes.len() as u64, length))
}

#[cfg(test)]
mod tests;
