//! Every object name of a repository, with its logical name.
//!
//! Promise: this file is the only place that spells a name; `docs/internals/repository-format.md` section 1 is its
//! specification. What is made here is read back here, and nothing else is accepted.
//! Not here: what the objects hold.

use crate::RepositoryError;
use backstay_store::{Key, Prefix};
use backstay_terms::{
    BackupId, Branch, EngineKind, EpochId, GenerationId, LogRange, Position, RecordId, RetentionClass, RunId,
    SourceName, WrapId,
};
use jiff::Timestamp;

/// The name of the object that says which repository this is.
pub const REPOSITORY: &str = "repository.json";

/// Whether an object of this name belongs to a repository, to this one or to another.
pub fn is_of_a_repository(name: &str) -> bool {
    let first = name.split('/').next().unwrap_or_default();
    matches!(first, "wal-archive" | "facts" | "keyring") || first.ends_with("-backups")
}

/// Whether this name can be an object's alone, and never a folder's.
pub fn is_of_an_object(name: &str) -> bool {
    let Ok(key) = Key::new(name) else { return false };
    let segments: Vec<&str> = key.segments().collect();
    match segments[..] {
        [REPOSITORY] | ["keyring", _] | ["facts", "holds", _] => true,
        ["facts", "runs", ..] => of_run(&key).is_some(),
        _ => {
            let of_backup = BackupPlace::of_head(&key).or_else(|| BackupPlace::of_part(&key));
            of_backup.is_some() || envelope_of_wrap(&key).is_some() || is_of_log(&key)
        }
    }
}

fn is_of_log(key: &Key) -> bool {
    let engines = [EngineKind::Postgres, EngineKind::Redis, EngineKind::Qdrant];
    engines.into_iter().any(|engine| {
        let below = key.as_str().strip_prefix(log_root(engine));
        let segments: Vec<&str> = below.unwrap_or_default().split('/').collect();
        let [_, part, source, rest @ ..] = &segments[..] else {
            return false;
        };
        let Ok(source) = source.parse() else { return false };
        let place = LogPlace { engine, source };
        let level = Level::ALL.into_iter().find(|level| level.name() == *part);
        match (level, *part, rest) {
            (Some(level), ..) => place.of_range(level, key).is_some(),
            (None, "index", _) => place.of_any_index(key).is_some(),
            (None, "lineage", [id]) => id.parse::<RecordId>().is_ok(),
            (None, "history", [_, file]) => file.split_once('-').is_some(),
            _ => false,
        }
    })
}

/// The name without its meaning: where an object lies, and the name that its sealing binds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The object's name in the store.
    pub key: Key,
    /// The logical name.
    pub logical: String,
}

impl Place {
    fn new(key: String, logical: String) -> Result<Place, RepositoryError> {
        Ok(Place {
            key: Key::new(key)?,
            logical,
        })
    }
}

/// `YYYYMMDDTHHMMSSZ`.
pub fn moment(time: Timestamp) -> String {
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// `YYYY-MM`.
pub fn month(time: Timestamp) -> String {
    time.strftime("%Y-%m").to_string()
}

/// `YYYYMMDDTHH`.
pub fn hour(time: Timestamp) -> String {
    time.strftime("%Y%m%dT%H").to_string()
}

/// Where one backup's objects lie.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupPlace {
    /// The engine.
    pub engine: EngineKind,
    /// The source.
    pub source: SourceName,
    /// The retention class.
    pub class: RetentionClass,
    /// The generation.
    pub generation: GenerationId,
    /// The backup.
    pub backup: BackupId,
}

impl BackupPlace {
    fn dated(&self, role: &str, rest: &str) -> String {
        let Self {
            engine,
            source,
            class,
            generation,
            backup,
        } = self;
        format!("{engine}-backups/{role}/{class}/{source}/{generation}/{backup}{rest}")
    }

    fn logical(&self, rest: &str) -> String {
        let Self {
            engine,
            source,
            generation,
            backup,
            ..
        } = self;
        format!("{engine}/{source}/{generation}/{backup}/{rest}")
    }

