//! What a simulated disk holds: what programs see, and what would outlive a power cut.
//!
//! Promise: names and contents are durable only from their own fsync on.
//! Not here: calls and deaths (sim).

use std::collections::BTreeMap;
use std::io;

use backstay_clock::{Chance, SeededChance};
use jiff::Timestamp;
use rustix::io::Errno;

use super::parent_of;

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

#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) inodes: Vec<Inode>,
    pub(super) live: Names,
    pub(super) durable: Names,
}

pub(super) type Names = BTreeMap<String, Node>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    /// The index of an inode.
    File(usize),
}

#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) content: Vec<u8>,
    pub(super) synced: Option<Vec<u8>>,
    pub(super) modified: Timestamp,
}

impl State {
    pub(super) fn node(&self, path: &str) -> io::Result<Node> {
        self.directory(parent_of(path))?;
        match self.live.get(path) {
            _ if path.is_empty() => Ok(Node::Directory),
            Some(node) => Ok(*node),
            None => Err(Errno::NOENT.into()),
        }
    }

    /// Fails unless every part of the path is a directory.
    pub(super) fn directory(&self, path: &str) -> io::Result<()> {
        if path.is_empty() {
            return Ok(());
        }
        match self.node(path)? {
            Node::Directory => Ok(()),
            Node::File(_) => Err(Errno::NOTDIR.into()),
        }
    }

    pub(super) fn file(&self, path: &str) -> io::Result<usize> {
        match self.node(path)? {
            Node::File(inode) => Ok(inode),
            Node::Directory => Err(Errno::ISDIR.into()),
        }
    }

    pub(super) fn add(&mut self, path: &str, node: Node) -> io::Result<()> {
        self.directory(parent_of(path))?;
        if self.live.contains_key(path) {
            return Err(Errno::EXIST.into());
        }
        self.live.insert(path.to_owned(), node);
        Ok(())
    }

    pub(super) fn sync_directory(&mut self, path: &str) -> io::Result<()> {
        self.directory(path)?;
        let here = |name: &String| parent_of(name) == path;
        self.durable.retain(|name, _| !here(name));
        let names = self.live.iter().filter(|(name, _)| here(name));
        self.durable
            .extend(names.map(|(name, node)| (name.clone(), *node)));
        Ok(())
    }

    pub(super) fn sync_everything(&mut self) {
        self.durable = self.live.clone();
        for inode in &mut self.inodes {
            inode.synced = Some(inode.content.clone());
        }
    }

    pub(super) fn after_power_cut(mut self, survival: Survival) -> State {
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
