//! What is stored of one source, by names, sizes and ages; heads are opened, nothing else is but
//! the records of recent restores.
//!
//! Promise: what a name does not explain is listed as a stray, never passed over; a head that cannot be opened is kept
//! with the reason, so that nobody takes it for absent. A store that fails is an error, never an empty answer.
//! Not here: what may go (backstay-engine::plan::retention), whether the bytes are right (check).

use crate::layout::{self, BackupPlace, EnvelopePlace, RunMoment};
use crate::log::{BranchObjects, LogStore};
use crate::runs::BackupRuns;
use crate::{Head, Repository, RepositoryError, moment_of};
use backstay_store::{Key, ObjectMeta, Prefix, StoreError, list_all};
use backstay_terms::{EngineKind, GenerationId, RetentionClass, RunId, SourceName};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A backup gets its name so soon after its run.
pub const RUN_BEFORE_BACKUP: SignedDuration = SignedDuration::from_hours(24);

/// An object as the store lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredObject {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// When it was stored, by the store's clock.
    pub modified: Timestamp,
}

impl From<ObjectMeta> for StoredObject {
    fn from(meta: ObjectMeta) -> StoredObject {
        StoredObject {
            name: meta.key.to_string(),
            size: meta.size,
            modified: meta.modified,
        }
    }
}

/// What is known of a backup's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadState {
    /// There is none: the backup was never committed, or its removal has begun.
    Absent,
    /// It is there and says this.
    Opened(StoredObject, Box<Head>),
    /// It is there and cannot be opened, for this reason.
    Closed(StoredObject, String),
}

/// The objects of one backup in one class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupObjects {
    /// Where it lies.
    pub place: BackupPlace,
    /// Its head.
    pub head: HeadState,
    /// Its tables.
    pub tables: Vec<StoredObject>,
    /// Its packs.
    pub packs: Vec<StoredObject>,
}

impl BackupObjects {
    fn new(place: BackupPlace) -> BackupObjects {
        BackupObjects {
            place,
            head: HeadState::Absent,
            tables: Vec::new(),
            packs: Vec::new(),
        }
    }

    /// The head, if it could be opened.
    pub fn opened(&self) -> Option<&Head> {
        match &self.head {
            HeadState::Opened(_, head) => Some(head),
            _ => None,
        }
    }

    /// Tables, then packs.
    pub fn parts(&self) -> impl Iterator<Item = &StoredObject> {
        self.tables.iter().chain(&self.packs)
    }

    /// True if as many packs and bytes are listed as the head states.
    pub fn is_whole(&self) -> bool {
        let listed: u64 = self.parts().map(|part| part.size).sum();
        self.opened().is_some_and(|head| {
            self.packs.len() == head.totals.packs as usize && listed == head.totals.stored.0
        })
    }
}

/// The wraps of a generation's envelope in one class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationWraps {
    /// The class under which they lie.
    pub class: RetentionClass,
    /// The generation.
    pub generation: GenerationId,
    /// The wraps.
    pub wraps: Vec<StoredObject>,
}

/// Everything that is stored of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// The engine.
    pub engine: EngineKind,
    /// The source.
    pub source: SourceName,
    /// Backups, committed or not, oldest first.
    pub backups: Vec<BackupObjects>,
    /// The envelopes of its generations.
    pub wraps: Vec<GenerationWraps>,
    /// Its log.
    pub branches: Vec<BranchObjects>,
    /// Objects under its prefixes whose names are not of this format.
    pub strays: Vec<StoredObject>,
    /// Holds of the repository; a hold of another source counts too, because names do not tell.
    pub holds: Vec<StoredObject>,
    /// How backups ended, asked for only where parts have no head: what was committed once is no rest of a dead process.
    pub runs: BackupRuns,
    /// Restores of the last days that still need what is stored, of any source.
    pub restores: Vec<RunId>,
}

