//! What the file means, with flags, variables and defaults applied.
//!
//! Promise: relative paths in the file are relative to the file, those of flags and variables to the working directory;
//! the result holds absolute paths only. Resolving reads the configuration file and nothing else.

use super::keys::{KeySource, key};
use super::locate::Found;
use super::raw::{RawConfig, RawObjective, VersionOnly};
use super::retention::retention;
use super::services::{Common, service};
use super::text::Text;
use super::{Config, Objective, Origin, Profile, RepositoryPlace, Retention, Setting, diagnose, locate};
use crate::codes::Code;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::{suggest, units};
use serde_saphyr::Spanned;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// What the command line says about the configuration.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--repo`.
    pub repo: Option<String>,
}

/// The version of the file that this program reads.
const VERSION: u64 = 1;

/// Finds and resolves the configuration.
pub fn load(overrides: &Overrides, environment: &dyn Environment) -> Result<Config, Failure> {
    let found = locate(overrides.config.as_deref(), environment)?;
    load_from(&found, overrides, environment)
}

/// Resolves the configuration in a file that was found.
pub fn load_from(
    found: &Found,
    overrides: &Overrides,
    environment: &dyn Environment,
) -> Result<Config, Failure> {
    let text = Text::read(&found.path)?;
    let raw = parse(&text)?;
    let base = base_of(&found.path)?;
    let profile = profile(&text, raw.profile, environment)?;
    let keys = keys(&text, &base, raw.keys.as_ref(), profile.value)?;
    let objective = objective(&text, raw.objective.unwrap_or_default(), &default_objective())?;
    let retention = retention(&text, raw.retention.unwrap_or_default(), &Retention::usual())?;
    let common = Common {
        objective: &objective,
        retention: &retention,
    };
    let mut services = std::collections::BTreeMap::new();
    for (name, raw) in raw.services.unwrap_or_default().0 {
        let service = service(&text, &name, raw, &common)?;
        services.insert(service.name.clone(), service);
    }
    Ok(Config {
        repository: repository(&text, &base, raw.repo, overrides, environment)?,
        repository_id: raw
            .repository_id
            .map(|raw| repository_id(&text, raw))
            .transpose()?,
        retention,
        file: found.path.clone(),
        file_origin: found.origin.clone(),
        keys,
        profile,
        objective,
        services,
    })
}

fn parse(text: &Text) -> Result<RawConfig, Failure> {
    let is_blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#') || line == "---";
    if text.text.lines().all(is_blank) {
        let help = "write one: backstay init --config FILE, or see docs/reference/configuration.md";
        let message = "the configuration file is empty";
        return Err(Failure::new(Code::ConfigUnreadable, message, help).at(text.path.display().to_string()));
    }
    let head: VersionOnly = yaml(text)?;
    match head.version {
        Some(version) if version.value == VERSION => yaml(text),
        Some(version) => {
            let message = format!(
                "the configuration is of version {}, and this program reads version {VERSION}",
                version.value
            );
            let help = "use the program that this file was written for, or write version: 1";
            Err(text.failure(Code::ConfigVersion, message, help, version.referenced))
        }
        None => {
            let help = "begin the file with version: 1";
            let message = "the configuration does not say its version";
            Err(Failure::new(Code::ConfigVersion, message, help).at(text.path.display().to_string()))
        }
    }
}

fn yaml<T: serde::de::DeserializeOwned>(text: &Text) -> Result<T, Failure> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_str_with_options(&text.text, options).map_err(|error| diagnose::failure(text, &error))
}

fn base_of(file: &Path) -> Result<PathBuf, Failure> {
    let absolute = absolute(file)?;
    Ok(absolute
        .parent()
        .map_or_else(|| PathBuf::from("/"), Path::to_owned))
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| {
        let help = "change into a directory that exists, or give an absolute path";
        Failure::new(Code::LocalFile, "the working directory cannot be found", help).caused_by(&error)
    })
}

