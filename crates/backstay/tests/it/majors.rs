//! The loop of a backup and two restores with every supported major version of PostgreSQL.
//!
//! Promise: each version runs its own programs, and its copies hold the rows of the source, also those in a tablespace.
//! Not here: fetching the programs (scripts/setup, tests/servers).

use crate::live::{CONFIRMED, connect_to_copy, start_stream, stop_copy, stop_stream, until};
use crate::program::Place;
use backstay_testkit::pg::{PgOptions, PgServer, Room, free_port, programs_of};
use std::path::PathBuf;

const ROWS: &str = "SELECT count(*) || ' ' || md5(string_agg(n || p, ',' ORDER BY n)) FROM";
const SPACE: &str = "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'apart'";

/// A server of one major version with its repository.
struct Major {
    version: u32,
    programs: PathBuf,
    server: PgServer,
    place: Place,
    _programs_room: Room,
}

impl Major {
    async fn start(major: u32) -> Major {
        let room = Room::new();
        let programs = programs_of(major, &room);
        let server = PgServer::start_with(PgOptions {
            programs: Some(programs.clone()),
            conf: vec!["allow_in_place_tablespaces = on".to_owned()],
            ..PgOptions::default()
        })
        .await;
        let version = server.value("SHOW server_version_num").await;
        assert_eq!(version[..2], major.to_string());
        let place = Place::with_program(server.room().path().join("place")).serving(&server);
        Major {
            version: major,
            programs,
            server,
            place,
            _programs_room: room,
        }
    }

    /// Starts a copy by a restore; gives what each query finds in it.
    async fn restored(&self, into: &str, words: &[&str], queries: &[&str]) -> Vec<String> {
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
        let mut connection = connect_to_copy(&told).await;
        let mut found = Vec::new();
        for query in queries {
            let sets = connection.simple_query(query).await.unwrap();
            found.push(sets[0].rows[0][0].clone().unwrap_or_default());
        }
        stop_copy(&self.place, into).await;
        found
    }
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
    // What lies in pg_tblspc itself: sent from 16 on, else refused; see the end.
    let in_place = "CREATE TABLESPACE inside LOCATION ''";
    let mut tables = vec!["here", "there"];
    if major.version >= 16 {
        server.sql(in_place).await;
        server
            .sql(&format!("CREATE TABLE inside TABLESPACE inside {made}"))
            .await;
        tables.push("inside");
    }
    let run = place.run("backup main --progress none");
    assert_eq!(run.exit, 0, "{}", run.err);
    for table in &tables {
        let more = format!("INSERT INTO {table} SELECT n, 'after' FROM generate_series(5001, 9000) AS n");
        server.sql(&more).await;
    }
    let rows: Vec<String> = tables.iter().map(|table| format!("{ROWS} {table}")).collect();
    let mut wanted = Vec::new();
    for query in &rows {
        wanted.push(server.value(query).await);
    }
    let position = format!("lsn:{}", server.value("SELECT pg_current_wal_insert_lsn()").await);
    // The record that is aimed at: before the first one of the drop, whose lock would hide the table from a paused copy.
    server
        .sql("SELECT pg_logical_emit_message(false, 'backstay', 'here')")
        .await;
    let moment = server.value("SELECT clock_timestamp()").await;
    server.sql(&format!("DROP TABLE {}", tables.join(", "))).await;
    until(server, CONFIRMED, "true").await;
    stop_stream(stream);

    let queries: Vec<&str> = [SPACE, "SELECT pg_is_in_recovery()"]
        .into_iter()
        .chain(rows.iter().map(String::as_str))
        .collect();
    let by_time = ["--to", &moment, "--action", "promote"];
    let by_position = ["--to", &position, "--action", "pause"];
    for (into, words, recovering) in [("time", by_time, "f"), ("position", by_position, "t")] {
        let found = major.restored(into, &words, &queries).await;
        assert!(
            found[0].contains(&format!("/place/{into}")),
            "{into}: {}",
            found[0]
        );
        assert_eq!(found[1], recovering, "{into}");
        assert_eq!(found[2..], wanted, "{into}");
    }
    if major.version < 16 {
        server.sql(in_place).await;
        let run = place.run("backup main --progress none");
        assert_eq!(run.exit, 5, "{}{}", run.out, run.err);
        let said = format!(
            "tablespace \"inside\": a base backup of PostgreSQL {} leaves out",
            major.version
        );
        assert!(run.err.contains(&said), "{}", run.err);
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
