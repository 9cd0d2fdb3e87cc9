//! `restore --wal fetch`: the restored server gets its log from `wal fetch` while it recovers, over a promotion.

use crate::live::{CONFIRMED, connect_to_copy, move_service, start_stream, stop_copy, stop_stream, until};
use crate::program::{Place, Run};
use backstay_testkit::pg::{Owner, PgServer, Stop, free_port};
use std::path::PathBuf;

/// A primary that was backed up and died, its standby that was promoted and followed, and what they stored.
struct Scene {
    place: Place,
    promoted: PgServer,
}

impl Scene {
    async fn make() -> Scene {
        let mut primary = PgServer::start().await;
        primary.sql("CREATE TABLE t (n int)").await;
        let standby = primary.start_standby().await;
        let place = Place::with_program(standby.room().path().join("place")).serving(&primary);
        let stream = start_stream(&place);
        until(
            &primary,
            "SELECT count(*)::text FROM pg_replication_slots WHERE active AND slot_name = 'backstay_main'",
            "1",
        )
        .await;
        let run = place.run("backup main --progress none");
        assert_eq!(run.exit, 0, "{}", run.err);
        // More than one segment on each timeline.
        primary
            .sql("INSERT INTO t SELECT generate_series(1, 300000)")
            .await;
        until(&primary, CONFIRMED, "true").await;
        let end = primary.value("SELECT pg_current_wal_lsn()").await;
        until(
            &standby,
            &format!("SELECT (pg_last_wal_replay_lsn() >= '{end}')::text"),
            "true",
        )
        .await;
        stop_stream(stream);
        primary.stop(Stop::Immediate).await;
        standby.promote().await;
        move_service(&place, &primary, &standby);
        let stream = start_stream(&place);
        standby
            .sql("INSERT INTO t SELECT generate_series(300001, 600000)")
            .await;
        until(&standby, CONFIRMED, "true").await;
        stop_stream(stream);
        // Never the server's: what a copy shows comes from the repository.
        standby.sql("TRUNCATE t").await;
        // As root the server runs as another user, who has to read all of it.
        Owner::find().take(&place.directory).unwrap();
        Scene {
            place,
            promoted: standby,
        }
    }

    fn restore(&self, into: &str, words: &str) -> Run {
        self.place.run(&format!(
            "restore main --into {into} --confirm --progress none {words}"
        ))
    }

    /// Starts a copy by a restore, reads it and stops it.
    async fn rows_of(&self, into: &str, words: &str) -> Copy {
        let port = free_port();
        let run = self.restore(
            into,
            &format!("--json --start --action promote --port {port} {words}"),
        );
        assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
        let told: serde_json::Value = serde_json::from_str(&run.out).unwrap();
        let mut connection = connect_to_copy(&told).await;
        let mut value = async |sql: &str| {
            connection.simple_query(sql).await.unwrap()[0].rows[0][0]
                .clone()
                .unwrap()
        };
        let whole = "SELECT count(*) = 600000 AND count(DISTINCT n) = 600000 AND min(n) = 1 AND max(n) = 600000 FROM t";
        let rows = value(whole).await;
        value("SELECT pg_switch_wal()").await;
        let timeline = value("SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)").await;
        let segments = std::fs::read_dir(self.place.directory.join(into).join("pg_wal"))
            .unwrap()
            .count();
        stop_copy(&self.place, into).await;
        Copy {
            told,
            rows,
            timeline,
            segments,
        }
    }
}

