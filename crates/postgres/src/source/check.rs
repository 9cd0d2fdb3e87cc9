//! What would stop or weaken a backup or a stream of this server, and what to type against it.
//!
//! Promise: never fails; being unreachable is a finding. Changes nothing at the server.
//! Not here: the repository's side of a check (engine).

use backstay_source::Finding;

use crate::base_backup::settings::FILES;
use crate::connection::{Connection, Mode};
use crate::conninfo::Conninfo;
use crate::error::{PostgresError, SqlState};
use crate::in_place;
use crate::replication::command::{SlotName, identifier, is_standby, literal, server_version, show};
use crate::replication::version::Dialect;
use crate::wire::Rows;

/// A base backup needs two walsenders, the stream one.
const WALSENDERS_NEEDED: i64 = 3;

/// What an ordinary connection tells in one row.
const FACTS: &str = "SELECT
    current_setting('wal_level') AS wal_level,
    current_setting('full_page_writes') AS full_page_writes,
    current_setting('max_slot_wal_keep_size') AS max_slot_wal_keep_size,
    current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_catalog.pg_stat_replication) AS free_walsenders,
    current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_catalog.pg_replication_slots) AS free_slots,
    pg_catalog.pg_has_role(current_user, 'pg_read_all_settings', 'MEMBER') AS reads_settings,
    pg_catalog.has_function_privilege('pg_catalog.pg_read_file(text)', 'EXECUTE') AS reads_files";

/// Looks at everything.
pub(super) async fn findings(conninfo: &Conninfo, slot: Option<&SlotName>) -> Vec<Finding> {
    let mut findings = Vec::new();
    replication(conninfo, &mut findings).await;
    match ask(conninfo, slot).await {
        Ok((facts, slot_rows)) => {
            settings(&facts, &mut findings);
            rights(&facts, conninfo, &mut findings);
            findings.extend(slot.map(|name| slot_finding(name, &slot_rows, &facts)));
        }
        // The same reason needs one remedy.
        Err(error) if findings.iter().any(|finding| finding.what == error.to_string()) => {}
        Err(error) => findings.push(Finding::warning(
            "sql-connection",
            format!("no ordinary connection, so settings cannot be captured: {error}"),
            error.advice(),
        )),
    }
    findings
}

async fn replication(conninfo: &Conninfo, findings: &mut Vec<Finding>) {
    let mut connection = match Connection::connect(conninfo, Mode::Replication).await {
        Ok(connection) => connection,
        Err(error) => return findings.push(unreachable(&error, conninfo.user())),
    };
    findings.push(Finding::good(
        "server",
        format!("{} answers as a replication server", connection.host()),
    ));
    findings.push(version(&connection));
    if let Ok(version) = server_version(&connection)
        && let Err(error @ PostgresError::InPlaceTablespaces { .. }) =
            in_place::refuse_left_out(conninfo, version).await
    {
        findings.push(Finding::failure("tablespaces", error.to_string(), error.advice()));
    }
    if let Ok(version) = server_version(&connection)
        && is_standby(&mut connection, version).await.is_ok_and(|is| is)
    {
        let error = PostgresError::Standby;
        findings.push(Finding::failure("primary", error.to_string(), error.advice()));
    }
    if let Ok(checksums) = show(&mut connection, "data_checksums").await {
        findings.push(match checksums.as_str() {
            "on" => Finding::good("data-checksums", "data pages carry checksums"),
            _ => Finding::warning(
                "data-checksums",
                "data pages carry no checksums: damage on the server's disk cannot be noticed",
                "stop the server, run pg_checksums --enable, then take a full backup",
            ),
        });
    }
    connection.close().await;
}

fn version(connection: &Connection) -> Finding {
    let known = server_version(connection).and_then(|version| Dialect::of(version).map(|_| version));
    match known {
        Ok(version) => Finding::good("version", format!("PostgreSQL {version}")),
        Err(error) => Finding::failure("version", error.to_string(), error.advice()),
    }
}

fn unreachable(error: &PostgresError, user: &str) -> Finding {
    let id = match error {
        PostgresError::ReplicationDenied { .. } => "replication-role",
        PostgresError::NoReplication { .. } | PostgresError::WalSendersBusy { .. } => "wal-senders",
        PostgresError::Server {
            sqlstate, message, ..
        } if *sqlstate == SqlState::INVALID_AUTHORIZATION => return not_let_in(error, message, user),
        PostgresError::Server { sqlstate, .. } if *sqlstate == SqlState::TOO_MANY_CONNECTIONS => {
            "wal-senders"
        }
        _ => "server",
    };
    Finding::failure(id, error.to_string(), error.advice())
}

/// Only the rules of pg_hba.conf name that file or a method that failed; else it is the role, absent or without LOGIN.
fn not_let_in(error: &PostgresError, message: &str, user: &str) -> Finding {
    if message.contains("pg_hba.conf") || message.contains("authentication failed") {
        let fix = format!("add to pg_hba.conf: host replication {user} ADDRESS scram-sha-256, then reload");
        return Finding::failure("pg-hba", error.to_string(), fix);
    }
    let quoted = identifier(user);
    let fix = format!(
        "CREATE ROLE {quoted} LOGIN REPLICATION; or, if it is there, ALTER ROLE {quoted} LOGIN; or user=NAME in the connection \
         string"
    );
    Finding::failure("role", error.to_string(), fix)
}

