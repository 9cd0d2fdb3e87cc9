//! What a backup of a real server says of its progress, for programs.

use crate::program::Place;
use backstay_testkit::pg::PgServer;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_says_its_phases_in_order_and_ends_with_all_of_its_bytes() {
    let server = PgServer::start().await;
    let place = Place::new().serving(&server);
    let run = place.run("backup main --json --progress json");
    assert_eq!(run.exit, 0, "{}", run.err);
    assert!(run.err.ends_with('\n'), "the last line is whole: {}", run.err);
    let parse = |line| serde_json::from_str::<Value>(line).unwrap()["progress"].clone();
    let steps: Vec<Value> = run.err.lines().map(parse).collect();
    let mut phases: Vec<&str> = steps.iter().map(|step| step["phase"].as_str().unwrap()).collect();
    phases.dedup();
    assert_eq!(phases, ["checkpoint", "copy", "compare", "log"]);
    let mut done = 0;
    for step in &steps {
        let members: Vec<&String> = step.as_object().unwrap().keys().collect();
        let all = [
            "bytes_done",
            "bytes_per_second",
            "bytes_total",
            "phase",
            "seconds_left",
        ];
        assert_eq!(members, all);
        assert!(step["bytes_done"].as_u64().unwrap() >= done, "{steps:?}");
        done = step["bytes_done"].as_u64().unwrap();
    }
    let first = &steps[0];
    assert!(
        first["bytes_total"].is_null() && first["seconds_left"].is_null(),
        "{first}"
    );
    // All of the archive was read: its estimate is of the files alone, and the archive adds its headers.
    let last = steps.last().unwrap();
    let total = last["bytes_total"].as_u64().unwrap();
    assert!(total > 0 && done >= total, "{last}");
    assert_eq!(last["seconds_left"], 0);
    assert!(serde_json::from_str::<Value>(&run.out).is_ok());
}
