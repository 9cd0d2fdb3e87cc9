//! The settings that a restored copy recovers with.
//!
//! Promise: one marked block at the end of postgresql.auto.conf, where the last word wins; replaced, never doubled. It
//! names timeline and target, and cuts every tie to the source: a copy neither archives nor follows nor waits.
//! Not here: the other configuration files (configuration).

#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use backstay_source::{Recovery, RecoveryAction, RecoveryStop, WalDelivery};
use backstay_terms::Lsn;

use super::error::RestoreError;
use super::limits::StandbyLimits;

const BEGINS: &str = "# backstay restore begins: what a restored copy recovers with";
const ENDS: &str = "# backstay restore ends";

/// A tie to the source, with the value that cuts it and the major versions that know it.
struct Tie(&'static str, &'static str, std::ops::RangeInclusive<u32>);

const TIES: [Tie; 17] = [
    // Never archives into the source's place.
    Tie("archive_mode", "off", 13..=18),
    Tie("archive_command", "", 13..=18),
    Tie("archive_library", "", 15..=18),
    // Never cleans up the source's archive, and ends or delays its recovery by no script, trigger or setting of the source.
    Tie("archive_cleanup_command", "", 13..=18),
    Tie("recovery_end_command", "", 13..=18),
    Tie("recovery_min_apply_delay", "0", 13..=18),
    Tie("promote_trigger_file", "", 13..=15),
    // Follows nobody, subscribes to nobody, waits for nobody.
    Tie("primary_conninfo", "", 13..=18),
    Tie("primary_slot_name", "", 13..=18),
    Tie("synchronous_standby_names", "", 13..=18),
    Tie("synchronized_standby_slots", "", 17..=18),
    Tie("sync_replication_slots", "off", 17..=18),
    Tie("max_logical_replication_workers", "0", 13..=18),
    // Is reached from this machine only, writes inside its own directory, and can be asked while it recovers.
    Tie("listen_addresses", "localhost", 13..=18),
    Tie("log_directory", "log", 13..=18),
    Tie("stats_temp_directory", "pg_stat_tmp", 13..=14),
    Tie("hot_standby", "on", 13..=18),
];

// The server refuses two targets, and takes the settings in the order of the file: first none, then ours.
const TARGETS: [&str; 5] = [
    "recovery_target",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
];

/// The file with our block at its end.
pub(super) fn with_block(
    existing: &[u8],
    recovery: &Recovery,
    limits: &StandbyLimits,
    major: u32,
) -> Result<Vec<u8>, RestoreError> {
    let mut text = without_block(existing);
    if text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(block(recovery, limits, major)?.as_bytes());
    Ok(text)
}

#[derive(PartialEq, Eq)]
enum Kept {
    Yes,
    No,
}

fn without_block(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut kept = Kept::Yes;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let word = line.trim_ascii();
        if word == BEGINS.as_bytes() {
            kept = Kept::No;
        }
        if kept == Kept::Yes {
            out.extend_from_slice(line);
        }
        if word == ENDS.as_bytes() {
            kept = Kept::Yes;
        }
    }
    out
}

fn block(recovery: &Recovery, limits: &StandbyLimits, major: u32) -> Result<String, RestoreError> {
    let known = TIES.iter().filter(|Tie(_, _, majors)| majors.contains(&major));
    let mut lines: Vec<(&str, String)> = known
        .map(|Tie(name, value, _)| (*name, (*value).to_owned()))
        .collect();
    lines.extend(limits.settings().map(|(name, value)| (name, value.to_string())));
    let (target, value) = target(recovery.stop);
    let others = TARGETS.iter().filter(|name| **name != target);
    lines.extend(others.map(|name| (*name, String::new())));
    lines.push((target, value));
    lines.push(("recovery_target_inclusive", inclusive(recovery.stop).to_owned()));
    lines.push(("recovery_target_timeline", recovery.timeline.to_string()));
    lines.push(("recovery_target_action", action(recovery.action).to_owned()));
    lines.push(("restore_command", command(&recovery.delivery).to_owned()));
    write_down(&lines)
}

fn write_down(lines: &[(&'static str, String)]) -> Result<String, RestoreError> {
    let mut text = format!("{BEGINS}\n");
    for (name, value) in lines {
        // A String takes whatever is written to it.
        let _ = writeln!(text, "{name} = {}", quoted(name, value)?);
    }
    text.push_str(ENDS);
    text.push('\n');
    Ok(text)
}

fn target(stop: RecoveryStop) -> (&'static str, String) {
    match stop {
        RecoveryStop::Consistent => ("recovery_target", "immediate".to_owned()),
        RecoveryStop::After(at) | RecoveryStop::Before(at) => {
            ("recovery_target_lsn", Lsn::from(at).to_string())
        }
    }
}

fn inclusive(stop: RecoveryStop) -> &'static str {
    match stop {
        RecoveryStop::Before(_) => "off",
        RecoveryStop::After(_) | RecoveryStop::Consistent => "on",
    }
}

fn action(action: RecoveryAction) -> &'static str {
    match action {
        RecoveryAction::Pause => "pause",
        RecoveryAction::Promote => "promote",
        RecoveryAction::Shutdown => "shutdown",
    }
}

fn command(delivery: &WalDelivery) -> &str {
    match delivery {
        // Archive recovery wants a command; this one has nothing, so the server takes what lies in pg_wal.
        WalDelivery::Placed => "false",
        WalDelivery::Command(command) => command,
    }
}

/// A value as the server reads it back (guc-file.l, DeescapeQuotedString): quotes doubled, backslashes escaped.
fn quoted(name: &'static str, value: &str) -> Result<String, RestoreError> {
    if value.chars().any(char::is_control) {
        let reason = "it holds a line break or another control character";
        return Err(RestoreError::Setting { name, reason });
    }
    Ok(format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''")))
}
