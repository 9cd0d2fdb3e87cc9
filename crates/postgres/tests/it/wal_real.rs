//! The walker, the control file and the searches against what PostgreSQL's own programs say about a real server's files.

use std::collections::BTreeMap;
use std::path::Path;

use backstay_postgres::control_file::{ClusterState, ControlFile, DataChecksums, poison_checkpoint};
use backstay_postgres::timeline::Ancestry;
use backstay_postgres::wal::{
    EndOfWal, Ended, Meaning, PostgresLog, Record, VersionFacts, WalIdentity, Walker,
};
use backstay_source::{LogFormat, ScanOrder, Wanted};
use backstay_terms::{Lsn, SystemIdentifier, Timeline, WalFileName, WalSegmentSize};
use backstay_testkit::pg::{PgOptions, PgServer, Stop, run_to_end};

const EPOCH_2000: i64 = 946_684_800_000_000;

/// A stopped server with several segments of everything: pages, spans, a switch, prepared transactions, a giant record.
async fn worked_server() -> PgServer {
    let mut server = PgServer::start_with(PgOptions {
        conf: [
            "wal_level = logical",
            "max_prepared_transactions = 5",
            "wal_keep_size = 500MB",
            "max_wal_size = 1GB",
        ]
        .map(str::to_owned)
        .to_vec(),
        wal_segment_mebibytes: 1,
        ..PgOptions::default()
    })
    .await;
    pgbench(&server, &["-i", "-s", "1", "-q"]);
    pgbench(&server, &["-c", "2", "-t", "300"]);
    for sql in [
        "SELECT pg_create_restore_point('before drop')",
        "CREATE TABLE q (a int)",
        "BEGIN; INSERT INTO q VALUES (1); SAVEPOINT s; INSERT INTO q VALUES (2); PREPARE TRANSACTION 'x1'",
        "COMMIT PREPARED 'x1'",
        "BEGIN; CREATE TABLE r (a int); PREPARE TRANSACTION 'x2'",
        "ROLLBACK PREPARED 'x2'",
        "SELECT pg_switch_wal()",
        "SELECT pg_logical_emit_message(false, 'giant', repeat('x', 3000000))",
        "BEGIN; INSERT INTO q VALUES (3); ROLLBACK",
        "SELECT pg_create_restore_point('after')",
        "SELECT pg_backup_start('x', true); SELECT * FROM pg_backup_stop(false)",
        "INSERT INTO q SELECT generate_series(1, 2000)",
    ] {
        server.sql(sql).await;
    }
    server.stop(Stop::Fast).await;
    server
}

fn pgbench(server: &PgServer, arguments: &[&str]) {
    let mut command = server.tool("pgbench");
    command
        .arg("-h")
        .arg(server.socket_dir())
        .args(["-p", &server.port().to_string(), "-U", "postgres"]);
    run_to_end(command.args(arguments).arg("postgres"));
}

fn control_of(server: &PgServer) -> ControlFile {
    ControlFile::parse(&std::fs::read(server.data_dir().join("global/pg_control")).unwrap()).unwrap()
}

