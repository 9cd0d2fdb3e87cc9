//! The files of the checkout as text.
//!
//! Promise: what git tracks or would track, and nothing that it ignores; without git, everything but
//! build output.
//! Not here: what the text means.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One file of the checkout.
#[derive(Debug, Clone)]
pub struct TextFile {
    /// Path from the root of the checkout, with `/` between its parts.
    pub path: String,
    /// Its content; bytes that are not UTF-8 are replaced.
    pub text: String,
}

impl TextFile {
    /// A file that exists in a test only.
    pub fn planted(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// The root of the checkout that this crate was compiled in.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every file of the checkout under `root`, in order of path.
pub fn files(root: &Path) -> Vec<TextFile> {
    let mut paths = tracked(root).unwrap_or_else(|| walked(root));
    paths.sort();
    paths.dedup();
    paths.into_iter().filter_map(|path| read(root, path)).collect()
}

/// `None` where git or its repository is missing, as in an unpacked archive.
fn tracked(root: &Path) -> Option<Vec<String>> {
    let listing = Command::new("git")
        // A container often runs as another user than the owner of the checkout.
        .args([
            "-c",
            "safe.directory=*",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(listing.stdout).ok()?;
    Some(
        text.split('\0')
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

fn walked(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        let entries = fs::read_dir(root.join(&directory)).expect("a directory of the checkout can be listed");
        for entry in entries {
            let entry = entry.expect("an entry of the checkout can be read");
            let path = directory.join(entry.file_name());
            let kind = entry.file_type().expect("a file of the checkout has a type");
            if kind.is_dir() && !is_build_output(&path) {
                open.push(path);
            } else if kind.is_file() {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found
}

fn is_build_output(path: &Path) -> bool {
    [".git", "target", ".cache"]
        .iter()
        .any(|name| path == Path::new(name))
}

/// `None` for what git still lists but the work tree no longer has, and for links.
fn read(root: &Path, path: String) -> Option<TextFile> {
    let file = root.join(&path);
    if !fs::symlink_metadata(&file).ok()?.is_file() {
        return None;
    }
    let text = String::from_utf8_lossy(&fs::read(file).ok()?).into_owned();
    Some(TextFile { path, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(files: &[TextFile]) -> Vec<&str> {
        files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn the_checkout_holds_this_file_and_no_build_output() {
        let files = files(&root());
        assert!(paths(&files).contains(&"tests/house/src/tree.rs"));
        assert!(!files.iter().any(|file| file.path.starts_with("target/")));
    }

    #[test]
    fn without_git_the_walk_finds_the_same_sources() {
        let root = root();
        let mut walked = walked(&root);
        walked.retain(|path| path.starts_with("tests/house/"));
        walked.sort();
        let tracked: Vec<String> = files(&root)
            .into_iter()
            .map(|f| f.path)
            .filter(|path| path.starts_with("tests/house/"))
            .collect();
        assert_eq!(walked, tracked);
    }
}