/// `text` from the directory `base`, without its `.` parts.
pub(super) fn path(base: &Path, text: &str) -> PathBuf {
    let joined = base.join(text);
    joined
        .components()
        .filter(|part| *part != Component::CurDir)
        .collect()
}

pub(super) fn path_of(raw: &Spanned<String>) -> Setting<PathBuf> {
    Setting {
        value: PathBuf::from(&raw.value),
        origin: Origin::Line(raw.referenced.line()),
    }
}

fn repository(
    text: &Text,
    base: &Path,
    raw: Option<Spanned<String>>,
    overrides: &Overrides,
    environment: &dyn Environment,
) -> Result<Setting<RepositoryPlace>, Failure> {
    let variable = environment.get("BACKSTAY_REPO").filter(|value| !value.is_empty());
    let (written, origin) = match (&overrides.repo, variable, raw) {
        (Some(flag), _, _) => (flag.clone(), Origin::Flag("--repo")),
        (None, Some(variable), _) => (variable, Origin::Variable("BACKSTAY_REPO")),
        (None, None, Some(raw)) => {
            let origin = Origin::Line(raw.referenced.line());
            let value = place(base, &raw.value).map_err(|failure| failure.at(text.place(raw.referenced)))?;
            return Ok(Setting { value, origin });
        }
        (None, None, None) => {
            let help = "add repo: file://./backups, or give --repo or BACKSTAY_REPO";
            let message = "the configuration does not say where the repository is";
            return Err(
                Failure::new(Code::ConfigIncomplete, message, help).at(text.path.display().to_string())
            );
        }
    };
    let here = absolute(Path::new("."))?;
    let name = match origin {
        Origin::Flag(name) | Origin::Variable(name) => name,
        Origin::Line(_) | Origin::Default => "repo",
    };
    let value = place(&here, &written).map_err(|failure| failure.at(name))?;
    Ok(Setting { value, origin })
}

fn repository_id(text: &Text, raw: Spanned<String>) -> Result<Setting<String>, Failure> {
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if raw.value.len() == 32 && raw.value.bytes().all(is_hex) {
        let origin = Origin::Line(raw.referenced.line());
        return Ok(Setting {
            value: raw.value,
            origin,
        });
    }
    let message = format!("{:?} is not the id of a repository", raw.value);
    let help = "an id is 32 hexadecimal digits; check and init print it";
    Err(text.failure(Code::ConfigValue, message, help, raw.referenced))
}

fn place(base: &Path, written: &str) -> Result<RepositoryPlace, Failure> {
    let refuse = |message: String, help: &str| Err(Failure::new(Code::RepositoryScheme, message, help));
    match written.split_once("://") {
        Some(("file", "")) => refuse(
            "the repository has no path".to_owned(),
            "write file:///path or file://./path",
        ),
        Some(("file", path)) if path.starts_with('~') => refuse(
            "~ is not expanded in the place of the repository".to_owned(),
            "write the path whole, beginning with / or ./",
        ),
        Some(("file", path)) if !path.starts_with(['/', '.']) => refuse(
            format!("file://{path} says neither / nor ./ before its path"),
            &format!(
                "write file:///{path}, or file://./{path} for a path from the configuration's directory on"
            ),
        ),
        Some(("file", written)) => Ok(RepositoryPlace::Directory(path(base, written))),
        Some(("s3", _)) => refuse(
            "repositories in object storage (s3://) are not in this version".to_owned(),
            "use a directory: file:///path",
        ),
        Some((scheme, _)) => {
            let scheme = super::redact::redact(scheme);
            refuse(
                format!("{scheme}:// is not a kind of repository"),
                "use a directory: file:///path",
            )
        }
        None => refuse(
            "the repository needs its kind before the path".to_owned(),
            "for a directory write file://./backups or file:///path",
        ),
    }
}

