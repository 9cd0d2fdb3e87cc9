//! Directories restored through the port, started by it, and asked.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use backstay_postgres::{PostgresDirectory, restore::Stopped};
use backstay_source::{RecoveryAction, RecoveryStop, Restore, SourceErrorKind, StartRequest, WalDelivery};
use backstay_terms::{EntryRole, Position};
use backstay_testkit::pg::{PgOptions, PgServer, Stop, run_to_end};

use crate::restore_kit::{
    Piece, ask, base, free_port, header, insert, need, options, pieces, place, place_one, recovery, restore,
    start, target, ticket, wal,
};

/// A server with a base at 100 rows and WAL for 300 more.
struct Origin {
    server: PgServer,
    pieces: Vec<Piece>,
    /// Start of the commit record of the second hundred.
    second: Position,
    /// The place before the third hundred.
    third: Position,
}

async fn origin() -> Origin {
    let server = PgServer::start().await;
    server.sql("CREATE TABLE t (n int)").await;
    insert(&server, 100).await;
    let mut pieces = base(&server, "base");
    let (second, third) = insert(&server, 100).await;
    insert(&server, 200).await;
    pieces.extend(wal(&server).await);
    Origin {
        server,
        pieces,
        second,
        third,
    }
}

fn rows(count: u64) -> Vec<(String, String, u64)> {
    vec![("postgres".to_owned(), "public.t".to_owned(), count)]
}

#[tokio::test]
async fn every_stop_and_every_action_ends_where_it_should() {
    use RecoveryAction::{Pause, Promote, Shutdown};
    let origin = origin().await;
    let cases = [
        (
            "a",
            RecoveryStop::After(origin.second),
            Pause,
            "paused",
            rows(200),
        ),
        (
            "b",
            RecoveryStop::Before(origin.second),
            Pause,
            "paused",
            rows(100),
        ),
        (
            "c",
            RecoveryStop::Before(origin.third),
            Promote,
            "promoted",
            rows(200),
        ),
        ("d", RecoveryStop::Consistent, Pause, "paused", rows(100)),
        ("e", RecoveryStop::Consistent, Promote, "promoted", rows(100)),
        (
            "f",
            RecoveryStop::After(origin.second),
            Shutdown,
            "shut down",
            vec![],
        ),
    ];
    for (name, stop, action, state, rows) in cases {
        let directory = target(&origin.server, name);
        let recovery = recovery(stop, action);
        restore(&directory, &origin.pieces, &recovery);
        let evidence = start(&directory, &recovery).await.unwrap();
        assert_eq!(
            (evidence.state.as_str(), evidence.rows.clone()),
            (state, rows),
            "{name}"
        );
        if let RecoveryStop::After(at) = stop {
            assert!(evidence.replayed >= at, "{name}: {}", evidence.replayed);
        }
        let expected = if action == Shutdown {
            Stopped::WasNotRunning
        } else {
            Stopped::Now
        };
        assert_eq!(directory.stop().await.unwrap(), expected, "{name}");
        assert_eq!(directory.stop().await.unwrap(), Stopped::WasNotRunning);
        let sockets = evidence
            .connect
            .strip_prefix("host=")
            .unwrap()
            .split(' ')
            .next()
            .unwrap();
        assert!(!Path::new(sockets).exists(), "{sockets} is left");
        fs::remove_dir_all(directory.directory()).unwrap();
    }
}

#[tokio::test]
async fn a_restored_copy_is_isolated_and_has_the_slots_of_its_primary() {
    let origin = origin().await;
    // What the source had must neither win nor stand in the way.
    origin
        .server
        .sql("ALTER SYSTEM SET archive_command = 'touch /tmp/archived'")
        .await;
    origin
        .server
        .sql("ALTER SYSTEM SET recovery_target_time = '2020-01-01 00:00:00'")
        .await;
    origin.server.sql("ALTER SYSTEM SET max_connections = 137").await;
    let mut server = origin.server;
    server.stop(Stop::Fast).await;
    server.run().await;
    let mut pieces = base(&server, "second");
    let (after, _) = insert(&server, 1).await;
    pieces.extend(wal(&server).await);
    let directory = target(&server, "r");
    let recovery = recovery(RecoveryStop::After(after), RecoveryAction::Promote);
    restore(&directory, &pieces, &recovery);
    let evidence = start(&directory, &recovery).await.unwrap();
    for (setting, expected) in [
        ("max_connections", "137"),
        ("archive_mode", "off"),
        ("archive_command", "(disabled)"),
        ("primary_conninfo", ""),
        ("listen_addresses", "localhost"),
        ("max_logical_replication_workers", "0"),
    ] {
        assert_eq!(
            ask(&evidence, &format!("SHOW {setting}")).await,
            expected,
            "{setting}"
        );
    }
    assert_eq!(evidence.rows, rows(401));
    directory.stop().await.unwrap();
}

