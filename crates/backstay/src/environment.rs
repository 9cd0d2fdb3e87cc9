//! The variables of the process, as something that a test can replace.
//!
//! Promise: a variable that is not UTF-8 counts as absent for reading settings; nothing here prints a value. USER is the name of
//! the process's user where no variable says it, as libpq has it: cron, systemd and containers often set none.

use std::collections::BTreeMap;
use std::env::VarError;
use std::ffi::OsString;

/// Where variables are looked up.
pub trait Environment: std::fmt::Debug {
    /// The value of `name`, if it is set and UTF-8.
    fn get(&self, name: &str) -> Option<String>;

    /// Whether `name` is set to what is not UTF-8.
    fn is_no_text(&self, name: &str) -> bool;
}

/// The variables of this process.
#[derive(Clone, Copy, Debug)]
pub struct Process;

impl Environment for Process {
    fn get(&self, name: &str) -> Option<String> {
        let told = std::env::var(name).ok();
        match name {
            "USER" => told.filter(|name| !name.is_empty()).or_else(own_name),
            _ => told,
        }
    }

    fn is_no_text(&self, name: &str) -> bool {
        matches!(std::env::var(name), Err(VarError::NotUnicode(_)))
    }
}

/// The variables of this process that PostgreSQL reads: a server of our own must not.
pub fn of_postgresql() -> impl Iterator<Item = OsString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    names.filter(|name| name.as_encoded_bytes().starts_with(b"PG"))
}

/// The name of the user that this process runs as. Users of a directory service are not found here.
fn own_name() -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let own = rustix::process::geteuid().as_raw().to_string();
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == own).then(|| name.to_owned())
    })
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

    fn is_no_text(&self, _: &str) -> bool {
        false
    }
}
