//! What SIGINT and SIGTERM leave of a demo, of a backup, and of a stream that does not end.

use crate::live::{
    CONFIRMED, connect_to_copy, signal, start_stream, stop_copy, stop_stream, stream_log, until,
};
use crate::program::Place;
use backstay_testkit::pg::{PgServer, free_port};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const WAIT_MAX: Duration = Duration::from_secs(120);

/// A place that the user `postgres` can enter, with an empty `tmp` for the demo.
fn place_of(name: &str) -> (Place, PathBuf) {
    let directory = std::env::temp_dir().join(format!("signals-{}-{name}", std::process::id()));
    let place = Place::with_program(directory.clone());
    let temporary = directory.join("tmp");
    fs::create_dir(&temporary).unwrap();
    (place, temporary)
}

fn start_demo(place: &Place, temporary: &Path, arguments: &[&str]) -> Child {
    let mut command = place.command(&[&["demo"], arguments].concat());
    command.env("TMPDIR", temporary).stdout(Stdio::null());
    command.stderr(Stdio::piped()).spawn().unwrap()
}

/// Processes that work below a directory: a server's have its data directory as theirs.
fn processes_below(directory: &Path) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|at| at.starts_with(directory)))
        .map(|process| fs::read_to_string(process.path().join("cmdline")).unwrap_or_default())
        .collect()
}

/// Reads what the demo says until a line has `words`; gives what comes after.
fn hear(demo: &mut Child, words: &str) -> impl Iterator<Item = String> + use<> {
    let mut lines = BufReader::new(demo.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    lines
        .find(|line| line.contains(words))
        .unwrap_or_else(|| panic!("the demo never said: {words}"));
    lines
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT_MAX;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: never");
        std::thread::yield_now();
    }
}

fn only_entry(directory: &Path) -> PathBuf {
    let mut entries = fs::read_dir(directory).unwrap();
    let entry = entries.next().unwrap().unwrap().path();
    assert!(entries.next().is_none());
    entry
}

