//! Every refusal of `inspect`, with its message, and that nothing is changed by it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use backstay_postgres::PostgresDirectory;
use backstay_source::{Need, Restore, SourceErrorKind, StartRequest};
use backstay_testkit::pg::PgServer;
use backstay_testkit::skipped;

use crate::restore_kit::{free_port, need, options, target, ticket};

/// The message without the path that it begins with.
fn refused(directory: &PostgresDirectory, need: &Need) -> (String, String) {
    let error = directory.inspect(need, &ticket()).unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::TargetRefused, "{error}");
    let begins = format!("{}: ", directory.directory().display());
    (error.what.replacen(&begins, "", 1), error.advice)
}

fn at(path: &Path) -> PostgresDirectory {
    PostgresDirectory::new(options(path))
}

#[tokio::test]
async fn a_running_server_is_refused_and_a_stale_pid_file_is_only_a_file() {
    let mut server = PgServer::start().await;
    let directory = at(server.data_dir());
    let pid = server.pid().unwrap();
    assert_eq!(
        refused(&directory, &need()),
        (
            format!("a server runs in this directory (process {pid})"),
            "stop that server, or restore into another directory".to_owned()
        )
    );
    assert_eq!(
        directory.begin(&ticket()).unwrap_err().kind,
        SourceErrorKind::TargetRefused
    );
    server.stop(backstay_testkit::pg::Stop::Kill).await;
    let (what, _) = refused(&directory, &need());
    assert!(
        what.starts_with("the directory is not empty: it holds "),
        "{what}"
    );
}

#[tokio::test]
async fn what_is_in_the_way_is_named() {
    let server = PgServer::start().await;
    let room = server.room().path();
    let advice = "name a directory that is empty or does not exist yet".to_owned();

    let full = server.room().dir("full");
    fs::write(full.join("x"), "").unwrap();
    let expected = "the directory is not empty: it holds x".to_owned();
    assert_eq!(refused(&at(&full), &need()), (expected, advice.clone()));

    fs::write(room.join("file"), "").unwrap();
    let expected = ("is not a directory".to_owned(), advice.clone());
    assert_eq!(refused(&at(&room.join("file")), &need()), expected);
    symlink("/nowhere", room.join("dangling")).unwrap();
    assert_eq!(refused(&at(&room.join("dangling")), &need()), expected);

    let (what, advice) = refused(&at(&room.join("no/such")), &need());
    assert_eq!(
        what,
        format!(
            "{}: there is no such directory to restore into",
            room.join("no").display()
        )
    );
    assert_eq!(advice, "create it, or name another directory");

    if rustix::process::geteuid().is_root() {
        skipped("a directory that cannot be written", "root may write anywhere");
    } else {
        let shut = server.room().dir("shut");
        fs::set_permissions(&shut, fs::Permissions::from_mode(0o500)).unwrap();
        let (what, _) = refused(&at(&shut.join("r")), &need());
        assert!(
            what.starts_with(&format!("{}: cannot be written", shut.display())),
            "{what}"
        );
    }

    fs::write(full.join("backstay.restore-incomplete"), "{").unwrap();
    let (what, advice) = refused(&at(&full), &need());
    let marker = full.join("backstay.restore-incomplete");
    assert_eq!(
        what,
        format!(
            "{}: the marker of an interrupted restore cannot be read",
            marker.display()
        )
    );
    assert_eq!(advice, "remove the directory, or name another");
}

#[tokio::test]
async fn a_directory_in_which_only_the_marker_was_begun_is_as_good_as_empty() {
    let server = PgServer::start().await;
    let path = server.room().dir("r");
    fs::write(path.join("backstay.restore-incomplete.new"), "{\"backup\":").unwrap();
    let directory = at(&path);
    directory.inspect(&need(), &ticket()).unwrap();
    directory.begin(&ticket()).unwrap();
    let names: Vec<_> = fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["backstay.restore-incomplete"]);
    // Beside anything else it is in the way like every file.
    let other = server.room().dir("other");
    fs::write(other.join("backstay.restore-incomplete.new"), "").unwrap();
    fs::write(other.join("precious"), "").unwrap();
    let (what, _) = refused(&at(&other), &need());
    assert_eq!(what, "the directory is not empty: it holds precious");
}

#[tokio::test]
async fn too_little_space_a_wrong_version_and_a_missing_user_are_refused() {
    let server = PgServer::start().await;
    let directory = target(&server, "r");
    let huge = Need {
        bytes: 1 << 60,
        ..need()
    };
    let (what, advice) = refused(&directory, &huge);
    assert!(what.ends_with(" are free, 1.1 EiB are needed"), "{what}");
    assert_eq!(advice, "free space, or name a directory on a larger file system");

    let old = Need {
        version: "9.6.24".to_owned(),
        ..need()
    };
    assert_eq!(
        refused(&directory, &old).0,
        "version \"9.6.24\" is not one of PostgreSQL 13 to 18"
    );

    let mut of_nobody = options(directory.directory());
    of_nobody.owner = Some("no-such-user".to_owned());
    if rustix::process::geteuid().is_root() {
        assert_eq!(
            refused(&PostgresDirectory::new(of_nobody), &need()).0,
            "user \"no-such-user\" cannot own a data directory: there is no such user on this machine"
        );
    } else {
        skipped(
            "files of a user who does not exist",
            "only root gives files to others",
        );
    }
    assert!(!directory.directory().exists(), "inspect made something");
}

