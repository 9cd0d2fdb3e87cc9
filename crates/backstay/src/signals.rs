//! The signals that ask this process to end: SIGINT, SIGTERM, and SIGHUP of a terminal that closes.
//!
//! Promise: from `listen` on none of them kills the process; each is heard by whoever waits. A SIGHUP that was ignored when
//! the process began stays ignored: nohup asks for that.
//! Not here: what is done about them (demo, commands::stream).

use crate::codes::Code;
use crate::failure::Failure;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Which one came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM or SIGHUP.
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

/// All of them.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// None: it stays ignored.
    hang_up: Option<Signal>,
}

impl Signals {
    /// Hears them from now on.
    pub fn listen() -> Result<Signals, Failure> {
        let hear = |kind| {
            signal(kind).map_err(|error| {
                let help = "check the limits on open files of this user (ulimit -n)";
                Failure::new(Code::Other, "signals cannot be received", help).caused_by(&error)
            })
        };
        let hang_up = match ignores_hang_up() {
            true => None,
            false => Some(hear(SignalKind::hangup())?),
        };
        Ok(Signals {
            terminate: hear(SignalKind::terminate())?,
            interrupt: hear(SignalKind::interrupt())?,
            hang_up,
        })
    }

    /// Waits for the first of them. Cancel-safe.
    pub async fn next(&mut self) -> Asked {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => Asked::Terminate,
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = hang_up => Asked::Terminate,
        }
    }

    /// Waits for somebody who insists. A terminal that closes sends SIGHUP more than once, so that it does not insist.
    /// Cancel-safe.
    pub async fn again(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Terminate,
            _ = self.interrupt.recv() => Asked::Interrupt,
        }
    }
}

/// Where the system does not tell (it does on Linux), nothing is ignored.
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    is_first_ignored(&status)
}

/// SIGHUP is signal 1: the lowest bit of `SigIgn` (proc(5)).
fn is_first_ignored(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        assert!(is_first_ignored(
            "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"
        ));
        assert!(!is_first_ignored(
            "SigBlk:\t0000000000000001\nSigIgn:\t0000000000001000\n"
        ));
        assert!(!is_first_ignored("Name:\tbackstay\n"));
    }
}
