//! Every way in which a repository can be none, not ours or not whole: message, exit, and nothing changed.

use crate::golden::assert_golden;
use crate::mask::mask;
use crate::program::Place;
use crate::tree::{changes, tree};
use backstay_testkit::pg::Owner;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Nobody listens there; no command here should get that far.
const SERVICES: &str = "services:\n  main: { postgresql: \"host=/nowhere user=postgres\" }\n";

fn configured(extra: &str) -> Place {
    let keys = "keys: [ { file: ./backstay.key } ]";
    let place = Place::with_config(format!(
        "version: 1\nrepo: file://./backups\n{keys}\n{extra}{SERVICES}"
    ));
    place.write("backstay.key", "07".repeat(32));
    place
}

fn initialised() -> Place {
    let place = configured("");
    assert_eq!(place.run("init").exit, 10, "the server cannot be reached");
    place
}

/// Runs it and fails if anything below the place changed.
#[track_caller]
fn refused(place: &Place, line: &str) -> String {
    let before = tree(&place.directory);
    let run = place.run(line);
    assert_eq!(
        changes(&before, &tree(&place.directory)),
        Vec::<String>::new(),
        "{line}"
    );
    assert_ne!(run.exit, 0, "{line}");
    mask(&run.whole(line))
}

#[test]
fn a_repository_that_is_absent() {
    let place = configured("");
    let text = refused(&place, "list") + &refused(&place, "backup main") + &refused(&place, "check");
    assert_golden("bad-repository/absent.txt", &text);
}

#[test]
fn a_service_of_which_nothing_is_stored_has_no_log_that_is_whole() {
    let place = initialised();
    let gaps = place.run("wal gaps");
    let told: serde_json::Value = serde_json::from_str(&place.run("wal gaps --json").out).unwrap();
    assert_eq!(told["gaps"], serde_json::json!([]));
    assert_eq!(told["without_log"], serde_json::json!(["main"]));
    assert_golden("bad-repository/no-log.txt", &gaps.whole("wal gaps"));
}

#[test]
fn a_place_that_init_left_half_made_is_refused_and_then_finished() {
    let place = configured("");
    fs::create_dir(place.directory.join("backups")).unwrap();
    let text = refused(&place, "list");
    assert_golden("bad-repository/half-made.txt", &text);
    let again = place.run("init");
    assert!(again.out.contains("(new), id"), "{}{}", again.out, again.err);
    assert_eq!(place.run("list").exit, 0);
}

#[test]
fn a_place_that_holds_something_else() {
    let place = configured("");
    fs::create_dir(place.directory.join("backups")).unwrap();
    place.write("backups/holiday.jpg", "not ours");
    assert_golden("bad-repository/not-empty.txt", &refused(&place, "init"));
}

#[test]
fn a_place_that_cannot_be_a_directory() {
    let place = configured("");
    let mut text = String::new();
    for line in [
        "--repo file://./backstay.key list",
        "--repo file://./backstay.key init",
        "--repo file:///proc/nothing init",
    ] {
        text += &refused(&place, line);
    }
    assert_golden("bad-repository/no-directory.txt", &text);
}

#[test]
fn what_is_said_for_a_new_configuration_is_not_dropped_silently_when_there_is_one() {
    let place = initialised();
    let config = fs::read(place.directory.join("backstay.yaml")).unwrap();
    let warnings = |line: &str| place.run(line).err;
    assert_eq!(warnings("init"), "");
    assert_eq!(warnings("init main"), "");
    let warned = "warning: ./backstay.yaml was there already and is not changed: write";
    let rest = "and its connection under services: there\n";
    assert_eq!(warnings("init other"), format!("{warned} other {rest}"));
    assert_eq!(
        warnings("init main --postgresql host=/elsewhere"),
        format!("{warned} main {rest}")
    );
    assert_eq!(fs::read(place.directory.join("backstay.yaml")).unwrap(), config);
}

