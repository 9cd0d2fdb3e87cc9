//! Why a server refuses a replication connection, in words that a person can act on.
//!
//! Promise: asks the server at most one question, over an ordinary connection; where that is refused too, the server's
//! own words stand. `wal_level = minimal` and walsenders that are all in use answer alike (53300), and only the first
//! wants a person: the settings tell them apart, never the text, which is translated.
//! Not here: what the login itself says (open).

use super::{Connection, Mode, open};
use crate::conninfo::Conninfo;
use crate::error::{PostgresError, SqlState};

/// The error that stands for `error`, which ended the attempt to connect for replication.
pub(super) async fn explain(conninfo: &Conninfo, error: PostgresError) -> PostgresError {
    let PostgresError::Server {
        sqlstate, message, ..
    } = &error
    else {
        return error;
    };
    if *sqlstate == SqlState::INSUFFICIENT_PRIVILEGE {
        let (user, message) = (conninfo.user.clone(), message.clone());
        return PostgresError::ReplicationDenied { user, message };
    }
    if *sqlstate != SqlState::TOO_MANY_CONNECTIONS {
        return error;
    }
    match settings(conninfo).await {
        Ok(Some(settings)) => settings.refusal(),
        Ok(None) | Err(_) => error,
    }
}

/// What decides whether there are walsenders.
struct Settings {
    host: String,
    wal_level: String,
    walsenders_max: u32,
}

impl Settings {
    fn refusal(self) -> PostgresError {
        let Settings {
            host,
            wal_level,
            walsenders_max: limit,
        } = self;
        match limit {
            0 => PostgresError::NoReplication { host, wal_level },
            limit => PostgresError::WalSendersBusy { host, limit },
        }
    }
}

async fn settings(conninfo: &Conninfo) -> Result<Option<Settings>, PostgresError> {
    let mut connection = open::connect_any(conninfo, Mode::Sql).await?;
    let sql = "SELECT current_setting('wal_level') AS level, current_setting('max_wal_senders') AS senders";
    let rows = connection.simple_query(sql).await?.pop().unwrap_or_default();
    let host = Connection::host(&connection).to_owned();
    connection.close().await;
    let number = rows.value(0, "senders").and_then(|number| number.parse().ok());
    Ok(rows
        .value(0, "level")
        .zip(number)
        .map(|(level, walsenders_max)| Settings {
            host,
            wal_level: level.to_owned(),
            walsenders_max,
        }))
}
