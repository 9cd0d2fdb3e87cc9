//! An expiry that removes something: what had to go is gone, what had to stay is untouched and restores.

use crate::golden::{assert_golden, assert_shape};
use crate::mask::{mask, shape};
use crate::past::Past;
use crate::program::Place;
use crate::tree::{changes, tree};
use backstay_repository::Head;
use backstay_terms::RetentionClass;
use backstay_testkit::pg::PgServer;

/// A place with a weekly and another backup of sixty days ago, and two of now.
struct Scene {
    server: PgServer,
    place: Place,
    weekly: Head,
    old: Head,
}

impl Scene {
    async fn make() -> Scene {
        let server = PgServer::start().await;
        let place = Place::new().serving(&server);
        let past = Past::of(&place, 60).await;
        server
            .sql("CREATE TABLE t AS SELECT generate_series(1, 100) AS n")
            .await;
        let weekly = past.backup(&server).await;
        server.sql("INSERT INTO t VALUES (101)").await;
        let old = past.backup(&server).await;
        assert_eq!(
            (weekly.class, old.class),
            (RetentionClass::Years7, RetentionClass::Days35)
        );
        for _ in 0..2 {
            // Of one class: two of one second sort by chance.
            let backup = place.run("backup main --keep 35d --progress none");
            assert_eq!(backup.exit, 0, "{}", backup.err);
        }
        Scene {
            server,
            place,
            weekly,
            old,
        }
    }

    /// What a command said, with the backups by their part in this story.
    fn said(&self, line: &str) -> String {
        let text = self.place.run(line).whole(line);
        let named = |text: String, head: &Head, part: &str| {
            let text = text.replace(head.generation.as_str(), &format!("{part}-GENERATION"));
            text.replace(head.backup.as_str(), &format!("{part}-BACKUP"))
        };
        mask(&named(named(text, &self.weekly, "WEEKLY"), &self.old, "OLD"))
    }

    fn names_of(&self, head: &Head) -> Vec<String> {
        let names = tree(&self.place.directory.join("backups")).into_keys();
        let names = names.map(|name| name.display().to_string());
        names
            .filter(|name| name.contains(head.generation.as_str()))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_removes_what_is_past_its_promise_and_never_the_weekly_one() {
    let scene = Scene::make().await;
    let Scene { place, old, .. } = &scene;
    let before = tree(&place.directory);
    assert_shape("expire-plan", &place.run("expire main --json").out);
    no_time_has_a_fraction(&place.run("expire main").out);
    let mut text = scene.said("expire main") + &scene.said("expire main --confirm another");
    assert_eq!(changes(&before, &tree(&place.directory)), Vec::<String>::new());
    text += &scene.said("expire main --confirm main");
    let is_record = |name: &&String| name.starts_with("backups/facts");
    let changed = changes(&before, &tree(&place.directory));
    let removed: Vec<&String> = changed.iter().filter(|name| !is_record(name)).collect();
    assert!(removed.len() >= 4, "{removed:?}");
    let of_old = |name: &&String| name.contains(old.generation.as_str());
    assert!(removed.iter().all(of_old), "{removed:?}");
    assert_eq!(directories_left(&scene.names_of(old)), scene.names_of(old));
    text += &scene.said("expire main");
    assert_golden("expire/expire.txt", &text);
    the_run_is_recorded(place);
    assert_shape("expired", &place.run("expire main --confirm main --json").out);
    the_weekly_one_restores(&scene).await;
}

fn no_time_has_a_fraction(text: &str) {
    let words = text.split([' ', ',', '\n']);
    let times: Vec<&str> = words
        .filter(|word| word.starts_with("20") && word.ends_with('Z'))
        .collect();
    assert_eq!(times.len(), 5, "{text}");
    assert!(
        times
            .iter()
            .all(|time| time.len() == "2026-11-27T00:00:00Z".len()),
        "{times:?}"
    );
}

/// Empty directories are no objects: a store does not know them.
fn directories_left(names: &[String]) -> Vec<String> {
    let is_object = |name: &String| {
        let last = name.rsplit('/').next().unwrap_or_default();
        last.starts_with(['p', 't', 'x']) || name.ends_with(".wrap")
    };
    names.iter().filter(|name| !is_object(name)).cloned().collect()
}

fn the_run_is_recorded(place: &Place) {
    let run = run_named(place, "expire");
    let line = format!("show run {run}");
    let text = place.run(&line).whole(&line);
    assert_golden("expire/show-run.txt", &mask(&text));
    let json = place.run(&format!("show run {run} --json"));
    assert_golden("expire/show-run.json", &shape(&json.out));
    let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(value["run"]["figures"]["objects"], 9);
}

/// The id of the only finished run of this verb.
fn run_named(place: &Place, verb: &str) -> String {
    let names = tree(&place.directory.join("backups/facts/runs")).into_keys();
    let names = names.filter_map(|name| Some(name.file_name()?.to_str()?.to_owned()));
    let ended: Vec<String> = names
        .filter_map(|name| name.strip_suffix(".finished").map(str::to_owned))
        .filter(|name| name.contains(&format!("-{verb}-")))
        .collect();
    assert_eq!(ended.len(), 1, "{ended:?}");
    ended[0].clone()
}

async fn the_weekly_one_restores(scene: &Scene) {
    let into = scene.server.room().path().join("copy");
    let place = &scene.place;
    let verified = place.run("verify main --depth everything");
    assert_eq!(verified.exit, 0, "{}{}", verified.out, verified.err);
    let restored = place.finish(place.command(&[
        "restore",
        "main",
        "--to",
        "immediate",
        "--base",
        scene.weekly.backup.as_str(),
        "--into",
        into.to_str().unwrap(),
    ]));
    assert_eq!(restored.exit, 0, "{}", restored.err);
    let copy = PgServer::start_on(&into, &[]).await.unwrap();
    let rows = copy.value("SELECT count(*) || ' to ' || max(n) FROM t").await;
    assert_eq!(rows, "100 to 100");
}
