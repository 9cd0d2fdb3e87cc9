//! AES-256-GCM under a key that seals a single message.
//!
//! Promise: callers derive the key from a random salt, so that it is used once; therefore the nonce is constant.

use crate::open::cipher;
use aws_lc_rs::aead::{Aad, Nonce};
use zeroize::Zeroizing;

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// Ciphertext and tag.
pub(crate) fn seal_once(key: &[u8; 32], associated: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut sealed = plaintext.to_vec();
    let tag = cipher(key)
        .seal_in_place_separate_tag(zero_nonce(), Aad::from(associated), &mut sealed)
        .expect("AES-GCM seals up to 64 GiB, and wraps are a few hundred bytes");
    sealed.extend_from_slice(tag.as_ref());
    sealed
}

/// The plaintext; none if key, associated data or bytes are other ones.
pub(crate) fn open_once(key: &[u8; 32], associated: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(sealed.to_vec());
    let length = cipher(key)
        .open_in_place(zero_nonce(), Aad::from(associated), &mut bytes)
        .ok()?
        .len();
    bytes.truncate(length);
    Some(bytes)
}
