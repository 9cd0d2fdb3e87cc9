//! The configuration in force: what is shown, where it came from, what beats what.

use crate::golden::assert_golden;
use crate::program::Place;

/// Absolute paths: the widths of columns must not depend on where the test runs.
const FULL: &str = "\
version: 1
repo: file:///srv/backups
keys:
  - { file: /etc/backstay/backstay.key }
  - { passphrase: { env: BACKSTAY_PASSPHRASE } }
  - { age: age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p }
profile: staging
objective: { rpo: 15min, rto: 90min }
retention: { weekly: 3y, rest: 1y }
services:
  orders-db: { postgresql: \"host=postgres user=backstay password=s3cret dbname=postgres\" }
  ledger:
    postgresql: postgresql://backstay:s3cret@ledger:5433/postgres
    slot: backstay_ledger_2
    objective: { rpo: 1m }
    retention: { daily: off, rest: 35d }
    tablespaces: { /srv/fast: /restore/fast }
";

#[test]
fn every_setting_is_shown_with_its_origin() {
    let place = Place::with_config(FULL);
    let line = "config show --origin";
    assert_golden("config/show-origin.txt", &place.run(line).whole(line));
    let line = "config show";
    assert_golden("config/show.txt", &place.run(line).whole(line));
}

#[test]
fn the_json_form_is_the_contract() {
    let place = Place::with_config(FULL);
    let run = place.run("config show --json");
    let value: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_golden(
        "config/show.json",
        &(serde_json::to_string_pretty(&value).unwrap() + "\n"),
    );
}

#[test]
fn a_flag_beats_a_variable_which_beats_the_file() {
    let place = Place::with_config(FULL);
    let repo = |arguments: &[&str], variable: Option<&str>| {
        let mut command = place.command(&[&["config", "show", "--origin"], arguments].concat());
        if let Some(value) = variable {
            command.env("BACKSTAY_REPO", value);
        }
        let run = place.finish(command);
        let line = run
            .out
            .lines()
            .find(|line| line.starts_with("repo "))
            .unwrap()
            .to_owned();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(repo(&[], None), "file:///srv/backups ./backstay.yaml:2");
    assert_eq!(
        repo(&[], Some("file://./v")),
        "file:///DIR/v variable BACKSTAY_REPO"
    );
    assert_eq!(
        repo(&["-r", "file:///f"], Some("file://./v")),
        "file:///f flag --repo"
    );
}

#[test]
fn the_file_is_searched_in_its_order() {
    let place = Place::new();
    for (name, service) in [
        ("xdg/backstay", "xdg"),
        (".config/backstay", "home"),
        ("here", "here"),
    ] {
        std::fs::create_dir_all(place.directory.join(name)).unwrap();
        let config = format!("version: 1\nrepo: file://./{service}\nkeys: [ {{ file: ./k }} ]\n");
        place.write(&format!("{name}/backstay.yaml"), config);
    }
    let first_line = |variables: &[(&str, &str)], directory: &str| {
        let mut command = place.command(&["config", "show"]);
        command
            .current_dir(place.directory.join(directory))
            .envs(variables.iter().copied());
        place
            .finish(command)
            .out
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(first_line(&[], "here"), "./backstay.yaml");
    assert_eq!(first_line(&[], ""), "/DIR/.config/backstay/backstay.yaml");
    let xdg = place.directory.join("xdg");
    let xdg = [("XDG_CONFIG_HOME", xdg.to_str().unwrap())];
    assert_eq!(first_line(&xdg, ""), "/DIR/xdg/backstay/backstay.yaml");
    let told = [("BACKSTAY_CONFIG", "here/backstay.yaml")];
    assert_eq!(first_line(&told, ""), "here/backstay.yaml");
}

#[test]
fn a_right_configuration_is_said_to_be_right() {
    let place = Place::with_config(
        "version: 1\nrepo: file:///srv/b\nkeys: [ { file: ./k } ]\nservices:\n  a: { postgresql: \"host=h\" }\n",
    );
    place.write("k", "07".repeat(32));
    let mut text = place.run("config validate").whole("config validate");
    text += &place
        .run("config validate --json")
        .whole("config validate --json");
    let open = Place::with_config(
        "version: 1\nrepo: file:///srv/b\nkeys: [ { none: true } ]\nprofile: development\n",
    );
    text += &open
        .run("config validate")
        .whole("config validate   (unencrypted)");
    text += &open
        .run("config validate --json")
        .whole("config validate --json   (unencrypted)");
    assert_golden("config/validate.txt", &text);
}
