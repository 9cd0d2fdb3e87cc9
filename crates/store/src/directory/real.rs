//! File calls of the kernel, below a directory that is held open.
//!
//! Promise: every path is walked component by component without following a symbolic link, so
//! nothing outside of the root is ever read or written. Nothing is done in a directory that is not at its path any more:
//! what was moved away or unmounted is missed, and whatever is there instead is used only if it is the same repository.
//! Not here: in which order the store makes them (writing, walk).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use super::calls::{Content, Entry, EntryKind, FileCalls, FileFacts, NewFile, Wanted};
use super::errors::{is, refuse_no_object};
use super::writing::parent_of;

/// Directories are for the owner and the group, less what the umask takes.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o750);

/// Files likewise; nothing is ever written into one a second time.
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);

/// The object that tells one repository from another.
const IDENTITY: &str = "repository.json";

/// As much of it is compared.
const IDENTITY_BYTES_MAX: u64 = 64 << 10;

/// The kernel's file calls below one root.
#[derive(Debug)]
pub struct RealFiles {
    path: PathBuf,
    held: Mutex<Held>,
}

/// The root that is in use.
#[derive(Debug)]
struct Held {
    root: Arc<OwnedFd>,
    /// What tells the repository; none where none was there yet when the root was opened.
    identity: Option<Vec<u8>>,
}

impl RealFiles {
    /// Opens the root, which may itself be reached through links.
    pub fn open(root: &Path) -> io::Result<Self> {
        let path = std::path::absolute(root)?;
        let root = open_directory(&path)?;
        let identity = identity_of(&root);
        let root = Arc::new(root);
        let held = Mutex::new(Held { root, identity });
        Ok(Self { path, held })
    }

    /// The root, if it still is what its path leads to. A file system that is mounted again is another directory: it is
    /// taken if it holds the same repository.
    fn root(&self) -> io::Result<Arc<OwnedFd>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let own = rustix::fs::fstat(&*held.root)?;
        let there = rustix::fs::stat(&self.path).map_err(|_| self.is_gone())?;
        // A root that was removed still opens, and looks empty: an empty store it is not.
        if own.st_nlink > 0 && (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino) {
            return Ok(Arc::clone(&held.root));
        }
        if held.identity.is_none() {
            held.identity = identity_of(&held.root);
        }
        let again = open_directory(&self.path).map_err(|_| self.is_gone())?;
        if held.identity.is_none() || identity_of(&again) != held.identity {
            return Err(self.is_gone());
        }
        held.root = Arc::new(again);
        Ok(Arc::clone(&held.root))
    }

    fn is_gone(&self) -> io::Error {
        let path = self.path.display();
        let what = format!(
            "{path} is not the directory any more that was opened: it was moved, removed or unmounted"
        );
        io::Error::new(io::ErrorKind::StaleNetworkFileHandle, what)
    }

    /// Makes the root and what is missing above it, durably, and opens it.
    pub fn create(root: &Path) -> io::Result<Self> {
        make_with_parents(root)?;
        Self::open(root)
    }

    /// The directory of a path, opened, and the last name in it.
    fn at<'a>(&self, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
        let parent = parent_of(path);
        let name = path.rsplit('/').next().unwrap_or(path);
        Ok((self.directory(parent)?, name))
    }

    fn directory(&self, path: &str) -> io::Result<OwnedFd> {
        let mut current = self.root()?.try_clone()?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            current = step_into(&current, name)?;
        }
        Ok(current)
    }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// What tells which repository a directory holds, if it can be read.
fn identity_of(directory: &OwnedFd) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(directory, IDENTITY, flags, Mode::empty()).ok()?);
    if facts_of(&rustix::fs::fstat(&file).ok()?).ok()?.kind != EntryKind::File {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(IDENTITY_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn step_into(directory: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(below) => Ok(below),
        // The kernel says "not a directory" of a link too; a link must not pass for an absent name.
        Err(Errno::NOTDIR) => match kind_at(directory, name)? {
            EntryKind::Other => Err(Errno::LOOP.into()),
            _ => Err(Errno::NOTDIR.into()),
        },
        Err(error) => Err(error.into()),
    }
}

fn kind_at(directory: impl AsFd, name: &str) -> io::Result<EntryKind> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(kind_of(FileType::from_raw_mode(stat.st_mode)))
}

/// Some file systems leave the kind to a second call; by then the name may be gone.
fn kind_of_entry(directory: &OwnedFd, name: &str, file_type: FileType) -> io::Result<Option<EntryKind>> {
    if file_type != FileType::Unknown {
        return Ok(Some(kind_of(file_type)));
    }
    match kind_at(directory, name) {
        Err(error) if is(&error, Errno::NOENT) => Ok(None),
        kind => kind.map(Some),
    }
}

