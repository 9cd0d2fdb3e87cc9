//! Tries the command that is to fetch the log, before anything is touched.
//!
//! A restored server that cannot fetch its log ends its recovery with an error long after everything else was restored:
//! a key that only root may read, a setting that only our environment has. So the first file is fetched as the server
//! would: by a shell, as its user, with nothing of our environment, in a directory of its own.
//! Promise: leaves nothing behind; what is refused says what the command said.
//! Not here: what the command is (the binary), when it is used (backstay-engine).

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use backstay_clock::Clock;
use backstay_source::Rehearsal;
use tokio::process::Command;

use super::error::RestoreError;
use super::owner::Owner;
use super::proof::ProofRoom;

/// How long one file may take; a server has more patience, a person who waits has not.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// The fetched file, as the server calls it while it recovers (`RECOVERYXLOG` of xlogarchive.c).
const DESTINATION: &str = "RECOVERYXLOG";

/// Runs the command once.
pub(super) async fn rehearse(
    rehearsal: &Rehearsal,
    owner: Owner,
    below: &Path,
    clock: &dyn Clock,
) -> Result<(), RestoreError> {
    let room = ProofRoom::make(below, owner)?;
    let ended = run(rehearsal, owner, room.path(), clock).await;
    let delivered = std::fs::metadata(room.path().join(DESTINATION)).map(|facts| facts.len());
    room.remove();
    let said = match (ended?, delivered) {
        (Some(output), Ok(size)) if output.status.success() && size == rehearsal.size => return Ok(()),
        (Some(output), Ok(size)) if output.status.success() => {
            format!("delivered {size} bytes instead of {}", rehearsal.size)
        }
        (Some(output), Err(_)) if output.status.success() => {
            "said that it went well, and delivered nothing".to_owned()
        }
        (Some(output), _) => words(&output),
        (None, _) => format!("was not done after {} s", WAIT_MAX.as_secs()),
    };
    Err(RestoreError::Delivery {
        user: user(owner),
        command: rehearsal.command.clone(),
        said,
    })
}

/// None: it took too long and was killed.
async fn run(
    rehearsal: &Rehearsal,
    owner: Owner,
    room: &Path,
    clock: &dyn Clock,
) -> Result<Option<Output>, RestoreError> {
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg(filled_in(&rehearsal.command, &rehearsal.file));
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.current_dir(room).stdin(Stdio::null()).kill_on_drop(true);
    if let Owner::Other { user, group } = owner {
        command.uid(user).gid(group);
    }
    let output = command.output();
    tokio::select! {
        output = output => output.map(Some).map_err(RestoreError::io("run a shell in", room)),
        () = clock.sleep(WAIT_MAX) => Ok(None),
    }
}

/// The command with `%f`, `%p` and `%%` replaced, as the server does it (BuildRestoreCommand in archive.c).
fn filled_in(command: &str, file: &str) -> String {
    let mut text = String::with_capacity(command.len() + file.len());
    let mut rest = command;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        let (word, length) = match after.bytes().next() {
            Some(b'f') => (file, 1),
            Some(b'p') => (DESTINATION, 1),
            Some(b'%') => ("%", 1),
            _ => ("%", 0),
        };
        text.push_str(word);
        rest = after.get(length..).unwrap_or_default();
    }
    text.push_str(rest);
    text
}

fn words(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    let ended = match output.status.code() {
        Some(code) => format!("exited {code}"),
        None => "was killed".to_owned(),
    };
    match said[..] {
        [] => ended,
        _ => format!("{ended}\n{}", said.join("\n")),
    }
}

fn user(owner: Owner) -> String {
    match owner {
        Owner::Ourselves => "this user without its environment".to_owned(),
        Owner::Other { user, .. } => format!("the server's user (number {user}) without this environment"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use backstay_clock::SystemClock;

    #[test]
    fn placeholders_are_filled_in_as_the_server_does() {
        let filled = filled_in("'/a%%b' wal fetch x %f %p --until 0/1 100% %x", "0001");
        assert_eq!(filled, "'/a%b' wal fetch x 0001 RECOVERYXLOG --until 0/1 100% %x");
    }

    async fn said(command: &str) -> String {
        let rehearsal = Rehearsal {
            command: command.to_owned(),
            file: "0001".to_owned(),
            size: 5,
        };
        let clock = SystemClock::new();
        let below = std::env::temp_dir();
        match rehearse(&rehearsal, Owner::Ourselves, &below, &clock).await {
            Ok(()) => "delivered".to_owned(),
            Err(RestoreError::Delivery { said, .. }) => said,
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn only_a_command_that_delivers_the_whole_file_passes() {
        assert_eq!(said("printf %f- > %p").await, "delivered");
        assert_eq!(said("printf %f > %p").await, "delivered 4 bytes instead of 5");
        assert_eq!(
            said("true").await,
            "said that it went well, and delivered nothing"
        );
        assert_eq!(said("echo 'no key' >&2; exit 208").await, "exited 208\nno key");
        assert_eq!(said("printf %f- > %p; exit 1").await, "exited 1");
        assert_eq!(said("kill -9 $$").await, "was killed");
    }

    #[tokio::test]
    async fn nothing_of_our_environment_reaches_it() {
        // Cargo sets it for every test.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        assert_eq!(
            said("test -z \"$CARGO_MANIFEST_DIR$HOME\" && printf %f- > %p").await,
            "delivered"
        );
    }
}
