//! What a started copy says about itself.
//!
//! Promise: "reached" is said only when the replayed position is at the target: a server also pauses when its settings
//! are too low for the log, long before it.
//! Not here: waiting and deadlines (server).

use std::path::Path;
use std::time::Duration;

use backstay_clock::{Clock, Deadline};
use backstay_source::{Recovery, RecoveryAction, RecoveryStop, SourceErrorKind};
use backstay_terms::Lsn;

use super::error::RestoreError;
use super::owner::USER_DEFAULT;
use crate::connection::{Connection, Mode};
use crate::conninfo::Conninfo;
use crate::error::{PostgresError, SqlState};

/// A record may begin behind the header of its page, which the end of the record before does not count.
const PAGE_HEADER_BYTES_MAX: u64 = 40;
const TABLES_MAX: u32 = 1000;
const COUNTING_MAX: Duration = Duration::from_secs(30);
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
const LOCK_NOT_AVAILABLE: SqlState = SqlState(*b"55P03");
const QUERY_CANCELED: SqlState = SqlState(*b"57014");
const NOT_IN_RECOVERY: SqlState = SqlState(*b"55000");
const NO_SUCH_ROLE: SqlState = SqlState(*b"28000");
const NO_SUCH_DATABASE: SqlState = SqlState(*b"3D000");

const DATABASES: &str =
    "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND datconnlimit <> -2 ORDER BY 1";

/// How a copy is reached.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// The socket's directory.
    sockets: String,
    /// The number in the socket's name.
    port: u16,
    /// Roles to try, the likeliest last; never empty.
    users: Vec<String>,
    /// Databases to enter by, the likeliest last; never empty.
    entrances: Vec<String>,
}

impl Address {
    /// For a cluster whose superuser is probably this one. A role can have been renamed since the backup, and a cluster
    /// need not have a database `postgres`.
    pub(super) fn new(sockets: &Path, port: u16, superuser: Option<&str>) -> Self {
        let mut users = vec![USER_DEFAULT.to_owned()];
        users.extend(superuser.filter(|name| *name != USER_DEFAULT).map(str::to_owned));
        Self {
            sockets: sockets.display().to_string(),
            port,
            users,
            entrances: vec!["template1".to_owned(), "postgres".to_owned()],
        }
    }

    fn user(&self) -> &str {
        self.users.last().map_or(USER_DEFAULT, String::as_str)
    }

    fn entrance(&self) -> &str {
        self.entrances.last().map_or("postgres", String::as_str)
    }

    /// Passes over what the server does not know; whether something is left to try.
    fn passes_over(&mut self, error: &PostgresError) -> bool {
        let candidates = match error.sqlstate() {
            Some(NO_SUCH_ROLE) => &mut self.users,
            Some(NO_SUCH_DATABASE) => &mut self.entrances,
            _ => return false,
        };
        if candidates.len() <= 1 {
            return false;
        }
        if let Some(passed) = candidates.pop()
            && error.sqlstate() == Some(NO_SUCH_ROLE)
        {
            tracing::warn!(role = %passed, instead = %self.user(), "the copy does not let this role in, so another one asks it");
        }
        true
    }

    /// Connection string to the database that was entered.
    pub(super) fn conninfo_of_entrance(&self) -> String {
        self.conninfo(self.entrance())
    }

    /// Connection string to a database.
    pub(super) fn conninfo(&self, database: &str) -> String {
        let (sockets, port) = (word(&self.sockets), self.port);
        let (user, database) = (word(self.user()), word(database));
        format!("host={sockets} port={port} user={user} dbname={database}")
    }

    async fn connect(&self, database: &str) -> Result<Connection, PostgresError> {
        let conninfo = Conninfo::parse(&self.conninfo(database), &|_| None)?;
        Connection::connect(&conninfo, Mode::Sql).await
    }
}

/// A value of a connection string: quoted where it must be.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
    }
}

/// Where a server is on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Observed {
    /// The position up to which it has replayed.
    pub(super) replayed: Lsn,
    /// What it does.
    pub(super) doing: Doing,
    /// The time of the last transaction replayed, in RFC 3339, UTC. A server that stops after a record, by position, leaves
    /// that record out of it (recoveryStopsAfter of xlogrecovery.c).
    pub(super) last_transaction: Option<String>,
}

