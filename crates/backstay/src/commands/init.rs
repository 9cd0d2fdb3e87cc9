//! `init`: a configuration, a key and a repository, in this order; then `check`.
//!
//! Promise: nothing that is there is overwritten, and each of the three is whole or absent: whatever call a run dies at,
//! running it again goes on from there. No new key is made for a repository that exists: that key would open nothing,
//! and would hide that the right one is lost.

use crate::access::{self, Place};
use crate::checks::{self, Findings};
use crate::cli::Init;
use crate::codes::Code;
use crate::commands::key;
use crate::config::{Config, KeySource, RepositoryPlace, Service};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::new_file;
use crate::render::Report;
use crate::render::look::Look;
use crate::secret::SecretPlace;
use crate::session::Session;
use backstay_postgres::Conninfo;
use backstay_repository::{Repository, RepositoryError, SystemChance, layout};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whether something was made by this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Now,
    Before,
}

struct Initialised {
    config: (PathBuf, Made),
    keys: Vec<(PathBuf, Made)>,
    repository: (String, Made),
    id: String,
    services: Vec<String>,
    findings: Findings,
}

/// Makes what is missing, then checks all of it.
pub async fn init(session: &mut Session, arguments: &Init) -> Result<Box<dyn Report>, Failure> {
    let made_config = make_config(session, arguments)?;
    let config = session.config()?;
    if made_config == Made::Before {
        warn_about_unused(session, &config, arguments);
    }
    let keys = make_keys(&config)?;
    let (repository, made_repository) = make_repository(session).await?;
    let services: Vec<_> = config.services.values().collect();
    let findings = checks::run(session, &config, &services).await;
    Ok(Box::new(Initialised {
        config: (config.file.clone(), made_config),
        keys,
        repository: (config.repository.value.to_string(), made_repository),
        id: repository.id().to_owned(),
        services: config.services.keys().map(ToString::to_string).collect(),
        findings,
    }))
}

async fn make_repository(session: &mut Session) -> Result<(Repository, Made), Failure> {
    let store = access::store(session, Place::Made).await?;
    let recipients = access::recipients(session).await?;
    let clock = Arc::clone(&session.clock);
    let made = Repository::init(store, clock, Arc::new(SystemChance), &recipients).await;
    match made {
        Ok(repository) => Ok((repository, Made::Now)),
        Err(RepositoryError::AlreadyThere { .. }) => Ok((access::repository(session).await?, Made::Before)),
        Err(error) => Err(error.into()),
    }
}

/// Writes a configuration if none is found.
fn make_config(session: &Session, arguments: &Init) -> Result<Made, Failure> {
    let told = session.global.config.as_deref();
    let found = crate::config::locate(told, session.environment());
    let path = told.unwrap_or(Path::new("backstay.yaml"));
    if path.exists() || (told.is_none() && found.is_ok()) {
        return Ok(Made::Before);
    }
    let lookup = |name: &str| session.environment().get(name);
    Conninfo::parse(&arguments.postgresql, &lookup)
        .map_err(|error| Failure::from(&error).at("--postgresql"))?;
    let repo = session.global.repo.as_deref().unwrap_or("file://./backups");
    match new_file::write(path, configuration(repo, arguments).as_bytes()) {
        Ok(()) => Ok(Made::Now),
        // By another init, a moment ago.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Made::Before),
        Err(error) => {
            let help = "give a file in a directory that you may write to: backstay init --config FILE";
            let message = format!("{} cannot be written", path.display());
            Err(Failure::new(Code::LocalFile, message, help).caused_by(&error))
        }
    }
}

