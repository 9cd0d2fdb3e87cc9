//! Lists what is stored of backups that have no head, newer than those that have one.
//!
//! Promise: a few names are listed for each backup, whatever its size, until one without a head is found.
//! Not here: why it has none (backstay-engine::plan::headless), all parts of all backups (inventory).

use crate::layout::{self, BackupPlace};
use crate::{Repository, RepositoryError};
use backstay_store::{Key, Prefix, list_all};
use backstay_terms::{BackupId, EngineKind, GenerationId, RetentionClass, SourceName};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Packs and tables of a backup without a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headless {
    /// Which.
    pub backup: BackupId,
    /// In which class.
    pub class: RetentionClass,
    /// How many packs and tables.
    pub parts: usize,
    /// When the newest of them was stored.
    pub stored: Timestamp,
}

impl Repository {
    /// Those whose names sort after `newest`, of which there is a head; all without one. Oldest first. What is committed
    /// meanwhile is among them.
    pub async fn headless(
        &self,
        engine: EngineKind,
        source: &SourceName,
        newest: Option<(&GenerationId, &BackupId)>,
    ) -> Result<Vec<Headless>, RepositoryError> {
        let mut found: BTreeMap<BackupId, Headless> = BTreeMap::new();
        for class in RetentionClass::ALL {
            for role in ["tables", "data"] {
                let prefix = layout::parts_prefix(engine, role, class, source)?;
                // Names of packs and tables begin with p and t.
                let end_of = |generation: &GenerationId, backup: &BackupId| {
                    Key::new(format!("{}{generation}/{backup}/z", prefix.as_str()))
                };
                let mut after = match newest {
                    Some((generation, backup)) => Some(end_of(generation, backup)?),
                    None => None,
                };
                while let Some(first) = self.first_after(&prefix, after.as_ref()).await? {
                    let Some(place) = BackupPlace::of_part(&first) else {
                        after = Some(first);
                        continue;
                    };
                    after = Some(end_of(&place.generation, &place.backup)?);
                    let parts = match role {
                        "tables" => place.tables_prefix()?,
                        _ => place.packs_prefix()?,
                    };
                    for part in list_all(self.store(), &parts, None).await? {
                        let known = found.entry(place.backup.clone()).or_insert_with(|| Headless {
                            backup: place.backup.clone(),
                            class,
                            parts: 0,
                            stored: part.modified,
                        });
                        known.parts += 1;
                        known.stored = known.stored.max(part.modified);
                    }
                }
            }
        }
        Ok(found.into_values().collect())
    }

    async fn first_after(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
    ) -> Result<Option<Key>, RepositoryError> {
        let page = self.store().list_page(prefix, after, 1).await?;
        Ok(page.objects.into_iter().next().map(|object| object.key))
    }
}
