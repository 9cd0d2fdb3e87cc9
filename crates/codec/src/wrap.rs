//! One wrap of an envelope: the envelope's keys, sealed for one recipient.
//!
//! Promise: the JSON of the format document, section 3; a wrap opens only for its recipient and its envelope, and what comes out
//! are the keys and the repository that it states (KEY-3).

use crate::age::{self, AgeError};
use crate::base64_text::{from_base64, to_base64};
use crate::digest::unhex;
use crate::key::{KeyClass, KeyId, KeySet, SecretKey, derive};
use crate::once::{open_once, seal_once};
use crate::random::{NoRandomness, random_bytes};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use zeroize::Zeroizing;

/// Random bytes before a symmetric wrap.
const SALT: usize = 32;

/// Bytes after what is sealed.
const TAG: usize = 16;

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
    /// What is in it is not what it states.
    #[error("the keys or the repository in it are not the ones that it states")]
    OtherKeys,
    /// The age recipient, identity or file cannot be used.
    #[error(transparent)]
    Age(#[from] AgeError),
    /// No randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl WrapError {
    /// What a person can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => {
                "restore the wrap from a copy; another wrap of the same envelope serves as well"
            }
            Self::OtherRecipient { .. } | Self::Refused => {
                "open it with the key of the recipient that it names"
            }
            Self::OtherKeys => "somebody planted or damaged this wrap: use another wrap of the envelope",
            Self::Age(error) => error.advice(),
            Self::NoRandomness(_) => "run on a machine whose random number generator works",
        }
    }
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

/// What a wrap is made for, beside its recipient.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The envelope.
    pub envelope: &'a str,
    /// The id of the repository; earlier versions did not tell.
    pub repository: Option<&'a str>,
}

impl<'a> From<&'a str> for Binding<'a> {
    fn from(envelope: &'a str) -> Binding<'a> {
        Binding {
            envelope,
            repository: None,
        }
    }
}

/// One wrap; the order of its fields is the order in the JSON.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrap {
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
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