/// A configuration that is there is never changed, so what was said for a new one has no effect.
fn warn_about_unused(session: &mut Session, config: &Config, arguments: &Init) {
    let service = config.services.get(&arguments.service);
    let connection = |service: &Service| service.postgresql.value.expose() == arguments.postgresql;
    let said_nothing = arguments.postgresql == Init::CONNECTION
        && (service.is_some() || arguments.service.as_str() == Init::SERVICE);
    if said_nothing || service.is_some_and(connection) {
        return;
    }
    let (file, name) = (config.file.display(), &arguments.service);
    session.printer.warning(&format!(
        "{file} was there already and is not changed: write {name} and its connection under services: there"
    ));
}

fn configuration(repo: &str, arguments: &Init) -> String {
    // A JSON text is a YAML text, with everything quoted that needs it.
    let connection = Value::from(arguments.postgresql.as_str());
    format!(
        "version: 1\nrepo: {}\nkeys: [ {{ file: ./backstay.key }} ]\nservices:\n  {}: {{ postgresql: {connection} }}\n",
        Value::from(repo),
        arguments.service
    )
}

/// Makes the key files that the configuration names and that are missing.
fn make_keys(config: &Config) -> Result<Vec<(PathBuf, Made)>, Failure> {
    let mut keys = Vec::new();
    for key in &config.keys {
        let KeySource::Master(SecretPlace::File(file)) = &key.value else {
            continue;
        };
        if file.exists() {
            keys.push((file.clone(), Made::Before));
            continue;
        }
        refuse_if_stored(config, file)?;
        let made = match key::write_key_file(file) {
            Ok(_) => Made::Now,
            // By another init, a moment ago.
            Err(failure) if failure.code == Code::FileExists => Made::Before,
            Err(failure) => return Err(failure),
        };
        keys.push((file.clone(), made));
    }
    Ok(keys)
}

fn refuse_if_stored(config: &Config, file: &Path) -> Result<(), Failure> {
    let RepositoryPlace::Directory(place) = &config.repository.value;
    if !place.join(layout::REPOSITORY).exists() {
        return Ok(());
    }
    let message = format!(
        "the repository is there, and its key file {} is not",
        file.display()
    );
    let help =
        "bring the file back from where you keep its copy: a new key would open nothing of what is stored";
    Err(Failure::new(Code::KeyMissing, message, help)
        .at(config.repository.value.to_string())
        .or("if nothing was ever stored in it, remove the repository's directory and run init again"))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn word(made: Made) -> &'static str {
    match made {
        Made::Now => "new",
        Made::Before => "there already",
    }
}

impl Report for Initialised {
    fn human(&self, look: &Look) -> String {
        let (config, made) = &self.config;
        let mut text = format!("config      {} ({})\n", shown(config), word(*made));
        for (key, made) in &self.keys {
            text.push_str(&format!("key         {} ({})\n", shown(key), word(*made)));
        }
        if self.keys.iter().any(|(_, made)| *made == Made::Now) {
            text.push_str(
                "            Copy it now to a place where the repository is not: without it the data is gone.\n            \
                 Whoever finds it can read every backup.\n",
            );
        }
        let (repository, made) = &self.repository;
        text.push_str(&format!(
            "repository  {repository} ({}), id {}\n\n",
            word(*made),
            self.id
        ));
        text.push_str(&self.findings.human(look));
        for service in &self.services {
            text.push_str(&format!(
                "\nnext        backstay stream {service}    in the background, always\n"
            ));
            text.push_str(&format!(
                "            backstay backup {service}    now, and then once a day\n"
            ));
        }
        text
    }

    fn json(&self) -> Value {
        let key = |(key, made): &(PathBuf, Made)| json!({ "file": shown(key), "new": *made == Made::Now });
        json!({
            "config": { "file": shown(&self.config.0), "new": self.config.1 == Made::Now },
            "keys": self.keys.iter().map(key).collect::<Vec<_>>(),
            "repository": { "place": self.repository.0, "new": self.repository.1 == Made::Now },
            "id": self.id,
            "check": self.findings.json(),
        })
    }

    fn exit(&self) -> Exit {
        self.findings.exit()
    }
}