async fn ask(conninfo: &Conninfo, slot: Option<&SlotName>) -> Result<(Rows, Rows), PostgresError> {
    let mut connection = Connection::connect(conninfo, Mode::Sql).await?;
    let facts = format!("{FACTS}, (SELECT string_agg(f, ', ') FROM ({FILES}) outside) AS files_outside");
    let facts = connection.simple_query(&facts).await?.pop().unwrap_or_default();
    let name = literal(slot.map_or("", SlotName::as_str));
    let sql = format!(
        "SELECT slot_type, active, wal_status FROM pg_catalog.pg_replication_slots WHERE slot_name = {name}"
    );
    let slots = connection.simple_query(&sql).await?.pop().unwrap_or_default();
    connection.close().await;
    Ok((facts, slots))
}

fn settings(facts: &Rows, findings: &mut Vec<Finding>) {
    let value = |column| facts.value(0, column).unwrap_or_default();
    findings.push(match value("wal_level") {
        "minimal" => Finding::failure(
            "wal-level",
            "wal_level is minimal: the server writes too little WAL for a backup",
            "ALTER SYSTEM SET wal_level = 'replica'; ALTER SYSTEM SET max_wal_senders = 10; then restart the server",
        ),
        level => Finding::good("wal-level", format!("wal_level is {level}")),
    });
    // A server without any has refused the replication connection and is known for it.
    if findings.iter().all(|finding| finding.id != "wal-senders") {
        findings.push(walsenders(value("free_walsenders").parse().unwrap_or(0)));
    }
    findings.push(match value("max_slot_wal_keep_size") {
        "-1" => Finding::warning(
            "max-slot-wal-keep-size",
            "max_slot_wal_keep_size is -1: while we are away, WAL may fill the server's disk",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '64GB'; SELECT pg_reload_conf();",
        ),
        size => Finding::good(
            "max-slot-wal-keep-size",
            format!("max_slot_wal_keep_size is {size}"),
        ),
    });
    if value("full_page_writes") == "off" {
        findings.push(Finding::warning(
            "full-page-writes",
            "full_page_writes is off: a backup from a standby fails, and a crash can tear pages",
            "ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf();",
        ));
    }
}

fn walsenders(free: i64) -> Finding {
    let fix = "ALTER SYSTEM SET max_wal_senders = 10; then restart the server";
    match free {
        ..=1 => Finding::failure(
            "wal-senders",
            format!("{free} free WAL senders: a backup needs two"),
            fix,
        ),
        free if free < WALSENDERS_NEEDED => {
            let what = format!("{free} free WAL senders: a backup and the stream together need three");
            Finding::warning("wal-senders", what, fix)
        }
        free => Finding::good("wal-senders", format!("{free} free WAL senders")),
    }
}

fn rights(facts: &Rows, conninfo: &Conninfo, findings: &mut Vec<Finding>) {
    let (user, database) = (conninfo.user(), conninfo.database());
    let has = |column| facts.value(0, column) == Some("t");
    // Those inside the data directory come with the base, whatever the role may read.
    let unread = facts.value(0, "files_outside").filter(|_| !has("reads_files"));
    findings.push(match (has("reads_settings"), unread) {
        (true, None) => Finding::good("configuration-files", "settings and configuration files are captured"),
        (true, Some(files)) => Finding::warning(
            "configuration-files",
            format!("outside the data directory and not captured: {files}"),
            format!(
                "keep copies of them yourself; or, if the role may read every file of the server, in the database \"{database}\": \
                 GRANT EXECUTE ON FUNCTION pg_read_file(text) TO \"{user}\"; GRANT pg_read_server_files TO \"{user}\";"
            ),
        ),
        (false, _) => Finding::warning(
            "configuration-files",
            "the role cannot see where the configuration files are, so they are not captured",
            format!("GRANT pg_monitor TO \"{user}\";"),
        ),
    });
}

fn slot_finding(name: &SlotName, rows: &Rows, facts: &Rows) -> Finding {
    let recreate = format!("SELECT pg_drop_replication_slot('{name}'); then take a new base backup");
    match (rows.value(0, "slot_type"), rows.value(0, "wal_status")) {
        (None, _)
            if facts
                .value(0, "free_slots")
                .is_some_and(|free| free.starts_with(['0', '-'])) =>
        {
            Finding::failure(
                "slot",
                format!("the slot {name} does not exist and all slots are in use"),
                "ALTER SYSTEM SET max_replication_slots = 10; then restart the server",
            )
        }
        (None, _) => Finding::good("slot", format!("the slot {name} will be created by the stream")),
        (Some("logical"), _) => Finding::failure(
            "slot",
            format!("the slot {name} is a logical one"),
            "name another slot for this service",
        ),
        (Some(_), Some("lost")) => Finding::failure(
            "slot",
            format!("the server has removed WAL that the slot {name} should keep"),
            recreate,
        ),
        (Some(_), Some("unreserved")) => Finding::warning(
            "slot",
            format!("the slot {name} is about to lose WAL"),
            "start the stream now, and raise max_slot_wal_keep_size",
        ),
        _ => Finding::good("slot", format!("the slot {name} keeps WAL for us")),
    }
}
