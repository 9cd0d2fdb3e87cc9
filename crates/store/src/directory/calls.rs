//! The file-system calls that a directory store makes.
//!
//! Promise: the store touches the disk through this trait alone, so a test can die at every call.
//! Not here: their order (writing, walk), the kernel (real), a disk that forgets (sim).

use std::fmt;
use std::io;
use std::ops::Range;

use jiff::Timestamp;

/// File-system calls below one root. Paths are relative, `/`-separated; `""` is the root. Errors
/// are the kernel's. No call follows a symbolic link below the root.
pub trait FileCalls: fmt::Debug + Send + Sync {
    /// Makes an empty file that was not there, open for writing.
    fn create(&self, path: &str) -> io::Result<Box<dyn NewFile>>;

    /// Gives a file a second name; fails with `AlreadyExists` when the name is taken.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;

    /// Renames a file; fails with `AlreadyExists` when the new name is taken.
    fn rename_if_absent(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes the name of a file.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Makes a directory.
    fn make_directory(&self, path: &str) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &str) -> io::Result<()>;

    /// Makes everything on the root's file system durable.
    fn sync_everything(&self) -> io::Result<()>;

    /// Shows what is in a directory, one by one in any order, without `.` and `..`: a directory
    /// may hold a million names of which the caller wants few.
    fn entries(&self, path: &str, see: &mut dyn FnMut(Entry)) -> io::Result<()>;

    /// What a name leads to.
    fn stat(&self, path: &str) -> io::Result<FileFacts>;

    /// Bytes of a file, fewer than wanted if the file is shorter.
    fn read(&self, path: &str, wanted: Wanted) -> io::Result<Content>;
}

/// A file that is being written.
pub trait NewFile: Send {
    /// Appends all of `bytes`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes the content durable (not the name).
    fn sync(&mut self) -> io::Result<()>;
}

/// Which bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All.
    Whole,
    /// These; an inverted range wants none.
    Bytes(Range<u64>),
}

/// Bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// What was read.
    pub bytes: Vec<u8>,
    /// The length of the whole file in bytes.
    pub size: u64,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The last part of the path.
    pub name: String,
    /// What it leads to.
    pub kind: EntryKind,
}

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, a device, a socket: nothing that belongs here.
    Other,
}

/// What the file system knows of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFacts {
    /// What it is.
    pub kind: EntryKind,
    /// Its length in bytes.
    pub size: u64,
    /// When its content last changed.
    pub modified: Timestamp,
    /// How many names it has.
    pub links: u64,
}
