//! Rules: a decision record says whether it still holds, and the index names it; a document that tells a reader to type
//! something is checked.
//!
//! Promise: a record without one of the known states, or missing from the index, is an offence; so is a document with
//! commands that scripts/check-docs does not run.
//! Not here: what the records decide, running the commands (scripts/check-docs).

use crate::Offence;
use crate::tree::TextFile;

const STATUS: &str = "a decision record has a status line";
const INDEXED: &str = "docs/decisions/README.md names every record";
const CHECKED: &str = "a document with ```sh blocks is in a chain of scripts/check-docs";
const CHECKER: &str = "scripts/check-docs";
const README: &str = "README.md";
const DOCUMENTS: &str = "docs/";
const FENCE: &str = "```sh";
const FOLDER: &str = "docs/decisions/";
const INDEX: &str = "docs/decisions/README.md";
/// The form to copy; it decides nothing and stands in no index.
const TEMPLATE: &str = "docs/decisions/0000-template.md";
const STATES: &[&str] = &["proposed", "accepted", "rejected", "superseded by "];
const STATUS_PREFIX: &str = "Status: ";

/// Decision records without a status.
pub fn statuses(files: &[TextFile]) -> Vec<Offence> {
    records(files)
        .filter(|file| !file.text.lines().any(is_status))
        .map(|file| Offence {
            place: file.path.clone(),
            rule: STATUS,
            found: "no line `Status: …` with a known state".to_owned(),
            remedy: format!("write `Status: ` and one of: {}", STATES.join(", ")),
        })
        .collect()
}

fn is_status(line: &str) -> bool {
    line.strip_prefix(STATUS_PREFIX)
        .is_some_and(|state| STATES.iter().any(|known| state.starts_with(known)))
}

/// Decision records that the index does not link.
pub fn index(files: &[TextFile]) -> Vec<Offence> {
    let index = files
        .iter()
        .find(|file| file.path == INDEX)
        .map_or("", |file| file.text.as_str());
    records(files)
        .filter(|file| file.path != TEMPLATE)
        .filter(|file| !index.contains(&format!("({})", file.name())))
        .map(|file| Offence {
            place: file.path.clone(),
            rule: INDEXED,
            found: "not linked from the index".to_owned(),
            remedy: format!("add a row that links ({}) to {INDEX}", file.name()),
        })
        .collect()
}

/// Documents for users whose commands nobody runs.
pub fn unchecked(files: &[TextFile]) -> Vec<Offence> {
    let checker = files.iter().find(|file| file.path == CHECKER);
    let chained = checker.map_or_else(Vec::new, |file| chained(&file.text));
    files
        .iter()
        .filter(|file| file.path == README || file.path.starts_with(DOCUMENTS) && file.path.ends_with(".md"))
        .filter(|file| file.text.lines().any(is_command_fence) && !chained.contains(&file.path.as_str()))
        .map(|file| Offence {
            place: file.path.clone(),
            rule: CHECKED,
            found: "its commands are not run".to_owned(),
            remedy: format!(
                "name it in `chains` of {CHECKER}; a block that takes minutes is fenced {FENCE} no-run REASON"
            ),
        })
        .collect()
}

/// The documents of `chains=( … )`: each line is one chain, quoted, of words.
fn chained(script: &str) -> Vec<&str> {
    let lines = script.lines().skip_while(|line| *line != "chains=(").skip(1);
    lines
        .take_while(|line| *line != ")")
        .flat_map(|line| line.trim().trim_matches('\'').split(' '))
        .collect()
}

fn is_command_fence(line: &str) -> bool {
    let language = line.trim_start().strip_prefix(FENCE);
    language.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

fn records(files: &[TextFile]) -> impl Iterator<Item = &TextFile> {
    files
        .iter()
        .filter(|file| file.path.starts_with(FOLDER) && file.path.ends_with(".md") && file.path != INDEX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(offences: Vec<Offence>) -> Vec<String> {
        offences.into_iter().map(|offence| offence.place).collect()
    }

    #[test]
    fn a_planted_record_without_a_status_is_found() {
        let files = [
            TextFile::planted(
                "docs/decisions/0001-a.md",
                "# A\n\nStatus: accepted, 2026-11-23\n",
            ),
            TextFile::planted("docs/decisions/0002-b.md", "# B\n\nStatus: perhaps\n"),
            TextFile::planted("docs/decisions/0003-c.md", "# C\n\nStatus: superseded by 0001\n"),
        ];
        assert_eq!(places(statuses(&files)), ["docs/decisions/0002-b.md"]);
    }

    #[test]
    fn a_planted_record_outside_the_index_is_found() {
        let files = [
            TextFile::planted(INDEX, "| [0001](0001-a.md) | A |\n"),
            TextFile::planted(TEMPLATE, ""),
            TextFile::planted("docs/decisions/0001-a.md", ""),
            TextFile::planted("docs/decisions/0002-b.md", ""),
        ];
        assert_eq!(places(index(&files)), ["docs/decisions/0002-b.md"]);
    }

    #[test]
    fn a_planted_document_whose_commands_are_not_run_is_found() {
        let commands = "# A\n\n```sh\nbackstay status\n```\n";
        let slow = "1. indented\n\n   ```sh no-run it takes minutes\n   make bench\n   ```\n";
        let script =
            "# docs/c.md\nchains=(\n    'README.md'\n    'docs/start.md docs/guides/a.md'\n)\n'docs/d.md'\n";
        let files = [
            TextFile::planted(CHECKER, script),
            TextFile::planted(README, commands),
            TextFile::planted("docs/guides/a.md", commands),
            TextFile::planted("docs/guides/b.md", commands),
            TextFile::planted("docs/c.md", slow),
            TextFile::planted("docs/d.md", commands),
            TextFile::planted("docs/shown.md", "```text\n$ sh\n```\n```shell-like\n```\n"),
            TextFile::planted("CONTRIBUTING.md", commands),
        ];
        assert_eq!(
            places(unchecked(&files)),
            ["docs/guides/b.md", "docs/c.md", "docs/d.md"]
        );
        assert_eq!(places(unchecked(&files[1..3])), [README, "docs/guides/a.md"]);
    }
}
