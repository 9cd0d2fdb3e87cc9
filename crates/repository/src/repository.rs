//! A repository: opens or makes one, and holds what every part needs.
//!
//! Promise: `open` refuses what is no repository, a newer format, or another repository than that of which the objects are,
//! before anything is written. Time and chance come from what the caller passed in.
//! Not here: what is stored (base, log, runs).

use crate::layout::EnvelopePlace;
use crate::recipients::{Ready, Recipient, make_ready};
use crate::whose::refuse_other_id;
use crate::{RepositoryError, layout};
use backstay_clock::{Chance, Clock};
use backstay_codec::{KeyClass, KeyId, KeySet, SecretKey, random_u64};
use backstay_store::{Created, Key, Prefix, Store, StoreError};
use backstay_terms::{RunId, Suffix, TimedId};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Chance from the system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemChance;

impl Chance for SystemChance {
    fn next_u64(&self) -> u64 {
        random_u64()
    }
}

/// No `repository.json` has more bytes: whatever is larger is none, and is not read.
const INFO_BYTES_MAX: u64 = 64 << 10;

/// `repository.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryInfo {
    /// 1.
    pub format: u32,
    /// 32 hex digits.
    pub repository: String,
    /// When it was made.
    pub created: Timestamp,
}

/// An open repository. Clones share it.
#[derive(Clone, Debug)]
pub struct Repository {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    info: RepositoryInfo,
    ready: Vec<Ready>,
    keys: Mutex<HashMap<KnownKey, SecretKey>>,
    months: Mutex<HashMap<String, SecretKey>>,
    passed_over: Mutex<BTreeSet<RunId>>,
}

/// By what this process knows a key: envelope, class, id.
type KnownKey = (String, KeyClass, KeyId);

impl Repository {
    /// Makes a repository in an empty place and opens it.
    pub async fn init(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
        recipients: &[Recipient],
    ) -> Result<Repository, RepositoryError> {
        match read_info(store.as_ref()).await {
            Ok(info) => return Err(RepositoryError::AlreadyThere { id: info.repository }),
            Err(RepositoryError::Absent) => {
                if let Err(refusal) = refuse_if_not_empty(store.as_ref()).await {
                    // Another one may have made it a moment ago.
                    return Err(match read_info(store.as_ref()).await {
                        Ok(info) => RepositoryError::AlreadyThere { id: info.repository },
                        Err(_) => refusal,
                    });
                }
            }
            Err(error) => return Err(error),
        }
        let repository = format!("{:016x}{:016x}", chance.next_u64(), chance.next_u64());
        let info = RepositoryInfo {
            format: 1,
            repository,
            created: clock.now(),
        };
        let body = serde_json::to_vec(&info).map_err(RepositoryError::encoding)?;
        match store
            .put_if_absent(&Key::new(layout::REPOSITORY)?, Bytes::from(body))
            .await?
        {
            Created::Now => Self::open(store, clock, chance, recipients).await,
            Created::AlreadyThere => {
                let id = read_info(store.as_ref()).await?.repository;
                Err(RepositoryError::AlreadyThere { id })
            }
        }
    }

