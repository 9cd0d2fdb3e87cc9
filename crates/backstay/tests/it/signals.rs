//! What SIGINT and SIGTERM leave of a demo and of a stream that does not end.

use crate::live::{signal, start_stream, until};
use crate::program::Place;
use backstay_testkit::pg::PgServer;
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
        let place = Place::new();
        let conninfo = server.conninfo_text();
        place.finish(place.command(&["init", "main", "--postgresql", &conninfo]));
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

fn send(pid: &str, name: &str) {
    assert!(Command::new("kill").args([name, pid]).status().unwrap().success());
}
