//! A directory that is written below without ever following a symbolic link.
//!
//! Promise: each component of a path is opened by itself with `O_NOFOLLOW`, so that whoever owns the directory cannot
//! lead us, who may be root, out of it. What is made belongs to the owner, with the modes that PostgreSQL wants.
//! Not here: which files there are (place, finish).

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, fchmod, fsync, mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use super::error::RestoreError;
use super::mortal;
use super::owner::Owner;

/// Group may read and enter.
const GROUP_READ: u32 = 0o040;

/// Who may read what is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// 0600 and 0700.
    Owner,
    /// 0640 and 0750: `initdb --allow-group-access`.
    Group,
}

impl Access {
    /// As the bits of an entry say.
    pub(super) fn of(mode: u32) -> Self {
        match mode & GROUP_READ {
            0 => Self::Owner,
            _ => Self::Group,
        }
    }

    fn file(self) -> Mode {
        match self {
            Self::Owner => Mode::from_raw_mode(0o600),
            Self::Group => Mode::from_raw_mode(0o640),
        }
    }

    fn directory(self) -> Mode {
        match self {
            Self::Owner => Mode::from_raw_mode(0o700),
            Self::Group => Mode::from_raw_mode(0o750),
        }
    }
}

/// A directory that we write below.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    path: PathBuf,
    owner: Owner,
}

