//! A backup whose head or key is damaged or gone: the others are listed and restored, and verify names what is wrong.

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
        let place = Place::new();
        let made = place.finish(place.command(&["init", "main", "--postgresql", &server.conninfo_text()]));
        assert_eq!(made.exit, 0, "{}", made.err);
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
        let told: Value = serde_json::from_str(&place.run("list --json").out).unwrap();
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