#[test]
fn a_demo_that_is_stopped_while_its_server_is_filled_leaves_nothing() {
    let (place, temporary) = place_of("fill");
    let mut demo = start_demo(&place, &temporary, &[]);
    let said = hear(&mut demo, "is made and filled");
    wait_until("the table is being filled", || {
        processes_below(&temporary)
            .iter()
            .any(|process| process.contains("INSERT"))
    });
    signal(&demo, "-INT");
    assert_eq!(demo.wait().unwrap().code(), Some(130));
    let said: Vec<String> = said.collect();
    assert_eq!(said[0], "error[BKS-1301]: the demo was stopped by a signal");
    assert_eq!(processes_below(&temporary), Vec::<String>::new());
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn a_demo_that_is_terminated_in_the_middle_leaves_no_directory_and_no_server() {
    let (place, temporary) = place_of("backup");
    let mut demo = start_demo(&place, &temporary, &[]);
    let said = hear(&mut demo, "made and filled a server");
    let room = only_entry(&temporary);
    wait_until("packs are being stored", || {
        fs::read_dir(room.join("repository/postgres-backups")).is_ok()
    });
    assert_ne!(processes_below(&temporary), Vec::<String>::new());
    signal(&demo, "-TERM");
    assert_eq!(demo.wait().unwrap().code(), Some(143));
    let said: Vec<String> = said.collect();
    assert!(
        said.iter().any(|line| line.starts_with("error[BKS-1401]: ")),
        "{said:?}"
    );
    assert_eq!(processes_below(&temporary), Vec::<String>::new());
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn a_demo_that_is_terminated_while_its_copy_runs_stops_it_and_keeps_only_what_it_was_told_to() {
    let (place, temporary) = place_of("copy");
    let mut demo = start_demo(&place, &temporary, &["--keep"]);
    let said = hear(&mut demo, "the server is killed");
    let room = only_entry(&temporary);
    wait_until("the copy runs", || room.join("restored/postmaster.pid").exists());
    signal(&demo, "-TERM");
    assert_eq!(demo.wait().unwrap().code(), Some(143));
    let kept = format!("kept      {}", room.display());
    let said: Vec<String> = said.collect();
    assert!(said.contains(&kept), "{said:?}");
    assert_eq!(processes_below(&temporary), Vec::<String>::new());
    assert!(room.join("restored/PG_VERSION").exists());
    assert!(!room.join("restored/postmaster.pid").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_stream_whose_server_does_not_answer_with_the_exit_of_that_signal() {
    let server = PgServer::start().await;
    for (second, exit, code) in [("-TERM", 143, "BKS-1401"), ("-INT", 130, "BKS-1301")] {
        let place = Place::new().serving(&server);
        let mut stream = start_stream(&place);
        let senders = "SELECT count(*)::text FROM pg_stat_replication WHERE state = 'streaming'";
        until(&server, senders, "1").await;
        let sender = server.value("SELECT pid::text FROM pg_stat_replication").await;
        send(&sender, "-STOP");
        signal(&stream, "-TERM");
        let log = place.directory.join("stream.log");
        wait_until("the first signal is heard", || {
            fs::read_to_string(&log).unwrap().contains("stopping: ")
        });
        signal(&stream, second);
        assert_eq!(stream.wait().unwrap().code(), Some(exit));
        send(&sender, "-CONT");
        let said = fs::read_to_string(&log).unwrap();
        assert!(
            said.contains(&format!("error[{code}]: stopped by a second signal")),
            "{said}"
        );
        until(&server, "SELECT count(*)::text FROM pg_stat_replication", "0").await;
        place.finish(place.command(&["slot", "drop", "main", "--confirm", "main"]));
    }
}

/// Stands before the C library: `fsync`, with which the store makes durable, waits while the file `$HANG` is there.
const HANGING: &str = r#"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
int fsync(int file) {
    const char *hang = getenv("HANG");
    if (access(hang, F_OK) == 0) {
        char hit[4096];
        strncpy(hit, hang, 4000);
        close(open(strcat(hit, ".hit"), O_CREAT | O_WRONLY, 0600));
        while (1) pause();
    }
    return syscall(SYS_fsync, file);
}
"#;

/// A command whose store answers until the file `hang` is in its place; what it says goes to `stream.log`.
fn start_that_can_hang(place: &Place, arguments: &[&str]) -> Child {
    let at = |name: &str| place.directory.join(name);
    fs::write(at("hanging.c"), HANGING).unwrap();
    let built = Command::new("gcc")
        .args(["-shared", "-fPIC", "-o"])
        .args([at("hanging.so"), at("hanging.c")])
        .status();
    assert!(built.unwrap().success());
    fs::create_dir_all(at("tmp")).unwrap();
    let mut command = place.command(arguments);
    command
        .env("TMPDIR", at("tmp"))
        .env("LD_PRELOAD", at("hanging.so"))
        .env("HANG", at("hang"));
    let log = fs::File::create(at("stream.log")).unwrap();
    command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// The exit, or none when it does not end: then it is killed.
fn exit_of(mut stream: Child) -> Option<i32> {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        match stream.try_wait().unwrap() {
            Some(status) => return status.code(),
            None if Instant::now() > deadline => {
                stream.kill().unwrap();
                stream.wait().unwrap();
                return None;
            }
            None => std::thread::yield_now(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_stream_whose_store_does_not_answer_and_what_is_stored_stays() {
    let server = PgServer::start().await;
    let place = Place::new().serving(&server);
    let stream = start_that_can_hang(&place, &["stream", "main"]);
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        .await;
    until(&server, CONFIRMED, "true").await;
    let confirmed = server.value("SELECT flush_lsn FROM pg_stat_replication").await;
    fs::write(place.directory.join("hang"), "").unwrap();
    server
        .sql("INSERT INTO t SELECT generate_series(1001, 2000)")
        .await;
    wait_until("the store hangs", || place.directory.join("hang.hit").exists());
    signal(&stream, "-TERM");
    let log = place.directory.join("stream.log");
    wait_until("the first signal is heard", || {
        fs::read_to_string(&log).unwrap().contains("stopping: ")
    });
    signal(&stream, "-HUP");
    signal(&stream, "-INT");
    assert_eq!(exit_of(stream), Some(130));
    let said = fs::read_to_string(&log).unwrap();
    assert!(
        said.contains("error[BKS-1301]: stopped by a second signal"),
        "{said}"
    );

    // Nothing confirmed is lost, and the next stream stores the rest.
    let slot = "SELECT (restart_lsn >= '{}')::text FROM pg_replication_slots".replace("{}", &confirmed);
    assert_eq!(server.value(&slot).await, "true");
    until(&server, "SELECT count(*)::text FROM pg_stat_replication", "0").await;
    fs::remove_file(place.directory.join("hang")).unwrap();
    let stream = start_stream(&place);
    until(&server, CONFIRMED, "true").await;
    stop_stream(stream);
    let gaps = place.run("wal gaps");
    assert_eq!(gaps.exit, 0, "{}{}", gaps.out, gaps.err);
    let verified = place.run("verify main --depth everything");
    assert_eq!(verified.exit, 0, "{}{}", verified.out, verified.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_closes_stops_a_stream_in_its_proper_way_unless_nohup_says_otherwise() {
    let server = PgServer::start().await;
    let place = Place::new().serving(&server);
    let log = place.directory.join("stream.log");
    let start = |line: &str| {
        let mut command = place.command(&[]);
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(line).arg(command.get_program());
        shell.current_dir(&place.directory).env_clear();
        for (name, value) in command.env("PATH", "/usr/bin:/bin").get_envs() {
            shell.env(name, value.unwrap());
        }
        shell.stdin(Stdio::null()).stdout(Stdio::null());
        shell.stderr(fs::File::create(&log).unwrap()).spawn().unwrap()
    };
    // Whoever runs the tests may have come through nohup himself.
    let mut stream = start("exec env --default-signal=HUP \"$0\" stream main");
    until(&server, CONFIRMED, "true").await;
    signal(&stream, "-HUP");
    assert_eq!(stream.wait().unwrap().code(), Some(0));
    assert!(fs::read_to_string(&log).unwrap().contains("stopping: "));

    let stream = start("trap '' HUP; exec \"$0\" stream main");
    until(&server, CONFIRMED, "true").await;
    signal(&stream, "-HUP");
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        .await;
    until(&server, CONFIRMED, "true").await;
    assert!(!fs::read_to_string(&log).unwrap().contains("stopping: "));
    stop_stream(stream);
}

fn send(pid: &str, name: &str) {
    assert!(Command::new("kill").args([name, pid]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_stopped_while_its_repository_is_gone_ends_soon_and_says_what_is_safe() {
    let server = PgServer::start().await;
    let place = Place::with_program(server.room().path().join("place")).serving(&server);
    let stream = start_stream(&place);
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        .await;
    let run = place.run("backup main --progress none");
    assert_eq!(run.exit, 0, "{}", run.err);
    until(&server, CONFIRMED, "true").await;
    let [here, away] = ["backups", "away"].map(|name| place.directory.join(name));
    fs::rename(&here, &away).unwrap();
    server
        .sql("INSERT INTO t SELECT generate_series(1001, 2000)")
        .await;
    wait_until("the store is missed", || {
        stream_log(&place).contains("trying again")
    });
    signal(&stream, "-TERM");
    // What it would wait for by itself is longer than the test does.
    assert_eq!(exit_of(stream), Some(8), "{}", stream_log(&place));
    let said = stream_log(&place);
    let safe = server
        .value("SELECT restart_lsn::text FROM pg_replication_slots")
        .await;
    for words in [
        format!("stored={safe} "),
        "the stream was stopped before everything received was stored".to_owned(),
        "the server keeps ".to_owned(),
        "error[BKS-8001]: ".to_owned(),
        "nothing confirmed is lost".to_owned(),
    ] {
        assert!(said.contains(&words), "{words}: {said}");
    }

    fs::rename(&away, &here).unwrap();
    let stream = start_stream(&place);
    until(&server, CONFIRMED, "true").await;
    stop_stream(stream);
    let verified = place.run("verify main --depth everything");
    assert_eq!(verified.exit, 0, "{}{}", verified.out, verified.err);
    let port = free_port();
    let line = format!("restore main --to latest --into copy --start --json --progress none --port {port}");
    let run = place.run(&line);
    assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
    let mut connection = connect_to_copy(&serde_json::from_str(&run.out).unwrap()).await;
    let sets = connection.simple_query("SELECT count(*) FROM t").await.unwrap();
    assert_eq!(sets[0].rows[0], [Some("2000".to_owned())]);
    stop_copy(&place, "copy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_stopped_over_a_store_that_does_not_answer_ends_at_once_and_leaves_nothing() {
    let server = PgServer::start().await;
    let place = Place::new().serving(&server);
    let begun = "SELECT count(*)::text FROM pg_stat_replication WHERE state = 'backup'";
    for (name, exit) in [("-TERM", 143), ("-INT", 130)] {
        fs::write(place.directory.join("hang"), "").unwrap();
        let backup = start_that_can_hang(&place, &["backup", "main", "--progress", "none"]);
        wait_until("the store hangs", || place.directory.join("hang.hit").exists());
        signal(&backup, name);
        assert_eq!(exit_of(backup), Some(exit));
        let said = stream_log(&place);
        assert!(
            said.contains("stopped by a signal before the backup was complete"),
            "{said}"
        );
        let left = fs::read_dir(place.directory.join("tmp")).unwrap().count();
        assert_eq!(left, 0, "its scratch files are gone");
        fs::remove_file(place.directory.join("hang")).unwrap();
        fs::remove_file(place.directory.join("hang.hit")).unwrap();
        until(&server, begun, "0").await;
    }
    let run = place.run("backup main --progress none");
    assert_eq!(run.exit, 0, "{}", run.err);
    let verified = place.run("verify main --depth everything");
    assert_eq!(verified.exit, 0, "{}{}", verified.out, verified.err);
}