    /// The head.
    pub fn head(&self) -> Result<Place, RepositoryError> {
        Place::new(self.dated("manifests", ""), self.logical("head"))
    }

    /// A table by its name: `t0000`.
    pub fn table(&self, name: &str) -> Result<Place, RepositoryError> {
        Place::new(self.dated("tables", &format!("/{name}")), self.logical(name))
    }

    /// A pack by its name: `p00000`.
    pub fn pack(&self, name: &str) -> Result<Place, RepositoryError> {
        Place::new(self.dated("data", &format!("/{name}")), self.logical(name))
    }

    /// What every table's name begins with.
    pub fn tables_prefix(&self) -> Result<Prefix, RepositoryError> {
        Ok(Prefix::new(self.dated("tables", "/"))?)
    }

    /// What every pack's name begins with.
    pub fn packs_prefix(&self) -> Result<Prefix, RepositoryError> {
        Ok(Prefix::new(self.dated("data", "/"))?)
    }

    /// Reads a head's name back.
    pub fn of_head(key: &Key) -> Option<BackupPlace> {
        Self::of_parts(key, "manifests")
            .filter(|(_, rest)| rest.is_empty())
            .map(|(place, _)| place)
    }

    /// Reads a pack's or table's name back: whose it is.
    pub fn of_part(key: &Key) -> Option<BackupPlace> {
        let part = Self::of_parts(key, "data").or_else(|| Self::of_parts(key, "tables"));
        part.filter(|(_, rest)| rest.len() == 1).map(|(place, _)| place)
    }

    fn of_parts<'a>(key: &'a Key, role: &str) -> Option<(BackupPlace, Vec<&'a str>)> {
        let mut parts = key.segments();
        let engine = engine_of(parts.next()?.strip_suffix("-backups")?)?;
        (parts.next()? == role).then_some(())?;
        let class = parts.next()?.parse().ok()?;
        let source = parts.next()?.parse().ok()?;
        let generation = parts.next()?.parse().ok()?;
        let backup = parts.next()?.parse().ok()?;
        Some((
            BackupPlace {
                engine,
                source,
                class,
                generation,
                backup,
            },
            parts.collect(),
        ))
    }
}

/// The engine of this name.
pub fn engine_of(name: &str) -> Option<EngineKind> {
    [EngineKind::Postgres, EngineKind::Redis, EngineKind::Qdrant]
        .into_iter()
        .find(|kind| kind.name() == name)
}

/// What every head of a source in a class begins with.
pub fn heads_prefix(
    engine: EngineKind,
    class: RetentionClass,
    source: &SourceName,
) -> Result<Prefix, RepositoryError> {
    Ok(Prefix::new(format!(
        "{engine}-backups/manifests/{class}/{source}/"
    ))?)
}

/// What every pack or table of an engine in a class begins with; `role` is `data` or `tables`.
pub fn parts_prefix(
    engine: EngineKind,
    role: &str,
    class: RetentionClass,
    source: &SourceName,
) -> Result<Prefix, RepositoryError> {
    Ok(Prefix::new(format!("{engine}-backups/{role}/{class}/{source}/"))?)
}

/// An envelope: where its wraps lie, and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvelopePlace {
    stem: String,
    /// The name that its wraps bind.
    pub name: String,
}

impl EnvelopePlace {
    /// The envelope of a generation, under the class of its full.
    pub fn generation(
        engine: EngineKind,
        class: RetentionClass,
        source: &SourceName,
        generation: &GenerationId,
    ) -> Self {
        EnvelopePlace {
            stem: format!("{engine}-backups/keys/{class}/{source}/{generation}"),
            name: format!("{engine}/{source}/{generation}"),
        }
    }

    /// The envelope of a log epoch.
    pub fn epoch(engine: EngineKind, source: &SourceName, epoch: &EpochId) -> Self {
        EnvelopePlace {
            stem: format!("{}/keys/{source}/{epoch}", log_root(engine)),
            name: format!("{engine}/{source}/log/{epoch}"),
        }
    }

