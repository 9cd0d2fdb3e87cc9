//! Throw-away PostgreSQL servers.
//!
//! Promise: each server has a directory, a socket and (when asked) a port of its own, runs as an unprivileged user, is
//! ready when `start` returns, and is gone with its files when dropped.
//! Not here: what the tests look at.

mod cluster;
mod files;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use backstay_postgres::wire::Rows;
use backstay_postgres::{Connection, Conninfo, Mode, PostgresError};
use rustix::process::{Pid, Signal, kill_process};

pub use files::{Owner, Room, binary, programs_of};

const READY_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Whether data pages carry checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// `initdb --data-checksums`.
    On,
    /// Without.
    Off,
}

/// Where the server listens besides its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    SocketOnly,
    /// On a free port of 127.0.0.1.
    Loopback,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Waits for clients (SIGTERM).
    Smart,
    /// Disconnects clients, writes a checkpoint, waits for WAL receivers (SIGINT).
    Fast,
    /// As after a crash, but in order (SIGQUIT).
    Immediate,
    /// SIGKILL.
    Kill,
}

/// How a throw-away server is made.
#[derive(Clone, Debug)]
pub struct PgOptions {
    /// Lines of postgresql.conf, after ours.
    pub conf: Vec<String>,
    /// Lines of pg_hba.conf, before ours (local trust for everything).
    pub hba: Vec<String>,
    /// Whether data pages carry checksums.
    pub checksums: Checksums,
    /// Where the server listens besides its socket.
    pub listen: Listen,
    /// WAL segment size in MiB.
    pub wal_segment_mebibytes: u32,
    /// Where the programs are; none for those of [`binary`].
    pub programs: Option<PathBuf>,
}

impl Default for PgOptions {
    fn default() -> Self {
        Self {
            conf: Vec::new(),
            hba: Vec::new(),
            checksums: Checksums::On,
            listen: Listen::SocketOnly,
            wal_segment_mebibytes: 16,
            programs: None,
        }
    }
}

/// A running (or stopped) server.
#[derive(Debug)]
pub struct PgServer {
    room: Room,
    data: PathBuf,
    listen: Listen,
    port: u16,
    programs: Option<PathBuf>,
    child: Option<Child>,
}

impl PgServer {
    /// A new cluster with the usual options, running.
    pub async fn start() -> Self {
        Self::start_with(PgOptions::default()).await
    }

    /// A new cluster, running.
    pub async fn start_with(options: PgOptions) -> Self {
        let room = Room::new();
        let data = room.path().join("data");
        cluster::make(&room, &data, &options);
        let mut server = Self {
            listen: options.listen,
            port: port(options.listen),
            room,
            data,
            programs: options.programs.clone(),
            child: None,
        };
        server.write_conf(&options);
        server.run().await;
        server
    }

    /// A server on an existing data directory (a restored one), which the caller keeps; it is made the owner's. `conf`
    /// lines go to the command line, so the directory's files stay as they are.
    pub async fn start_on(data: &Path, conf: &[&str]) -> io::Result<Self> {
        let room = Room::new();
        room.owner().take(data)?;
        let mut server = Self {
            listen: Listen::SocketOnly,
            port: port(Listen::SocketOnly),
            room,
            data: data.to_owned(),
            programs: None,
            child: None,
        };
        server.try_run(conf).await?;
        Ok(server)
    }

    /// A standby made by `pg_basebackup`, following this server; promote it with `promote`.
    pub async fn start_standby(&self) -> Self {
        let room = Room::new();
        let data = room.path().join("data");
        let mut copy = self.tool("pg_basebackup");
        copy.arg("-h")
            .arg(self.socket_dir())
            .args(["-p", &self.port.to_string(), "-U", "postgres"]);
        copy.args(["--no-sync", "-c", "fast", "-R", "-X", "stream", "-D"])
            .arg(&data);
        run_to_end(&mut copy);
        self.start_beside(room, data).await
    }

