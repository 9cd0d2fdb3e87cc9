//! A disk whose calls a test can skip or fail.
//!
//! Promise: a skipped fsync answers well and does nothing; a failed call has no effect unless told so.
//! Not here: which calls (the tests).

use std::fmt;
use std::io;
use std::sync::Arc;

use backstay_store::directory::sim::SimDisk;
use backstay_store::directory::{Content, Entry, FileCalls, FileFacts, NewFile, Wanted};
use rustix::io::Errno;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meddle {
    Pass,
    /// For fsyncs.
    Skip,
    Fail(Errno),
    /// The call takes effect, and its answer is replaced, as by a network file system that repeats it.
    FailAfterEffect(Errno),
}

type Decide = Arc<dyn Fn(&str, &str) -> Meddle + Send + Sync>;

#[derive(Clone)]
pub struct Meddling {
    disk: SimDisk,
    decide: Decide,
}

impl Meddling {
    /// Asks `decide` with the name of each call and its path.
    pub fn new(disk: SimDisk, decide: impl Fn(&str, &str) -> Meddle + Send + Sync + 'static) -> Self {
        Self {
            disk,
            decide: Arc::new(decide),
        }
    }

    fn pass<T>(&self, call: &str, path: &str, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match (self.decide)(call, path) {
            Meddle::Fail(errno) => Err(errno.into()),
            Meddle::FailAfterEffect(errno) => act().and(Err(errno.into())),
            Meddle::Pass | Meddle::Skip => act(),
        }
    }

    fn sync(&self, call: &str, path: &str, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match (self.decide)(call, path) {
            Meddle::Fail(errno) => Err(errno.into()),
            Meddle::Skip => Ok(()),
            Meddle::FailAfterEffect(errno) => act().and(Err(errno.into())),
            Meddle::Pass => act(),
        }
    }
}

impl fmt::Debug for Meddling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meddling")
    }
}

struct MeddlingFile {
    file: Box<dyn NewFile>,
    meddling: Meddling,
}

impl NewFile for MeddlingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = &mut self.file;
        self.meddling.pass("write", "", || file.write(bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        let file = &mut self.file;
        self.meddling.sync("sync", "", || file.sync())
    }
}

impl FileCalls for Meddling {
    fn create(&self, path: &str) -> io::Result<Box<dyn NewFile>> {
        let file = self.pass("create", path, || self.disk.create(path))?;
        let meddling = self.clone();
        Ok(Box::new(MeddlingFile { file, meddling }))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.pass("link", to, || self.disk.link(from, to))
    }

    fn rename_if_absent(&self, from: &str, to: &str) -> io::Result<()> {
        self.pass("rename", to, || self.disk.rename_if_absent(from, to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.pass("remove", path, || self.disk.remove(path))
    }

    fn make_directory(&self, path: &str) -> io::Result<()> {
        self.pass("make directory", path, || self.disk.make_directory(path))
    }

    fn sync_directory(&self, path: &str) -> io::Result<()> {
        self.sync("sync directory", path, || self.disk.sync_directory(path))
    }

    fn sync_everything(&self) -> io::Result<()> {
        self.sync("sync everything", "", || self.disk.sync_everything())
    }

    fn entries(&self, path: &str, see: &mut dyn FnMut(Entry)) -> io::Result<()> {
        self.pass("entries", path, || self.disk.entries(path, see))
    }

    fn stat(&self, path: &str) -> io::Result<FileFacts> {
        self.pass("stat", path, || self.disk.stat(path))
    }

    fn read(&self, path: &str, wanted: Wanted) -> io::Result<Content> {
        self.pass("read", path, || self.disk.read(path, wanted))
    }
}
