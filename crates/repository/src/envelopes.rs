//! Envelopes: makes, opens and adds wraps; keeps the keys of this process.
//!
//! Promise: an envelope is used only after one wrap that carries all its keys has been read back from the store and
//! opened (KEY-2); a wrap whose keys have other ids than it states is ignored (KEY-3).
//! Not here: what is sealed with the keys.

mod seen;

pub use seen::{EnvelopeSeen, Opens, WrapSeen};

use crate::layout::{self, EnvelopePlace};
use crate::recipients::Ready;
use crate::{Repository, RepositoryError};
use backstay_codec::{Binding, KeyClass, KeyId, KeySet, SecretKey, Wrap};
use backstay_store::{Key, StoreError, list_all};
use backstay_terms::{Suffix, WrapId};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

/// Records of a run that crosses a month's end are sealed with either key.
const MONTH_KEPT: SignedDuration = SignedDuration::from_hours(24 * 31);

impl Repository {
    /// Makes new keys of these classes, wraps them for every recipient, and opens one wrap again.
    pub(crate) async fn create_envelope(
        &self,
        envelope: &EnvelopePlace,
        classes: &[KeyClass],
    ) -> Result<KeySet, RepositoryError> {
        let keys = KeySet::generate(classes).map_err(RepositoryError::encoding)?;
        self.wrap_again(envelope, &keys).await?;
        self.remember(envelope, &keys);
        Ok(keys)
    }

    /// Wraps keys for every recipient under new names, and opens one wrap again.
    pub(crate) async fn wrap_again(
        &self,
        envelope: &EnvelopePlace,
        keys: &KeySet,
    ) -> Result<(), RepositoryError> {
        let mut written = Vec::new();
        for recipient in self.ready() {
            written.push(self.add_wrap(envelope, recipient, keys).await?);
        }
        self.prove_envelope(envelope, keys, &written).await
    }

    /// Stores the wraps of the keys again with which this process seals records, this month's and the last one's, where none
    /// opens any more; gives the months.
    pub async fn keep_month_keys(&self) -> Result<Vec<String>, RepositoryError> {
        let since = self.now().saturating_sub(MONTH_KEPT).unwrap_or(Timestamp::MIN);
        let mut put_back = Vec::new();
        for (month, key) in self.month_keys_since(&layout::month(since)) {
            let envelope = EnvelopePlace::facts(&month);
            let keys = KeySet {
                facts: Some(key),
                ..KeySet::default()
            };
            let wraps = self.read_wraps(&envelope).await?;
            let mut opened = wraps.iter().filter_map(|wrap| wrap.keys.as_ref());
            if !opened.any(|opened| holds(opened, &keys)) {
                self.wrap_again(&envelope, &keys).await?;
                put_back.push(month);
            }
        }
        Ok(put_back)
    }

    /// The keys of an envelope, from every wrap that a configured key opens.
    pub(crate) async fn open_envelope(&self, envelope: &EnvelopePlace) -> Result<KeySet, RepositoryError> {
        let wraps = self.read_wraps(envelope).await?;
        let opened = wraps.iter().filter_map(|wrap| wrap.keys.clone());
        let keys = opened.fold(KeySet::default(), KeySet::or);
        if keys.is_empty() {
            return Err(no_key(envelope, &wraps));
        }
        Ok(keys)
    }

    /// Adds wraps for every recipient that has none yet; returns how many were added. Needs a key that opens it. An
    /// envelope may hold several sets of keys (two processes made a month's at once): a recipient gets each.
    pub async fn rewrap(&self, envelope: &EnvelopePlace) -> Result<usize, RepositoryError> {
        let wraps = self.read_wraps(envelope).await?;
        let sets = distinct_sets(&wraps);
        if sets.is_empty() {
            return Err(no_key(envelope, &wraps));
        }
        let mut added = 0;
        for keys in &sets {
            for recipient in self.ready() {
                if !wraps.iter().any(|wrap| wrap.gives(recipient, keys)) {
                    self.add_wrap(envelope, recipient, keys).await?;
                    added += 1;
                }
            }
        }
        Ok(added)
    }