    /// Opens a repository.
    pub async fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
        recipients: &[Recipient],
    ) -> Result<Repository, RepositoryError> {
        let info = match read_info(store.as_ref()).await {
            Err(RepositoryError::Absent) => return Err(why_absent(store.as_ref()).await?),
            answer => answer?,
        };
        refuse_other_id(store.as_ref(), &info.repository).await?;
        let ready = make_ready(store.as_ref(), recipients, chance.next_u64()).await?;
        let (keys, months) = (Mutex::new(HashMap::new()), Mutex::new(HashMap::new()));
        Ok(Repository {
            shared: Arc::new(Shared {
                store,
                clock,
                chance,
                info,
                ready,
                keys,
                months,
                passed_over: Mutex::default(),
            }),
        })
    }

    /// The repository's id: 32 hex digits.
    pub fn id(&self) -> &str {
        &self.shared.info.repository
    }

    /// The objects.
    pub fn store(&self) -> &dyn Store {
        self.shared.store.as_ref()
    }

    /// The clock.
    pub fn clock(&self) -> &dyn Clock {
        self.shared.clock.as_ref()
    }

    /// The time for names and records.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Chance for names.
    pub fn chance(&self) -> u64 {
        self.shared.chance.next_u64()
    }

    /// A new id of something of `kind` (a-z) made now.
    pub fn new_id(&self, kind: &str) -> Result<TimedId, RepositoryError> {
        self.new_id_with(kind, Suffix::from_chance(self.chance()))
    }

    /// The same with the suffix of something else.
    pub(crate) fn new_id_with(&self, kind: &str, suffix: Suffix) -> Result<TimedId, RepositoryError> {
        TimedId::new(&layout::moment(self.now()), kind, suffix).map_err(RepositoryError::encoding)
    }

    pub(crate) fn ready(&self) -> &[Ready] {
        &self.shared.ready
    }

    pub(crate) fn remember(&self, envelope: &EnvelopePlace, keys: &KeySet) {
        let mut known = self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for class in KeyClass::ALL {
            if let Some(key) = keys.get(class) {
                known.insert((envelope.name.clone(), class, key.id()), key.clone());
            }
        }
    }

    pub(crate) fn remembered(
        &self,
        envelope: &EnvelopePlace,
        class: KeyClass,
        id: &KeyId,
    ) -> Option<SecretKey> {
        let known = self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(envelope.name.clone(), class, *id)).cloned()
    }

    /// Every key of an envelope that this process has had; none if it had none.
    pub(crate) fn remembered_keys(&self, envelope: &EnvelopePlace) -> Option<KeySet> {
        let known = self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let key = |wanted: KeyClass| {
            let mut of_class = known
                .iter()
                .filter(|((name, class, _), _)| (name.as_str(), *class) == (envelope.name.as_str(), wanted));
            of_class.next().map(|(_, key)| key.clone())
        };
        let keys = KeySet {
            data: key(KeyClass::Data),
            index: key(KeyClass::Index),
            facts: key(KeyClass::Facts),
        };
        (!keys.is_empty()).then_some(keys)
    }

    /// Whether this process passes over the record of a run for the first time.
    pub(crate) fn is_news(&self, run: &RunId) -> bool {
        let mut passed_over = self
            .shared
            .passed_over
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        passed_over.insert(run.clone())
    }

    pub(crate) fn month_key(&self, envelope: &str) -> Option<SecretKey> {
        self.shared
            .months
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(envelope)
            .cloned()
    }

    /// The keys with which this process seals records, from a month (`YYYY-MM`) on, by month.
    pub(crate) fn month_keys_since(&self, since: &str) -> Vec<(String, SecretKey)> {
        let months = self.shared.months.lock().unwrap_or_else(PoisonError::into_inner);
        let named = months.iter().filter_map(|(envelope, key)| {
            let month = envelope.strip_prefix("facts/")?;
            (month >= since).then(|| (month.to_owned(), key.clone()))
        });
        named.collect()
    }

    pub(crate) fn remember_month(&self, envelope: String, key: SecretKey) {
        self.shared
            .months
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(envelope, key);
    }
}

pub(crate) async fn read_info(store: &dyn Store) -> Result<RepositoryInfo, RepositoryError> {
    let unusable = |what: String| RepositoryError::NoIdentity { what };
    let key = Key::new(layout::REPOSITORY)?;
    let failed = |error: StoreError| match error {
        StoreError::NotFound { .. } => RepositoryError::Absent,
        StoreError::NotAnObject { what, .. } => unusable(format!("it is {what}")),
        error => error.into(),
    };
    let size = store.head(&key).await.map_err(failed)?.size;
    if size > INFO_BYTES_MAX {
        return Err(unusable(format!(
            "it has {size} bytes, and was written with less than 200"
        )));
    }
    let json = store.get(&key).await.map_err(failed)?;
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let malformed = |error: serde_json::Error| unusable(error.to_string());
    let Format { format } = serde_json::from_slice(&json).map_err(malformed)?;
    if format != 1 {
        return Err(RepositoryError::NewerFormat {
            object: layout::REPOSITORY.into(),
            format,
        });
    }
    let info: RepositoryInfo = serde_json::from_slice(&json).map_err(malformed)?;
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if info.repository.len() != 32 || !info.repository.bytes().all(hex) {
        return Err(unusable(
            "its repository id is not 32 hexadecimal digits".to_owned(),
        ));
    }
    Ok(info)
}

/// What a place without `repository.json` is.
async fn why_absent(store: &dyn Store) -> Result<RepositoryError, RepositoryError> {
    refuse_folder(store).await?;
    let lost = first_of_ours(store).await?;
    Ok(
        lost.map_or(RepositoryError::Absent, |example| RepositoryError::Headless {
            example,
        }),
    )
}

/// To a store, a folder of that name is nothing.
async fn refuse_folder(store: &dyn Store) -> Result<(), RepositoryError> {
    store
        .list_page(&Prefix::new(layout::REPOSITORY)?, None, 1)
        .await?;
    match store.folders().iter().any(|folder| folder == layout::REPOSITORY) {
        true => Err(RepositoryError::NoIdentity {
            what: "it is a directory".to_owned(),
        }),
        false => Ok(()),
    }
}

/// An object that belongs to a repository, of the first page of names; none where all are foreign.
async fn first_of_ours(store: &dyn Store) -> Result<Option<String>, RepositoryError> {
    let page = store.list_page(&Prefix::everything(), None, 1000).await?;
    let mut names = page.objects.iter().map(|object| object.key.to_string());
    Ok(names.find(|name| layout::is_of_a_repository(name)))
}

async fn refuse_if_not_empty(store: &dyn Store) -> Result<(), RepositoryError> {
    refuse_folder(store).await?;
    if let Some(example) = first_of_ours(store).await? {
        return Err(RepositoryError::Headless { example });
    }
    let page = store.list_page(&Prefix::everything(), None, 1).await?;
    match page.objects.first() {
        Some(object) => Err(RepositoryError::NotEmpty {
            example: object.key.to_string(),
        }),
        None => Ok(()),
    }
}
