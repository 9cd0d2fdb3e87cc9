//! Carries out removals, one at a time, after looking once more at what each of them rests on.
//!
//! Promise: a backup loses its head first, and nothing else of it is touched before the store says that the head is gone:
//! whatever a crash leaves is a whole backup, or parts that no head names. Log goes only after every range that covers
//! it was read whole, in the order of positions. While a hold stands nothing is removed.
//! Not here: what may go and what is kept because of what (backstay-engine::plan::retention).

use crate::inventory::StoredObject;
use crate::layout::{self, BackupPlace, Level};
use crate::log::{LogStore, StoredRange, missing, stretches};
use crate::{Head, Repository, RepositoryError, expires_at};
use backstay_store::{Key, StoreClock, StoreError, list_all};
use backstay_terms::{BackupId, Branch, EngineKind, LogRange, RetentionClass, SourceName, TimedId};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// Nothing is removed while our clock and the store's differ by more than this.
pub const STORE_SKEW_MAX: SignedDuration = SignedDuration::from_mins(5);

/// Something to remove, with everything that goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Removal {
    /// A committed backup.
    Backup {
        /// Where it lies.
        #[serde(skip)]
        place: BackupPlace,
        /// Which.
        backup: BackupId,
        /// Its head.
        head: StoredObject,
        /// Its tables and packs.
        parts: Vec<StoredObject>,
        /// The wraps of its generation, if it is the last of it.
        keys: Vec<StoredObject>,
        /// Why it may go.
        reason: String,
    },
    /// Parts of a backup that no head names, or the wraps of a generation that has nothing else.
    Uncommitted {
        /// Where they lie.
        #[serde(skip)]
        place: BackupPlace,
        /// Of which backup.
        backup: BackupId,
        /// Tables and packs.
        parts: Vec<StoredObject>,
        /// The wraps of its generation, if nothing else is left of it.
        keys: Vec<StoredObject>,
        /// Why they may go.
        reason: String,
    },
    /// Live ranges that settled or held ones cover.
    CoveredLog {
        /// Of which branch.
        branch: Branch,
        /// What covers them; read whole before anything goes.
        #[serde(skip)]
        by: Vec<StoredRange>,
        /// The positions of what goes, in the order of `objects`.
        #[serde(skip)]
        ranges: Vec<LogRange>,
        /// What goes.
        objects: Vec<StoredObject>,
        /// Why it may go.
        reason: String,
    },
    /// Settled ranges before everything that a kept backup needs.
    OldLog {
        /// Of which branch.
        branch: Branch,
        /// What goes, in the order of positions.
        objects: Vec<StoredObject>,
        /// Why it may go.
        reason: String,
    },
}

impl Removal {
    /// Every object that goes, in the order in which it goes.
    pub fn objects(&self) -> Vec<&StoredObject> {
        match self {
            Removal::Backup {
                head, parts, keys, ..
            } => std::iter::once(head).chain(parts).chain(keys).collect(),
            Removal::Uncommitted { parts, keys, .. } => parts.iter().chain(keys).collect(),
            Removal::CoveredLog { objects, .. } | Removal::OldLog { objects, .. } => objects.iter().collect(),
        }
    }

    /// Bytes that go.
    pub fn bytes(&self) -> u64 {
        self.objects().iter().map(|object| object.size).sum()
    }

    /// Why it may go.
    pub fn reason(&self) -> &str {
        match self {
            Removal::Backup { reason, .. }
            | Removal::Uncommitted { reason, .. }
            | Removal::CoveredLog { reason, .. }
            | Removal::OldLog { reason, .. } => reason,
        }
    }
}

impl Head {
    /// The end of its promise. A copy in a longer class has a longer one than the head, which was sealed before, says.
    pub fn kept_until(&self) -> Timestamp {
        let full_created = moment_of(&self.generation).unwrap_or(self.created);
        self.expires_at
            .max(expires_at(self.class, self.created, full_created))
    }
}

/// The moment in an id; none if its digits are no date.
pub fn moment_of(id: &TimedId) -> Option<Timestamp> {
    let moment = DateTime::strptime("%Y%m%dT%H%M%SZ", id.moment()).ok()?;
    TimeZone::UTC.to_timestamp(moment).ok()
}

/// What went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Removed {
    /// Adds what another removal took away.
    pub fn add(&mut self, other: Removed) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

/// How a removal ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// It was carried out.
    Out(Removed),
    /// Nothing was touched, because this holds it.
    Refused(String),
}

impl Repository {
    /// How far the store's clock is from ours; none if the store has no clock of its own.
    pub async fn store_skew(&self) -> Result<Option<SignedDuration>, RepositoryError> {
        match self.store().facts().await?.clock {
            StoreClock::Own(time) => Ok(Some(time.duration_since(self.now()).abs())),
            StoreClock::ThisMachine => Ok(None),
        }
    }

