//! Every command on one repository of a real server, as a person sees it; outputs are held whole, masked.

use crate::golden::{assert_golden, assert_shape};
use crate::live::{CONFIRMED, signal, until};
use crate::mask::{mask, shape};
use crate::program::{Place, Run};
use backstay_testkit::pg::PgServer;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A configured place and its server.
struct World {
    place: Place,
    server: PgServer,
}

impl World {
    async fn start() -> World {
        let server = PgServer::start().await;
        let place = Place::new();
        World { place, server }
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.place.finish(self.place.command(arguments))
    }

    /// Runs a command and compares all that it says.
    fn golden(&self, name: &str, line: &str) -> Run {
        let arguments: Vec<&str> = line.split(' ').collect();
        self.golden_of(name, line, &arguments)
    }

    fn golden_of(&self, name: &str, line: &str, arguments: &[&str]) -> Run {
        let run = self.run(arguments);
        let sockets = self.server.socket_dir().display().to_string();
        let text = run.whole(line).replace(&sockets, "/SOCKETS");
        assert_golden(&format!("loop/{name}.txt"), &mask(&text));
        run
    }

    fn shape(&self, name: &str, line: &str) {
        let arguments: Vec<&str> = line.split(' ').collect();
        let run = self.run(&arguments);
        assert_eq!(run.err, "", "{line}");
        assert_golden(&format!("loop/{name}.json"), &mask(&shape(&run.out)));
    }

    /// How much is stored differs from run to run: the stream has its own rhythm.
    fn verify_golden(&self) {
        let line = "verify main --depth everything";
        let text = mask(&self.place.run(line).whole(line));
        let counts = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
        let lines = text.lines().map(|line| {
            let words = line.split(' ').map(|word| {
                if counts(word) && !word.is_empty() && !line.starts_with('#') {
                    "N"
                } else {
                    word
                }
            });
            words.collect::<Vec<_>>().join(" ") + "\n"
        });
        assert_golden("loop/verify.txt", &lines.collect::<String>());
        self.shape("verify", "verify main --depth everything --json");
    }

