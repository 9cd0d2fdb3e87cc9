//! What a data directory needs besides its data: configuration files and empty directories.
//!
//! Promise: nothing that the source sent is replaced. Debian and charts keep the configuration elsewhere, so a base
//! may come without any; its texts, where they could be read, are in `backstay/configuration`.
//! Not here: recovery settings (settings).

use super::error::RestoreError;
use super::tree::{Access, Tree};

const CONF: &str = "\
# Written by Backstay, because the base brought no postgresql.conf: its server keeps the file elsewhere.
# The texts that could be read there, and all settings, are in backstay/configuration.
# The settings of the recovery are in postgresql.auto.conf.
";

const HBA: &str = "\
# Written by Backstay, because the base brought no pg_hba.conf: its server keeps the file elsewhere.
# The text, where it could be read, is in backstay/configuration.
local all all peer
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
";

const IDENT: &str = "# Written by Backstay, because the base brought no pg_ident.conf.\n";

const FILES: [(&str, &str); 3] = [
    ("postgresql.conf", CONF),
    ("pg_hba.conf", HBA),
    ("pg_ident.conf", IDENT),
];

/// Directories that initdb makes, and that a backup may leave out because they are empty in it.
const DIRECTORIES: [&str; 15] = [
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical/mappings",
    "pg_logical/snapshots",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal/archive_status",
    // From 17 on; of no consequence before.
    "pg_wal/summaries",
];

/// Adds what is missing.
pub(super) fn complete(tree: &Tree) -> Result<(), RestoreError> {
    for directory in DIRECTORIES {
        tree.make_directory(directory.as_bytes(), Access::Owner)?;
    }
    for (name, text) in FILES {
        if tree.kind(name.as_bytes())?.is_none() {
            tree.write(name.as_bytes(), text.as_bytes())?;
        }
    }
    Ok(())
}
