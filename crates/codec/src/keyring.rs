//! A passphrase's key-encryption key, kept in the repository under `keyring/`.
//!
//! Promise: the JSON of the format document, section 3; scrypt's cost is bounded when reading, so a planted object
//! cannot exhaust memory.

use crate::base64_text::{from_base64, to_base64};
use crate::key::{SecretKey, derive};
use crate::once::{open_once, seal_once};
use crate::random::{NoRandomness, random_bytes};
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

impl KeyringError {
    /// What a person can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::WrongPassphrase => {
                "type the passphrase again; nobody can recover it, but another recipient's key also opens the backups"
            }
            Self::Malformed { .. } => {
                "restore the object from a copy of the repository, or open the backups with another recipient's key"
            }
            Self::Cost => "somebody changed the object: restore it from a copy of the repository",
            Self::NoRandomness(_) => "run on a machine whose random number generator works",
        }
    }
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
        let wrap = seal_once(&sealing, &[], key.bytes());
        let keyring = Keyring {
            format: 1,
            id: id.to_owned(),
            kdf: "scrypt".into(),
            log_n: LOG_N,
            r: 8,
            p: 1,
            salt: to_base64(&salt),
            kek_id: key.master_key_id(),
            wrap: to_base64(&wrap),
        };
        Ok((keyring, key))
    }

    /// Opens it; takes the time and memory (64 MiB) of one scrypt.
    pub fn open(&self, passphrase: &Passphrase) -> Result<SecretKey, KeyringError> {
        let malformed = |what: &str| KeyringError::Malformed { what: what.into() };
        let salt: [u8; 16] = from_base64(&self.salt)
            .and_then(|salt| salt.try_into().ok())
            .ok_or_else(|| malformed("its salt is not base64 of 16 bytes"))?;
        let wrap = from_base64(&self.wrap).ok_or_else(|| malformed("its wrap is not base64"))?;
        let sealing = sealing_key(passphrase, &salt, &self.id, self.log_n)?;
        let opened = open_once(&sealing, &[], &wrap).ok_or(KeyringError::WrongPassphrase)?;
        let bytes = opened.as_slice().try_into();
        let key = SecretKey::new(bytes.map_err(|_| malformed("its key has another length"))?);
        if key.master_key_id() != self.kek_id {
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

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(text.into())
    }

    #[test]
    fn a_keyring_opens_with_its_passphrase_alone() {
        let right = passphrase("correct horse");
        let (keyring, key) = Keyring::create("abcdefghij", &right).unwrap();
        let read = Keyring::from_json(&keyring.to_json()).unwrap();
        assert_eq!(read.open(&right), Ok(key));
        assert_eq!(
            read.open(&passphrase("wrong")),
            Err(KeyringError::WrongPassphrase)
        );
        let renamed = Keyring {
            id: "abcdefghik".into(),
            ..read
        };
        assert_eq!(renamed.open(&right), Err(KeyringError::WrongPassphrase));
    }

    #[test]
    fn a_planted_cost_is_refused_before_it_is_paid() {
        let (keyring, _) = Keyring::create("abcdefghij", &passphrase("x")).unwrap();
        let planted = |log_n, r, p| Keyring {
            log_n,
            r,
            p,
            ..keyring.clone()
        };
        for costs in [
            (13, 8, 1),
            (21, 8, 1),
            (40, 8, 1),
            (16, 9, 1),
            (16, 8, 2),
            (16, 0, 0),
        ] {
            let planted = planted(costs.0, costs.1, costs.2);
            assert_eq!(
                Keyring::from_json(&planted.to_json()),
                Err(KeyringError::Cost),
                "{costs:?}"
            );
        }
        assert!(Keyring::from_json(&planted(14, 8, 1).to_json()).is_ok());
    }

    #[test]
    fn a_planted_field_is_malformed_and_never_a_panic() {
        let right = passphrase("x");
        let (keyring, _) = Keyring::create("abcdefghij", &right).unwrap();
        let short = Keyring {
            salt: to_base64(&[0; 15]),
            ..keyring.clone()
        };
        let garbled = Keyring {
            wrap: "%".into(),
            ..keyring.clone()
        };
        let empty = Keyring {
            wrap: String::new(),
            log_n: 14,
            ..keyring.clone()
        };
        let other = Keyring {
            kek_id: "0".repeat(16),
            ..keyring
        };
        assert!(matches!(short.open(&right), Err(KeyringError::Malformed { .. })));
        assert!(matches!(
            garbled.open(&right),
            Err(KeyringError::Malformed { .. })
        ));
        assert_eq!(empty.open(&right), Err(KeyringError::WrongPassphrase));
        assert!(matches!(other.open(&right), Err(KeyringError::Malformed { .. })));
        for json in ["", "{}", "[]", "null", "{\"format\":2}"] {
            assert!(Keyring::from_json(json.as_bytes()).is_err(), "{json}");
        }
    }
}
