//! Runs the built program where something is mounted that nobody else sees.

use crate::program::{Place, Run};
use backstay_testkit::pg::Owner;
use backstay_testkit::skipped;
use std::process::Command;

/// Runs the program after the shell's `mount` commands, in a namespace of its own; none where this user may not mount.
pub fn mounted(place: &Place, mount: &str, arguments: &[&str]) -> Option<Run> {
    let unshare = match Owner::find() {
        Owner::Ourselves => "-rm",
        Owner::Postgres { .. } => "-m",
    };
    let allowed = Command::new("unshare").args([unshare, "true"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        skipped(mount, "it needs a namespace, which this machine refuses");
        return None;
    }
    let own = place.command(&[]);
    let mut command = Command::new("unshare");
    command.args([unshare, "sh", "-ec", &format!("{mount}; exec \"$0\" \"$@\"")]);
    command.arg(own.get_program()).args(arguments);
    command.current_dir(&place.directory).env_clear();
    command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("TZ", "UTC");
    command.env("HOME", &place.directory).env("USER", "tester");
    Some(place.finish(command))
}