    /// A server on a copy of the data directory of this one, which must be stopped: two servers of one identity.
    ///
    /// # Panics
    /// When this one runs.
    pub async fn start_copy(&self) -> Self {
        assert!(self.child.is_none(), "a copy of a running server's disk is torn");
        let room = Room::new();
        let data = room.path().join("data");
        cluster::copy(&self.data, &data);
        self.start_beside(room, data).await
    }

    async fn start_beside(&self, room: Room, data: PathBuf) -> Self {
        let mut server = Self {
            listen: Listen::SocketOnly,
            port: port(Listen::SocketOnly),
            room,
            data,
            programs: self.programs.clone(),
            child: None,
        };
        server.append_conf(&[&server.place_lines()]);
        server.run().await;
        server
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// A directory of this server that both the server's user and the test may write, for tablespaces and the like.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// The directory of the unix socket.
    pub fn socket_dir(&self) -> PathBuf {
        self.room.path().join("s")
    }

    /// The port, in the socket's name and on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connection string through the socket, for the superuser.
    pub fn conninfo_text(&self) -> String {
        format!(
            "host={} port={} user=postgres dbname=postgres",
            self.socket_dir().display(),
            self.port
        )
    }

    /// Connection string through 127.0.0.1, for this role.
    pub fn tcp_conninfo_text(&self, user: &str) -> String {
        format!("host=127.0.0.1 port={} user={user} dbname=postgres", self.port)
    }

    /// Through the socket, for the superuser.
    pub fn conninfo(&self) -> Conninfo {
        parse(&self.conninfo_text())
    }

    /// A new connection for the superuser.
    pub async fn connect(&self, mode: Mode) -> Result<Connection, PostgresError> {
        Connection::connect(&self.conninfo(), mode).await
    }

    /// Runs SQL on a connection of its own.
    ///
    /// # Panics
    /// When the server refuses it.
    pub async fn sql(&self, sql: &str) -> Vec<Rows> {
        let answer = async { self.connect(Mode::Sql).await?.simple_query(sql).await };
        answer
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}\n{}", self.log()))
    }

    /// The first value of the first row.
    pub async fn value(&self, sql: &str) -> String {
        let sets = self.sql(sql).await;
        let value = sets.first().and_then(|set| set.rows.first()?.first()?.clone());
        value.unwrap_or_else(|| panic!("{sql}: no value"))
    }

