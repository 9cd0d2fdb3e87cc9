//! How long a backup is kept, and why, as `backup` says it and as it is stored.

use crate::golden::assert_golden;
use crate::mask::{mask, shape};
use crate::past::{Past, SHORTEST};
use crate::program::Place;
use backstay_clock::{Clock, SystemClock};
use backstay_testkit::pg::PgServer;
use std::collections::BTreeMap;

/// An initialised place whose configuration ends with `retention`.
fn place_with(server: &PgServer, retention: &str) -> Place {
    let place = Place::new().serving(server);
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

/// What `collect` gives when it begins and ends on the same day of UTC: days and weeks decide about classes.
fn on_one_day<T>(collect: impl Fn() -> T) -> T {
    let today = || SystemClock::new().now().as_second() / (24 * 3600);
    loop {
        let day = today();
        let collected = collect();
        if today() == day {
            return collected;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_says_how_long_it_is_kept_and_why() {
    let server = PgServer::start().await;
    let (text, classes, json) = on_one_day(|| {
        let place = place_with(&server, "");
        let lines = [
            "backup main --progress none --keep 35d",
            "backup main --progress none",
            "backup main --progress none",
        ];
        let text: String = lines.iter().map(|line| masked(&place, line)).collect();
        (text, stored(&place), place.run("backup main --json").out)
    });
    // What was asked for is shorter than the week's class, so the week's place was still open.
    assert_eq!(classes, counts(&[("35d", 2), ("7y", 1)]));
    assert_golden("retention/backups.txt", &text);
    assert_golden("retention/backup.json", &shape(&json));
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let kept = &value["kept"];
    assert_eq!((&kept["class"], &kept["rank"]), (&"35d".into(), &"rest".into()));
    assert!(
        kept["week_has"].is_string() && kept["week_has"] == kept["day_has"],
        "{kept}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_chooses_the_classes_and_a_service_has_its_own() {
    let server = PgServer::start().await;
    let (text, classes, with_its_own) = on_one_day(|| {
        let place = place_with(&server, "retention: { weekly: off, daily: 3y, rest: 1y }\n");
        let line = "backup main --progress none";
        let text = masked(&place, line) + &masked(&place, line);
        let classes = stored(&place);
        let path = place.directory.join("backstay.yaml");
        let config = std::fs::read_to_string(path).unwrap();
        let of_the_service = config.replace("main: {", "main: { retention: { daily: off, rest: 35d },");
        assert_ne!(config, of_the_service);
        place.write("backstay.yaml", of_the_service);
        (text + &masked(&place, line), classes, stored(&place))
    });
    assert_eq!(classes, counts(&[("1y", 1), ("3y", 1)]));
    assert_eq!(with_its_own, counts(&[("1y", 1), ("35d", 1), ("3y", 1)]));
    assert_golden("retention/configured.txt", &text);
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_past_their_promise_are_named_with_what_restores_them() {
    let server = PgServer::start().await;
    let place = place_with(&server, "");
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 100) AS n")
        .await;
    let past = Past::of(&place, 60).await;
    past.backup_by(&server, SHORTEST).await;
    server.sql("INSERT INTO t SELECT 101").await;
    let newest = past.backup_by(&server, SHORTEST).await.backup;
    let gaps = place.run("wal gaps");
    assert!(gaps.out.starts_with("main: no log is stored, "), "{}", gaps.out);
    let status = place.run("status");
    let told = format!(
        "✗ main: nothing can be recovered: there is no backup of main that can be restored; the newest one that is stored, {newest}, is past its promise"
    );
    assert!(status.out.contains(&told), "{}", status.out);
    assert!(!status.out.contains("--to latest is refused"), "{}", status.out);
    let restores = "or restore that one while it is still there: backstay ";
    let (_, typed) = status
        .out
        .split_once(restores)
        .unwrap_or_else(|| panic!("{}", status.out));
    let into = server.room().path().join("copy");
    let run = place.run(&format!(
        "{} --confirm --progress none --into {}",
        typed.lines().next().unwrap(),
        into.display()
    ));
    assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
    let copy = PgServer::start_on(&into, &[]).await.unwrap();
    assert_eq!(copy.value("SELECT count(*)::text FROM t").await, "101");
}
