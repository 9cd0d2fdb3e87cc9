//! Replication commands with typed answers.
//!
//! Promise: names and texts are quoted here and nowhere else; a missing or malformed column is an error that names it.
//! Not here: streaming (start with `start_replication` and `Connection::start_copy_both`).

use std::fmt;
use std::str::FromStr;

use backstay_terms::{Lsn, ServerVersion, SystemIdentifier, Timeline, WalSegmentSize};
use bytes::Bytes;

use crate::connection::{Answer, Connection};
use crate::error::{PostgresError, SqlState};
use crate::wire::Rows;

/// What `IDENTIFY_SYSTEM` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerIdentity {
    /// The number that initdb gave the cluster.
    pub system: SystemIdentifier,
    /// The timeline in use.
    pub timeline: Timeline,
    /// Everything before this is flushed at the server (on a standby: replayed or received).
    pub flushed: Lsn,
}

/// A timeline history file as the server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryFile {
    /// The timeline whose ancestors it lists.
    pub timeline: Timeline,
    /// The bytes of the file.
    pub content: Bytes,
}

/// The name of a replication slot: 1 to 63 of a-z, 0-9 and underscore (ReplicationSlotValidateName).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SlotName(String);

impl SlotName {
    /// The name, if PostgreSQL allows it.
    pub fn new(name: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        ((1..=63).contains(&name.len()) && name.bytes().all(allowed)).then(|| Self(name.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How long a slot lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotLife {
    /// Until it is dropped.
    Permanent,
    /// Until its connection ends.
    Temporary,
}

/// From when on a slot keeps WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotReserve {
    /// At once, from the last checkpoint's redo position.
    Now,
    /// From the first stream on.
    AtFirstUse,
}

/// Where a physical slot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotPosition {
    /// WAL from here on is kept; none: nothing is reserved yet.
    pub restart: Option<Lsn>,
    /// The timeline of that position, where the server tells it.
    pub timeline: Option<Timeline>,
}

/// What to do about a slot to drop that somebody uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotInUse {
    /// Leave it.
    Refuse,
    /// Wait for them to leave it.
    Wait,
}

/// What dropping a slot did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotDropped {
    /// It is gone now.
    Now,
    /// There was none.
    WasAbsent,
}

/// `IDENTIFY_SYSTEM`.
///
/// # Errors
/// The connection's, or `Protocol` for an answer that cannot be read.
pub async fn identify_system(connection: &mut Connection) -> Result<ServerIdentity, PostgresError> {
    let sets = connection.simple_query("IDENTIFY_SYSTEM").await?;
    let rows = first(&sets, "IDENTIFY_SYSTEM")?;
    Ok(ServerIdentity {
        system: SystemIdentifier(parsed(rows, "systemid")?),
        timeline: Timeline(parsed(rows, "timeline")?),
        flushed: parsed(rows, "xlogpos")?,
    })
}

/// `SHOW name`, on either kind of connection.
///
/// # Errors
/// `Server` for an unknown name.
pub async fn show(connection: &mut Connection, name: &str) -> Result<String, PostgresError> {
    let sets = connection
        .simple_query(&format!("SHOW {}", identifier(name)))
        .await?;
    let value = first(&sets, "SHOW")?
        .rows
        .first()
        .and_then(|row| row.first().cloned().flatten());
    value.ok_or_else(|| PostgresError::Protocol(format!("SHOW {name} gave no value")))
}

/// Whether the server is a standby. 13 does not say: there it shows at the end of a base backup.
///
/// # Errors
/// Every error of asking.
pub async fn is_standby(connection: &mut Connection, version: ServerVersion) -> Result<bool, PostgresError> {
    if version.major() < 14 {
        return Ok(false);
    }
    Ok(show(connection, "in_hot_standby").await? == "on")
}

/// The server's version, from what it reported at login.
///
/// # Errors
/// `Protocol` when that cannot be read.
pub fn server_version(connection: &Connection) -> Result<ServerVersion, PostgresError> {
    connection.version().map(ServerVersion)
}

/// The size of WAL segments.
///
/// # Errors
/// `Protocol` for a size that PostgreSQL does not have.
pub async fn wal_segment_size(connection: &mut Connection) -> Result<WalSegmentSize, PostgresError> {
    let text = show(connection, "wal_segment_size").await?;
    let size = size_in_bytes(&text).and_then(WalSegmentSize::new);
    size.ok_or_else(|| PostgresError::Protocol(format!("wal_segment_size is {text:?}")))
}

/// `CREATE_REPLICATION_SLOT … PHYSICAL`.
///
/// # Errors
/// `Server` 42710 when there is one of that name, 53400 when all are in use.
pub async fn create_slot(
    connection: &mut Connection,
    name: &SlotName,
    life: SlotLife,
    reserve: SlotReserve,
) -> Result<(), PostgresError> {
    let life = match life {
        SlotLife::Permanent => "",
        SlotLife::Temporary => " TEMPORARY",
    };
    // The options without parentheses are understood by 13 to 18.
    let reserve = match reserve {
        SlotReserve::Now => " RESERVE_WAL",
        SlotReserve::AtFirstUse => "",
    };
    let name = identifier(name.as_str());
    connection
        .simple_query(&format!("CREATE_REPLICATION_SLOT {name}{life} PHYSICAL{reserve}"))
        .await
        .map(drop)
}

