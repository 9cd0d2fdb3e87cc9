//! A throw-away PostgreSQL server.
//!
//! Promise: listens on a unix socket alone; runs as an unprivileged user also when we are root; hears none of the signals
//! of our terminal, and none of the variables of PostgreSQL; is stopped by its pid, also when it is only dropped.

use super::defect;
use crate::codes::Code;
use crate::environment;
use crate::failure::Failure;
use backstay_clock::Clock;
use backstay_postgres::{Connection, Conninfo, Mode};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How long the server may take to answer.
const READY_MAX: Duration = Duration::from_secs(60);

/// How long it may take to stop at once; PostgreSQL itself kills what is left after five seconds.
const STOP_MAX: Duration = Duration::from_secs(20);

/// How long to wait before asking again.
const POLL: Duration = Duration::from_millis(50);

/// The number in the socket's name.
const PORT: &str = "5432";

/// How many lines of its log are told.
const LOG_LINES_MAX: usize = 10;

/// Where Debian keeps the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// A user to run as.
#[derive(Clone, Copy, Debug)]
struct User {
    id: u32,
    group: u32,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    programs: PathBuf,
    data: PathBuf,
    sockets: PathBuf,
    user: Option<User>,
    child: Option<Child>,
}

impl Server {
    /// One whose files will be in `room`; nothing is made yet.
    pub fn new(room: &Path, path: &str) -> Result<Server, Failure> {
        Ok(Server {
            programs: programs(path)?,
            data: room.join("source"),
            sockets: room.join("run"),
            user: unprivileged()?,
            child: None,
        })
    }

    /// Makes the cluster, and starts it.
    pub async fn start(&mut self, clock: &dyn Clock) -> Result<(), Failure> {
        for directory in [&self.data, &self.sockets] {
            make(directory, self.user)?;
        }
        self.initialise()?;
        self.launch()?;
        self.wait_until_ready(clock).await
    }

    /// How to connect to it.
    pub fn conninfo_text(&self) -> String {
        format!(
            "host={} port={PORT} user=postgres dbname=postgres",
            self.sockets.display()
        )
    }

    /// An ordinary connection.
    pub async fn connect(&self) -> Result<Connection, Failure> {
        connect(&self.conninfo_text()).await
    }

