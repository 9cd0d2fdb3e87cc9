//! Where a directory really lies: under every name that it has on this machine.
//!
//! Promise: only reads. A link, a mount of a directory at a second place or another spelling hides nothing: names are
//! compared as the table of mounts leads them, and directories by device and inode.
//! Not here: what must be apart from what (surroundings, inspect).

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The path without links, as far as it exists; what does not exist yet stays as it is named.
pub(super) fn resolved(path: &Path) -> PathBuf {
    // Only an empty path has no absolute form.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let known = path
        .ancestors()
        .find_map(|known| Some((known, fs::canonicalize(known).ok()?)));
    match known {
        None => path,
        Some((known, real)) => {
            let rest = path.strip_prefix(known).unwrap_or(Path::new(""));
            real.components().chain(rest.components()).collect()
        }
    }
}

/// Whether a path is a directory or lies below it, by whatever name. Both are resolved.
pub(super) fn lies_in(path: &Path, directory: &Path) -> bool {
    let identity = identity(directory);
    let is_it = |above: &Path| identity.is_some() && self::identity(above) == identity;
    names(path)
        .iter()
        .any(|name| name.starts_with(directory) || name.ancestors().any(is_it))
}

/// Whether one of two is the other or lies below it.
pub(super) fn overlap(one: &Path, other: &Path) -> bool {
    lies_in(one, other) || lies_in(other, one)
}

/// Every name of a resolved path, its own first. Where the system does not tell of its mounts, there is no other.
pub(super) fn names(path: &Path) -> Vec<PathBuf> {
    let mounts = parse(&fs::read("/proc/self/mountinfo").unwrap_or_default());
    let mut names = vec![path.to_owned()];
    names.extend(others(&mounts, path));
    names
}

/// Device and inode, links followed; none for what is not there.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let facts = fs::metadata(path).ok()?;
    Some((facts.dev(), facts.ino()))
}

/// A directory of a file system, and where it is mounted.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    device: Vec<u8>,
    root: PathBuf,
    point: PathBuf,
}

/// A table of mounts in the form of proc_pid_mountinfo(5), the one that hides the others last.
fn parse(table: &[u8]) -> Vec<Mount> {
    let mount = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ').skip(2);
        Some(Mount {
            device: fields.next()?.to_vec(),
            root: unescaped(fields.next()?),
            point: unescaped(fields.next()?),
        })
    };
    table.split(|byte| *byte == b'\n').filter_map(mount).collect()
}

/// Blank, tab, line feed and backslash are written as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let (mut plain, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match byte.filter(|_| *first == b'\\') {
            Some(byte) => {
                plain.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(plain))
}

fn others(mounts: &[Mount], path: &Path) -> Vec<PathBuf> {
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    // Of several at one place the last one counts.
    let Some(own) = above.max_by_key(|mount| mount.point.components().count()) else {
        return Vec::new();
    };
    let below = path.strip_prefix(&own.point).unwrap_or(Path::new(""));
    let in_device = own.root.join(below);
    let of_device = mounts.iter().filter(|mount| mount.device == own.device);
    of_device
        .filter_map(|mount| Some(joined(&mount.point, in_device.strip_prefix(&mount.root).ok()?)))
        .filter(|name| name != path)
        .collect()
}

/// Joining nothing must not leave a slash at the end.
fn joined(point: &Path, rest: &Path) -> PathBuf {
    point.components().chain(rest.components()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw - proc proc rw
30 22 8:2 / /disk\\040two rw - ext4 /dev/sda2 rw
31 22 8:1 /srv/repo/backups /mnt/b rw - ext4 /dev/sda1 rw
32 22 8:2 /deep /srv/repo/settled rw - ext4 /dev/sda2 rw
";

    #[test]
    fn a_path_has_a_name_for_each_mount_that_leads_to_it() {
        let mounts = parse(TABLE);
        assert_eq!(mounts.len(), 5);
        let others = |path: &str| others(&mounts, Path::new(path));
        assert_eq!(others("/mnt/b/x"), [Path::new("/srv/repo/backups/x")]);
        assert_eq!(others("/mnt/b"), [Path::new("/srv/repo/backups")]);
        assert_eq!(others("/srv/repo/backups/x"), [Path::new("/mnt/b/x")]);
        assert_eq!(others("/disk two/deep/x"), [Path::new("/srv/repo/settled/x")]);
        assert_eq!(others("/srv/repo/settled/x"), [Path::new("/disk two/deep/x")]);
        assert_eq!(others("/disk two/x"), Vec::<PathBuf>::new());
        assert_eq!(others("/srv/repo/other"), Vec::<PathBuf>::new());
        assert_eq!(others("/proc/self"), Vec::<PathBuf>::new());
    }

    #[test]
    fn names_with_blanks_and_backslashes_are_read_as_they_are() {
        let plain = |field: &[u8]| unescaped(field);
        assert_eq!(plain(b"/a\\040b\\134c"), Path::new("/a b\\c"));
        assert_eq!(plain(b"/a\\x\\04"), Path::new("/a\\x\\04"));
    }
}
