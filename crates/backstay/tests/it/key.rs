//! Making and showing keys.

use crate::golden::assert_golden;
use crate::program::Place;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

const CONFIG: &str = "\
version: 1
repo: file:///srv/backups
keys:
  - { file: ./backstay.key }
  - { passphrase: { env: BACKSTAY_PASSPHRASE } }
  - { age: age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p }
";

#[test]
fn a_new_key_is_its_owners_alone_and_can_be_used_at_once() {
    let place = Place::new();
    let made = place.run("key new --json");
    assert_eq!((made.exit, made.err.as_str()), (0, ""));
    let made: serde_json::Value = serde_json::from_str(&made.out).unwrap();
    let path = place.directory.join("backstay.key");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    place.write(
        "backstay.yaml",
        "version: 1\nrepo: file://./b\nkeys: [ { file: ./backstay.key } ]\n",
    );
    let shown: serde_json::Value = serde_json::from_str(&place.run("key show --json").out).unwrap();
    assert_eq!(shown["keys"][0]["id"], made["id"]);
    assert_eq!(place.run("config validate").exit, 0);
}

#[test]
fn a_key_is_printed_by_no_command() {
    let place = Place::new();
    let mut said = place.run("key new").whole("key new");
    let line = fs::read_to_string(place.directory.join("backstay.key")).unwrap();
    let secret = line.split(':').nth(1).unwrap();
    assert_eq!(secret.len(), 43);
    place.write(
        "backstay.yaml",
        "version: 1\nrepo: file://./b\nkeys: [ { file: ./backstay.key } ]\n",
    );
    for line in [
        "key show",
        "key show --json",
        "config show",
        "config validate",
        "-vvv key show",
    ] {
        said += &place.run(line).whole(line);
    }
    assert!(!said.contains(secret), "{said}");
}

#[test]
fn the_words_around_a_new_key_say_what_it_means() {
    let place = Place::new();
    let run = place.run("key new keys.txt");
    let id = run.out.split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(id.len(), 16);
    let mut text = run.whole("key new keys.txt").replace(&id, "IDIDIDIDIDIDIDID");
    text += &place.run("key new keys.txt").whole("key new keys.txt");
    text += &place
        .run("key new missing/keys.txt")
        .whole("key new missing/keys.txt");
    assert_golden("key/new.txt", &text);
}

#[test]
fn a_file_that_is_there_is_not_touched() {
    let place = Place::new();
    place.write("backstay.key", "precious");
    assert_eq!(place.run("key new").exit, 5);
    assert_eq!(
        fs::read_to_string(place.directory.join("backstay.key")).unwrap(),
        "precious"
    );
    std::os::unix::fs::symlink("nowhere", place.directory.join("link")).unwrap();
    assert_eq!(place.run("key new link").exit, 5);
    assert!(!place.directory.join("nowhere").exists());
}

#[test]
fn keys_are_shown_by_id_and_place() {
    let place = Place::with_config(CONFIG);
    place.write("backstay.key", "07".repeat(32));
    let mut command = place.command(&["key", "show"]);
    command.env("BACKSTAY_PASSPHRASE", "correct horse");
    let mut text = place.finish(command).whole("key show");
    let mut command = place.command(&["key", "show", "--json"]);
    command.env("BACKSTAY_PASSPHRASE", "correct horse");
    text += &place.finish(command).whole("key show --json");
    assert_golden("key/show.txt", &text);
}

#[test]
fn a_key_that_was_changed_is_refused_by_its_checksum() {
    let place = Place::with_config("version: 1\nrepo: file://./b\nkeys: [ { file: ./backstay.key } ]\n");
    assert_eq!(place.run("key new").exit, 0);
    let path = place.directory.join("backstay.key");
    let line = fs::read_to_string(&path).unwrap();
    let first = line.split(':').nth(1).unwrap().chars().next().unwrap();
    let other = if first == 'A' { 'B' } else { 'A' };
    place.write(
        "backstay.key",
        line.replacen(&format!(":{first}"), &format!(":{other}"), 1),
    );
    let run = place.run("key show");
    assert_eq!(run.exit, 11);
    assert_golden("key/changed.txt", &run.whole("key show"));
}

