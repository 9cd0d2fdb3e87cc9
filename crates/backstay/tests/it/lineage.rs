//! A promoted copy that is streamed under the name of its source, which goes on: said, refused, chosen, and both recovered.

use crate::golden::assert_shape;
use crate::live::{
    CONFIRMED, connect_to_copy, move_service, start_stream, stop_copy, stop_stream, stream_log, until,
};
use crate::program::{Place, Run};
use backstay_testkit::pg::{PgServer, Stop, free_port};

struct Scene {
    place: Place,
    primary: PgServer,
    copy: PgServer,
}

impl Scene {
    /// A primary with a backup and a stream, and a standby that is its equal.
    async fn make() -> Scene {
        let primary = PgServer::start().await;
        primary.sql("CREATE TABLE t (n int)").await;
        let copy = primary.start_standby().await;
        let place = Place::with_program(primary.room().path().join("place")).serving(&primary);
        let scene = Scene { place, primary, copy };
        let stream = start_stream(&scene.place);
        let attached =
            "SELECT count(*)::text FROM pg_replication_slots WHERE active AND slot_name = 'backstay_main'";
        until(&scene.primary, attached, "1").await;
        let run = scene.place.run("backup main --progress none");
        assert_eq!(run.exit, 0, "{}", run.err);
        scene.insert(&scene.primary, 1, 500).await;
        until(&scene.primary, CONFIRMED, "true").await;
        stop_stream(stream);
        scene
    }

    async fn insert(&self, server: &PgServer, from: i32, to: i32) {
        server
            .sql(&format!("INSERT INTO t SELECT generate_series({from}, {to})"))
            .await;
    }

    /// Streams from a server until rows that are inserted now are stored; gives what the stream logged.
    async fn stream_rows(&self, server: &PgServer, from: i32, to: i32) -> String {
        let stream = start_stream(&self.place);
        self.insert(server, from, to).await;
        until(server, CONFIRMED, "true").await;
        stop_stream(stream);
        stream_log(&self.place)
    }

    fn plan(&self, words: &str) -> Run {
        self.place.run(&format!("restore main --plan {words}"))
    }

    /// The smallest and the largest row, and how many there are, in a copy that a restore starts.
    async fn rows(&self, into: &str, words: &str) -> String {
        let port = free_port();
        let run = self.place.run(&format!(
            "restore main --into {into} --json --start --action promote --progress none --port {port} {words}"
        ));
        assert_eq!(run.exit, 0, "{words}: {}{}", run.out, run.err);
        let told: serde_json::Value = serde_json::from_str(&run.out).unwrap();
        let mut connection = connect_to_copy(&told).await;
        let sets = connection
            .simple_query("SELECT concat_ws(' ', min(n), max(n), count(*)) FROM t")
            .await
            .unwrap();
        stop_copy(&self.place, into).await;
        sets[0].rows[0][0].clone().unwrap()
    }

    fn lineages(&self) -> Vec<(String, String)> {
        let run = self.place.run("lineage list main --json");
        assert_eq!(run.exit, 0, "{}", run.err);
        let told: serde_json::Value = serde_json::from_str(&run.out).unwrap();
        let lineages = told["services"][0]["lineages"].as_array().unwrap().clone();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        lineages
            .iter()
            .map(|one| (text(&one["lineage"]), text(&one["state"])))
            .collect()
    }

