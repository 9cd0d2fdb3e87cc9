//! Rule: crates import each other only along the arrows of ARCHITECTURE.md.
//!
//! Promise: an import that is not in the table, and a crate that is not in the table, are offences.
//! Not here: imports of other people's crates (rules::dependencies).

use crate::Offence;
use crate::workspace::{Package, Use};

const RULE: &str = "imports follow the arrows of ARCHITECTURE.md";

/// The binary, which may import every room, and the crate of test support, which may import every room but it.
const BINARY: &str = "backstay";
const TESTKIT: &str = "backstay-testkit";

/// Each room and the rooms it may import. The table of ARCHITECTURE.md and this one change together.
const ARROWS: &[(&str, &[&str])] = &[
    ("backstay-terms", &[]),
    ("backstay-clock", &[]),
    ("backstay-codec", &["backstay-terms"]),
    ("backstay-store", &["backstay-terms", "backstay-clock"]),
    (
        "backstay-repository",
        &[
            "backstay-terms",
            "backstay-clock",
            "backstay-codec",
            "backstay-store",
        ],
    ),
    ("backstay-source", &["backstay-terms"]),
    (
        "backstay-postgres",
        &["backstay-terms", "backstay-clock", "backstay-source"],
    ),
    (
        "backstay-redis",
        &["backstay-terms", "backstay-clock", "backstay-source"],
    ),
    (
        "backstay-qdrant",
        &["backstay-terms", "backstay-clock", "backstay-source"],
    ),
    (
        "backstay-engine",
        &[
            "backstay-terms",
            "backstay-clock",
            "backstay-source",
            "backstay-repository",
        ],
    ),
    (
        "backstay-service",
        &["backstay-terms", "backstay-clock", "backstay-engine"],
    ),
    ("backstay-house", &[]),
    (
        "backstay-scenarios",
        &[
            "backstay-terms",
            "backstay-clock",
            "backstay-codec",
            "backstay-store",
            "backstay-source",
            "backstay-postgres",
            "backstay-repository",
            "backstay-engine",
        ],
    ),
];

/// Imports between crates of the workspace that are not in the table.
pub fn offences(packages: &[Package]) -> Vec<Offence> {
    packages.iter().flat_map(offences_of).collect()
}

fn offences_of(package: &Package) -> Vec<Offence> {
    if !is_known(&package.name) {
        return vec![offence(
            &package.name,
            "is not in the table of arrows".to_owned(),
            "add its row to ARCHITECTURE.md and to tests/house/src/rules/arrows.rs, in a commit of its own",
        )];
    }
    package
        .imports
        .iter()
        .filter(|(import, _)| is_ours(import))
        .filter(|(import, used)| !is_allowed(&package.name, import, *used))
        .map(|(import, used)| {
            offence(
                &package.name,
                format!("imports {import} ({})", when(*used)),
                "move the code to the room that knows both sides, or pass a type of backstay-terms",
            )
        })
        .collect()
}

fn is_known(name: &str) -> bool {
    name == BINARY || name == TESTKIT || ARROWS.iter().any(|(room, _)| *room == name)
}

fn is_ours(name: &str) -> bool {
    name == BINARY || name.starts_with("backstay-")
}

fn is_allowed(package: &str, import: &str, used: Use) -> bool {
    match (package, import) {
        (_, TESTKIT) => used == Use::Tests,
        // A crate's own integration tests may ask for its test features.
        _ if import == package => used == Use::Tests,
        (_, BINARY) => false,
        (BINARY | TESTKIT, _) => true,
        _ => ARROWS
            .iter()
            .any(|(room, imports)| *room == package && imports.contains(&import)),
    }
}

fn when(used: Use) -> &'static str {
    match used {
        Use::Program => "in the program",
        Use::Tests => "in tests",
    }
}

fn offence(package: &str, found: String, remedy: &str) -> Offence {
    Offence {
        place: format!("package {package}"),
        rule: RULE,
        found,
        remedy: remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, import: &str, used: Use) -> Vec<String> {
        let package = Package {
            name: name.to_owned(),
            imports: vec![(import.to_owned(), used)],
        };
        offences(&[package])
            .into_iter()
            .map(|offence| offence.found)
            .collect()
    }

    #[test]
    fn a_planted_arrow_is_found() {
        let expected = ["imports backstay-repository (in the program)"];
        assert_eq!(
            found("backstay-postgres", "backstay-repository", Use::Program),
            expected
        );
    }

    #[test]
    fn tests_get_no_arrows_but_the_one_to_testkit() {
        assert_eq!(found("backstay-terms", "backstay-testkit", Use::Tests), [""; 0]);
        assert_eq!(
            found("backstay-terms", "backstay-clock", Use::Tests),
            ["imports backstay-clock (in tests)"]
        );
        let expected = ["imports backstay-testkit (in the program)"];
        assert_eq!(found("backstay", "backstay-testkit", Use::Program), expected);
    }

    #[test]
    fn a_crate_may_ask_itself_for_test_features_in_tests_only() {
        assert_eq!(found("backstay-clock", "backstay-clock", Use::Tests), [""; 0]);
        assert_eq!(found("backstay-clock", "backstay-clock", Use::Program).len(), 1);
    }

    #[test]
    fn nobody_imports_the_binary() {
        assert_eq!(
            found("backstay-testkit", "backstay", Use::Program),
            ["imports backstay (in the program)"]
        );
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        assert_eq!(
            found("backstay-attic", "serde", Use::Program),
            ["is not in the table of arrows"]
        );
    }

    #[test]
    fn crates_of_others_are_no_arrows() {
        assert_eq!(found("backstay-terms", "serde", Use::Program), [""; 0]);
    }
}
