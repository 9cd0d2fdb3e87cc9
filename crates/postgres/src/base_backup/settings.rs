//! What BASE_BACKUP leaves out and a restore wants to know: settings and configuration files outside the data directory.
//!
//! Promise: never fails a backup. What the role may not read is noted, with the file's name.
//! Not here: applying them (restore).

use serde::Serialize;

use crate::connection::{Connection, Mode};
use crate::conninfo::Conninfo;
use crate::error::PostgresError;
use crate::replication::command::literal;
use crate::wire::Rows;

const SETTINGS: &str =
    "SELECT name, setting, unit, source, sourcefile FROM pg_catalog.pg_settings ORDER BY name";

/// Files that settings came from, and the three that the server names, where they lie outside the data directory.
pub(crate) const FILES: &str = "SELECT DISTINCT f FROM (
    SELECT sourcefile AS f FROM pg_catalog.pg_settings WHERE sourcefile IS NOT NULL UNION ALL
    SELECT setting FROM pg_catalog.pg_settings WHERE name IN ('config_file', 'hba_file', 'ident_file')) files
    WHERE f LIKE '/%' AND NOT starts_with(f, (SELECT setting || '/' FROM pg_catalog.pg_settings WHERE name = 'data_directory'))
    ORDER BY f";

/// The role that initdb made has this number for ever (BOOTSTRAP_SUPERUSERID, pg_authid.dat).
const SUPERUSER: &str = "SELECT rolname FROM pg_catalog.pg_roles WHERE oid = 10";

const NO_RIGHT: &str = "configuration files not captured: the role is not a member of pg_read_all_settings";

/// What was captured.
#[derive(Debug, Default)]
pub(super) struct Captured {
    /// JSON of `Setting`s; none when the server could not be asked.
    pub(super) settings: Option<Vec<u8>>,
    /// The role that initdb made.
    pub(super) superuser: Option<String>,
    /// Path at the server and text.
    pub(super) files: Vec<(String, Vec<u8>)>,
    /// What could not be captured.
    pub(super) notes: Vec<String>,
}

#[derive(Serialize)]
struct Setting<'a> {
    name: Option<&'a str>,
    setting: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sourcefile: Option<&'a str>,
}

/// Asks over an ordinary connection.
pub(super) async fn capture(conninfo: &Conninfo) -> Captured {
    let mut captured = Captured::default();
    if let Err(error) = capture_into(&mut captured, conninfo).await {
        captured.notes.push(format!("settings not captured: {error}"));
    }
    captured
}

async fn capture_into(captured: &mut Captured, conninfo: &Conninfo) -> Result<(), PostgresError> {
    let mut connection = Connection::connect(conninfo, Mode::Sql).await?;
    let sets = connection.simple_query(SETTINGS).await?;
    captured.settings = sets.first().and_then(|rows| json(rows).ok());
    let asked = connection.simple_query(SUPERUSER).await?;
    captured.superuser = names(&asked).next().map(str::to_owned);
    // Without this right the names of the files are hidden, as if there were none.
    if !names(&sets).any(|name| name == "data_directory") {
        captured.notes.push(NO_RIGHT.to_owned());
    }
    let sets = connection.simple_query(FILES).await?;
    let paths = sets
        .iter()
        .flat_map(|set| &set.rows)
        .filter_map(|row| row.first()?.clone());
    for path in paths {
        match read_file(&mut connection, &path).await {
            Ok(text) => captured.files.push((path, text)),
            Err(error) => captured.notes.push(format!("{path} not captured: {error}")),
        }
    }
    connection.close().await;
    Ok(())
}

fn names(sets: &[Rows]) -> impl Iterator<Item = &str> {
    sets.iter()
        .flat_map(|set| &set.rows)
        .filter_map(|row| row.first()?.as_deref())
}

async fn read_file(connection: &mut Connection, path: &str) -> Result<Vec<u8>, PostgresError> {
    let sets = connection
        .simple_query(&format!("SELECT pg_catalog.pg_read_file({})", literal(path)))
        .await?;
    let text = sets.first().and_then(|set| set.rows.first()?.first()?.clone());
    Ok(text.unwrap_or_default().into_bytes())
}

fn json(rows: &Rows) -> serde_json::Result<Vec<u8>> {
    let setting = |row| Setting {
        name: rows.value(row, "name"),
        setting: rows.value(row, "setting"),
        unit: rows.value(row, "unit"),
        source: rows.value(row, "source"),
        sourcefile: rows.value(row, "sourcefile"),
    };
    serde_json::to_vec_pretty(&(0..rows.rows.len()).map(setting).collect::<Vec<_>>())
}
