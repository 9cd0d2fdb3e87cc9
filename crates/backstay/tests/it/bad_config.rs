//! Every way in which a configuration can be wrong: message, place, advice and exit, whole.

use crate::golden::assert_golden;
use crate::program::{Place, Run};

/// A master key that nothing was ever sealed with.
const KEY: &str = "0707070707070707070707070707070707070707070707070707070707070707\n";
const HEAD: &str = "version: 1\nrepo: file://./backups\nkeys: [ { file: ./backstay.key } ]\n";

fn validated(config: impl AsRef<[u8]>) -> Run {
    let place = Place::with_config(config);
    place.write("backstay.key", KEY);
    place.run("config validate")
}

/// The runs of a table of configurations, one after the other.
fn table(cases: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (title, config) in cases {
        let run = validated(config);
        let config = config
            .escape_debug()
            .to_string()
            .replace("\\n", "\n")
            .replace("\\\"", "\"");
        text += &format!(
            "## {title}\n\n{}\n\n{}\n",
            config.trim_end(),
            run.whole("config validate")
        );
    }
    text
}

fn after_head(rest: &str) -> String {
    format!("{HEAD}{rest}")
}

#[test]
fn a_file_that_is_no_configuration() {
    let cases = [
        ("empty", ""),
        ("comments only", "# version: 1\n\n---\n"),
        (
            "not YAML: an open bracket",
            "version: 1\nkeys: [ { file: ./backstay.key }\nrepo: file://./backups\n",
        ),
        (
            "not YAML: an open quote",
            "version: 1\nrepo: \"file://./backups\n",
        ),
        ("a word", "hello\n"),
        ("a list", "- version: 1\n"),
        ("no version", "repo: file://./backups\n"),
        (
            "a newer version with keys that nobody knows yet",
            "version: 2\nclusters: []\n",
        ),
        ("a version that is no number", "version: one\n"),
        ("two documents", "version: 1\n---\nversion: 1\n"),
    ];
    assert_golden("bad-config/no-configuration.txt", &table(&cases));
}

#[test]
fn keys_that_are_unknown_or_stand_twice() {
    let top = after_head("retenton: { weekly: 7y }\n");
    let far = after_head("colour: blue\n");
    let nested = after_head("services:\n  orders-db:\n    postgresql: \"host=h\"\n    slots: a\n");
    let engine = after_head("services:\n  cache: { redis: \"redis://redis:6379\" }\n");
    let twice = after_head("repo: file://./other\n");
    let twice_service =
        after_head("services:\n  a: { postgresql: \"host=h\" }\n  a: { postgresql: \"host=i\" }\n");
    let cases = [
        ("nearly right", top.as_str()),
        ("far from anything", far.as_str()),
        (
            "the old name of keys",
            "version: 1\nkey: { file: ./backstay.key }\n",
        ),
        ("in a service", nested.as_str()),
        ("an engine of a later version", engine.as_str()),
        ("twice", twice.as_str()),
        ("a service twice", twice_service.as_str()),
    ];
    assert_golden("bad-config/keys.txt", &table(&cases));
}

#[test]
fn values_of_the_wrong_type_or_meaning() {
    let cases: Vec<(&str, String)> = vec![
        (
            "a list where text is wanted",
            "version: 1\nrepo: [ a ]\n".to_owned(),
        ),
        ("nothing where text is wanted", "version: 1\nrepo:\n".to_owned()),
        (
            "text where a list is wanted",
            "version: 1\nrepo: file://./b\nkeys: ./backstay.key\n".to_owned(),
        ),
        (
            "text where a service is wanted",
            after_head("services: { a: \"host=h\" }\n"),
        ),
        (
            "yes is not true",
            "version: 1\nrepo: file://./b\nkeys: [ { none: yes } ]\n".to_owned(),
        ),
        (
            "a duration without a unit",
            after_head("objective: { rpo: 60 }\n"),
        ),
        (
            "a duration with a unit of its own",
            after_head("objective: { rto: 1 fortnight }\n"),
        ),
        (
            "a class that does not exist",
            after_head("retention: { weekly: 5y }\n"),
        ),
        (
            "a class with a typing error",
            after_head("retention: { rest: 35days, daily: 1yr }\n"),
        ),
        (
            "a rank that is nearly off",
            after_head("retention: { daily: of }\n"),
        ),
        ("nothing for the rest", after_head("retention: { rest: none }\n")),
        (
            "a rank of a service with a typing error",
            after_head("services:\n  a: { postgresql: \"host=h\", retention: { wekly: 7y } }\n"),
        ),
        (
            "a profile that does not exist",
            after_head("profile: prodution\n"),
        ),
        (
            "a service name that cannot be one",
            after_head("services:\n  Orders DB: { postgresql: \"host=h\" }\n"),
        ),
        ("services as a list", after_head("services: []\n")),
        (
            "a service that says nothing",
            after_head("services:\n  orders-db: {}\n"),
        ),
        (
            "a slot that cannot be one",
            after_head("services:\n  a: { postgresql: \"host=h\", slot: My-Slot }\n"),
        ),
        (
            "a tablespace without a place",
            after_head("services:\n  a: { postgresql: \"host=h\", tablespaces: { /a: b } }\n"),
        ),
        (
            "a connection string with a typing error",
            after_head("services:\n  a: { postgresql: \"hots=h password=s3cret\" }\n"),
        ),
    ];
    let cases: Vec<(&str, &str)> = cases
        .iter()
        .map(|(title, config)| (*title, config.as_str()))
        .collect();
    assert_golden("bad-config/values.txt", &table(&cases));
}

