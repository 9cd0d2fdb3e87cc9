//! Sealed objects: writes one, reads one.
//!
//! Promise: what is written has been opened again and compared (REPO-3); a name that is already taken is an error
//! unless it holds the very bytes that we would write (REPO-1: an unknown outcome is repeated).
//! Not here: which key and which name.

mod decrypt;
mod window;

pub(crate) use window::{Opened, REQUEST, Window};

use crate::base::NamedObject;
use crate::layout::{EnvelopePlace, Place};
use crate::{Repository, RepositoryError};
use backstay_codec::{Header, Kind, Salt, SealBuffer, SecretKey, Sha256, digest, unseal};
use backstay_store::{Created, Key};
use bytes::Bytes;

impl Repository {
    /// Seals and stores; `name` becomes the returned name.
    pub(crate) async fn put_sealed(
        &self,
        place: Place,
        kind: Kind,
        key: SecretKey,
        plain: Vec<u8>,
        name: String,
    ) -> Result<NamedObject, RepositoryError> {
        let salt = Salt::random().map_err(RepositoryError::encoding)?;
        let mut buffer = SealBuffer::with_capacity(plain.len());
        buffer.append(&plain);
        drop(plain);
        self.put_sealed_buffer(place, kind, key, salt, buffer, name).await
    }

    /// The same, sealed where it lies and with a salt that the caller wants to know.
    pub(crate) async fn put_sealed_buffer(
        &self,
        place: Place,
        kind: Kind,
        key: SecretKey,
        salt: Salt,
        plain: SealBuffer,
        name: String,
    ) -> Result<NamedObject, RepositoryError> {
        let Place { key: at, logical } = place;
        let work = move || {
            let sealed = plain
                .seal_proven(kind, &key, &logical, &salt)
                .map_err(RepositoryError::encoding)?;
            let sha256 = digest(&sealed);
            Ok::<_, RepositoryError>((Bytes::from(sealed), sha256))
        };
        let (sealed, sha256) = on_worker(work).await?;
        let size = sealed.len() as u64;
        self.put_once(&at, sealed).await?;
        Ok(NamedObject { name, size, sha256 })
    }

    /// Stores bytes under a name of this run; a name already taken must hold the same bytes.
    pub(crate) async fn put_once(&self, key: &Key, body: Bytes) -> Result<(), RepositoryError> {
        match self.store().put_if_absent(key, body.clone()).await? {
            Created::Now => Ok(()),
            Created::AlreadyThere if self.store().get(key).await? == body => Ok(()),
            Created::AlreadyThere => {
                let what = "other bytes lie under a name that belongs to this run alone".to_owned();
                Err(RepositoryError::Differs {
                    object: key.to_string(),
                    what,
                })
            }
        }
    }

    /// Reads and opens a whole object; the key comes from the envelope if this process does not know it yet.
    pub(crate) async fn get_sealed(
        &self,
        place: &Place,
        kind: Kind,
        envelope: &EnvelopePlace,
    ) -> Result<Vec<u8>, RepositoryError> {
        let body = self.store().get(&place.key).await?;
        self.open_sealed(place, kind, envelope, body).await
    }

    /// The same of an object that a head names: it must be there and have this digest.
    pub(crate) async fn get_recorded(
        &self,
        place: &Place,
        kind: Kind,
        envelope: &EnvelopePlace,
        sha256: &Sha256,
    ) -> Result<Vec<u8>, RepositoryError> {
        let body = self.store().get(&place.key).await;
        let body = body.map_err(RepositoryError::of_named)?;
        if digest(&body) != *sha256 {
            let what = "its SHA-256 is another one".to_owned();
            return Err(RepositoryError::Differs {
                object: place.key.to_string(),
                what,
            });
        }
        self.open_sealed(place, kind, envelope, body).await
    }

    /// Opens one container.
    pub(crate) async fn open_sealed(
        &self,
        place: &Place,
        kind: Kind,
        envelope: &EnvelopePlace,
        body: Bytes,
    ) -> Result<Vec<u8>, RepositoryError> {
        let sealed = |source| RepositoryError::Sealed {
            key: place.key.to_string(),
            source,
        };
        let header = Header::read(&body, &place.logical).map_err(sealed)?;
        let class = kind.key_class();
        let key = self
            .key_with_id(header.key_id(), class, envelope, &place.key)
            .await?;
        let (logical, at) = (place.logical.clone(), place.key.to_string());
        let work = move || {
            unseal(kind, &key, &logical, &body).map_err(|source| RepositoryError::Sealed { key: at, source })
        };
        on_worker(work).await
    }
}

/// Runs work that may take long on a thread for blocking work.
pub(crate) async fn on_worker<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RepositoryError> + Send + 'static,
) -> Result<T, RepositoryError> {
    let failed = |e| RepositoryError::OutOfOrder {
        what: format!("a worker thread failed: {e}"),
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}
