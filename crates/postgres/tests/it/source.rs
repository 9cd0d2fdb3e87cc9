//! The ports over a real server.

use std::sync::Arc;

use backstay_clock::SystemClock;
use backstay_postgres::PostgresSource;
use backstay_postgres::replication::command::SlotName;
use backstay_postgres::replication::stream::Slot;
use backstay_source::{
    BaseStep, Finding, LogOffer, LogStep, Preceding, Resume, Severity, Source, SourceErrorKind,
};
use backstay_testkit::pg::{PgOptions, PgServer, parse};

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