    /// Every envelope of the repository, by name.
    pub async fn envelopes(&self) -> Result<Vec<EnvelopePlace>, RepositoryError> {
        let mut places = Vec::new();
        for prefix in layout::envelope_prefixes()? {
            let objects = list_all(self.store(), &prefix, None).await?;
            places.extend(
                objects
                    .iter()
                    .filter_map(|object| layout::envelope_of_wrap(&object.key)),
            );
        }
        places.sort();
        places.dedup();
        Ok(places)
    }

    async fn add_wrap(
        &self,
        envelope: &EnvelopePlace,
        recipient: &Ready,
        keys: &KeySet,
    ) -> Result<Key, RepositoryError> {
        let of = Binding {
            envelope: &envelope.name,
            repository: Some(self.id()),
        };
        let wrap = recipient.wrap(of, keys)?;
        let key = envelope.wrap(WrapId(Suffix::from_chance(self.chance())))?;
        self.store()
            .put_if_absent(&key, Bytes::from(wrap.to_json()))
            .await?;
        Ok(key)
    }

    async fn prove_envelope(
        &self,
        envelope: &EnvelopePlace,
        keys: &KeySet,
        written: &[Key],
    ) -> Result<(), RepositoryError> {
        for key in written {
            let opened = self.open_wrap(envelope, &self.read_wrap(key).await?);
            if opened.is_some_and(|opened| opened.same_keys(keys)) {
                return Ok(());
            }
        }
        let what = format!(
            "none of the configured keys opens the new envelope {}: nothing could ever be restored from it",
            envelope.name
        );
        Err(RepositoryError::Key { what })
    }

    async fn read_wrap(&self, key: &Key) -> Result<Wrap, RepositoryError> {
        let json = self.store().get(key).await?;
        Wrap::from_json(&json).map_err(|e| RepositoryError::malformed(key, e))
    }

    /// Every wrap of an envelope. What is no wrap counts for nothing and harms nobody (KEY-3).
    async fn read_wraps(&self, envelope: &EnvelopePlace) -> Result<Vec<ReadWrap>, RepositoryError> {
        let wraps = self.wraps_of(envelope).await?;
        let seen = wraps.iter().map(|(key, json)| self.see_wrap(envelope, key, json));
        Ok(seen.collect())
    }

    /// What is stored under the envelope's prefix. A wrap that goes between the listing and the read was expired: it is none.
    async fn wraps_of(&self, envelope: &EnvelopePlace) -> Result<Vec<(Key, Bytes)>, RepositoryError> {
        let mut wraps = Vec::new();
        for object in list_all(self.store(), &envelope.prefix()?, None).await? {
            match self.store().get(&object.key).await {
                Err(StoreError::NotFound { .. }) => {}
                answer => wraps.push((object.key, answer?)),
            }
        }
        Ok(wraps)
    }

    /// What an object among the wraps says, and what the configured keys get out of it.
    fn see_wrap(&self, envelope: &EnvelopePlace, key: &Key, json: &[u8]) -> ReadWrap {
        let (Ok(wrap), Ok(Stated { key_ids })) = (Wrap::from_json(json), serde_json::from_slice(json)) else {
            return ReadWrap::unreadable(key);
        };
        let keys = self.open_wrap(envelope, &wrap);
        if let Some(keys) = &keys {
            self.remember(envelope, keys);
        }
        ReadWrap {
            recipient: wrap.recipient().to_string(),
            key_ids,
            keys,
        }
    }

    fn open_wrap(&self, envelope: &EnvelopePlace, wrap: &Wrap) -> Option<KeySet> {
        self.ready()
            .iter()
            .find_map(|recipient| recipient.open(&envelope.name, wrap))
    }

    /// The key of this class with this id; opens the envelope if it is not yet known. A key of another envelope or class
    /// never serves: whoever holds that one cannot make objects for this one.
    pub(crate) async fn key_with_id(
        &self,
        id: &KeyId,
        class: KeyClass,
        envelope: &EnvelopePlace,
        object: &Key,
    ) -> Result<SecretKey, RepositoryError> {
        if let Some(key) = self.remembered(envelope, class, id) {
            return Ok(key);
        }
        self.open_envelope(envelope).await?;
        let unknown = || RepositoryError::UnknownKey {
            object: object.to_string(),
            id: *id,
        };
        self.remembered(envelope, class, id).ok_or_else(unknown)
    }
}

/// A wrap: what it says, and what a configured key got out of it.
struct ReadWrap {
    recipient: String,
    key_ids: StatedIds,
    keys: Option<KeySet>,
}

