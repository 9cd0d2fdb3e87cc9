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
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Errno;
use rustix::process::Pid;

use super::error::RestoreError;
use super::owner::Owner;
use super::process::lives;
use super::tree::Tree;

const PREFIX: &str = "backstay-";
/// A room that is younger is never taken for one that was left.
const ROOM_AGE_MIN: Duration = Duration::from_secs(3600);
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

/// Removes the rooms of this owner that nobody needs: whoever made them has ended, and no server answers there. A container
/// may share the directory and not the processes, so a room without a server has an hour to get one.
fn remove_left(sockets: &Path, owner: Owner) {
    let Ok(found) = fs::read_dir(sockets) else {
        // Making a new room says what is wrong with it.
        return;
    };
    for path in found.flatten().map(|entry| entry.path()) {
        let is_left = maker(&path).is_some_and(|maker| !lives(maker)) && is_old(&path, owner);
        if is_left && !has_server(&path) {
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

/// Whether it is a directory of this owner, not a link to one, in which nothing was made for an hour.
fn is_old(room: &Path, owner: Owner) -> bool {
    fs::symlink_metadata(room).is_ok_and(|facts| {
        let age = facts.modified().ok().and_then(|time| time.elapsed().ok());
        facts.is_dir() && facts.uid() == owner.user() && age.is_some_and(|age| age > ROOM_AGE_MIN)
    })
}

/// Whether a server may listen there: all that is refused is a socket that nobody listens at.
fn has_server(room: &Path) -> bool {
    // What cannot be listed is left alone.
    fs::read_dir(room).map_or(true, |found| {
        found.flatten().any(|entry| {
            let is_socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
            let refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
            is_socket && !UnixStream::connect(entry.path()).is_err_and(refused)
        })
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
    use std::os::unix::net::UnixListener;
    use std::process::{Command, id};
    use std::time::SystemTime;

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

    fn aged(path: &Path) {
        let then = SystemTime::now() - 2 * ROOM_AGE_MIN;
        fs::File::open(path).unwrap().set_modified(then).unwrap();
    }

    #[test]
    fn rooms_that_were_left_go_when_the_next_is_made_and_what_is_in_use_or_of_others_stays() {
        let sockets = std::env::temp_dir().join(format!("backstay-proof-{}", id()));
        fs::create_dir(&sockets).unwrap();
        let named = |process: u32, number: u32| sockets.join(format!("{PREFIX}{process}-{number}"));
        let socket = |room: &Path| UnixListener::bind(room.join(".s.PGSQL.5433")).unwrap();
        let gone = ended();
        let (stopped, killed) = (named(gone, 0), named(gone, 1));
        room(&stopped);
        room(&killed);
        drop(socket(&killed));

        let (runs, being_made, young) = (named(gone, 2), named(id(), 0), named(gone, 5));
        for made in [&runs, &being_made, &young] {
            room(made);
        }
        let _listens = socket(&runs);
        let no_room = named(gone, 3);
        fs::create_dir(&no_room).unwrap();
        let another_name = sockets.join("backstay-notes-0");
        room(&another_name);
        let elsewhere = sockets.join("elsewhere");
        room(&elsewhere);
        let link = named(gone, 4);
        symlink(&elsewhere, &link).unwrap();
        for old in [
            &stopped,
            &killed,
            &runs,
            &being_made,
            &no_room,
            &another_name,
            &elsewhere,
        ] {
            aged(old);
        }

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
            young,
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
