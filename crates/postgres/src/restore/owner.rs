//! Who owns the restored files and runs the server.
//!
//! Promise: PostgreSQL refuses to run as root, so as root everything goes to a user; otherwise to ourselves.
//! Not here: modes of files (tree).

use std::fs;
use std::os::fd::AsFd;

use rustix::fs::{Gid, Uid, fchown};
use rustix::io;

use super::error::RestoreError;

/// The user by default.
pub(super) const USER_DEFAULT: &str = "postgres";

/// Who owns the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// We do.
    Ourselves,
    /// Somebody else does, because we are root.
    Other {
        /// User id.
        user: u32,
        /// Group id.
        group: u32,
    },
}

impl Owner {
    /// The user's number.
    pub(super) fn user(self) -> u32 {
        match self {
            Self::Ourselves => rustix::process::geteuid().as_raw(),
            Self::Other { user, .. } => user,
        }
    }

    /// Ourselves, or as root the user of that name.
    pub(super) fn find(name: Option<&str>) -> Result<Self, RestoreError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Ourselves);
        }
        let name = name.unwrap_or(USER_DEFAULT);
        let refuse = |reason| RestoreError::Owner {
            user: name.to_owned(),
            reason,
        };
        // Users of a directory service are not in this file: name them by number.
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        match by_number(name).or_else(|| users.lines().find_map(|line| by_name(line, name))) {
            Some(Self::Other { user: 0, .. }) => Err(refuse("PostgreSQL refuses to run as root")),
            found => found.ok_or_else(|| refuse("there is no such user on this machine")),
        }
    }

    /// Makes this user the owner of an open file or directory.
    pub(super) fn take(self, file: impl AsFd) -> io::Result<()> {
        match self {
            Self::Ourselves => Ok(()),
            Self::Other { user, group } => {
                fchown(file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
            }
        }
    }
}

/// `user:group` in numbers.
fn by_number(name: &str) -> Option<Owner> {
    let (user, group) = name.split_once(':')?;
    Some(Owner::Other {
        user: user.parse().ok()?,
        group: group.parse().ok()?,
    })
}

fn by_name(line: &str, name: &str) -> Option<Owner> {
    let mut fields = line.split(':');
    let found = fields.next()? == name;
    let mut numbers = fields.skip(1).map(str::parse::<u32>);
    let (user, group) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    found.then_some(Owner::Other { user, group })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let line = "postgres:x:105:113:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash";
        let expected = Some(Owner::Other {
            user: 105,
            group: 113,
        });
        assert_eq!(by_name(line, "postgres"), expected);
        assert_eq!(by_name(line, "postgre"), None);
        assert_eq!(by_number("105:113"), expected);
        assert_eq!(by_number("postgres"), None);
    }
}