fn major(server: &PgServer) -> u32 {
    std::fs::read_to_string(server.data_dir().join("PG_VERSION"))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn identity_of(server: &PgServer) -> WalIdentity {
    let control = control_of(server);
    WalIdentity {
        version: VersionFacts::of_major(major(server)).unwrap(),
        system: control.system,
        segment_size: control.segment_size,
        ancestry: Ancestry::without_history(Timeline(1)),
    }
}

/// The segments that hold WAL, joined, with the first position. Recycled ones for the future hold older pages.
fn segments(server: &PgServer) -> (Lsn, Vec<u8>) {
    let control = control_of(server);
    let last = control.segment_size.segment_holding(control.checkpoint);
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(server.data_dir().join("pg_wal")).unwrap() {
        let path = entry.unwrap().path();
        let name: Result<WalFileName, _> = path.file_name().unwrap().to_str().unwrap().parse();
        if let Some(segment) = name.ok().and_then(|name| name.segment(control.segment_size)) {
            files.insert(segment, path);
        }
    }
    let files: Vec<_> = files
        .into_iter()
        .filter(|(segment, _)| *segment <= last)
        .collect();
    let bytes: Vec<Vec<u8>> = files
        .iter()
        .map(|(_, path)| std::fs::read(path).unwrap())
        .collect();
    (control.segment_size.start_of(files[0].0), bytes.concat())
}

fn walk(identity: WalIdentity, begins: Lsn, bytes: &[u8]) -> (Vec<Record>, Walker) {
    let (mut walker, mut records) = (Walker::new(identity, begins), vec![]);
    for part in bytes.chunks(131_072) {
        walker.feed(part, &mut |record| records.push(record)).unwrap();
    }
    (records, walker)
}

/// A line of pg_waldump: `rmgr: Heap len (rec/tot): 54/54, tx: 725, lsn: 0/153, prev 0/150, desc: INSERT off 1`.
#[derive(Debug, PartialEq, Eq)]
struct Dumped {
    start: Lsn,
    previous: Lsn,
    xid: u32,
    length: u32,
    description: String,
}

fn dumped(line: &str) -> Option<Dumped> {
    let after = |mark: &str| line.split_once(mark).map(|(_, rest)| rest.trim_start());
    let word = |mark: &str| after(mark).and_then(|rest| rest.split([',', ' ']).next());
    let lengths = after("len (rec/tot):")?.split_once(',')?.0;
    Some(Dumped {
        start: word("lsn:")?.parse().ok()?,
        previous: word(", prev")?.parse().ok()?,
        xid: word(", tx:")?.parse().ok()?,
        length: lengths.split_once('/')?.1.trim().parse().ok()?,
        description: after("desc:")?.to_owned(),
    })
}

/// The records that pg_waldump prints, and where it says that the log ends.
fn waldump(server: &PgServer, begins: Lsn) -> (Vec<Dumped>, Lsn) {
    let mut command = server.tool("pg_waldump");
    command
        .arg("-p")
        .arg(server.data_dir().join("pg_wal"))
        .args(["-s", &begins.to_string()]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    // "error in WAL record at 0/1: invalid record length at 0/2: wanted 24, got 0": the last position is the end.
    let mut positions = complaint.split([' ', ':']).filter_map(|word| word.parse().ok());
    let end = positions
        .next_back()
        .unwrap_or_else(|| panic!("no end in {complaint:?}"));
    let records = text
        .lines()
        .map(|line| dumped(line).unwrap_or_else(|| panic!("{line}")));
    (records.collect(), end)
}

fn microseconds(text: &str) -> i64 {
    let timestamp: jiff::Timestamp = format!("{}Z", text.trim_end_matches(" UTC").replace(' ', "T"))
        .parse()
        .unwrap();
    timestamp.as_microsecond() - EPOCH_2000
}

#[tokio::test]
async fn the_walker_and_the_searches_agree_with_pg_waldump_on_every_record() {
    let server = worked_server().await;
    let (begins, bytes) = segments(&server);
    let (records, walker) = walk(identity_of(&server), begins, &bytes);
    let (dump, end) = waldump(&server, begins);

    assert!(
        dump.len() > 5_000 && bytes.len() > 8 << 20,
        "{} records in {} bytes",
        dump.len(),
        bytes.len()
    );
    assert_eq!(records.len(), dump.len());
    for (record, dump) in records.iter().zip(&dump) {
        let ours = (record.start, record.previous, record.xid, record.length);
        assert_eq!(ours, (dump.start, dump.previous, dump.xid, dump.length));
        check_meaning(record, dump);
    }
    assert_eq!(
        walker.ended(),
        Some(EndOfWal {
            at: end,
            unfinished: None
        })
    );
    assert!(records.iter().any(|record| record.length > 3_000_000));
    check_kinds(&records);
    check_searches(&server, &records, begins, &bytes);
}

fn check_meaning(record: &Record, dump: &Dumped) {
    let words: Vec<&str> = dump.description.split([' ', ';']).collect();
    match &record.meaning {
        Meaning::TransactionEnd { ended, time, xid, .. } => {
            let (word, prepared) = match ended {
                Ended::Committed => ("COMMIT", None),
                Ended::Aborted => ("ABORT", None),
                Ended::CommittedPrepared => ("COMMIT_PREPARED", Some(*xid)),
                Ended::AbortedPrepared => ("ABORT_PREPARED", Some(*xid)),
            };
            assert_eq!(words[0], word);
            let rest = dump.description.split_once(' ').unwrap().1;
            let rest = match prepared {
                Some(xid) => rest
                    .strip_prefix(&format!("{xid}: "))
                    .unwrap_or_else(|| panic!("{xid}, not {rest}")),
                None => rest,
            };
            assert_eq!(*time, microseconds(rest.split(" UTC").next().unwrap()));
        }
        Meaning::RestorePoint { name, .. } => assert_eq!(dump.description, format!("RESTORE_POINT {name}")),
        Meaning::BackupEnd { start } => assert_eq!(dump.description, format!("BACKUP_END {start}")),
        Meaning::Switch => assert_eq!(words[0], "SWITCH"),
        Meaning::Checkpoint {
            redo,
            timeline,
            previous,
            ..
        } => {
            let expected = format!(" redo {redo}; tli {timeline}; prev tli {previous};");
            assert!(
                dump.description.contains(&expected),
                "{expected} not in {}",
                dump.description
            );
        }
        other => {
            let ends = [
                "COMMIT",
                "COMMIT_PREPARED",
                "ABORT",
                "ABORT_PREPARED",
                "RESTORE_POINT",
                "BACKUP_END",
                "SWITCH",
            ];
            assert!(!ends.contains(&words[0]), "{other:?} for {}", dump.description);
        }
    }
}

fn check_kinds(records: &[Record]) {
    let count = |kind: fn(&Meaning) -> bool| records.iter().filter(|record| kind(&record.meaning)).count();
    assert!(
        count(|m| matches!(
            m,
            Meaning::TransactionEnd {
                ended: Ended::Committed,
                ..
            }
        )) > 600
    );
    assert_eq!(
        count(|m| matches!(
            m,
            Meaning::TransactionEnd {
                ended: Ended::CommittedPrepared,
                ..
            }
        )),
        1
    );
    assert_eq!(
        count(|m| matches!(
            m,
            Meaning::TransactionEnd {
                ended: Ended::AbortedPrepared,
                ..
            }
        )),
        1
    );
    assert_eq!(count(|m| matches!(m, Meaning::RestorePoint { .. })), 2);
    assert_eq!(count(|m| matches!(m, Meaning::BackupEnd { .. })), 1);
    assert!(count(|m| matches!(m, Meaning::Switch)) >= 2);
}

fn check_searches(server: &PgServer, records: &[Record], begins: Lsn, bytes: &[u8]) {
    let found = |wanted| {
        let identity = identity_of(server);
        let order = ScanOrder {
            system: identity.system.0,
            timeline: 1,
            segment_size: identity.segment_size.bytes(),
            begins: begins.into(),
            from: begins.into(),
            wanted,
        };
        let mut scan = PostgresLog.scan(order).unwrap();
        for part in bytes.chunks(40_000) {
            scan.feed(part).unwrap();
        }
        scan.found().map(|hit| Lsn::from(hit.start))
    };
    let last = records.last().unwrap();
    assert_eq!(found(Wanted::LastComplete), Some(last.start));
    assert_eq!(control_of(server).checkpoint, last.start);
    let ends: Vec<(&Record, i64)> = records
        .iter()
        .filter_map(|record| match record.meaning {
            Meaning::TransactionEnd { time, .. } => Some((record, time)),
            _ => None,
        })
        .collect();
    let middle = ends[ends.len() / 2].1;
    let expected = ends
        .iter()
        .find(|(_, time)| *time > middle)
        .map(|(record, _)| record.start);
    assert_eq!(found(Wanted::TransactionAfter(middle)), expected);
    assert_eq!(found(Wanted::SteppedBackTo(middle)), None);
    let named =
        |record: &&Record| matches!(&record.meaning, Meaning::RestorePoint { name, .. } if name == "after");
    let point = records.iter().find(named).unwrap();
    assert_eq!(found(Wanted::RestorePoint("after".into())), Some(point.start));
}

#[tokio::test]
async fn every_flipped_byte_of_a_real_page_is_detected_or_lies_in_a_named_hole() {
    let server = worked_server().await;
    let (begins, bytes) = segments(&server);
    // From the middle of a segment: pages full of small records.
    let page = bytes.len() / 2 / 8192 * 8192;
    let part = &bytes[page..page + 3 * 8192];
    let at = begins.plus(page as u64);
    let (whole, _) = walk(identity_of(&server), at, part);
    let first = whole[0].start.0 - at.0;
    let mut unnoticed = vec![];
    for place in first as usize..8192 * 2 {
        let mut bytes = part.to_vec();
        bytes[place] ^= 0x41;
        let (mut walker, mut records) = (Walker::new(identity_of(&server), at), vec![]);
        let walked = walker.feed(&bytes, &mut |record| records.push(record));
        if walked.is_ok() && records == whole {
            unnoticed.push(at.plus(place as u64));
        }
    }
    let padding = |lsn: &Lsn| {
        whole
            .iter()
            .any(|record| record.end <= *lsn && lsn.0 < record.end.0.next_multiple_of(8))
    };
    let header = |lsn: &Lsn| (20..24).contains(&(lsn.0 % 8192));
    unnoticed.retain(|lsn| !padding(lsn) && !header(lsn));
    assert_eq!(unnoticed, []);
}

fn controldata(server: &PgServer, directory: &Path) -> BTreeMap<String, String> {
    let text = run_to_end(server.tool("pg_controldata").arg("-D").arg(directory));
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

#[tokio::test]
async fn the_control_file_is_read_as_pg_controldata_reads_it() {
    let mut server = PgServer::start_with(PgOptions {
        wal_segment_mebibytes: 4,
        ..PgOptions::default()
    })
    .await;
    assert_eq!(control_of(&server).state, ClusterState::InProduction);
    server.stop(Stop::Fast).await;
    let (control, said) = (control_of(&server), controldata(&server, server.data_dir()));
    assert_eq!(
        control.system,
        SystemIdentifier(said["Database system identifier"].parse().unwrap())
    );
    assert_eq!(
        control.control_version.to_string(),
        said["pg_control version number"]
    );
    assert_eq!(
        control.catalog_version.to_string(),
        said["Catalog version number"]
    );
    assert_eq!(control.state.to_string(), said["Database cluster state"]);
    assert_eq!(control.checkpoint.to_string(), said["Latest checkpoint location"]);
    assert_eq!(
        control.redo.to_string(),
        said["Latest checkpoint's REDO location"]
    );
    assert_eq!(
        control.timeline.to_string(),
        said["Latest checkpoint's TimeLineID"]
    );
    assert_eq!(
        control.previous_timeline.to_string(),
        said["Latest checkpoint's PrevTimeLineID"]
    );
    assert_eq!(
        control.recovery_end_min.to_string(),
        said["Minimum recovery ending location"]
    );
    assert_eq!(
        control.recovery_end_min_timeline.to_string(),
        said["Min recovery ending loc's timeline"]
    );
    assert_eq!(control.page_bytes.to_string(), said["Database block size"]);
    assert_eq!(control.wal_page_bytes.to_string(), said["WAL block size"]);
    assert_eq!(control.segment_size, WalSegmentSize::new(4 << 20).unwrap());
    assert_eq!(said["Bytes per WAL segment"], "4194304");
    assert_eq!(
        (
            control.data_checksums,
            said["Data page checksum version"].as_str()
        ),
        (DataChecksums::Version(1), "1")
    );
}

#[tokio::test]
async fn a_server_refuses_to_start_from_a_poisoned_control_file() {
    let mut server = PgServer::start().await;
    server.stop(Stop::Fast).await;
    let path = server.data_dir().join("global/pg_control");
    let mut bytes = std::fs::read(&path).unwrap();
    poison_checkpoint(&mut bytes).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(
        controldata(&server, server.data_dir())["Latest checkpoint location"],
        "0/DEAD"
    );
    server.try_run(&[]).await.unwrap_err();
    assert!(
        server
            .log()
            .contains("could not locate a valid checkpoint record"),
        "{}",
        server.log()
    );
}