#[tokio::test]
async fn tablespaces_that_are_full_or_overlap_are_refused() {
    let server = PgServer::start().await;
    let room = server.room().path();
    let full = server.room().dir("full");
    fs::write(full.join("x"), "").unwrap();
    let mut options = options(&room.join("r"));
    options.tablespaces.insert(16384, full.clone());
    assert_eq!(
        refused(&PostgresDirectory::new(options.clone()), &need()).0,
        format!("{}: the directory is not empty: it holds x", full.display())
    );
    options.tablespaces.insert(16384, room.join("r/inside"));
    assert_eq!(
        refused(&PostgresDirectory::new(options), &need()).0,
        format!(
            "tablespace 16384: {} overlaps {}",
            room.join("r/inside").display(),
            room.join("r").display()
        )
    );
}

#[tokio::test]
async fn a_tablespace_that_the_log_makes_gets_an_empty_directory_or_nothing() {
    let server = PgServer::start().await;
    let room = server.room().path();
    let directory = target(&server, "r");
    let (empty, full, foreign) = (
        server.room().dir("empty"),
        server.room().dir("full"),
        room.join("foreign"),
    );
    fs::write(full.join("x"), "").unwrap();
    fs::write(room.join("file"), "").unwrap();
    let asked = |location: &Path| Need {
        written_by_log: vec![location.display().to_string()],
        ..need()
    };
    directory.inspect(&asked(&empty), &ticket()).unwrap();
    let mut cases = vec![
        (
            full.clone(),
            "it is not empty, and may hold the files of the source itself",
        ),
        (room.join("absent"), "it is not there"),
        (room.join("file"), "it is no directory"),
    ];
    if rustix::process::geteuid().is_root() {
        fs::create_dir(&foreign).unwrap();
        cases.push((foreign, "it does not belong to the server's user"));
    } else {
        skipped(
            "a directory of another user",
            "only root runs the server as another",
        );
    }
    for (location, reason) in cases {
        let place = location.display();
        assert_eq!(
            refused(&directory, &asked(&location)).0,
            format!(
                "replaying the log makes a tablespace in {place}, outside of the restored directory: {reason}"
            )
        );
    }
    // What the base's own log makes counts as well.
    let facts = serde_json::json!({
        "version": 150018, "system": "7", "wal_segment_size": 16 << 20, "data_checksums": "on", "start": "0/2000028",
        "stop": "0/2000100", "last_record": "0/2000028", "timeline": 1, "tablespaces": [], "tablespaces_made": [full],
    });
    let of_base = Need {
        engine_facts: facts,
        ..need()
    };
    assert!(refused(&directory, &of_base).0.contains("it is not empty"));
    assert!(!directory.directory().exists());
}

#[tokio::test]
async fn two_restores_into_one_directory_are_refused() {
    let server = PgServer::start().await;
    let (first, second) = (target(&server, "r"), target(&server, "r"));
    first.begin(&ticket()).unwrap();
    for error in [
        second.inspect(&need(), &ticket()).unwrap_err(),
        second.begin(&ticket()).unwrap_err(),
    ] {
        assert_eq!(error.kind, SourceErrorKind::Conflict);
        assert!(
            error
                .what
                .ends_with(": another restore writes into this directory now"),
            "{error}"
        );
    }
    drop(first);
    second.begin(&ticket()).unwrap();
}

#[tokio::test]
async fn programs_of_another_version_do_not_start_a_copy() {
    let server = PgServer::start().await;
    let directory = target(&server, "r");
    directory.inspect_start(&need(), &on(free_port())).unwrap();
    let mut options = options(directory.directory());
    options.binaries = Some("/usr/lib/postgresql/15/bin".into());
    let other = Need {
        version: "17.2".to_owned(),
        ..need()
    };
    let error = PostgresDirectory::new(options)
        .inspect_start(&other, &on(free_port()))
        .unwrap_err();
    let begins = "no program postgres of version 17 in /usr/lib/postgresql/15/bin (there is 15.";
    assert!(error.what.starts_with(begins), "{error}");
}

fn on(port: u16) -> StartRequest {
    StartRequest {
        port,
        wait_max: Duration::from_secs(60),
    }
}

#[tokio::test]
async fn a_port_that_somebody_has_is_refused_before_anything_is_touched() {
    let server = PgServer::start().await;
    let directory = target(&server, "r");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = directory.inspect_start(&need(), &on(port)).unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::TargetRefused);
    assert_eq!(
        error.what,
        format!("port {port} is in use on 127.0.0.1: the restored server could not be started there")
    );
    assert_eq!(
        error.advice,
        "choose a free one, such as --port 5434, or stop what listens there"
    );
    drop(taken);
    directory.inspect_start(&need(), &on(port)).unwrap();
    assert!(!directory.directory().exists());
}

#[tokio::test]
async fn a_directory_of_sockets_that_will_not_do_is_refused_and_the_trial_leaves_nothing() {
    let server = PgServer::start().await;
    let room = server.room().dir("sockets");
    let with_sockets = |sockets: &Path| {
        let mut options = options(&server.room().path().join("r"));
        options.sockets = sockets.to_owned();
        PostgresDirectory::new(options).inspect_start(&need(), &on(free_port()))
    };
    with_sockets(&room).unwrap();
    assert_eq!(fs::read_dir(&room).unwrap().count(), 0);
    // The path of a socket has 107 bytes.
    let deep = room.join("d".repeat(90));
    fs::create_dir(&deep).unwrap();
    let begins = format!("{}: no socket can be made below it: ", deep.display());
    let error = with_sockets(&deep).unwrap_err();
    assert!(error.what.starts_with(&begins), "{error}");
    assert_eq!(fs::read_dir(&deep).unwrap().count(), 0);
    let error = with_sockets(&room.join("absent")).unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::TargetRefused);
    assert!(error.what.contains("no socket can be made below it"), "{error}");
}
