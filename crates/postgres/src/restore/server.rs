//! Starts the restored server, waits until it is at its target, and stops it.
//!
//! Promise: a server that does not reach its target is stopped again, and the error holds its own last words. A server
//! that does goes on running without us, unless its action is to shut down.
//! Not here: what counts as reached (evidence), who may connect (proof).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use backstay_clock::{Clock, Deadline};
use backstay_source::{Evidence, Recovery, RecoveryAction, RecoveryStop, StartRequest};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::RestoreOptions;
use super::error::RestoreError;
use super::evidence::{Address, Counted, Doing, Observed, Progress, count_rows, observe};
use super::inspect::no_server_runs;
use super::owner::Owner;
use super::process::{RunningServer, lives, server_in};
use super::proof::{self, ProofRoom};
use super::server_log::ServerLog;
use super::{place, programs};
use crate::control_file::{ClusterState, ControlFile};

const POLL_FIRST: Duration = Duration::from_millis(25);
const POLL_MAX: Duration = Duration::from_millis(500);
const STOP_MAX: Duration = Duration::from_secs(60);

/// What became of a request to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The server ran and is gone.
    Now,
    /// None ran.
    WasNotRunning,
}

/// A start that is to be made.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) options: &'a RestoreOptions,
    pub(super) owner: Owner,
    pub(super) log_file: PathBuf,
    pub(super) request: &'a StartRequest,
    pub(super) recovery: &'a Recovery,
}

/// A server that runs and is not yet where it should be; stopped when dropped.
#[derive(Debug)]
struct Running {
    child: Option<Child>,
    room: ProofRoom,
    log: ServerLog,
    address: Address,
    major: u32,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_ref() {
            // Whoever waited was cancelled.
            signal(child, Signal::INT);
            self.room.remove();
        }
    }
}

impl Start<'_> {
    /// What the server showed at its target, and its process if it still runs.
    pub(super) async fn run(&self) -> Result<(Evidence, Option<Child>), RestoreError> {
        let mut server = self.spawn()?;
        match self.evidence(&mut server).await {
            Ok(evidence) => Ok((evidence, server.child.take())),
            Err(error) => {
                server.stop(&*self.options.clock).await;
                Err(error)
            }
        }
    }

    fn spawn(&self) -> Result<Running, RestoreError> {
        let directory = &self.options.directory;
        no_server_runs(directory)?;
        let version = directory.join("PG_VERSION");
        let text = fs::read_to_string(&version).map_err(RestoreError::io("read", &version))?;
        let major = programs::major(text.trim())?;
        let program = programs::find(self.options.binaries.as_deref(), major)?;
        let (log, output) = ServerLog::open(&self.log_file, self.owner)?;
        let room = ProofRoom::make(&self.options.sockets, self.owner)?;
        let superuser = self.options.superuser.as_deref();
        let address = Address::new(room.path(), self.request.port, superuser);
        let child = self.command(&program, &room, output)?.spawn();
        Ok(Running {
            child: Some(child.map_err(RestoreError::io("run", &program))?),
            room,
            log,
            address,
            major,
        })
    }

    fn command(&self, program: &Path, room: &ProofRoom, output: File) -> Result<Command, RestoreError> {
        let errors = output
            .try_clone()
            .map_err(RestoreError::io("open", &self.log_file))?;
        let mut command = Command::new(program);
        command.arg("-D").arg(&self.options.directory);
        for (name, value) in self.settings(room) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        // Ours are not the server's; its messages are read, so they must be in English.
        for variable in [
            "PGDATA",
            "PGPORT",
            "PGOPTIONS",
            "PGDATESTYLE",
            "PGTZ",
            "PGCLIENTENCODING",
        ] {
            command.env_remove(variable);
        }
        command.env("LC_ALL", "C").current_dir("/");
        // In a process group of its own it outlives us and the signals of our terminal.
        command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0);
        if let Owner::Other { user, group } = self.owner {
            command.uid(user).gid(group);
        }
        Ok(command)
    }

    /// For this run only, so they are not written down. Beside place and access: whatever would hide the server's
    /// messages from us, write outside the directory, or fail for want of a file that only the source has.
    fn settings(&self, room: &ProofRoom) -> [(&'static str, String); 12] {
        let path = |path: &Path| path.display().to_string();
        [
            ("data_directory", path(&self.options.directory)),
            ("port", self.request.port.to_string()),
            (
                "unix_socket_directories",
                format!("\"{}\"", room.path().display()),
            ),
            ("unix_socket_permissions", "0700".to_owned()),
            ("hba_file", path(&room.hba_file())),
            ("external_pid_file", String::new()),
            ("logging_collector", "off".to_owned()),
            ("log_destination", "stderr".to_owned()),
            ("log_min_messages", "warning".to_owned()),
            ("log_line_prefix", "%m [%p] ".to_owned()),
            ("lc_messages", "C".to_owned()),
            ("ssl", "off".to_owned()),
        ]
    }

    async fn evidence(&self, server: &mut Running) -> Result<Evidence, RestoreError> {
        let observed = self.wait(server).await?;
        let state = match observed.doing {
            Doing::Promoted => "promoted",
            Doing::ShutDown => "shut down",
            Doing::Paused | Doing::Starting | Doing::Replaying => "paused",
        };
        let Counted { rows, uncounted } = match observed.doing {
            Doing::ShutDown => Counted::default(),
            _ => count_rows(&server.address, &*self.options.clock).await?,
        };
        let (last_transaction, transaction_before_stop) = match self.recovery.stop {
            RecoveryStop::After(_) => (None, observed.last_transaction),
            RecoveryStop::Consistent | RecoveryStop::Before(_) => (observed.last_transaction, None),
        };
        Ok(Evidence {
            replayed: observed.replayed.into(),
            state: state.to_owned(),
            connect: server.address.conninfo_of_entrance(),
            last_transaction,
            transaction_before_stop,
            rows,
            uncounted,
        })
    }

    async fn wait(&self, server: &mut Running) -> Result<Observed, RestoreError> {
        let clock = &*self.options.clock;
        let deadline = Deadline::after(clock, self.request.wait_max);
        let (mut seen, mut pause) = (Observed::default(), POLL_FIRST);
        loop {
            if let Some(status) = server.exited()? {
                return self.ended(server, status, seen);
            }
            let observed = observe(&mut server.address, server.major).await?;
            match observed.progress(self.recovery) {
                Progress::Reached => return Ok(observed),
                Progress::StoppedElsewhere if self.may_go_on(&observed) => {}
                Progress::StoppedElsewhere => return Err(self.elsewhere(server, &observed)),
                Progress::Underway => {}
            }
            if observed.doing != Doing::Starting {
                seen = observed;
            }
            if deadline.is_over(clock) {
                return Err(self.too_slow(&seen));
            }
            clock.sleep(pause).await;
            pause = (pause * 2).min(POLL_MAX);
        }
    }

    // A server that has too few slots for the log pauses for ever, one whose action is not to pause never for its target.
    fn may_go_on(&self, observed: &Observed) -> bool {
        observed.doing == Doing::Promoted && self.recovery.action == RecoveryAction::Shutdown
    }

    /// The server ended by itself: right when its action is to shut down and it says that it stopped at its target.
    fn ended(
        &self,
        server: &mut Running,
        status: ExitStatus,
        seen: Observed,
    ) -> Result<Observed, RestoreError> {
        server.child = None;
        server.room.remove();
        let control = self.control();
        let in_recovery =
            control.as_ref().map(|control| control.state) == Some(ClusterState::ShutDownInRecovery);
        let wanted = self.recovery.action == RecoveryAction::Shutdown;
        if !(wanted && in_recovery && status.success() && server.log.says_stopped()) {
            return Err(RestoreError::Ended {
                directory: self.options.directory.clone(),
                said: server.log.last_words(),
            });
        }
        let control = control.map(|control| control.recovery_end_min);
        let positions = [server.log.stopped_at(), control, Some(seen.replayed)];
        Ok(Observed {
            replayed: positions.into_iter().flatten().max().unwrap_or_default(),
            doing: Doing::ShutDown,
            // What was last seen was seen on the way.
            last_transaction: None,
        })
    }

    fn control(&self) -> Option<ControlFile> {
        let bytes = fs::read(self.options.directory.join(place::CONTROL)).ok()?;
        ControlFile::parse(&bytes).ok()
    }

    fn elsewhere(&self, server: &Running, observed: &Observed) -> RestoreError {
        RestoreError::Elsewhere {
            directory: self.options.directory.clone(),
            replayed: observed.replayed.to_string(),
            said: server.log.pause_words(),
        }
    }

    fn too_slow(&self, seen: &Observed) -> RestoreError {
        RestoreError::Deadline {
            directory: self.options.directory.clone(),
            what: "reach its target",
            waited: self.request.wait_max,
            seen: match seen.doing {
                Doing::Starting => "it did not answer".to_owned(),
                _ => format!("it had replayed up to {}", seen.replayed),
            },
        }
    }
}

