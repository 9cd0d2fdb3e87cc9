//! One wrap of an envelope: the envelope's keys, sealed for one recipient.
//!
//! Promise: the JSON of the format document, section 3; a wrap opens only for its recipient and its envelope, and
//! the keys that come out have the ids that it states (KEY-3).

use crate::age;
use crate::base64_text::{from_base64, to_base64};
use crate::container::cipher;
use crate::digest::{hex, unhex};
use crate::key::{KeyClass, KeyId, KeySet, SecretKey, derive};
use crate::random::{NoRandomness, random_bytes};
use aws_lc_rs::aead::{Aad, Nonce};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

/// A wrap cannot be made, read or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    /// The JSON is not a wrap.
    #[error("it is not a key wrap: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// It was made for somebody or something else.
    #[error("it was made for {found}")]
    OtherRecipient {
        /// For whom.
        found: String,
    },
    /// It does not open.
    #[error("it does not open with this key: the key is another one, or the wrap was changed")]
    Refused,
    /// The keys in it are not the ones that it states.
    #[error("the keys in it are not the ones that it states")]
    OtherKeys,
    /// The recipient cannot be used.
    #[error("{what}")]
    Recipient {
        /// Why.
        what: String,
    },
    /// No randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Who can open a wrap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipientName {
    /// `raw`, `passphrase`, `age` or `none`.
    pub kind: String,
    /// Which one.
    pub id: String,
}

impl fmt::Display for RecipientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// The ids of the keys in a wrap; the order of its fields is the order in the JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct KeyIds {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<KeyId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<KeyId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    facts: Option<KeyId>,
}

impl KeyIds {
    fn of(keys: &KeySet) -> KeyIds {
        let id = |key: &Option<SecretKey>| key.as_ref().map(SecretKey::id);
        KeyIds {
            data: id(&keys.data),
            index: id(&keys.index),
            facts: id(&keys.facts),
        }
    }

    fn json(&self) -> String {
        serde_json::to_string(self).expect("three optional texts are always JSON")
    }
}

/// One wrap.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrap {
    format: u32,
    envelope: String,
    recipient: RecipientName,
    key_ids: KeyIds,
    wrap: String,
}

// The wrap of the recipient `none` is the keys themselves.
impl fmt::Debug for Wrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wrap of {} for {}", self.envelope, self.recipient)
    }
}

/// The public id of a master key: `HKDF-SHA256(key, salt "", info "backstay/1/kek-id", 8)` in hex.
pub(crate) fn master_key_id(key: &SecretKey) -> String {
    let mut id = [0; 8];
    derive(key.bytes(), &[], &[b"backstay/1/kek-id"], &mut id);
    hex(&id)
}

impl SecretKey {
    /// The id by which wraps name this key when it is a master key.
    pub fn master_key_id(&self) -> String {
        master_key_id(self)
    }
}

impl Wrap {
    /// Wraps for a master key.
    pub fn raw(envelope: &str, master: &SecretKey, keys: &KeySet) -> Result<Wrap, WrapError> {
        Self::symmetric(envelope, recipient("raw", &master_key_id(master)), master, keys)
    }

    /// Wraps for a passphrase's key from the keyring.
    pub fn passphrase(envelope: &str, id: &str, key: &SecretKey, keys: &KeySet) -> Result<Wrap, WrapError> {
        Self::symmetric(envelope, recipient("passphrase", id), key, keys)
    }

    /// Wraps for an age X25519 recipient.
    pub fn age(envelope: &str, to: &str, keys: &KeySet) -> Result<Wrap, WrapError> {
        let sealed = age::encrypt(to, lines(keys).as_bytes())
            .map_err(|e| WrapError::Recipient { what: e.to_string() })?;
        Ok(Self::new(
            envelope,
            recipient("age", to),
            keys,
            to_base64(&sealed),
        ))
    }

    /// Writes the keys in clear.
    pub fn none(envelope: &str, keys: &KeySet) -> Result<Wrap, WrapError> {
        Ok(Self::new(
            envelope,
            recipient("none", "none"),
            keys,
            to_base64(lines(keys).as_bytes()),
        ))
    }

