//! Listings of a directory tree in the byte order of whole names.
//!
//! Promise: reads only the directories that the prefix and the starting point need, and stops one
//! name after the limit. Hidden names, temporary files and what cannot be a name are left out. What could be a name and
//! leads to no file and no directory (a symbolic link, a pipe, a socket, a device) is passed over and never followed: we
//! wrote none, and one of them must not stop every restore. It is warned of once and remembered, because what lies behind
//! it is hidden.
//! Not here: pages beyond the first (listing).

use std::collections::BTreeSet;
use std::io;
use std::sync::{MutexGuard, PoisonError};

use rustix::io::Errno;
use tracing::warn;

use super::errors::{is, refuse_no_object};
use super::writing::join;
use super::{Entry, EntryKind, FileFacts, Shared};
use crate::{Key, More, ObjectMeta, Page, Prefix};

/// One listing under way.
struct Walk<'a> {
    shared: &'a Shared,
    prefix: &'a str,
    after: &'a str,
    limit: usize,
    found: Vec<ObjectMeta>,
}

impl Shared {
    pub(super) fn list(&self, prefix: &Prefix, start_after: Option<&Key>, limit: usize) -> io::Result<Page> {
        let mut walk = Walk {
            shared: self,
            prefix: prefix.as_str(),
            after: start_after.map_or("", Key::as_str),
            limit,
            found: Vec::new(),
        };
        walk.visit(super::writing::parent_of(prefix.as_str()))?;
        let mut objects = walk.found;
        let more = match objects.len() > limit {
            true => More::Yes,
            false => More::No,
        };
        objects.truncate(limit);
        Ok(Page { objects, more })
    }

    pub(super) fn meta(&self, key: Key) -> io::Result<ObjectMeta> {
        let facts = self.calls.stat(key.as_str())?;
        refuse_no_object(facts.kind)?;
        Ok(describe(key, &facts))
    }
}

impl Shared {
    pub(super) fn passed_over(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.passed_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn folders(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_over(&self, name: &str) {
        if self.passed_over().insert(name.to_owned()) {
            let place = &self.place;
            warn!(%place, name, "a link or special file in the repository is passed over; it is not ours: remove it");
        }
    }
}

impl Walk<'_> {
    /// Adds the names below a directory until one more than the limit is found.
    fn visit(&mut self, directory: &str) -> io::Result<()> {
        let wanted = match self.in_order(directory) {
            // Nothing has been written there yet, it was removed meanwhile, or it is an object.
            Err(error) if is(&error, Errno::NOENT) || is(&error, Errno::NOTDIR) => return Ok(()),
            // A link stands in its place, or on the way to it.
            Err(error) if is(&error, Errno::LOOP) => {
                self.shared.pass_over(directory);
                return Ok(());
            }
            wanted => wanted?,
        };
        if !directory.is_empty() && !self.shared.folders().contains(directory) {
            self.shared.folders().insert(directory.to_owned());
        }
        for (path, kind) in wanted {
            if self.found.len() > self.limit {
                return Ok(());
            }
            match kind {
                EntryKind::Directory => self.visit(path.trim_end_matches('/'))?,
                EntryKind::File => self.add(path)?,
                EntryKind::Other => {
                    if let Ok(key) = Key::new(path) {
                        self.shared.pass_over(key.as_str());
                    }
                }
            }
        }
        Ok(())
    }

    /// The entries that can matter, in the order of the whole names below them: a directory
    /// sorts as its name with a slash, because `a-b` comes before `a/b` though `a` comes before `a-b`.
    fn in_order(&self, directory: &str) -> io::Result<Vec<(String, EntryKind)>> {
        let mut wanted = Vec::new();
        self.shared.calls.entries(directory, &mut |entry| {
            let path = path_in_order(directory, &entry);
            if !entry.name.starts_with('.') && self.can_matter(&path, entry.kind) {
                wanted.push((path, entry.kind));
            }
        })?;
        wanted.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        Ok(wanted)
    }

    fn can_matter(&self, path: &str, kind: EntryKind) -> bool {
        if kind == EntryKind::Directory {
            let holds_prefix = path.starts_with(self.prefix) || self.prefix.starts_with(path);
            let goes_past = path > self.after || self.after.starts_with(path);
            return holds_prefix && goes_past;
        }
        path.starts_with(self.prefix) && path > self.after
    }

    fn add(&mut self, path: String) -> io::Result<()> {
        let Ok(key) = Key::new(path) else {
            // Not ours: `lost+found` and the like.
            return Ok(());
        };
        match self.shared.meta(key) {
            Ok(object) => self.found.push(object),
            // Deleted since the directory was read.
            Err(error) if is(&error, Errno::NOENT) => {}
            // Replaced since then: the next listing sees what it is.
            Err(error) if is(&error, Errno::LOOP) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn path_in_order(directory: &str, entry: &Entry) -> String {
    let mut path = join(directory, &entry.name);
    if entry.kind == EntryKind::Directory {
        path.push('/');
    }
    path
}

fn describe(key: Key, facts: &FileFacts) -> ObjectMeta {
    ObjectMeta {
        key,
        size: facts.size,
        modified: facts.modified,
    }
}
