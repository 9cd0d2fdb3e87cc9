//! The workspace as cargo describes it: its packages and what they import.
//!
//! Promise: every dependency of every package, with its kind.
//! Not here: which of them are allowed (rules::arrows).

use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// When a dependency is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// In the program, or in a build script.
    Program,
    /// In tests only.
    Tests,
}

/// One package of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name in the manifest.
    pub name: String,
    /// Names of what it imports from any place, and when.
    pub imports: Vec<(String, Use)>,
}

/// Asks cargo for the packages of the workspace at `root`.
pub fn packages(root: &Path) -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .expect("cargo can be run by a test that cargo runs");
    assert!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    parse(&output.stdout)
}

fn parse(metadata: &[u8]) -> Vec<Package> {
    let document: Value = serde_json::from_slice(metadata).expect("cargo metadata prints JSON");
    list(&document, "packages").iter().map(package).collect()
}

fn package(value: &Value) -> Package {
    Package {
        name: text(value, "name"),
        imports: list(value, "dependencies").iter().map(import).collect(),
    }
}

fn import(value: &Value) -> (String, Use) {
    let used = if value["kind"] == "dev" {
        Use::Tests
    } else {
        Use::Program
    };
    (text(value, "name"), used)
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field]
        .as_array()
        .expect("cargo metadata lists packages and dependencies")
}

fn text(value: &Value, field: &str) -> String {
    value[field]
        .as_str()
        .expect("cargo metadata names packages and dependencies")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_dependencies_are_told_apart() {
        let metadata = br#"{"packages": [{"name": "a", "dependencies": [
            {"name": "b", "kind": null}, {"name": "c", "kind": "dev"}, {"name": "d", "kind": "build"}]}]}"#;
        let imports = [("b", Use::Program), ("c", Use::Tests), ("d", Use::Program)];
        let imports = imports.map(|(name, used)| (name.to_owned(), used)).to_vec();
        assert_eq!(
            parse(metadata),
            [Package {
                name: "a".to_owned(),
                imports
            }]
        );
    }
}
