//! Base backups of a real server, written down, verified by PostgreSQL's own tool and started.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use backstay_postgres::base_backup::{BaseBackup, DataChecksums, TablespaceFact};
use backstay_postgres::{Mode, PostgresError};
use backstay_source::BaseStep;
use backstay_source::{Phase, Verdict};
use backstay_terms::{EntryKind, EntryRole, LogPointKind, Lsn, Timeline};
use backstay_testkit::pg::{PgOptions, PgServer, Stop, run_to_end};

use crate::received::{Received, receive, request};

/// pg_verifybackup: manifest, files, sizes, checksums, and the WAL by pg_waldump.
fn verify(server: &PgServer, directory: &Path) -> String {
    server.room().owner().take(directory).unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
    run_to_end(server.tool("pg_verifybackup").arg(directory))
}

/// Starts a copy that recovers to the end of its own WAL and nothing else, and asks it.
async fn ask_copy(directory: &Path, received: &Received, sql: &str) -> String {
    fs::write(directory.join("recovery.signal"), "").unwrap();
    let target = format!("recovery_target_lsn={}", received.facts.last_record);
    let conf = [
        "restore_command=false",
        &target,
        "recovery_target_action=promote",
        "archive_mode=off",
    ];
    let copy = PgServer::start_on(directory, &conf).await.unwrap();
    copy.value(sql).await
}

fn paths(received: &Received, role: EntryRole) -> Vec<String> {
    let of_role = received.headers.iter().filter(|header| header.role == role);
    of_role.map(|header| header.path.to_string()).collect()
}

#[tokio::test]
async fn a_backup_is_what_the_server_says_it_is_and_starts() {
    let server = PgServer::start().await;
    server
        .sql("CREATE TABLE t AS SELECT n, repeat('x', 300) AS filler FROM generate_series(1, 20000) n")
        .await;
    let into = server.room().path().join("copy");
    let received = receive(&server, &into).await.unwrap();

    assert_eq!(received.end.verdict, Verdict::Good);
    assert_eq!(received.end.notices, [""; 0]);
    assert_eq!(
        received.phases,
        [
            Phase::WaitingForCheckpoint,
            Phase::Copying,
            Phase::Checking,
            Phase::CollectingLog
        ]
    );
    assert_eq!(verify(&server, &into), "backup successfully verified\n");

    let log = received.end.log.clone().unwrap();
    let (start, stop) = (Lsn::from(log.start), Lsn::from(log.stop));
    let label = fs::read_to_string(into.join("backup_label")).unwrap();
    assert!(
        label.contains(&format!("START WAL LOCATION: {start} (file ")),
        "{label}"
    );
    assert!(label.contains("LABEL: a test's\n"), "{label}");
    let point = log.end_point.unwrap();
    assert_eq!(point.kind, LogPointKind::BackupEnd);
    assert!(
        Lsn::from(point.start) < stop && stop.0 - point.start.0 <= 64,
        "{point:?} {stop}"
    );
    let now: f64 = server
        .value("SELECT extract(epoch FROM now() - '2000-01-01 00:00:00+00')")
        .await
        .parse()
        .unwrap();
    let age = now - log.stop_time as f64 / 1e6;
    assert!((0.0..60.0).contains(&age), "the stop was {age} s ago");

    assert_eq!(received.facts.version.major(), 15);
    assert_eq!(received.facts.data_checksums, DataChecksums::On);
    assert_eq!(received.facts.tablespaces, []);
    let system = server
        .value("SELECT system_identifier FROM pg_control_system()")
        .await;
    assert_eq!(received.facts.system.to_string(), system);
    let data = paths(&received, EntryRole::Data);
    assert_eq!(
        (data.first().unwrap().as_str(), data.last().unwrap().as_str()),
        ("backup_label", "global/pg_control")
    );
    assert_eq!(paths(&received, EntryRole::Wal).len(), 1);
    let settings: serde_json::Value =
        serde_json::from_slice(received.text(EntryRole::Settings, "settings.json")).unwrap();
    let wal_level = settings
        .as_array()
        .unwrap()
        .iter()
        .find(|setting| setting["name"] == "wal_level")
        .unwrap();
    assert_eq!(wal_level["setting"], "replica");
    assert_eq!(
        server.value("SELECT count(*) FROM pg_replication_slots").await,
        "0"
    );

    assert_eq!(
        ask_copy(&into, &received, "SELECT count(*) FROM t").await,
        "20000"
    );
}