    fn stream(&self) -> Child {
        let mut command = self.place.command(&["stream", "main"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_answers_as_it_is_written() {
    let world = World::start().await;
    let conninfo = world.server.conninfo_text();
    let line = "init main --postgresql CONNECTION";
    world.golden_of("init", line, &["init", "main", "--postgresql", &conninfo]);
    world.golden_of("init-again", line, &["init", "main", "--postgresql", &conninfo]);
    let elsewhere = Place::new();
    let made = elsewhere.finish(elsewhere.command(&["init", "main", "--json", "--postgresql", &conninfo]));
    assert_eq!((made.exit, made.err.as_str()), (0, ""));
    assert_golden("loop/init.json", &shape(&made.out));
    world.golden("version", "version");
    world.shape("version", "version --json");
    world.golden("status-before", "status --exit-code");
    world.golden("list-before", "list");
    let stream = world.stream();
    until(
        &world.server,
        "SELECT count(*)::text FROM pg_stat_replication",
        "1",
    )
    .await;
    // It has made the month's key by then: the backup makes no second one at the same moment.
    let attached = world.place.directory.join("backups/wal-archive/lineage/main");
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::fs::read_dir(&attached).map_or(0, Iterator::count) == 0 {
        assert!(Instant::now() < deadline, "the stream never attached");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.golden("backup", "backup main --keep 1y --progress none");
    world.server.sql("CREATE TABLE t AS SELECT 1 AS n").await;
    until(&world.server, CONFIRMED, "true").await;
    for (name, line) in [
        ("check", "check"),
        ("status", "status --exit-code"),
        ("list", "list"),
        ("window", "window"),
        ("show", "show latest main"),
        ("plan", "restore main --to latest --plan"),
        ("slot-show", "slot show main"),
        ("slot-drop-unconfirmed", "slot drop main"),
        ("slot-drop-in-use", "slot drop main --confirm main"),
        ("gaps", "wal gaps"),
        ("lineages", "lineage list"),
        ("key-check", "key check"),
        ("rotate-nothing", "key rotate"),
        ("sheet", "key recovery-sheet"),
    ] {
        world.golden(name, line);
    }
    for (name, line) in [
        ("check", "check --json"),
        ("status", "status --json"),
        ("list", "list --json"),
        ("window", "window --json"),
        ("show", "show latest --json"),
        ("plan", "restore main --plan --json"),
        ("slot-show", "slot show main --json"),
        ("gaps", "wal gaps --json"),
        ("lineages", "lineage list --json"),
        ("key-check", "key check --json"),
    ] {
        world.shape(name, line);
    }
    a_plan_is_made_again_by_the_command_that_it_names(&world).await;
    a_signal_ends_the_stream_well(&world, stream);
    world.golden("settle", "wal settle");
    world.shape("settle", "wal settle --json");
    world.golden("expire", "expire main");
    world.shape("expire", "expire main --json");
    world.verify_golden();
    for depth in ["list", "structure", "everything"] {
        let run = world.run(&["verify", "main", "--depth", depth]);
        assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
        assert!(run.out.ends_with("nothing is wrong\n"), "{}", run.out);
    }
    the_log_is_fetched_or_its_absence_proved(&world).await;
    a_position_beyond_the_end_is_refused_with_the_last_one(&world);
    world.golden("slot-drop", "slot drop main --confirm main");
    world.golden("slot-drop-again", "slot drop main --confirm main");
    world.shape("slot-drop", "slot drop main --confirm main --json");
    a_second_key_opens_everything_after_a_rotation(&world);
    a_head_can_be_decrypted_by_name(&world);
    a_restore_off_a_terminal_asks_nothing(&world);
}

async fn the_log_is_fetched_or_its_absence_proved(world: &World) {
    let stored = world
        .server
        .value("SELECT pg_walfile_name('0/1000000'::pg_lsn + 16777216)")
        .await;
    let fetched = |file: &str| world.run(&["wal", "fetch", "main", file, "RECOVERYXLOG"]).exit;
    assert_eq!(fetched("0000000100000000000000FF"), 1, "beyond the end");
    assert_eq!(fetched("nonsense"), 204);
    assert!([0, 204].contains(&fetched(&stored)));
}

fn a_position_beyond_the_end_is_refused_with_the_last_one(world: &World) {
    let plan = |point: &str| world.run(&["restore", "main", "--to", point, "--plan", "--json"]);
    let refused = plan("lsn:FF/0");
    assert_eq!(refused.exit, 6, "{}", refused.err);
    let refused: serde_json::Value = serde_json::from_str(&refused.err).unwrap();
    let (_, nearest) = refused["help"].as_str().unwrap().split_once("--to ").unwrap();
    let stop = |point: &str| {
        let run = plan(point);
        assert_eq!(run.exit, 0, "{point}: {}", run.err);
        serde_json::from_str::<serde_json::Value>(&run.out).unwrap()["plan"]["stop"]["lsn"].clone()
    };
    assert_eq!(stop(nearest), stop("latest"));
}

async fn a_plan_is_made_again_by_the_command_that_it_names(world: &World) {
    let plan_of = |line: &[&str]| -> serde_json::Value {
        let run = world.run(&[line, &["--plan", "--json"]].concat());
        assert_eq!(run.exit, 0, "{}", run.err);
        serde_json::from_str::<serde_json::Value>(&run.out).unwrap()["plan"].clone()
    };
    let status: serde_json::Value = serde_json::from_str(&world.run(&["status", "--json"]).out).unwrap();
    let newest = status["services"][0]["recoverable_to"].as_str().unwrap();
    let plans = ["latest", "immediate", newest].map(|point| plan_of(&["restore", "main", "--to", point]));
    // More is stored now, and `latest` and a time ago mean something else.
    world
        .server
        .sql("INSERT INTO t SELECT generate_series(1, 100)")
        .await;
    until(&world.server, CONFIRMED, "true").await;
    assert_ne!(plan_of(&["restore", "main"])["stop"], plans[0]["stop"]);
    for plan in plans {
        let command = plan["same_as"].as_str().unwrap();
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        let again = plan_of(&words);
        for what in ["kind", "lsn"] {
            assert_eq!(again["stop"][what], plan["stop"][what], "{command}");
        }
        assert_eq!(again["backup"], plan["backup"], "{command}");
        assert_eq!(again["same_as"], plan["same_as"], "{command}");
    }
}

fn a_signal_ends_the_stream_well(world: &World, stream: Child) {
    signal(&stream, "-TERM");
    let output = stream.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("stream attached"), "{said}");
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(out, "stopped   main: everything received is stored\n");
    assert_eq!(world.run(&["wal", "gaps"]).exit, 0);
}

fn a_second_key_opens_everything_after_a_rotation(world: &World) {
    world.run(&["key", "new", "second.key"]);
    let file = world.place.directory.join("backstay.yaml");
    let config = std::fs::read_to_string(file).unwrap();
    let both = config.replace("./backstay.key }", "./backstay.key }, { file: ./second.key }");
    world.place.write("backstay.yaml", both);
    world.golden("key-check-lacking", "key check");
    world.golden("rotate-plan", "key rotate");
    world.shape("rotate-plan", "key rotate --json");
    world.golden("rotate", "key rotate --confirm");
    world.shape("rotate", "key rotate --confirm --json");
    let second = config.replace("./backstay.key", "./second.key");
    world.place.write("backstay.yaml", second);
    world.golden("key-check-second", "key check");
    world.place.write("backstay.yaml", config);
}

fn a_head_can_be_decrypted_by_name(world: &World) {
    let heads = world
        .place
        .directory
        .join("backups/postgres-backups/manifests/1y/main");
    let mut at = heads;
    while at.is_dir() {
        at = std::fs::read_dir(&at).unwrap().next().unwrap().unwrap().path();
    }
    let name = at
        .strip_prefix(world.place.directory.join("backups"))
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let run = world.run(&["decrypt", &name]);
    assert_eq!((run.exit, run.err.as_str()), (0, ""));
    let head: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(head["source"], "main");
    let into = world.run(&["decrypt", &name, "--into", "head.json"]);
    assert_eq!(into.exit, 0, "{}", into.err);
    assert_eq!(
        std::fs::read_to_string(world.place.directory.join("head.json")).unwrap(),
        run.out
    );
    assert_eq!(world.run(&["decrypt", &name, "--into", "head.json"]).exit, 1);
    let told = world.run(&["decrypt", &name, "--into", "again.json", "--json"]);
    assert_shape("decrypt", &told.out);
    world.golden("decrypt-none", "decrypt repository.json");
}

fn a_restore_off_a_terminal_asks_nothing(world: &World) {
    let run = world.golden("restore", "restore main --to latest --into copy --progress none");
    assert!(
        world.place.directory.join("copy/PG_VERSION").exists(),
        "{}",
        run.err
    );
    world.shape(
        "restore",
        "restore main --to latest --into second --progress none --json",
    );
    assert!(world.place.directory.join("second/PG_VERSION").exists());
}
