//! `init`: a configuration, a key and a repository.
//!
//! Promise: nothing that is there is overwritten; the key's place is said together with what its loss means.

use crate::access::{self, Place};
use crate::cli::Init;
use crate::codes::Code;
use crate::commands::key;
use crate::config::{Config, KeySource};
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::Look;
use crate::secret::SecretPlace;
use crate::session::Session;
use backstay_repository::{Repository, SystemChance};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

struct Made {
    config: Option<PathBuf>,
    keys: Vec<PathBuf>,
    repository: String,
    id: String,
    services: Vec<String>,
}

/// Makes what is missing.
pub async fn init(session: &mut Session, arguments: &Init) -> Result<Box<dyn Report>, Failure> {
    let made_config = make_config(session, arguments)?;
    let config = session.config()?;
    let made_keys = make_keys(&config)?;
    let store = access::store(session, Place::Made).await?;
    let recipients = access::recipients(session).await?;
    let repository = Repository::init(
        store,
        Arc::clone(&session.clock),
        Arc::new(SystemChance),
        &recipients,
    )
    .await?;
    Ok(Box::new(Made {
        config: made_config,
        keys: made_keys,
        repository: config.repository.value.to_string(),
        id: repository.id().to_owned(),
        services: config.services.keys().map(ToString::to_string).collect(),
    }))
}

/// Writes a configuration if there is none.
fn make_config(session: &Session, arguments: &Init) -> Result<Option<PathBuf>, Failure> {
    let path = session
        .global
        .config
        .clone()
        .unwrap_or_else(|| PathBuf::from("backstay.yaml"));
    let found = crate::config::locate(session.global.config.as_deref(), session.environment());
    if path.exists() || (session.global.config.is_none() && found.is_ok()) {
        return Ok(None);
    }
    let repo = session
        .global
        .repo
        .clone()
        .unwrap_or_else(|| "file://./backups".to_owned());
    let text = configuration(&repo, arguments);
    let refuse = |error: &std::io::Error| {
        let help = "give a file in a directory that you may write to: backstay init --config FILE";
        Failure::new(
            Code::LocalFile,
            format!("{} cannot be written", path.display()),
            help,
        )
        .caused_by(error)
    };
    let mut file = std::fs::File::create_new(&path).map_err(|e| refuse(&e))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|e| refuse(&e))?;
    Ok(Some(path))
}

fn configuration(repo: &str, arguments: &Init) -> String {
    let connection = serde_json::to_string(&arguments.postgresql).unwrap_or_default();
    format!(
        "version: 1\nrepo: {repo}\nkeys: [ {{ file: ./backstay.key }} ]\nservices:\n  {}: {{ postgresql: {connection} }}\n",
        arguments.service
    )
}

/// Makes the key files that the configuration names and that are missing.
fn make_keys(config: &Config) -> Result<Vec<PathBuf>, Failure> {
    let mut made = Vec::new();
    for key in &config.keys {
        if let Some(SecretPlace::File(file)) = key.value.secret()
            && matches!(key.value, KeySource::Master(_))
            && !file.exists()
        {
            key::write_key_file(file)?;
            made.push(file.clone());
        }
    }
    Ok(made)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

impl Report for Made {
    fn human(&self, _: &Look) -> String {
        let mut text = String::new();
        if let Some(config) = &self.config {
            text.push_str(&format!("config      {} (new)\n", shown(config)));
        }
        for key in &self.keys {
            text.push_str(&format!(
                "key         {} (new): copy it to a place where the repository is not.\n            \
                 Whoever loses it loses every backup; whoever finds it can read them.\n",
                shown(key)
            ));
        }
        text.push_str(&format!("repository  {} (new, {})\n", self.repository, self.id));
        for service in &self.services {
            text.push_str(&format!(
                "next        backstay stream {service}    and    backstay backup {service}\n"
            ));
        }
        text
    }

    fn json(&self) -> Value {
        json!({
            "config": self.config.as_deref().map(shown),
            "keys": self.keys.iter().map(|key| shown(key)).collect::<Vec<_>>(),
            "repository": self.repository,
            "id": self.id,
        })
    }
}
