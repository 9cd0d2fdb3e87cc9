//! The log of a started server: its last words.
//!
//! Promise: what PostgreSQL itself says is why it ended, not what we guess. At most the last 256 KiB are read.
//! Not here: what is asked over a connection (evidence).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use backstay_terms::Lsn;
use rustix::fs::{CWD, Mode, OFlags, fchmod, openat};

use super::error::RestoreError;
use super::owner::Owner;

const READ_MAX: u64 = 256 << 10;
const SAID_CHARACTERS_MAX: usize = 2000;

/// The log from where this run began.
#[derive(Debug)]
pub(super) struct ServerLog {
    path: PathBuf,
    begins: u64,
}

impl ServerLog {
    /// Opens the file for the server to append to.
    pub(super) fn open(path: &Path, owner: Owner) -> Result<(Self, File), RestoreError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let file = openat(CWD, path, flags, mode).map_err(RestoreError::io("open", path))?;
        let owned = fchmod(&file, mode).and_then(|()| owner.take(&file));
        owned.map_err(RestoreError::io("set owner and mode of", path))?;
        let file = File::from(file);
        let begins = file.metadata().map_err(RestoreError::io("look at", path))?.len();
        let path = path.to_owned();
        Ok((Self { path, begins }, file))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Why the server ended, as it said itself.
    pub(super) fn last_words(&self) -> String {
        last_words(&self.text())
    }

    /// Why the server pauses, as it said itself: settings that are too low are a warning to it.
    pub(super) fn pause_words(&self) -> String {
        let text = self.text();
        said(&text, &["WARNING:  "]).unwrap_or_else(|| last_words(&text))
    }

    /// Where the server said that it stopped replaying.
    pub(super) fn stopped_at(&self) -> Option<Lsn> {
        stopped_at(&self.text())
    }

    /// Whether the server said that it stopped replaying, for whatever target.
    pub(super) fn says_stopped(&self) -> bool {
        self.text().contains("recovery stopping ")
    }

    fn text(&self) -> String {
        let mut bytes = Vec::new();
        // A log that cannot be read is an empty one: it only explains what went wrong elsewhere.
        let _ = File::open(&self.path).and_then(|mut file| {
            let end = file.seek(SeekFrom::End(0))?;
            file.seek(SeekFrom::Start(self.begins.max(end.saturating_sub(READ_MAX))))?;
            file.take(READ_MAX).read_to_end(&mut bytes)
        });
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The last fatal message with what explains it, or else the last line.
fn last_words(text: &str) -> String {
    said(text, &["FATAL:  ", "PANIC:  "]).unwrap_or_else(|| {
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        short(last.unwrap_or("it wrote nothing into its log"))
    })
}

/// The last message of these severities, with the detail and hint that follow it.
fn said(text: &str, severities: &[&str]) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let of_these = |line: &&str| message(line, severities).is_some_and(is_a_cause);
    let at = lines.iter().rposition(of_these)?;
    let mut said = message(lines.get(at)?, severities)?.to_owned();
    for more in lines.iter().skip(at + 1).map_while(|line| explanation(line)) {
        said = format!("{said}; {more}");
    }
    Some(short(&said))
}

fn message<'a>(line: &'a str, severities: &[&str]) -> Option<&'a str> {
    let at = severities.iter().filter_map(|word| line.find(word)).min()?;
    line.get(at..)
}

fn explanation(line: &str) -> Option<&str> {
    message(line, &["DETAIL:  ", "HINT:  "])
}

// Our own attempts to connect are refused with these while the server comes up or goes down.
fn is_a_cause(message: &str) -> bool {
    let ours = ["FATAL:  the database system is ", "FATAL:  terminating "];
    !ours.iter().any(|begins| message.starts_with(begins))
}

fn stopped_at(text: &str) -> Option<Lsn> {
    let line = text
        .lines()
        .rev()
        .find(|line| line.contains("recovery stopping "))?;
    let (_, lsn) = line.split_once("(LSN) \"")?;
    lsn.split('"').next()?.parse().ok()
}

fn short(text: &str) -> String {
    text.chars().take(SAID_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-11-23 22:00:00.000 UTC [7] LOG:  starting point-in-time recovery to WAL location (LSN) \"0/5000000\"
2026-11-23 22:00:00.100 UTC [9] FATAL:  the database system is starting up
2026-11-23 22:00:00.200 UTC [7] FATAL:  recovery ended before configured recovery target was reached
2026-11-23 22:00:00.200 UTC [7] HINT:  Look again.
2026-11-23 22:00:00.300 UTC [6] LOG:  startup process (PID 7) exited with exit code 1
2026-11-23 22:00:00.301 UTC [9] FATAL:  the database system is shutting down
2026-11-23 22:00:00.400 UTC [6] LOG:  database system is shut down
";

    #[test]
    fn the_cause_is_found_among_our_own_refusals() {
        let expected =
            "FATAL:  recovery ended before configured recovery target was reached; HINT:  Look again.";
        assert_eq!(last_words(LOG), expected);
        assert_eq!(
            last_words("postgres: no such option\n\n"),
            "postgres: no such option"
        );
        assert_eq!(last_words(""), "it wrote nothing into its log");
    }

    #[test]
    fn the_place_where_recovery_stopped_is_read() {
        let line = "LOG:  recovery stopping after WAL location (LSN) \"0/3000F28\"\n";
        assert_eq!(stopped_at(line), Some(Lsn(0x3000F28)));
        assert_eq!(
            stopped_at("LOG:  recovery stopping after reaching consistency\n"),
            None
        );
    }
}