    /// The envelope of a month of facts.
    pub fn facts(month: &str) -> Self {
        EnvelopePlace {
            stem: format!("facts/keys/{month}"),
            name: format!("facts/{month}"),
        }
    }

    /// What the names of its wraps begin with.
    pub fn prefix(&self) -> Result<Prefix, RepositoryError> {
        Ok(Prefix::new(format!("{}.", self.stem))?)
    }

    /// The name of one wrap.
    pub fn wrap(&self, wrap: WrapId) -> Result<Key, RepositoryError> {
        Ok(Key::new(format!("{}.{wrap}", self.stem))?)
    }
}

/// Every prefix under which envelopes lie, for rotation and for `key check`.
pub fn envelope_prefixes() -> Result<Vec<Prefix>, RepositoryError> {
    let kinds = [EngineKind::Postgres, EngineKind::Redis, EngineKind::Qdrant];
    let generations = kinds.iter().map(|engine| format!("{engine}-backups/keys/"));
    let logs = [EngineKind::Postgres, EngineKind::Redis].map(|engine| format!("{}/keys/", log_root(engine)));
    generations
        .chain(logs)
        .chain(["facts/keys/".to_owned()])
        .map(|text| Ok(Prefix::new(text)?))
        .collect()
}

/// Reads the envelope that a wrap's name belongs to.
pub fn envelope_of_wrap(key: &Key) -> Option<EnvelopePlace> {
    let (stem, wrap) = key.as_str().rsplit_once('.')?;
    wrap.parse::<WrapId>().ok()?;
    let parts: Vec<&str> = stem.split('/').collect();
    match parts.as_slice() {
        ["facts", "keys", month] => Some(EnvelopePlace::facts(month)),
        [backups, "keys", class, source, generation] => {
            let engine = engine_of(backups.strip_suffix("-backups")?)?;
            let (class, source) = (class.parse().ok()?, source.parse().ok()?);
            Some(EnvelopePlace::generation(
                engine,
                class,
                &source,
                &generation.parse().ok()?,
            ))
        }
        [log @ .., "keys", source, epoch] => {
            let engine = [EngineKind::Postgres, EngineKind::Redis]
                .into_iter()
                .find(|e| log_root(*e) == log.join("/"))?;
            Some(EnvelopePlace::epoch(
                engine,
                &source.parse().ok()?,
                &epoch.parse().ok()?,
            ))
        }
        _ => None,
    }
}

/// The name of a passphrase's keyring object.
pub fn keyring(id: &str) -> Result<Key, RepositoryError> {
    Ok(Key::new(format!("keyring/{id}"))?)
}

/// Where an engine's log lies.
pub fn log_root(engine: EngineKind) -> &'static str {
    match engine {
        EngineKind::Postgres => "wal-archive",
        EngineKind::Redis => "redis-backups/log",
        EngineKind::Qdrant => "qdrant-backups/log",
    }
}

/// How settled a range is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Ranges of seconds.
    Live,
    /// Ranges of up to 16 MiB or an hour.
    Settled,
    /// Kept by a hold.
    Held,
}

impl Level {
    /// Every level.
    pub const ALL: [Level; 3] = [Level::Live, Level::Settled, Level::Held];

    /// The word in names.
    pub fn name(self) -> &'static str {
        match self {
            Level::Live => "live",
            Level::Settled => "settled",
            Level::Held => "held",
        }
    }
}

/// The log of one source: all its names begin here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPlace {
    /// The engine.
    pub engine: EngineKind,
    /// The source.
    pub source: SourceName,
}

/// The name of a range within its branch: `<from>-<to>.<epoch>-<n>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeName {
    /// The positions.
    pub range: LogRange,
    /// The run that wrote it.
    pub epoch: EpochId,
    /// Its number within that run.
    pub number: u32,
}

