//! Every way in which a server can refuse us, and every target that cannot be reached: message, exit, and nothing changed.

use crate::golden::assert_golden;
use crate::live::{CONFIRMED, until};
use crate::mask::mask;
use crate::program::Place;
use crate::tree::{changes, tree};
use backstay_postgres::Mode;
use backstay_testkit::pg::{Listen, PgOptions, PgServer, free_port};
use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStderr, Stdio};

/// What a failed run may leave: its records, and an envelope with whose keys nothing was sealed.
fn is_harmless(name: &str) -> bool {
    name.starts_with("backups/facts")
        || name == "backups/postgres-backups"
        || name.starts_with("backups/postgres-backups/keys")
}

/// Runs it; no backup and no log may be new.
#[track_caller]
fn refused(place: &Place, server: Option<&PgServer>, line: &str) -> String {
    let before = tree(&place.directory);
    let run = place.run(line);
    let changed = changes(&before, &tree(&place.directory));
    let besides: Vec<&String> = changed.iter().filter(|name| !is_harmless(name)).collect();
    assert!(besides.is_empty(), "{line}: {besides:?}");
    assert_ne!(run.exit, 0, "{line}: {}", run.out);
    let mut text = run.whole(line);
    if let Some(server) = server {
        text = text.replace(&server.socket_dir().display().to_string(), "/SOCKETS");
        text = text.replace(&format!(":{}", server.port()), ":PORT");
    }
    mask(&text)
}

