//! Base backups over the replication protocol.
//!
//! Promise: see `BaseBackup`.
//! Not here: the repository.

mod tar;
