//! A disk that forgets what was not fsynced, for tests.
//!
//! Promise: after a power cut only what the chosen `Survival` allows is there; the strictest keeps
//! fsynced content under fsynced names and nothing else. Every call can be the last (`CrashPlan`).
//! Not here: sector errors and bit rot; sealing finds those.

mod state;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backstay_clock::Clock;
use jiff::Timestamp;
use rustix::io::Errno;

use super::calls::{Content, Entry, EntryKind, FileCalls, FileFacts, NewFile, Wanted};
use super::writing::parent_of;
use crate::faults::{CrashMode, CrashPlan, Fate};
use state::{Inode, Node, State};

pub use state::Survival;

/// Whether the simulated file system has hard links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HardLinks {
    /// As ext4 and xfs.
    Supported,
    /// As FAT: `link` answers EPERM.
    Refused,
}

/// A simulated disk as seen by one process. Clones share the disk and the process.
#[derive(Debug, Clone)]
pub struct SimDisk {
    clock: Arc<dyn Clock>,
    links: HardLinks,
    plan: CrashPlan,
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(clock: Arc<dyn Clock>, links: HardLinks) -> Self {
        Self {
            clock,
            links,
            plan: CrashPlan::never(),
            state: Arc::default(),
        }
    }

    /// The same disk as seen by a new process that follows `plan`.
    pub fn under(&self, plan: CrashPlan) -> Self {
        Self { plan, ..self.clone() }
    }

    /// A disk of its own that holds what a power cut at this moment leaves.
    pub fn after_power_cut(&self, survival: Survival) -> Self {
        let state = self.state().clone();
        Self {
            plan: CrashPlan::never(),
            state: Arc::new(Mutex::new(state.after_power_cut(survival))),
            ..self.clone()
        }
    }

    /// The paths of all files, hidden ones included.
    pub fn files(&self) -> Vec<String> {
        let state = self.state();
        let files = state.live.iter().filter(|(_, node)| **node != Node::Directory);
        files.map(|(path, _)| path.clone()).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call: it happens, or the process dies before or after it.
    fn call<T>(
        &self,
        name: &str,
        path: &str,
        act: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        match self.plan.next(format_args!("{name} {path}")) {
            Fate::Live => act(&mut self.state()),
            Fate::DieNow(CrashMode::AfterWithoutAnswer) => {
                let _never_heard = act(&mut self.state());
                Err(died())
            }
            Fate::DieNow(_) | Fate::DeadAlready => Err(died()),
        }
    }
}

fn died() -> io::Error {
    io::Error::other("the process died here, as the test asked")
}

impl FileCalls for SimDisk {
    fn create(&self, path: &str) -> io::Result<Box<dyn NewFile>> {
        let modified = self.clock.now();
        let inode = self.call("create", path, |state| {
            let inode = state.inodes.len();
            state.add(path, Node::File(inode))?;
            state.inodes.push(Inode {
                content: Vec::new(),
                synced: None,
                modified,
            });
            Ok(inode)
        })?;
        let disk = self.clone();
        Ok(Box::new(SimNewFile { disk, inode }))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.call("link", to, |state| match self.links {
            HardLinks::Refused => Err(Errno::PERM.into()),
            HardLinks::Supported => {
                let inode = state.file(from)?;
                state.add(to, Node::File(inode))
            }
        })
    }

    fn rename_if_absent(&self, from: &str, to: &str) -> io::Result<()> {
        self.call("rename", to, |state| {
            let inode = state.file(from)?;
            state.add(to, Node::File(inode))?;
            state.live.remove(from);
            Ok(())
        })
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.call("remove", path, |state| {
            state.file(path)?;
            state.live.remove(path);
            Ok(())
        })
    }

    fn make_directory(&self, path: &str) -> io::Result<()> {
        self.call("make directory", path, |state| state.add(path, Node::Directory))
    }

    fn sync_directory(&self, path: &str) -> io::Result<()> {
        self.call("sync directory", path, |state| state.sync_directory(path))
    }

    fn sync_everything(&self) -> io::Result<()> {
        self.call("sync everything", "", |state| {
            state.sync_everything();
            Ok(())
        })
    }

    fn entries(&self, path: &str, see: &mut dyn FnMut(Entry)) -> io::Result<()> {
        self.call("entries", path, |state| {
            state.directory(path)?;
            for (name, node) in &state.live {
                if parent_of(name) == path {
                    see(entry(name, *node));
                }
            }
            Ok(())
        })
    }

    fn stat(&self, path: &str) -> io::Result<FileFacts> {
        self.call("stat", path, |state| match state.node(path)? {
            Node::Directory => Ok(FileFacts {
                kind: EntryKind::Directory,
                size: 0,
                modified: Timestamp::UNIX_EPOCH,
                links: 1,
            }),
            Node::File(number) => {
                let names = state.live.values().filter(|node| **node == Node::File(number));
                let inode = state.inodes.get(number).ok_or(Errno::IO)?;
                Ok(FileFacts {
                    kind: EntryKind::File,
                    size: inode.content.len() as u64,
                    modified: inode.modified,
                    links: names.count() as u64,
                })
            }
        })
    }

    fn read(&self, path: &str, wanted: Wanted) -> io::Result<Content> {
        self.call("read", path, |state| {
            let number = match state.node(path)? {
                Node::File(number) => number,
                Node::Directory => return Err(Errno::NOENT.into()),
            };
            let content = &state.inodes.get(number).ok_or(Errno::IO)?.content;
            let size = content.len();
            let cut = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(size);
            let (start, end) = match wanted {
                Wanted::Whole => (0, size),
                Wanted::Bytes(range) => (cut(range.start), cut(range.end)),
            };
            Ok(Content {
                bytes: content.get(start..end).unwrap_or_default().to_vec(),
                size: size as u64,
            })
        })
    }
}

fn entry(path: &str, node: Node) -> Entry {
    Entry {
        name: path.rsplit('/').next().unwrap_or(path).to_owned(),
        kind: match node {
            Node::Directory => EntryKind::Directory,
            Node::File(_) => EntryKind::File,
        },
    }
}

/// A file of the simulated disk that is being written.
struct SimNewFile {
    disk: SimDisk,
    inode: usize,
}

impl SimNewFile {
    fn append(&self, state: &mut State, bytes: &[u8]) -> io::Result<()> {
        let inode = state.inodes.get_mut(self.inode).ok_or(Errno::IO)?;
        inode.content.extend_from_slice(bytes);
        Ok(())
    }
}

impl NewFile for SimNewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
        let written = match self.disk.plan.next("write") {
            Fate::Live => return self.append(&mut self.disk.state(), bytes),
            Fate::DieNow(CrashMode::AfterWithoutAnswer) => bytes,
            Fate::DieNow(CrashMode::HalfWrite | CrashMode::TornWrite) => half,
            Fate::DieNow(CrashMode::Before) | Fate::DeadAlready => return Err(died()),
        };
        self.append(&mut self.disk.state(), written)?;
        Err(died())
    }

    fn sync(&mut self) -> io::Result<()> {
        let number = self.inode;
        self.disk.call("sync", "", |state| {
            let inode = state.inodes.get_mut(number).ok_or(Errno::IO)?;
            inode.synced = Some(inode.content.clone());
            Ok(())
        })
    }
}