/// The part of a wrap that is clear and concerns its keys.
#[derive(Deserialize)]
struct Stated {
    key_ids: StatedIds,
}

#[derive(Default, Deserialize)]
struct StatedIds {
    data: Option<KeyId>,
    index: Option<KeyId>,
    facts: Option<KeyId>,
}

impl ReadWrap {
    fn unreadable(key: &Key) -> ReadWrap {
        ReadWrap {
            recipient: format!("nobody ({key} is no wrap)"),
            key_ids: StatedIds::default(),
            keys: None,
        }
    }

    /// Whether this recipient gets these keys from it. What we can open must open; of others we have the wrap's word.
    fn gives(&self, recipient: &Ready, keys: &KeySet) -> bool {
        if self.recipient != recipient.name() {
            return false;
        }
        match recipient {
            Ready::Age(_) => KeyClass::ALL.iter().all(|class| {
                keys.get(*class)
                    .is_none_or(|key| self.key_ids.get(*class) == Some(key.id()))
            }),
            _ => self.keys.as_ref().is_some_and(|opened| holds(opened, keys)),
        }
    }
}

impl StatedIds {
    fn get(&self, class: KeyClass) -> Option<KeyId> {
        match class {
            KeyClass::Data => self.data,
            KeyClass::Index => self.index,
            KeyClass::Facts => self.facts,
        }
    }
}

/// True if `all` has every key of `some`.
fn holds(all: &KeySet, some: &KeySet) -> bool {
    let has = |class: &KeyClass| some.get(*class).is_none() || some.get(*class) == all.get(*class);
    KeyClass::ALL.iter().all(has)
}

/// The sets of keys that the opened wraps carry, without those that another one holds whole.
fn distinct_sets(wraps: &[ReadWrap]) -> Vec<KeySet> {
    let mut sets: Vec<KeySet> = Vec::new();
    for keys in wraps.iter().filter_map(|wrap| wrap.keys.as_ref()) {
        if !sets.iter().any(|set| holds(set, keys)) {
            sets.retain(|set| !holds(keys, set));
            sets.push(keys.clone());
        }
    }
    sets
}

fn no_key(envelope: &EnvelopePlace, wraps: &[ReadWrap]) -> RepositoryError {
    let recipients = wraps.iter().map(|wrap| wrap.recipient.as_str()).collect();
    no_key_among(&envelope.name, recipients)
}

fn no_key_among(envelope: &str, mut recipients: Vec<&str>) -> RepositoryError {
    recipients.sort_unstable();
    recipients.dedup();
    let recipients = match recipients.is_empty() {
        true => "nobody: it has no wraps".to_owned(),
        false => recipients.join(", "),
    };
    RepositoryError::NoKey {
        envelope: envelope.to_owned(),
        recipients,
    }
}

impl Ready {
    /// How wraps name this recipient.
    pub(crate) fn name(&self) -> String {
        match self {
            Ready::Raw(key) => format!("raw {}", key.master_key_id()),
            Ready::Passphrase { id, .. } => format!("passphrase {id}"),
            Ready::Age(recipient) => format!("age {recipient}"),
            Ready::None => "none none".into(),
        }
    }

    fn wrap(&self, of: Binding<'_>, keys: &KeySet) -> Result<Wrap, RepositoryError> {
        let wrapped = match self {
            Ready::Raw(key) => Wrap::raw(of, key, keys),
            Ready::Passphrase { id, key, .. } => Wrap::passphrase(of, id, key, keys),
            Ready::Age(recipient) => Wrap::age(of, recipient, keys),
            Ready::None => Wrap::none(of, keys),
        };
        wrapped.map_err(|e| RepositoryError::Key { what: e.to_string() })
    }

    fn open(&self, envelope: &str, wrap: &Wrap) -> Option<KeySet> {
        match self {
            Ready::Raw(key) => wrap.open_raw(envelope, key).ok(),
            Ready::Passphrase { id, key, others } => {
                let mut keyrings = std::iter::once((id, key)).chain(others.iter().map(|(id, key)| (id, key)));
                keyrings.find_map(|(id, key)| wrap.open_passphrase(envelope, id, key).ok())
            }
            Ready::Age(_) => None,
            Ready::None => wrap.open_none(envelope).ok(),
        }
    }
}
