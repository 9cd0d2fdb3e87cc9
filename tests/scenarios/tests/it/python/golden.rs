//! `scripts/restore.py` on the golden repositories, whole and changed: every refusal names what is wrong.
//!
//! Promise: a refused restore leaves no pg_control, so no server starts on it.

use super::{ask, restore, script, script_path, write_keys_file};
use crate::golden::{DIGEST, FIRST, Golden, PROMOTED};
use backstay_testkit::pg::{Room, run_to_end};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_restores_the_golden_repository() {
    let room = Room::new();
    let into = room.path().join("golden");
    let (repository, key) = (FIRST.path("repository"), FIRST.path("golden.key"));
    restore(&repository, &key, "golden", &into, &[]);
    assert_eq!(ask(&into, DIGEST).await, FIRST.text("digest.txt"));
}

/// A key in a form, as options.
fn key(option: &str, file: PathBuf) -> [OsString; 2] {
    [format!("--{option}").into(), file.into()]
}

fn raw(golden: Golden) -> [OsString; 2] {
    key("key-file", golden.path("golden.key"))
}

/// The lineage of a timeline, as the script lists it.
fn lineage(timeline: u32) -> String {
    let listed = run_to_end(script(&PROMOTED.path("repository"), &raw(PROMOTED)).arg("list"));
    let line = listed
        .lines()
        .find(|line| line.contains(&format!("timeline {timeline} ")));
    line.expect(&listed).split(' ').nth(2).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_restores_each_history_of_the_promoted_golden_repository_with_each_kind_of_key() {
    let room = Room::new();
    fs::copy(PROMOTED.path("golden.identity"), room.path().join("identity")).unwrap();
    let repository = PROMOTED.path("repository");
    write_keys_file(&room, &repository);
    let both = ["digest.txt", "digest-of-timeline-1.txt"];
    for (name, key, timeline, digest) in [
        ("raw", raw(PROMOTED), 2, both[0]),
        ("age", key("keys-file", room.path().join("keys")), 1, both[1]),
        (
            "words",
            key("passphrase-file", PROMOTED.path("golden.passphrase")),
            2,
            both[0],
        ),
    ] {
        let into = room.path().join(name);
        let lineage = lineage(timeline);
        run_to_end(
            script(&repository, &key)
                .args(["--source", "golden", "--lineage", &lineage, "--into"])
                .arg(&into),
        );
        assert_segment_of_the_switch_begins_with_its_ancestor(&into, timeline);
        assert_eq!(ask(&into, DIGEST).await, PROMOTED.text(digest), "{name}");
    }
}

/// LIN-3: PostgreSQL reads the segment of the switch from the descendant's file alone.
fn assert_segment_of_the_switch_begins_with_its_ancestor(into: &Path, timeline: u32) {
    let segment =
        |timeline: u32| fs::read(into.join(format!("pg_wal/{timeline:08X}0000000000000006"))).unwrap();
    if timeline == 2 {
        let (old, new) = (segment(1), segment(2));
        assert_eq!(old.len(), new.len());
        // Page header and first records; whoever copied more or less would differ elsewhere.
        assert!(old[..4096] == new[..4096] && old[..2] != [0, 0]);
    }
}

/// A copy of the promoted golden repository that is changed.
struct Changed {
    room: Room,
    repository: PathBuf,
}

impl Changed {
    fn new() -> Changed {
        let room = Room::new();
        let repository = room.path().join("repository");
        let mut copy = std::process::Command::new("cp");
        run_to_end(copy.arg("-r").arg(PROMOTED.path("repository")).arg(&repository));
        Changed { room, repository }
    }

    /// The only object, or the last of those, below a folder; of tables the root.
    fn object(&self, folder: &str) -> PathBuf {
        let mut at = self.repository.join(folder);
        while at.is_dir() {
            let entries = fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path());
            at = match folder.ends_with("tables") {
                true => entries.min().unwrap(),
                false => entries.max().unwrap(),
            };
        }
        at
    }

    fn change(&self, folder: &str, with: impl Fn(&mut Vec<u8>)) {
        let path = self.object(folder);
        let mut bytes = fs::read(&path).unwrap();
        with(&mut bytes);
        fs::write(path, bytes).unwrap();
    }

    /// What the script says instead of restoring.
    fn said(&self, key: &[OsString], more: &[&str]) -> String {
        let into = self.room.path().join("into");
        let mut script = script(&self.repository, key);
        script
            .args(["--source", "golden", "--into"])
            .arg(&into)
            .args(more);
        let output = script.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{more:?} {said}");
        assert!(
            said.starts_with("restore.py: ") && said.lines().count() == 1,
            "{said}"
        );
        assert!(
            !into.join("global/pg_control").exists(),
            "a server could start on it: {said}"
        );
        if into.exists() {
            fs::remove_dir_all(&into).unwrap();
        }
        said
    }
}

