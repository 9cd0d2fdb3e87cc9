//! Where our replication slot stands at the server.
//!
//! Promise: reads only.
//! Not here: making and dropping it (replication::command).

use backstay_source::SourceErrorKind;
use backstay_terms::Lsn;

use crate::connection::{Connection, Mode};
use crate::conninfo::Conninfo;
use crate::error::PostgresError;
use crate::replication::command::{
    SlotName, SlotPosition, identify_system, literal, read_slot, server_version,
};
use crate::replication::version::{Dialect, SlotReading};

/// A physical slot as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    /// Whether somebody streams from it now.
    pub use_now: SlotUse,
    /// WAL from here on is kept; none: nothing is reserved yet.
    pub restart: Option<Lsn>,
    /// Bytes of WAL that the server keeps because of it.
    pub kept: Option<u64>,
    /// `reserved`, `extended`, `unreserved` or `lost`; none before the first use, and over a replication connection.
    pub wal_status: Option<String>,
}

/// Whether a slot is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotUse {
    /// Somebody streams from it.
    Active,
    /// Nobody does.
    Idle,
    /// A replication connection does not tell.
    Untold,
}

/// Asks on an ordinary connection. Where none is let in, as for a role that has only a `replication` line in pg_hba.conf, servers
/// of 15 and later answer on a replication connection, with less.
pub(super) async fn state(conninfo: &Conninfo, name: &SlotName) -> Result<Option<SlotState>, PostgresError> {
    match Connection::connect(conninfo, Mode::Sql).await {
        Ok(connection) => state_in_view(connection, name).await,
        Err(refused) if refused.kind() == SourceErrorKind::Unreachable => Err(refused),
        Err(refused) => match replication_that_tells(conninfo).await {
            Some(connection) => state_by_command(connection, name).await,
            None => Err(refused),
        },
    }
}

/// A replication connection to a server that has `READ_REPLICATION_SLOT`.
async fn replication_that_tells(conninfo: &Conninfo) -> Option<Connection> {
    let connection = Connection::connect(conninfo, Mode::Replication).await.ok()?;
    let dialect = Dialect::of(server_version(&connection).ok()?).ok()?;
    (dialect.reads_slots() == SlotReading::Command).then_some(connection)
}

async fn state_by_command(
    mut connection: Connection,
    name: &SlotName,
) -> Result<Option<SlotState>, PostgresError> {
    let position = read_slot(&mut connection, name).await?;
    let flushed = identify_system(&mut connection).await?.flushed;
    connection.close().await;
    Ok(position.map(|SlotPosition { restart, .. }| SlotState {
        use_now: SlotUse::Untold,
        restart,
        kept: restart.map(|restart| flushed.0.saturating_sub(restart.0)),
        wal_status: None,
    }))
}

async fn state_in_view(
    mut connection: Connection,
    name: &SlotName,
) -> Result<Option<SlotState>, PostgresError> {
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
