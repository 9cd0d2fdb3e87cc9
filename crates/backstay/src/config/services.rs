//! The services, as they are configured.
//!
//! Promise: names are safe in object names, slots are names that PostgreSQL accepts; a connection string shows neither in
//! `Debug` nor in an error whole.

use super::raw::RawService;
use super::redact::redact;
use super::resolve::{objective, path_of};
use super::retention::retention;
use super::text::Text;
use super::{Objective, Origin, Retention, Setting};
use crate::codes::Code;
use crate::failure::Failure;
use backstay_terms::SourceName;
use serde_saphyr::{Location, Spanned};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// A connection string. It may hold a password, so it is shown only with that hidden.
#[derive(Clone)]
pub struct Connection(Zeroizing<String>);

impl Connection {
    /// The string, for connecting.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(&self.0))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A PostgreSQL server to protect.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name in commands and in object names.
    pub name: SourceName,
    /// How to reach the server.
    pub postgresql: Setting<Connection>,
    /// The replication slot that `stream` keeps.
    pub slot: Setting<String>,
    /// What is promised for it.
    pub objective: Objective,
    /// How long its backups are kept.
    pub retention: Retention,
    /// Where a restore puts each tablespace: directory on the server to directory here.
    pub tablespaces: BTreeMap<PathBuf, Setting<PathBuf>>,
    /// The place of the connection string in the file, for pointing at it.
    pub place: String,
}

/// What holds for every service that says nothing else.
pub(super) struct Common<'a> {
    pub objective: &'a Objective,
    pub retention: &'a Retention,
}

pub(super) fn service(
    text: &Text,
    name: &str,
    raw: Spanned<RawService>,
    common: &Common<'_>,
) -> Result<Service, Failure> {
    let at = raw.referenced;
    let raw = raw.value;
    let known: SourceName = name.parse().map_err(|error: backstay_terms::IdError| {
        let help = "choose a name such as orders-db; it becomes part of object names and never changes";
        text.failure(Code::ConfigValue, error.to_string(), help, at)
    })?;
    let Some(connection) = raw.postgresql else {
        let message = format!("the service {name} does not say what it is");
        let help = "add postgresql: \"host=HOST user=NAME dbname=postgres\"";
        return Err(text.failure(Code::ConfigIncomplete, message, help, at));
    };
    Ok(Service {
        slot: slot(text, name, raw.slot, at)?,
        objective: match raw.objective {
            Some(raw) => objective(text, raw, common.objective)?,
            None => common.objective.clone(),
        },
        retention: match raw.retention {
            Some(raw) => retention(text, raw, common.retention)?,
            None => common.retention.clone(),
        },
        tablespaces: tablespaces(text, raw.tablespaces.unwrap_or_default())?,
        place: text.place(connection.referenced),
        postgresql: Setting {
            origin: Origin::Line(connection.referenced.line()),
            value: Connection(Zeroizing::new(connection.value)),
        },
        name: known,
    })
}

fn slot(
    text: &Text,
    name: &str,
    raw: Option<Spanned<String>>,
    at: Location,
) -> Result<Setting<String>, Failure> {
    let (value, origin, at) = match raw {
        Some(raw) => (raw.value, Origin::Line(raw.referenced.line()), raw.referenced),
        None => (
            format!("backstay_{}", name.replace('-', "_")),
            Origin::Default,
            at,
        ),
    };
    // ReplicationSlotValidateName, NAMEDATALEN 64.
    let characters = value
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if characters && (1..=63).contains(&value.len()) {
        return Ok(Setting { value, origin });
    }
    let message = format!("{value:?} is not the name of a replication slot");
    let help = "set slot: to 1 to 63 characters of a-z, 0-9 and _";
    Err(text.failure(Code::ConfigValue, message, help, at))
}

fn tablespaces(
    text: &Text,
    raw: BTreeMap<String, Spanned<String>>,
) -> Result<BTreeMap<PathBuf, Setting<PathBuf>>, Failure> {
    let mut known = BTreeMap::new();
    for (from, to) in raw {
        let at = to.referenced;
        let both_absolute = from.starts_with('/') && to.value.starts_with('/');
        if !both_absolute {
            let message = "both directories of a tablespace are absolute";
            let help = "write tablespaces: { /directory/on/the/server: /directory/here }";
            return Err(text.failure(Code::ConfigValue, message, help, at));
        }
        known.insert(PathBuf::from(from), path_of(&to));
    }
    Ok(known)
}
