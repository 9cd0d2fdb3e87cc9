//! Compares output with a file, whole.

use crate::mask::{mask, shape};
use std::fs;
use std::path::{Path, PathBuf};

/// Fails unless `actual` is what the golden file says; with `BLESS=1` the file is rewritten.
#[track_caller]
pub fn assert_golden(name: &str, actual: &str) {
    assert_file(
        &Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/it/golden")
            .join(name),
        actual,
    );
}

/// The same for JSON that a command printed, with the type of each value in its place.
#[track_caller]
pub fn assert_shape(name: &str, json: &str) {
    assert_golden(&format!("json/{name}.json"), &mask(&shape(json)));
}

/// The same for any file of the checkout, such as a generated document.
#[track_caller]
pub fn assert_file(path: &PathBuf, actual: &str) {
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, actual).unwrap();
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(
        expected == actual,
        "{} differs; look, then run with BLESS=1.\n--- expected\n{expected}\n--- actual\n{actual}",
        path.display()
    );
}
