//! The order of file calls by which objects come and go.
//!
//! Promise: an object's name appears only after its content is durable, and a put answers only
//! after the name and every directory above it are durable too. Names are linked, never renamed over.
//! Not here: what a name may be (key).

use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use jiff::SignedDuration;
use rustix::io::Errno;

use super::errors::{is, refuse_no_object};
use super::{Entry, EntryKind, Shared};
use crate::Created;

/// How temporary files begin: no segment of a [`crate::Key`] begins with a dot, so no object is called so.
const TEMPORARY: &str = ".tmp-";

/// How old a temporary file must be before it counts as left over.
const LEFTOVER_AGE: SignedDuration = SignedDuration::from_hours(24);

/// How many names for a temporary file are tried before the directory is called unusable.
const NAME_ATTEMPTS_MAX: usize = 16;

/// How many directories are remembered as durable; past that the memory begins anew.
const DURABLE_MAX: usize = 10_000;

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many temporary files.
    pub files: u64,
    /// Their lengths together, in bytes.
    pub bytes: u64,
}

impl Shared {
    pub(super) fn put(&self, path: &str, body: &[u8]) -> io::Result<Created> {
        let parent = parent_of(path);
        if self.is_taken(path)? {
            return self.already_there(parent);
        }
        self.make_durable_path(parent)?;
        let temporary = self.write_temporary(parent, body)?;
        let named = self.name(&temporary, path);
        // A temporary file that stays is swept one day; the object is what matters.
        let _swept_later = self.calls.remove(&temporary);
        match named? {
            Created::AlreadyThere => self.already_there(parent),
            Created::Now => {
                self.calls.sync_directory(parent)?;
                Ok(Created::Now)
            }
        }
    }

    /// Another process may have named the object and not yet made the name durable: whoever
    /// answers "already there" answers for it.
    fn already_there(&self, parent: &str) -> io::Result<Created> {
        self.make_durable_path(parent)?;
        self.calls.sync_directory(parent)?;
        Ok(Created::AlreadyThere)
    }

