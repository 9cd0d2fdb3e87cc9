//! Opens what the configuration names: the repository and the servers.
//!
//! Promise: the wiring of store, retries, clock and keys is here and nowhere else.
//! Not here: what is done with them (commands).

use crate::codes::Code;
use crate::config::{Config, RepositoryPlace, Service};
use crate::failure::Failure;
use crate::keys::{self, Material};
use crate::session::Session;
use backstay_postgres::replication::command::SlotName;
use backstay_postgres::replication::stream::Slot;
use backstay_postgres::{Conninfo, PostgresSource};
use backstay_repository::{KeyWarning, Recipient, Repository, RepositoryError, SystemChance};
use backstay_store::{LocalDirectory, Patience, RetryingStore, Store, StoreError};
use std::path::Path;
use std::sync::Arc;

/// Whether the place of the repository may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It must be there.
    Existing,
    /// It is made if it is missing.
    Made,
}

/// The objects of the configured repository.
pub async fn store(session: &mut Session, place: Place) -> Result<Arc<dyn Store>, Failure> {
    let config = session.config()?;
    let clock = Arc::clone(&session.clock);
    let RepositoryPlace::Directory(path) = &config.repository.value;
    let directory = match place {
        Place::Existing => LocalDirectory::open(path, Arc::clone(&clock)).await,
        Place::Made => LocalDirectory::create(path, Arc::clone(&clock)).await,
    };
    let directory = directory.map_err(|error| match error {
        StoreError::NotFound { .. } => absent(&config, path, place),
        error => Failure::from(&error).at(config.repository.value.to_string()),
    })?;
    Ok(Arc::new(RetryingStore::new(
        Arc::new(directory),
        clock,
        Arc::new(SystemChance),
        Patience::RUN,
    )))
}

/// The configured repository with the configured keys.
pub async fn repository(session: &mut Session) -> Result<Repository, Failure> {
    let store = store(session, Place::Existing).await?;
    let recipients = recipients(session).await?;
    let clock = Arc::clone(&session.clock);
    let place = session.config()?.repository.value.to_string();
    let opened = Repository::open(store, clock, Arc::new(SystemChance), &recipients).await;
    let repository = opened.map_err(|error| Failure::from(error).at(place))?;
    refuse_another(session.config()?.as_ref(), &repository)?;
    warn_about_keys(session, &repository);
    Ok(repository)
}

fn absent(config: &Config, path: &Path, wanted: Place) -> Failure {
    let (message, help) = match (path.exists(), wanted) {
        (true, _) => (
            "there can be no repository at this place: what is there is no directory",
            "correct repo in the configuration: it names the directory of the repository",
        ),
        (false, Place::Existing) => (
            "there is no repository at this place: the directory is not there",
            "check repo in the configuration, and that the disk is mounted; or make a new one: backstay init",
        ),
        (false, Place::Made) => (
            "the directory of the repository cannot be made",
            "check repo in the configuration: it names a directory on a disk that is mounted and can be written",
        ),
    };
    Failure::new(Code::RepositoryRefused, message, help).at(config.repository.value.to_string())
}

/// An empty disk in place of the mounted one, or a copy of another site's, must not pass for the repository.
fn refuse_another(config: &Config, repository: &Repository) -> Result<(), Failure> {
    match &config.repository_id {
        Some(expected) if expected.value != repository.id() => {
            let error = RepositoryError::OtherRepository {
                found: repository.id().to_owned(),
                expected: expected.value.clone(),
            };
            Err(Failure::from(error).at(config.repository.value.to_string()))
        }
        _ => Ok(()),
    }
}

/// The configured keys, as the repository wants them.
pub async fn recipients(session: &mut Session) -> Result<Vec<Recipient>, Failure> {
    let loaded = keys::load(session).await?;
    let recipient = |material: Material| match material {
        Material::Master(key) => Recipient::Raw(key),
        Material::Passphrase(passphrase) => Recipient::Passphrase(passphrase),
        Material::Age(recipient) => Recipient::Age(recipient),
        Material::None => Recipient::None,
    };
    Ok(loaded
        .keys
        .into_iter()
        .map(|key| recipient(key.material))
        .collect())
}

fn warn_about_keys(session: &mut Session, repository: &Repository) {
    for warning in repository.key_warnings() {
        if warning == KeyWarning::NotEncrypted {
            let text = "this repository is NOT encrypted by Backstay: whoever reads the store reads the data";
            session.printer.warning(text);
        }
    }
}

/// The server of a service.
pub fn server(session: &Session, service: &Service) -> Result<PostgresSource, Failure> {
    let lookup = |name: &str| session.environment().get(name);
    let text = service.postgresql.value.expose();
    let conninfo =
        Conninfo::parse(text, &lookup).map_err(|error| Failure::from(&error).at(service.place.clone()))?;
    let slot = SlotName::new(&service.slot.value).ok_or_else(|| {
        let message = format!(
            "{:?} cannot be the name of a replication slot",
            service.slot.value
        );
        let help = "choose 1 to 63 characters of a-z, 0-9 and _";
        Failure::new(Code::ConfigValue, message, help).at(service.place.clone())
    })?;
    Ok(PostgresSource::new(
        conninfo,
        Some(Slot::CreateIfMissing(slot)),
        Arc::clone(&session.clock),
    ))
}
