//! A backup whose head or key is damaged or gone, and log whose keys or bytes are: the rest is listed and restored, whatever needs
//! them is refused, and verify names what is wrong.

use crate::golden::assert_shape;
use crate::live::{CONFIRMED, start_stream, stop_stream, until};
use crate::program::{Place, Run};
use backstay_testkit::pg::PgServer;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Two backups; the table has a row more in the newer one.
struct Scene {
    server: PgServer,
    place: Place,
    older: String,
    newer: String,
}

impl Scene {
    async fn make() -> Scene {
        let server = PgServer::start().await;
        let place = Place::new().serving(&server);
        server
            .sql("CREATE TABLE t AS SELECT generate_series(1, 100) AS n")
            .await;
        let mut taken = Vec::new();
        for _ in 0..2 {
            let run = place.run("backup main --progress none --json");
            assert_eq!(run.exit, 0, "{}", run.err);
            let told: Value = serde_json::from_str(&run.out).unwrap();
            taken.push(told["backup"]["backup"].as_str().unwrap().to_owned());
            server.sql("INSERT INTO t SELECT count(*) + 1 FROM t").await;
        }
        let newer = taken.pop().unwrap();
        let older = taken.pop().unwrap();
        Scene {
            server,
            place,
            older,
            newer,
        }
    }

