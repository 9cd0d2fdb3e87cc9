//! Rule: no file names a machine that the project was written on, or the host of a package registry.
//!
//! Promise: every file of the checkout is read, except the lock file, which names a registry by its nature.
//! Not here: secrets; there are none to look for by name.

use crate::Offence;
use crate::tree::TextFile;

const RULE: &str = "files name no paths of one machine and no registry hosts";

/// The words are put together here, so that this file holds none of them.
const HOSTS: &[&str] = &[
    concat!("crates", ".io"),
    concat!("deb.", "debian.org"),
    concat!("security.", "debian.org"),
    concat!("pypi", ".org"),
    concat!("files.", "pythonhosted.org"),
    concat!("registry.", "npmjs.org"),
    concat!("proxy.", "golang.org"),
];
const PATHS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("../", "shared/"),
    concat!("shared/", "research"),
];

const LOCK_FILE: &str = "Cargo.lock";

/// Lines that hold a forbidden word.
pub fn forbidden(files: &[TextFile]) -> Vec<Offence> {
    files
        .iter()
        .filter(|file| file.name() != LOCK_FILE)
        .flat_map(forbidden_in)
        .collect()
}

fn forbidden_in(file: &TextFile) -> Vec<Offence> {
    let mut found = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let hosts = HOSTS.iter().filter(|word| line.contains(**word));
        let paths = PATHS.iter().filter(|word| holds_path(line, word));
        for word in hosts.chain(paths) {
            found.push(Offence {
                place: format!("{}:{}", file.path, number + 1),
                rule: RULE,
                found: format!("the word {word}"),
                remedy:
                    "name the thing instead of the place: the package, the document, a path from the root"
                        .to_owned(),
            });
        }
    }
    found
}

/// Whether a path begins with `word`; a folder of that name deeper in a path is another thing.
fn holds_path(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-})>".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        forbidden(&[TextFile::planted(path, text)])
            .into_iter()
            .map(|offence| offence.place)
            .collect()
    }

    #[test]
    fn every_word_is_found_where_it_is_planted() {
        for word in HOSTS.iter().chain(PATHS) {
            assert_eq!(
                found("docs/x.md", &format!("a line\nsee `{word}x`\n")),
                ["docs/x.md:2"],
                "of {word}"
            );
        }
    }

    #[test]
    fn a_folder_inside_another_path_is_not_the_machine() {
        assert_eq!(
            found("docs/x.md", &format!("target/demo{}base", PATHS[0])),
            [""; 0]
        );
    }

    #[test]
    fn the_lock_file_may_name_its_registry() {
        assert_eq!(found("Cargo.lock", HOSTS[0]), [""; 0]);
    }
}
