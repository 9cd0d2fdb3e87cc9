//! Who a server is, with the timelines it descends from.
//!
//! Promise: a history file that the server does not have is none; one that cannot be read is an error.
//! Not here: whether it is the server that was expected (attach).

use super::error::StreamError;
use crate::connection::Connection;
use crate::error::SqlState;
use crate::replication::command::{self, ServerIdentity};
use crate::timeline::History;
use backstay_source::{Ancestor, Identity, LogPlace};
use backstay_terms::{EngineKind, ServerVersion, Timeline, WalSegmentSize};
use bytes::Bytes;

/// A server, as far as a log needs it.
#[derive(Clone, Debug)]
pub(super) struct Lineage {
    pub(super) place: ServerIdentity,
    /// The history of its timeline.
    pub(super) history: Option<History>,
    pub(super) ancestors: Vec<Ancestor>,
}

impl Lineage {
    pub(super) fn identity(&self, version: ServerVersion, segment_size: WalSegmentSize) -> Identity {
        Identity {
            engine: EngineKind::Postgres,
            version: version.to_string(),
            place: LogPlace {
                system: self.place.system.0,
                timeline: self.place.timeline.0,
                position: self.place.flushed.into(),
            },
            segment_size: segment_size.bytes(),
            history: self.history.as_ref().map(bytes_of),
            ancestors: self.ancestors.clone(),
        }
    }
}

/// Who answers on a replication connection.
///
/// # Errors
/// The connection's, or `History` for a history file that cannot be read.
pub async fn identify(connection: &mut Connection) -> Result<Identity, StreamError> {
    let lineage = lineage(connection).await?;
    let version = command::server_version(connection)?;
    let segment_size = command::wal_segment_size(connection).await?;
    Ok(lineage.identity(version, segment_size))
}

pub(super) async fn lineage(connection: &mut Connection) -> Result<Lineage, StreamError> {
    let place = command::identify_system(connection).await?;
    let history = history_of(connection, place.timeline).await?;
    let mut ancestors = Vec::new();
    for ancestor in history.iter().flat_map(History::ancestors) {
        let own = history_of(connection, ancestor.timeline).await?;
        ancestors.push(Ancestor {
            timeline: ancestor.timeline.0,
            left_at: ancestor.until.into(),
            history: own.as_ref().map(bytes_of),
        });
    }
    Ok(Lineage {
        place,
        history,
        ancestors,
    })
}

/// The history file of a timeline; none for the first, and none if the server does not have it.
pub(super) async fn history_of(
    connection: &mut Connection,
    timeline: Timeline,
) -> Result<Option<History>, StreamError> {
    if timeline <= Timeline(1) {
        return Ok(None);
    }
    match command::timeline_history(connection, timeline).await {
        Ok(file) => Ok(Some(History::parse(timeline, &file.content)?)),
        Err(error) if error.sqlstate() == Some(SqlState::UNDEFINED_FILE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn bytes_of(history: &History) -> Bytes {
    Bytes::copy_from_slice(history.bytes())
}