impl Running {
    fn exited(&mut self) -> Result<Option<ExitStatus>, RestoreError> {
        let Some(child) = self.child.as_mut() else {
            return Ok(None);
        };
        child
            .try_wait()
            .map_err(RestoreError::io("wait for the server of", self.log.path()))
    }

    /// Fast, then at once, then by force: after this it is gone.
    async fn stop(&mut self, clock: &dyn Clock) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        for how in [Signal::INT, Signal::QUIT] {
            signal(&child, how);
            tokio::select! {
                _ = child.wait() => return self.room.remove(),
                () = clock.sleep(STOP_MAX) => {}
            }
        }
        // Whether it could be killed changes nothing in the error that is on its way.
        let _ = child.kill().await;
        self.room.remove();
    }
}

fn signal(child: &Child, how: Signal) {
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        // It may have ended by itself.
        let _ = kill_process(pid, how);
    }
}

/// Stops the server that runs in a directory, whoever started it.
pub(super) async fn stop(
    directory: &Path,
    child: Option<Child>,
    clock: &dyn Clock,
) -> Result<Stopped, RestoreError> {
    let Some(server) = server_in(directory) else {
        return Ok(Stopped::WasNotRunning);
    };
    kill_process(server.pid, Signal::INT).map_err(RestoreError::io("stop the server in", directory))?;
    let mut child = child.filter(|child| child.id() == Some(server.number()));
    let deadline = Deadline::after(clock, STOP_MAX);
    while runs(directory, &server, child.as_mut()) {
        if deadline.is_over(clock) {
            return Err(RestoreError::Deadline {
                directory: directory.to_owned(),
                what: "stop",
                waited: STOP_MAX,
                seen: "it was shutting down".to_owned(),
            });
        }
        clock.sleep(POLL_FIRST).await;
    }
    if let Some(sockets) = server.sockets {
        proof::remove(&sockets);
    }
    Ok(Stopped::Now)
}

// A child of ours stays in the system's table until it is waited for.
fn runs(directory: &Path, server: &RunningServer, child: Option<&mut Child>) -> bool {
    match child {
        Some(child) => matches!(child.try_wait(), Ok(None)),
        None => lives(server.pid) || server_in(directory).is_some(),
    }
}