fn flip(place: usize) -> impl Fn(&mut Vec<u8>) {
    move |bytes| bytes[place] ^= 1
}

/// The live and settled ranges of a timeline.
const SECOND_TIMELINE: &str = "wal-archive/settled/golden";

#[test]
fn python_refuses_every_object_that_was_changed_and_says_what_is_wrong() {
    type Change = Box<dyn Fn(&mut Vec<u8>)>;
    let head = "postgres-backups/manifests";
    let added: fn(&mut Vec<u8>) = |bytes| bytes.push(0);
    let shortened: fn(&mut Vec<u8>) = |bytes| bytes.truncate(200);
    let cases: Vec<(&str, Change, &str)> = vec![
        (head, Box::new(flip(3)), "it is no object of kind 2"),
        (
            head,
            Box::new(flip(20)),
            "the key that was given does not open the key",
        ),
        (
            head,
            Box::new(flip(90)),
            "its header was changed, or it was not written as",
        ),
        (
            head,
            Box::new(flip(150)),
            "its content was changed, or bytes are missing",
        ),
        (
            head,
            Box::new(shortened),
            "its content was changed, or bytes are missing",
        ),
        (head, Box::new(added), "bytes were added"),
        (
            "postgres-backups/data",
            Box::new(flip(5000)),
            "its SHA-256 is not the recorded one",
        ),
        (
            "postgres-backups/tables",
            Box::new(flip(150)),
            "its SHA-256 is not the recorded one",
        ),
        (
            SECOND_TIMELINE,
            Box::new(flip(150)),
            "its content was changed, or bytes are missing",
        ),
        (
            SECOND_TIMELINE,
            Box::new(added),
            "its bytes are not the ones that its index names",
        ),
        (
            "wal-archive/lineage",
            Box::new(flip(150)),
            "its content was changed, or bytes are missing",
        ),
        (
            "wal-archive/history",
            Box::new(flip(150)),
            "its content was changed, or bytes are missing",
        ),
    ];
    let lineage = lineage(2);
    let changed = Changed::new();
    for (folder, change, expected) in cases {
        let path = changed.object(folder);
        let original = fs::read(&path).unwrap();
        changed.change(folder, change);
        let said = changed.said(&raw(PROMOTED), &["--lineage", &lineage]);
        let name = path.strip_prefix(&changed.repository).unwrap();
        assert!(said.contains(expected), "{folder}: {said}");
        assert!(said.contains(name.to_str().unwrap()), "{folder}: {said}");
        fs::write(path, original).unwrap();
    }
}

#[test]
fn python_refuses_objects_that_are_absent_or_lie_in_the_place_of_others() {
    let changed = Changed::new();
    let lineage = lineage(2);
    let said = || changed.said(&raw(PROMOTED), &["--lineage", &lineage]);
    let head = changed.object("postgres-backups/manifests");
    let renamed = head.with_file_name("20261127T000000Z-full-aaaaaaaaaa");
    fs::rename(&head, &renamed).unwrap();
    assert!(
        said().contains("it was not written as postgres/golden/"),
        "a renamed head"
    );
    fs::rename(&renamed, &head).unwrap();

    let settled = changed.repository.join(SECOND_TIMELINE);
    let system = fs::read_dir(settled).unwrap().next().unwrap().unwrap().path();
    let mut branches: Vec<PathBuf> = fs::read_dir(system)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    branches.sort();
    let mut ranges: Vec<PathBuf> = fs::read_dir(&branches[0])
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    ranges.sort();
    let replaced = fs::read(&ranges[1]).unwrap();
    fs::copy(&ranges[0], &ranges[1]).unwrap();
    assert!(
        said().contains("it was not written as postgres/golden/"),
        "another range"
    );
    fs::write(&ranges[1], replaced).unwrap();

    // All that holds one segment: settled and live.
    let segment = ranges[ranges.len() - 2].file_name().unwrap().to_str().unwrap()[..16].to_owned();
    for level in ["settled", "live"] {
        let branch = branches[0]
            .to_str()
            .unwrap()
            .replace("/settled/", &format!("/{level}/"));
        for entry in fs::read_dir(branch).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name[..8] == segment[..8] && name[8..10] == segment[8..10] {
                fs::remove_file(path).unwrap();
            }
        }
    }
    assert!(said().contains("the log has a gap at 0/5000000"), "{}", said());
}

