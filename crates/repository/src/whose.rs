//! Whether what is stored is of the repository that `repository.json` names.
//!
//! Promise: two repositories never come to live in one place because `repository.json` was changed or put in place of
//! another: whoever opens it is refused before anything is written. Wraps tell, in clear, so that no key is needed; one alone
//! may be damaged or planted and refuses nobody while any other names this repository.
//! What was opened is asked for again while a job runs, so that nothing is told to be stored where another one lies by now.
//! Not here: another repository than the configuration expects (the binary), heads (base::reader).

use crate::layout::{self, EnvelopePlace};
use crate::repository::read_info;
use crate::{Repository, RepositoryError};
use backstay_codec::Wrap;
use backstay_store::{Key, Prefix, Store, list_all};

/// At most so many wraps are read before a repository is refused.
const WRAPS_MAX: usize = 200;

/// An object that names another repository.
struct Stranger {
    object: Key,
    repository: String,
}

impl Repository {
    /// Refuses if `repository.json` is gone by now, names another repository, or cannot be read as what it was.
    pub async fn refuse_if_replaced(&self) -> Result<(), RepositoryError> {
        let what = match read_info(self.store()).await {
            Ok(info) if info.repository == self.id() => return Ok(()),
            Ok(info) => format!("repository.json says that this is repository {}", info.repository),
            Err(RepositoryError::Absent) => "repository.json is gone".to_owned(),
            Err(error @ (RepositoryError::NoIdentity { .. } | RepositoryError::NewerFormat { .. })) => {
                error.to_string()
            }
            Err(error) => return Err(error),
        };
        let opened = self.id().to_owned();
        Err(RepositoryError::Replaced { opened, what })
    }
}

/// Refuses if the wraps of the newest month name another repository than `id`, and no other wrap names that one. Where they
/// name none, or there is no month, nothing is known.
pub(crate) async fn refuse_other_id(store: &dyn Store, id: &str) -> Result<(), RepositoryError> {
    let months = wraps(store, &Prefix::new("facts/keys/")?).await?;
    let Some((newest, _)) = months.last() else {
        return Ok(());
    };
    let of_newest = months.iter().filter(|(month, _)| month == newest);
    if stranger(store, id, of_newest.map(|(_, key)| key))
        .await?
        .is_none()
    {
        return Ok(());
    }
    let mut every = Vec::new();
    for prefix in layout::envelope_prefixes()? {
        every.extend(wraps(store, &prefix).await?);
    }
    let newest_first = every.iter().rev().take(WRAPS_MAX).map(|(_, key)| key);
    match stranger(store, id, newest_first).await? {
        Some(Stranger { object, repository }) => Err(RepositoryError::OtherId {
            found: id.to_owned(),
            stored: repository,
            example: object.to_string(),
        }),
        None => Ok(()),
    }
}

/// The wraps under a prefix, by their envelopes.
async fn wraps(store: &dyn Store, prefix: &Prefix) -> Result<Vec<(EnvelopePlace, Key)>, RepositoryError> {
    let objects = list_all(store, prefix, None).await?.into_iter();
    Ok(objects
        .filter_map(|object| Some((layout::envelope_of_wrap(&object.key)?, object.key)))
        .collect())
}

/// The first of these wraps that names another repository, if none names this one.
async fn stranger(
    store: &dyn Store,
    id: &str,
    wraps: impl Iterator<Item = &Key>,
) -> Result<Option<Stranger>, RepositoryError> {
    let mut found = None;
    for object in wraps {
        let json = match store.get(object).await.map_err(RepositoryError::from) {
            Err(error) if error.is_about_the_object() => continue,
            answer => answer?,
        };
        let wrap = Wrap::from_json(&json).ok();
        match wrap.as_ref().and_then(Wrap::repository) {
            Some(repository) if repository == id => return Ok(None),
            Some(repository) => {
                found.get_or_insert(Stranger {
                    object: object.clone(),
                    repository: repository.to_owned(),
                });
            }
            None => {}
        }
    }
    Ok(found)
}
