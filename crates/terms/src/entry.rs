//! An entry of a base: a file, directory or link, with its role and its path.
//!
//! Promise: an `EntryPath` is relative, has no empty, `.` or `..` component and no NUL byte, so that joining it to a
//! directory never leaves that directory. It is bytes: PostgreSQL allows names that are not UTF-8.
//! Not here: where a role's files go on a restore (the adapters).

use serde::{Deserialize, Serialize};
use std::fmt;

/// What an entry is for; with the path it identifies the entry within its backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryRole {
    /// Part of the data directory (for Redis and Qdrant: of the dump or snapshot).
    Data,
    /// Part of the tablespace with this object identifier; paths are relative to the tablespace.
    Tablespace(u32),
    /// A WAL segment of the base's own start..stop log, zero-padded to a whole segment.
    Wal,
    /// A timeline history file.
    History,
    /// Settings as the server reported them: JSON made by Backstay.
    Settings,
    /// The text of a configuration file that lies outside the data directory.
    Configuration,
    /// The server's own manifest of the base, byte for byte; kept in the tables, not in packs.
    ServerManifest,
}

/// What kind of file an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link with its target; only below `pg_tblspc`.
    Link(String),
}

/// A relative path that cannot leave its directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "PathForm", into = "PathForm")]
pub struct EntryPath(Vec<u8>);

/// A path is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the path {path:?} is refused: {reason}")]
pub struct EntryPathError {
    /// The path, with replacement characters where it is not UTF-8.
    pub path: String,
    /// Why.
    pub reason: &'static str,
}

/// Text where it is UTF-8, hexadecimal where it is not.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathForm {
    Text(String),
    Hex { hex: String },
}

impl EntryPath {
    /// The path, if it is relative and clean.
    pub fn new(path: impl Into<Vec<u8>>) -> Result<EntryPath, EntryPathError> {
        let path = path.into();
        let refuse = |reason| EntryPathError {
            path: String::from_utf8_lossy(&path).into_owned(),
            reason,
        };
        if path.is_empty() || path.len() > 4096 {
            return Err(refuse("it is empty or longer than 4096 bytes"));
        }
        if path.contains(&0) {
            return Err(refuse("it contains a NUL byte"));
        }
        for component in path.split(|b| *b == b'/') {
            match component {
                b"" => return Err(refuse("it is absolute or has an empty component")),
                b"." | b".." => return Err(refuse("it has a . or .. component")),
                _ => {}
            }
        }
        Ok(EntryPath(path))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, if it is UTF-8.
    pub fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl From<EntryPath> for PathForm {
    fn from(path: EntryPath) -> PathForm {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
        String::from_utf8(path.0).map_or_else(
            |e| PathForm::Hex {
                hex: hex(e.as_bytes()),
            },
            PathForm::Text,
        )
    }
}

impl TryFrom<PathForm> for EntryPath {
    type Error = String;
    fn try_from(form: PathForm) -> Result<Self, String> {
        let bytes = match form {
            PathForm::Text(text) => text.into_bytes(),
            PathForm::Hex { hex } => from_hex(&hex).ok_or("the hexadecimal form of a path is malformed")?,
        };
        EntryPath::new(bytes).map_err(|e| e.to_string())
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16)
                .ok()
                .filter(|_| pair.len() == 2)
        })
        .collect()
}

/// One entry of a base, as the source announced it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryHeader {
    /// What it is for.
    pub role: EntryRole,
    /// Where it lies within its role.
    pub path: EntryPath,
    /// File, directory or link.
    pub kind: EntryKind,
    /// The size in bytes; 0 for directories and links.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970-01-01 00:00:00 UTC.
    pub modified: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_that_leave_their_directory_are_refused() {
        let hostile: [&[u8]; 9] = [
            b"", b"/etc", b"..", b"a/../b", b"a//b", b"a/", b"./a", b"a/.", b"a\0b",
        ];
        for path in hostile {
            assert!(EntryPath::new(path).is_err(), "{path:?} was accepted");
        }
        assert!(EntryPath::new("base/1/1259_fsm").is_ok() && EntryPath::new("..a/.b").is_ok());
    }

    proptest! {
        #[test]
        fn any_accepted_path_is_read_back_from_json(bytes in proptest::collection::vec(any::<u8>(), 1..40)) {
            if let Ok(path) = EntryPath::new(bytes) {
                let json = serde_json::to_string(&path).unwrap();
                prop_assert_eq!(serde_json::from_str::<EntryPath>(&json).unwrap(), path);
            }
        }
    }
}