#[tokio::test]
async fn a_base_without_configuration_files_starts() {
    let mut origin = origin().await;
    origin.pieces.retain(|piece| {
        let path = piece.header.path.as_text().unwrap();
        !["postgresql.conf", "pg_hba.conf", "pg_ident.conf"].contains(&path)
    });
    let directory = target(&origin.server, "r");
    let recovery = recovery(RecoveryStop::After(origin.second), RecoveryAction::Promote);
    restore(&directory, &origin.pieces, &recovery);
    assert_eq!(start(&directory, &recovery).await.unwrap().rows, rows(200));
    directory.stop().await.unwrap();
}

#[tokio::test]
async fn a_promoted_copy_takes_the_next_unused_timeline() {
    let origin = origin().await;
    let directory = target(&origin.server, "r");
    let mut recovery = recovery(RecoveryStop::After(origin.second), RecoveryAction::Promote);
    recovery.timeline_highest = 4;
    restore(&directory, &origin.pieces, &recovery);
    let evidence = start(&directory, &recovery).await.unwrap();
    let timeline = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
    assert_eq!(ask(&evidence, timeline).await, "00000005");
    directory.stop().await.unwrap();
}

#[tokio::test]
async fn an_unreachable_target_ends_with_the_words_of_the_server() {
    let origin = origin().await;
    let directory = target(&origin.server, "r");
    let recovery = recovery(RecoveryStop::After(Position(1 << 40)), RecoveryAction::Promote);
    restore(&directory, &origin.pieces, &recovery);
    let error = start(&directory, &recovery).await.unwrap_err();
    assert_eq!(
        error.what,
        format!(
            "{}: the restored server ended: FATAL:  recovery ended before configured recovery target was reached",
            directory.directory().display()
        )
    );
    assert_eq!(
        error.advice,
        "read the server's log, a file beside the directory with the ending .log"
    );
    assert_eq!(directory.stop().await.unwrap(), Stopped::WasNotRunning);
}

#[tokio::test]
async fn an_interrupted_restore_does_not_start_and_is_resumed_by_the_same_ticket_alone() {
    let origin = origin().await;
    let room = origin.server.room();
    let directory = target(&origin.server, "r");
    let recovery = recovery(RecoveryStop::After(origin.second), RecoveryAction::Pause);
    directory.begin(&ticket()).unwrap();
    place(&directory, &origin.pieces);
    // Everything is there but the end; it must not start, and what is planted must not lead the cleaning astray.
    let kept = room.dir("kept");
    fs::write(kept.join("precious"), "1").unwrap();
    symlink(&kept, directory.directory().join("base/link")).unwrap();
    drop(directory);

    let path = room.path().join("r");
    let refused = PgServer::start_on(&path, &[]).await.unwrap_err().to_string();
    assert!(
        refused.contains("could not find the database system"),
        "{refused}"
    );

    let again = target(&origin.server, "r");
    let mut other = ticket();
    other.backup = "another".to_owned();
    let error = again.inspect(&need(), &other).unwrap_err();
    assert_eq!(
        error.what,
        format!(
            "{}: an interrupted restore of backup 20261123T220000Z-full-0123456789 to latest is in this directory",
            path.display()
        )
    );
    assert_eq!(
        again.begin(&other).unwrap_err().kind,
        SourceErrorKind::TargetRefused
    );
    assert!(
        path.join("base/link").exists(),
        "a refused begin changed something"
    );

    restore(&again, &origin.pieces, &recovery);
    assert_eq!(fs::read_to_string(kept.join("precious")).unwrap(), "1");
    assert!(fs::symlink_metadata(path.join("base/link")).is_err());
    assert!(!path.join("backstay.restore-incomplete").exists());
    assert_eq!(start(&again, &recovery).await.unwrap().rows, rows(200));
    again.stop().await.unwrap();
}

