//! How long a backup is kept, and why, as `backup` says it and as it is stored.

use crate::golden::assert_golden;
use crate::mask::{mask, shape};
use crate::program::Place;
use backstay_testkit::pg::PgServer;
use std::collections::BTreeMap;

/// An initialised place whose configuration ends with `retention`.
fn place_with(server: &PgServer, retention: &str) -> Place {
    let place = Place::new();
    let made = place.finish(place.command(&["init", "main", "--postgresql", &server.conninfo_text()]));
    assert_eq!(made.exit, 0, "{}", made.err);
    let path = place.directory.join("backstay.yaml");
    let config = std::fs::read_to_string(path).unwrap();
    place.write("backstay.yaml", config + retention);
    place
}

/// How many backups are stored in each class, from the names.
fn stored(place: &Place) -> BTreeMap<String, usize> {
    let manifests = place.directory.join("backups/postgres-backups/manifests");
    let mut classes = BTreeMap::new();
    for class in std::fs::read_dir(manifests).unwrap() {
        let class = class.unwrap();
        let generations = std::fs::read_dir(class.path().join("main")).unwrap().count();
        classes.insert(class.file_name().into_string().unwrap(), generations);
    }
    classes
}

fn counts(classes: &[(&str, usize)]) -> BTreeMap<String, usize> {
    classes
        .iter()
        .map(|(class, number)| ((*class).to_owned(), *number))
        .collect()
}

/// What a command said, without the day on which it said it.
fn masked(place: &Place, line: &str) -> String {
    let text = mask(&place.run(line).whole(line));
    let day = text
        .find("good backup of ")
        .map(|at| at + "good backup of ".len());
    match day {
        Some(at) => format!("{}DAY{}", &text[..at], &text[at + "2026-11-27".len()..]),
        None => text,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_says_how_long_it_is_kept_and_why() {
    let server = PgServer::start().await;
    let place = place_with(&server, "");
    let mut text = String::new();
    for line in [
        "backup main --progress none --keep 35d",
        "backup main --progress none",
        "backup main --progress none",
    ] {
        text += &masked(&place, line);
    }
    // What was asked for is shorter than the week's class, so the week's place was still open.
    assert_eq!(stored(&place), counts(&[("35d", 2), ("7y", 1)]));
    assert_golden("retention/backups.txt", &text);
    let json = place.run("backup main --json");
    assert_golden("retention/backup.json", &shape(&json.out));
    let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        value["kept"],
        serde_json::json!({ "class": "35d", "rank": "rest" })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_chooses_the_classes_and_a_service_has_its_own() {
    let server = PgServer::start().await;
    let place = place_with(&server, "retention: { weekly: off, daily: 3y, rest: 1y }\n");
    let mut text = String::new();
    let line = "backup main --progress none";
    for _ in 0..2 {
        text += &masked(&place, line);
    }
    assert_eq!(stored(&place), counts(&[("1y", 1), ("3y", 1)]));
    let path = place.directory.join("backstay.yaml");
    let config = std::fs::read_to_string(path).unwrap();
    let of_the_service = config.replace("main: {", "main: { retention: { daily: off, rest: 35d },");
    assert_ne!(config, of_the_service);
    place.write("backstay.yaml", of_the_service);
    text += &masked(&place, line);
    assert_eq!(stored(&place), counts(&[("1y", 1), ("35d", 1), ("3y", 1)]));
    assert_golden("retention/configured.txt", &text);
}
