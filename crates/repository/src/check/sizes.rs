//! Finds objects that are smaller than anything that is written: a listing shows them, and nothing has to be opened.
//!
//! Promise: whatever a listing tells of an object's size alone is told at every depth.
//! Not here: ranges (log), objects whose size another one names (backups), whether the bytes are right.

use super::{CheckFinding, Invariant};
use crate::layout;
use crate::{LogStore, Repository, RepositoryError};
use backstay_codec::container_length;
use backstay_store::{ObjectMeta, Prefix, list_all};
use backstay_terms::RetentionClass;

impl LogStore {
    /// Log indexes, history files and wraps of a source that are too small to be any.
    pub async fn check_sizes(&self) -> Result<Vec<CheckFinding>, RepositoryError> {
        let mut prefixes = vec![
            self.place.all_indexes_prefix()?,
            self.place.all_histories_prefix()?,
            self.place.keys_prefix()?,
        ];
        for class in RetentionClass::ALL {
            prefixes.push(layout::parts_prefix(
                self.place.engine,
                "keys",
                class,
                &self.place.source,
            )?);
        }
        self.repository.too_small(&prefixes).await
    }
}

impl Repository {
    /// Wraps of the months of facts that are too small to be any.
    pub async fn check_month_sizes(&self) -> Result<Vec<CheckFinding>, RepositoryError> {
        self.too_small(&[Prefix::new("facts/keys/")?]).await
    }

    async fn too_small(&self, prefixes: &[Prefix]) -> Result<Vec<CheckFinding>, RepositoryError> {
        let mut findings = Vec::new();
        for prefix in prefixes {
            let objects = list_all(self.store(), prefix, None).await?;
            findings.extend(objects.iter().filter_map(CheckFinding::too_small));
        }
        Ok(findings)
    }
}

impl CheckFinding {
    /// The finding that an object is smaller than an empty container; nothing clear but `repository.json` is so small either.
    pub(super) fn too_small(object: &ObjectMeta) -> Option<CheckFinding> {
        let what = || {
            format!(
                "it has {} bytes, and nothing that is written here is so small",
                object.size
            )
        };
        (object.size < container_length(0))
            .then(|| CheckFinding::new(object.key.as_str(), Invariant::Repo3, what()))
    }
}