impl std::fmt::Display for RangeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}-{}.{}-{:08x}",
            self.range.from, self.range.to, self.epoch, self.number
        )
    }
}

impl std::str::FromStr for RangeName {
    type Err = ();

    fn from_str(text: &str) -> Result<RangeName, ()> {
        let (positions, rest) = text.split_once('.').ok_or(())?;
        let (from, to) = positions.split_once('-').ok_or(())?;
        let (epoch, number) = rest.rsplit_once('-').ok_or(())?;
        let position = |text: &str| text.parse::<Position>().map_err(|_| ());
        let range = LogRange::new(position(from)?, position(to)?).ok_or(())?;
        let hex = number.len() == 8
            && number
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let number = u32::from_str_radix(number, 16).map_err(|_| ())?;
        let name = RangeName {
            range,
            epoch: epoch.parse().map_err(|_| ())?,
            number,
        };
        if hex { Ok(name) } else { Err(()) }
    }
}

impl LogPlace {
    /// A range's object.
    pub fn range(&self, level: Level, branch: &Branch, name: &RangeName) -> Result<Place, RepositoryError> {
        let (root, source) = (log_root(self.engine), &self.source);
        let key = format!("{root}/{}/{source}/{branch}/{name}", level.name());
        Place::new(key, format!("{}/{source}/{branch}/{name}", self.engine))
    }

    /// What every range of a level begins with; of all branches if none is given.
    pub fn ranges_prefix(&self, level: Level, branch: Option<&Branch>) -> Result<Prefix, RepositoryError> {
        let root = format!("{}/{}/{}/", log_root(self.engine), level.name(), self.source);
        Ok(Prefix::new(
            branch.map_or(root.clone(), |branch| format!("{root}{branch}/")),
        )?)
    }

    /// A name that sorts before every range of the branch that begins at or after `from`.
    pub fn range_start_after(
        &self,
        level: Level,
        branch: &Branch,
        from: Position,
    ) -> Result<Key, RepositoryError> {
        let (root, source) = (log_root(self.engine), &self.source);
        Ok(Key::new(format!(
            "{root}/{}/{source}/{branch}/{from}",
            level.name()
        ))?)
    }

    /// Reads a range's name back.
    pub fn of_range(&self, level: Level, key: &Key) -> Option<(Branch, RangeName)> {
        let prefix = self.ranges_prefix(level, None).ok()?;
        let rest = key.as_str().strip_prefix(prefix.as_str())?;
        let (branch, name) = rest.rsplit_once('/')?;
        Some((branch.parse().ok()?, name.parse().ok()?))
    }

    /// The index of an epoch's ranges of one hour.
    pub fn index(&self, branch: &Branch, hour: &str, epoch: &EpochId) -> Result<Place, RepositoryError> {
        let (root, source) = (log_root(self.engine), &self.source);
        let key = format!("{root}/index/{source}/{branch}/{hour}.{epoch}");
        Place::new(key, format!("{}/{source}/{branch}/{hour}.{epoch}", self.engine))
    }

    /// What every wrap of the log's epochs begins with.
    pub fn keys_prefix(&self) -> Result<Prefix, RepositoryError> {
        Ok(Prefix::new(format!(
            "{}/keys/{}/",
            log_root(self.engine),
            self.source
        ))?)
    }

    /// What the log indexes of all branches begin with.
    pub fn all_indexes_prefix(&self) -> Result<Prefix, RepositoryError> {
        Ok(Prefix::new(format!(
            "{}/index/{}/",
            log_root(self.engine),
            self.source
        ))?)
    }

    /// Reads a log index's name back, of whichever branch.
    pub fn of_any_index(&self, key: &Key) -> Option<(Branch, String, EpochId)> {
        let rest = key
            .as_str()
            .strip_prefix(self.all_indexes_prefix().ok()?.as_str())?;
        let branch = rest.rsplit_once('/')?.0.parse().ok()?;
        let (hour, epoch) = self.of_index(&branch, key)?;
        Some((branch, hour, epoch))
    }

