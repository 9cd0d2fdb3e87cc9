//! The ports over a real server.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use backstay_clock::SystemClock;
use backstay_postgres::replication::command::SlotName;
use backstay_postgres::replication::stream::Slot;
use backstay_postgres::{PostgresSource, SlotUse};
use backstay_source::{
    BaseStep, Finding, LogOffer, LogStep, Preceding, Resume, Severity, Source, SourceErrorKind,
};
use backstay_testkit::pg::{PgOptions, PgServer, Room, Stop, parse, programs_of};

use crate::received::request;

fn source(conninfo: &str) -> PostgresSource {
    let slot = Slot::CreateIfMissing(SlotName::new("backstay").unwrap());
    PostgresSource::new(parse(conninfo), Some(slot), Arc::new(SystemClock::new()))
}

fn troubles(findings: &[Finding]) -> Vec<(&'static str, Severity)> {
    let bad = findings
        .iter()
        .filter(|finding| finding.severity != Severity::Good);
    bad.map(|finding| (finding.id, finding.severity)).collect()
}

#[tokio::test]
async fn a_base_and_the_log_come_through_the_ports() {
    let server = PgServer::start().await;
    let source = source(&server.conninfo_text());
    let identity = source.identify().await.unwrap();
    assert_eq!((identity.place.timeline, identity.segment_size), (1, 16 << 20));
    let mut base = source.begin_base(request(&server, "scratch")).await.unwrap();
    let end = loop {
        if let BaseStep::End(end) = base.next().await.unwrap() {
            break end;
        }
    };
    assert_eq!(end.log.unwrap().system, identity.place.system);
    let LogOffer::Follow(log) = source.log() else {
        panic!("PostgreSQL has a log")
    };
    let mut reader = log.follow(Resume::Fresh, &Preceding::none()).await.unwrap();
    assert!(matches!(reader.next().await.unwrap(), LogStep::Piece(_)));
    assert_eq!(
        source.drop_slot().await.unwrap_err().kind,
        SourceErrorKind::Conflict
    );
    reader.finish().await.unwrap();
}

#[tokio::test]
async fn a_healthy_server_has_one_warning_with_its_remedy() {
    let server = PgServer::start().await;
    let findings = source(&server.conninfo_text()).check().await;
    assert_eq!(
        troubles(&findings),
        [("max-slot-wal-keep-size", Severity::Warning)]
    );
    assert_eq!(
        findings.iter().map(|finding| finding.id).collect::<Vec<_>>(),
        [
            "server",
            "version",
            "data-checksums",
            "wal-level",
            "wal-senders",
            "max-slot-wal-keep-size",
            "configuration-files",
            "slot"
        ]
    );
}

#[tokio::test]
async fn configuration_files_are_missed_only_where_one_lies_outside_the_data_directory() {
    let mut server = PgServer::start().await;
    server
        .sql("CREATE ROLE plain LOGIN REPLICATION; GRANT pg_monitor TO plain")
        .await;
    let as_plain = server.conninfo_text().replace("user=postgres", "user=plain");
    let of_files = |findings: Vec<Finding>| {
        let mut of_files = findings
            .into_iter()
            .filter(|finding| finding.id == "configuration-files");
        of_files.next().unwrap()
    };
    let inside = of_files(source(&as_plain).check().await);
    assert_eq!(
        inside,
        Finding::good(
            "configuration-files",
            "settings and configuration files are captured"
        )
    );

    let outside = server.room().path().join("ident.conf");
    std::fs::write(&outside, "").unwrap();
    std::fs::set_permissions(&outside, std::fs::Permissions::from_mode(0o644)).unwrap();
    server.stop(Stop::Fast).await;
    let setting = format!("ident_file={}", outside.display());
    server.try_run(&[setting.as_str()]).await.unwrap();
    let missed = of_files(source(&as_plain).check().await);
    let expected = Finding::warning(
        "configuration-files",
        format!(
            "outside the data directory and not captured: {}",
            outside.display()
        ),
        "keep copies of them yourself; or, if the role may read every file of the server, in the database \"postgres\": \
         GRANT EXECUTE ON FUNCTION pg_read_file(text) TO \"plain\"; GRANT pg_read_server_files TO \"plain\";",
    );
    assert_eq!(missed, expected);
    assert_eq!(of_files(source(&server.conninfo_text()).check().await), inside);
}