#[test]
fn a_server_that_is_not_there() {
    let socket = Place::of("host=/nowhere user=postgres");
    let text = refused(&socket, None, "backup main") + &refused(&socket, None, "slot show main");
    assert_golden("bad-server/unreachable.txt", &text);
    let port = free_port();
    let closed = Place::of(&format!("host=127.0.0.1 port={port} user=postgres"));
    let text = refused(&closed, None, "backup main").replace(&port.to_string(), "PORT");
    assert_golden("bad-server/closed-port.txt", &text);
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_and_passwords() {
    let options = PgOptions {
        listen: Listen::Loopback,
        hba: ["all all", "replication plain"]
            .map(|whom| format!("host {whom} 127.0.0.1/32 scram-sha-256"))
            .to_vec(),
        ..PgOptions::default()
    };
    let server = PgServer::start_with(options).await;
    server.sql("CREATE ROLE plain LOGIN PASSWORD 'right'").await;
    let place = Place::of(&(server.tcp_conninfo_text("plain") + " password=right"));
    assert_golden(
        "bad-server/no-replication-right.txt",
        &(refused(&place, Some(&server), "backup main") + &refused(&place, Some(&server), "stream main")),
    );
    server
        .sql("CREATE ROLE elsewhere LOGIN REPLICATION PASSWORD 'right'")
        .await;
    let place = Place::of(&(server.tcp_conninfo_text("elsewhere") + " password=right sslmode=disable"));
    assert_golden(
        "bad-server/no-hba-line.txt",
        &refused(&place, Some(&server), "backup main"),
    );
    let place = Place::of(&(server.tcp_conninfo_text("plain") + " password=wrong"));
    assert_golden(
        "bad-server/wrong-password.txt",
        &refused(&place, Some(&server), "backup main"),
    );
    let place = Place::of(&server.tcp_conninfo_text("plain"));
    assert_golden(
        "bad-server/no-password.txt",
        &refused(&place, Some(&server), "backup main"),
    );
}

/// A stream and backups need no more than that.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_let_in_for_replication_alone_is_shown_where_its_slot_stands() {
    let server = PgServer::start_with(PgOptions {
        hba: vec!["local all copier reject".to_owned()],
        ..PgOptions::default()
    })
    .await;
    server.sql("CREATE ROLE copier LOGIN REPLICATION").await;
    server
        .sql("SELECT pg_create_physical_replication_slot('backstay_main', true)")
        .await;
    let place = Place::of(&server.conninfo_text().replace("user=postgres", "user=copier"));
    let restart = server.value("SELECT restart_lsn FROM pg_replication_slots").await;
    let shown = place.run("slot show main");
    let begins = format!(
        "slot      backstay_main: the server told only where it stands, as no ordinary connection was let in\n\
         keeps     WAL from {restart} on, "
    );
    assert!(shown.out.starts_with(&begins), "{}{}", shown.out, shown.err);
    assert_eq!((shown.out.lines().count(), shown.exit), (2, 0), "{}", shown.out);
    let told: serde_json::Value = serde_json::from_str(&place.run("slot show main --json").out).unwrap();
    assert_eq!(told["state"]["restart_lsn"], restart);
    for untold in ["active", "wal_status"] {
        assert!(told["state"][untold].is_null(), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_writes_too_little_log() {
    let conf = vec!["wal_level = minimal".to_owned(), "max_wal_senders = 0".to_owned()];
    let server = PgServer::start_with(PgOptions {
        conf,
        ..PgOptions::default()
    })
    .await;
    let place = Place::of(&server.conninfo_text());
    let mut text = String::new();
    for line in ["backup main", "stream main", "check"] {
        text += &refused(&place, Some(&server), line);
    }
    assert_golden("bad-server/minimal.txt", &text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_walsenders_are_all_in_use() {
    let server = server_with_walsenders(2).await;
    let place = Place::of(&server.conninfo_text());
    let other = server.connect(Mode::Replication).await.unwrap();
    assert_golden(
        "bad-server/no-walsender.txt",
        &refused(&place, Some(&server), "backup main"),
    );
    other.close().await;
    assert_eq!(
        server
            .value("SELECT count(*)::text FROM pg_replication_slots")
            .await,
        "0"
    );
}

async fn server_with_walsenders(number: u32) -> PgServer {
    PgServer::start_with(PgOptions {
        conf: vec![format!("max_wal_senders = {number}")],
        ..PgOptions::default()
    })
    .await
}

/// A slot keeps the server's log until somebody reads it, so one whose stream never began would fill its disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_store_takes_nothing_leaves_no_slot_at_the_server() {
    let server = PgServer::start().await;
    let place = Place::of(&server.conninfo_text());
    fs::create_dir(place.directory.join("backups/wal-archive")).unwrap();
    place.write("backups/wal-archive/keys", "no directory");
    let text = refused(&place, Some(&server), "stream main");
    assert!(text.contains("cannot put wal-archive/keys/"), "{text}");
    let slots = server
        .value("SELECT count(*)::text FROM pg_replication_slots")
        .await;
    assert_eq!(slots, "0");
}

/// Nobody else holds one, so no waiting would help: this is no conflict.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_fewer_walsenders_than_a_backup_takes() {
    let server = server_with_walsenders(1).await;
    let place = Place::of(&server.conninfo_text());
    let text = refused(&place, Some(&server), "backup main") + &refused(&place, Some(&server), "check");
    assert_golden("bad-server/one-walsender.txt", &text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_slot_stays_in_use_ends_as_a_conflict_and_names_who_has_it() {
    let server = PgServer::start().await;
    let place = Place::of(&server.conninfo_text());
    let other = Place::of(&server.conninfo_text());
    let mut first = streaming(&place);
    first.says("stream attached");
    let process = server.value("SELECT pid::text FROM pg_stat_replication").await;
    let before = tree(&other.directory);
    let run = other.run("stream main");
    assert_eq!(changes(&before, &tree(&other.directory)), Vec::<String>::new());
    let (waited, error) = run.err.split_at(run.err.find("error[").unwrap());
    assert_eq!(waited.matches("will be tried again").count(), 5, "{waited}");
    assert_eq!((run.exit, run.out.as_str()), (7, ""));
    assert_golden("bad-server/slot-in-use.txt", &error.replace(&process, "PROCESS"));
    assert_eq!(first.stop(), Some(0));
}

/// Two streams overlap for a moment whenever one is replaced, so the second waits; it says so and can be stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_slot_is_in_use_says_so_and_waits() {
    let server = PgServer::start().await;
    let place = Place::of(&server.conninfo_text());
    let other = Place::of(&server.conninfo_text());
    let mut first = streaming(&place);
    assert!(first.says("stream attached").contains("INFO"));
    let mut second = streaming(&other);
    let said = second.says("will be tried again");
    assert!(
        said.contains("WARN") && said.contains("is active for PID"),
        "{said}"
    );
    assert_eq!(second.stop(), Some(0));
    assert_eq!(first.stop(), Some(0));
    assert!(!other.directory.join("backups/wal-archive/live").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_may_serve_another_repository_is_told_before_it_is_taken_over() {
    let server = PgServer::start().await;
    let place = Place::of(&server.conninfo_text());
    let other = Place::of(&server.conninfo_text());
    let mut first = streaming(&place);
    // The words of the warning hold this one, so the first line is that of the attachment.
    assert!(first.says("stream").contains("stream attached"));
    until(&server, CONFIRMED, "true").await;
    assert_eq!(first.stop(), Some(0));
    let checked = other.run("check main").out;
    for words in [
        "the server has a slot backstay_main already, and no log of main is stored here",
        "fix: give this service a slot of its own, slot: NAME below main: in the configuration",
    ] {
        assert!(checked.contains(words), "{checked}");
    }
    let mut second = streaming(&other);
    let said = second.says("was there already");
    assert!(said.contains("WARN") && said.contains("backstay_main"), "{said}");
    second.says("stream attached");
    assert_eq!(second.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_nobody_streams_from_and_one_that_is_gone_are_told() {
    let server = PgServer::start().await;
    let place = Place::of(&server.conninfo_text());
    let mut stream = streaming(&place);
    stream.says("stream attached");
    server.sql("CREATE TABLE t AS SELECT 1 AS n").await;
    until(&server, CONFIRMED, "true").await;
    let checked = place.run("check main").out;
    assert!(
        checked.contains("the slot backstay_main keeps WAL for us"),
        "{checked}"
    );
    assert_eq!(stream.stop(), Some(0));
    let checked = place.run("check main").out;
    let idle = "nobody streams from the slot backstay_main, and WAL piles up at the server; the last log was stored at 20";
    assert!(checked.contains(idle), "{checked}");
    assert!(
        checked.contains("fix: backstay stream main, and see that it goes on running"),
        "{checked}"
    );
    assert_eq!(place.run("slot drop main --confirm main").exit, 0);
    let checked = place.run("check main").out;
    let gone = "the server has no slot backstay_main, though a stream had one; the last log was stored at 20";
    assert!(checked.contains(gone), "{checked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_not_there_is_no_matter_of_pg_hba_and_is_told_once() {
    let server = PgServer::start().await;
    let nobody = server
        .conninfo_text()
        .replace("user=postgres", "user=nobody_here");
    let checked = Place::of(&nobody).run("check main").out;
    assert_eq!(
        checked.matches("role \"nobody_here\" does not exist").count(),
        1,
        "{checked}"
    );
    assert!(
        checked.contains("fix: CREATE ROLE \"nobody_here\" LOGIN REPLICATION; or"),
        "{checked}"
    );
    assert!(!checked.contains("pg_hba.conf"), "{checked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_says_that_settings_were_not_captured() {
    let server = PgServer::start().await;
    let place = Place::of(&server.conninfo_text().replace("dbname=postgres", "dbname=nope"));
    let run = place.run("backup main --progress none");
    assert_eq!(run.exit, 0, "{}", run.err);
    let said = "settings not captured: server: FATAL: database \"nope\" does not exist";
    assert!(run.err.contains(said), "{}", run.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_file_that_others_may_read_is_told_with_what_to_type() {
    let server = PgServer::start_with(PgOptions {
        listen: Listen::Loopback,
        hba: ["all all", "replication all"]
            .map(|whom| format!("host {whom} 127.0.0.1/32 scram-sha-256"))
            .to_vec(),
        ..PgOptions::default()
    })
    .await;
    let place = Place::new();
    place.write("passwords", "*:*:*:*:right\n");
    let file = place.directory.join("passwords");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let file = file.display();
    let conninfo = server.tcp_conninfo_text("postgres") + &format!(" passfile={file}");
    let checked = place
        .finish(place.command(&["init", "main", "--postgresql", &conninfo]))
        .out;
    assert_eq!(checked.matches("asks for a password").count(), 1, "{checked}");
    assert!(
        checked.contains("so it is not used; chmod 600 /DIR/passwords"),
        "{checked}"
    );
}

/// A stream that is killed with the test.
struct Streaming {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

fn streaming(place: &Place) -> Streaming {
    let mut command = place.command(&["stream", "main"]);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap()).lines();
    Streaming { child, log }
}

impl Streaming {
    /// The first line of its log that holds `words`.
    fn says(&mut self, words: &str) -> String {
        let line = self
            .log
            .find(|line| line.as_ref().is_ok_and(|line| line.contains(words)));
        line.unwrap_or_else(|| panic!("it ended and never said {words:?}"))
            .unwrap()
    }

    fn stop(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap();
        assert!(sent.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_cannot_be_reached_touch_nothing() {
    let server = PgServer::start().await;
    let place = Place::of(&server.conninfo_text());
    let backup = place.run("backup main --progress none");
    assert_eq!(backup.exit, 0, "{}", backup.err);
    let mut text = String::new();
    for target in [
        "2001-01-01T00:00:00Z",
        "2099-01-01T00:00:00Z",
        "-5min",
        "lsn:0/1",
        "lsn:FF/0",
        "0/3000028",
        "name:nobody_made_it",
        "xid:4000000",
        "soon",
        "2026-13-01T00:00:00Z",
    ] {
        text += &refused(
            &place,
            Some(&server),
            &format!("restore main --to {target} --into copy"),
        );
    }
    let before = tree(&place.directory);
    let mut berlin = place.command(&["restore", "main", "--to", "2026-10-25 02:30", "--into", "copy"]);
    berlin.env("TZ", "Europe/Berlin");
    text += &place
        .finish(berlin)
        .whole("restore main --to '2026-10-25 02:30' --into copy   (in Berlin)");
    assert_eq!(changes(&before, &tree(&place.directory)), Vec::<String>::new());
    assert_golden("bad-server/targets.txt", &text);
    a_wrong_key_opens_no_backup(&place, &server);
}

fn a_wrong_key_opens_no_backup(place: &Place, server: &PgServer) {
    place.write("backstay.key", "08".repeat(32));
    let mut text = String::new();
    for line in ["list", "restore main --to latest --into copy", "check"] {
        text += &refused(place, Some(server), line);
    }
    assert_golden("bad-server/wrong-key.txt", &text);
}
