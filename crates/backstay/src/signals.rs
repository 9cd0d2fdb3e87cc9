//! The signals that ask this process to end: SIGINT and SIGTERM.
//!
//! Promise: from `listen` on neither kills the process; each is heard by whoever waits.
//! Not here: what is done about them (demo, commands::stream).

use crate::codes::Code;
use crate::failure::Failure;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Which one came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Asked {
    /// The code of a run that it cut short.
    pub fn code(self) -> Code {
        match self {
            Asked::Interrupt => Code::Interrupted,
            Asked::Terminate => Code::Terminated,
        }
    }
}

/// Both of them.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Hears them from now on.
    pub fn listen() -> Result<Signals, Failure> {
        let refuse = |error: std::io::Error| {
            let help = "check the limits on open files of this user (ulimit -n)";
            Failure::new(Code::Other, "signals cannot be received", help).caused_by(&error)
        };
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).map_err(refuse)?,
            interrupt: signal(SignalKind::interrupt()).map_err(refuse)?,
        })
    }

    /// Waits for the next one. Cancel-safe.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Terminate,
            _ = self.interrupt.recv() => Asked::Interrupt,
        }
    }
}