    /// Opens with a master key.
    pub fn open_raw(&self, envelope: &str, master: &SecretKey) -> Result<KeySet, WrapError> {
        self.open_symmetric(envelope, recipient("raw", &master_key_id(master)), master)
    }

    /// Opens with a passphrase's key from the keyring.
    pub fn open_passphrase(&self, envelope: &str, id: &str, key: &SecretKey) -> Result<KeySet, WrapError> {
        self.open_symmetric(envelope, recipient("passphrase", id), key)
    }

    /// Opens with an age identity (`AGE-SECRET-KEY-1…`).
    pub fn open_age(&self, envelope: &str, identity: &str) -> Result<KeySet, WrapError> {
        if self.recipient.kind != "age" || self.envelope != envelope {
            return Err(WrapError::OtherRecipient {
                found: self.recipient.to_string(),
            });
        }
        let opened = age::decrypt(identity, &self.sealed()?).map_err(|_| WrapError::Refused)?;
        self.keys_in(&opened)
    }

    /// Reads a wrap that is not encrypted.
    pub fn open_none(&self, envelope: &str) -> Result<KeySet, WrapError> {
        self.check_recipient(envelope, &recipient("none", "none"))?;
        self.keys_in(&Zeroizing::new(self.sealed()?))
    }

    /// Who can open it.
    pub fn recipient(&self) -> &RecipientName {
        &self.recipient
    }

    /// The envelope that it says it belongs to.
    pub fn envelope(&self) -> &str {
        &self.envelope
    }

    /// The object's bytes.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a wrap is made of texts")
    }

    /// Reads an object.
    pub fn from_json(json: &[u8]) -> Result<Wrap, WrapError> {
        let malformed = |what: String| WrapError::Malformed { what };
        let wrap: Wrap = serde_json::from_slice(json).map_err(|e| malformed(e.to_string()))?;
        if wrap.format != 1 {
            return Err(malformed(format!("format version {} is not known", wrap.format)));
        }
        Ok(wrap)
    }

    fn new(envelope: &str, recipient: RecipientName, keys: &KeySet, wrap: String) -> Wrap {
        Wrap {
            format: 1,
            envelope: envelope.to_owned(),
            recipient,
            key_ids: KeyIds::of(keys),
            wrap,
        }
    }

    fn symmetric(
        envelope: &str,
        recipient: RecipientName,
        kek: &SecretKey,
        keys: &KeySet,
    ) -> Result<Wrap, WrapError> {
        let salt: [u8; 32] = random_bytes()?;
        let mut wrap = Self::new(envelope, recipient, keys, String::new());
        let mut sealed = lines(keys).as_bytes().to_vec();
        let aad = Aad::from(wrap.key_ids.json());
        let tag =
            cipher(&wrap.wrapping_key(kek, &salt)).seal_in_place_separate_tag(zero_nonce(), aad, &mut sealed);
        sealed.extend_from_slice(tag.map_err(|_| WrapError::Refused)?.as_ref());
        wrap.wrap = to_base64(&[&salt[..], &sealed].concat());
        Ok(wrap)
    }

    fn open_symmetric(
        &self,
        envelope: &str,
        by: RecipientName,
        kek: &SecretKey,
    ) -> Result<KeySet, WrapError> {
        self.check_recipient(envelope, &by)?;
        let sealed = self.sealed()?;
        let (salt, body) = sealed.split_at_checked(32).ok_or(WrapError::Refused)?;
        let mut body = Zeroizing::new(body.to_vec());
        let aad = Aad::from(self.key_ids.json());
        let key = self.wrapping_key(kek, salt);
        let opened = cipher(&key)
            .open_in_place(zero_nonce(), aad, &mut body)
            .map_err(|_| WrapError::Refused)?;
        self.keys_in(opened)
    }

    fn check_recipient(&self, envelope: &str, by: &RecipientName) -> Result<(), WrapError> {
        if self.recipient == *by && self.envelope == envelope {
            return Ok(());
        }
        Err(WrapError::OtherRecipient {
            found: format!("{} of {}", self.recipient, self.envelope),
        })
    }

    fn wrapping_key(&self, kek: &SecretKey, salt: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        let RecipientName { kind, id } = &self.recipient;
        let info: [&[u8]; 6] = [
            b"backstay/1/wrap\0",
            self.envelope.as_bytes(),
            b"\0",
            kind.as_bytes(),
            b"\0",
            id.as_bytes(),
        ];
        derive(kek.bytes(), salt, &info, key.as_mut());
        key
    }

    fn sealed(&self) -> Result<Vec<u8>, WrapError> {
        from_base64(&self.wrap).ok_or_else(|| WrapError::Malformed {
            what: "its wrap is not base64".into(),
        })
    }

    fn keys_in(&self, text: &[u8]) -> Result<KeySet, WrapError> {
        let keys = parse_lines(text).ok_or(WrapError::OtherKeys)?;
        if KeyIds::of(&keys) != self.key_ids || keys.is_empty() {
            return Err(WrapError::OtherKeys);
        }
        Ok(keys)
    }
}

