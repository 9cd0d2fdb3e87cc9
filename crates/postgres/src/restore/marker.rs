//! The marker of an incomplete restore.
//!
//! Promise: a directory with the marker is ours to clear by the same restore, and by nobody else; while a restore runs
//! the directory is locked, so that two never write into it.
//! Not here: what keeps an incomplete directory from starting: the missing pg_control (place, finish).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use backstay_source::Ticket;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::RestoreError;
use super::mortal;
use super::tree::Tree;

/// Its name, in the directory and in each tablespace.
pub(super) const MARKER: &str = "backstay.restore-incomplete";

/// The marker while it is written; alone it is what a run left that died before it had touched anything.
const MARKER_NEW: &str = "backstay.restore-incomplete.new";

/// What a directory holds, as a restore sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// It is not there.
    Missing,
    /// Nothing.
    Nothing,
    /// What an interrupted run of the same restore left.
    Ours,
}

/// Looks at a directory; changes nothing.
pub(super) fn look(directory: &Path, ticket: &Ticket) -> Result<Holds, RestoreError> {
    let mut entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return absent(directory, error),
    };
    let is_begun =
        |entry: &io::Result<fs::DirEntry>| entry.as_ref().is_ok_and(|entry| entry.file_name() == MARKER_NEW);
    match (read(directory)?, entries.find(|entry| !is_begun(entry))) {
        (Some(marker), _) => is_same(directory, marker, ticket),
        (None, None) => Ok(Holds::Nothing),
        (None, Some(entry)) => Err(RestoreError::NotEmpty {
            directory: directory.to_owned(),
            found: entry.map_or_else(
                |error| error.to_string(),
                |entry| entry.file_name().display().to_string(),
            ),
        }),
    }
}

fn is_same(directory: &Path, marker: Ticket, ticket: &Ticket) -> Result<Holds, RestoreError> {
    let directory = directory.to_owned();
    if marker != *ticket {
        let Ticket { backup, target } = marker;
        return Err(RestoreError::OtherTicket {
            directory,
            backup,
            target,
        });
    }
    // No backup holds this file and every start writes it: what the server wrote since must not be cleared away.
    match fs::symlink_metadata(directory.join("postmaster.opts")) {
        Ok(_) => Err(RestoreError::Started { directory }),
        Err(_) => Ok(Holds::Ours),
    }
}

fn absent(directory: &Path, error: io::Error) -> Result<Holds, RestoreError> {
    // A link to nowhere is not "not there": making the directory would fail.
    let named = fs::symlink_metadata(directory).is_ok();
    match error.kind() {
        io::ErrorKind::NotFound if !named => Ok(Holds::Missing),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Err(RestoreError::NotADirectory {
            path: directory.to_owned(),
        }),
        _ => Err(RestoreError::io("read", directory)(error)),
    }
}

fn read(directory: &Path) -> Result<Option<Ticket>, RestoreError> {
    let marker = directory.join(MARKER);
    let text = match fs::read(&marker) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(RestoreError::io("read", &marker)(error)),
    };
    let ticket = serde_json::from_slice(&text);
    ticket.map(Some).map_err(|_| RestoreError::Marker { marker })
}

/// A directory that is held against other restores until this is dropped.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    // Closing would not do: a program that this process is just starting has the open file as well, until it runs.
    fn drop(&mut self) {
        // Whatever this says, the lock ends with the last who has the file open.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Holds the directory against other restores, also of other processes.
pub(super) fn lock(directory: &Path) -> Result<Lock, RestoreError> {
    let file = File::open(directory).map_err(RestoreError::io("open", directory))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(file)),
        Err(Errno::WOULDBLOCK) => Err(RestoreError::Busy {
            directory: directory.to_owned(),
        }),
        Err(error) => Err(RestoreError::io("lock", directory)(error)),
    }
}

/// Writes the marker into a directory and waits until it is on disk. Under another name first: half a marker would be
/// one that cannot be read.
pub(super) fn set(tree: &Tree, ticket: &Ticket) -> Result<(), RestoreError> {
    let text = serde_json::to_vec(ticket).map_err(io::Error::from);
    let text = text.map_err(RestoreError::io("write", &tree.at(MARKER.as_bytes())))?;
    tree.write_synced(MARKER_NEW.as_bytes(), &text)?;
    tree.rename(MARKER_NEW.as_bytes(), MARKER.as_bytes())?;
    tree.sync(b"")
}

/// Removes everything but the marker; pg_control first, so that nothing half removed can start.
pub(super) fn clear(directory: &Path) -> Result<(), RestoreError> {
    if fs::symlink_metadata(directory.join("global")).is_ok_and(|global| global.is_dir()) {
        remove_file(&directory.join("global/pg_control"))?;
    }
    let children: Vec<PathBuf> = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(RestoreError::io("read", directory))?;
    let left = children.iter().filter(|path| !path.ends_with(MARKER));
    left.into_iter().try_for_each(|path| remove(path))
}

// `remove_dir_all` removes links, never what they lead to.
fn remove(path: &Path) -> Result<(), RestoreError> {
    let kind = fs::symlink_metadata(path).map_err(RestoreError::io("look at", path))?;
    if !kind.is_dir() {
        return remove_file(path);
    }
    let whole = || fs::remove_dir_all(path).map_err(RestoreError::io("remove", path));
    mortal::call("remove a directory", || {}, whole)
}

/// Removes a file, if it is there.
pub(super) fn remove_file(path: &Path) -> Result<(), RestoreError> {
    let remove = || match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RestoreError::io("remove", path)(error)),
        _ => Ok(()),
    };
    mortal::call("remove a file", || {}, remove)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_lock_ends_with_its_restore_also_while_another_program_is_being_started() {
        let directory = std::env::temp_dir().join(format!("backstay-lock-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let first = lock(&directory).unwrap();
        // Between fork and exec a child has every open file.
        let of_a_child = first.0.try_clone().unwrap();
        assert!(matches!(lock(&directory), Err(RestoreError::Busy { .. })));
        drop(first);
        let second = lock(&directory);
        fs::remove_dir(&directory).unwrap();
        assert!(second.is_ok(), "{second:?}");
        drop(of_a_child);
    }
}
