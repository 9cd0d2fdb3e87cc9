//! The configuration: where the repository, the keys and the services are, and what is promised about them.
//!
//! Promise: a flag beats a `BACKSTAY_*` variable, which beats the file, which beats the default, and every value knows
//! which it was. Nothing is ignored silently: an unknown key, a wrong type and a duplicate are refused with their line.
//! No secret is held here, only where it is kept; a connection string, which may hold one, is never shown whole.
//! Not here: reading secrets (secret), connecting (wire).

mod diagnose;
mod keys;
mod locate;
mod raw;
pub mod redact;
mod resolve;
mod retention;
mod services;
mod shown;
#[cfg(test)]
mod tests;
mod text;

use crate::codes::Code;
use crate::failure::Failure;
use crate::suggest;
use backstay_terms::SourceName;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use keys::KeySource;
pub use locate::{Found, locate};
pub use resolve::{Overrides, load, load_from};
pub use retention::{RankClass, Retention};
pub use services::{Connection, Service};
pub use shown::Shown;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This flag of the command line.
    Flag(&'static str),
    /// This variable of the environment.
    Variable(&'static str),
    /// This line of the file, from 1.
    Line(u64),
    /// Nobody said anything.
    Default,
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    /// What is in force.
    pub value: T,
    /// Why.
    pub origin: Origin,
}

/// How strict Backstay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Refuses to store anything unencrypted.
    Production,
    /// As production, for a copy of it.
    Staging,
    /// Allows `none` as a key.
    Development,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Profile; 3] = [Profile::Production, Profile::Staging, Profile::Development];

    /// The word in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Production => "production",
            Profile::Staging => "staging",
            Profile::Development => "development",
        }
    }
}

/// Where the repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepositoryPlace {
    /// A directory of this machine; the path is absolute.
    Directory(PathBuf),
}

impl fmt::Display for RepositoryPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RepositoryPlace::Directory(path) => write!(f, "file://{}", path.display()),
        }
    }
}

/// What is promised to the owner of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objective {
    /// How much may be lost, as time.
    pub rpo: Setting<Duration>,
    /// How long a recovery may take.
    pub rto: Setting<Duration>,
}

/// The whole configuration, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that was read.
    pub file: PathBuf,
    /// How the file was found.
    pub file_origin: Origin,
    /// Where the repository is.
    pub repository: Setting<RepositoryPlace>,
    /// The id that the repository must have; none: any.
    pub repository_id: Option<Setting<String>>,
    /// The recipients of every key envelope, in order; never empty.
    pub keys: Vec<Setting<KeySource>>,
    /// How strict Backstay is.
    pub profile: Setting<Profile>,
    /// What is promised for every service.
    pub objective: Objective,
    /// How long backups of every service are kept.
    pub retention: Retention,
    /// The services by name.
    pub services: BTreeMap<SourceName, Service>,
}

impl Config {
    /// The service called `name`.
    ///
    /// # Errors
    /// There is none; the failure names the nearest and all that exist.
    pub fn service(&self, name: &str) -> Result<&Service, Failure> {
        let mut services = self.services.iter();
        if let Some((_, service)) = services.find(|(known, _)| known.as_str() == name) {
            return Ok(service);
        }
        let known: Vec<&str> = self.services.keys().map(SourceName::as_str).collect();
        let message = format!("the configuration has no service {name:?}");
        let help = match suggest::nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None if known.is_empty() => "add it under services: in the configuration".to_owned(),
            None => "add it under services: in the configuration, or choose one that is there".to_owned(),
        };
        let mut failure =
            Failure::new(Code::ServiceUnknown, message, help).at(self.file.display().to_string());
        if !known.is_empty() {
            failure = failure.fact("services", known.join(", "));
        }
        Err(failure)
    }

    /// What a person should know before trusting this configuration.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.keys.iter().any(|key| key.value == KeySource::None) {
            warnings.push(
                "keys has none: backups are stored unencrypted and anybody who can read the repository reads the data"
                    .to_owned(),
            );
        }
        warnings
    }
}

/// Every key of the file, as a path; the reference has a row for each.
pub const KEYS: [&str; 16] = [
    "version",
    "repo",
    "repository_id",
    "keys",
    "profile",
    "objective.rpo",
    "objective.rto",
    "retention.weekly",
    "retention.daily",
    "retention.rest",
    "services",
    "services.NAME.postgresql",
    "services.NAME.slot",
    "services.NAME.objective",
    "services.NAME.retention",
    "services.NAME.tablespaces",
];
