//! The exit discipline of `wal fetch`, from the first instruction on.
//!
//! PostgreSQL takes every exit of `restore_command` from 1 to 125 for "this segment does not exist" and ends recovery
//! there, silently losing what follows. So the common table of exits, a usage error and a panic must not leave it.
//! Promise: `wal fetch` exits 0 when the file is in place, 1 when its absence is proved, 200 to 209 for everything else.
//! Source: RestoreArchivedFile and wait_result_is_any_signal in PostgreSQL; 126 and above are fatal there.
//! Not here: what is fetched and what counts as proof (engine).

use crate::codes::Code;
use crate::exit::Exit;
use crate::wire::Ending;
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Which exit discipline a command line is under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discipline {
    /// The table of exit codes.
    Common,
    /// 0, 1 and 200 to 209.
    WalFetch,
}

/// Recognises `wal fetch` before any argument is parsed. Words that only look like it are under its discipline too:
/// the other way round would lose data.
pub fn discipline(arguments: &[OsString]) -> Discipline {
    let wal = arguments.iter().position(|word| word == "wal");
    let fetch = arguments.iter().rposition(|word| word == "fetch");
    match (wal, fetch) {
        (Some(wal), Some(fetch)) if wal < fetch => Discipline::WalFetch,
        _ => Discipline::Common,
    }
}

/// A row of the table: the exit, and what it says.
pub const EXITS: [(u8, &str); 12] = [
    (0, "the file is in place"),
    (1, "the file does not exist and never will: its absence is proved"),
    (200, "failed for a reason without a number of its own"),
    (201, "the command line or the configuration is wrong"),
    (202, "the repository does not allow it"),
    (203, "a precondition does not hold"),
    (204, "the file should be there and is not: a gap"),
    (205, "somebody else is at work"),
    (206, "the repository cannot be reached"),
    (207, "stored bytes are not what was written"),
    (208, "a key is wrong or missing"),
    (209, "Backstay stopped itself because of a defect"),
];

const DEFECT: u8 = 209;

/// Runs `work` and turns whatever happens into an exit that PostgreSQL understands.
pub fn run(work: impl FnOnce() -> Ending) -> u8 {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(ending) => number(ending),
        Err(_) => DEFECT,
    }
}

fn number(ending: Ending) -> u8 {
    match ending {
        Ending::Reported(Exit::Done) => 0,
        Ending::Failed(Code::SegmentAbsent) => 1,
        Ending::Reported(exit) => by_exit(exit),
        Ending::Failed(code) => by_exit(code.exit()),
    }
}

fn by_exit(exit: Exit) -> u8 {
    match exit {
        Exit::Usage => 201,
        Exit::NotAuthorised => 202,
        Exit::Refused => 203,
        Exit::OutsideWindow => 204,
        Exit::Conflict => 205,
        Exit::Unreachable => 206,
        Exit::Integrity => 207,
        Exit::Key => 208,
        Exit::Done
        | Exit::Other
        | Exit::Incomplete
        | Exit::Objective
        | Exit::Interrupted
        | Exit::Terminated => 200,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Discipline {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        discipline(&words)
    }

    #[test]
    fn wal_fetch_is_recognised_wherever_flags_stand() {
        for line in [
            "backstay wal fetch",
            "backstay wal fetch orders-db 000000010000000000000001 pg_wal/RECOVERYXLOG",
            "backstay -c x.yaml wal fetch",
            "backstay wal --json fetch",
            "backstay --unknown wal fetch",
        ] {
            assert_eq!(of(line), Discipline::WalFetch, "{line}");
        }
        for line in [
            "backstay",
            "backstay wal gaps",
            "backstay fetch wal",
            "backstay version",
        ] {
            assert_eq!(of(line), Discipline::Common, "{line}");
        }
    }

    #[test]
    fn only_a_proved_absence_is_one_and_nothing_else_is_below_two_hundred() {
        for code in Code::ALL {
            let exit = run(|| Ending::Failed(*code));
            assert_eq!(exit == 1, *code == Code::SegmentAbsent, "{code} exits {exit}");
            assert!(exit == 1 || (200..=209).contains(&exit), "{code} exits {exit}");
        }
        for exit in Exit::ALL {
            let number = run(|| Ending::Reported(exit));
            assert_eq!(number == 0, exit == Exit::Done);
            assert!(number == 0 || (200..=209).contains(&number));
        }
    }

    #[test]
    fn a_panic_is_fatal_to_recovery_too() {
        assert_eq!(run(|| panic!("planted")), 209);
    }
}
