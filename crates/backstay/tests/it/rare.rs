//! Ends that need a world of their own: a damaged page, a hole in the log, a store that takes nothing, a server that is none.
//!
//! Promise: each code is met as a person meets it, and what was there before is there after.

use crate::golden::{assert_golden, assert_shape};
use crate::live::{CONFIRMED, start_stream, stop_stream, until};
use crate::mask::mask;
use crate::mounted::mounted;
use crate::program::Place;
use crate::tree::{changes, tree};
use backstay_testkit::pg::{Owner, PgServer, Stop};
use backstay_testkit::skipped;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_with_a_damaged_page_is_incomplete_and_no_restore_takes_it_unasked() {
    let mut server = PgServer::start().await;
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 10000) AS n")
        .await;
    let relation = server.value("SELECT pg_relation_filepath('t')").await;
    server.stop(Stop::Fast).await;
    let path = server.data_dir().join(&relation);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"damage", 3 * 8192 + 4000).unwrap();
    server.run().await;

    let place = Place::of(&server.conninfo_text());
    let mut text = String::new();
    for (line, exit) in [
        ("backup main --progress none", 3),
        ("show latest main", 3),
        ("restore main --to latest --into copy", 6),
    ] {
        let run = place.run(line);
        assert_eq!(run.exit, exit, "{line}: {}{}", run.out, run.err);
        text += &run.whole(line).replace(&relation, "RELATION");
    }
    let (said, sums) = text.split_once("calculated ").unwrap();
    let sum = sums.split('\n').next().unwrap();
    let mut text = format!("{said}calculated {sums}").replace(sum, "SUM but expected SUM");
    let files = text
        .split("files     ")
        .nth(1)
        .and_then(|rest| rest.split(',').next());
    if let Some(files) = files.map(str::to_owned) {
        text = text.replace(&format!("files     {files},"), "files     N,");
    }
    assert!(!place.directory.join("copy").exists());
    assert_golden("rare/damaged-page.txt", &mask(&text));
    let told: serde_json::Value = serde_json::from_str(&place.run("show latest main --json").out).unwrap();
    let damage = told["backup"]["damage"].to_string();
    assert!(damage.contains(&relation), "{told}");

    let backup = told["backup"]["backup"].as_str().unwrap();
    let run = place.run(&format!(
        "restore main --to immediate --base {backup} --into copy"
    ));
    assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
    let stored = fs::read(place.directory.join("copy").join(&relation)).unwrap();
    assert!(stored == fs::read(server.data_dir().join(&relation)).unwrap());
}

/// The stored ranges that hold something between two positions.
fn ranges_over(place: &Place, positions: &Range<u64>) -> Vec<PathBuf> {
    let archive = place.directory.join("backups/wal-archive");
    let ends = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
        Some((number(name.get(..16)?)?, number(name.get(17..33)?)?))
    };
    let is_over = |path: &PathBuf| {
        let of_range = path.starts_with("live") || path.starts_with("settled");
        of_range && ends(path).is_some_and(|(from, to)| from < positions.end && positions.start < to)
    };
    let names = tree(&archive).into_keys().filter(is_over);
    names.map(|name| archive.join(name)).collect()
}

