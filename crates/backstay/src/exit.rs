//! Exit codes: what the process says to scripts and schedulers.
//!
//! Promise: the numbers are frozen; one is added, never reused or given another meaning.
//! Not here: `wal fetch`, which keeps PostgreSQL's own rule (wal_fetch_guard); the finer codes (codes).

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// What was asked is done.
    Done,
    /// Any error without a code of its own.
    Other,
    /// The command line or the configuration is wrong.
    Usage,
    /// Done, but something is missing or damaged.
    Incomplete,
    /// The repository or the server refuses us.
    NotAuthorised,
    /// A precondition does not hold.
    Refused,
    /// There is no such thing, or the target is outside the recoverable window.
    OutsideWindow,
    /// Somebody else is at work.
    Conflict,
    /// The repository or the server cannot be reached.
    Unreachable,
    /// Stored bytes are not what was written.
    Integrity,
    /// An objective or a check does not hold.
    Objective,
    /// A key is wrong or missing.
    Key,
    /// Stopped by SIGINT (Ctrl-C).
    Interrupted,
    /// Stopped by SIGTERM.
    Terminated,
}

/// Whether the same command may succeed later without anybody acting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Somebody must act first.
    Never,
    /// The cause may pass by itself.
    Later,
}

impl Exit {
    /// Every exit, in order of its number.
    pub const ALL: [Exit; 14] = [
        Exit::Done,
        Exit::Other,
        Exit::Usage,
        Exit::Incomplete,
        Exit::NotAuthorised,
        Exit::Refused,
        Exit::OutsideWindow,
        Exit::Conflict,
        Exit::Unreachable,
        Exit::Integrity,
        Exit::Objective,
        Exit::Key,
        Exit::Interrupted,
        Exit::Terminated,
    ];

    /// The number that the shell sees.
    pub fn number(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Other => 1,
            Exit::Usage => 2,
            Exit::Incomplete => 3,
            Exit::NotAuthorised => 4,
            Exit::Refused => 5,
            Exit::OutsideWindow => 6,
            Exit::Conflict => 7,
            Exit::Unreachable => 8,
            Exit::Integrity => 9,
            Exit::Objective => 10,
            Exit::Key => 11,
            Exit::Interrupted => 130,
            Exit::Terminated => 143,
        }
    }

    /// What it means, for a table.
    pub fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Other => "failed for a reason without a number of its own",
            Exit::Usage => "the command line or the configuration is wrong; nothing was changed",
            Exit::Incomplete => "done, but something is missing or damaged; the output names it",
            Exit::NotAuthorised => "the repository or the server does not allow it",
            Exit::Refused => "a precondition does not hold; nothing was changed",
            Exit::OutsideWindow => "there is no such thing, or the target is outside the recoverable window",
            Exit::Conflict => "somebody else is at work; try again later",
            Exit::Unreachable => "the repository or the server cannot be reached; try again with backoff",
            Exit::Integrity => "stored bytes are not what was written, or a proof failed",
            Exit::Objective => "an objective or a check does not hold",
            Exit::Key => "a key is wrong or missing",
            Exit::Interrupted => "stopped by SIGINT (Ctrl-C)",
            Exit::Terminated => "stopped by SIGTERM",
        }
    }

    /// Whether the same command may succeed later without anybody acting.
    pub fn retry(self) -> Retry {
        match self {
            Exit::Conflict | Exit::Unreachable => Retry::Later,
            _ => Retry::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_frozen_ones() {
        let numbers: Vec<u8> = Exit::ALL.into_iter().map(Exit::number).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 130, 143]);
    }
}