    /// Stops the server and waits until it is gone.
    pub async fn stop(&mut self, how: Stop) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        self.signal(&child, how);
        let deadline = Instant::now() + STOP_MAX;
        while exited(&mut child).is_none() {
            assert!(
                Instant::now() < deadline,
                "the server did not stop within {STOP_MAX:?}\n{}",
                self.log()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks the server to stop and does not wait; `wait_stopped` does.
    pub fn begin_stop(&self, how: Stop) {
        if let Some(child) = &self.child {
            self.signal(child, how);
        }
    }

    /// Waits until a server that was asked to stop is gone; gives up after `limit`.
    pub async fn wait_stopped(&mut self, limit: Duration) -> Result<Duration, Duration> {
        let began = Instant::now();
        while let Some(child) = self.child.as_mut() {
            if exited(child).is_some() {
                self.child = None;
            } else if began.elapsed() > limit {
                return Err(began.elapsed());
            } else {
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(began.elapsed())
    }

    /// Whether the server's process runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| exited(child).is_none())
    }

    /// Starts a stopped server again.
    pub async fn run(&mut self) {
        if let Err(error) = self.try_run(&[]).await {
            panic!("the server did not start: {error}\n{}", self.log());
        }
    }

    /// Starts a stopped server again, with settings on its command line.
    ///
    /// # Errors
    /// When the process ends before it accepts connections.
    pub async fn try_run(&mut self, conf: &[&str]) -> io::Result<()> {
        let deadline = Instant::now() + READY_MAX;
        loop {
            self.spawn(conf)?;
            match self.wait_ready(deadline).await {
                // After SIGKILL the old backends live a moment longer and hold the shared memory.
                Err(error)
                    if self.log().contains("pre-existing shared memory block")
                        && Instant::now() < deadline =>
                {
                    files::clear_log(&self.room)?;
                    drop(error);
                    tokio::time::sleep(POLL).await;
                }
                other => return other,
            }
        }
    }

    fn spawn(&mut self, conf: &[&str]) -> io::Result<()> {
        let log = files::open_log(&self.room)?;
        let mut command = self.tool("postgres");
        command.arg("-D").arg(&self.data);
        for line in self
            .place()
            .into_iter()
            .chain(conf.iter().map(|line| (*line).to_owned()))
        {
            command.arg("-c").arg(line);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn()?);
        Ok(())
    }

    /// On the command line: the files of a restored directory say nothing of where it may listen, or something else.
    fn place(&self) -> [String; 3] {
        let addresses = match self.listen {
            Listen::SocketOnly => "",
            Listen::Loopback => "127.0.0.1",
        };
        [
            format!("listen_addresses={addresses}"),
            format!("port={}", self.port),
            format!("unix_socket_directories={}", self.socket_dir().display()),
        ]
    }

    fn place_lines(&self) -> String {
        format!(
            "port = {}\nunix_socket_directories = '{}'",
            self.port,
            self.socket_dir().display()
        )
    }

    async fn wait_ready(&mut self, deadline: Instant) -> io::Result<()> {
        loop {
            if self.connect(Mode::Sql).await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.as_mut().and_then(exited) {
                self.child = None;
                return Err(io::Error::other(format!(
                    "the process ended: {status}\n{}",
                    self.log()
                )));
            }
            if Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, self.log()));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Promotes a standby and waits for it.
    pub async fn promote(&self) {
        self.sql("SELECT pg_promote(true, 60)").await;
    }

    /// Appends lines to postgresql.conf; `reload` or a restart makes them count.
    pub fn append_conf(&self, lines: &[&str]) {
        files::append(&self.data.join("postgresql.conf"), lines);
    }

    /// Reads the configuration files again.
    pub async fn reload(&self) {
        self.sql("SELECT pg_reload_conf()").await;
    }

    /// What the server wrote to its log.
    pub fn log(&self) -> String {
        files::read_log(&self.room)
    }

    /// A PostgreSQL program that runs as the server's user.
    pub fn tool(&self, name: &str) -> Command {
        let program = files::program(self.programs.as_deref(), name);
        self.room.owner().command(&program)
    }

    /// The server's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn signal(&self, child: &Child, how: Stop) {
        let signal = match how {
            Stop::Smart => Signal::TERM,
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
            Stop::Kill => Signal::KILL,
        };
        if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
            // It may have ended by itself.
            let _ = kill_process(pid, signal);
        }
    }

    fn write_conf(&self, options: &PgOptions) {
        let mut conf = vec![
            "fsync = off",
            "shared_buffers = 16MB",
            "max_wal_senders = 10",
            "wal_level = replica",
            "log_timezone = UTC",
            "timezone = UTC",
        ];
        conf.extend(options.conf.iter().map(String::as_str));
        self.append_conf(&[&self.place_lines()]);
        self.append_conf(&conf);
        let mut hba: Vec<&str> = options.hba.iter().map(String::as_str).collect();
        hba.extend(["local all all trust", "local replication all trust"]);
        let path = self.data.join("pg_hba.conf");
        files::replace(&path, &hba);
    }
}

impl Drop for PgServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            self.signal(&child, Stop::Immediate);
            let _ = child.wait();
        }
    }
}

/// A connection string that only the test's text decides.
///
/// # Panics
/// When it is wrong.
pub fn parse(text: &str) -> Conninfo {
    Conninfo::parse(text, &|_| None).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn exited(child: &mut Child) -> Option<ExitStatus> {
    child
        .try_wait()
        .unwrap_or_else(|error| panic!("waiting for a server: {error}"))
}

/// Runs a program to its end.
///
/// # Panics
/// When it fails; with its output.
pub fn run_to_end(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// A port of the loopback interface that nobody listens on. Between asking and listening somebody else may take it; the
/// server then says so and the test fails loudly.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .unwrap_or_else(|error| panic!("no free port: {error}"))
        .port()
}

fn port(listen: Listen) -> u16 {
    match listen {
        Listen::SocketOnly => 5432,
        Listen::Loopback => free_port(),
    }
}
