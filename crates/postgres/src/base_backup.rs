//! Base backups over the replication protocol.
