//! Opens any sealed object by its name alone.
//!
//! Promise: the envelope and the logical name follow from the object's name, so a renamed object is refused; what comes
//! out is authenticated. Compressed content stays compressed: this is for looking at what is stored.
//! Not here: what the content means.

use crate::layout::{self, BackupPlace, EnvelopePlace, Level, LogPlace, Place};
use crate::{Repository, RepositoryError};
use backstay_codec::{Header, Kind};
use backstay_store::Key;
use backstay_terms::{EngineKind, SourceName};
use bytes::Bytes;

impl Repository {
    /// The content of a sealed object; of a range of the log its bytes, without the index part. None if the name is not
    /// one of a sealed object.
    pub async fn decrypt(&self, name: &str) -> Result<Option<Vec<u8>>, RepositoryError> {
        let key = Key::new(name)?;
        if let Some((log, level, branch, range)) = range_named(&key) {
            let size = self.store().head(&key).await?.size;
            let stored = crate::StoredRange {
                branch,
                level,
                name: range,
                size,
            };
            let store = crate::LogStore::new(self, log.engine, &log.source);
            return Ok(Some(store.range(&stored).await?.1.to_vec()));
        }
        let Some((place, envelope)) = sealed_place(&key) else {
            return Ok(None);
        };
        let body = self.store().get(&key).await?;
        let content = match envelope {
            Some(envelope) => self.open_any(&place, &envelope, body).await,
            None => self.open_fact(&place, body).await,
        };
        content.map(Some)
    }

    async fn open_any(
        &self,
        place: &Place,
        envelope: &EnvelopePlace,
        body: Bytes,
    ) -> Result<Vec<u8>, RepositoryError> {
        let sealed = |source| RepositoryError::Sealed {
            key: place.key.to_string(),
            source,
        };
        let header = Header::read(&body, &place.logical).map_err(sealed)?;
        let kind: Kind = header
            .kind()
            .ok_or_else(|| RepositoryError::malformed(&place.key, "its kind is not known to this version"))?;
        self.open_sealed(place, kind, envelope, body).await
    }

    /// A fact is sealed with some month's key.
    async fn open_fact(&self, place: &Place, body: Bytes) -> Result<Vec<u8>, RepositoryError> {
        let mut refused = None;
        for envelope in self.envelopes().await? {
            if !envelope.name.starts_with("facts/") {
                continue;
            }
            match self.open_any(place, &envelope, body.clone()).await {
                Err(error @ (RepositoryError::UnknownKey { .. } | RepositoryError::NoKey { .. })) => {
                    refused = Some(error);
                }
                answer => return answer,
            }
        }
        let nothing = || RepositoryError::Key {
            what: format!("no month has keys that could open {}", place.key),
        };
        Err(refused.unwrap_or_else(nothing))
    }
}

type NamedRange = (LogPlace, Level, backstay_terms::Branch, layout::RangeName);

fn logs() -> [EngineKind; 2] {
    [EngineKind::Postgres, EngineKind::Redis]
}

/// The source that stands at this element of the name.
fn source_at(key: &Key, root: &str, part: &str) -> Option<SourceName> {
    let rest = key.as_str().strip_prefix(&format!("{root}/{part}/"))?;
    rest.split('/').next()?.parse().ok()
}

fn range_named(key: &Key) -> Option<NamedRange> {
    logs().into_iter().find_map(|engine| {
        Level::ALL.into_iter().find_map(|level| {
            let source = source_at(key, layout::log_root(engine), level.name())?;
            let log = LogPlace { engine, source };
            let (branch, name) = log.of_range(level, key)?;
            Some((log, level, branch, name))
        })
    })
}

/// Where an object lies, and its envelope; none for a fact, whose month its name does not always tell.
fn sealed_place(key: &Key) -> Option<(Place, Option<EnvelopePlace>)> {
    if let Some(of) = BackupPlace::of_head(key) {
        return Some((of.head().ok()?, Some(generation_of(&of))));
    }
    if let Some(of) = BackupPlace::of_part(key) {
        let name = key.segments().next_back()?;
        let place = if name.starts_with('p') {
            of.pack(name)
        } else {
            of.table(name)
        };
        return Some((place.ok()?, Some(generation_of(&of))));
    }
    if let Some((run, moment)) = layout::of_run(key) {
        return Some((layout::run(&run, moment).ok()?, None));
    }
    logs()
        .into_iter()
        .find_map(|engine| index_of_log(key, engine).or_else(|| Some((fact_of_log(key, engine)?, None))))
}

fn index_of_log(key: &Key, engine: EngineKind) -> Option<(Place, Option<EnvelopePlace>)> {
    let source = source_at(key, layout::log_root(engine), "index")?;
    let log = LogPlace { engine, source };
    let (branch, hour, epoch) = log.of_any_index(key)?;
    let envelope = EnvelopePlace::epoch(engine, &log.source, &epoch);
    Some((log.index(&branch, &hour, &epoch).ok()?, Some(envelope)))
}

fn fact_of_log(key: &Key, engine: EngineKind) -> Option<Place> {
    let root = layout::log_root(engine);
    let last = key.segments().next_back()?;
    if let Some(source) = source_at(key, root, "lineage") {
        return LogPlace { engine, source }.lineage(&last.parse().ok()?).ok();
    }
    let log = LogPlace {
        engine,
        source: source_at(key, root, "history")?,
    };
    let system = u64::from_str_radix(key.segments().rev().nth(1)?, 16).ok()?;
    let (timeline, digest) = log.of_history(system, key)?;
    log.history(system, timeline, &digest).ok()
}

fn generation_of(of: &BackupPlace) -> EnvelopePlace {
    EnvelopePlace::generation(of.engine, of.class, &of.source, &of.generation)
}
