//! Every reason to refuse a target before anything is changed.
//!
//! Promise: only reads. What it accepts, `begin` and `place` can use unless somebody changes it in between.
//! Not here: whether the server can be started (programs).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backstay_source::{Need, Space, Ticket};
use backstay_terms::ByteCount;
use rustix::fs::{Access, access, statvfs};

use super::error::RestoreError;
use super::marker::{self, Holds};
use super::owner::Owner;
use super::process::server_in;
use super::surroundings::{Reserved, refuse_if_not_apart};
use super::whereabouts::{overlap, resolved};

/// What is looked at.
#[derive(Debug)]
pub(super) struct Target<'a> {
    /// The data directory to be.
    pub(super) directory: &'a Path,
    /// Where each tablespace is to go.
    pub(super) tablespaces: BTreeMap<u32, PathBuf>,
    /// Below which the tablespaces without a place of their own go.
    pub(super) tablespaces_default: &'a Path,
    /// What all of it must be apart from.
    pub(super) reserved: &'a [Reserved],
    /// Where replaying the log makes tablespaces.
    pub(super) outside: BTreeSet<PathBuf>,
    /// Who runs the server.
    pub(super) owner: Owner,
}

/// A tablespace that the log makes goes where it lay at the source, which PostgreSQL gives nobody a say in: on the source's
/// own machine into the source's own files. An empty directory of the server's user harms nobody.
fn is_for_the_log(target: &Target<'_>, location: &Path) -> Result<(), RestoreError> {
    let refuse = |reason| {
        let location = location.to_owned();
        Err(RestoreError::WrittenByLog { location, reason })
    };
    let real = resolved(location);
    let mut restored = target
        .tablespaces
        .values()
        .map(PathBuf::as_path)
        .chain([target.directory]);
    if restored.any(|path| overlap(path, &real)) {
        return refuse("it overlaps what is restored");
    }
    let Ok(facts) = fs::metadata(location) else {
        return refuse("it is not there");
    };
    if !facts.is_dir() {
        return refuse("it is no directory");
    }
    let mut entries = fs::read_dir(location).map_err(RestoreError::io("read", location))?;
    if entries.next().is_some() {
        return refuse("it is not empty, and may hold the files of the source itself");
    }
    match facts.uid() == target.owner.user() {
        true => Ok(()),
        false => refuse("it does not belong to the server's user"),
    }
}

/// Refuses, or says nothing.
pub(super) fn inspect(target: &Target<'_>, need: &Need, ticket: &Ticket) -> Result<(), RestoreError> {
    no_server_runs(target.directory)?;
    refuse_if_not_apart(target.directory, target.reserved)?;
    let holds = marker::look(target.directory, ticket)?;
    can_be_written(target.directory, &holds)?;
    if holds == Holds::Ours {
        drop(marker::lock(target.directory)?);
    }
    for (oid, path) in &target.tablespaces {
        overlaps_nothing(target, *oid, path)?;
        refuse_if_not_apart(path, target.reserved)?;
        let holds = marker::look(path, ticket)?;
        match holds == Holds::Missing && path.parent() == Some(target.tablespaces_default) {
            true => default_can_be_made(target.tablespaces_default)?,
            false => can_be_written(path, &holds)?,
        }
    }
    target
        .outside
        .iter()
        .try_for_each(|location| is_for_the_log(target, location))?;
    let space = space(target, need)?;
    match space.is_enough() {
        true => Ok(()),
        false => Err(RestoreError::Space {
            path: target.directory.to_owned(),
            needed: ByteCount(space.needed),
            free: ByteCount(space.free),
        }),
    }
}

/// Refuses while a server runs in the directory.
pub(super) fn no_server_runs(directory: &Path) -> Result<(), RestoreError> {
    match server_in(directory) {
        None => Ok(()),
        Some(server) => Err(RestoreError::Running {
            directory: directory.to_owned(),
            pid: server.number(),
        }),
    }
}

/// The directory of the tablespaces that have no place of their own need not be there, nor empty.
fn default_can_be_made(default: &Path) -> Result<(), RestoreError> {
    let holds = match fs::symlink_metadata(default) {
        Err(_) => Holds::Missing,
        Ok(_) if default.is_dir() => Holds::Nothing,
        // A file, or a link to nowhere: links to anywhere else are followed already.
        Ok(_) => {
            return Err(RestoreError::NotADirectory {
                path: default.to_owned(),
            });
        }
    };
    can_be_written(default, &holds)
}

fn can_be_written(path: &Path, holds: &Holds) -> Result<(), RestoreError> {
    let place = match holds {
        Holds::Missing => path.parent().unwrap_or(path),
        Holds::Nothing | Holds::Ours => path,
    };
    if !place.is_dir() {
        return Err(RestoreError::ParentMissing {
            parent: place.to_owned(),
        });
    }
    access(place, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| RestoreError::Unwritable {
        path: place.to_owned(),
        source: error.into(),
    })
}

fn overlaps_nothing(target: &Target<'_>, oid: u32, path: &Path) -> Result<(), RestoreError> {
    let others = target.tablespaces.iter().filter(|(other, _)| **other != oid);
    let mut others = others.map(|(_, path)| path.as_path()).chain([target.directory]);
    let overlapped = others.find(|other| overlap(path, other));
    match overlapped {
        None => Ok(()),
        Some(other) => Err(RestoreError::Overlap {
            oid,
            path: path.to_owned(),
            other: other.to_owned(),
        }),
    }
}

// Which file belongs to which tablespace is only known later, so their bytes are asked of the directory's file system too
// unless one of them lies on another.
pub(super) fn space(target: &Target<'_>, need: &Need) -> Result<Space, RestoreError> {
    let needed = need.bytes.saturating_add(need.bytes / 20);
    let mut free = 0u64;
    let mut counted = Vec::new();
    for path in target
        .tablespaces
        .values()
        .map(PathBuf::as_path)
        .chain([target.directory])
    {
        let existing = path.ancestors().find(|path| path.exists()).unwrap_or(path);
        let space = statvfs(existing).map_err(RestoreError::io("look at", existing))?;
        if !counted.contains(&space.f_fsid) {
            counted.push(space.f_fsid);
            free = free.saturating_add(space.f_bavail.saturating_mul(space.f_frsize));
        }
    }
    if free < needed {
        // What an interrupted run left is removed first.
        free = free.saturating_add(occupied(target.directory));
    }
    Ok(Space { needed, free })
}

/// Bytes of the files below a directory, as far as they can be read; links are not followed.
fn occupied(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(facts) if facts.is_dir() => occupied(&entry.path()),
        Ok(facts) => facts.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
