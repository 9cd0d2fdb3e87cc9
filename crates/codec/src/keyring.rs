//! A passphrase's key-encryption key, kept in the repository under `keyring/`.
//!
//! Promise: the JSON of the format document, section 3; scrypt's cost is bounded when reading, so a planted object
//! cannot exhaust memory.

use crate::base64_text::{from_base64, to_base64};
use crate::container::cipher;
use crate::key::{SecretKey, derive};
use crate::random::{NoRandomness, random_bytes};
use crate::wrap::master_key_id;
use aws_lc_rs::aead::{Aad, Nonce};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A passphrase.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Passphrase(String);

impl Passphrase {
    /// The passphrase, as typed.
    pub fn new(text: String) -> Passphrase {
        Passphrase(text)
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A keyring object cannot be made, read or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// It is not one.
    #[error("it is not a keyring object: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// It would cost too much or too little.
    #[error("its scrypt cost is outside what is accepted (log_n 14 to 20, r 8, p 1)")]
    Cost,
    /// The passphrase is another one.
    #[error("the passphrase does not open it")]
    WrongPassphrase,
    /// No randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// A keyring object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyring {
    format: u32,
    id: String,
    kdf: String,
    log_n: u8,
    r: u32,
    p: u32,
    salt: String,
    kek_id: String,
    wrap: String,
}

const LOG_N: u8 = 16;

impl Keyring {
    /// Makes a new key and seals it under the passphrase.
    pub fn create(id: &str, passphrase: &Passphrase) -> Result<(Keyring, SecretKey), KeyringError> {
        let (salt, key): ([u8; 16], SecretKey) = (random_bytes()?, SecretKey::generate()?);
        let sealing = sealing_key(passphrase, &salt, id, LOG_N)?;
        let mut wrap = key.bytes().to_vec();
        let tag = cipher(&sealing).seal_in_place_separate_tag(zero_nonce(), Aad::empty(), &mut wrap);
        wrap.extend_from_slice(tag.map_err(|_| KeyringError::Cost)?.as_ref());
        let keyring = Keyring {
            format: 1,
            id: id.to_owned(),
            kdf: "scrypt".into(),
            log_n: LOG_N,
            r: 8,
            p: 1,
            salt: to_base64(&salt),
            kek_id: master_key_id(&key),
            wrap: to_base64(&wrap),
        };
        Ok((keyring, key))
    }

    /// Opens it; takes the time and memory (64 MiB) of one scrypt.
    pub fn open(&self, passphrase: &Passphrase) -> Result<SecretKey, KeyringError> {
        let malformed = |what: &str| KeyringError::Malformed { what: what.into() };
        let salt = from_base64(&self.salt).ok_or_else(|| malformed("its salt is not base64"))?;
        let mut wrap =
            Zeroizing::new(from_base64(&self.wrap).ok_or_else(|| malformed("its wrap is not base64"))?);
        let sealing = sealing_key(passphrase, &salt, &self.id, self.log_n)?;
        let opened = cipher(&sealing).open_in_place(zero_nonce(), Aad::empty(), &mut wrap);
        let bytes = opened.map_err(|_| KeyringError::WrongPassphrase)?;
        let bytes: [u8; 32] = (&*bytes)
            .try_into()
            .map_err(|_| malformed("its key has another length"))?;
        let key = SecretKey::new(bytes);
        if master_key_id(&key) != self.kek_id {
            return Err(malformed("its key has another id"));
        }
        Ok(key)
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The object's bytes.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a keyring is made of texts and numbers")
    }

    /// Reads an object.
    pub fn from_json(json: &[u8]) -> Result<Keyring, KeyringError> {
        let malformed = |what: String| KeyringError::Malformed { what };
        let keyring: Keyring = serde_json::from_slice(json).map_err(|e| malformed(e.to_string()))?;
        if keyring.format != 1 || keyring.kdf != "scrypt" {
            return Err(malformed(format!(
                "format {} with {} is not known",
                keyring.format, keyring.kdf
            )));
        }
        if !(14..=20).contains(&keyring.log_n) || (keyring.r, keyring.p) != (8, 1) {
            return Err(KeyringError::Cost);
        }
        Ok(keyring)
    }
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn sealing_key(
    passphrase: &Passphrase,
    salt: &[u8],
    id: &str,
    log_n: u8,
) -> Result<Zeroizing<[u8; 32]>, KeyringError> {
    let params = scrypt::Params::new(log_n, 8, 1).map_err(|_| KeyringError::Cost)?;
    let (mut stretched, mut key) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
    scrypt::scrypt(passphrase.0.as_bytes(), salt, &params, stretched.as_mut())
        .map_err(|_| KeyringError::Cost)?;
    derive(
        stretched.as_ref(),
        salt,
        &[b"backstay/1/keyring\0", id.as_bytes()],
        key.as_mut(),
    );
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyring_opens_with_its_passphrase_alone() {
        let right = Passphrase::new("correct horse".into());
        let (keyring, key) = Keyring::create("abcdefghij", &right).unwrap();
        let read = Keyring::from_json(&keyring.to_json()).unwrap();
        assert_eq!(read.open(&right), Ok(key));
        assert_eq!(
            read.open(&Passphrase::new("wrong".into())),
            Err(KeyringError::WrongPassphrase)
        );
    }

    #[test]
    fn a_planted_cost_is_refused_before_it_is_paid() {
        let (keyring, _) = Keyring::create("abcdefghij", &Passphrase::new("x".into())).unwrap();
        let planted = Keyring { log_n: 40, ..keyring };
        assert_eq!(Keyring::from_json(&planted.to_json()), Err(KeyringError::Cost));
    }
}