    /// What every log index of a branch begins with.
    pub fn indexes_prefix(&self, branch: &Branch) -> Result<Prefix, RepositoryError> {
        Ok(Prefix::new(format!(
            "{}/index/{}/{branch}/",
            log_root(self.engine),
            self.source
        ))?)
    }

    /// Reads a log index's name back.
    pub fn of_index(&self, branch: &Branch, key: &Key) -> Option<(String, EpochId)> {
        let prefix = self.indexes_prefix(branch).ok()?;
        let (hour, epoch) = key.as_str().strip_prefix(prefix.as_str())?.split_once('.')?;
        Some((hour.to_owned(), epoch.parse().ok()?))
    }

    /// A lineage record.
    pub fn lineage(&self, id: &RecordId) -> Result<Place, RepositoryError> {
        let (root, source) = (log_root(self.engine), &self.source);
        Place::new(
            format!("{root}/lineage/{source}/{id}"),
            format!("{}/{source}/lineage/{id}", self.engine),
        )
    }

    /// What every lineage record begins with.
    pub fn lineages_prefix(&self) -> Result<Prefix, RepositoryError> {
        Ok(Prefix::new(format!(
            "{}/lineage/{}/",
            log_root(self.engine),
            self.source
        ))?)
    }

    /// A timeline history file.
    pub fn history(&self, system: u64, timeline: u32, digest: &str) -> Result<Place, RepositoryError> {
        let (root, source) = (log_root(self.engine), &self.source);
        let rest = format!("{system:016x}/{timeline:08x}-{digest}");
        Place::new(
            format!("{root}/history/{source}/{rest}"),
            format!("{}/{source}/{rest}", self.engine),
        )
    }

    /// What every history file of every system begins with.
    pub fn all_histories_prefix(&self) -> Result<Prefix, RepositoryError> {
        Ok(Prefix::new(format!(
            "{}/history/{}/",
            log_root(self.engine),
            self.source
        ))?)
    }

    /// What every history file of a system begins with.
    pub fn histories_prefix(&self, system: u64) -> Result<Prefix, RepositoryError> {
        let all = self.all_histories_prefix()?;
        Ok(Prefix::new(format!("{}{system:016x}/", all.as_str()))?)
    }

    /// Reads a history file's name back: timeline and digest.
    pub fn of_history(&self, system: u64, key: &Key) -> Option<(u32, String)> {
        let prefix = self.histories_prefix(system).ok()?;
        let (timeline, digest) = key.as_str().strip_prefix(prefix.as_str())?.split_once('-')?;
        Some((u32::from_str_radix(timeline, 16).ok()?, digest.to_owned()))
    }
}

/// The two moments of a run that are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunMoment {
    /// Before the work.
    Started,
    /// After it.
    Finished,
}

/// A run record.
pub fn run(id: &RunId, moment: RunMoment) -> Result<Place, RepositoryError> {
    let word = match moment {
        RunMoment::Started => "started",
        RunMoment::Finished => "finished",
    };
    let day = id.moment();
    let part = |range: std::ops::Range<usize>| day.get(range).unwrap_or_default();
    let key = format!(
        "facts/runs/{}/{}/{}/{id}.{word}",
        part(0..4),
        part(4..6),
        part(6..8)
    );
    Place::new(key, format!("facts/runs/{id}.{word}"))
}

/// What every run record begins with.
pub fn runs_prefix() -> Result<Prefix, RepositoryError> {
    Ok(Prefix::new("facts/runs/")?)
}

/// Reads a run record's name back.
pub fn of_run(key: &Key) -> Option<(RunId, RunMoment)> {
    let (id, word) = key.segments().next_back()?.rsplit_once('.')?;
    let moment = match word {
        "started" => RunMoment::Started,
        "finished" => RunMoment::Finished,
        _ => return None,
    };
    Some((id.parse().ok()?, moment))
}

#[cfg(test)]
mod tests;