    /// Carries out one removal of a source.
    pub async fn carry_out(
        &self,
        engine: EngineKind,
        source: &SourceName,
        removal: &Removal,
    ) -> Result<Carried, RepositoryError> {
        // A hold may have been placed since the plan was made.
        if let Some(hold) = self.holds().await?.first() {
            return Ok(Carried::Refused(format!("the hold {}", hold.name)));
        }
        match removal {
            Removal::Backup {
                place,
                head,
                parts,
                keys,
                ..
            } => self.remove_backup(place, head, parts, keys).await,
            Removal::Uncommitted {
                place, parts, keys, ..
            } => self.remove_uncommitted(place, parts, keys).await,
            Removal::CoveredLog {
                by, ranges, objects, ..
            } => {
                let log = LogStore::new(self, engine, source);
                self.remove_covered(&log, by, ranges, objects).await
            }
            // What a kept backup needs was computed from heads that were read a moment ago, and a backup made since
            // then begins at the end of the log.
            Removal::OldLog { objects, .. } => Ok(Carried::Out(self.delete_all(objects).await?)),
        }
    }

    async fn remove_backup(
        &self,
        place: &BackupPlace,
        head: &StoredObject,
        parts: &[StoredObject],
        keys: &[StoredObject],
    ) -> Result<Carried, RepositoryError> {
        match self.read_head(place).await {
            Ok(again) if self.now() < again.kept_until() => {
                let what = format!("its promise: it is kept until {}", again.kept_until());
                return Ok(Carried::Refused(what));
            }
            Ok(_) => {}
            // Another process has removed the head: what is left of the backup is nobody's.
            Err(RepositoryError::Store(StoreError::NotFound { .. })) => {}
            Err(error) => return Err(error),
        }
        // A backup must never look usable while parts of it are missing.
        let mut removed = self.delete_all(std::slice::from_ref(head)).await?;
        self.refuse_if_there(&place.head()?.key).await?;
        removed.add(self.delete_parts(place, parts).await?);
        removed.add(self.delete_keys(place, keys).await?);
        Ok(Carried::Out(removed))
    }

    async fn remove_uncommitted(
        &self,
        place: &BackupPlace,
        parts: &[StoredObject],
        keys: &[StoredObject],
    ) -> Result<Carried, RepositoryError> {
        for class in RetentionClass::ALL {
            let head = BackupPlace {
                class,
                ..place.clone()
            }
            .head()?
            .key;
            if self.is_there(&head).await? {
                return Ok(Carried::Refused(format!(
                    "a head that was not there before: {head}"
                )));
            }
        }
        let mut removed = self.delete_parts(place, parts).await?;
        removed.add(self.delete_keys(place, keys).await?);
        Ok(Carried::Out(removed))
    }

    async fn remove_covered(
        &self,
        log: &LogStore,
        by: &[StoredRange],
        ranges: &[LogRange],
        objects: &[StoredObject],
    ) -> Result<Carried, RepositoryError> {
        let mut opened = Vec::new();
        for stored in by.iter().filter(|stored| stored.level != Level::Live) {
            log.range(stored).await?;
            opened.push(stored.name.range);
        }
        let covered = stretches(&opened);
        for range in ranges {
            let inside = covered.iter().any(|s| s.from <= range.from && range.to <= s.to);
            if !inside || !missing(*range, &covered).is_empty() {
                let what = format!("{}-{}: no range that was read covers it", range.from, range.to);
                return Ok(Carried::Refused(what));
            }
        }
        Ok(Carried::Out(self.delete_all(objects).await?))
    }

    async fn delete_parts(
        &self,
        place: &BackupPlace,
        parts: &[StoredObject],
    ) -> Result<Removed, RepositoryError> {
        let removed = self.delete_all(parts).await?;
        for prefix in [place.tables_prefix()?, place.packs_prefix()?] {
            if let Some(left) = list_all(self.store(), &prefix, None).await?.first() {
                return Err(still_there(&left.key));
            }
        }
        Ok(removed)
    }

    /// The wraps go last, and only when nothing is left in any class that they could open.
    async fn delete_keys(
        &self,
        place: &BackupPlace,
        keys: &[StoredObject],
    ) -> Result<Removed, RepositoryError> {
        if keys.is_empty() {
            return Ok(Removed::default());
        }
        for class in RetentionClass::ALL {
            for role in ["manifests", "tables", "data"] {
                let source = layout::parts_prefix(place.engine, role, class, &place.source)?;
                let prefix = format!("{}{}/", source.as_str(), place.generation);
                if !self.list_stored(&prefix).await?.is_empty() {
                    return Ok(Removed::default());
                }
            }
        }
        self.delete_all(keys).await
    }

    async fn delete_all(&self, objects: &[StoredObject]) -> Result<Removed, RepositoryError> {
        let mut removed = Removed::default();
        for object in objects {
            self.store().delete(&Key::new(object.name.as_str())?).await?;
            removed.add(Removed {
                objects: 1,
                bytes: object.size,
            });
        }
        Ok(removed)
    }

    async fn refuse_if_there(&self, key: &Key) -> Result<(), RepositoryError> {
        match self.is_there(key).await? {
            true => Err(still_there(key)),
            false => Ok(()),
        }
    }

    async fn is_there(&self, key: &Key) -> Result<bool, RepositoryError> {
        match self.store().head(key).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn still_there(key: &Key) -> RepositoryError {
    RepositoryError::Differs {
        object: key.to_string(),
        what: "the store said that it is removed, and still shows it".into(),
    }
}
