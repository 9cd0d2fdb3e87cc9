//! Which backups there are: by their names, and by their heads.
//!
//! Promise: a head that cannot be opened is given back with the reason, so that nobody takes it for absent and it hides no
//! other. A store that fails is an error, never an empty answer.
//! Not here: one head (reader), parts and ages (inventory).

use super::head::Head;
use super::order::oldest_first;
use crate::layout::{BackupPlace, heads_prefix};
use crate::{Repository, RepositoryError, StoredObject};
use backstay_store::{Prefix, StoreError, list_all};
use backstay_terms::{EngineKind, RetentionClass, SourceName};
use jiff::Timestamp;
use std::sync::Arc;

/// A head that is there and cannot be opened.
#[derive(Clone, Debug)]
pub struct UnreadableHead {
    /// Where its backup lies.
    pub place: BackupPlace,
    /// The object.
    pub object: StoredObject,
    /// A moment at which its backup was complete, by the store's clock.
    pub complete: Timestamp,
    /// Why it cannot be opened.
    pub why: Arc<RepositoryError>,
}

/// The backups of a source.
#[derive(Clone, Debug, Default)]
pub struct HeadsSeen {
    /// The heads that open, oldest first.
    pub heads: Vec<Head>,
    /// The others, oldest first.
    pub unreadable: Vec<UnreadableHead>,
}

impl Repository {
    /// Where the backups of a source lie, oldest first, from names alone.
    pub async fn backup_places(
        &self,
        engine: EngineKind,
        source: &SourceName,
    ) -> Result<Vec<BackupPlace>, RepositoryError> {
        let listed = self.listed_heads(engine, source).await?;
        Ok(listed.into_iter().map(|(place, _)| place).collect())
    }

    /// The heads of a source, oldest first; one that cannot be opened is an error.
    pub async fn heads(&self, engine: EngineKind, source: &SourceName) -> Result<Vec<Head>, RepositoryError> {
        let mut heads = Vec::new();
        for (place, _) in self.listed_heads(engine, source).await? {
            heads.push(self.read_head(&place).await?);
        }
        oldest_first(&mut heads, self.now());
        Ok(heads)
    }

    /// The heads of a source, and those that cannot be opened.
    pub async fn heads_seen(
        &self,
        engine: EngineKind,
        source: &SourceName,
    ) -> Result<HeadsSeen, RepositoryError> {
        let mut seen = HeadsSeen::default();
        for (place, object) in self.listed_heads(engine, source).await? {
            match self.read_head(&place).await {
                Ok(head) => seen.heads.push(head),
                // It expired since it was listed.
                Err(RepositoryError::Store(StoreError::NotFound { .. }))
                    if !self.has_head(&place).await? => {}
                Err(error) if error.is_about_the_object() => {
                    seen.unreadable.push(UnreadableHead {
                        complete: self.complete(&place, &object).await?,
                        place,
                        object,
                        why: Arc::new(error),
                    });
                }
                Err(error) => return Err(error),
            }
        }
        oldest_first(&mut seen.heads, self.now());
        Ok(seen)
    }

    /// Every source that has a backup, from names alone.
    pub async fn sources(&self) -> Result<Vec<(EngineKind, SourceName)>, RepositoryError> {
        let mut sources = Vec::new();
        for engine in [EngineKind::Postgres, EngineKind::Redis, EngineKind::Qdrant] {
            let prefix = Prefix::new(format!("{engine}-backups/manifests/"))?;
            for object in list_all(self.store(), &prefix, None).await? {
                sources.extend(BackupPlace::of_head(&object.key).map(|place| (place.engine, place.source)));
            }
        }
        sources.sort();
        sources.dedup();
        Ok(sources)
    }

    async fn listed_heads(
        &self,
        engine: EngineKind,
        source: &SourceName,
    ) -> Result<Vec<(BackupPlace, StoredObject)>, RepositoryError> {
        let mut listed = Vec::new();
        for class in RetentionClass::ALL {
            for object in list_all(self.store(), &heads_prefix(engine, class, source)?, None).await? {
                let place = BackupPlace::of_head(&object.key);
                listed.extend(place.map(|place| (place, object.into())));
            }
        }
        listed.sort_by(|(a, _): &(BackupPlace, StoredObject), (b, _)| a.backup.cmp(&b.backup));
        Ok(listed)
    }

    /// Root table and head are stored when everything else of a backup is. Damage may have given one of them a later time.
    async fn complete(&self, place: &BackupPlace, head: &StoredObject) -> Result<Timestamp, RepositoryError> {
        match self.store().head(&place.table("t0000")?.key).await {
            Ok(root) => Ok(root.modified.min(head.modified)),
            Err(StoreError::NotFound { .. } | StoreError::NotAnObject { .. }) => Ok(head.modified),
            Err(error) => Err(error.into()),
        }
    }

    async fn has_head(&self, place: &BackupPlace) -> Result<bool, RepositoryError> {
        match self.store().head(&place.head()?.key).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
