//! Pure bytes to bytes: frames, sealing, keys, digests.
//!
//! Promise: `docs/internals/repository-format.md`, sections 2 and 3; no input makes it panic; no secret is printed.
//! Not here: names and order of writes (backstay-repository), objects (backstay-store), time.

mod age;
mod base64_text;
mod container;
mod digest;
mod frame;
mod header;
mod key;
mod keyring;
mod kind;
mod master_key;
mod once;
mod open;
mod random;
mod seal_buffer;
mod unseal_error;
mod wrap;

pub use age::{AgeError, AgeIdentity, age_recipient_of, check_age_recipient};
pub use container::{SealError, seal, seal_proven, split_container, unseal};
pub use digest::{Digest, Sha256, digest, digest_hex};
pub use frame::{Compressor, Decompressor, FRAME_PLAINTEXT, FrameError};
pub use header::{CHUNK, HEADER_LENGTH, Header, SEALED_CHUNK, container_length, plaintext_length};
pub use key::{KeyClass, KeyId, KeySet, Salt, SecretKey};
pub use keyring::{Keyring, KeyringError, Passphrase};
pub use kind::Kind;
pub use master_key::{MasterKeyError, parse_master_key, print_master_key};
pub use open::Opener;
pub use random::{NoRandomness, random_bytes, random_u64};
pub use seal_buffer::SealBuffer;
pub use unseal_error::{Cause, UnsealError};
pub use wrap::{Binding, RecipientName, Wrap, WrapError};
