//! A backup of a machine whose clock was ahead: it is named in the future, and stands where its log stands.

use crate::live::{CONFIRMED, start_stream, stop_stream, until};
use crate::past::Past;
use crate::program::Place;
use backstay_testkit::pg::PgServer;
use serde_json::Value;

fn told(place: &Place, line: &str) -> Value {
    let run = place.run(line);
    assert_eq!(run.exit, 0, "{line}: {}{}", run.out, run.err);
    serde_json::from_str(&run.out).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_named_in_the_future_is_not_the_newest_and_hides_nothing() {
    let server = PgServer::start().await;
    let place = Place::new().serving(&server);
    let stream = start_stream(&place);
    until(&server, CONFIRMED, "true").await;
    server.sql("CREATE TABLE t AS SELECT 1 AS n").await;
    let ahead = Past::of(&place, -40).await.backup(&server).await;
    let mut backups = vec![ahead.backup.to_string()];
    for _ in 0..2 {
        server.sql("INSERT INTO t SELECT count(*) + 1 FROM t").await;
        let taken = told(&place, "backup main --progress none --json");
        backups.push(taken["backup"]["backup"].as_str().unwrap().to_owned());
    }
    until(&server, CONFIRMED, "true").await;
    stop_stream(stream);
    backups.reverse();

    let list = told(&place, "list --json");
    let listed: Vec<&str> = list["services"][0]["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|backup| backup["backup"].as_str().unwrap())
        .collect();
    assert_eq!(listed, backups);
    let shown = told(&place, "show latest --json").to_string();
    assert!(shown.contains(&backups[0]), "{shown}");
    let window = told(&place, "window --json").to_string();
    assert!(window.contains(&backups[2]), "its log begins there: {window}");

    let words = format!("main: backup {} is named ", backups[2]);
    for line in ["list", "status"] {
        let run = place.run(line);
        assert!(run.out.contains(&words), "{line}: {}", run.out);
        assert!(
            run.out
                .contains(" later than its server's clock or this one says"),
            "{line}: {}",
            run.out
        );
    }
    let room = server.room().path();
    for (target, rows) in [("immediate", "3"), ("latest", "3")] {
        let into = room.join(target);
        let line = format!(
            "restore main --to {target} --confirm --progress none --into {}",
            into.display()
        );
        let run = place.run(&line);
        assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
        assert!(
            run.err.contains(&backups[0]) || run.out.contains(&backups[0]),
            "{}",
            run.err
        );
        let copy = PgServer::start_on(&into, &[]).await.unwrap();
        assert_eq!(copy.value("SELECT count(*)::text FROM t").await, rows);
    }
    assert_eq!(place.run("verify main").exit, 0);
}