/// `DROP_REPLICATION_SLOT`.
///
/// # Errors
/// `Server` 55006 while somebody uses it, unless that is waited for.
pub async fn drop_slot(
    connection: &mut Connection,
    name: &SlotName,
    in_use: SlotInUse,
) -> Result<SlotDropped, PostgresError> {
    let wait = match in_use {
        SlotInUse::Refuse => "",
        SlotInUse::Wait => " WAIT",
    };
    let name = identifier(name.as_str());
    match connection
        .simple_query(&format!("DROP_REPLICATION_SLOT {name}{wait}"))
        .await
    {
        Ok(_) => Ok(SlotDropped::Now),
        Err(error) if error.sqlstate() == Some(SqlState::UNDEFINED_OBJECT) => Ok(SlotDropped::WasAbsent),
        Err(error) => Err(error),
    }
}

/// `READ_REPLICATION_SLOT` (15 and later: see `version::SlotReading`), on a replication connection.
///
/// # Errors
/// The connection's.
pub async fn read_slot(
    connection: &mut Connection,
    name: &SlotName,
) -> Result<Option<SlotPosition>, PostgresError> {
    let sets = connection
        .simple_query(&format!("READ_REPLICATION_SLOT {}", identifier(name.as_str())))
        .await?;
    let rows = first(&sets, "READ_REPLICATION_SLOT")?;
    slot_position(rows, "slot_type", "restart_tli")
}

/// The same for every version, on an ordinary connection.
///
/// # Errors
/// The connection's.
pub async fn read_slot_in_view(
    connection: &mut Connection,
    name: &SlotName,
) -> Result<Option<SlotPosition>, PostgresError> {
    let name = literal(name.as_str());
    let sql = format!(
        "SELECT slot_type, restart_lsn FROM pg_catalog.pg_replication_slots WHERE slot_name = {name}"
    );
    let sets = connection.simple_query(&sql).await?;
    slot_position(first(&sets, "pg_replication_slots")?, "slot_type", "")
}

fn slot_position(rows: &Rows, kind: &str, timeline: &str) -> Result<Option<SlotPosition>, PostgresError> {
    if rows.value(0, kind).is_none() {
        return Ok(None);
    }
    let restart = rows
        .value(0, "restart_lsn")
        .map(|_| parsed(rows, "restart_lsn"))
        .transpose()?;
    let timeline = rows
        .value(0, timeline)
        .map(|_| parsed(rows, timeline).map(Timeline))
        .transpose()?;
    Ok(Some(SlotPosition { restart, timeline }))
}

/// `TIMELINE_HISTORY`.
///
/// # Errors
/// `Server` 58P01 when the server does not have the file; there is none for timeline 1.
pub async fn timeline_history(
    connection: &mut Connection,
    timeline: Timeline,
) -> Result<HistoryFile, PostgresError> {
    connection
        .send(&format!("TIMELINE_HISTORY {}", timeline.0))
        .await?;
    let mut content = None;
    loop {
        match connection.next_message().await? {
            // The text may hold a restore point's name in any encoding: it stays bytes.
            Answer::Row(mut values) if values.len() == 2 => content = values.swap_remove(1),
            Answer::Columns(_) | Answer::Complete(_) | Answer::Notice(_) => {}
            Answer::Ready => break,
            other => return Err(crate::connection::unexpected(&other)),
        }
    }
    let content = content.ok_or_else(|| PostgresError::protocol("TIMELINE_HISTORY gave no content"))?;
    Ok(HistoryFile { timeline, content })
}

/// The text of `START_REPLICATION … PHYSICAL`; give it to `Connection::start_copy_both`.
pub fn start_replication(slot: Option<&SlotName>, from: Lsn, timeline: Timeline) -> String {
    let slot = slot
        .map(|slot| format!("SLOT {} ", identifier(slot.as_str())))
        .unwrap_or_default();
    format!("START_REPLICATION {slot}PHYSICAL {from} TIMELINE {timeline}")
}

/// A text in single quotes.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name in double quotes.
pub fn identifier(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn first<'a>(sets: &'a [Rows], command: &str) -> Result<&'a Rows, PostgresError> {
    sets.first()
        .ok_or_else(|| PostgresError::Protocol(format!("{command} gave no result set")))
}

/// A value of a result set's first row that must be there.
pub(crate) fn parsed<T: FromStr>(rows: &Rows, column: &str) -> Result<T, PostgresError> {
    let text = rows
        .value(0, column)
        .ok_or_else(|| PostgresError::Protocol(format!("no value for {column}")))?;
    text.parse()
        .map_err(|_| PostgresError::Protocol(format!("{column} is {text:?}")))
}

/// "16MB" in bytes, as `SHOW` prints sizes.
fn size_in_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_postgresql_refuses_are_refused() {
        for name in ["", "Upper", "a-b", "a b", "ä", "a\"b", &"x".repeat(64)] {
            assert_eq!(SlotName::new(name), None);
        }
        assert_eq!(SlotName::new("backstay_1").unwrap().to_string(), "backstay_1");
    }

    #[test]
    fn texts_are_quoted_so_that_they_cannot_end_early() {
        assert_eq!(
            (literal("a'b\\"), identifier("a\"b")),
            ("'a''b\\'".to_owned(), "\"a\"\"b\"".to_owned())
        );
        assert_eq!(
            start_replication(SlotName::new("s").as_ref(), Lsn(0x1_0000_0028), Timeline(3)),
            "START_REPLICATION SLOT \"s\" PHYSICAL 1/28 TIMELINE 3"
        );
    }

    #[test]
    fn sizes_are_read_as_the_server_prints_them() {
        let sizes = ["16MB", "1GB", "512kB", "8192B", "1TB", "MB"].map(size_in_bytes);
        assert_eq!(
            sizes,
            [
                Some(16 << 20),
                Some(1 << 30),
                Some(512 << 10),
                Some(8192),
                None,
                None
            ]
        );
    }
}