#[test]
fn python_refuses_options_that_cannot_be_meant() {
    let changed = Changed::new();
    let keys = changed.room.path().join("keys");
    let with = |line: &str| {
        fs::write(&keys, line).unwrap();
        key("key-file", keys.clone())
    };
    let line = PROMOTED.text("golden.key");
    let other = FIRST.text("golden.key");
    let digit = |at: usize| if line.as_bytes()[at] == b'0' { "1" } else { "0" };
    let typo = |at: usize| [&line[..at], digit(at), &line[at + 1..]].concat();
    for (key, expected) in [
        (
            other,
            "--key-file, --passphrase-file, --keys-file: what was given opens no wrap",
        ),
        (typo(20), "the key file has a typing error"),
        (typo(line.len() - 1), "the key file has a typing error"),
        (line[..40].to_owned(), "--key-file: "),
        ("00".repeat(31), "--key-file: "),
    ] {
        let said = changed.said(&with(&key), &[]);
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains(&key), "the key itself is not printed");
    }
    for (more, expected) in [
        (
            &["--lineage", "00000000"][..],
            "--lineage: name one, or give --no-log: the log of golden has ",
        ),
        (
            &[],
            "--lineage: name one, or give --no-log: the log of golden has ",
        ),
        (
            &["--no-log", "--until", "0/1"],
            "--source --until: no good backup fits",
        ),
        (
            &["--no-log", "--backup", "20260101T000000Z-full-aaaaaaaaaa"],
            "--source --backup: no good backup fits",
        ),
        (&["--no-log", "--source", "gold"], "--source: no good backup fits"),
        (&["--until", "where"], "--until: ValueError: "),
        (&["--into", ""], "--source and --into: both are needed"),
        (&["--into", "/tmp"], "--into: /tmp exists already"),
        (&["--key-file", "/nowhere.key"], "--key-file: FileNotFoundError: "),
        (&["--keys-file", "/nowhere"], "--keys-file: FileNotFoundError: "),
        (
            &["--passphrase-file", "/nowhere"],
            "--passphrase-file: FileNotFoundError: ",
        ),
    ] {
        let said = changed.said(&raw(PROMOTED), more);
        assert!(
            said.starts_with(&format!("restore.py: {expected}")),
            "{more:?}: {said}"
        );
    }
    let info = changed.repository.join("repository.json");
    let newer = fs::read_to_string(&info)
        .unwrap()
        .replace("\"format\":1", "\"format\":2");
    fs::write(&info, newer).unwrap();
    let said = changed.said(&raw(PROMOTED), &["--no-log"]);
    assert!(said.contains("its format is 2; this script reads 1"), "{said}");
}

#[test]
fn python_without_the_libraries_says_what_to_install() {
    let mut without = std::process::Command::new("/usr/bin/python3");
    let output = without
        .args(["-S", script_path().to_str().unwrap(), "--help"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "restore.py: No module named 'zstandard': run /usr/bin/python3 restore.py after apt install python3-cryptography \
         python3-zstandard\n"
    );
}

#[test]
fn python_explains_every_option() {
    let help = run_to_end(script(Path::new("repository"), &["--help"]).env("COLUMNS", "200"));
    let (_, options) = help.split_once("--help").expect(&help);
    let words: Vec<&str> = options.split_whitespace().collect();
    assert_eq!(
        words.join(" "),
        "show this help message and exit --key-file FILE the raw key --passphrase-file FILE the passphrase \
         --keys-file FILE as above --source SERVICE what to restore --backup ID from this backup, not from the newest \
         good one --lineage ID along this history of the log, where it has several --into DIR the directory to make \
         --until LSN to this position, not to the end of what is stored --no-log to the end of the backup alone"
    );
}

#[test]
fn python_reads_a_master_key_in_every_form() {
    let room = Room::new();
    let line = PROMOTED.text("golden.key");
    let text = line.split(':').nth(1).unwrap();
    let standard = text.replace('-', "+").replace('_', "/") + "=";
    let decode = format!("printf %s '{standard}' | base64 -d | od -An -vtx1 | tr -d ' \\n'");
    let hex = run_to_end(std::process::Command::new("sh").args(["-c", &decode]));
    assert_eq!(hex.len(), 64);
    let listed = |key: &[OsString]| run_to_end(script(&PROMOTED.path("repository"), key).arg("list"));
    let expected = listed(&raw(PROMOTED));
    assert!(expected.contains(" good to "), "{expected}");
    for form in [hex.as_str(), standard.as_str(), text] {
        let file = room.path().join("key");
        fs::write(&file, form).unwrap();
        assert_eq!(listed(&key("key-file", file)), expected, "{}", form.len());
    }
}