#[test]
fn a_configuration_without_services_is_told_wherever_services_are_listed() {
    let place = Place::with_config(
        "version: 1\nrepo: file://./backups\nkeys: [ { file: ./backstay.key } ]\nservices:\n",
    );
    assert_eq!(place.run("init").exit, 0);
    let mut text = String::new();
    for line in ["status", "list", "window"] {
        text += &place.run(line).whole(line);
    }
    assert_golden("bad-repository/no-services.txt", &text);
}

/// Whatever lies there says nothing of the objects, so they are not called damaged, and nothing waits for a pipe.
#[test]
fn a_repository_json_that_is_none() {
    let place = initialised();
    let at = place.directory.join("backups/repository.json");
    let original = fs::read(&at).unwrap();
    let (id, created) = ("0".repeat(32), "\"created\":\"2026-01-01T00:00:00Z\"");
    let contents = [
        ("cut", b"{\"format\":1,\"repos".to_vec()),
        ("empty", Vec::new()),
        ("no JSON", b"hello".to_vec()),
        ("no object", b"[1]".to_vec()),
        (
            "a wrong type",
            format!("{{\"format\":1,\"repository\":7,{created}}}").into(),
        ),
        (
            "no id",
            format!("{{\"format\":1,\"repository\":\"x\",{created}}}").into(),
        ),
        (
            "no time",
            format!("{{\"format\":1,\"repository\":\"{id}\"}}").into(),
        ),
        ("no UTF-8", b"{\"format\":1,\"repository\":\"\xff\"}".to_vec()),
    ];
    let mut text = String::new();
    let mut told = |what: &str| text += &format!("# {what}\n{}", refused(&place, "list"));
    for (what, content) in contents {
        fs::write(&at, content).unwrap();
        told(what);
    }
    // A hole of a file: whoever reads it whole has no memory left.
    fs::File::create(&at).unwrap().set_len(1 << 42).unwrap();
    let list = place.run("list");
    assert_eq!(list.exit, 5, "{}", list.err);
    let size = "repository.json does not say which repository this is: it has 4398046511104 bytes";
    assert!(list.err.contains(size), "{}", list.err);
    let pipe = |at: &Path| assert!(Command::new("mkfifo").arg(at).status().unwrap().success());
    let socket = |at: &Path| drop(std::os::unix::net::UnixListener::bind(at).unwrap());
    let link = |at: &Path| std::os::unix::fs::symlink("/dev/zero", at).unwrap();
    let directory = |at: &Path| fs::create_dir(at).unwrap();
    type Make<'a> = (&'a str, &'a dyn Fn(&Path));
    let odd: [Make; 4] = [
        ("a pipe", &pipe),
        ("a socket", &socket),
        ("a link to a device", &link),
        ("a directory", &directory),
    ];
    for (what, make) in odd {
        fs::remove_file(&at).unwrap();
        make(&at);
        told(what);
        for line in [
            "init",
            "backup main",
            "verify",
            "restore main --to latest --into copy --plan",
        ] {
            refused(&place, line);
            assert_eq!(place.run(line).exit, 5, "{what}: {line}");
        }
    }
    assert_golden("bad-repository/no-identity.txt", &text);
    fs::remove_dir(&at).unwrap();
    fs::write(&at, original).unwrap();
    assert_eq!(place.run("list").exit, 0);
}

/// Whoever reads that a place holds no repository removes what is there.
#[test]
fn a_repository_whose_repository_json_is_lost_is_not_taken_for_rubbish() {
    let place = initialised();
    // A backup that fails leaves its record.
    assert_eq!(place.run("backup main").exit, 8);
    let lost = fs::read(place.directory.join("backups/repository.json")).unwrap();
    fs::remove_file(place.directory.join("backups/repository.json")).unwrap();
    let mut text = String::new();
    for line in ["list", "init", "check"] {
        text += &refused(&place, line);
    }
    assert_golden("bad-repository/json-lost.txt", &text);
    // As the advice says: written again with the id that the recovery sheet has.
    let info: serde_json::Value = serde_json::from_slice(&lost).unwrap();
    let again = format!(
        "{{\"format\":1,\"repository\":{},\"created\":\"2026-01-01T00:00:00Z\"}}",
        info["repository"]
    );
    place.write("backups/repository.json", again);
    assert_eq!(place.run("verify").exit, 0);
}