#[test]
fn repositories_that_are_none() {
    let with = |repo: &str| format!("version: 1\nrepo: {repo}\nkeys: [ {{ file: ./backstay.key }} ]\n");
    let cases = [
        ("object storage", with("s3://bucket/prod")),
        ("an unknown scheme", with("ftp://host/path")),
        ("no scheme", with("./backups")),
        ("no path", with("file://")),
        ("a home directory", with("file://~/backups")),
        ("a slash forgotten", with("file://srv/backups")),
        (
            "none at all",
            "version: 1\nkeys: [ { file: ./backstay.key } ]\n".to_owned(),
        ),
    ];
    let cases: Vec<(&str, &str)> = cases
        .iter()
        .map(|(title, config)| (*title, config.as_str()))
        .collect();
    assert_golden("bad-config/repository.txt", &table(&cases));
}

#[test]
fn keys_that_are_none() {
    let with = |keys: &str| format!("version: 1\nrepo: file://./backups\nkeys: {keys}\n");
    let cases = [
        ("no keys", "version: 1\nrepo: file://./backups\n".to_owned()),
        ("an empty list", with("[]")),
        ("a key of no kind", with("[ {} ]")),
        (
            "a key of two kinds",
            with("[ { file: ./backstay.key, age: age1xyz } ]"),
        ),
        (
            "a secret in two places",
            with("[ { file: ./backstay.key, env: KEY } ]"),
        ),
        ("none in production", with("[ { none: true } ]")),
        (
            "none beside another",
            with("[ { file: ./backstay.key }, { none: true } ]") + "profile: development\n",
        ),
        ("none: false", with("[ { none: false } ]")),
        (
            "an age identity in place of the recipient",
            with("[ { age: AGE-SECRET-KEY-1QQQQQQQQ } ]"),
        ),
        (
            "an identity, which does not belong here",
            with("[ { file: ./backstay.key, identity: { file: ./id } } ]"),
        ),
        (
            "a passphrase in place of its file",
            with("[ { passphrase: hunter2 } ]"),
        ),
        ("a passphrase without a place", with("[ { passphrase: {} } ]")),
        ("a key file that is not there", with("[ { file: ./lost.key } ]")),
        ("a variable that is not set", with("[ { env: BACKSTAY_KEY } ]")),
        (
            "a command that fails",
            with("[ { command: [ \"/bin/false\" ] } ]"),
        ),
        (
            "a command that never ends",
            with("[ { command: [ \"/usr/bin/yes\" ] } ]"),
        ),
        (
            "a command that prints an empty line",
            with("[ { passphrase: { command: [ \"/bin/echo\" ] } } ]"),
        ),
        (
            "a command that is not there",
            with("[ { command: [ ./no-such-program ] } ]"),
        ),
    ];
    let cases: Vec<(&str, &str)> = cases
        .iter()
        .map(|(title, config)| (*title, config.as_str()))
        .collect();
    let text = table(&cases);
    assert!(!text.contains("error[BKS-1901]"));
    assert_golden("bad-config/recipients.txt", &text);
}

#[test]
fn no_secret_of_a_wrong_configuration_is_repeated() {
    let cases = [
        "version: 1\nrepo: file://./b\nkeys: [ { passphrase: hunter2-0123456789 } ]\n",
        "version: 1\nrepo: file://./b\nkeys: [ { age: AGE-SECRET-KEY-1hunter2-0123456789 } ]\n",
        "version: 1\nservices: { a: { postgresql: \"host=h password=hunter2-0123456789\", slots: x } }\n",
        "version: 1\nservices: { a: [ \"postgresql://u:hunter2-0123456789@h/d\" ] }\n",
        "version: 1\nrepo: file://./b\nkeys: [ { file: ./k } ]\nservices: { a: { postgresql: \"hots=h password=hunter2-0123456789\" } }\n",
    ];
    for config in cases {
        for line in [
            "config validate",
            "config show",
            "config show --json",
            "-vvv config validate",
        ] {
            let run = Place::with_config(config).run(line);
            let whole = run.whole(line);
            assert!(
                !whole.contains("hunter2"),
                "{line} repeats a secret of\n{config}\n{whole}"
            );
        }
    }
}

#[test]
fn a_file_that_is_not_there_or_is_not_text() {
    let mut text = String::new();
    let nowhere = Place::new();
    text += &nowhere.run("config show").whole("config show");
    text += &nowhere
        .run("-c other.yaml config show")
        .whole("-c other.yaml config show");
    let mut command = nowhere.command(&["config", "show"]);
    command.env("BACKSTAY_CONFIG", "told.yaml");
    text += &nowhere
        .finish(command)
        .whole("config show   (with BACKSTAY_CONFIG=told.yaml)");
    let binary = Place::with_config([0x1f, 0x8b, 0x08, 0x00, 0xff]);
    text += &binary
        .run("config show")
        .whole("config show   (a compressed file)");
    let directory = Place::new();
    std::fs::create_dir(directory.directory.join("backstay.yaml")).unwrap();
    text += &directory.run("config show").whole("config show   (a directory)");
    let endless = "-c /dev/zero config show";
    text += &nowhere.run(endless).whole(endless);
    assert_golden("bad-config/file.txt", &text);
}

#[test]
fn a_key_file_that_everybody_can_read_is_warned_about() {
    let place = Place::with_config(HEAD);
    place.write("backstay.key", KEY);
    place.mode("backstay.key", 0o644);
    let text = place.run("config validate").whole("config validate");
    assert_golden("bad-config/readable-by-all.txt", &text);
}
