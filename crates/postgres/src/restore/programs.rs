//! The server's programs on this machine.
//!
//! Promise: only a program that says it is of the wanted major version is used: another cannot read the directory.
//! Not here: reading PATH (the binary passes a directory).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::RestoreError;

/// Where the programs of a major version are put: by Debian and the Docker image, Red Hat, Alpine, from source, Homebrew.
const USUAL: [&str; 7] = [
    "/usr/lib/postgresql/{}/bin",
    "/usr/pgsql-{}/bin",
    "/usr/libexec/postgresql{}",
    "/usr/local/pgsql/bin",
    "/usr/local/bin",
    "/usr/bin",
    "/opt/homebrew/opt/postgresql@{}/bin",
];

/// The major version in a server's version: 15 of `15.18 (Debian 15.18-0+deb12u1)`, and of `150018`.
pub(super) fn major(version: &str) -> Result<u32, RestoreError> {
    let digits = version
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap_or_default();
    let number = digits.parse::<u32>().ok();
    let major = number.map(|number| if number >= 10_000 { number / 10_000 } else { number });
    let major = major.filter(|major| (13..=18).contains(major));
    major.ok_or_else(|| RestoreError::Version(version.to_owned()))
}

/// The program `postgres` of a major version.
pub(super) fn find(binaries: Option<&Path>, major: u32) -> Result<PathBuf, RestoreError> {
    let mut looked = Vec::new();
    for directory in candidates(binaries, major) {
        let program = directory.join("postgres");
        match version_of(&program) {
            Some(version) if self::major(&version).is_ok_and(|found| found == major) => return Ok(program),
            Some(version) => looked.push(format!("{} (there is {version})", directory.display())),
            None => looked.push(directory.display().to_string()),
        }
    }
    Err(RestoreError::Binaries {
        major,
        looked: looked.join(", "),
    })
}

fn candidates(binaries: Option<&Path>, major: u32) -> Vec<PathBuf> {
    match binaries {
        Some(directory) => vec![directory.to_owned()],
        None => USUAL
            .iter()
            .map(|place| place.replace("{}", &major.to_string()).into())
            .collect(),
    }
}

/// What follows `postgres (PostgreSQL) `.
fn version_of(program: &Path) -> Option<String> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, version) = text.trim().split_once(") ")?;
    Some(version.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_major_version_is_read_and_others_are_refused() {
        for version in ["15.18 (Debian 15.18-0+deb12u1)", "15", "150018"] {
            assert_eq!(major(version).unwrap(), 15);
        }
        assert_eq!(major("18beta1").unwrap(), 18);
        assert_eq!(
            major("9.6.24").unwrap_err().to_string(),
            "version \"9.6.24\" is not one of PostgreSQL 13 to 18"
        );
        assert!(major("").is_err());
    }
}
