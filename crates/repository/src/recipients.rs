//! Who can open an envelope: the configured keys, made ready.
//!
//! Promise: a passphrase is stretched once per process; nothing here prints a secret.
//! Not here: reading key files and environment (backstay::config), the wraps themselves (backstay-codec).

use crate::layout;
use crate::objects::on_worker;
use crate::{Repository, RepositoryError};
use backstay_codec::{Keyring, KeyringError, Passphrase, SecretKey};
use backstay_store::{Created, Prefix, list_all};
use backstay_terms::Suffix;
use bytes::Bytes;

/// A key of the configuration.
#[derive(Clone, Debug)]
pub enum Recipient {
    /// A 32-byte master key.
    Raw(SecretKey),
    /// A passphrase, through an object under `keyring/`.
    Passphrase(Passphrase),
    /// An age X25519 recipient: can wrap, cannot open.
    Age(String),
    /// No encryption; for development.
    None,
}

/// A recipient with what it needs to wrap and open.
#[derive(Clone, Debug)]
pub(crate) enum Ready {
    Raw(SecretKey),
    /// Wraps through one keyring object; opens through each that the passphrase opens: two processes that both made
    /// one harm nobody.
    Passphrase {
        id: String,
        key: SecretKey,
        others: Vec<(String, SecretKey)>,
    },
    Age(String),
    None,
}

/// Something about the keys that a person should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyWarning {
    /// Objects are readable by whoever reads the store.
    NotEncrypted,
    /// One recipient only: if it is lost, everything is.
    SingleRecipient,
}

impl Repository {
    /// What a person should know about the configured keys.
    pub fn key_warnings(&self) -> Vec<KeyWarning> {
        let mut warnings = Vec::new();
        if self.ready().iter().any(|ready| matches!(ready, Ready::None)) {
            warnings.push(KeyWarning::NotEncrypted);
        } else if self.ready().len() == 1 {
            warnings.push(KeyWarning::SingleRecipient);
        }
        warnings
    }
}

/// Makes every recipient ready; for a passphrase without a keyring object one is made.
pub(crate) async fn make_ready(
    store: &dyn backstay_store::Store,
    recipients: &[Recipient],
    chance: u64,
) -> Result<Vec<Ready>, RepositoryError> {
    let mut ready = Vec::new();
    for recipient in recipients {
        ready.push(match recipient {
            Recipient::Raw(key) => Ready::Raw(key.clone()),
            Recipient::Age(recipient) => Ready::Age(recipient.clone()),
            Recipient::None => Ready::None,
            Recipient::Passphrase(passphrase) => open_or_make_keyring(store, passphrase, chance).await?,
        });
    }
    if ready.is_empty() {
        return Err(RepositoryError::Key {
            what: "no key is configured".into(),
        });
    }
    Ok(ready)
}

async fn open_or_make_keyring(
    store: &dyn backstay_store::Store,
    passphrase: &Passphrase,
    chance: u64,
) -> Result<Ready, RepositoryError> {
    let mut opened = Vec::new();
    let mut unreadable = None;
    let objects = list_all(store, &Prefix::new("keyring/")?, None).await?;
    for object in &objects {
        let json = store.get(&object.key).await?;
        match Keyring::from_json(&json) {
            Ok(keyring) => match open_keyring(keyring, passphrase.clone()).await? {
                Ok(key) => opened.push(key),
                Err(KeyringError::WrongPassphrase) => {}
                Err(error) => unreadable = Some(RepositoryError::malformed(&object.key, error)),
            },
            Err(error) => unreadable = Some(RepositoryError::malformed(&object.key, error)),
        }
    }
    if !opened.is_empty() {
        let (id, key) = opened.remove(0);
        let others = opened;
        return Ok(Ready::Passphrase { id, key, others });
    }
    if let Some(error) = unreadable {
        return Err(error);
    }
    if !objects.is_empty() {
        let found = objects.len();
        let what = format!("the passphrase opens none of the {found} keyring objects of this repository");
        return Err(RepositoryError::Key { what });
    }
    let id = Suffix::from_chance(chance).to_string();
    let (keyring, key) = Keyring::create(&id, passphrase).map_err(RepositoryError::encoding)?;
    let body = Bytes::from(keyring.to_json());
    match store.put_if_absent(&layout::keyring(&id)?, body).await? {
        Created::Now | Created::AlreadyThere => Ok(Ready::Passphrase {
            id,
            key,
            others: Vec::new(),
        }),
    }
}

/// The key in a keyring object.
async fn open_keyring(
    keyring: Keyring,
    passphrase: Passphrase,
) -> Result<Result<(String, SecretKey), KeyringError>, RepositoryError> {
    let id = keyring.id().to_owned();
    on_worker(move || Ok(keyring.open(&passphrase).map(|key| (id, key)))).await
}
