//! Which server runs in a directory, by its postmaster.pid.
//!
//! Promise: a file left by a crash, whose number another program bears now, is not taken for a server where the system
//! tells the difference (Linux: the server's working directory is its data directory).
//! Not here: starting and stopping (server).

use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// A server that runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RunningServer {
    /// Its process.
    pub(super) pid: Pid,
    /// The first directory of its unix sockets; line 5 of the file.
    pub(super) sockets: Option<PathBuf>,
}

impl RunningServer {
    /// The process's number.
    pub(super) fn number(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }
}

/// The server that runs in a directory.
pub(super) fn server_in(directory: &Path) -> Option<RunningServer> {
    let text = fs::read_to_string(directory.join("postmaster.pid")).ok()?;
    let server = parse(&text)?;
    (lives(server.pid) && works_in(server.pid, directory)).then_some(server)
}

fn parse(text: &str) -> Option<RunningServer> {
    let mut lines = text.lines();
    // A standalone backend writes its number negative.
    let number = lines.next()?.trim().parse::<i32>().ok()?.checked_abs()?;
    let sockets = lines.nth(3).map(str::trim).filter(|line| !line.is_empty());
    Some(RunningServer {
        pid: Pid::from_raw(number)?,
        sockets: sockets.map(PathBuf::from),
    })
}

/// Whether a process is there: ours, or one that we may not signal.
pub(super) fn lives(pid: Pid) -> bool {
    matches!(test_kill_process(pid), Ok(()) | Err(Errno::PERM))
}

fn works_in(pid: Pid, directory: &Path) -> bool {
    let link = format!("/proc/{}/cwd", pid.as_raw_nonzero());
    match (fs::read_link(link), fs::canonicalize(directory)) {
        (Ok(works_in), Ok(directory)) => works_in == directory,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_process_and_its_sockets_are_read() {
        let text = "4711\n/data\n1700000000\n5433\n/tmp/backstay-1\nlocalhost\n  5433001    123\nready   \n";
        let expected = RunningServer {
            pid: Pid::from_raw(4711).unwrap(),
            sockets: Some("/tmp/backstay-1".into()),
        };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(parse("4711\n/data\n").unwrap().sockets, None);
        assert_eq!(parse("\n"), None);
    }

    #[test]
    fn a_process_that_works_elsewhere_is_no_server_of_this_directory() {
        let ourselves = rustix::process::getpid();
        assert!(lives(ourselves));
        assert!(works_in(ourselves, &std::env::current_dir().unwrap()));
        assert!(!works_in(ourselves, Path::new("/")));
    }
}