impl Wrap {
    /// Wraps for a raw key.
    pub fn raw<'a>(of: impl Into<Binding<'a>>, master: &SecretKey, keys: &KeySet) -> Result<Wrap, WrapError> {
        Self::symmetric(of.into(), recipient("raw", &master.master_key_id()), master, keys)
    }

    /// Wraps for a passphrase's key from the keyring.
    pub fn passphrase<'a>(
        of: impl Into<Binding<'a>>,
        id: &str,
        key: &SecretKey,
        keys: &KeySet,
    ) -> Result<Wrap, WrapError> {
        Self::symmetric(of.into(), recipient("passphrase", id), key, keys)
    }

    /// Wraps for an age X25519 recipient.
    pub fn age<'a>(of: impl Into<Binding<'a>>, to: &str, keys: &KeySet) -> Result<Wrap, WrapError> {
        let mut wrap = Self::new(of.into(), recipient("age", to), keys);
        wrap.wrap = to_base64(&age::encrypt(to, wrap.lines(keys).as_bytes())?);
        Ok(wrap)
    }

    /// Writes the keys in clear.
    pub fn none<'a>(of: impl Into<Binding<'a>>, keys: &KeySet) -> Result<Wrap, WrapError> {
        let mut wrap = Self::new(of.into(), recipient("none", "none"), keys);
        wrap.wrap = to_base64(wrap.lines(keys).as_bytes());
        Ok(wrap)
    }

    /// Opens with a raw key.
    pub fn open_raw(&self, envelope: &str, master: &SecretKey) -> Result<KeySet, WrapError> {
        self.open_symmetric(envelope, recipient("raw", &master.master_key_id()), master)
    }

    /// Opens with a passphrase's key from the keyring.
    pub fn open_passphrase(&self, envelope: &str, id: &str, key: &SecretKey) -> Result<KeySet, WrapError> {
        self.open_symmetric(envelope, recipient("passphrase", id), key)
    }

    /// Opens with an age identity (`AGE-SECRET-KEY-1…`) or an identity file's text. The age file in the wrap decides
    /// whether it opens: it may be for more recipients than the one that the wrap names.
    pub fn open_age(&self, envelope: &str, identity: &str) -> Result<KeySet, WrapError> {
        self.check_recipient(envelope, &recipient("age", &self.recipient.id))?;
        match age::decrypt(identity, &self.sealed()?) {
            Ok(opened) => self.keys_in(&opened),
            Err(error @ (AgeError::Identity | AgeError::OtherKind { .. })) => Err(error.into()),
            Err(_) => Err(WrapError::Refused),
        }
    }

    /// Reads a wrap that is not encrypted.
    pub fn open_none(&self, envelope: &str) -> Result<KeySet, WrapError> {
        self.check_recipient(envelope, &recipient("none", "none"))?;
        self.keys_in(&Zeroizing::new(self.sealed()?))
    }

    /// Refuses a wrap that nobody can open, as far as that is seen without its key.
    ///
    /// # Errors
    /// `Malformed` or `Age`.
    pub fn check_form(&self) -> Result<(), WrapError> {
        let sealed = self.sealed()?;
        let stated = [
            (KeyClass::Data, self.key_ids.data),
            (KeyClass::Index, self.key_ids.index),
            (KeyClass::Facts, self.key_ids.facts),
        ];
        let line = |class: KeyClass| class.name().len() + " ".len() + 64 + "\n".len();
        let stated = stated.iter().filter(|(_, id)| id.is_some());
        let of_keys: usize = stated.map(|(class, _)| line(*class)).sum();
        let content = of_keys + self.repository_line().len();
        let expected = match self.recipient.kind.as_str() {
            "age" => return Ok(age::check_form(&sealed, content)?),
            "raw" | "passphrase" => SALT + content + TAG,
            "none" => content,
            _ => return Ok(()),
        };
        match sealed.len() == expected {
            true => Ok(()),
            false => Err(WrapError::Malformed {
                what: format!("its wrap has {} bytes instead of {expected}", sealed.len()),
            }),
        }
    }

    /// Who can open it.
    pub fn recipient(&self) -> &RecipientName {
        &self.recipient
    }

    /// The id of the repository that it says it belongs to; earlier versions did not tell.
    pub fn repository(&self) -> Option<&str> {
        self.repository.as_deref()
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

    /// A wrap that is still without its content.
    fn new(of: Binding<'_>, recipient: RecipientName, keys: &KeySet) -> Wrap {
        Wrap {
            format: 1,
            repository: of.repository.map(str::to_owned),
            envelope: of.envelope.to_owned(),
            recipient,
            key_ids: KeyIds::of(keys),
            wrap: String::new(),
        }
    }

    fn symmetric(
        of: Binding<'_>,
        recipient: RecipientName,
        kek: &SecretKey,
        keys: &KeySet,
    ) -> Result<Wrap, WrapError> {
        let salt: [u8; SALT] = random_bytes()?;
        let mut wrap = Self::new(of, recipient, keys);
        let key = wrap.wrapping_key(kek, &salt);
        let sealed = seal_once(&key, wrap.key_ids.json().as_bytes(), wrap.lines(keys).as_bytes());
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
        let (salt, body) = sealed.split_at_checked(SALT).ok_or(WrapError::Refused)?;
        let key = self.wrapping_key(kek, salt);
        let opened = open_once(&key, self.key_ids.json().as_bytes(), body);
        self.keys_in(&opened.ok_or(WrapError::Refused)?)
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

    /// What is wrapped: a line a key, and one of the repository.
    fn lines(&self, keys: &KeySet) -> Zeroizing<String> {
        let mut text = lines(keys);
        text.push_str(&self.repository_line());
        text
    }

    fn repository_line(&self) -> String {
        let id = self.repository.as_ref();
        id.map_or_else(String::new, |id| format!("repository {id}\n"))
    }

    fn keys_in(&self, text: &[u8]) -> Result<KeySet, WrapError> {
        let of_keys = text.strip_suffix(self.repository_line().as_bytes());
        let keys = of_keys.and_then(parse_lines).ok_or(WrapError::OtherKeys)?;
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

/// `data <64 hex>` and so on, a line each.
fn lines(keys: &KeySet) -> Zeroizing<String> {
    // Room for every line from the start: a text that grows leaves copies of its secrets behind.
    let mut text = Zeroizing::new(String::with_capacity(4 * 72));
    for class in KeyClass::ALL {
        let Some(key) = keys.get(class) else { continue };
        text.push_str(class.name());
        text.push(' ');
        for byte in key.bytes() {
            write!(text, "{byte:02x}").expect("a String takes what is written to it");
        }
        text.push('\n');
    }
    text
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
mod tests;
