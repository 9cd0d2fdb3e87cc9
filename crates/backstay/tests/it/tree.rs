//! What lies below a directory, for comparing before and after.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Every path below `root` with its mode and content; nothing if `root` is absent.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

fn walk(root: &Path, at: &Path, found: &mut BTreeMap<PathBuf, (u32, Vec<u8>)>) {
    let Ok(facts) = fs::symlink_metadata(at) else {
        return;
    };
    let content = if facts.is_file() {
        fs::read(at).unwrap()
    } else {
        Vec::new()
    };
    found.insert(
        at.strip_prefix(root).unwrap().to_owned(),
        (facts.permissions().mode(), content),
    );
    if facts.is_dir() {
        for entry in fs::read_dir(at).unwrap() {
            walk(root, &entry.unwrap().path(), found);
        }
    }
}

/// The names that differ between two trees.
pub fn changes(
    before: &BTreeMap<PathBuf, (u32, Vec<u8>)>,
    after: &BTreeMap<PathBuf, (u32, Vec<u8>)>,
) -> Vec<String> {
    let names = before.keys().chain(after.keys());
    let mut changed: Vec<String> = names
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| name.display().to_string())
        .collect();
    changed.sort();
    changed.dedup();
    changed
}
