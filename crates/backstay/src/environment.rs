//! The variables of the process, as something that a test can replace.
//!
//! Promise: a variable that is not UTF-8 counts as absent for reading settings; nothing here prints a value.

use std::collections::BTreeMap;

/// Where variables are looked up.
pub trait Environment: std::fmt::Debug {
    /// The value of `name`, if it is set and UTF-8.
    fn get(&self, name: &str) -> Option<String>;
}

/// The variables of this process.
#[derive(Clone, Copy, Debug)]
pub struct Process;

impl Environment for Process {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// Variables that a test names.
#[derive(Clone, Debug, Default)]
pub struct Fixed(BTreeMap<String, String>);

impl Fixed {
    /// These and no others.
    pub fn new(variables: &[(&str, &str)]) -> Fixed {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Fixed(variables.iter().map(own).collect())
    }
}

impl Environment for Fixed {
    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }
}