impl Tree {
    /// The directory at `path`, which must exist.
    pub(super) fn open(path: &Path, owner: Owner) -> Result<Self, RestoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty()).map_err(RestoreError::io("open", path))?;
        Ok(Self {
            root,
            path: path.to_owned(),
            owner,
        })
    }

    /// The directory at `path`, made with mode 0700 when it is not there; its parent must exist.
    pub(super) fn make(path: &Path, owner: Owner) -> Result<Self, RestoreError> {
        mortal::call("make the directory", || {}, || Self::make_now(path, owner))
    }

    fn make_now(path: &Path, owner: Owner) -> Result<Self, RestoreError> {
        let new = match mkdirat(CWD, path, Access::Owner.directory()) {
            Ok(()) | Err(Errno::EXIST) => Self::open(path, owner)?,
            Err(error) => return Err(RestoreError::io("create", path)(error)),
        };
        let made = fchmod(&new.root, Access::Owner.directory()).and_then(|()| owner.take(&new.root));
        made.map_err(RestoreError::io("set owner and mode of", path))?;
        Ok(new)
    }

    /// Where a path below it lies, for messages.
    pub(super) fn at(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }

    /// Makes a directory and those above it.
    pub(super) fn make_directory(&self, path: &[u8], access: Access) -> Result<(), RestoreError> {
        mortal::call(&what("make", path), || {}, || self.enter(path, access).map(drop))
    }

    /// Opens a new or emptied file for writing, making directories as needed.
    pub(super) fn create(&self, path: &[u8], access: Access) -> Result<File, RestoreError> {
        mortal::call(&what("create", path), || {}, || self.create_now(path, access))
    }

    fn create_now(&self, path: &[u8], access: Access) -> Result<File, RestoreError> {
        let (parent, name) = split(path);
        let parent = self.enter(parent, access)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&parent, name, flags, access.file()).and_then(|file| {
            // Neither umask nor an earlier file decides.
            fchmod(&file, access.file())?;
            self.owner.take(&file)?;
            Ok(File::from(file))
        });
        made.map_err(RestoreError::io("create", &self.at(path)))
    }

    /// Writes a whole file.
    pub(super) fn write(&self, path: &[u8], bytes: &[u8]) -> Result<(), RestoreError> {
        self.write_to(&mut self.create(path, Access::Owner)?, path, bytes)
    }

    /// Writes a whole file and waits until it is on disk.
    pub(super) fn write_synced(&self, path: &[u8], bytes: &[u8]) -> Result<(), RestoreError> {
        let mut file = self.create(path, Access::Owner)?;
        self.write_to(&mut file, path, bytes)?;
        file.sync_all().map_err(RestoreError::io("sync", &self.at(path)))
    }

    fn write_to(&self, file: &mut File, path: &[u8], bytes: &[u8]) -> Result<(), RestoreError> {
        let file = RefCell::new(file);
        let half = || {
            let begun = bytes.get(..bytes.len() / 2).unwrap_or_default();
            // A process that dies tells nobody how far it came.
            let _ = file.borrow_mut().write_all(begun);
        };
        let whole = || {
            let written = file.borrow_mut().write_all(bytes);
            written.map_err(RestoreError::io("write", &self.at(path)))
        };
        mortal::call(&what("write", path), half, whole)
    }

    /// A file's bytes; none when it is not there.
    pub(super) fn read(&self, path: &[u8]) -> Result<Option<Vec<u8>>, RestoreError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = self
            .find_parent(path)
            .and_then(|(parent, name)| openat(parent, name, flags, Mode::empty()));
        let mut bytes = Vec::new();
        match opened {
            Ok(file) => File::from(file)
                .read_to_end(&mut bytes)
                .map(|_| Some(bytes))
                .map_err(RestoreError::io("read", &self.at(path))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(RestoreError::io("open", &self.at(path))(error)),
        }
    }

    /// What bears the name, links not followed; none when nothing does.
    pub(super) fn kind(&self, path: &[u8]) -> Result<Option<FileType>, RestoreError> {
        let found = self
            .find_parent(path)
            .and_then(|(parent, name)| statat(parent, name, AtFlags::SYMLINK_NOFOLLOW));
        match found {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(RestoreError::io("look at", &self.at(path))(error)),
        }
    }

    /// Gives a file another name in the same directory.
    pub(super) fn rename(&self, from: &[u8], to: &[u8]) -> Result<(), RestoreError> {
        let (_, new) = split(to);
        let rename = || {
            self.find_parent(from)
                .and_then(|(parent, name)| renameat(&parent, name, &parent, new))
                .map_err(RestoreError::io("rename", &self.at(from)))
        };
        mortal::call(&what("rename", to), || {}, rename)
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, path: &[u8]) -> Result<(), RestoreError> {
        mortal::call(&what("remove", path), || {}, || self.remove_now(path))
    }

    fn remove_now(&self, path: &[u8]) -> Result<(), RestoreError> {
        let removed = self
            .find_parent(path)
            .and_then(|(parent, name)| unlinkat(parent, name, AtFlags::empty()));
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(RestoreError::io("remove", &self.at(path))(error)),
        }
    }

    /// Makes a symbolic link that belongs to the owner, in place of another.
    pub(super) fn link(&self, path: &[u8], target: &Path) -> Result<(), RestoreError> {
        self.remove(path)?;
        let (parent, name) = split(path);
        let parent = self.enter(parent, Access::Owner)?;
        let make = || {
            rustix::fs::symlinkat(target, &parent, name)
                .and_then(|()| self.own_link(parent.as_fd(), name))
                .map_err(RestoreError::io("link", &self.at(path)))
        };
        mortal::call(&what("link", path), || {}, make)
    }

    /// Waits until a directory's names are on disk; an empty path is the root.
    pub(super) fn sync(&self, path: &[u8]) -> Result<(), RestoreError> {
        let sync = || {
            let synced = match path {
                b"" => fsync(&self.root),
                _ => self.find(path).and_then(fsync),
            };
            synced.map_err(RestoreError::io("sync", &self.at(path)))
        };
        mortal::call(&what("sync", path), || {}, sync)
    }

    fn own_link(&self, parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
        let Owner::Other { user, group } = self.owner else {
            return Ok(());
        };
        let (user, group) = (rustix::fs::Uid::from_raw(user), rustix::fs::Gid::from_raw(group));
        rustix::fs::chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn enter(&self, path: &[u8], access: Access) -> Result<OwnedFd, RestoreError> {
        let entered = (|| {
            let mut at = self.root.try_clone().map_err(|_| Errno::MFILE)?;
            for name in components(path) {
                at = self.enter_one(at.as_fd(), name, access)?;
            }
            Ok(at)
        })();
        entered.map_err(|error: Errno| RestoreError::io("create", &self.at(path))(error))
    }

    fn enter_one(&self, at: BorrowedFd<'_>, name: &OsStr, access: Access) -> rustix::io::Result<OwnedFd> {
        // Most directories are there already: looking first saves a call for every file.
        match open_directory(at, name) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        match mkdirat(at, name, access.directory()) {
            // Another thread makes it, and sets owner and mode.
            Err(Errno::EXIST) => return open_directory(at, name),
            other => other?,
        }
        let made = open_directory(at, name)?;
        fchmod(&made, access.directory())?;
        self.owner.take(&made)?;
        Ok(made)
    }

    fn find(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let mut at = self.root.try_clone().map_err(|_| Errno::MFILE)?;
        for name in components(path) {
            at = open_directory(at.as_fd(), name)?;
        }
        Ok(at)
    }

    fn find_parent<'a>(&self, path: &'a [u8]) -> rustix::io::Result<(OwnedFd, &'a OsStr)> {
        let (parent, name) = split(path);
        Ok((self.find(parent)?, name))
    }
}

fn what(verb: &str, path: &[u8]) -> String {
    format!("{verb} {}", String::from_utf8_lossy(path))
}

fn open_directory(at: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn components(path: &[u8]) -> impl Iterator<Item = &OsStr> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
        .map(OsStr::from_bytes)
}

fn split(path: &[u8]) -> (&[u8], &OsStr) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (
            path.get(..at).unwrap_or_default(),
            OsStr::from_bytes(path.get(at + 1..).unwrap_or_default()),
        ),
        None => (b"", OsStr::from_bytes(path)),
    }
}
