//! Where our replication slot stands at the server.
//!
//! Promise: reads only.
//! Not here: making and dropping it (replication::command).

use backstay_terms::Lsn;

use crate::connection::{Connection, Mode};
use crate::conninfo::Conninfo;
use crate::error::PostgresError;
use crate::replication::command::{SlotName, literal};

/// A physical slot as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    /// Whether somebody streams from it now.
    pub use_now: SlotUse,
    /// WAL from here on is kept; none: nothing is reserved yet.
    pub restart: Option<Lsn>,
    /// Bytes of WAL that the server keeps because of it.
    pub kept: Option<u64>,
    /// `reserved`, `extended`, `unreserved` or `lost`; none before the first use.
    pub wal_status: Option<String>,
}

/// Whether a slot is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotUse {
    /// Somebody streams from it.
    Active,
    /// Nobody does.
    Idle,
}

/// Asks on an ordinary connection.
pub(super) async fn state(conninfo: &Conninfo, name: &SlotName) -> Result<Option<SlotState>, PostgresError> {
    let mut connection = Connection::connect(conninfo, Mode::Sql).await?;
    let name = literal(name.as_str());
    // A standby has no current position of its own writing; its replayed one is what its slots are measured by.
    let sql = format!(
        "SELECT active, restart_lsn, wal_status, pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery() \
         THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END, restart_lsn) AS kept \
         FROM pg_catalog.pg_replication_slots WHERE slot_name = {name}"
    );
    let rows = connection.simple_query(&sql).await?.pop().unwrap_or_default();
    connection.close().await;
    let Some(active) = rows.value(0, "active") else {
        return Ok(None);
    };
    Ok(Some(SlotState {
        use_now: if active == "t" {
            SlotUse::Active
        } else {
            SlotUse::Idle
        },
        restart: rows.value(0, "restart_lsn").and_then(|lsn| lsn.parse().ok()),
        kept: rows.value(0, "kept").and_then(|kept| kept.parse().ok()),
        wal_status: rows.value(0, "wal_status").map(str::to_owned),
    }))
}