fn kind_of(file_type: FileType) -> EntryKind {
    match file_type {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        _ => EntryKind::Other,
    }
}

fn facts_of(stat: &Stat) -> io::Result<FileFacts> {
    let nanos = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    Ok(FileFacts {
        kind: kind_of(FileType::from_raw_mode(stat.st_mode)),
        size: u64::try_from(stat.st_size).map_err(io::Error::other)?,
        modified: Timestamp::from_nanosecond(nanos).map_err(io::Error::other)?,
        links: stat.st_nlink,
    })
}

impl FileCalls for RealFiles {
    fn create(&self, path: &str) -> io::Result<Box<dyn NewFile>> {
        let (parent, name) = self.at(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, name, flags | OFlags::NOFOLLOW, FILE_MODE)?;
        Ok(Box::new(RealNewFile(File::from(file))))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let ((old, old_name), (new, new_name)) = (self.at(from)?, self.at(to)?);
        rustix::fs::linkat(&old, old_name, &new, new_name, AtFlags::empty())?;
        Ok(())
    }

    fn rename_if_absent(&self, from: &str, to: &str) -> io::Result<()> {
        let ((old, old_name), (new, new_name)) = (self.at(from)?, self.at(to)?);
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&old, old_name, &new, new_name, flags) {
            // What a file system says that does not know the flag.
            Err(Errno::INVAL) => Err(Errno::OPNOTSUPP.into()),
            renamed => Ok(renamed?),
        }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let (parent, name) = self.at(path)?;
        rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
        Ok(())
    }

    fn make_directory(&self, path: &str) -> io::Result<()> {
        let (parent, name) = self.at(path)?;
        rustix::fs::mkdirat(&parent, name, DIRECTORY_MODE)?;
        Ok(())
    }

    fn sync_directory(&self, path: &str) -> io::Result<()> {
        let directory = self.directory(path)?;
        rustix::io::retry_on_intr(|| rustix::fs::fsync(&directory))?;
        Ok(())
    }

    fn sync_everything(&self) -> io::Result<()> {
        let root = self.root()?;
        rustix::io::retry_on_intr(|| rustix::fs::syncfs(&*root))?;
        Ok(())
    }

    fn entries(&self, path: &str, see: &mut dyn FnMut(Entry)) -> io::Result<()> {
        let directory = self.directory(path)?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            // A name that is not UTF-8 is no key and no temporary file of ours.
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if name == "." || name == ".." {
                continue;
            }
            if let Some(kind) = kind_of_entry(&directory, name, entry.file_type())? {
                let name = name.to_owned();
                see(Entry { name, kind });
            }
        }
        Ok(())
    }

    fn stat(&self, path: &str) -> io::Result<FileFacts> {
        let (parent, name) = self.at(path)?;
        let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        facts_of(&stat)
    }

    fn read(&self, path: &str, wanted: Wanted) -> io::Result<Content> {
        let (parent, name) = self.at(path)?;
        // NONBLOCK: a pipe in the place of an object must not hold us up.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&parent, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            // A socket, or a device that nobody serves, cannot be opened at all.
            Err(error) => {
                refuse_no_object(kind_at(&parent, name)?)?;
                return Err(error.into());
            }
        };
        let facts = facts_of(&rustix::fs::fstat(&file)?)?;
        refuse_no_object(facts.kind)?;
        read_from(&file, facts.size, wanted)
    }
}

fn read_from(file: &File, size: u64, wanted: Wanted) -> io::Result<Content> {
    let range = match wanted {
        Wanted::Whole => 0..size,
        Wanted::Bytes(range) => range.start.min(size)..range.end.min(size),
    };
    let length = usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(io::Error::other)?;
    if range.start == 0 {
        file.take(range.end).read_to_end(&mut bytes)?;
    } else {
        bytes.resize(length, 0);
        let read = read_at(file, &mut bytes, range.start)?;
        bytes.truncate(read);
    }
    Ok(Content { bytes, size })
}

/// Fills the buffer from an offset; returns how much there was.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// A file of the kernel that is being written.
struct RealNewFile(File);

impl NewFile for RealNewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }
}

/// `mkdir -p` that survives a power cut: each new name is made durable in the directory above.
fn make_with_parents(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_with_parents(parent)?;
    match rustix::fs::mkdir(directory, DIRECTORY_MODE) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    File::open(parent)?.sync_all()
}