#[tokio::test]
async fn wal_ends_exactly_at_the_stop_and_is_padded_with_zeroes() {
    let options = PgOptions {
        wal_segment_mebibytes: 1,
        ..PgOptions::default()
    };
    let server = PgServer::start_with(options).await;
    server
        .sql("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n; CHECKPOINT")
        .await;
    let into = server.room().path().join("copy");
    let mut backup = BaseBackup::begin(&server.conninfo(), &request(&server, "other"))
        .await
        .unwrap();
    // Some megabytes of WAL while a backup runs: several segments.
    backup.next_step().await.unwrap();
    drop(backup);
    let received = receive(&server, &into).await.unwrap();
    let names = paths(&received, EntryRole::Wal);
    let stop = received.facts.stop;
    let last = fs::read(into.join("pg_wal").join(names.last().unwrap())).unwrap();
    assert_eq!(last.len(), 1 << 20);
    let cut = (stop.0 % (1 << 20)) as usize;
    assert!(last[cut..].iter().all(|byte| *byte == 0) && last[..cut].iter().any(|byte| *byte != 0));
    assert_eq!(verify(&server, &into), "backup successfully verified\n");
    assert_eq!(ask_copy(&into, &received, "SELECT count(*) FROM t").await, "1000");
}

#[tokio::test]
async fn wal_written_meanwhile_comes_with_the_backup() {
    let options = PgOptions {
        wal_segment_mebibytes: 1,
        ..PgOptions::default()
    };
    let server = PgServer::start_with(options).await;
    server.sql("CREATE TABLE t (n int, filler text)").await;
    let scratch = server.room().dir("held");
    let mut slow = request(&server, "scratch");
    slow.scratch = scratch.clone();
    slow.rate_max = Some(8192);
    let mut backup = BaseBackup::begin(&server.conninfo(), &slow).await.unwrap();
    let write = "INSERT INTO t SELECT n, repeat('y', 500) FROM generate_series(1, 4000) n; SELECT pg_switch_wal(); CHECKPOINT";
    let (mut wal, mut wrote) = (0, 0);
    let end = loop {
        match backup.next_step().await.unwrap() {
            backstay_source::BaseStep::Entry { header, .. } if header.role == EntryRole::Wal => wal += 1,
            backstay_source::BaseStep::Entry { header, .. }
                if header.kind == EntryKind::File && wrote < 5 =>
            {
                server.sql(write).await;
                wrote += 1;
            }
            backstay_source::BaseStep::End(end) => break end,
            _ => {}
        }
    };
    assert_eq!((end.verdict, wrote), (Verdict::Good, 5));
    let facts: backstay_postgres::base_backup::BaseFacts = serde_json::from_value(end.engine_facts).unwrap();
    let segments = (facts.stop.0 - 1) / (1 << 20) - facts.start.0 / (1 << 20) + 1;
    assert!(
        segments > 10,
        "{segments} segments from {} to {}",
        facts.start,
        facts.stop
    );
    assert_eq!(wal, segments);
}