fn recipient(kind: &str, id: &str) -> RecipientName {
    RecipientName {
        kind: kind.to_owned(),
        id: id.to_owned(),
    }
}

/// The key is unique to the wrap, so the nonce may be constant.
fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// `data <64 hex>` and so on, a line each.
fn lines(keys: &KeySet) -> Zeroizing<String> {
    let held = KeyClass::ALL
        .into_iter()
        .filter_map(|class| keys.get(class).map(|key| (class, key)));
    Zeroizing::new(
        held.map(|(class, key)| format!("{} {}\n", class.name(), hex(key.bytes())))
            .collect(),
    )
}

fn parse_lines(text: &[u8]) -> Option<KeySet> {
    let mut keys = KeySet::default();
    for line in std::str::from_utf8(text).ok()?.lines() {
        let (name, digits) = line.split_once(' ')?;
        let class = KeyClass::ALL.into_iter().find(|class| class.name() == name)?;
        let slot = keys.slot(class);
        if slot.is_some() {
            return None;
        }
        *slot = Some(SecretKey::new(unhex(digits)?));
    }
    Some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> KeySet {
        KeySet::generate(&KeyClass::ALL).unwrap()
    }

    #[test]
    fn a_wrap_opens_for_its_master_key_and_its_envelope_alone() {
        let (master, other, keys) = (SecretKey::new([1; 32]), SecretKey::new([2; 32]), keys());
        let wrap = Wrap::from_json(&Wrap::raw("postgres/a/g", &master, &keys).unwrap().to_json()).unwrap();
        assert_eq!(wrap.open_raw("postgres/a/g", &master), Ok(keys));
        assert!(matches!(
            wrap.open_raw("postgres/a/g", &other),
            Err(WrapError::OtherRecipient { .. })
        ));
        assert!(matches!(
            wrap.open_raw("postgres/b/g", &master),
            Err(WrapError::OtherRecipient { .. })
        ));
    }

    #[test]
    fn a_wrap_does_not_print_the_keys_that_lie_open_in_it() {
        let wrap = Wrap::none("facts/2026-11", &keys()).unwrap();
        assert_eq!(format!("{wrap:?}"), "Wrap of facts/2026-11 for none none");
    }

    #[test]
    fn every_changed_byte_of_a_wrap_is_refused() {
        let (master, keys) = (SecretKey::new([1; 32]), keys());
        let wrap = Wrap::raw("e", &master, &keys).unwrap();
        let sealed = wrap.sealed().unwrap();
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            let planted = Wrap {
                wrap: to_base64(&changed),
                ..wrap.clone()
            };
            assert_eq!(
                planted.open_raw("e", &master),
                Err(WrapError::Refused),
                "byte {place}"
            );
        }
    }

    #[test]
    fn planted_key_ids_are_refused() {
        let (master, keys) = (SecretKey::new([1; 32]), keys());
        let wrap = Wrap::raw("e", &master, &keys).unwrap();
        let planted = Wrap {
            key_ids: KeyIds {
                index: None,
                ..wrap.key_ids.clone()
            },
            ..wrap
        };
        assert_eq!(planted.open_raw("e", &master), Err(WrapError::Refused));
        let clear = Wrap::none("e", &keys).unwrap();
        let planted = Wrap {
            key_ids: KeyIds {
                index: None,
                ..clear.key_ids.clone()
            },
            ..clear
        };
        assert_eq!(planted.open_none("e"), Err(WrapError::OtherKeys));
    }
}
