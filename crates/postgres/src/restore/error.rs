//! Why a directory cannot become a data directory, or a restored server did not come up.
//!
//! Promise: what is refused before anything changed is `TargetRefused`; every variant says what to do.
//! Not here: errors of connections (crate::error).

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backstay_clock::print_duration;
use backstay_source::{SourceError, SourceErrorKind};
use backstay_terms::ByteCount;

use crate::control_file::ControlFileError;
use crate::error::PostgresError;

/// An error of a restore.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A server runs in the directory.
    #[error("{}: a server runs in this directory (process {pid})", .directory.display())]
    Running {
        /// The target.
        directory: PathBuf,
        /// The server's process.
        pid: u32,
    },
    /// Another restore writes there now.
    #[error("{}: another restore writes into this directory now", .directory.display())]
    Busy {
        /// The target.
        directory: PathBuf,
    },
    /// Somebody's files are there.
    #[error("{}: the directory is not empty: it holds {found}", .directory.display())]
    NotEmpty {
        /// The target, or a tablespace's.
        directory: PathBuf,
        /// One of the names in it.
        found: String,
    },
    /// Another restore was interrupted there.
    #[error("{}: an interrupted restore of backup {backup} to {target} is in this directory", .directory.display())]
    OtherTicket {
        /// The target, or a tablespace's.
        directory: PathBuf,
        /// The backup of that restore.
        backup: String,
        /// The recovery target of that restore, in words.
        target: String,
    },
    /// A restore that lacks nothing but the removal of its marker, and whose server has run since.
    #[error("{}: the restore was complete and its server has been started", .directory.display())]
    Started {
        /// The target.
        directory: PathBuf,
    },
    /// A marker that cannot be read.
    #[error("{}: the marker of an interrupted restore cannot be read", .marker.display())]
    Marker {
        /// The marker.
        marker: PathBuf,
    },
    /// The directory that is to hold the target is not there.
    #[error("{}: there is no such directory to restore into", .parent.display())]
    ParentMissing {
        /// The parent of the target.
        parent: PathBuf,
    },
    /// We may not write there.
    #[error("{}: cannot be written: {source}", .path.display())]
    Unwritable {
        /// The target or its parent.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file, or a link to nowhere, bears the name.
    #[error("{}: is not a directory", .path.display())]
    NotADirectory {
        /// The target, or a tablespace's.
        path: PathBuf,
    },
    /// It lies in what is somebody else's, or holds it.
    #[error("{}: {how} {}", .path.display(), .other.display())]
    NotApart {
        /// The target, or a tablespace's directory.
        path: PathBuf,
        /// How the one lies to the other, in words that end before the name of the other.
        how: String,
        /// What it is not apart from.
        other: PathBuf,
    },
    /// The server's user has no way to the directory.
    #[error("{}: the user {user}, who runs the server, may not go into this directory, and the restored one lies below it", .directory.display())]
    Shut {
        /// The first directory on the way that is shut.
        directory: PathBuf,
        /// Who runs the server.
        user: String,
    },
    /// Too little space.
    #[error("{}: {free} are free, {needed} are needed", .path.display())]
    Space {
        /// A directory on the file system that is too small.
        path: PathBuf,
        /// All files and 5 %.
        needed: ByteCount,
        /// What we may use.
        free: ByteCount,
    },
    /// Somebody listens where the started server would.
    #[error("port {port} is in use on {address}: the restored server could not be started there")]
    PortTaken {
        /// The port.
        port: u16,
        /// Where it is taken.
        address: IpAddr,
    },
    /// The port cannot be listened on for another reason.
    #[error("port {port} cannot be listened on: {source}")]
    Port {
        /// The port.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// No socket can be made where the started server would have its own.
    #[error("{}: no socket can be made below it: {source}", .directory.display())]
    Sockets {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Replaying the log would write where something is, or cannot write where it must.
    #[error("replaying the log makes a tablespace in {}, outside of the restored directory: {reason}", .location.display())]
    WrittenByLog {
        /// The directory, as the source named it.
        location: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The server's user cannot fetch the log.
    #[error("the server could not fetch its log: run as {user}, {command} {said}")]
    Delivery {
        /// Who ran it.
        user: String,
        /// What was run.
        command: String,
        /// How it ended and, in lines of their own, what it said.
        said: String,
    },
    /// A tablespace would lie inside another directory of the restore.
    #[error("tablespace {oid}: {} overlaps {}", .path.display(), .other.display())]
    Overlap {
        /// The tablespace.
        oid: u32,
        /// Where it was to go.
        path: PathBuf,
        /// What it overlaps.
        other: PathBuf,
    },
    /// The user that is to own the files does not exist, or is root.
    #[error("user {user:?} cannot own a data directory: {reason}")]
    Owner {
        /// As given.
        user: String,
        /// Why.
        reason: &'static str,
    },
    /// No server program of the version.
    #[error("no program postgres of version {major} in {looked}")]
    Binaries {
        /// The major version needed.
        major: u32,
        /// Where it was looked for, and what was found there.
        looked: String,
    },
    /// The version of the base is not one that we restore.
    #[error("version {0:?} is not one of PostgreSQL 13 to 18")]
    Version(String),
    /// An entry that does not belong into a data directory.
    #[error("entry {path}: {reason}")]
    Entry {
        /// Its path.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// What was placed is not a whole data directory.
    #[error("{}: {what}", .directory.display())]
    NotWhole {
        /// The target.
        directory: PathBuf,
        /// What is missing or wrong.
        what: String,
    },
    /// pg_control of the base cannot be used.
    #[error("{0}")]
    Control(#[from] ControlFileError),
    /// A setting cannot be written down.
    #[error("setting {name}: {reason}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// Input or output failed.
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The server ended before it had reached its target.
    #[error("{}: the restored server ended: {said}", .directory.display())]
    Ended {
        /// The target.
        directory: PathBuf,
        /// Its own last words.
        said: String,
    },
    /// The server stopped replaying somewhere else.
    #[error("{}: the restored server stopped replaying at {replayed}, not at its target: {said}", .directory.display())]
    Elsewhere {
        /// The target.
        directory: PathBuf,
        /// How far it came.
        replayed: String,
        /// Its own last words.
        said: String,
    },
    /// Too slow.
    #[error("{}: the restored server did not {what} within {}; last seen: {seen}", .directory.display(), print_duration(*.waited))]
    Deadline {
        /// The target.
        directory: PathBuf,
        /// What was awaited.
        what: &'static str,
        /// How long.
        waited: Duration,
        /// What it was seen doing last.
        seen: String,
    },
    /// The restored server refused us.
    #[error("restored {0}")]
    Server(#[from] PostgresError),
}

impl RestoreError {
    /// For `map_err` of input and output.
    pub(super) fn io<E: Into<io::Error>>(
        doing: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self + use<E> {
        let path = path.to_owned();
        move |error| Self::Io {
            doing,
            path,
            source: error.into(),
        }
    }

    /// What the person can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Running { .. } => "stop that server, or restore into another directory",
            Self::Busy { .. } => "wait until that restore ends, or name another directory",
            Self::NotEmpty { .. } | Self::NotADirectory { .. } => {
                "name a directory that is empty or does not exist yet"
            }
            Self::OtherTicket { .. } => {
                "repeat that restore to complete it, or remove the directory, or name another"
            }
            Self::Started { .. } => {
                "to keep it remove only the file backstay.restore-incomplete, to restore again the whole directory"
            }
            Self::Marker { .. } => "remove the directory, or name another",
            Self::ParentMissing { .. } => "create it, or name another directory",
            Self::Unwritable { .. } => "run as a user who may write there, or name another directory",
            Self::NotApart { .. } => "name a directory that is apart from it",
            Self::Shut { .. } => {
                "let that user through (chmod o+x on the directory), or name one elsewhere; without --start nothing is started"
            }
            Self::Space { .. } => "free space, or name a directory on a larger file system",
            Self::PortTaken { .. } => "choose a free one, such as --port 5434, or stop what listens there",
            Self::Port { .. } => "choose another one from 1024 up, such as --port 5434",
            Self::Sockets { .. } => {
                "let the server's user make directories there, or restore without --start and start it by hand"
            }
            Self::WrittenByLog { .. } => {
                "make it an empty directory of the server's user, on a machine where it is not the source's own; or recover to before that tablespace was made, or from a backup taken after it"
            }
            Self::Delivery { .. } => {
                "let that user read the configuration, the key files and the repository, or make room for the log: --wal place"
            }
            Self::Overlap { .. } => "map the tablespace to a directory of its own",
            Self::Owner { .. } => "name the user who runs PostgreSQL on this machine",
            Self::Binaries { .. } => {
                "install that version of the server, or name the directory of its programs: --bindir DIR; without --start none are needed"
            }
            Self::Version(_) => "restore with a release of Backstay that knows this version",
            Self::Entry { .. } | Self::NotWhole { .. } => {
                "verify the backup, and restore another if it is damaged"
            }
            Self::Control(error) => error.advice(),
            Self::Setting { .. } => "write the value in one line",
            Self::Io { source, .. } if SourceErrorKind::of_local(source) == SourceErrorKind::NoSpace => {
                "free space there, or name a directory on a larger file system; then run the same restore again: it begins anew"
            }
            Self::Io { .. } => {
                "repair what the system reports, then run the same restore again: it begins anew"
            }
            Self::Ended { .. } | Self::Elsewhere { .. } => {
                "read the server's log, a file beside the directory with the ending .log"
            }
            Self::Deadline { .. } => "allow more time, or start the server by hand: its files are complete",
            Self::Server(error) => error.fixed_advice(),
        }
    }

    /// The same in the words of the ports.
    pub fn kind(&self) -> SourceErrorKind {
        match self {
            Self::Busy { .. } => SourceErrorKind::Conflict,
            Self::Control(_) | Self::Entry { .. } | Self::NotWhole { .. } => SourceErrorKind::Damaged,
            // Everything is restored, and the server says that it is not what it should be.
            Self::Ended { .. } | Self::Elsewhere { .. } => SourceErrorKind::Damaged,
            Self::Setting { .. } => SourceErrorKind::Refused,
            Self::Io { source, .. } => SourceErrorKind::of_local(source),
            Self::Deadline { .. } => SourceErrorKind::Unreachable,
            Self::Server(error) => error.kind(),
            _ => SourceErrorKind::TargetRefused,
        }
    }
}

impl From<RestoreError> for SourceError {
    fn from(error: RestoreError) -> Self {
        SourceError::new(error.kind(), error.to_string(), error.advice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_was_waited_is_told_in_the_units_of_people() {
        let waited = |waited| RestoreError::Deadline {
            directory: "/copy".into(),
            what: "reach its target",
            waited,
            seen: "it did not answer".to_owned(),
        };
        let text = |length| {
            format!(
                "/copy: the restored server did not reach its target within {length}; last seen: it did not answer"
            )
        };
        assert_eq!(waited(Duration::from_secs(14_400)).to_string(), text("4h"));
        assert_eq!(waited(Duration::from_nanos(1)).to_string(), text("1ms"));
    }
}