fn profile(
    text: &Text,
    raw: Option<Spanned<String>>,
    environment: &dyn Environment,
) -> Result<Setting<Profile>, Failure> {
    let variable = environment
        .get("BACKSTAY_PROFILE")
        .filter(|value| !value.is_empty());
    let (written, origin, place) = match (variable, raw) {
        (Some(variable), _) => (
            variable,
            Origin::Variable("BACKSTAY_PROFILE"),
            "BACKSTAY_PROFILE".to_owned(),
        ),
        (None, Some(raw)) => (
            raw.value.clone(),
            Origin::Line(raw.referenced.line()),
            text.place(raw.referenced),
        ),
        (None, None) => {
            return Ok(Setting {
                value: Profile::Production,
                origin: Origin::Default,
            });
        }
    };
    let known = Profile::ALL.into_iter().find(|profile| profile.name() == written);
    match known {
        Some(value) => Ok(Setting { value, origin }),
        None => {
            let message = format!("{written:?} is not a profile");
            let names = Profile::ALL.map(Profile::name);
            let help = match suggest::nearest(&written, names) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("use {}", names.join(", ")),
            };
            Err(Failure::new(Code::ConfigValue, message, help).at(place))
        }
    }
}

fn keys(
    text: &Text,
    base: &Path,
    raw: Option<&Spanned<Vec<Spanned<super::raw::RawKey>>>>,
    profile: Profile,
) -> Result<Vec<Setting<KeySource>>, Failure> {
    let help = "make one: backstay key new ./backstay.key, then add keys: [ { file: ./backstay.key } ]";
    let Some(raw) = raw else {
        let message = "the configuration has no keys";
        return Err(Failure::new(Code::ConfigIncomplete, message, help).at(text.path.display().to_string()));
    };
    if raw.value.is_empty() {
        let message = "the list of keys is empty";
        return Err(text.failure(Code::ConfigIncomplete, message, help, raw.referenced));
    }
    let mut keys = Vec::new();
    for raw in &raw.value {
        let value = key(text, base, raw)?;
        keys.push(Setting {
            value,
            origin: Origin::Line(raw.referenced.line()),
        });
    }
    refuse_mixed_or_open(text, raw, &keys, profile)?;
    Ok(keys)
}

// A key that is stored unwrapped makes every other recipient pointless.
fn refuse_mixed_or_open(
    text: &Text,
    raw: &Spanned<Vec<Spanned<super::raw::RawKey>>>,
    keys: &[Setting<KeySource>],
    profile: Profile,
) -> Result<(), Failure> {
    let open = keys.iter().position(|key| key.value == KeySource::None);
    let Some(open) = open else {
        return Ok(());
    };
    let at = raw.value.get(open).map_or(raw.referenced, |key| key.referenced);
    if keys.len() > 1 {
        let message = "none stands beside other keys, and would make them pointless";
        return Err(text.failure(Code::ConfigValue, message, "take { none: true } out", at));
    }
    if profile != Profile::Development {
        let message = format!("the {} profile refuses to store data unencrypted", profile.name());
        let help = "make a key: backstay key new ./backstay.key, then keys: [ { file: ./backstay.key } ]";
        return Err(text
            .failure(Code::UnencryptedInProduction, message, help, at)
            .or("or, for data that anybody may read: profile: development"));
    }
    Ok(())
}

fn default_objective() -> Objective {
    let of = |hours: u64| Setting {
        value: Duration::from_secs(hours * 3600),
        origin: Origin::Default,
    };
    Objective {
        rpo: of(1),
        rto: of(4),
    }
}

pub(super) fn objective(text: &Text, raw: RawObjective, common: &Objective) -> Result<Objective, Failure> {
    let read = |raw: Option<Spanned<String>>, common: &Setting<Duration>| match raw {
        None => Ok(common.clone()),
        Some(raw) => match units::duration(&raw.value) {
            Ok(value) => Ok(Setting {
                value,
                origin: Origin::Line(raw.referenced.line()),
            }),
            Err(error) => {
                let help = "write it as 30s, 15min, 1h or 1d";
                Err(text.failure(Code::ConfigValue, error.to_string(), help, raw.referenced))
            }
        },
    };
    Ok(Objective {
        rpo: read(raw.rpo, &common.rpo)?,
        rto: read(raw.rto, &common.rto)?,
    })
}