/// What a server does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Doing {
    /// It does not answer yet.
    #[default]
    Starting,
    /// It replays.
    Replaying,
    /// It has stopped replaying and is read-only.
    Paused,
    /// It is a primary.
    Promoted,
    /// It has reached its target and ended.
    ShutDown,
}

/// Where an observed server is, seen from its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// On its way.
    Underway,
    /// There.
    Reached,
    /// It stopped before.
    StoppedElsewhere,
}

impl Observed {
    /// Whether it is where it should be.
    pub(super) fn progress(&self, recovery: &Recovery) -> Progress {
        match (self.doing, recovery.action) {
            (Doing::Starting | Doing::Replaying, _) => Progress::Underway,
            (Doing::ShutDown, RecoveryAction::Shutdown) => Progress::Reached,
            (Doing::Promoted, RecoveryAction::Promote) => Progress::Reached,
            (Doing::Paused, RecoveryAction::Pause) if self.is_at(recovery.stop) => Progress::Reached,
            _ => Progress::StoppedElsewhere,
        }
    }

    fn is_at(&self, stop: RecoveryStop) -> bool {
        match stop {
            RecoveryStop::Consistent => true,
            RecoveryStop::After(at) => self.replayed > Lsn::from(at),
            RecoveryStop::Before(at) => self.replayed.plus(PAGE_HEADER_BYTES_MAX) >= Lsn::from(at),
        }
    }
}

/// Asks a server that may not answer yet.
pub(super) async fn observe(address: &mut Address, major: u32) -> Result<Observed, RestoreError> {
    match ask(address, major).await {
        // Recovery ended between two calls of one query.
        Err(error) if error.sqlstate() == Some(NOT_IN_RECOVERY) => Ok(Observed::default()),
        Err(error) if error.kind() == SourceErrorKind::Unreachable => Ok(Observed::default()),
        Err(error) if address.passes_over(&error) => Ok(Observed::default()),
        asked => Ok(asked?),
    }
}

async fn ask(address: &Address, major: u32) -> Result<Observed, PostgresError> {
    let paused = match major {
        13 => "pg_catalog.pg_is_wal_replay_paused()",
        _ => "pg_catalog.pg_get_wal_replay_pause_state() = 'paused'",
    };
    let sql = format!(
        "SELECT pg_catalog.pg_is_in_recovery() AS recovering, pg_catalog.pg_last_wal_replay_lsn() AS replayed,
         CASE WHEN pg_catalog.pg_is_in_recovery() THEN {paused} END AS paused,
         pg_catalog.to_char(pg_catalog.pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC',
                            'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS last_transaction"
    );
    let mut connection = address.connect(address.entrance()).await?;
    let sets = connection.simple_query(&sql).await?;
    connection.close().await;
    let rows = sets.into_iter().next().unwrap_or_default();
    let value = |name| rows.value(0, name);
    let replayed = value("replayed").and_then(|lsn| lsn.parse().ok());
    Ok(Observed {
        replayed: replayed.unwrap_or_default(),
        doing: match (value("recovering"), value("paused")) {
            (Some("f"), _) => Doing::Promoted,
            (_, Some("t")) => Doing::Paused,
            _ => Doing::Replaying,
        },
        last_transaction: value("last_transaction").map(str::to_owned),
    })
}

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// Database, table, rows.
    pub(super) rows: Vec<(String, String, u64)>,
    /// Tables that were left out, with the reason.
    pub(super) uncounted: Vec<String>,
}

/// Live rows of the users' tables. At most 1000 tables of a database, small ones first, and none begun after half a minute.
/// A table that takes longer, or is locked, is named with the reason; one that cannot be read is an error.
pub(super) async fn count_rows(address: &Address, clock: &dyn Clock) -> Result<Counted, RestoreError> {
    let deadline = Deadline::after(clock, COUNTING_MAX);
    let mut connection = address.connect(address.entrance()).await?;
    let databases = column(&mut connection, DATABASES).await?;
    connection.close().await;
    let mut counted = Counted::default();
    for database in databases {
        let mut connection = address.connect(&database).await?;
        for table in tables(&mut connection).await? {
            let answer = match deadline.is_over(clock) {
                true => Answer::LeftOut("there was no time left to count it"),
                false => count(&mut connection, &table).await?,
            };
            match answer {
                Answer::Rows(rows) => counted.rows.push((database.clone(), table, rows)),
                Answer::LeftOut(why) => counted.uncounted.push(format!("{database}.{table}: {why}")),
            }
        }
        connection.close().await;
    }
    counted.rows.sort();
    Ok(counted)
}

