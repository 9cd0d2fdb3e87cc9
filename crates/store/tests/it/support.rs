//! What several tests need.
//!
//! Promise: scratch directories are removed when their test ends.
//! Not here: assertions.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backstay_clock::{Clock, SimClock};
use backstay_store::{Key, MemoryStore, Prefix};

pub fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

pub fn prefix(text: &str) -> Prefix {
    Prefix::new(text).unwrap()
}

pub fn clock() -> Arc<dyn Clock> {
    Arc::new(SimClock::new())
}

pub fn memory() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(clock()))
}

/// A directory of the real file system for one test.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("store-{}-{count}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _left_for_the_next_clean = std::fs::remove_dir_all(&self.0);
    }
}
