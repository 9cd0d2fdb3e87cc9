//! Finds the configuration file.
//!
//! Promise: the order is `--config`, `BACKSTAY_CONFIG`, `./backstay.yaml`, the user's directory, the system's. A file that
//! was named and is not there is an error, never a reason to look on.

use super::Origin;
use crate::codes::Code;
use crate::environment::Environment;
use crate::failure::Failure;
use std::path::{Path, PathBuf};

const NAME: &str = "backstay.yaml";
const SYSTEM: &str = "/etc/backstay/backstay.yaml";

/// A file that is there, and why it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// As given or as searched.
    pub path: PathBuf,
    /// Flag, variable, or default for a searched place.
    pub origin: Origin,
}

/// The file to read.
pub fn locate(flag: Option<&Path>, environment: &dyn Environment) -> Result<Found, Failure> {
    if let Some(path) = flag {
        return named(path.to_owned(), Origin::Flag("--config"));
    }
    if let Some(path) = variable("BACKSTAY_CONFIG", environment) {
        return named(path, Origin::Variable("BACKSTAY_CONFIG"));
    }
    let places = places(environment);
    match places.iter().find(|place| is_there(place)) {
        Some(place) => Ok(Found {
            path: place.clone(),
            origin: Origin::Default,
        }),
        None => Err(nowhere(&places)),
    }
}

fn variable(name: &str, environment: &dyn Environment) -> Option<PathBuf> {
    environment
        .get(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn places(environment: &dyn Environment) -> Vec<PathBuf> {
    let mut places = vec![Path::new(".").join(NAME)];
    let home = || variable("HOME", environment).map(|home| home.join(".config"));
    if let Some(directory) = variable("XDG_CONFIG_HOME", environment).or_else(home) {
        places.push(directory.join("backstay").join(NAME));
    }
    places.push(PathBuf::from(SYSTEM));
    places
}

// A file that cannot be looked at may be there: reading it gives the reason.
fn is_there(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

fn named(path: PathBuf, origin: Origin) -> Result<Found, Failure> {
    if is_there(&path) {
        return Ok(Found { path, origin });
    }
    let who = match origin {
        Origin::Flag(name) | Origin::Variable(name) => name,
        Origin::Line(_) | Origin::Default => "the search",
    };
    let shown = path.display();
    let message = format!("there is no configuration file {shown}");
    let help = format!("correct the path in {who}, or make the file: backstay init --config {shown}");
    Err(Failure::new(Code::ConfigMissing, message, help))
}

fn nowhere(places: &[PathBuf]) -> Failure {
    let searched: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    let help = "make one: backstay init";
    Failure::new(Code::ConfigMissing, "there is no configuration file", help)
        .or("or name one: --config FILE or BACKSTAY_CONFIG")
        .fact("searched", searched.join("\n"))
}
