//! The private room in which we talk to a started copy.
//!
//! A restored pg_hba.conf is the source's: it may ask for passwords, certificates or an identity that we, who may be
//! root, do not have; editing it would change what was restored. So the copy is started with a file of its own, named
//! on the command line: it trusts whoever reaches the socket, and the socket lies in a directory of mode 0700 that
//! belongs to the server's user, who owns every byte of the copy anyway. TCP wants a password. The next start of the
//! directory without our command line uses its own pg_hba.conf again.
//!
//! Promise: the directory is new (never one that somebody prepared), and is removed with the server.
//! Not here: the server's life (server).

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Errno;

use super::error::RestoreError;
use super::owner::Owner;
use super::tree::Tree;

const PREFIX: &str = "backstay-";
const ATTEMPTS_MAX: u32 = 1000;
const HBA_FILE: &str = "pg_hba.conf";
const HBA: &str = "\
# Written by Backstay for the proof of a restored copy. Whoever reaches the socket, which only the server's user and
# root can, is trusted; the directory's own pg_hba.conf counts from the next start.
local all all trust
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
";

/// A directory for one server's socket.
#[derive(Debug)]
pub(super) struct ProofRoom {
    path: PathBuf,
}

impl ProofRoom {
    /// A new one below `sockets`.
    pub(super) fn make(sockets: &Path, owner: Owner) -> Result<Self, RestoreError> {
        let path = new_directory(sockets)?;
        let tree = Tree::make(&path, owner)?;
        tree.write(HBA_FILE.as_bytes(), HBA.as_bytes())?;
        Ok(Self { path })
    }

    /// Where the socket is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file that decides who may connect.
    pub(super) fn hba_file(&self) -> PathBuf {
        self.path.join(HBA_FILE)
    }

    /// Removes it.
    pub(super) fn remove(&self) {
        remove(&self.path);
    }
}

/// Removes a room that some process of ours made; leaves every other directory alone.
pub(super) fn remove(path: &Path) {
    let named = path.file_name().and_then(|name| name.to_str());
    if named.is_some_and(|name| name.starts_with(PREFIX)) && path.join(HBA_FILE).is_file() {
        // It holds nothing that anybody needs: a remainder in /tmp is no reason to fail.
        let _ = fs::remove_dir_all(path);
    }
}

fn new_directory(sockets: &Path) -> Result<PathBuf, RestoreError> {
    for number in 0..ATTEMPTS_MAX {
        let path = sockets.join(format!("{PREFIX}{}-{number}", std::process::id()));
        match mkdirat(CWD, &path, Mode::RWXU) {
            Ok(()) => return Ok(path),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(RestoreError::io("create", &path)(error)),
        }
    }
    Err(RestoreError::io("create a directory below", sockets)(
        Errno::EXIST,
    ))
}
