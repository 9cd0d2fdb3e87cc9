//! The record of a run, as `show run` tells it.

use crate::golden::assert_golden;
use crate::mask::{mask, shape};
use crate::past::Past;
use crate::program::Place;
use crate::tree::tree;

/// A place whose only backup failed, because there is no server, and the id of that run.
fn place_with_a_failed_run() -> (Place, String) {
    let place = Place::of("host=/nowhere user=postgres");
    assert_eq!(place.run("backup main").exit, 8);
    let names = tree(&place.directory.join("backups/facts/runs")).into_keys();
    let mut runs = names.filter_map(|name| Some(name.file_stem()?.to_str()?.to_owned()));
    let run = runs.rfind(|name| name.contains("-backup-")).unwrap();
    (place, run)
}

#[test]
fn a_run_that_failed_says_why_and_one_that_was_killed_says_so() {
    let (place, run) = place_with_a_failed_run();
    let line = format!("show run {run}");
    let mut text = mask(&place.run(&line).whole(&line));
    let json = place.run(&format!("{line} --json"));
    assert_golden("runs/failed.json", &shape(&json.out));
    let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(value["run"]["result"], "failed");
    // What a process that is killed leaves: the record of its beginning alone.
    let records = place.directory.join("backups/facts/runs");
    let ended = tree(&records).into_keys().find(|name| {
        name.to_str()
            .is_some_and(|name| name.ends_with(&format!("{run}.finished")))
    });
    std::fs::remove_file(records.join(ended.unwrap())).unwrap();
    text += &mask(&place.run(&line).whole(&line));
    assert_golden("runs/show.txt", &text);
}

#[test]
fn a_run_that_is_not_there_and_words_that_are_none() {
    let (place, _) = place_with_a_failed_run();
    let mut text = String::new();
    for line in [
        "show run",
        "show run soon",
        "show run 20260101T000000Z-backup-aaaaaaaaaa",
        "show rnu",
        "show latest mian",
    ] {
        text += &place.run(line).whole(line);
    }
    assert_golden("runs/none.txt", &text);
}

#[tokio::test]
async fn a_restore_that_failed_is_no_trouble_of_the_service() {
    let place = Place::of("host=/nowhere user=postgres");
    let past = Past::of(&place, 1).await;
    past.failed("settle", "the log was damaged").await;
    past.failed("restore", "the disk was full").await;
    for line in ["status main", "status main --json", "check main"] {
        let text = place.run(line).whole(line);
        assert!(text.contains("the log was damaged"), "{text}");
        assert!(!text.contains("the disk was full"), "{text}");
    }
}
