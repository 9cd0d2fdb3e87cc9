//! The private room in which we talk to a started copy.
//!
//! A restored pg_hba.conf is the source's: it may ask for passwords, certificates or an identity that we, who may be
//! root, do not have; editing it would change what was restored. So the copy is started with a file of its own, named
//! on the command line: it trusts whoever reaches the socket, and the socket lies in a directory of mode 0700 that
//! belongs to the server's user, who owns every byte of the copy anyway. TCP wants a password. The next start of the
//! directory without our command line uses its own pg_hba.conf again.
//!
//! Promise: the directory is new (never one that somebody prepared), and is removed with the server. A copy that we leave
//! running is stopped by others, who leave its room: the next one that is made removes those.
//! Not here: the server's life (server).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Errno;
use rustix::process::Pid;

use super::error::RestoreError;
use super::owner::Owner;
use super::process::{lives, server_at};
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
        remove_left(sockets, owner);
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

/// Removes the rooms of this owner that nobody needs: whoever made them has ended, and no server has its socket there.
fn remove_left(sockets: &Path, owner: Owner) {
    let Ok(found) = fs::read_dir(sockets) else {
        // Making a new room says what is wrong with it.
        return;
    };
    for path in found.flatten().map(|entry| entry.path()) {
        if maker(&path).is_some_and(|maker| !lives(maker)) && is_own(&path, owner) && !has_server(&path) {
            remove(&path);
        }
    }
}

/// The process that made a room, by the room's name.
fn maker(room: &Path) -> Option<Pid> {
    let name = room.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    let (process, number) = name.split_once('-')?;
    number.parse::<u32>().ok()?;
    Pid::from_raw(process.parse().ok()?)
}

/// Whether it is a directory, not a link to one, and this owner's.
fn is_own(room: &Path, owner: Owner) -> bool {
    fs::symlink_metadata(room).is_ok_and(|facts| facts.is_dir() && facts.uid() == owner.user())
}

fn has_server(room: &Path) -> bool {
    // What cannot be listed is left alone.
    fs::read_dir(room).map_or(true, |found| {
        let mut paths = found.flatten().map(|entry| entry.path());
        paths.any(|path| path.extension().is_some_and(|end| end == "lock") && server_at(&path).is_some())
    })
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::os::unix::fs::symlink;
    use std::process::{Command, id};

    /// A process that has ended.
    fn ended() -> u32 {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    fn room(path: &Path) {
        fs::create_dir(path).unwrap();
        fs::write(path.join(HBA_FILE), HBA).unwrap();
    }

    /// The lock of a socket, of a process that works in a directory.
    fn lock(room: &Path, process: u32, directory: &Path) {
        let text = format!("{process}\n{}\n1700000000\n5433\n", directory.display());
        fs::write(room.join(".s.PGSQL.5433.lock"), text).unwrap();
    }

    #[test]
    fn rooms_that_were_left_go_when_the_next_is_made_and_what_is_in_use_or_of_others_stays() {
        let sockets = std::env::temp_dir().join(format!("backstay-proof-{}", id()));
        fs::create_dir(&sockets).unwrap();
        let named = |process: u32, number: u32| sockets.join(format!("{PREFIX}{process}-{number}"));
        let gone = ended();
        let (stopped, killed) = (named(gone, 0), named(gone, 1));
        room(&stopped);
        room(&killed);
        lock(&killed, gone, &sockets);

        let (runs, being_made) = (named(gone, 2), named(id(), 0));
        room(&runs);
        lock(&runs, id(), &std::env::current_dir().unwrap());
        room(&being_made);
        let no_room = named(gone, 3);
        fs::create_dir(&no_room).unwrap();
        let another_name = sockets.join("backstay-notes-0");
        room(&another_name);
        let elsewhere = sockets.join("elsewhere");
        room(&elsewhere);
        let link = named(gone, 4);
        symlink(&elsewhere, &link).unwrap();

        let made = ProofRoom::make(&sockets, Owner::Ourselves).unwrap();
        assert_eq!(made.path(), named(id(), 1));
        let mut left: Vec<PathBuf> = fs::read_dir(&sockets)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        left.sort();
        let mut wanted = [
            made.path().to_owned(),
            runs,
            being_made,
            no_room,
            another_name,
            elsewhere.clone(),
            link,
        ];
        wanted.sort();
        assert_eq!(left, wanted);
        assert!(elsewhere.join(HBA_FILE).is_file());
        fs::remove_dir_all(&sockets).unwrap();
    }
}