    /// The only object of this backup below a role.
    fn object(&self, role: &str) -> PathBuf {
        let root = self.place.directory.join("backups/postgres-backups").join(role);
        let mut found = Vec::new();
        files(&root, &mut found);
        found.retain(|path| path.display().to_string().contains(&self.older));
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    fn name_of(&self, path: &Path) -> String {
        let root = self.place.directory.join("backups");
        path.strip_prefix(root).unwrap().display().to_string()
    }

    /// What a copy of the newer backup holds.
    async fn rows_of(&self, into: &str, words: &str) -> (String, Run) {
        let directory = self.server.room().path().join(into);
        let run = self.place.run(&format!(
            "restore main --confirm --progress none --into {} {words}",
            directory.display()
        ));
        assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
        let copy = PgServer::start_on(&directory, &[]).await.unwrap();
        (
            copy.value("SELECT count(*) || ' to ' || max(n) FROM t").await,
            run,
        )
    }
}

fn files(at: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_damaged_backup_stops_no_other_and_is_named_by_whoever_passes_over_it() {
    let scene = Scene::make().await;
    let Scene {
        place, older, newer, ..
    } = &scene;
    let (head, wrap) = (scene.object("manifests"), scene.object("keys"));
    for (damaged, exit) in [(&head, 9), (&wrap, 11)] {
        let whole = std::fs::read(damaged).unwrap();
        let mut changed = whole.clone();
        let at = changed.len() - 9;
        changed[at] ^= 1;
        std::fs::write(damaged, &changed).unwrap();

        let list = place.run("list");
        assert_eq!(list.exit, 0, "{}", list.err);
        let row = |backup: &str| {
            list.out
                .lines()
                .find(|line| line.starts_with(backup))
                .unwrap()
                .to_owned()
        };
        assert!(row(older).ends_with("unreadable"), "{}", list.out);
        assert!(row(newer).ends_with("snapshot-only"), "{}", list.out);
        assert!(
            list.err.contains(older.as_str()) && list.err.contains("backstay verify"),
            "{}",
            list.err
        );
        let list = place.run("list --json").out;
        assert_shape("list-unreadable", &list);
        let told: Value = serde_json::from_str(&list).unwrap();
        let service = &told["services"][0];
        assert_eq!(service["backups"].as_array().unwrap().len(), 1);
        assert_eq!(service["unreadable"][0]["backup"], older.as_str());
        assert_eq!(service["unreadable"][0]["object"], scene.name_of(&head));

        let status = place.run("status");
        assert_eq!(status.exit, 0, "{}", status.err);
        let complaint = "▲ main: 1 backup or lineage record cannot be opened: ";
        assert!(status.out.contains(complaint), "{}", status.out);
        assert!(
            status.out.contains("next: backstay verify main"),
            "{}",
            status.out
        );

        let words = if exit == 9 {
            "--to latest"
        } else {
            "--to immediate"
        };
        let (rows, restored) = scene.rows_of(&format!("copy-{exit}"), words).await;
        assert_eq!(rows, "101 to 101");
        assert!(restored.err.contains(older.as_str()), "{}", restored.err);
        let by_name = format!("--to immediate --base {newer} --plan");
        let planned = place.run(&format!("restore main --json --into never {by_name}"));
        assert_eq!(planned.exit, 0, "{}", planned.err);
        let told: Value = serde_json::from_str(&planned.out).unwrap();
        assert_eq!(told["plan"]["unreadable"][0]["backup"], older.as_str());

        for line in [
            format!("restore main --to immediate --base {older} --into never"),
            format!("show {older}"),
        ] {
            let refused = place.run(&line);
            assert_eq!(refused.exit, exit, "{line}: {}", refused.err);
            let what = format!("the backup {older} of main cannot be opened: ");
            assert!(refused.err.contains(&what), "{line}: {}", refused.err);
        }

        let verified = place.run("verify main --depth structure");
        assert_eq!(verified.exit, 9, "{}", verified.out);
        assert!(verified.out.contains(&scene.name_of(damaged)), "{}", verified.out);
        let next = if exit == 9 {
            "  next: bring it back from a copy of the repository, or: backstay backup main\n"
        } else {
            "  next: bring it back from a copy of the repository; see: backstay key check\n"
        };
        assert!(verified.out.contains(next), "{}", verified.out);
        std::fs::write(damaged, whole).unwrap();
        let verified = place.run("verify main --depth structure");
        assert_eq!(verified.exit, 0, "{}", verified.out);
    }
    a_lost_head_is_missed(&scene, &head);
}

fn a_lost_head_is_missed(scene: &Scene, head: &Path) {
    let Scene { place, older, .. } = scene;
    std::fs::remove_file(head).unwrap();
    for depth in ["list", "structure", "everything"] {
        let verified = place.run(&format!("verify main --depth {depth}"));
        assert_eq!(verified.exit, 9, "{depth}: {}", verified.out);
        let said = format!(
            "✗ REPO-4  {}: the head of backup {older} is not there: the run ",
            scene.name_of(head)
        );
        assert!(verified.out.contains(&said), "{depth}: {}", verified.out);
        let next = "  next: bring it back from a copy of the repository, or: backstay backup main\n";
        assert!(verified.out.contains(next), "{depth}: {}", verified.out);
        assert!(
            verified.out.ends_with("1 thing wrong\n"),
            "{depth}: {}",
            verified.out
        );
    }
}

/// A backup of 100 rows, and the log of two runs of a stream: 10 rows more in the first, 1000 in the second.
async fn streamed() -> Scene {
    let server = PgServer::start().await;
    let place = Place::new().serving(&server);
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 100) AS n")
        .await;
    let mut newer = String::new();
    for rows in ["generate_series(101, 110)", "generate_series(111, 1110)"] {
        let stream = start_stream(&place);
        until(&server, CONFIRMED, "true").await;
        if newer.is_empty() {
            let run = place.run("backup main --progress none --json");
            assert_eq!(run.exit, 0, "{}", run.err);
            let told: Value = serde_json::from_str(&run.out).unwrap();
            newer = told["backup"]["backup"].as_str().unwrap().to_owned();
        }
        server.sql(&format!("INSERT INTO t SELECT {rows}")).await;
        until(&server, CONFIRMED, "true").await;
        stop_stream(stream);
    }
    Scene {
        server,
        place,
        older: newer.clone(),
        newer,
    }
}

/// What stands after a word up to the next blank or semicolon.
fn word_after<'a>(text: &'a str, before: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{text}"));
    rest.split([' ', ';', '\n']).next().unwrap()
}

