//! Restoring into a directory: `PostgresDirectory` is the port `Restore` of PostgreSQL.
//!
//! Promise: `inspect` changes nothing. From `begin` until the end of `finish` the directory has a marker and no
//! pg_control, so it cannot start. Nothing follows a link below the directory, and as root everything ends up owned by
//! the server's user. A finished directory is isolated from its source: it neither archives nor follows nor waits.
//! Not here: which bytes go where in time, and what log is needed (backstay-engine).

mod configuration;
#[cfg(test)]
mod deaths;
mod error;
mod evidence;
mod finish;
mod inspect;
mod limits;
mod listening;
mod marker;
mod mortal;
mod owner;
mod place;
mod process;
mod programs;
mod proof;
mod rehearsal;
mod server;
mod server_log;
mod settings;
mod surroundings;
mod sync;
mod tree;
mod whereabouts;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use backstay_clock::Clock;
use backstay_source::{
    Evidence, FileSink, Need, Recovery, Rehearsal, Restore, SourceError, Space, StartRequest, Ticket,
};
use backstay_terms::{EntryHeader, EntryKind};

pub use error::RestoreError;
pub use server::Stopped;
pub use surroundings::Reserved;

use crate::base_backup::BaseFacts;
use inspect::Target;
use marker::Holds;
use owner::Owner;
use place::{Place, PlacedFile, Unkept, place_of};
use surroundings::{refuse_if_not_apart, refuse_if_shut};
use tree::{Access, Tree};
use whereabouts::resolved;

/// Where and how to restore.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The data directory to be: absent or empty, its parent existing.
    pub directory: PathBuf,
    /// Where tablespaces go, by object identifier; others go to `<directory>.tablespaces/<oid>`.
    pub tablespaces: BTreeMap<u32, PathBuf>,
    /// What the directory and its tablespaces must be apart from, beside the files of servers.
    pub reserved: Vec<Reserved>,
    /// The directory of the server's programs; without it the usual places of that version are searched.
    pub binaries: Option<PathBuf>,
    /// As root: the user who owns the files and runs the server, by name or as `uid:gid`; "postgres" when none.
    pub owner: Option<String>,
    /// The role that asks the started server what it holds; a superuser of the restored cluster. None: the one that
    /// initdb makes by default.
    pub superuser: Option<String>,
    /// Below which the started server gets a directory of its own for its socket; short, as a socket's path has 107 bytes.
    pub sockets: PathBuf,
    /// Measures the wait for the started server.
    pub clock: Arc<dyn Clock>,
}

impl RestoreOptions {
    /// The directory, and the defaults for everything else.
    pub fn new(directory: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self {
            directory: directory.into(),
            tablespaces: BTreeMap::new(),
            reserved: Vec::new(),
            binaries: None,
            owner: None,
            superuser: None,
            sockets: PathBuf::from("/tmp"),
            clock,
        }
    }
}

/// A directory that becomes a PostgreSQL data directory.
pub struct PostgresDirectory {
    options: RestoreOptions,
    tablespaces_default: PathBuf,
    work: Mutex<Work>,
    started: Mutex<Option<tokio::process::Child>>,
}

/// A restore under way.
#[derive(Debug, Default)]
struct Work {
    tree: Option<Arc<Tree>>,
    ticket: Option<Ticket>,
    /// Held against other restores, also of other processes.
    lock: Option<marker::Lock>,
    /// Tablespaces that were begun.
    tablespaces: BTreeMap<u32, Arc<Tree>>,
}