#[tokio::test]
async fn what_stops_a_backup_is_found_with_what_to_type() {
    let server = PgServer::start_with(PgOptions {
        conf: [
            "wal_level = minimal",
            "max_wal_senders = 0",
            "max_slot_wal_keep_size = 1GB",
        ]
        .map(str::to_owned)
        .to_vec(),
        ..PgOptions::default()
    })
    .await;
    let findings = source(&server.conninfo_text()).check().await;
    let failures = [
        ("wal-senders", Severity::Failure),
        ("wal-level", Severity::Failure),
    ];
    assert_eq!(troubles(&findings), failures);
    // Nobody answers the question about the settings: the server's own words stand.
    let mute = server
        .conninfo_text()
        .replace("dbname=postgres", "dbname=not_there");
    let findings = source(&mute).check().await;
    assert_eq!(
        (findings[0].id, findings[0].severity),
        ("wal-senders", Severity::Failure)
    );
    assert!(
        findings[0]
            .what
            .starts_with("server: FATAL: number of requested standby connections")
    );

    let server = PgServer::start().await;
    server.sql("CREATE ROLE plain LOGIN").await;
    let findings = source(&server.conninfo_text().replace("user=postgres", "user=plain"))
        .check()
        .await;
    assert_eq!(
        findings[0],
        Finding::failure(
            "replication-role",
            "the role \"plain\" has no right to replicate: must be superuser or replication role to start walsender (42501)",
            "ALTER ROLE \"plain\" REPLICATION;"
        )
    );
    let nobody = source("host=/nowhere user=x").check().await;
    assert_eq!(
        nobody[0].what,
        "cannot connect to /nowhere:5432: No such file or directory (os error 2)"
    );
}

/// A server that lets the role `copier` in for replication alone.
async fn with_a_copier(programs: Option<PathBuf>) -> (PgServer, PostgresSource) {
    let server = PgServer::start_with(PgOptions {
        hba: vec!["local all copier reject".to_owned()],
        programs,
        ..PgOptions::default()
    })
    .await;
    server.sql("CREATE ROLE copier LOGIN REPLICATION").await;
    let source = source(&server.conninfo_text().replace("user=postgres", "user=copier"));
    (server, source)
}

const MAKE_SLOT: &str = "SELECT pg_create_physical_replication_slot('backstay', true)";

#[tokio::test]
async fn a_role_that_may_only_replicate_is_told_where_the_slot_stands() {
    let (server, source) = with_a_copier(None).await;
    assert_eq!(source.slot_state().await.unwrap(), None);
    server.sql(MAKE_SLOT).await;
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        .await;
    let kept = "SELECT pg_current_wal_flush_lsn() - restart_lsn FROM pg_replication_slots";
    let before: u64 = server.value(kept).await.parse().unwrap();
    let state = source.slot_state().await.unwrap().unwrap();
    let after: u64 = server.value(kept).await.parse().unwrap();
    assert!(
        before > 0 && (before..=after).contains(&state.kept.unwrap()),
        "{state:?}"
    );
    let restart = server.value("SELECT restart_lsn FROM pg_replication_slots").await;
    assert_eq!(state.restart.unwrap().to_string(), restart);
    assert_eq!((state.use_now, state.wal_status), (SlotUse::Untold, None));
    // Whoever is let in is told more.
    let state = self::source(&server.conninfo_text())
        .slot_state()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(state.use_now, SlotUse::Idle);
    assert_eq!(state.wal_status.as_deref(), Some("reserved"));
}

/// Such a server tells it in a view alone.
#[tokio::test]
async fn a_role_that_may_only_replicate_hears_from_postgresql_14_why_it_is_not_let_in() {
    let room = Room::new();
    let (server, source) = with_a_copier(Some(programs_of(14, &room))).await;
    server.sql(MAKE_SLOT).await;
    let error = source.slot_state().await.unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Unauthenticated);
    assert!(error.what.contains("pg_hba.conf rejects connection"), "{error}");
}
