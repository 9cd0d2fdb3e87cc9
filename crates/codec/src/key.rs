//! Keys: secret ones, their ids, their classes.
//!
//! Promise: a secret key is wiped when dropped, compares in constant time and prints as `***`.

use crate::digest::{hex, unhex};
use crate::random::{NoRandomness, random_bytes};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hkdf;
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// 32 secret bytes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// The key made of these bytes.
    pub fn new(bytes: [u8; 32]) -> SecretKey {
        SecretKey(bytes)
    }

    /// A new random key.
    pub fn generate() -> Result<SecretKey, NoRandomness> {
        random_bytes().map(SecretKey)
    }

    /// The key's public id: `HKDF-SHA256(key, salt "", info "backstay/1/key-id", 16)`.
    pub fn id(&self) -> KeyId {
        let mut id = [0; 16];
        derive(&self.0, &[], &[b"backstay/1/key-id"], &mut id);
        KeyId(id)
    }

    /// The id by which wraps name this key when it is a raw key:
    /// `HKDF-SHA256(key, salt "", info "backstay/1/kek-id", 8)` in hex.
    pub fn master_key_id(&self) -> String {
        let mut id = [0; 8];
        derive(&self.0, &[], &[b"backstay/1/kek-id"], &mut id);
        hex(&id)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for SecretKey {
    fn eq(&self, other: &SecretKey) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for SecretKey {}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The length of an HKDF output, as aws-lc-rs wants to be told it.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-SHA256 (RFC 5869) with up to a few hundred bytes of output.
pub(crate) fn derive(ikm: &[u8], salt: &[u8], info: &[&[u8]], output: &mut [u8]) {
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(ikm);
    prk.expand(info, Length(output.len()))
        .and_then(|okm| okm.fill(output))
        .expect("HKDF-SHA256 gives up to 8160 bytes, and no caller asks for more than 64");
}

/// A key's public id; 32 hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(pub [u8; 16]);

/// The random salt of a container; 64 hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Salt(pub [u8; 32]);

impl Salt {
    /// A new random salt.
    pub fn random() -> Result<Salt, NoRandomness> {
        random_bytes().map(Salt)
    }
}

macro_rules! hex_text {
    ($($name:ident: $what:literal),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                hex(&value.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = &'static str;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                unhex(&text).map($name).ok_or($what)
            }
        }
    )*};
}
hex_text!(KeyId: "a key id is 32 hexadecimal digits", Salt: "a salt is 64 hexadecimal digits");

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyClass {
    /// Packs, extents, file tables, server manifests, range bytes.
    Data,
    /// Page indexes.
    Index,
    /// Heads, pack lists, range indexes, runs and other facts.
    Facts,
}

impl KeyClass {
    /// Every class, in the order of a wrap's lines.
    pub const ALL: [KeyClass; 3] = [KeyClass::Data, KeyClass::Index, KeyClass::Facts];

    /// The word in wraps.
    pub fn name(self) -> &'static str {
        match self {
            KeyClass::Data => "data",
            KeyClass::Index => "index",
            KeyClass::Facts => "facts",
        }
    }
}

/// The keys of an envelope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet {
    /// The data key.
    pub data: Option<SecretKey>,
    /// The index key.
    pub index: Option<SecretKey>,
    /// The facts key.
    pub facts: Option<SecretKey>,
}

impl KeySet {
    /// New random keys of these classes.
    pub fn generate(classes: &[KeyClass]) -> Result<KeySet, NoRandomness> {
        let mut keys = KeySet::default();
        for class in classes {
            *keys.slot(*class) = Some(SecretKey::generate()?);
        }
        Ok(keys)
    }

    /// The key of a class.
    pub fn get(&self, class: KeyClass) -> Option<&SecretKey> {
        match class {
            KeyClass::Data => self.data.as_ref(),
            KeyClass::Index => self.index.as_ref(),
            KeyClass::Facts => self.facts.as_ref(),
        }
    }

    pub(crate) fn slot(&mut self, class: KeyClass) -> &mut Option<SecretKey> {
        match class {
            KeyClass::Data => &mut self.data,
            KeyClass::Index => &mut self.index,
            KeyClass::Facts => &mut self.facts,
        }
    }

    /// These keys, completed by others.
    pub fn or(self, other: KeySet) -> KeySet {
        KeySet {
            data: self.data.or(other.data),
            index: self.index.or(other.index),
            facts: self.facts.or(other.facts),
        }
    }

    /// True if there is no key.
    pub fn is_empty(&self) -> bool {
        self.data.is_none() && self.index.is_none() && self.facts.is_none()
    }

    /// True if both hold the same keys.
    pub fn same_keys(&self, other: &KeySet) -> bool {
        self == other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_key_does_not_print() {
        let keys = KeySet {
            data: Some(SecretKey::new([0xAB; 32])),
            ..KeySet::default()
        };
        assert_eq!(
            format!("{keys:?}"),
            "KeySet { data: Some(***), index: None, facts: None }"
        );
    }

    #[test]
    fn different_keys_have_different_ids() {
        assert_ne!(SecretKey::new([1; 32]).id(), SecretKey::new([2; 32]).id());
        assert_eq!(SecretKey::new([1; 32]).id(), SecretKey::new([1; 32]).id());
    }
}