    /// Stops it at once and without a checkpoint, as a crash would, with every process of its own. Does nothing if it
    /// does not run.
    pub async fn stop(&mut self, clock: &dyn Clock) {
        if let Some(child) = &mut self.child {
            if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::QUIT);
            }
            let ended = async {
                while matches!(child.try_wait(), Ok(None)) {
                    clock.sleep(POLL).await;
                }
            };
            tokio::select! {
                () = ended => {}
                () = clock.sleep(STOP_MAX) => {}
            }
        }
        self.kill();
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Gone already is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn initialise(&self) -> Result<(), Failure> {
        let data = self.data.display().to_string();
        let arguments = [
            "-D",
            &data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "-k",
        ];
        let output = self.command("initdb").args(arguments).output();
        let output = output.map_err(|error| refused("initdb cannot be run").caused_by(&error))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(refused("initdb made no cluster").fact("it said", said))
    }

    fn launch(&mut self) -> Result<(), Failure> {
        let log = std::fs::File::create(self.log_file());
        let log = log.map_err(|error| refused("the server's log cannot be written").caused_by(&error))?;
        let mut command = self.command("postgres");
        command
            .arg("-D")
            .arg(&self.data)
            .arg("-c")
            .arg("listen_addresses=")
            .arg("-k")
            .arg(&self.sockets)
            .arg("-p")
            .arg(PORT);
        for setting in [
            "wal_level=replica",
            "max_wal_senders=5",
            "max_wal_size=2GB",
            "fsync=off",
        ] {
            command.arg("-c").arg(setting);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.map_err(|error| refused("postgres cannot be started").caused_by(&error))?);
        Ok(())
    }

    async fn wait_until_ready(&mut self, clock: &dyn Clock) -> Result<(), Failure> {
        // A server that accepts and says nothing would hold an attempt for ever.
        let answered = tokio::select! {
            biased;
            ended = self.answering(clock) => Some(ended),
            () = clock.sleep(READY_MAX) => None,
        };
        match answered {
            Some(None) => Ok(()),
            Some(Some(status)) => {
                Err(self.silent(&format!("the server ended before it answered ({status})")))
            }
            None => Err(self.silent("the server did not answer within a minute")),
        }
    }

    /// Waits until it answers; how it ended, if it did.
    async fn answering(&mut self, clock: &dyn Clock) -> Option<ExitStatus> {
        loop {
            if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
                return Some(status);
            }
            if self.connect().await.is_ok() {
                return None;
            }
            clock.sleep(POLL).await;
        }
    }

    fn log_file(&self) -> PathBuf {
        self.sockets.join("server.log")
    }

    /// A failure of a server that was started, with the end of its log: the file goes with the demo.
    fn silent(&self, what: &str) -> Failure {
        let log = std::fs::read(self.log_file()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let last = lines
            .get(lines.len().saturating_sub(LOG_LINES_MAX)..)
            .unwrap_or_default();
        let help = "see what its log says; backstay demo --keep leaves the log and everything else in place";
        Failure::new(Code::ServerNotReady, what, help)
            .fact("socket", format!("{}/.s.PGSQL.{PORT}", self.sockets.display()))
            .fact(
                "its log",
                if last.is_empty() {
                    "is empty".to_owned()
                } else {
                    last.join("\n")
                },
            )
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        if let Some(user) = self.user {
            command.uid(user.id).gid(user.group);
        }
        for variable in environment::of_postgresql() {
            command.env_remove(variable);
        }
        // In a process group of its own: Ctrl-C is for us, and we stop it.
        command.env("LC_ALL", "C").current_dir("/").process_group(0);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An ordinary connection.
pub async fn connect(text: &str) -> Result<Connection, Failure> {
    let conninfo = Conninfo::parse(text, &|_| None).map_err(|error| Failure::from(&error))?;
    let connected = Connection::connect(&conninfo, Mode::Sql).await;
    connected.map_err(|error| Failure::from(backstay_source::SourceError::from(error)))
}

/// Runs a statement.
pub async fn run(connection: &mut Connection, sql: &str) -> Result<(), Failure> {
    let answer = connection.simple_query(sql).await;
    answer
        .map(|_| ())
        .map_err(|error| Failure::from(backstay_source::SourceError::from(error)))
}

/// The first column of the first row.
pub async fn one(connection: &mut Connection, sql: &str) -> Result<String, Failure> {
    let answer = connection.simple_query(sql).await;
    let answer = answer.map_err(|error| Failure::from(backstay_source::SourceError::from(error)))?;
    let value = answer
        .first()
        .and_then(|rows| rows.rows.first())
        .and_then(|row| row.first().cloned().flatten());
    value.ok_or_else(|| defect("the server answered nothing"))
}

fn refused(what: &str) -> Failure {
    let help = "install PostgreSQL of Debian: apt-get install postgresql-15; then run the demo again";
    Failure::new(Code::ServerNotReady, what, help)
}

fn make(directory: &Path, user: Option<User>) -> Result<(), Failure> {
    let made = std::fs::DirBuilder::new().mode(0o700).create(directory);
    let owned = made.and_then(|()| match user {
        Some(user) => chown(directory, Some(user.id), Some(user.group)),
        None => Ok(()),
    });
    owned.map_err(|error| {
        let help = "set TMPDIR to a directory that you may write to";
        Failure::new(
            Code::LocalFile,
            format!("{} cannot be made", directory.display()),
            help,
        )
        .caused_by(&error)
    })
}

/// The newest version's programs, or those on PATH.
fn programs(path: &str) -> Result<PathBuf, Failure> {
    let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let mut installed: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .collect();
    installed.sort();
    let newest = installed.into_iter().rev().map(|(_, programs)| programs);
    let has_server =
        |programs: &PathBuf| programs.join("initdb").is_file() && programs.join("postgres").is_file();
    let found = newest.chain(std::env::split_paths(path)).find(has_server);
    found.ok_or_else(|| refused("no PostgreSQL server is installed on this machine"))
}

/// PostgreSQL refuses to run as root: then the user `postgres`, or `nobody`.
fn unprivileged() -> Result<Option<User>, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |name: &str| {
        let line = users.lines().find(|line| line.starts_with(&format!("{name}:")))?;
        let mut fields = line.split(':').skip(2);
        Some(User {
            id: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
        })
    };
    let user = find("postgres").or_else(|| find("nobody"));
    user.map(Some)
        .ok_or_else(|| refused("there is neither a user postgres nor a user nobody to run the server as"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::scratch::Scratch;
    use backstay_clock::SimClock;

    #[tokio::test]
    async fn a_server_that_never_answers_is_given_up_after_a_minute_of_the_clock() {
        let nowhere = PathBuf::from("/nowhere");
        let mut server = Server {
            programs: nowhere.clone(),
            data: nowhere.clone(),
            sockets: nowhere,
            user: None,
            child: None,
        };
        let clock = SimClock::jumping();
        let failure = server.wait_until_ready(&clock).await.unwrap_err();
        assert_eq!(failure.message, "the server did not answer within a minute");
        assert!(clock.instant() >= READY_MAX);
    }

    #[tokio::test]
    async fn a_server_that_ends_is_told_at_once_with_its_socket_and_the_end_of_its_log() {
        let room = Scratch::make().unwrap();
        let child = Command::new("/bin/sh").args(["-c", "exit 3"]).spawn().unwrap();
        let mut server = Server {
            programs: room.path().to_owned(),
            data: room.path().to_owned(),
            sockets: room.path().to_owned(),
            user: None,
            child: Some(child),
        };
        let lines: Vec<String> = (1..=20).map(|n| format!("line {n}")).collect();
        std::fs::write(server.log_file(), lines.join("\n")).unwrap();
        server.child.as_mut().unwrap().wait().unwrap();
        let clock = SimClock::jumping();
        let failure = server.wait_until_ready(&clock).await.unwrap_err();
        assert_eq!(
            failure.message,
            "the server ended before it answered (exit status: 3)"
        );
        assert!(clock.instant() < READY_MAX);
        let socket = format!("{}/.s.PGSQL.5432", room.path().display());
        let log = lines[10..].join("\n");
        assert_eq!(failure.places, [("socket", socket), ("its log", log)]);
        assert!(!failure.help[0].contains("install"), "{:?}", failure.help);
    }
}
