//! What a demo makes of the variables of PostgreSQL around it, and what `--keep` leaves to look at.

use crate::program::Place;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Variables that would lead a server or a client elsewhere.
const ELSEWHERE: [(&str, &str); 7] = [
    ("PGDATA", "/nowhere"),
    ("PGDATABASE", "nothing"),
    ("PGHOST", "/nowhere"),
    ("PGOPTIONS", "-c search_path=nowhere"),
    ("PGPORT", "5999"),
    ("PGSSLMODE", "verify-full"),
    ("PGUSER", "nobody"),
];

/// What follows a label in the report.
fn told<'a>(report: &'a str, label: &str) -> &'a str {
    let line = report.lines().find_map(|line| line.strip_prefix(label));
    line.unwrap_or_else(|| panic!("no {label} in {report}")).trim()
}

/// Runs a printed line as a person would type it: in a shell, in a directory of theirs.
fn typed(line: &str) -> (bool, String) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", line]).current_dir("/").stdin(Stdio::null());
    let output = shell.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn a_demo_among_variables_of_postgresql_works_and_what_it_keeps_can_be_opened_and_stopped() {
    // The server's user needs a way to it, which a checkout may not have.
    let directory = std::env::temp_dir().join(format!("demo-{}", std::process::id()));
    let place = Place::with_program(directory.clone());
    fs::create_dir(directory.join("tmp")).unwrap();
    let mut command = place.command(&["demo", "--keep"]);
    command.envs(ELSEWHERE).env("TMPDIR", directory.join("tmp"));
    let output = command.output().unwrap();
    let (out, err) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    let kept = Path::new(told(&out, "kept"));
    let pid_file = kept.join("restored/postmaster.pid");
    assert!(pid_file.exists(), "the copy runs");

    let program = directory.join("backstay");
    let look = told(&out, "look").replacen("backstay ", &format!("{} ", program.display()), 1);
    let (listed, said) = typed(&look);
    assert!(listed && said.contains("full"), "{look}: {said}");
    let key = fs::metadata(kept.join("backstay.key")).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777,
        0o600
    );

    let (stopped, said) = typed(told(&out, "stop"));
    assert!(stopped, "{said}");
    assert!(!pid_file.exists(), "the copy is stopped");
}
