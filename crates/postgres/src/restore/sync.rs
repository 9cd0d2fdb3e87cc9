//! Waits until everything below a directory is on disk.
//!
//! Promise: every file and every directory is synced, links are not followed, and the first failure is reported.
//! Memory does not grow with the number of files: at most 1024 paths wait.
//! Not here: the order of the last steps (finish).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::error::RestoreError;
use super::mortal;

const WORKERS: usize = 8;
const WAITING_MAX: usize = 1024;

/// Syncs all files and directories below `directory`, and itself.
pub(super) fn sync_all(directory: &Path) -> Result<(), RestoreError> {
    mortal::call("sync everything", || {}, || sync_all_now(directory))
}

fn sync_all_now(directory: &Path) -> Result<(), RestoreError> {
    let (paths, waiting) = sync_channel(WAITING_MAX);
    let waiting = Mutex::new(waiting);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| work(&waiting))).collect();
        let walked = walk(directory, &paths);
        drop(paths);
        let worked = workers.into_iter().map(|worker| {
            let lost = |_| RestoreError::io("sync", directory)(io::Error::other("a thread ended early"));
            worker.join().map_err(lost)?
        });
        // All are joined before the first failure is told.
        let worked: Vec<Result<(), RestoreError>> = worked.collect();
        walked.and(worked.into_iter().collect())
    })
}

// A directory is sent after its files, but may be synced before them: the order does not matter, only that all are done.
fn walk(directory: &Path, paths: &SyncSender<PathBuf>) -> Result<(), RestoreError> {
    let entries = fs::read_dir(directory).map_err(RestoreError::io("read", directory))?;
    for entry in entries {
        let entry = entry.map_err(RestoreError::io("read", directory))?;
        let kind = entry.file_type();
        let kind = kind.map_err(RestoreError::io("look at", &entry.path()))?;
        if kind.is_dir() {
            walk(&entry.path(), paths)?;
        } else if kind.is_file() {
            // Nobody takes paths any more only when all workers failed; their errors are reported.
            let _ = paths.send(entry.path());
        }
    }
    let _ = paths.send(directory.to_owned());
    Ok(())
}

// After a failure the rest is still taken, so that the walker never waits for ever.
fn work(waiting: &Mutex<Receiver<PathBuf>>) -> Result<(), RestoreError> {
    let mut done = Ok(());
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(path) = next else { return done };
        if done.is_ok() {
            done = sync_one(&path);
        }
    }
}

/// Syncs one file or directory.
pub(super) fn sync_one(path: &Path) -> Result<(), RestoreError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::empty()).map_err(RestoreError::io("open", path))?;
    File::from(file)
        .sync_all()
        .map_err(RestoreError::io("sync", path))
}