    fn is_taken(&self, path: &str) -> io::Result<bool> {
        match self.calls.stat(path) {
            Ok(facts) if facts.kind == EntryKind::Directory => Err(Errno::ISDIR.into()),
            Ok(facts) => refuse_no_object(facts.kind).map(|()| true),
            Err(error) if is(&error, Errno::NOTDIR) => {
                Err(io::Error::other("a part of this name is an object"))
            }
            Err(error) if is(&error, Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn write_temporary(&self, parent: &str, body: &[u8]) -> io::Result<String> {
        let mut attempts = 0;
        loop {
            let path = join(parent, &self.temporary_name());
            match self.write_new(&path, body) {
                Ok(()) => return Ok(path),
                // Somebody took the directory away since we last saw it.
                Err(error) if is(&error, Errno::NOENT) && attempts < NAME_ATTEMPTS_MAX => {
                    self.forget_durable();
                    self.make_durable_path(parent)?;
                }
                Err(error) if is(&error, Errno::EXIST) && attempts < NAME_ATTEMPTS_MAX => {}
                Err(error) => return Err(error),
            }
            attempts += 1;
        }
    }

    fn write_new(&self, path: &str, body: &[u8]) -> io::Result<()> {
        let mut file = self.calls.create(path)?;
        let written = file.write(body).and_then(|()| file.sync());
        if written.is_err() {
            // A full disk is not helped by half a file; if this fails too, the sweep finds it.
            let _swept_later = self.calls.remove(path);
        }
        written
    }

    /// Unique by process, moment and count; machines that share the directory meet at worst in `EXIST`.
    fn temporary_name(&self) -> String {
        let count = self.temporaries.fetch_add(1, Ordering::Relaxed);
        let (process, now) = (std::process::id(), self.clock.now().as_nanosecond());
        format!("{TEMPORARY}{process}-{now:x}-{count}")
    }

    /// Gives the finished file its name, if nothing has it.
    fn name(&self, temporary: &str, path: &str) -> io::Result<Created> {
        let linked = match self.calls.link(temporary, path) {
            Err(error) if is_link_unsupported(&error) => self.calls.rename_if_absent(temporary, path),
            linked => linked,
        };
        match linked {
            Ok(()) => Ok(Created::Now),
            Err(error) if is(&error, Errno::EXIST) => self.whose(temporary, path),
            Err(error) => Err(error),
        }
    }

    /// A network file system may repeat a link whose answer was lost and then say that the name
    /// is taken: our file has two names in that case.
    fn whose(&self, temporary: &str, path: &str) -> io::Result<Created> {
        if self.calls.stat(temporary)?.links > 1 {
            return Ok(Created::Now);
        }
        match self.is_taken(path)? {
            true => Ok(Created::AlreadyThere),
            false => Err(Errno::AGAIN.into()),
        }
    }

    /// Makes a directory and all above it, and makes sure that their names survive. A directory
    /// that is there already may have been made a moment ago by somebody who did not fsync it yet.
    fn make_durable_path(&self, directory: &str) -> io::Result<()> {
        if directory.is_empty() || self.durable().contains(directory) {
            return Ok(());
        }
        let parent = parent_of(directory);
        self.make_durable_path(parent)?;
        match self.calls.make_directory(directory) {
            Err(error) if !is(&error, Errno::EXIST) => return Err(error),
            _ => {}
        }
        self.calls.sync_directory(parent)?;
        let mut durable = self.durable();
        if durable.len() >= DURABLE_MAX {
            durable.clear();
        }
        durable.insert(directory.to_owned());
        Ok(())
    }

    fn durable(&self) -> std::sync::MutexGuard<'_, std::collections::BTreeSet<String>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_durable(&self) {
        self.durable().clear();
    }

    pub(super) fn delete(&self, path: &str) -> io::Result<()> {
        match self.calls.remove(path) {
            Err(error) if !is_absent(&error) => return Err(error),
            _ => {}
        }
        // Also when it was gone already: an earlier delete may have died before this.
        match self.calls.sync_directory(parent_of(path)) {
            Err(error) if !is_absent(&error) => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) fn sweep(&self, directory: &str) -> io::Result<Swept> {
        let (mut swept, mut entries) = (Swept::default(), Vec::new());
        self.calls.entries(directory, &mut |entry| {
            if is_sweepable(&entry) {
                entries.push(entry);
            }
        })?;
        for entry in entries {
            let path = join(directory, &entry.name);
            let found = match entry.kind {
                EntryKind::Directory => self.sweep(&path),
                EntryKind::File | EntryKind::Other => self.sweep_one(&path),
            };
            match found {
                Ok(found) => {
                    swept.files += found.files;
                    swept.bytes += found.bytes;
                }
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(swept)
    }

    fn sweep_one(&self, path: &str) -> io::Result<Swept> {
        let facts = self.calls.stat(path)?;
        if self.clock.now().duration_since(facts.modified) < LEFTOVER_AGE {
            return Ok(Swept::default());
        }
        self.calls.remove(path)?;
        Ok(Swept {
            files: 1,
            bytes: facts.size,
        })
    }
}

/// Our temporary files, and the directories where more may be.
fn is_sweepable(entry: &Entry) -> bool {
    match entry.kind {
        EntryKind::Directory => !entry.name.starts_with('.'),
        EntryKind::File => entry.name.starts_with(TEMPORARY),
        EntryKind::Other => false,
    }
}

/// The directory of a path; `""` for a name directly below the root.
pub(super) fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// A name in a directory.
pub(super) fn join(directory: &str, name: &str) -> String {
    match directory {
        "" => name.to_owned(),
        _ => format!("{directory}/{name}"),
    }
}

/// Nothing is there, or a directory is, which is no object.
fn is_absent(error: &io::Error) -> bool {
    [Errno::NOENT, Errno::NOTDIR, Errno::ISDIR]
        .iter()
        .any(|errno| is(error, *errno))
}

/// FAT and some network and user-space file systems have no hard links; each has its own word for it.
fn is_link_unsupported(error: &io::Error) -> bool {
    [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS, Errno::MLINK]
        .iter()
        .any(|errno| is(error, *errno))
}