#[test]
fn an_age_recipient_is_proved_by_its_identity_alone() {
    // The pair of docs/internals/vectors.
    let recipient = "age1wa6uyzfzk6wptfr8t3yhhjkp276envcpswkdkg42lvzhhsq4vqqql6sf9x";
    let identity = "AGE-SECRET-KEY-1JSJY2X00K7FNXPN5SJWWCCQPUEXL6EHQ3Y9F2909SG5PFCU6JARS0XX2Q8";
    let other = "AGE-SECRET-KEY-1NLFEF4WPDAMM3MY4952QM83VGRTN60FK9E42YZT8JC34KQSW8CXQTHTLKA";
    let keys = format!("keys: [ {{ file: ./backstay.key }}, {{ age: {recipient} }} ]");
    let services = "services:\n  main: { postgresql: \"host=/nowhere\" }\n";
    let place = Place::with_config(format!("version: 1\nrepo: file://./b\n{keys}\n{services}"));
    place.write("backstay.key", "07".repeat(32));
    place.write("identity", identity);
    place.write("other", other);
    place.run("init");
    // A backup that fails leaves an envelope: the month's.
    assert_eq!(place.run("backup main").exit, 8);
    let mut text = String::new();
    for line in [
        "key check",
        "key check --identity other",
        "key check --identity identity",
        "key check --identity backstay.yaml",
    ] {
        text += &place.run(line).whole(line);
    }
    assert_golden("key/check-age.txt", &text);
}

#[test]
fn a_damaged_wrap_is_found_by_verify_while_another_one_still_opens() {
    let recipient = "age1wa6uyzfzk6wptfr8t3yhhjkp276envcpswkdkg42lvzhhsq4vqqql6sf9x";
    let identity = "AGE-SECRET-KEY-1JSJY2X00K7FNXPN5SJWWCCQPUEXL6EHQ3Y9F2909SG5PFCU6JARS0XX2Q8";
    let keys = format!("keys: [ {{ file: ./backstay.key }}, {{ age: {recipient} }} ]");
    let services = "services:\n  main: { postgresql: \"host=/nowhere\" }\n";
    let place = Place::with_config(format!("version: 1\nrepo: file://./b\n{keys}\n{services}"));
    place.write("backstay.key", "07".repeat(32));
    place.write("identity", identity);
    place.run("init");
    assert_eq!(place.run("backup main").exit, 8);
    let wraps = std::fs::read_dir(place.directory.join("b/facts/keys")).unwrap();
    let wraps: Vec<_> = wraps.map(|wrap| wrap.unwrap().path()).collect();
    assert_eq!(wraps.len(), 2, "{wraps:?}");
    let is_for_age = |path: &&std::path::PathBuf| std::fs::read_to_string(path).unwrap().contains(recipient);
    let at = wraps.iter().find(is_for_age).unwrap();
    let name = at.file_name().unwrap().to_str().unwrap();
    let whole = std::fs::read_to_string(at).unwrap();
    let verify = |words: &str| place.run(&format!("verify --no-record --depth everything{words}"));
    for words in ["", " --identity identity"] {
        assert_eq!(verify(words).exit, 0, "{}", verify(words).out);
    }
    // A digit of the sealed keys, which lie at the end of the wrap.
    let place_of = whole.rfind("\"}").unwrap() - 12;
    let flip = if whole.as_bytes()[place_of] == b'A' {
        "B"
    } else {
        "A"
    };
    let mut flipped = whole.clone();
    flipped.replace_range(place_of..=place_of, flip);
    std::fs::write(at, flipped).unwrap();
    let found = verify(" --identity identity");
    assert_eq!(found.exit, 9, "{}", found.out);
    let said =
        format!("KEY-2  facts/keys/{name}: it was made for age {recipient}, whose identity does not open it");
    assert!(found.out.contains(&said), "{}", found.out);
    // What is seen without the identity.
    let mut cut = whole.clone();
    cut.replace_range(place_of..place_of + 4, "");
    std::fs::write(at, cut).unwrap();
    let found = verify("");
    assert_eq!(found.exit, 9, "{}", found.out);
    let said = format!("KEY-2  facts/keys/{name}: it is not an age file of version 1");
    assert!(found.out.contains(&said), "{}", found.out);
}

#[test]
fn a_key_that_is_no_text_is_named_as_such() {
    let place = Place::with_config(
        "version: 1\nrepo: file://./b\nkeys: [ { file: ./backstay.key }, { env: BACKSTAY_KEY } ]\n",
    );
    let utf8: &[u8] = b"\xEF\xBB\xBF";
    let line = "07".repeat(32);
    let mut text = String::new();
    for content in [
        [utf8, line.as_bytes()].concat(),
        b"\xFF\xFE0\x007\x00".to_vec(),
        b"07\xE9".to_vec(),
    ] {
        place.write("backstay.key", content);
        text += &place.run("key show").whole("key show");
    }
    place.write("backstay.key", &line);
    let mut command = place.command(&["key", "show"]);
    command.env("BACKSTAY_KEY", std::ffi::OsStr::from_bytes(b"07\xE9"));
    text += &place.finish(command).whole("BACKSTAY_KEY=... key show");
    text += &place.run("key show").whole("key show");
    assert_golden("key/no-text.txt", &text);
}