#[test]
fn keys_that_open_nothing_fail_the_check_as_they_fail_a_backup() {
    let plain = initialised();
    let keys = "keys: [ { age: age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p } ]";
    let config = fs::read_to_string(plain.directory.join("backstay.yaml")).unwrap();
    plain.write(
        "backstay.yaml",
        config.replace("keys: [ { file: ./backstay.key } ]", keys),
    );
    let check = plain.run("check");
    let said = "✗ opening no configured key opens what is written here";
    assert!(mask(&check.out).contains(said), "{}", check.out);
    assert_eq!(plain.run("backup main").exit, 11);
}

#[test]
fn a_repository_of_a_newer_format() {
    let place = initialised();
    place.write("backups/repository.json", "{\"format\":2,\"clusters\":[]}");
    assert_golden("bad-repository/newer.txt", &refused(&place, "backup main"));
}

#[test]
fn a_repository_of_another_id_than_configured() {
    let place = configured("repository_id: 00112233445566778899aabbccddeeff\n");
    let plain = fs::read_to_string(place.directory.join("backstay.yaml")).unwrap();
    place.write(
        "backstay.yaml",
        plain.replace("repository_id: 00112233445566778899aabbccddeeff\n", ""),
    );
    assert_eq!(place.run("init").exit, 10, "the server cannot be reached");
    place.write("backstay.yaml", plain);
    assert_golden("bad-repository/another.txt", &refused(&place, "list"));
}

/// A repository.json of another repository, or one with a digit changed: two repositories would come to live in one place.
#[test]
fn a_repository_json_with_another_id_than_what_is_stored() {
    let place = initialised();
    // A backup that fails leaves its record, and the month's key.
    assert_eq!(place.run("backup main").exit, 8);
    let original = fs::read_to_string(place.directory.join("backups/repository.json")).unwrap();
    let info: serde_json::Value = serde_json::from_str(&original).unwrap();
    let id = info["repository"].as_str().unwrap();
    let digit = if id.starts_with('0') { "1" } else { "0" };
    let changed = format!("{digit}{}", &id[1..]);
    place.write("backups/repository.json", original.replace(id, &changed));
    let mut text = String::new();
    for line in ["backup main", "check", "status", "list"] {
        text += &refused(&place, line);
    }
    assert_golden("bad-repository/other-id.txt", &text.replace(id, "STORED"));
    for line in [
        "init",
        "stream main",
        "verify",
        "wal settle main",
        "expire main",
        "key rotate",
        "restore main --to latest --into copy --plan",
    ] {
        refused(&place, line);
        assert_eq!(place.run(line).exit, 5, "{line}");
    }
    let said = place.run("list").err;
    assert!(said.contains(id) && said.contains(&changed), "{said}");
    place.write("backups/repository.json", original);
    assert_eq!(place.run("list").exit, 0);
}

#[test]
fn a_run_record_that_cannot_be_read_is_named_once() {
    let place = initialised();
    assert_eq!(place.run("backup main").exit, 8);
    let record = tree(&place.directory.join("backups/facts/runs"))
        .into_keys()
        .find(|path| path.to_string_lossy().ends_with(".finished"))
        .unwrap();
    let record = place.directory.join("backups/facts/runs").join(record);
    fs::write(&record, "").unwrap();
    let of_stream = record.to_string_lossy().replace("-backup-", "-stream-");
    fs::write(&of_stream, "").unwrap();
    for line in ["status", "list"] {
        let run = place.run(line);
        for kind in ["-backup-", "-stream-"] {
            let named = run.err.lines().filter(|line| line.contains(kind));
            assert_eq!(named.count(), 1, "{line}: {}", run.err);
        }
    }
}

