//! Envelopes: makes, opens and adds wraps; keeps the keys of this process.
//!
//! Promise: an envelope is used only after one wrap that carries all its keys has been read back from the store and
//! opened (KEY-2); a wrap whose keys have other ids than it states is ignored (KEY-3).
//! Not here: what is sealed with the keys.

use crate::layout::{self, EnvelopePlace};
use crate::recipients::Ready;
use crate::{Repository, RepositoryError};
use backstay_codec::{KeyClass, KeyId, KeySet, SecretKey, Wrap};
use backstay_store::{Key, list_all};
use backstay_terms::{Suffix, WrapId};
use bytes::Bytes;

impl Repository {
    /// Makes new keys of these classes, wraps them for every recipient, and opens one wrap again.
    pub(crate) async fn create_envelope(
        &self,
        envelope: &EnvelopePlace,
        classes: &[KeyClass],
    ) -> Result<KeySet, RepositoryError> {
        let keys = KeySet::generate(classes).map_err(RepositoryError::encoding)?;
        let mut written = Vec::new();
        for recipient in self.ready() {
            written.push(self.add_wrap(envelope, recipient, &keys).await?);
        }
        self.prove_envelope(envelope, &keys, &written).await?;
        self.remember(&keys);
        Ok(keys)
    }

    /// The keys of an envelope, from every wrap that a configured key opens.
    pub(crate) async fn open_envelope(&self, envelope: &EnvelopePlace) -> Result<KeySet, RepositoryError> {
        let mut keys = KeySet::default();
        let mut recipients = Vec::new();
        for object in list_all(self.store(), &envelope.prefix()?, None).await? {
            let wrap = self.read_wrap(&object.key).await?;
            match self.open_wrap(envelope, &wrap) {
                Some(opened) => {
                    self.remember(&opened);
                    keys = keys.or(opened);
                }
                None => recipients.push(wrap.recipient().to_string()),
            }
        }
        if keys.is_empty() {
            recipients.dedup();
            let recipients = if recipients.is_empty() {
                "nobody: it has no wraps".into()
            } else {
                recipients.join(", ")
            };
            return Err(RepositoryError::NoKey {
                envelope: envelope.name.clone(),
                recipients,
            });
        }
        Ok(keys)
    }

    /// Adds wraps for every recipient that has none yet; returns how many were added. Needs a key that opens it.
    pub async fn rewrap(&self, envelope: &EnvelopePlace) -> Result<usize, RepositoryError> {
        let keys = self.open_envelope(envelope).await?;
        let mut present = Vec::new();
        for object in list_all(self.store(), &envelope.prefix()?, None).await? {
            present.push(self.read_wrap(&object.key).await?.recipient().to_string());
        }
        let mut added = 0;
        for recipient in self.ready() {
            if !present.contains(&recipient.name()) {
                self.add_wrap(envelope, recipient, &keys).await?;
                added += 1;
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
        let wrap = recipient.wrap(&envelope.name, keys)?;
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

    fn open_wrap(&self, envelope: &EnvelopePlace, wrap: &Wrap) -> Option<KeySet> {
        self.ready()
            .iter()
            .find_map(|recipient| recipient.open(&envelope.name, wrap))
    }

    /// The key with this id; opens the envelope if it is not yet known.
    pub(crate) async fn key_with_id(
        &self,
        id: &KeyId,
        envelope: &EnvelopePlace,
        object: &Key,
    ) -> Result<SecretKey, RepositoryError> {
        if let Some(key) = self.remembered(id) {
            return Ok(key);
        }
        self.open_envelope(envelope).await?;
        let unknown = || RepositoryError::UnknownKey {
            object: object.to_string(),
            id: *id,
        };
        self.remembered(id).ok_or_else(unknown)
    }
}

impl Ready {
    /// How wraps name this recipient.
    fn name(&self) -> String {
        match self {
            Ready::Raw(key) => format!("raw {}", key.master_key_id()),
            Ready::Passphrase { id, .. } => format!("passphrase {id}"),
            Ready::Age(recipient) => format!("age {recipient}"),
            Ready::None => "none none".into(),
        }
    }

    fn wrap(&self, envelope: &str, keys: &KeySet) -> Result<Wrap, RepositoryError> {
        let wrapped = match self {
            Ready::Raw(key) => Wrap::raw(envelope, key, keys),
            Ready::Passphrase { id, key } => Wrap::passphrase(envelope, id, key, keys),
            Ready::Age(recipient) => Wrap::age(envelope, recipient, keys),
            Ready::None => Wrap::none(envelope, keys),
        };
        wrapped.map_err(|e| RepositoryError::Key { what: e.to_string() })
    }

    fn open(&self, envelope: &str, wrap: &Wrap) -> Option<KeySet> {
        match self {
            Ready::Raw(key) => wrap.open_raw(envelope, key).ok(),
            Ready::Passphrase { id, key } => wrap.open_passphrase(envelope, id, key).ok(),
            Ready::Age(_) => None,
            Ready::None => wrap.open_none(envelope).ok(),
        }
    }
}
