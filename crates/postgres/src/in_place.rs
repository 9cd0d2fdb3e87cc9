//! Tablespaces that are directories of `pg_tblspc` itself (allow_in_place_tablespaces), where a base backup leaves them out.
//!
//! `BASE_BACKUP` with a tablespace map sends nothing below `pg_tblspc`, and until 15 it lists only the links in there as
//! tablespaces (do_pg_backup_start, sendDir): a restore would lack the rows without a word. From 16 on it lists both.
//! Promise: a tablespace that would be left out is named; one made after the start of a backup is in its WAL.
//! Not here: tablespaces elsewhere, which every version sends.

use backstay_terms::ServerVersion;

use crate::connection::{Connection, Mode};
use crate::conninfo::Conninfo;
use crate::error::PostgresError;
use crate::replication::version::{InPlace, tablespaces_in_place};

/// Every role may read this; the location of such a tablespace is relative.
const IN_PLACE: &str = "SELECT spcname FROM pg_catalog.pg_tablespace
    WHERE pg_catalog.pg_tablespace_location(oid) LIKE 'pg!_tblspc/%' ESCAPE '!' ORDER BY oid";

/// Refuses a server that has tablespaces which its base backups leave out.
///
/// # Errors
/// `InPlaceTablespaces`, and every error of connecting and asking.
pub(crate) async fn refuse_left_out(
    conninfo: &Conninfo,
    version: ServerVersion,
) -> Result<(), PostgresError> {
    match tablespaces_in_place(version) {
        InPlace::Sent => return Ok(()),
        InPlace::LeftOut => {}
    }
    let mut connection = Connection::connect(conninfo, Mode::Sql).await?;
    let found = left_out(&mut connection).await;
    connection.close().await;
    let names = found?;
    match names.is_empty() {
        true => Ok(()),
        false => Err(PostgresError::InPlaceTablespaces {
            names,
            major: version.major(),
        }),
    }
}

/// The tablespaces that lie in `pg_tblspc`.
async fn left_out(connection: &mut Connection) -> Result<Vec<String>, PostgresError> {
    let sets = connection.simple_query(IN_PLACE).await?;
    let rows = sets.into_iter().flat_map(|set| set.rows);
    Ok(rows.filter_map(|row| row.into_iter().next()?).collect())
}
