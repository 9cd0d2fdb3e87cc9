//! A directory of one run that is gone afterwards.

use backstay_codec::random_u64;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A new directory that only its owner can enter.
    pub fn make() -> io::Result<Scratch> {
        let path = std::env::temp_dir().join(format!("backstay-{:016x}", random_u64()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Scratch { path })
    }

    /// Leaves it where it is.
    pub fn keep(mut self) {
        self.path = PathBuf::new();
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is in the system's directory for temporary files.
        if self.path != Path::new("") {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
