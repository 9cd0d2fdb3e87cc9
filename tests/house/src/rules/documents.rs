//! Rule: a decision record says whether it still holds, and the index names it.
//!
//! Promise: a record without one of the known states, or missing from the index, is an offence.
//! Not here: what the records decide.

use crate::Offence;
use crate::tree::TextFile;

const STATUS: &str = "a decision record has a status line";
const INDEXED: &str = "docs/decisions/README.md names every record";
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
}