impl fmt::Debug for PostgresDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresDirectory")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl PostgresDirectory {
    /// A target. Links in its paths are followed now and once; nothing else is looked at yet.
    pub fn new(options: RestoreOptions) -> Self {
        let mut options = options;
        options.directory = resolved(&options.directory);
        for path in options.tablespaces.values_mut() {
            *path = resolved(path);
        }
        Self {
            tablespaces_default: resolved(&beside(&options.directory, ".tablespaces")),
            options,
            work: Mutex::default(),
            started: Mutex::default(),
        }
    }

    /// The data directory, absolute.
    pub fn directory(&self) -> &Path {
        &self.options.directory
    }

    /// Where a started server writes its log.
    pub fn log_file(&self) -> PathBuf {
        beside(&self.options.directory, ".log")
    }

    /// The words that run `pg_ctl` on the directory, as the user who owns it; without its path where the programs of that
    /// version are not found.
    pub fn pg_ctl(&self, version: &str) -> Vec<String> {
        let major = programs::major(version).ok();
        let found = major.and_then(|major| programs::find(self.options.binaries.as_deref(), major).ok());
        let program = found.map(|server| server.with_file_name("pg_ctl"));
        let program = program.filter(|program| program.is_file());
        let program = program.unwrap_or_else(|| PathBuf::from("pg_ctl"));
        let user = self.options.owner.as_deref().unwrap_or(owner::USER_DEFAULT);
        let as_user = match self.owner() {
            Ok(Owner::Other { .. }) => &["runuser", "-u", user, "--"][..],
            Ok(Owner::Ourselves) | Err(_) => &[],
        };
        let mut words: Vec<String> = as_user.iter().copied().map(str::to_owned).collect();
        let directory = self.options.directory.display().to_string();
        words.extend([program.display().to_string(), "-D".to_owned(), directory]);
        words
    }

    /// Where a tablespace goes; links there are followed.
    pub fn tablespace(&self, oid: u32) -> PathBuf {
        let mapped = self.options.tablespaces.get(&oid).cloned();
        mapped.unwrap_or_else(|| resolved(&self.tablespaces_default.join(oid.to_string())))
    }

    /// Stops the server in the directory, disconnecting its clients, and waits until it is gone.
    ///
    /// # Errors
    /// `Deadline` when it is not gone after a minute.
    pub async fn stop(&self) -> Result<Stopped, SourceError> {
        let child = self.started.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(server::stop(&self.options.directory, child, &*self.options.clock).await?)
    }

    fn target(&self, need: &Need) -> Result<Target<'_>, RestoreError> {
        let facts = serde_json::from_value::<BaseFacts>(need.engine_facts.clone()).ok();
        let (known, made) = facts
            .map(|facts| (facts.tablespaces, facts.tablespaces_made))
            .unwrap_or_default();
        let mut tablespaces = self.options.tablespaces.clone();
        for tablespace in known {
            tablespaces.insert(tablespace.oid, self.tablespace(tablespace.oid));
        }
        let outside = made.iter().chain(&need.written_by_log).map(PathBuf::from);
        Ok(Target {
            outside: outside.collect(),
            owner: self.owner()?,
            directory: &self.options.directory,
            tablespaces,
            tablespaces_default: &self.tablespaces_default,
            reserved: &self.options.reserved,
        })
    }

    fn owner(&self) -> Result<Owner, RestoreError> {
        Owner::find(self.options.owner.as_deref())
    }

    fn begin_anew(&self, ticket: &Ticket) -> Result<(), RestoreError> {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        *work = Work::default();
        let directory = &self.options.directory;
        inspect::no_server_runs(directory)?;
        if marker::look(directory, ticket)? == Holds::Ours {
            self.mark_tablespaces_again(ticket)?;
        }
        let tree = Tree::make(directory, self.owner()?)?;
        work.lock = Some(marker::lock(directory)?);
        work.tree = Some(Arc::new(self.claim(tree, directory, ticket)?));
        work.ticket = Some(ticket.clone());
        for path in self.tablespaces_begun() {
            if marker::look(&path, ticket)? == Holds::Ours {
                marker::clear(&path)?;
            }
        }
        Ok(())
    }

    /// The last step of `finish` takes the markers of the tablespaces first. Where it was interrupted before the directory's
    /// own, the links say which are of this restore; cleared without markers they would be nobody's.
    fn mark_tablespaces_again(&self, ticket: &Ticket) -> Result<(), RestoreError> {
        let links = fs::read_dir(self.options.directory.join("pg_tblspc"));
        let linked: Vec<PathBuf> = links
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|link| fs::read_link(link.path()).ok())
            .collect();
        for path in self
            .tablespaces_begun()
            .iter()
            .filter(|path| linked.contains(path))
        {
            if matches!(marker::look(path, ticket), Err(RestoreError::NotEmpty { .. })) {
                marker::set(&Tree::open(path, self.owner()?)?, ticket)?;
            }
        }
        Ok(())
    }

    /// Makes a directory ours and empty but for the marker, which is on disk before anything else.
    fn claim(&self, tree: Tree, path: &Path, ticket: &Ticket) -> Result<Tree, RestoreError> {
        if marker::look(path, ticket)? == Holds::Ours {
            marker::clear(path)?;
        }
        marker::set(&tree, ticket)?;
        sync_parent(path)?;
        Ok(tree)
    }

    /// Where an earlier run may have put tablespaces.
    fn tablespaces_begun(&self) -> Vec<PathBuf> {
        let children = fs::read_dir(&self.tablespaces_default)
            .into_iter()
            .flatten()
            .flatten();
        let children = children.map(|child| resolved(&child.path()));
        let mapped = self.options.tablespaces.values().cloned();
        children.chain(mapped).filter(|path| path.is_dir()).collect()
    }

    fn tree(&self) -> Result<Arc<Tree>, RestoreError> {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        work.tree.clone().ok_or_else(|| self.not_begun())
    }

    fn not_begun(&self) -> RestoreError {
        RestoreError::NotWhole {
            directory: self.options.directory.clone(),
            what: "no restore was begun".to_owned(),
        }
    }

    fn tablespace_tree(&self, oid: u32) -> Result<Arc<Tree>, RestoreError> {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = work.tablespaces.get(&oid) {
            return Ok(tree.clone());
        }
        let ticket = work.ticket.clone().ok_or_else(|| self.not_begun())?;
        let path = self.tablespace(oid);
        // The log of a base may tell of more tablespaces than its facts do, which `inspect` saw.
        refuse_if_not_apart(&path, &self.options.reserved)?;
        marker::look(&path, &ticket)?;
        if path.starts_with(&self.tablespaces_default) {
            Tree::make(&self.tablespaces_default, self.owner()?)?;
        }
        let tree = Tree::make(&path, self.owner()?)?;
        let tree = Arc::new(self.claim(tree, &path, &ticket)?);
        work.tablespaces.insert(oid, tree.clone());
        Ok(tree)
    }

    fn place_entry(&self, entry: &EntryHeader) -> Result<Box<dyn FileSink>, RestoreError> {
        match place_of(entry)? {
            Place::Directory(path) => make(&*self.tree()?, &path, entry),
            Place::Tablespace(oid, path) => make(&*self.tablespace_tree(oid)?, &path, entry),
            Place::Link(oid) => self.tablespace_tree(oid).map(|_| Box::new(Unkept) as _),
            Place::Dropped => Ok(Box::new(Unkept)),
        }
    }

    fn finish_placed(&self, recovery: &Recovery) -> Result<(), RestoreError> {
        let tree = self.tree()?;
        // An empty tablespace may have no entry of its own.
        for oid in finish::mapped(&tree)? {
            self.tablespace_tree(oid)?;
        }
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let tablespaces = work.tablespaces.keys().map(|oid| (*oid, self.tablespace(*oid)));
        let placed = finish::Placed {
            tree: &tree,
            directory: &self.options.directory,
            tablespaces: &tablespaces.collect(),
        };
        finish::finish(&placed, recovery)?;
        *work = Work::default();
        Ok(())
    }
}