#[tokio::test]
async fn a_link_in_the_way_is_not_followed() {
    let server = PgServer::start().await;
    let directory = target(&server, "r");
    directory.begin(&ticket()).unwrap();
    let elsewhere = server.room().dir("elsewhere");
    symlink(&elsewhere, directory.directory().join("base")).unwrap();
    let refused = directory
        .place(&header(EntryRole::Data, "base/1", 0))
        .err()
        .unwrap();
    assert_eq!(refused.kind, SourceErrorKind::Local);
    fs::write(elsewhere.join("f"), "1").unwrap();
    symlink(elsewhere.join("f"), directory.directory().join("f")).unwrap();
    assert!(directory.place(&header(EntryRole::Data, "f", 0)).is_err());
    assert_eq!(fs::read_to_string(elsewhere.join("f")).unwrap(), "1");
    assert_eq!(fs::read_dir(elsewhere).unwrap().count(), 1);
}

#[tokio::test]
async fn files_belong_to_the_server_and_have_its_modes() {
    let server = PgServer::start().await;
    let directory = target(&server, "r");
    directory.begin(&ticket()).unwrap();
    let mut group = header(EntryRole::Data, "pg_xact/0000", 3);
    group.mode = 0o640;
    let mut sink = directory.place(&group).unwrap();
    sink.write(b"abc").unwrap();
    sink.close().unwrap();
    directory
        .place(&header(EntryRole::Data, "base/1/2", 0))
        .unwrap()
        .close()
        .unwrap();
    let owner = fs::metadata(server.data_dir()).unwrap().uid();
    for (path, mode) in [
        ("", 0o700),
        ("base/1", 0o700),
        ("base/1/2", 0o600),
        ("pg_xact", 0o750),
        ("pg_xact/0000", 0o640),
    ] {
        let facts = fs::metadata(directory.directory().join(path)).unwrap();
        assert_eq!(
            (facts.permissions().mode() & 0o777, facts.uid()),
            (mode, owner),
            "{path}"
        );
    }
    let short = directory.place(&header(EntryRole::Data, "short", 2)).unwrap();
    let error = short.close().unwrap_err();
    assert!(
        error
            .what
            .ends_with("it does not have the size that was recorded"),
        "{error}"
    );
}

#[tokio::test]
async fn tablespaces_go_where_they_are_mapped_and_never_back_to_the_source() {
    let server = PgServer::start().await;
    let old = server.room().dir("old");
    server
        .sql(&format!("CREATE TABLESPACE far LOCATION '{}'", old.display()))
        .await;
    let empty = server.room().dir("empty");
    server
        .sql(&format!("CREATE TABLESPACE bare LOCATION '{}'", empty.display()))
        .await;
    server
        .sql("CREATE TABLE t TABLESPACE far AS SELECT generate_series(1, 77) n")
        .await;
    let oid = |name: &str| format!("SELECT oid FROM pg_tablespace WHERE spcname = '{name}'");
    let far: u32 = server.value(&oid("far")).await.parse().unwrap();
    let bare: u32 = server.value(&oid("bare")).await.parse().unwrap();

    let into = server.room().path().join("base");
    let copies = ["far.copy", "bare.copy"].map(|name| server.room().path().join(name));
    let mut copy = server.tool("pg_basebackup");
    copy.arg("-h").arg(server.socket_dir());
    copy.args([
        "-p",
        &server.port().to_string(),
        "-U",
        "postgres",
        "--no-sync",
        "-c",
        "fast",
        "-X",
        "none",
    ]);
    copy.arg(format!(
        "--tablespace-mapping={}={}",
        old.display(),
        copies[0].display()
    ));
    copy.arg(format!(
        "--tablespace-mapping={}={}",
        empty.display(),
        copies[1].display()
    ));
    run_to_end(copy.arg("-D").arg(&into));
    let map = server.room().path().join("tablespace_map");
    fs::write(
        &map,
        format!("{far} {}\n{bare} {}\n", old.display(), empty.display()),
    )
    .unwrap();

    let mut all = pieces(&into, EntryRole::Data);
    all.extend(pieces(&copies[0], EntryRole::Tablespace(far)));
    all.push(Piece {
        header: header(
            EntryRole::Data,
            "tablespace_map",
            fs::metadata(&map).unwrap().len(),
        ),
        file: map,
    });
    let after = insert(&server, 1).await.0;
    all.extend(wal(&server).await);

    let mut options = options(&server.room().path().join("r"));
    let new = server.room().path().join("new");
    options.tablespaces.insert(far, new.clone());
    let directory = PostgresDirectory::new(options);
    let recovery = recovery(RecoveryStop::After(after), RecoveryAction::Promote);
    restore(&directory, &all, &recovery);
    let evidence = start(&directory, &recovery).await.unwrap();
    assert_eq!(evidence.rows, rows(78));
    let location = |oid: u32| format!("SELECT pg_tablespace_location({oid})");
    assert_eq!(ask(&evidence, &location(far)).await, new.display().to_string());
    let default = server.room().path().join(format!("r.tablespaces/{bare}"));
    assert_eq!(
        ask(&evidence, &location(bare)).await,
        default.display().to_string()
    );
    assert!(!new.join("backstay.restore-incomplete").exists());
    directory.stop().await.unwrap();
}

