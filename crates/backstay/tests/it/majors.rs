//! The loop of a backup and two restores with every supported major version of PostgreSQL.
//!
//! Promise: each version runs its own programs, and its copies hold the rows of the source, also those in a tablespace.
//! Not here: fetching the programs (scripts/setup, tests/servers).

use crate::live::{CONFIRMED, start_stream, stop_stream, until};
use crate::program::Place;
use backstay_clock::SystemClock;
use backstay_postgres::{Connection, Mode, PostgresDirectory, RestoreOptions};
use backstay_testkit::pg::{PgOptions, PgServer, Room, free_port, parse, programs_of};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ROWS: &str = "SELECT count(*) || ' ' || md5(string_agg(n || p, ',' ORDER BY n)) FROM";
const SPACE: &str = "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'apart'";

/// A server of one major version with its repository.
pub struct Major {
    pub programs: PathBuf,
    pub server: PgServer,
    pub place: Place,
    _programs_room: Room,
}

impl Major {
    pub async fn start(major: u32) -> Major {
        let room = Room::new();
        let programs = programs_of(major, &room);
        let server = PgServer::start_with(PgOptions {
            programs: Some(programs.clone()),
            ..PgOptions::default()
        })
        .await;
        let version = server.value("SHOW server_version_num").await;
        assert_eq!(version[..2], major.to_string());
        let place = Place::with_program(server.room().path().join("place"));
        let run = place.finish(place.command(&["init", "main", "--postgresql", &server.conninfo_text()]));
        assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
        Major {
            programs,
            server,
            place,
            _programs_room: room,
        }
    }

    /// Starts a copy by a restore; gives what each query finds in it.
    pub async fn restored(&self, into: &str, words: &[&str], queries: &[&str]) -> Vec<String> {
        let port = free_port().to_string();
        let programs = self.programs.to_str().unwrap();
        let fixed = [
            "restore",
            "main",
            "--into",
            into,
            "--start",
            "--json",
            "--progress",
            "none",
        ];
        let where_it_runs = ["--port", &port, "--bindir", programs];
        let words = [&fixed, words, &where_it_runs[..]].concat();
        let run = self.place.finish(self.place.command(&words));
        assert_eq!(run.exit, 0, "{words:?}: {}{}", run.out, run.err);
        let told: serde_json::Value = serde_json::from_str(&run.out).unwrap();
        let conninfo = parse(told["evidence"]["connect"].as_str().unwrap());
        let mut connection = Connection::connect(&conninfo, Mode::Sql).await.unwrap();
        let mut found = Vec::new();
        for query in queries {
            let sets = connection.simple_query(query).await.unwrap();
            found.push(sets[0].rows[0][0].clone().unwrap_or_default());
        }
        stop(&self.place.directory.join(into)).await;
        found
    }
}

async fn stop(copy: &Path) {
    let options = RestoreOptions::new(copy, Arc::new(SystemClock::new()));
    PostgresDirectory::new(options).stop().await.unwrap();
}

async fn a_dropped_table_comes_back(major: u32) {
    let major = Major::start(major).await;
    let Major { server, place, .. } = &major;
    let stream = start_stream(place);
    let apart = server.room().dir("apart");
    server
        .sql(&format!("CREATE TABLESPACE apart LOCATION '{}'", apart.display()))
        .await;
    let made = "AS SELECT n, repeat(n::text, 20) AS p FROM generate_series(1, 5000) AS n";
    server.sql(&format!("CREATE TABLE here {made}")).await;
    server
        .sql(&format!("CREATE TABLE there TABLESPACE apart {made}"))
        .await;
    let run = place.run("backup main --progress none");
    assert_eq!(run.exit, 0, "{}", run.err);
    for table in ["here", "there"] {
        let more = format!("INSERT INTO {table} SELECT n, 'after' FROM generate_series(5001, 9000) AS n");
        server.sql(&more).await;
    }
    let rows: Vec<String> = ["here", "there"]
        .iter()
        .map(|table| format!("{ROWS} {table}"))
        .collect();
    let wanted = [server.value(&rows[0]).await, server.value(&rows[1]).await];
    let position = format!("lsn:{}", server.value("SELECT pg_current_wal_insert_lsn()").await);
    // The record that is aimed at: before the first one of the drop, whose lock would hide the table from a paused copy.
    server
        .sql("SELECT pg_logical_emit_message(false, 'backstay', 'here')")
        .await;
    let moment = server.value("SELECT clock_timestamp()").await;
    server.sql("DROP TABLE here, there").await;
    until(server, CONFIRMED, "true").await;
    stop_stream(stream);

    let queries = [&rows[0], &rows[1], SPACE, "SELECT pg_is_in_recovery()"];
    let by_time = ["--to", &moment, "--action", "promote"];
    let by_position = ["--to", &position, "--action", "pause"];
    for (into, words, recovering) in [("time", by_time, "f"), ("position", by_position, "t")] {
        let found = major.restored(into, &words, &queries).await;
        assert_eq!(found[..2], wanted, "{into}");
        assert!(
            found[2].contains(&format!("/place/{into}")),
            "{into}: {}",
            found[2]
        );
        assert_eq!(found[3], recovering, "{into}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_of_postgresql_13_comes_back_by_time_and_by_position() {
    a_dropped_table_comes_back(13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_of_postgresql_14_comes_back_by_time_and_by_position() {
    a_dropped_table_comes_back(14).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_of_postgresql_16_comes_back_by_time_and_by_position() {
    a_dropped_table_comes_back(16).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_of_postgresql_17_comes_back_by_time_and_by_position() {
    a_dropped_table_comes_back(17).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_of_postgresql_18_comes_back_by_time_and_by_position() {
    a_dropped_table_comes_back(18).await;
}