impl Repository {
    /// Lists everything of a source and opens its heads. Restores that began before `restores_since` are left out.
    pub async fn inventory(
        &self,
        engine: EngineKind,
        source: &SourceName,
        restores_since: Timestamp,
    ) -> Result<Inventory, RepositoryError> {
        let mut strays = Vec::new();
        let backups = self.list_backups(engine, source, &mut strays).await?;
        let wraps = self.list_wraps(engine, source, &mut strays).await?;
        let branches = LogStore::new(self, engine, source).branches(&mut strays).await?;
        let runs = self.runs_of_headless(source, &backups).await?;
        Ok(Inventory {
            runs,
            engine,
            source: source.clone(),
            backups,
            wraps,
            branches,
            strays,
            holds: self.holds().await?,
            restores: self.restores_under_way(restores_since).await?,
        })
    }

    /// Every source of which anything is stored, from the fewest names.
    pub async fn every_source(&self) -> Result<Vec<(EngineKind, SourceName)>, RepositoryError> {
        let mut sources = BTreeSet::new();
        for engine in [EngineKind::Postgres, EngineKind::Redis, EngineKind::Qdrant] {
            for root in roots_of(engine) {
                for name in self.elements_after(&root).await? {
                    sources.extend(name.parse().ok().map(|source| (engine, source)));
                }
            }
        }
        Ok(sources.into_iter().collect())
    }

    /// Every hold. A hold has no format of its own yet: whoever finds one must let everything be.
    pub async fn holds(&self) -> Result<Vec<StoredObject>, RepositoryError> {
        self.list_stored("facts/holds/").await
    }

    pub(crate) async fn list_stored(&self, prefix: &str) -> Result<Vec<StoredObject>, RepositoryError> {
        let objects = list_all(self.store(), &Prefix::new(prefix)?, None).await?;
        Ok(objects.into_iter().map(StoredObject::from).collect())
    }

    async fn runs_of_headless(
        &self,
        source: &SourceName,
        backups: &[BackupObjects],
    ) -> Result<BackupRuns, RepositoryError> {
        let headless = backups.iter().filter(|backup| backup.head == HeadState::Absent);
        let mut moments = headless.filter_map(|backup| moment_of(&backup.place.backup));
        let Some(first) = moments.next() else {
            return Ok(BackupRuns::default());
        };
        // Oldest first. A run is named before the backup that it takes.
        let last = moments.next_back().unwrap_or(first);
        let since = first.saturating_sub(RUN_BEFORE_BACKUP).unwrap_or(first);
        self.backup_runs(source, since..=last).await
    }

    async fn list_backups(
        &self,
        engine: EngineKind,
        source: &SourceName,
        strays: &mut Vec<StoredObject>,
    ) -> Result<Vec<BackupObjects>, RepositoryError> {
        let mut backups: BTreeMap<BackupPlace, BackupObjects> = BTreeMap::new();
        for class in RetentionClass::ALL {
            for role in ["manifests", "tables", "data"] {
                let prefix = layout::parts_prefix(engine, role, class, source)?;
                for object in list_all(self.store(), &prefix, None).await? {
                    let place = match role {
                        "manifests" => BackupPlace::of_head(&object.key),
                        _ => BackupPlace::of_part(&object.key),
                    };
                    let Some(place) = place else {
                        strays.push(object.into());
                        continue;
                    };
                    let backup = backups
                        .entry(place.clone())
                        .or_insert_with(|| BackupObjects::new(place.clone()));
                    match role {
                        "manifests" => backup.head = self.head_state(&place, object.into()).await?,
                        "tables" => backup.tables.push(object.into()),
                        _ => backup.packs.push(object.into()),
                    }
                }
            }
        }
        let mut backups: Vec<BackupObjects> = backups.into_values().collect();
        backups.sort_by(|a, b| (&a.place.backup, &a.place).cmp(&(&b.place.backup, &b.place)));
        Ok(backups)
    }

    async fn head_state(
        &self,
        place: &BackupPlace,
        object: StoredObject,
    ) -> Result<HeadState, RepositoryError> {
        match self.read_head(place).await {
            Ok(head) => Ok(HeadState::Opened(object, Box::new(head))),
            Err(error) if error.is_about_the_object() => Ok(HeadState::Closed(object, error.to_string())),
            Err(error) => Err(error),
        }
    }

