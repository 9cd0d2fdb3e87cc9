//! A disk that forgets what was not fsynced, for tests.
//!
//! Promise: after a power cut only what the chosen `Survival` allows is there; the strictest keeps
//! fsynced content under fsynced names and nothing else. Every call can be the last (`CrashPlan`).
//! Not here: sector errors and bit rot; sealing finds those.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backstay_clock::{Chance, Clock, SeededChance};
use jiff::Timestamp;
use rustix::io::Errno;

use super::calls::{Content, Entry, EntryKind, FileCalls, FileFacts, NewFile, Wanted};
use super::writing::parent_of;
use crate::faults::{CrashMode, CrashPlan, Fate};

/// What a power cut leaves of changes that were not fsynced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// All: only the process was killed.
    Everything,
    /// Nothing: fsynced content under fsynced names alone.
    OnlySynced,
    /// Every name, but half of the content that was not fsynced.
    NamesBeforeContent,
    /// Each name and each unsynced content by the toss of a coin from this seed.
    Tossed(u64),
}

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

#[derive(Debug, Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    live: Names,
    durable: Names,
}

type Names = BTreeMap<String, Node>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Directory,
    /// The index of an inode.
    File(usize),
}

#[derive(Debug, Clone)]
struct Inode {
    content: Vec<u8>,
    synced: Option<Vec<u8>>,
    modified: Timestamp,
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

impl State {
    fn node(&self, path: &str) -> io::Result<Node> {
        self.directory(parent_of(path))?;
        match self.live.get(path) {
            _ if path.is_empty() => Ok(Node::Directory),
            Some(node) => Ok(*node),
            None => Err(Errno::NOENT.into()),
        }
    }

    /// Fails unless every part of the path is a directory.
    fn directory(&self, path: &str) -> io::Result<()> {
        if path.is_empty() {
            return Ok(());
        }
        match self.node(path)? {
            Node::Directory => Ok(()),
            Node::File(_) => Err(Errno::NOTDIR.into()),
        }
    }

    fn file(&self, path: &str) -> io::Result<usize> {
        match self.node(path)? {
            Node::File(inode) => Ok(inode),
            Node::Directory => Err(Errno::ISDIR.into()),
        }
    }

    fn add(&mut self, path: &str, node: Node) -> io::Result<()> {
        self.directory(parent_of(path))?;
        if self.live.contains_key(path) {
            return Err(Errno::EXIST.into());
        }
        self.live.insert(path.to_owned(), node);
        Ok(())
    }

    fn sync_directory(&mut self, path: &str) -> io::Result<()> {
        self.directory(path)?;
        let here = |name: &String| parent_of(name) == path;
        self.durable.retain(|name, _| !here(name));
        let names = self.live.iter().filter(|(name, _)| here(name));
        self.durable
            .extend(names.map(|(name, node)| (name.clone(), *node)));
        Ok(())
    }

    fn sync_everything(&mut self) {
        self.durable = self.live.clone();
        for inode in &mut self.inodes {
            inode.synced = Some(inode.content.clone());
        }
    }

    fn after_power_cut(mut self, survival: Survival) -> State {
        if survival == Survival::Everything {
            // The kernel lives on: what was not fsynced can still be lost by the next cut.
            return self;
        }
        let chance = SeededChance::new(match survival {
            Survival::Tossed(seed) => seed,
            _ => 0,
        });
        let mut names = match survival {
            Survival::OnlySynced => self.durable.clone(),
            Survival::Everything | Survival::NamesBeforeContent => self.live.clone(),
            Survival::Tossed(_) => toss(&self.durable, &self.live, &chance),
        };
        drop_orphans(&mut names);
        for inode in &mut self.inodes {
            lose_unsynced(inode, survival, &chance);
            inode.synced = Some(inode.content.clone());
        }
        self.durable = names.clone();
        self.live = names;
        self
    }
}

/// Each name that was added or removed since its last fsync is so by the toss of a coin.
fn toss(durable: &Names, live: &Names, chance: &SeededChance) -> Names {
    let mut names = durable.clone();
    for (name, node) in live {
        if durable.get(name) != Some(node) && is_head(chance) {
            names.insert(name.clone(), *node);
        }
    }
    for name in durable.keys() {
        if !live.contains_key(name) && is_head(chance) {
            names.remove(name);
        }
    }
    names
}

fn is_head(chance: &SeededChance) -> bool {
    chance.next_u64() >> 63 == 1
}

/// A name is lost with the directory above it.
fn drop_orphans(names: &mut Names) {
    loop {
        let before = names.len();
        let all = names.clone();
        names.retain(|name, _| {
            let parent = parent_of(name);
            parent.is_empty() || all.contains_key(parent)
        });
        if names.len() == before {
            return;
        }
    }
}

fn lose_unsynced(inode: &mut Inode, survival: Survival, chance: &SeededChance) {
    let synced = inode.synced.clone().unwrap_or_default();
    if synced == inode.content {
        return;
    }
    let half = inode.content.len() / 2;
    match survival {
        Survival::NamesBeforeContent => inode.content.truncate(half),
        Survival::Tossed(_) if is_head(chance) => inode.content.truncate(half),
        _ => inode.content = synced,
    }
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

    fn entries(&self, path: &str) -> io::Result<Vec<Entry>> {
        self.call("entries", path, |state| {
            state.directory(path)?;
            let here = state.live.iter().filter(|(name, _)| parent_of(name) == path);
            Ok(here.map(|(name, node)| entry(name, *node)).collect())
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