    fn status(&self) -> serde_json::Value {
        let run = self.place.run("status main --json");
        let told: serde_json::Value = serde_json::from_str(&run.out).unwrap();
        told["services"][0].clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_copy_under_the_name_of_its_living_source_is_never_followed_in_silence() {
    let scene = Scene::make().await;
    // A moment before the two part, with a commit after it that both have.
    let moment = scene.primary.value("SELECT clock_timestamp()::text").await;
    scene.insert(&scene.primary, 501, 600).await;
    let end = scene.primary.value("SELECT pg_current_wal_lsn()").await;
    let replayed = format!("SELECT (pg_last_wal_replay_lsn() >= '{end}')::text");
    until(&scene.copy, &replayed, "true").await;
    scene.copy.promote().await;
    move_service(&scene.place, &scene.primary, &scene.copy);
    let quiet = scene.stream_rows(&scene.copy, -100, -1).await;
    assert!(
        !quiet.contains("more than one history"),
        "so far it is a promotion as any: {quiet}"
    );

    // The source goes on, and so does its stream.
    move_service(&scene.place, &scene.copy, &scene.primary);
    let loud = scene.stream_rows(&scene.primary, 601, 1000).await;
    assert!(
        loud.contains("more than one history of bytes is stored"),
        "{loud}"
    );
    let lineages = scene.lineages();
    let states: Vec<&str> = lineages.iter().map(|(_, state)| state.as_str()).collect();
    assert_eq!(states, ["present", "rival"]);
    let (source, copy) = (&lineages[0].0, &lineages[1].0);
    let status = scene.status();
    assert_eq!(status["state"], "failing");
    assert_eq!(status["rival_lineages"], serde_json::json!([copy]));
    let run = scene.plan("--to latest");
    assert_eq!(run.exit, 5, "{}{}", run.out, run.err);
    assert!(run.err.contains(source) && run.err.contains(copy), "{}", run.err);
    assert!(run.err.contains("backstay lineage adopt main"), "{}", run.err);
    // Before they parted there is one history.
    let run = scene.place.finish(
        scene
            .place
            .command(&["restore", "main", "--plan", "--to", &moment]),
    );
    assert_eq!(run.exit, 0, "{}{}", run.out, run.err);

    // Each can be recovered by its name, with its rows and no others.
    let by_name = |lineage: &str| format!("--to latest --lineage {lineage}");
    assert_eq!(scene.rows("of-source", &by_name(source)).await, "1 1000 1000");
    assert_eq!(scene.rows("of-copy", &by_name(copy)).await, "-100 600 700");

    let run = scene.place.run(&format!("lineage adopt main {source}"));
    assert_eq!(run.exit, 0, "{}", run.err);
    assert!(run.out.contains(&format!("--lineage {copy}")), "{}", run.out);
    assert_eq!(scene.status()["rival_lineages"], serde_json::json!([]));
    assert_eq!(scene.rows("adopted", "--to latest").await, "1 1000 1000");

    // The copy is streamed once more: doubt is back.
    move_service(&scene.place, &scene.primary, &scene.copy);
    let loud = scene.stream_rows(&scene.copy, -200, -101).await;
    assert!(
        loud.contains("more than one history of bytes is stored"),
        "{loud}"
    );
    let run = scene.plan("--to latest");
    assert_eq!(run.exit, 5, "{}{}", run.out, run.err);
    assert_eq!(scene.rows("copy-again", &by_name(copy)).await, "-200 600 800");
}

/// A server and a copy of its disk each take a backup at the same place of the log; what the backups end with is the same
/// record, byte for byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_of_two_copies_of_one_disk_are_told_apart_by_their_bytes() {
    let mut source = PgServer::start().await;
    source.sql("CREATE TABLE t (n int)").await;
    let place = Place::with_program(source.room().path().join("place")).serving(&source);
    source.stop(Stop::Fast).await;
    let disk = source.room().path().join("disk");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(source.data_dir())
        .arg(&disk)
        .status();
    assert!(copied.unwrap().success());
    let backed_up = async |server: &PgServer, rows: [i32; 2]| {
        let stream = start_stream(&place);
        let attached =
            "SELECT count(*)::text FROM pg_replication_slots WHERE active AND slot_name = 'backstay_main'";
        until(server, attached, "1").await;
        server.sql(&format!("INSERT INTO t VALUES ({})", rows[0])).await;
        let run = place.run("backup main --progress none --json");
        assert_eq!(run.exit, 0, "{}", run.err);
        server.sql(&format!("INSERT INTO t VALUES ({})", rows[1])).await;
        until(server, CONFIRMED, "true").await;
        stop_stream(stream);
        let told: serde_json::Value = serde_json::from_str(&run.out).unwrap();
        told["backup"]["backup"].as_str().unwrap().to_owned()
    };
    source.run().await;
    let of_source = backed_up(&source, [1, 2]).await;
    source.stop(Stop::Fast).await;
    let copy = PgServer::start_on(&disk, &[]).await.unwrap();
    move_service(&place, &source, &copy);
    let of_copy = backed_up(&copy, [-1, -2]).await;
    assert_ne!(of_source, of_copy);

    let mut scene = Scene {
        place,
        primary: source,
        copy,
    };
    let lineages = scene.lineages();
    let (own, other) = (lineages[0].0.clone(), lineages[1].0.clone());
    for (number, lineage, least, most) in [(0, &own, "1", "2"), (1, &other, "-2", "-1")] {
        let run = scene.place.run(&format!("lineage adopt main {lineage} --json"));
        assert_eq!(run.exit, 0, "{}", run.err);
        assert_shape("adopted", &run.out);
        let rows = scene.rows(&format!("latest-{number}"), "--to latest").await;
        assert_eq!(rows, format!("{least} {most} 2"), "{lineage}");
        let first = if number == 0 { "1" } else { "-1" };
        let rows = scene.rows(&format!("immediate-{number}"), "--to immediate").await;
        assert_eq!(rows, format!("{first} {first} 1"), "{lineage}");
    }
    let run = scene.plan(&format!("--to immediate --base {of_copy} --lineage {own}"));
    assert_eq!(run.exit, 5, "{}{}", run.out, run.err);
    assert!(run.err.contains("is not of lineage"), "{}", run.err);
    scene.copy.stop(Stop::Fast).await;
}

#[tokio::test]
async fn adopting_what_is_not_there_names_the_list() {
    let server = PgServer::start().await;
    let place = Place::with_program(server.room().path().join("place")).serving(&server);
    let run = place.run("lineage adopt main 0000000000000007/00000001.0000000a");
    assert_eq!(run.exit, 6, "{}", run.err);
    assert!(run.err.contains("backstay lineage list main"), "{}", run.err);
    let run = place.run("lineage adopt main nonsense");
    assert_eq!(run.exit, 2, "{}", run.err);
}

#[test]
fn what_is_no_name_of_a_lineage_is_refused_with_where_names_stand() {
    let run = Place::new().run("restore main --lineage foo --into copy");
    assert_eq!(run.exit, 2, "{}", run.err);
    let said = "it is not the name of a lineage; see: backstay lineage list";
    assert!(run.err.contains(said), "{}", run.err);
}
