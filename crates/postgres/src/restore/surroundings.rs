//! Where a new directory lies: apart from every other server's, and from what the caller keeps; and whether the server's
//! user has a way there.
//!
//! Promise: only reads. Neither a link nor a mount on the way hides where it lies. Servers are known by their files, whether
//! they run or not.
//! Not here: what the directory itself holds (marker, inspect).

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::RestoreError;
use super::owner::Owner;
use super::whereabouts::{lies_in, names, resolved};

/// A directory that a restore neither lies in nor holds.
#[derive(Clone, Debug)]
pub struct Reserved {
    /// Where it is.
    pub directory: PathBuf,
    /// What it is, as in "lies in the repository".
    pub what: &'static str,
}

/// Refuses a directory in another server's files, or in or around what is reserved. `path` is resolved.
pub(super) fn refuse_if_not_apart(path: &Path, reserved: &[Reserved]) -> Result<(), RestoreError> {
    let refuse = |how: String, other: &Path| {
        let (path, other) = (path.to_owned(), other.to_owned());
        Err(RestoreError::NotApart { path, how, other })
    };
    for Reserved { directory, what } in reserved {
        let directory = resolved(directory);
        if lies_in(path, &directory) {
            return refuse(format!("lies in {what},"), &directory);
        }
        if lies_in(&directory, path) {
            return refuse(format!("holds {what},"), &directory);
        }
    }
    let names = names(path);
    for above in names.iter().flat_map(|name| name.ancestors().skip(1)) {
        if is_data_directory(above) {
            return refuse("lies in the data directory of a server,".to_owned(), above);
        }
        if is_tablespace(above) {
            return refuse("lies in a tablespace of a server,".to_owned(), above);
        }
    }
    Ok(())
}

fn is_data_directory(path: &Path) -> bool {
    let holds = |name: &str| fs::symlink_metadata(path.join(name)).is_ok();
    holds("PG_VERSION") && holds("global/pg_control")
}

/// A server keeps what is its own in a directory such as `PG_15_202209061` (TABLESPACE_VERSION_DIRECTORY).
fn is_tablespace(path: &Path) -> bool {
    let mut entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().to_str().is_some_and(is_version_directory))
}

fn is_version_directory(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbers = name.strip_prefix("PG_").and_then(|rest| rest.split_once('_'));
    numbers.is_some_and(|(major, catalog)| is_number(major) && is_number(catalog))
}

/// Refuses a directory to which the user who runs the server has no way. `path` is resolved.
pub(super) fn refuse_if_shut(path: &Path, owner: Owner, user: &str) -> Result<(), RestoreError> {
    let Owner::Other { user: id, group } = owner else {
        // Whoever may write there has a way there.
        return Ok(());
    };
    let mut above: Vec<&Path> = path.ancestors().skip(1).filter(|above| above.is_dir()).collect();
    above.reverse();
    for directory in above {
        if !may_enter(directory, id, group)? {
            return Err(RestoreError::Shut {
                directory: directory.to_owned(),
                user: user.to_owned(),
            });
        }
    }
    Ok(())
}

// Modes do not tell: there are lists of further rights. So a process of that user goes there.
fn may_enter(directory: &Path, user: u32, group: u32) -> Result<bool, RestoreError> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", ":"]).env_clear().stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.uid(user).gid(group).current_dir(directory);
    match command.status() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(RestoreError::io("run a shell in", directory)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_directories_that_servers_make_in_tablespaces_are_taken_for_them() {
        for name in ["PG_15_202209061", "PG_9_200"] {
            assert!(is_version_directory(name), "{name}");
        }
        for name in [
            "PG_VERSION",
            "PG_15",
            "PG_15_",
            "PG__1",
            "PG_15_x",
            "pg_15_202209061",
            "15_2",
        ] {
            assert!(!is_version_directory(name), "{name}");
        }
    }
}