#[async_trait]
impl Restore for PostgresDirectory {
    fn inspect(&self, need: &Need, ticket: &Ticket) -> Result<(), SourceError> {
        programs::major(&need.version)?;
        Ok(inspect::inspect(&self.target(need)?, need, ticket)?)
    }

    fn inspect_start(&self, need: &Need, request: &StartRequest) -> Result<(), SourceError> {
        let owner = self.owner()?;
        programs::find(self.options.binaries.as_deref(), programs::major(&need.version)?)?;
        let user = self.options.owner.as_deref().unwrap_or(owner::USER_DEFAULT);
        let target = self.target(need)?;
        for path in target
            .tablespaces
            .values()
            .map(PathBuf::as_path)
            .chain([target.directory])
        {
            refuse_if_shut(path, owner, user)?;
        }
        Ok(listening::refuse_if_taken(
            request.port,
            &self.options.sockets,
            owner,
        )?)
    }

    fn space(&self, need: &Need) -> Result<Space, SourceError> {
        Ok(inspect::space(&self.target(need)?, need)?)
    }

    async fn rehearse(&self, rehearsal: &Rehearsal) -> Result<(), SourceError> {
        let (sockets, clock) = (&self.options.sockets, &*self.options.clock);
        Ok(rehearsal::rehearse(rehearsal, self.owner()?, sockets, clock).await?)
    }

    fn begin(&self, ticket: &Ticket) -> Result<(), SourceError> {
        Ok(self.begin_anew(ticket)?)
    }

    fn place(&self, entry: &EntryHeader) -> Result<Box<dyn FileSink>, SourceError> {
        Ok(self.place_entry(entry)?)
    }

    fn finish(&self, recovery: &Recovery) -> Result<(), SourceError> {
        Ok(self.finish_placed(recovery)?)
    }

    async fn start(&self, request: &StartRequest, recovery: &Recovery) -> Result<Evidence, SourceError> {
        let start = server::Start {
            options: &self.options,
            owner: self.owner()?,
            log_file: self.log_file(),
            request,
            recovery,
        };
        let (evidence, child) = start.run().await?;
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = child;
        Ok(evidence)
    }
}

fn make(tree: &Tree, path: &[u8], entry: &EntryHeader) -> Result<Box<dyn FileSink>, RestoreError> {
    let access = Access::of(entry.mode);
    if entry.kind == EntryKind::Directory {
        tree.make_directory(path, access)?;
        return Ok(Box::new(Unkept));
    }
    let file = tree.create(path, access)?;
    Ok(Box::new(PlacedFile::new(file, tree.at(path), entry.size)))
}

fn beside(directory: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(directory);
    name.push(ending);
    PathBuf::from(name)
}

fn sync_parent(path: &Path) -> Result<(), RestoreError> {
    let parent = path.parent().unwrap_or(path);
    let synced = fs::File::open(parent).and_then(|parent| parent.sync_all());
    synced.map_err(RestoreError::io("sync", parent))
}
