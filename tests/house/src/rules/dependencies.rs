//! Rule: versions stand once, in the root manifest, and every dependency is described.
//!
//! Promise: a version outside the table, a table entry without a description, a description without an
//! entry, and a crate that does not take the workspace's lints are offences.
//! Not here: which crates of ours import each other (rules::arrows).

use crate::Offence;
use crate::tree::TextFile;
use std::collections::{BTreeMap, BTreeSet};

const ROOT_MANIFEST: &str = "Cargo.toml";
const DESCRIPTIONS: &str = "docs/dependencies.md";
const ONE_TABLE: &str = "versions stand once, in the root manifest";
const DESCRIBED: &str = "docs/dependencies.md describes every dependency";
const LINTS: &str = "every crate takes the lints of the workspace";

/// Entries of member manifests that do not take their version from the root table.
pub fn versions(files: &[TextFile]) -> Vec<Offence> {
    members(files).flat_map(versions_of).collect()
}

fn versions_of(manifest: &TextFile) -> Vec<Offence> {
    entries(&manifest.text)
        .into_iter()
        .filter(|entry| entry.section.ends_with("dependencies") || entry.section.contains("dependencies."))
        .filter(|entry| !takes_the_root_version(entry))
        .map(|entry| Offence {
            place: format!("{}:{}", manifest.path, entry.line),
            rule: ONE_TABLE,
            found: format!("{} = {}", entry.key, entry.value),
            remedy: "name the version in [workspace.dependencies] and write `name.workspace = true` here"
                .to_owned(),
        })
        .collect()
}

fn takes_the_root_version(entry: &Entry) -> bool {
    let compact: String = entry.value.split_whitespace().collect();
    (entry.key.ends_with(".workspace") && compact == "true")
        || compact.starts_with("{workspace=true")
        || compact.contains(",workspace=true")
}

/// Member manifests without `[lints] workspace = true`, which is where `unsafe` is forbidden.
pub fn lints(files: &[TextFile]) -> Vec<Offence> {
    members(files)
        .filter(|manifest| {
            !entries(&manifest.text)
                .iter()
                .any(|e| e.section == "lints" && e.key == "workspace" && e.value == "true")
        })
        .map(|manifest| Offence {
            place: manifest.path.clone(),
            rule: LINTS,
            found: "has no lints of the workspace".to_owned(),
            remedy: "add a section [lints] with `workspace = true`".to_owned(),
        })
        .collect()
}

/// Differences between the root table and the rows of docs/dependencies.md.
pub fn descriptions(files: &[TextFile]) -> Vec<Offence> {
    let listed = table(files);
    let described = rows(files);
    let missing = listed.difference(&described).map(|name| {
        description_offence(
            ROOT_MANIFEST,
            format!("{name} is not described"),
            "add its row to docs/dependencies.md",
        )
    });
    let stale = described.difference(&listed).map(|name| {
        description_offence(
            DESCRIPTIONS,
            format!("{name} is not in the root table"),
            "remove its row",
        )
    });
    missing.chain(stale).collect()
}

/// Rows of docs/dependencies.md whose last column differs from the manifests.
pub fn rooms(files: &[TextFile]) -> Vec<Offence> {
    let importers = importers(files);
    row_lines(files)
        .filter_map(|(name, line)| {
            let told = last_column(line);
            let real = importers.get(name).cloned().unwrap_or_default();
            (told != real).then(|| {
                let real = real.into_iter().collect::<Vec<_>>().join(", ");
                let found = format!("the row of {name} names other rooms than the manifests");
                description_offence(DESCRIPTIONS, found, &format!("end the row with `| {real} |`"))
            })
        })
        .collect()
}

/// For each crate the rooms that import it; those that do so in tests only are marked.
fn importers(files: &[TextFile]) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for manifest in members(files) {
        let room = manifest.path.rsplit('/').nth(1).unwrap_or_default();
        let entries = entries(&manifest.text);
        let (tests, program): (Vec<&Entry>, Vec<&Entry>) = entries
            .iter()
            .filter(|entry| entry.section.ends_with("dependencies"))
            .partition(|entry| entry.section.ends_with("dev-dependencies"));
        for entry in &program {
            found.entry(entry.name()).or_default().insert(room.to_owned());
        }
        for entry in tests
            .iter()
            .filter(|test| !program.iter().any(|entry| entry.name() == test.name()))
        {
            found
                .entry(entry.name())
                .or_default()
                .insert(format!("{room} (tests)"));
        }
    }
    found
}

fn last_column(row: &str) -> BTreeSet<String> {
    let cell = row
        .trim()
        .trim_end_matches('|')
        .rsplit('|')
        .next()
        .unwrap_or_default();
    cell.split(',')
        .map(|room| room.trim().to_owned())
        .filter(|room| !room.is_empty())
        .collect()
}