#[tokio::test]
async fn tablespaces_arrive_as_archives_of_their_own() {
    let server = PgServer::start().await;
    let fast = server.room().dir("fast");
    server
        .sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", fast.display()))
        .await;
    server
        .sql("CREATE TABLE t TABLESPACE fast AS SELECT n FROM generate_series(1, 5000) n")
        .await;
    let oid: u32 = server
        .value("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'")
        .await
        .parse()
        .unwrap();
    let into = server.room().path().join("copy");
    let received = receive(&server, &into).await.unwrap();
    assert_eq!(
        received.facts.tablespaces,
        [TablespaceFact {
            oid,
            location: fast.display().to_string()
        }]
    );
    assert!(!paths(&received, EntryRole::Tablespace(oid)).is_empty());
    let map = fs::read_to_string(into.join("tablespace_map")).unwrap();
    assert_eq!(map, format!("{oid} {}\n", fast.display()));
    let moved = into.with_extension(oid.to_string());
    server.room().owner().take(&moved).unwrap();
    symlink(&moved, into.join(format!("pg_tblspc/{oid}"))).unwrap();
    assert_eq!(verify(&server, &into), "backup successfully verified\n");
    fs::write(
        into.join("tablespace_map"),
        format!("{oid} {}\n", moved.display()),
    )
    .unwrap();
    assert_eq!(
        ask_copy(&into, &received, "SELECT sum(n) FROM t").await,
        "12502500"
    );
}

#[tokio::test]
async fn a_tablespace_that_is_made_while_the_backup_runs_is_among_its_facts() {
    let server = PgServer::start().await;
    let late = server.room().dir("late");
    let mut backup = BaseBackup::begin(&server.conninfo(), &request(&server, "scratch"))
        .await
        .unwrap();
    // One that is made before it has begun is among those that it brings.
    loop {
        match backup.next_step().await.unwrap() {
            BaseStep::Entry { header, .. } if header.role == EntryRole::Data => break,
            step => assert!(!matches!(step, BaseStep::End(_))),
        }
    }
    let made = format!("CREATE TABLESPACE late LOCATION '{}'", late.display());
    server.sql(&made).await;
    let end = loop {
        if let BaseStep::End(end) = backup.next_step().await.unwrap() {
            break *end;
        }
    };
    let facts: backstay_postgres::base_backup::BaseFacts = serde_json::from_value(end.engine_facts).unwrap();
    assert_eq!(facts.tablespaces_made, [late.display().to_string()]);
}

