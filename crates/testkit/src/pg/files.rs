//! Directories, users and programs of throw-away servers.
//!
//! Promise: when the tests run as root, everything that the server touches belongs to `postgres`.
//! Not here: the server's life (pg).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Gid, Uid};

use super::run_to_end;

/// Who runs servers and owns their files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Us.
    Ourselves,
    /// The user `postgres`, because we are root and PostgreSQL refuses to run as root.
    Postgres {
        /// User id.
        user: u32,
        /// Group id.
        group: u32,
    },
}

impl Owner {
    /// `postgres` for root, else ourselves.
    pub fn find() -> Self {
        match rustix::process::geteuid().is_root() {
            true => postgres_user().unwrap_or_else(|| panic!("there is no user postgres in /etc/passwd")),
            false => Self::Ourselves,
        }
    }

    /// A program that runs as this user.
    pub fn command(self, program: &Path) -> Command {
        let mut command = match self {
            Self::Ourselves => Command::new(program),
            Self::Postgres { user, group } => {
                let mut command = Command::new("setpriv");
                command.args([
                    format!("--reuid={user}"),
                    format!("--regid={group}"),
                    "--clear-groups".to_owned(),
                ]);
                command.arg(program);
                command
            }
        };
        command.current_dir("/").env("LC_ALL", "C").env("TZ", "UTC");
        command
    }

    /// Makes this user the owner of a directory and all below it.
    ///
    /// # Errors
    /// What the system said.
    pub fn take(self, path: &Path) -> io::Result<()> {
        let Self::Postgres { user, group } = self else {
            return Ok(());
        };
        let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(rustix::fs::CWD, path, user, group, flags)?;
        if fs::symlink_metadata(path)?.is_dir() {
            for entry in fs::read_dir(path)? {
                self.take(&entry?.path())?;
            }
        }
        Ok(())
    }
}

fn postgres_user() -> Option<Owner> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let fields: Vec<&str> = users
        .lines()
        .find(|line| line.starts_with("postgres:"))?
        .split(':')
        .collect();
    Some(Owner::Postgres {
        user: fields.get(2)?.parse().ok()?,
        group: fields.get(3)?.parse().ok()?,
    })
}

/// Free bytes of the place in memory below which rooms are made on the disk.
const MEMORY_MIN: u64 = 4 << 30;

/// A directory with a short path (a socket's path has 107 bytes), gone when dropped.
#[derive(Debug)]
pub struct Room {
    path: PathBuf,
    owner: Owner,
}

impl Room {
    /// A new one, with a directory `s` for sockets: in memory where the system has such a place and enough of it. Files are
    /// made and removed here by the thousand, and a file system on a disk remembers each inode for a while.
    ///
    /// # Panics
    /// When it cannot be made.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let shared = Path::new("/dev/shm");
        let free =
            rustix::fs::statvfs(shared).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize));
        match free >= MEMORY_MIN {
            true => Self::below(shared),
            false => Self::below(&std::env::temp_dir()),
        }
    }

    fn below(parent: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "bs-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let room = Self {
            path: parent.join(name),
            owner: Owner::find(),
        };
        room.make(&room.path);
        room.make(&room.path.join("s"));
        room
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who owns it.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// A new directory in it that belongs to the server's user.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        self.make(&path);
        path
    }

    fn make(&self, path: &Path) {
        let made = fs::create_dir_all(path)
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
            .and_then(|()| self.owner.take(path));
        made.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // `KEEP=1` leaves everything to look at.
        if std::env::var_os("KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A program of PostgreSQL 15, or else the one in PATH.
pub fn binary(name: &str) -> PathBuf {
    let debian = Path::new("/usr/lib/postgresql/15/bin").join(name);
    if debian.exists() { debian } else { name.into() }
}

/// A program in this directory, or else that of [`binary`].
pub(super) fn program(programs: Option<&Path>, name: &str) -> PathBuf {
    programs.map_or_else(|| binary(name), |directory| directory.join(name))
}

/// The programs of another major version, which scripts/setup put into the checkout, copied into a room: the server's user
/// may have no way into the checkout.
///
/// # Panics
/// When they are not there.
pub fn programs_of(major: u32, room: &Room) -> PathBuf {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let fetched = checkout.join(format!(
        ".cache/postgresql/node_modules/postgresql-{major}/native"
    ));
    assert!(
        fetched.join("bin/postgres").exists(),
        "PostgreSQL {major} is not in {}: scripts/setup test fetches it",
        fetched.display()
    );
    let copy = room.path().join(format!("postgresql-{major}"));
    run_to_end(
        Command::new("cp")
            .args(["-a", "--reflink=auto"])
            .arg(fetched)
            .arg(&copy),
    );
    room.owner()
        .take(&copy)
        .unwrap_or_else(|error| panic!("{}: {error}", copy.display()));
    copy.join("bin")
}

pub(super) fn append(path: &Path, lines: &[&str]) {
    let written = OpenOptions::new()
        .append(true)
        .open(path)
        .and_then(|mut file| write_lines(&mut file, lines));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

pub(super) fn replace(path: &Path, lines: &[&str]) {
    let written = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)
        .and_then(|mut file| write_lines(&mut file, lines));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn write_lines(file: &mut File, lines: &[&str]) -> io::Result<()> {
    lines.iter().try_for_each(|line| writeln!(file, "{line}"))
}

pub(super) fn open_log(room: &Room) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(room.path.join("log"))
}

pub(super) fn clear_log(room: &Room) -> io::Result<()> {
    File::create(room.path.join("log")).map(drop)
}

pub(super) fn read_log(room: &Room) -> String {
    fs::read(room.path.join("log"))
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}