async fn position(server: &PgServer) -> u64 {
    let bytes = server
        .value("SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn")
        .await;
    bytes.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_in_a_hole_of_the_log_is_refused_and_both_sides_are_named() {
    let server = PgServer::start().await;
    let place = Place::of(&server.conninfo_text());
    let back_up = || {
        let run = place.run("backup main --keep 35d --progress none");
        assert_eq!(run.exit, 0, "{}", run.err);
    };
    let insert = "INSERT INTO t SELECT generate_series(1, 1000)";
    server.sql("CREATE TABLE t (n int)").await;
    let stream = start_stream(&place);
    back_up();
    server.sql(insert).await;
    server.sql("SELECT pg_switch_wal()").await;
    server.sql(insert).await;
    let from = position(&server).await;
    let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let moment = server.value(now).await;
    server.sql(insert).await;
    let lost = from..position(&server).await;
    server.sql("SELECT pg_switch_wal()").await;
    back_up();
    server.sql(insert).await;
    until(&server, CONFIRMED, "true").await;
    stop_stream(stream);
    let gone = ranges_over(&place, &lost);
    assert!(!gone.is_empty());
    for name in &gone {
        fs::remove_file(name).unwrap();
    }
    let before = tree(&place.directory);
    let line = format!("restore main --to {moment} --into copy");
    let run = place.run(&line);
    assert_eq!(changes(&before, &tree(&place.directory)), Vec::<String>::new());
    assert_eq!(run.exit, 9, "{}", run.err);
    assert_golden("rare/in-a-gap.txt", &mask(&run.whole(&line)));
    let gaps = place.run("wal gaps --json");
    assert_shape("gaps", &gaps.out);
    let gaps: serde_json::Value = serde_json::from_str(&gaps.out).unwrap();
    assert_eq!(gaps["gaps"].as_array().unwrap().len(), 1, "{gaps}");
}

/// Root may write anywhere; a restore runs as somebody who may not.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_user_is_refused_before_anything_is_made() {
    let server = PgServer::start().await;
    let owner = server.room().owner();
    if owner == Owner::Ourselves {
        skipped("a directory of another user", "only root can make one");
        return;
    }
    let place = Place::with_program(server.room().path().join("place")).serving(&server);
    let run = place.run("backup main --progress none");
    assert_eq!(run.exit, 0, "{}", run.err);
    owner.take(&place.directory).unwrap();
    // These two stay root's.
    let (empty, above) = (place.directory.join("empty"), place.directory.join("above"));
    for directory in [&empty, &above] {
        fs::create_dir(directory).unwrap();
    }
    let before = tree(&place.directory);
    let mut text = String::new();
    for into in ["empty", "above/copy"] {
        let line = format!("restore main --to immediate --into {into}");
        let mut command = owner.command(&place.directory.join("backstay"));
        command
            .args(line.split(' '))
            .current_dir(&place.directory)
            .env_clear();
        command
            .env("PATH", "/usr/bin:/bin")
            .env("TZ", "UTC")
            .env("HOME", &place.directory);
        let run = place.finish(command);
        assert_eq!(run.exit, 5, "{into}: {}{}", run.out, run.err);
        text += &run.whole(&line);
    }
    assert_eq!(changes(&before, &tree(&place.directory)), Vec::<String>::new());
    assert_golden("rare/directory-of-another.txt", &mask(&text));
    // Root gives an empty directory to the server's user.
    let run = place.run("restore main --to immediate --into empty --progress none");
    assert_eq!(run.exit, 0, "{}", run.err);
    let facts = fs::metadata(&empty).unwrap();
    let data = fs::metadata(server.data_dir()).unwrap();
    assert_eq!((facts.uid(), facts.mode() & 0o777), (data.uid(), 0o700));
    let copy = PgServer::start_on(&empty, &[]).await.unwrap();
    assert_eq!(copy.value("SELECT 1").await, "1");
}

#[test]
fn a_server_that_speaks_another_protocol_is_called_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let place = Place::of(&format!(
        "host=127.0.0.1 port={port} user=postgres sslmode=disable"
    ));
    let run = place.run("backup main");
    assert_eq!(run.exit, 9, "{}", run.err);
    let text = run.whole("backup main").replace(&port.to_string(), "PORT");
    assert_golden("rare/another-protocol.txt", &mask(&text));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_mounted_for_reading_or_full_is_refused_by_what_it_is() {
    let server = PgServer::start().await;
    let place = Place::of(&server.conninfo_text());
    let before = tree(&place.directory);
    let reading = "mount --bind backups backups; mount -o remount,bind,ro backups";
    let small = "cp -r backups kept; mount -t tmpfs -o size=1m,mode=700 none backups; cp -r kept/. backups; rm -r kept";
    let mut text = String::new();
    for (mount, code) in [(reading, "BKS-5002"), (small, "BKS-5003")] {
        let line = "backup main --progress none";
        let words: Vec<&str> = line.split(' ').collect();
        let Some(run) = mounted(&place, mount, &words) else {
            return;
        };
        assert_eq!(run.exit, 5, "{}{}", run.out, run.err);
        assert!(run.err.contains(code), "{}", run.err);
        let whole = run.whole(line);
        let words = whole.split(' ').map(|word| match word.contains("/data/") {
            true => "PACK:",
            false => word,
        });
        text += &words.collect::<Vec<_>>().join(" ");
    }
    assert_eq!(changes(&before, &tree(&place.directory)), Vec::<String>::new());
    assert_golden("rare/store-takes-nothing.txt", &mask(&text));
}