#[test]
fn init_makes_no_new_key_for_a_repository_that_has_one() {
    let place = initialised();
    fs::remove_file(place.directory.join("backstay.key")).unwrap();
    let mut text = String::new();
    for line in ["init", "list", "status", "check"] {
        text += &refused(&place, line);
    }
    assert_golden("bad-repository/key-lost.txt", &text);
}

#[test]
fn a_wrong_key_is_named_by_check_before_anything_depends_on_it() {
    let place = initialised();
    // A backup that fails leaves its record, sealed with the month's key.
    assert_eq!(place.run("backup main").exit, 8);
    place.write("backstay.key", "08".repeat(32));
    assert_golden("bad-repository/wrong-key.txt", &refused(&place, "check"));
}

/// Root may write everywhere, so the program runs as the user of the test servers.
#[test]
fn a_repository_that_may_only_be_read() {
    let place = initialised();
    let owner = Owner::find();
    for file in ["backstay.key", "backstay.yaml"] {
        owner.take(&place.directory.join(file)).unwrap();
    }
    place.mode("backups", 0o555);
    place.mode("backups/repository.json", 0o444);
    let before = tree(&place.directory);
    let mut text = String::new();
    for line in ["backup main", "verify", "check"] {
        let mut command = owner.command(Path::new(env!("CARGO_BIN_EXE_backstay")));
        let arguments: Vec<&str> = line.split(' ').collect();
        command.args(arguments).current_dir(&place.directory).env_clear();
        command
            .env("PATH", "/usr/bin:/bin")
            .env("TZ", "UTC")
            .env("HOME", &place.directory);
        text += &mask(&place.finish(command).whole(line));
    }
    assert_eq!(changes(&before, &tree(&place.directory)), Vec::<String>::new());
    place.mode("backups", 0o755);
    assert_golden("bad-repository/read-only.txt", &text);
}

#[test]
fn inits_at_the_same_time_make_one_of_everything_and_all_end_well() {
    let place = Place::new();
    let line = ["init", "main", "--postgresql", "host=/nowhere user=postgres"];
    let start = || {
        place
            .command(&line)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    };
    let runs: Vec<_> = (0..3).map(|_| start().unwrap()).collect();
    let mut ids = BTreeSet::new();
    for run in runs {
        let output = run.wait_with_output().unwrap();
        let (out, err) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        assert_eq!(
            output.status.code(),
            Some(10),
            "the server cannot be reached: {out}{err}"
        );
        let id = out
            .lines()
            .find_map(|line| line.strip_prefix("repository  ")?.split(" id ").nth(1));
        ids.insert(id.unwrap().to_owned());
    }
    assert_eq!(ids.len(), 1);
    assert_eq!(place.run("key check").exit, 0);
}

#[test]
fn init_writes_nothing_for_a_connection_that_cannot_be_one() {
    let place = Place::new();
    let text = refused(&place, "init main --postgresql hots=example.com");
    assert_golden("bad-repository/no-connection.txt", &text);
    // Nobody says who the user is: the one that runs the program.
    let mut command = place.command(&["init", "main", "--postgresql", "host=/nowhere"]);
    command.env_remove("USER");
    let run = place.finish(command);
    assert!(!run.out.contains("no user is named"), "{}{}", run.out, run.err);
    assert_eq!(run.exit, 10);
}

#[test]
fn init_goes_on_wherever_it_stopped() {
    for keep in [&[][..], &["backstay.yaml"], &["backstay.yaml", "backstay.key"]] {
        let place = Place::new();
        place.run("init --postgresql host=/nowhere");
        for entry in fs::read_dir(&place.directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                fs::remove_dir_all(&path).unwrap();
            } else if !keep.iter().any(|name| path.ends_with(name)) {
                fs::remove_file(&path).unwrap();
            }
        }
        let again = place.run("init --postgresql host=/nowhere");
        assert!(
            again.out.contains("repository  file:///DIR/backups (new)"),
            "{keep:?} {}{}",
            again.out,
            again.err
        );
        assert_eq!(place.run("list").exit, 0, "{keep:?}");
    }
}