    async fn list_wraps(
        &self,
        engine: EngineKind,
        source: &SourceName,
        strays: &mut Vec<StoredObject>,
    ) -> Result<Vec<GenerationWraps>, RepositoryError> {
        let mut found: BTreeMap<(RetentionClass, GenerationId), Vec<StoredObject>> = BTreeMap::new();
        for class in RetentionClass::ALL {
            let prefix = layout::parts_prefix(engine, "keys", class, source)?;
            for object in list_all(self.store(), &prefix, None).await? {
                match generation_of_wrap(engine, class, source, &object.key) {
                    Some(generation) => found.entry((class, generation)).or_default().push(object.into()),
                    None => strays.push(object.into()),
                }
            }
        }
        let wraps = found
            .into_iter()
            .map(|((class, generation), wraps)| GenerationWraps {
                class,
                generation,
                wraps,
            });
        Ok(wraps.collect())
    }

    /// Restores of any source that began since then, to the day, and still need what is stored: they have not ended, their
    /// copy goes on fetching log, or how they ended cannot be read.
    pub async fn restores_under_way(&self, since: Timestamp) -> Result<Vec<RunId>, RepositoryError> {
        let day = since.strftime("facts/runs/%Y/%m/%d").to_string();
        let mut under_way = Vec::new();
        for object in list_all(self.store(), &layout::runs_prefix()?, Some(&Key::new(day)?)).await? {
            if let Some((run, RunMoment::Started)) = layout::of_run(&object.key)
                && run.kind() == "restore"
                && self.needs_the_repository(&run).await?
            {
                under_way.push(run);
            }
        }
        Ok(under_way)
    }

    async fn needs_the_repository(&self, restore: &RunId) -> Result<bool, RepositoryError> {
        let finished = layout::run(restore, RunMoment::Finished)?;
        match self.store().head(&finished.key).await {
            Ok(_) => {}
            Err(StoreError::NotFound { .. } | StoreError::NotAnObject { .. }) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        match self.read_run_finished(restore).await {
            Ok(record) => Ok(record.needs_log()),
            Err(RepositoryError::NoKey { .. } | RepositoryError::UnknownKey { .. }) => Ok(true),
            Err(error) if error.is_about_the_object() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The different elements that follow `root`, by jumping from one to the next. What follows them begins with a digit.
    async fn elements_after(&self, root: &str) -> Result<Vec<String>, RepositoryError> {
        let prefix = Prefix::new(root)?;
        let (mut elements, mut after) = (Vec::new(), None);
        loop {
            let page = self.store().list_page(&prefix, after.as_ref(), 1).await?;
            let Some(object) = page.objects.first() else {
                return Ok(elements);
            };
            let rest = object.key.as_str().strip_prefix(root).unwrap_or_default();
            let element = rest.split('/').next().unwrap_or_default().to_owned();
            let jump = Key::new(format!("{root}{element}/z"))?;
            // A store that goes backwards would be asked for ever.
            if after.as_ref().is_some_and(|after| *after >= jump) {
                let what = "its names do not come in order";
                return Err(RepositoryError::malformed(&object.key, what));
            }
            after = Some(jump);
            elements.push(element);
        }
    }
}

fn roots_of(engine: EngineKind) -> Vec<String> {
    let roles = ["manifests", "tables", "data", "keys"];
    let classes = RetentionClass::ALL;
    let backups = roles
        .iter()
        .flat_map(|role| classes.map(|class| format!("{engine}-backups/{role}/{class}/")));
    let log = layout::log_root(engine);
    let logs = ["live", "settled", "held", "lineage", "keys"].map(|part| format!("{log}/{part}/"));
    backups.chain(logs).collect()
}

fn generation_of_wrap(
    engine: EngineKind,
    class: RetentionClass,
    source: &SourceName,
    key: &Key,
) -> Option<GenerationId> {
    let envelope = layout::envelope_of_wrap(key)?;
    let (stem, _) = key.segments().next_back()?.rsplit_once('.')?;
    let generation = stem.parse().ok()?;
    (EnvelopePlace::generation(engine, class, source, &generation) == envelope).then_some(generation)
}
