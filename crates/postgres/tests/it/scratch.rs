//! Scratch directories that are absent, cannot be written to, become full or go away while a backup runs.
//!
//! Promise: the error is about scratch and names the file. A full disk is `/dev/full` behind the name of the file, which
//! needs no right to mount.

use backstay_postgres::PostgresError;
use backstay_postgres::base_backup::BaseBackup;
use backstay_source::{BaseRequest, BaseStep};
use backstay_testkit::pg::{PgOptions, PgServer};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::received::request;

fn with_scratch(server: &PgServer, scratch: PathBuf) -> BaseRequest {
    BaseRequest {
        scratch,
        ..request(server, "unused")
    }
}

/// Takes a backup that must fail; the file that the error names, and what the system said.
async fn failure(server: &PgServer, request: &BaseRequest) -> (PathBuf, std::io::Error) {
    let mut backup = match BaseBackup::begin(&server.conninfo(), request).await {
        Ok(backup) => backup,
        Err(error) => return scratch_of(error),
    };
    loop {
        match backup.next_step().await {
            Ok(BaseStep::End(_)) => panic!("a backup without scratch ended well"),
            Ok(_) => {}
            Err(error) => return scratch_of(error),
        }
    }
}

fn scratch_of(error: PostgresError) -> (PathBuf, std::io::Error) {
    assert!(error.advice().contains("scratch directory"), "{}", error.advice());
    let said = error.to_string();
    let PostgresError::Scratch { path, source } = error else {
        panic!("{said}")
    };
    assert!(said.contains(&path), "{said}");
    (path.into(), source)
}

fn is_in(path: &Path, scratch: &Path) {
    assert_eq!(path.parent(), Some(scratch), "{}", path.display());
}

#[tokio::test]
async fn an_absent_scratch_directory_is_named() {
    let server = PgServer::start().await;
    let scratch = server.room().path().join("absent");
    let (path, source) = failure(&server, &with_scratch(&server, scratch.clone())).await;
    is_in(&path, &scratch);
    assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_scratch_directory_that_nobody_may_write_to_is_named() {
    let server = PgServer::start().await;
    // A link to itself cannot be opened, also not by root, whom no mode keeps out.
    let scratch = server.room().dir("unwritable");
    for segment in 0..64 {
        let name = scratch.join(format!("wal-00000001{segment:016X}"));
        symlink(&name, &name).unwrap();
    }
    let (path, _) = failure(&server, &with_scratch(&server, scratch.clone())).await;
    is_in(&path, &scratch);
    let file = server.room().path().join("a-file");
    fs::write(&file, "").unwrap();
    let (path, source) = failure(&server, &with_scratch(&server, file.clone())).await;
    is_in(&path, &file);
    assert_eq!(source.kind(), std::io::ErrorKind::NotADirectory);
}

/// So many files that the lists of what arrived and of what the server sent exceed what is kept in memory.
fn add_files(server: &PgServer) {
    let extra = server.data_dir().join("extra");
    fs::create_dir(&extra).unwrap();
    for number in 0..10_000 {
        fs::write(extra.join(format!("{number:090}")), "").unwrap();
    }
    server.room().owner().take(&extra).unwrap();
}

#[tokio::test]
async fn scratch_that_becomes_full_is_named_whichever_file_it_was() {
    let server = PgServer::start().await;
    add_files(&server);
    let wal: Vec<String> = (0..64)
        .map(|segment| format!("wal-00000001{segment:016X}"))
        .collect();
    let cases = [
        ("arrived", vec!["arrived".to_owned()]),
        ("backup_manifest", vec!["backup_manifest".to_owned()]),
        ("wal-", wal),
    ];
    for (case, names) in cases {
        let scratch = server.room().dir(&format!("full-{case}"));
        for name in names {
            symlink("/dev/full", scratch.join(name)).unwrap();
        }
        let (path, source) = failure(&server, &with_scratch(&server, scratch.clone())).await;
        is_in(&path, &scratch);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with(case), "{case}: {name}");
        assert_eq!(source.kind(), std::io::ErrorKind::StorageFull, "{case}");
    }
}

#[tokio::test]
async fn a_scratch_directory_that_is_removed_while_the_backup_runs_is_named() {
    let options = PgOptions {
        wal_segment_mebibytes: 1,
        ..PgOptions::default()
    };
    let server = PgServer::start_with(options).await;
    server.sql("CREATE TABLE t (n int)").await;
    let scratch = server.room().dir("removed");
    let request = with_scratch(&server, scratch.clone());
    let mut backup = BaseBackup::begin(&server.conninfo(), &request).await.unwrap();
    while !matches!(backup.next_step().await.unwrap(), BaseStep::Entry { .. }) {}
    fs::remove_dir_all(&scratch).unwrap();
    server
        .sql("INSERT INTO t SELECT generate_series(1, 50000); SELECT pg_switch_wal()")
        .await;
    let error = loop {
        match backup.next_step().await {
            Ok(BaseStep::End(_)) => panic!("a backup without scratch ended well"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let (path, source) = scratch_of(error);
    is_in(&path, &scratch);
    assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
}