/// What a copy showed.
struct Copy {
    told: serde_json::Value,
    rows: String,
    timeline: String,
    segments: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_fetches_its_log_is_the_copy_that_has_it_placed() {
    let scene = Scene::make().await;
    let fetched = scene.rows_of("fetched", "--wal fetch").await;
    let placed = scene.rows_of("placed", "--wal place").await;
    for copy in [&fetched, &placed] {
        assert_eq!(copy.rows, "t", "every row of both timelines, once");
        assert_eq!(
            copy.timeline, "00000003",
            "promoted onto a number that nobody has used"
        );
    }
    assert_eq!(
        fetched.told["evidence"]["replayed"],
        placed.told["evidence"]["replayed"]
    );
    let command = fetched.told["plan"]["restore_command"].as_str().unwrap();
    assert!(command.contains("wal fetch main %f %p --lineage"), "{command}");
    assert_eq!(fetched.told["segments"], 0);
    assert!(placed.told["plan"]["restore_command"].is_null());
    assert!(placed.segments >= 5, "{} files in pg_wal", placed.segments);
    verify_misses_a_lost_range(&scene.place);
    a_command_that_the_server_cannot_run_is_refused(&scene);
    drop(scene.promoted);
}

/// Two timelines, each streamed and left: nothing is missed. Then one range goes.
fn verify_misses_a_lost_range(place: &Place) {
    let whole = place.run("verify main");
    assert_eq!(whole.exit, 0, "{}{}", whole.out, whole.err);
    let settled = place.directory.join("backups/wal-archive/settled/main");
    let mut ranges = Vec::new();
    for system in std::fs::read_dir(settled).unwrap() {
        for branch in std::fs::read_dir(system.unwrap().path()).unwrap() {
            let names = std::fs::read_dir(branch.unwrap().path()).unwrap();
            ranges.extend(names.map(|name| name.unwrap().path()));
        }
    }
    ranges.sort();
    // The second of the first timeline; what is live of it goes too.
    let lost = &ranges[1];
    let positions: Vec<&str> = lost
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .split(['-', '.'])
        .collect();
    let (from, to) = (positions[0].to_owned(), positions[1].to_owned());
    let body = std::fs::read(lost).unwrap();
    std::fs::remove_file(lost).unwrap();
    let live = PathBuf::from(
        lost.parent()
            .unwrap()
            .display()
            .to_string()
            .replace("/settled/", "/live/"),
    );
    let mut removed = Vec::new();
    for name in std::fs::read_dir(live).into_iter().flatten() {
        let path = name.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name[..16] < *to && name[17..33] > *from {
            removed.push((path.clone(), std::fs::read(&path).unwrap()));
            std::fs::remove_file(path).unwrap();
        }
    }
    for depth in ["list", "structure", "everything"] {
        let verified = place.run(&format!("verify main --depth {depth}"));
        assert_eq!(verified.exit, 9, "{depth}: {}", verified.out);
        let said = "is not stored any more: it was stored or confirmed, and no restore can cross it\n  next: bring it back";
        assert!(verified.out.contains(said), "{depth}: {}", verified.out);
        let lsn = format!(
            "{:X}/{:X}",
            u64::from_str_radix(&from, 16).unwrap() >> 32,
            u64::from_str_radix(&from[8..], 16).unwrap()
        );
        assert!(
            verified.out.contains(&format!("from {lsn} to ")),
            "{depth}: {}",
            verified.out
        );
        assert!(
            verified.out.contains("see: backstay wal gaps main"),
            "{depth}: {}",
            verified.out
        );
    }
    std::fs::write(lost, body).unwrap();
    for (path, body) in removed {
        std::fs::write(path, body).unwrap();
    }
}

fn a_command_that_the_server_cannot_run_is_refused(scene: &Scene) {
    let file = scene.place.directory.join("backstay.yaml");
    let config = std::fs::read_to_string(&file).unwrap();
    let key = std::fs::read_to_string(scene.place.directory.join("backstay.key")).unwrap();
    let of_environment = config.replace("file: ./backstay.key", "env: THE_KEY");
    assert_ne!(config, of_environment);
    scene.place.write("backstay.yaml", of_environment);
    Owner::find().take(&file).unwrap();
    let words = [
        "restore",
        "main",
        "--into",
        "refused",
        "--confirm",
        "--progress",
        "none",
        "--wal",
        "fetch",
    ];
    let mut command = scene.place.command(&words);
    command.env("THE_KEY", key.trim());
    let run = scene.place.finish(command);
    assert_eq!(run.exit, 5, "{}{}", run.out, run.err);
    assert!(
        run.err.contains("the server could not fetch its log"),
        "{}",
        run.err
    );
    // What the command said stands in lines of its own, as it said it.
    let lines: Vec<&str> = run.err.lines().map(str::trim).collect();
    let said = lines
        .iter()
        .position(|line| line.starts_with("it said "))
        .unwrap();
    assert!(
        lines[..said].iter().any(|line| line.ends_with(" exited 208")),
        "{}",
        run.err
    );
    assert!(lines[said].contains("error[BKS-"), "{}", run.err);
    assert!(
        lines[said + 1..].iter().any(|line| line.starts_with("help ")),
        "{}",
        run.err
    );
    assert!(!run.err.contains("; help"), "{}", run.err);
    assert!(run.err.contains("THE_KEY"), "{}", run.err);
    assert!(!run.err.contains(key.trim()), "the key is not told");
    assert!(
        !scene.place.directory.join("refused").exists(),
        "nothing was touched"
    );
}