#[tokio::test]
async fn a_tablespace_that_appears_in_pg_tblspc_while_the_backup_begins_ends_it() {
    let server = PgServer::start_with(PgOptions {
        conf: vec!["allow_in_place_tablespaces = on".to_owned()],
        ..PgOptions::default()
    })
    .await;
    let mut backup = BaseBackup::begin(&server.conninfo(), &request(&server, "scratch"))
        .await
        .unwrap();
    for name in ["inside", "beside"] {
        server.sql(&format!("CREATE TABLESPACE {name} LOCATION ''")).await;
    }
    let error = loop {
        match backup.next_step().await {
            Ok(BaseStep::End(end)) => panic!("{end:?}"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(
        error.to_string(),
        "tablespaces \"inside\", \"beside\": a base backup of PostgreSQL 15 leaves out what lies in pg_tblspc itself \
         (allow_in_place_tablespaces)"
    );
}

#[tokio::test]
async fn a_damaged_page_makes_the_backup_damaged_and_complete() {
    let mut server = PgServer::start().await;
    server
        .sql("CREATE TABLE t AS SELECT n FROM generate_series(1, 5000) n; CHECKPOINT")
        .await;
    let file = server.value("SELECT pg_relation_filepath('t')").await;
    server.stop(Stop::Fast).await;
    let relation = OpenOptions::new()
        .read(true)
        .write(true)
        .open(server.data_dir().join(&file))
        .unwrap();
    relation.write_all_at(b"flipped", 8192 + 4000).unwrap();
    server.run().await;
    let into = server.room().path().join("copy");
    let received = receive(&server, &into).await.unwrap();
    let Verdict::Damaged(found) = received.end.verdict else {
        panic!("a damaged page was not noticed")
    };
    assert!(
        found[0].contains(&format!("\"{file}\"")) || found[0].contains(&format!("\"./{file}\"")),
        "{found:?}"
    );
    assert!(found[0].contains("block 1"), "{found:?}");
    assert_eq!(verify(&server, &into), "backup successfully verified\n");
}

#[tokio::test]
async fn configuration_outside_the_data_directory_comes_along() {
    let mut server = PgServer::start().await;
    let outside = server.room().dir("etc").join("pg_hba.conf");
    fs::rename(server.data_dir().join("pg_hba.conf"), &outside).unwrap();
    server.append_conf(&[&format!("hba_file = '{}'", outside.display())]);
    server.stop(Stop::Fast).await;
    server.run().await;
    let received = receive(&server, &server.room().path().join("copy"))
        .await
        .unwrap();
    let text = received.text(
        EntryRole::Configuration,
        outside.to_str().unwrap().trim_start_matches('/'),
    );
    assert_eq!(text, fs::read(&outside).unwrap());
}

#[tokio::test]
async fn a_backup_of_a_promoted_server_carries_its_history() {
    let server = PgServer::start().await;
    server
        .sql("CREATE TABLE t AS SELECT n FROM generate_series(1, 100) n")
        .await;
    let standby = server.start_standby().await;
    let into = standby.room().path().join("copy");
    let early = receive(&standby, &standby.room().path().join("early")).await;
    assert!(matches!(early, Err(PostgresError::Standby)));
    standby.promote().await;
    let received = receive(&standby, &into).await.unwrap();
    assert_eq!(received.facts.timeline, Timeline(2));
    let history = received.text(EntryRole::History, "00000002.history");
    assert_eq!(
        history,
        fs::read(standby.data_dir().join("pg_wal/00000002.history")).unwrap()
    );
    assert_eq!(verify(&standby, &into), "backup successfully verified\n");
}

#[tokio::test]
async fn a_role_without_the_right_is_told_what_it_lacks() {
    let server = PgServer::start().await;
    server
        .sql("CREATE ROLE plain LOGIN; CREATE ROLE backstay LOGIN REPLICATION")
        .await;
    let text = server.conninfo_text();
    let plain = backstay_testkit::pg::parse(&text.replace("user=postgres", "user=plain"));
    let error = BaseBackup::begin(&plain, &request(&server, "scratch"))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the role \"plain\" has no right to replicate: must be superuser or replication role to start walsender (42501)"
    );
    assert_eq!(error.advice(), "ALTER ROLE \"plain\" REPLICATION;");
    let backstay = backstay_testkit::pg::parse(&text.replace("user=postgres", "user=backstay"));
    let mut backup = BaseBackup::begin(&backstay, &request(&server, "scratch"))
        .await
        .unwrap();
    let end = loop {
        if let backstay_source::BaseStep::End(end) = backup.next_step().await.unwrap() {
            break end;
        }
    };
    assert_eq!(end.verdict, Verdict::Good);
    assert_eq!(
        end.notices,
        ["configuration files not captured: the role is not a member of pg_read_all_settings"]
    );
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_ends_the_backup_with_an_error() {
    let mut server = PgServer::start().await;
    server
        .sql("CREATE TABLE t AS SELECT n, repeat('x', 500) FROM generate_series(1, 50000) n")
        .await;
    let mut backup = BaseBackup::begin(&server.conninfo(), &request(&server, "scratch"))
        .await
        .unwrap();
    for _ in 0..50 {
        backup.next_step().await.unwrap();
    }
    server.stop(Stop::Kill).await;
    let error = loop {
        match backup.next_step().await {
            Ok(backstay_source::BaseStep::End(_)) => panic!("a cut backup ended well"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, PostgresError::Lost { .. } | PostgresError::Server { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_session_option_reaches_the_walsender() {
    let server = PgServer::start().await;
    let conninfo = server.conninfo().with_option("-c wal_sender_timeout=0");
    let mut walsender = backstay_postgres::Connection::connect(&conninfo, Mode::Replication)
        .await
        .unwrap();
    let shown = backstay_postgres::replication::command::show(&mut walsender, "wal_sender_timeout")
        .await
        .unwrap();
    assert_eq!(shown, "0");
}