fn below(place: &Place, role: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(
        &place.directory.join("backups/wal-archive").join(role),
        &mut found,
    );
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn log_without_its_keys_is_named_and_no_copy_is_older_than_was_asked_for() {
    let scene = streamed().await;
    let place = &scene.place;
    let of_stream = |path: &PathBuf| path.display().to_string().contains("-log-");
    let wrap = below(place, "keys").into_iter().rfind(of_stream).unwrap();
    let name = wrap.file_name().unwrap().to_str().unwrap();
    let epoch = name.split_once('.').unwrap().0.to_owned();
    let whole = std::fs::read(&wrap).unwrap();
    let mut changed = whole.clone();
    let at = changed.len() - 9;
    changed[at] ^= 1;
    std::fs::write(&wrap, changed).unwrap();

    let list = place.run("list --json");
    assert_eq!(list.exit, 0, "{}", list.err);
    assert!(list.err.contains(&epoch), "{}", list.err);
    let told: Value = serde_json::from_str(&list.out).unwrap();
    let service = &told["services"][0];
    assert_eq!(service["backups"][0]["state"], "pitr");
    let unreadable = &service["unreadable"][0];
    assert!(
        unreadable["object"].as_str().unwrap().contains(&epoch),
        "{unreadable}"
    );
    let window = place.run("window");
    assert_eq!(window.exit, 0, "{}", window.err);
    assert!(window.out.contains("cannot be opened"), "{}", window.out);
    let status = place.run("status");
    assert_eq!(status.exit, 0, "{}", status.err);
    assert!(
        status.out.contains("1 part of the log cannot be opened, "),
        "{}",
        status.out
    );
    assert!(
        status.out.contains("next: backstay verify main"),
        "{}",
        status.out
    );
    let told: Value = serde_json::from_str(&place.run("status --json").out).unwrap();
    assert_eq!(told["services"][0]["state"], "failing");

    let refused = place.run("restore main --to latest --into never --confirm");
    assert_eq!(refused.exit, 11, "{}", refused.err);
    assert!(refused.err.contains(&epoch), "{}", refused.err);
    assert!(!place.directory.join("never").exists());
    let last = word_after(&refused.err, "--to lsn:");
    let (rows, _) = scene.rows_of("last", &format!("--to lsn:{last}")).await;
    assert_eq!(rows, "110 to 110");
    let beyond = place.run("restore main --to \"just now\" --into never");
    assert_ne!(beyond.exit, 0, "{}", beyond.out);

    let verified = place.run("verify main --depth structure");
    assert_eq!(verified.exit, 9, "{}", verified.out);
    assert!(verified.out.contains(&epoch), "{}", verified.out);
    std::fs::write(&wrap, whole).unwrap();
    let (rows, _) = scene.rows_of("whole", "--to latest").await;
    assert_eq!(rows, "1110 to 1110");
    two_exchanged_ranges(&scene).await;
}

/// Each of two settled ranges has the content of the other.
async fn two_exchanged_ranges(scene: &Scene) {
    let place = &scene.place;
    // Neither a second copy nor an index that repeats the facts of the ranges.
    for other in [below(place, "live"), below(place, "index")].concat() {
        std::fs::remove_file(other).unwrap();
    }
    let settled = below(place, "settled");
    let [.., one, two] = &settled[..] else {
        panic!("{settled:?}")
    };
    let (content, other) = (std::fs::read(one).unwrap(), std::fs::read(two).unwrap());
    std::fs::write(one, other).unwrap();
    std::fs::write(two, content).unwrap();
    let list = place.run("list");
    assert_eq!(list.exit, 0, "{}", list.err);
    assert!(list.err.contains(&scene.name_of(two)), "{}", list.err);
    let told: Value = serde_json::from_str(&place.run("status --json").out).unwrap();
    assert_ne!(told["services"][0]["state"], "ok");
    let (rows, _) = scene.rows_of("immediate", "--to immediate").await;
    assert_eq!(rows, "100 to 100");
    let refused = place.run("restore main --to latest --into never --confirm");
    assert_eq!(refused.exit, 9, "{}", refused.err);
    assert!(
        refused.err.contains(&scene.name_of(one)) || refused.err.contains(&scene.name_of(two)),
        "{}",
        refused.err
    );
    let verified = place.run("verify main --depth structure");
    assert_eq!(verified.exit, 9, "{}", verified.out);
    for range in [one, two] {
        assert!(verified.out.contains(&scene.name_of(range)), "{}", verified.out);
    }
}

/// Puts something in the place of an object that held these bytes.
type Damage = fn(&Path, &[u8]);

/// What may have become of an object; the last four are no object any more.
const DAMAGES: [(&str, Damage); 6] = [
    ("gone", |at, _| remove(at)),
    ("half", |at, whole| {
        std::fs::write(at, &whole[..whole.len() / 2]).unwrap()
    }),
    ("pipe", |at, _| {
        remove(at);
        let pipe = std::process::Command::new("mkfifo").arg(at).status();
        assert!(pipe.unwrap().success());
    }),
    ("socket", |at, _| {
        remove(at);
        // The path of a socket is short; a link to one is another thing.
        let near = std::env::temp_dir().join(format!("backstay-{}", std::process::id()));
        drop(std::os::unix::net::UnixListener::bind(&near).unwrap());
        std::fs::rename(&near, at).unwrap();
    }),
    ("directory", |at, _| {
        remove(at);
        std::fs::create_dir(at).unwrap();
    }),
    ("full-directory", |at, whole| {
        remove(at);
        std::fs::create_dir(at).unwrap();
        std::fs::write(at.join("moved"), whole).unwrap();
    }),
];

fn remove(at: &Path) {
    let removed = match std::fs::symlink_metadata(at) {
        Ok(facts) if facts.is_dir() => std::fs::remove_dir_all(at),
        Ok(_) => std::fs::remove_file(at),
        Err(_) => return,
    };
    removed.unwrap();
}

/// Verify goes on to its end, names this object and says what to type.
#[track_caller]
fn names_what_is_wrong(scene: &Scene, at: &Path, depth: &str) {
    let run = scene
        .place
        .run(&format!("verify main --depth {depth} --json --no-record"));
    assert_eq!(run.exit, 9, "{depth}: {}{}", run.out, run.err);
    let told: Value = serde_json::from_str(&run.out).unwrap();
    let name = scene.name_of(at);
    let findings = told["findings"].as_array().unwrap();
    let of_it: Vec<_> = findings.iter().filter(|found| found["object"] == name).collect();
    assert!(!of_it.is_empty(), "{depth} {name}: {findings:?}");
    for found in of_it {
        assert!(!found["next"].as_str().unwrap().is_empty(), "{found}");
    }
}

/// A listing shows neither, and nothing may be opened to find them.
#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_the_place_of_an_object_and_is_none_is_named() {
    let scene = streamed().await;
    let place = &scene.place;
    assert_eq!(place.run("verify main").exit, 0);
    let root = place.directory.join("backups");
    let mut objects = Vec::new();
    files(&root, &mut objects);
    let of = |part: &str| {
        let mut found = objects.iter().filter(|at| scene.name_of(at).contains(part));
        found.next().unwrap_or_else(|| panic!("{part}: {objects:?}"))
    };
    let parts = [
        "wal-archive/live/",
        "wal-archive/index/",
        "wal-archive/lineage/",
        "wal-archive/keys/",
        "-backups/manifests/",
        "-backups/tables/",
        "-backups/data/",
        "-backups/keys/",
        "facts/runs/",
        "facts/keys/",
    ];
    for at in parts.map(of) {
        let whole = std::fs::read(at).unwrap();
        for (what, damage) in &DAMAGES[2..] {
            damage(at, &whole);
            names_what_is_wrong(&scene, at, "list");
            if ["/live/", "/manifests/", "/tables/", "/data/"]
                .iter()
                .any(|part| scene.name_of(at).contains(part))
            {
                let expired = place.run("expire main");
                assert_eq!(expired.exit, 5, "{what}: {}{}", expired.out, expired.err);
                assert!(expired.err.contains(&scene.name_of(at)), "{}", expired.err);
            }
        }
        remove(at);
        std::fs::write(at, whole).unwrap();
    }
    assert_eq!(place.run("verify main").exit, 0);
    let (rows, _) = scene.rows_of("whole", "--to latest").await;
    assert_eq!(rows, "1110 to 1110");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_backup_that_is_gone_is_damage_and_is_named() {
    let scene = Scene::make().await;
    let Scene { place, older, .. } = &scene;
    let root = place.directory.join("backups/postgres-backups");
    let mut parts = Vec::new();
    files(&root, &mut parts);
    let of_older = |path: &&PathBuf| path.display().to_string().contains(older.as_str());
    let part = |role: &str, name: &str| {
        let is_it = |path: &&PathBuf| path.ends_with(name) && path.display().to_string().contains(role);
        let mut found = parts.iter().filter(of_older).filter(is_it);
        found
            .next()
            .unwrap_or_else(|| panic!("{name}: {parts:?}"))
            .clone()
    };
    let restore = |into: &str| {
        place.run(&format!(
            "restore main --base {older} --to immediate --into {into} --confirm --progress none"
        ))
    };
    for (role, name) in [("/data/", "p00000"), ("/tables/", "t0000"), ("/tables/", "t0001")] {
        let at = part(role, name);
        let whole = std::fs::read(&at).unwrap();
        for (left, damage) in DAMAGES {
            damage(&at, &whole);
            let run = restore(&format!("copy-{name}-{left}"));
            assert_eq!(run.exit, 9, "{name} {left}: {}", run.err);
            assert!(
                run.err.contains(&scene.name_of(&at)),
                "{name} {left}: {}",
                run.err
            );
            for depth in ["list", "everything"] {
                names_what_is_wrong(&scene, &at, depth);
            }
            remove(&at);
        }
        std::fs::write(&at, whole).unwrap();
    }
    let (rows, _) = scene
        .rows_of("again", &format!("--base {older} --to immediate"))
        .await;
    assert_eq!(rows, "100 to 100");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_which_nothing_opens_is_named_and_the_others_are_answered() {
    let server = PgServer::start().await;
    let place = Place::with_config(format!(
        "version: 1\nrepo: file://./backups\nkeys: [ {{ file: ./backstay.key }} ]\nservices:\n  \
         main: {{ postgresql: \"{}\" }}\n  other: {{ postgresql: \"host=/nowhere user=postgres\" }}\n",
        server.conninfo_text()
    ));
    place.write("backstay.key", "07".repeat(32));
    place.run("init main");
    let taken = place.run("backup main --progress none");
    assert_eq!(taken.exit, 0, "{}", taken.err);
    let mut wraps = Vec::new();
    files(&place.directory.join("backups/postgres-backups/keys"), &mut wraps);
    assert_eq!(wraps.len(), 1, "{wraps:?}");
    std::fs::remove_file(&wraps[0]).unwrap();

    for (verb, other) in [
        ("list", "other has no backup yet"),
        ("status", "other"),
        ("window", "other"),
        ("wal gaps", "other: nothing is stored of it, "),
    ] {
        let run = place.run(verb);
        assert_eq!(run.exit, 3, "{verb}: {}{}", run.out, run.err);
        let named = "main: what is stored of it cannot be told: ";
        assert!(run.out.contains(named), "{verb}: {}", run.out);
        assert!(
            run.out.contains("next: backstay verify main"),
            "{verb}: {}",
            run.out
        );
        assert!(run.out.contains(other), "{verb}: {}", run.out);
        let alone = place.run(&format!("{verb} main"));
        assert_eq!(alone.exit, 11, "{verb} main: {}{}", alone.out, alone.err);
    }
    let gaps = place.run("wal gaps --json").out;
    assert_shape("gaps-untold", &gaps);
    let told: Value = serde_json::from_str(&gaps).unwrap();
    assert_eq!(told["without_log"], serde_json::json!(["other"]));
    assert_eq!(told["untold"][0]["service"], "main");
    let told: Value = serde_json::from_str(&place.run("status --json").out).unwrap();
    let trouble = |service: &Value| service["trouble"].is_string();
    let services = told["services"].as_array().unwrap();
    assert_eq!(services.iter().map(trouble).collect::<Vec<_>>(), [true, false]);
}