fn description_offence(place: &str, found: String, remedy: &str) -> Offence {
    Offence {
        place: place.to_owned(),
        rule: DESCRIBED,
        found,
        remedy: remedy.to_owned(),
    }
}

/// Names of other people's crates in the root table.
fn table(files: &[TextFile]) -> BTreeSet<String> {
    text_of(files, ROOT_MANIFEST)
        .map(entries)
        .unwrap_or_default()
        .into_iter()
        .filter(|entry| entry.section == "workspace.dependencies" && !entry.key.starts_with("backstay-"))
        .map(|entry| entry.key)
        .collect()
}

fn rows(files: &[TextFile]) -> BTreeSet<String> {
    row_lines(files).map(|(name, _)| name.to_owned()).collect()
}

/// The rows of the table of descriptions, which begin with "| `name`".
fn row_lines(files: &[TextFile]) -> impl Iterator<Item = (&str, &str)> {
    let text = text_of(files, DESCRIPTIONS).unwrap_or_default();
    text.lines().filter_map(|line| {
        line.strip_prefix("| `")?
            .split_once('`')
            .map(|(name, _)| (name, line))
    })
}

fn text_of<'a>(files: &'a [TextFile], path: &str) -> Option<&'a str> {
    files
        .iter()
        .find(|file| file.path == path)
        .map(|file| file.text.as_str())
}

fn members(files: &[TextFile]) -> impl Iterator<Item = &TextFile> {
    files
        .iter()
        .filter(|file| file.name() == "Cargo.toml" && file.path != ROOT_MANIFEST)
}

#[derive(Debug)]
struct Entry {
    section: String,
    key: String,
    value: String,
    line: usize,
}

impl Entry {
    /// The crate that an entry of a dependency section names.
    fn name(&self) -> String {
        self.key.trim_end_matches(".workspace").to_owned()
    }
}

/// The `key = value` lines of a manifest with their section; enough TOML for manifests written by hand.
fn entries(manifest: &str) -> Vec<Entry> {
    let mut section = String::new();
    let mut found = Vec::new();
    for (number, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            found.push(Entry {
                section: section.clone(),
                key: key.trim().to_owned(),
                value: value.trim().to_owned(),
                line: number + 1,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(offences: Vec<Offence>) -> Vec<String> {
        offences
            .into_iter()
            .map(|offence| format!("{}: {}", offence.place, offence.found))
            .collect()
    }

    #[test]
    fn planted_versions_are_found() {
        let text = "[package]\nversion = \"1\"\n[dependencies]\nserde.workspace = true\nrand = \"0.9\"\n\
                    bytes = { workspace = true, features = [\"x\"] }\n[target.'cfg(unix)'.dev-dependencies]\n\
                    libc = { version = \"0.2\" }\n[dependencies.tokio]\nversion = \"1\"\n";
        let expected = [
            "crates/x/Cargo.toml:5: rand = \"0.9\"",
            "crates/x/Cargo.toml:8: libc = { version = \"0.2\" }",
            "crates/x/Cargo.toml:10: version = \"1\"",
        ];
        assert_eq!(
            found(versions(&[TextFile::planted("crates/x/Cargo.toml", text)])),
            expected
        );
    }

    #[test]
    fn a_crate_without_the_lints_is_found() {
        let files = [
            TextFile::planted("crates/x/Cargo.toml", "[package]\nname = \"x\"\n"),
            TextFile::planted("crates/y/Cargo.toml", "[lints]\nworkspace = true\n"),
        ];
        assert_eq!(
            found(lints(&files)),
            ["crates/x/Cargo.toml: has no lints of the workspace"]
        );
    }

    #[test]
    fn planted_differences_between_table_and_descriptions_are_found() {
        let manifest =
            "[workspace.dependencies]\nbackstay-terms = { path = \"t\" }\nserde = \"1\"\nbytes = \"1\"\n";
        let files = [
            TextFile::planted("Cargo.toml", manifest),
            TextFile::planted(
                "docs/dependencies.md",
                "| Crate | Saves |\n|---|---|\n| `bytes` | x |\n| `rand` | y |\n",
            ),
        ];
        let expected = [
            "Cargo.toml: serde is not described",
            "docs/dependencies.md: rand is not in the root table",
        ];
        assert_eq!(found(descriptions(&files)), expected);
    }

    #[test]
    fn planted_rooms_that_do_not_import_are_found() {
        let manifest = "[dependencies]\nbytes.workspace = true\n[dev-dependencies]\nrand.workspace = true\n";
        let files = [
            TextFile::planted("crates/x/Cargo.toml", manifest),
            TextFile::planted(
                "docs/dependencies.md",
                "| `bytes` | a | x |\n| `rand` | b | x, y |\n",
            ),
        ];
        let offences = rooms(&files);
        assert_eq!(offences.len(), 1);
        assert_eq!(offences[0].remedy, "end the row with `| x (tests) |`");
    }
}
