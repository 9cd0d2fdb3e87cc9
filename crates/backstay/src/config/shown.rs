//! The configuration as a list of settings with their values and origins.
//!
//! Promise: every setting in force is listed, defaults too; no secret is.

use super::{Config, KeySource, Origin, Setting};
use crate::units::print_duration;
use std::fmt;
use std::path::Path;

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its path in the file, such as `services.orders-db.slot`.
    pub name: String,
    /// Its value; secrets are hidden.
    pub value: String,
    /// Where it came from.
    pub origin: String,
}

struct List<'a> {
    file: &'a Path,
    settings: Vec<Shown>,
}

impl List<'_> {
    fn add(&mut self, name: impl Into<String>, value: impl fmt::Display, origin: &Origin) {
        let origin = match origin {
            Origin::Flag(name) => format!("flag {name}"),
            Origin::Variable(name) => format!("variable {name}"),
            Origin::Line(line) => format!("{}:{line}", self.file.display()),
            Origin::Default => "default".to_owned(),
        };
        self.settings.push(Shown {
            name: name.into(),
            value: value.to_string(),
            origin,
        });
    }

    fn setting<T: fmt::Display>(&mut self, name: impl Into<String>, setting: &Setting<T>) {
        self.add(name, &setting.value, &setting.origin);
    }

    fn duration(&mut self, name: impl Into<String>, setting: &Setting<std::time::Duration>) {
        self.add(name, print_duration(setting.value), &setting.origin);
    }
}

impl Config {
    /// Every setting in force, in the order of the reference.
    pub fn shown(&self) -> Vec<Shown> {
        let mut list = List {
            file: &self.file,
            settings: Vec::new(),
        };
        list.setting("repo", &self.repository);
        match &self.repository_id {
            Some(id) => list.setting("repository_id", id),
            None => list.add("repository_id", "any", &Origin::Default),
        }
        for (place, key) in self.keys.iter().enumerate() {
            list.add(format!("keys[{place}]"), describe(&key.value), &key.origin);
        }
        list.add("profile", self.profile.value.name(), &self.profile.origin);
        list.duration("objective.rpo", &self.objective.rpo);
        list.duration("objective.rto", &self.objective.rto);
        list.setting("retention.weekly", &self.retention.weekly);
        list.setting("retention.daily", &self.retention.daily);
        list.setting("retention.rest", &self.retention.rest);
        for (name, service) in &self.services {
            let at = |key: &str| format!("services.{name}.{key}");
            list.setting(at("postgresql"), &service.postgresql);
            list.setting(at("slot"), &service.slot);
            list.duration(at("objective.rpo"), &service.objective.rpo);
            list.duration(at("objective.rto"), &service.objective.rto);
            list.setting(at("retention.weekly"), &service.retention.weekly);
            list.setting(at("retention.daily"), &service.retention.daily);
            list.setting(at("retention.rest"), &service.retention.rest);
            for (from, to) in &service.tablespaces {
                list.add(
                    at(&format!("tablespaces.{}", from.display())),
                    to.value.display(),
                    &to.origin,
                );
            }
        }
        list.settings
    }
}

fn describe(key: &KeySource) -> String {
    match key {
        KeySource::Master(place) => place.to_string(),
        KeySource::Passphrase(place) => format!("passphrase in {place}"),
        KeySource::Age(recipient) => format!("age {recipient}"),
        KeySource::None => "none: stored unencrypted".to_owned(),
    }
}