#[tokio::test]
async fn wal_comes_through_the_command_where_it_was_not_placed() {
    let origin = origin().await;
    let directory = target(&origin.server, "r");
    let mut recovery = recovery(RecoveryStop::After(origin.second), RecoveryAction::Pause);
    let archive = origin.server.data_dir().join("pg_wal");
    recovery.delivery = WalDelivery::Command(format!("cp '{}'/%f %p", archive.display()));
    let mut pieces = origin.pieces;
    pieces.retain(|piece| piece.header.role != EntryRole::Wal);
    restore(&directory, &pieces, &recovery);
    assert_eq!(start(&directory, &recovery).await.unwrap().rows, rows(200));
    directory.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_arrive_in_time_is_stopped() {
    let origin = origin().await;
    let directory = target(&origin.server, "r");
    let mut recovery = recovery(RecoveryStop::After(origin.second), RecoveryAction::Pause);
    recovery.delivery = WalDelivery::Command("sleep 600".to_owned());
    restore(&directory, &origin.pieces, &recovery);
    let request = StartRequest {
        port: free_port(),
        wait_max: Duration::from_millis(500),
    };
    let error = directory.start(&request, &recovery).await.unwrap_err();
    assert_eq!(
        error.what,
        format!(
            "{}: the restored server did not reach its target within 500ms; last seen: it did not answer",
            directory.directory().display()
        )
    );
    assert_eq!(directory.stop().await.unwrap(), Stopped::WasNotRunning);
}

#[tokio::test]
async fn a_server_that_pauses_for_want_of_slots_has_not_reached_its_target() {
    let mut server = PgServer::start_with(PgOptions {
        conf: vec!["wal_keep_size = 256MB".to_owned()],
        ..PgOptions::default()
    })
    .await;
    server.sql("CREATE TABLE t (n int)").await;
    let mut pieces = base(&server, "base");
    server.sql("ALTER SYSTEM SET max_connections = 150").await;
    server.stop(Stop::Fast).await;
    server.run().await;
    let (after, _) = insert(&server, 5).await;
    pieces.extend(wal(&server).await);
    let directory = target(&server, "r");
    let recovery = recovery(RecoveryStop::After(after), RecoveryAction::Pause);
    restore(&directory, &pieces, &recovery);
    let error = start(&directory, &recovery).await.unwrap_err();
    let why = "not at its target: WARNING:  hot standby is not possible because of insufficient parameter settings; \
               DETAIL:  max_connections = 100 is a lower setting than on the primary server, where its value was 150.";
    assert!(error.what.ends_with(why), "{error}");
    assert_eq!(directory.stop().await.unwrap(), Stopped::WasNotRunning);
}

#[tokio::test]
async fn an_incomplete_base_is_not_made_startable() {
    let origin = origin().await;
    for missing in ["global/pg_control", "backup_label", "PG_VERSION"] {
        let directory = target(&origin.server, "r");
        let recovery = recovery(RecoveryStop::Consistent, RecoveryAction::Pause);
        directory.begin(&ticket()).unwrap();
        for piece in &origin.pieces {
            if piece.header.path.as_text() != Some(missing) {
                place_one(&directory, piece).unwrap();
            }
        }
        let error = directory.finish(&recovery).unwrap_err();
        assert_eq!(
            (error.kind, error.what),
            (
                SourceErrorKind::Damaged,
                format!("{}: {missing} was not placed", directory.directory().display())
            )
        );
        assert!(!directory.directory().join("global/pg_control").exists());
    }
}
