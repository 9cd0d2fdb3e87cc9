//! The settings that a server in recovery must have at least as high as its primary.
//!
//! Promise: taken from pg_control of the base. With less, hot standby pauses replay before the target ("insufficient
//! parameter settings").
//! Source: ControlFileData in catalog/pg_control.h, the same places in 13 to 18.
//! Not here: the rest of the file (control_file).

use crate::control_file::{ControlFile, ControlFileError};
use crate::wal::page::Fields;

/// What the primary had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StandbyLimits {
    pub(super) connections: u32,
    pub(super) worker_processes: u32,
    pub(super) wal_senders: u32,
    pub(super) prepared_transactions: u32,
    pub(super) locks_per_transaction: u32,
}

impl StandbyLimits {
    /// Reads the bytes of pg_control.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ControlFileError> {
        ControlFile::parse(bytes)?;
        let fields = Fields(bytes);
        Ok(Self {
            connections: fields.u32(180),
            worker_processes: fields.u32(184),
            wal_senders: fields.u32(188),
            prepared_transactions: fields.u32(192),
            locks_per_transaction: fields.u32(196),
        })
    }

    /// As settings.
    pub(super) fn settings(&self) -> [(&'static str, u32); 5] {
        [
            ("max_connections", self.connections),
            ("max_worker_processes", self.worker_processes),
            ("max_wal_senders", self.wal_senders),
            ("max_prepared_transactions", self.prepared_transactions),
            ("max_locks_per_transaction", self.locks_per_transaction),
        ]
    }
}