/// What became of one table.
enum Answer {
    Rows(u64),
    LeftOut(&'static str),
}

// Unlogged tables cannot be read in recovery, and are empty after it.
async fn tables(connection: &mut Connection) -> Result<Vec<String>, PostgresError> {
    let (statement, lock) = (COUNTING_MAX.as_millis(), LOCK_WAIT_MAX.as_millis());
    let timeouts = format!("SET statement_timeout = {statement}; SET lock_timeout = {lock}");
    connection.simple_query(&timeouts).await?;
    let sql = format!(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'r' AND c.relpersistence = 'p'
         AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' ORDER BY c.relpages, 1 LIMIT {TABLES_MAX}"
    );
    column(connection, &sql).await
}

async fn count(connection: &mut Connection, table: &str) -> Result<Answer, PostgresError> {
    let sql = format!("SELECT pg_catalog.count(*) FROM ONLY {table}");
    match column(connection, &sql).await {
        Ok(values) => {
            let rows = values.first().and_then(|rows| rows.parse().ok());
            Ok(rows.map_or(
                Answer::LeftOut("the server did not answer with a number"),
                Answer::Rows,
            ))
        }
        Err(error) if error.sqlstate() == Some(QUERY_CANCELED) => {
            Ok(Answer::LeftOut("it took too long to count"))
        }
        // Replay holds the locks of transactions that were open at the target: a DROP that comes next is one of them.
        Err(error) if error.sqlstate() == Some(LOCK_NOT_AVAILABLE) => Ok(Answer::LeftOut(
            "a transaction that was open at the target holds its lock; promote the copy to read it",
        )),
        Err(error) => Err(error),
    }
}

async fn column(connection: &mut Connection, sql: &str) -> Result<Vec<String>, PostgresError> {
    let sets = connection.simple_query(sql).await?;
    let rows = sets.into_iter().flat_map(|set| set.rows);
    Ok(rows.filter_map(|row| row.into_iter().next().flatten()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstay_source::WalDelivery;
    use backstay_terms::Position;

    fn progress(doing: Doing, replayed: u64, stop: RecoveryStop, action: RecoveryAction) -> Progress {
        let observed = Observed {
            replayed: Lsn(replayed),
            doing,
            last_transaction: None,
        };
        observed.progress(&Recovery {
            timeline: 1,
            stop,
            action,
            delivery: WalDelivery::Placed,
            timeline_highest: 1,
        })
    }

    #[test]
    fn a_pause_below_the_target_is_not_the_target() {
        use RecoveryAction::Pause;
        let after = RecoveryStop::After(Position(0x5000));
        assert_eq!(
            progress(Doing::Paused, 0x5000, after, Pause),
            Progress::StoppedElsewhere
        );
        assert_eq!(progress(Doing::Paused, 0x5038, after, Pause), Progress::Reached);
        assert_eq!(
            progress(Doing::Replaying, 0x5038, after, Pause),
            Progress::Underway
        );
        let before = RecoveryStop::Before(Position(0x6028));
        assert_eq!(progress(Doing::Paused, 0x6000, before, Pause), Progress::Reached);
        assert_eq!(
            progress(Doing::Paused, 0x5FF8, before, Pause),
            Progress::StoppedElsewhere
        );
    }

    #[test]
    fn a_primary_counts_only_where_promotion_was_asked_for() {
        let stop = RecoveryStop::After(Position(0x5000));
        assert_eq!(
            progress(Doing::Promoted, 0x5038, stop, RecoveryAction::Promote),
            Progress::Reached
        );
        assert_eq!(
            progress(Doing::Promoted, 0x5038, stop, RecoveryAction::Pause),
            Progress::StoppedElsewhere
        );
    }

    #[test]
    fn odd_names_are_quoted_in_the_connection_string() {
        let address = Address::new(Path::new("/tmp/x"), 5433, Some("it's me"));
        assert_eq!(
            address.conninfo("postgres"),
            r"host=/tmp/x port=5433 user='it\'s me' dbname=postgres"
        );
    }
}
