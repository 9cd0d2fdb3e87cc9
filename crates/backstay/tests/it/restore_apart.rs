//! Where a restore must not go: into servers, into the repository, into itself. Each refusal leaves everything as it was.

use crate::mounted::mounted;
use crate::program::{Place, Run};
use crate::tree::{changes, tree};
use backstay_clock::SystemClock;
use backstay_postgres::{PostgresDirectory, RestoreOptions};
use backstay_testkit::pg::{PgServer, Stop, free_port};
use backstay_testkit::skipped;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The words of a restore, up to where it goes.
const RESTORE: [&str; 8] = [
    "restore",
    "main",
    "--to",
    "immediate",
    "--progress",
    "none",
    "--confirm",
    "--into",
];

/// A server with a tablespace that was backed up and stopped; nothing of it changes any more.
struct Scene {
    server: PgServer,
    place: Place,
    fast: PathBuf,
}

impl Scene {
    async fn make() -> Scene {
        let mut server = PgServer::start().await;
        let place = Place::with_program(server.room().path().join("place")).serving(&server);
        let fast = server.room().dir("fast");
        server
            .sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", fast.display()))
            .await;
        server
            .sql("CREATE TABLE t TABLESPACE fast AS SELECT generate_series(1, 1000) AS n")
            .await;
        let run = place.run("backup main --progress none");
        assert_eq!(run.exit, 0, "{}", run.err);
        server.stop(Stop::Fast).await;
        Scene { server, place, fast }
    }

    fn room(&self) -> &Path {
        self.server.room().path()
    }

    fn restore(&self, into: &Path, words: &[&str]) -> Run {
        let into = into.to_str().unwrap();
        let arguments = [&RESTORE[..], &[into], words].concat();
        self.place.finish(self.place.command(&arguments))
    }

    fn everything(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        tree(self.room())
    }

    /// Refused with exit 5 and these words, and not a byte below the room has changed.
    fn is_refused(&self, into: &Path, words: &[&str], said: &str) {
        self.refuses(said, || self.restore(into, words));
    }

    fn refuses(&self, said: &str, restore: impl FnOnce() -> Run) {
        let before = self.everything();
        let run = restore();
        assert_eq!(run.exit, 5, "{said}: {}{}", run.out, run.err);
        let said = said.replace(self.place.directory.to_str().unwrap(), "/DIR");
        assert!(
            run.err.contains(&format!("error[BKS-5007]: {said}")),
            "{said}: {}",
            run.err
        );
        assert_eq!(changes(&before, &self.everything()), Vec::<String>::new());
    }

    fn map_tablespace_to(&self, to: &Path) {
        let file = self.place.directory.join("backstay.yaml");
        let config = fs::read_to_string(file).unwrap();
        let (service, _) = config.split_once("dbname=postgres\"").unwrap();
        let (from, to) = (self.fast.display(), to.display());
        let mapped = format!("{service}dbname=postgres\", tablespaces: {{ {from}: {to} }} }}\n");
        self.place.write("backstay.yaml", mapped);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_into_a_server_or_the_repository_is_refused_before_anything_is_touched() {
    let scene = Scene::make().await;
    let data = scene.server.data_dir();
    let repository = scene.place.directory.join("backups");
    let inside = |path: &Path, what: &str, other: &Path| {
        let said = format!("{}: lies in {what}, {}", path.display(), other.display());
        scene.is_refused(path, &[], &said);
        said
    };
    inside(&data.join("copy"), "the data directory of a server", data);
    inside(&data.join("base/copy"), "the data directory of a server", data);
    inside(&scene.fast.join("copy"), "a tablespace of a server", &scene.fast);
    inside(&repository.join("copy"), "the repository", &repository);

    let link = scene.room().join("link");
    symlink(data, &link).unwrap();
    let real = data.join("copy");
    let said = format!(
        "{}: lies in the data directory of a server, {}",
        real.display(),
        data.display()
    );
    scene.is_refused(&link.join("copy"), &[], &said);
    scene.is_refused(&scene.room().join("place/../link/copy/"), &[], &said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tablespace_in_a_server_the_repository_or_the_copy_is_refused_before_anything_is_touched() {
    let scene = Scene::make().await;
    let data = scene.server.data_dir();
    let repository = scene.place.directory.join("backups");
    let copy = scene.room().join("copy");
    for (place, what, other) in [
        (data.join("fast"), "the data directory of a server", data),
        (scene.fast.join("fast"), "a tablespace of a server", &scene.fast),
        (repository.join("fast"), "the repository", &repository),
    ] {
        scene.map_tablespace_to(&place);
        let said = format!("{}: lies in {what}, {}", place.display(), other.display());
        scene.is_refused(&copy, &[], &said);
    }
    for (place, into) in [
        (copy.join("fast"), copy.clone()),
        (copy.clone(), copy.clone()),
        (copy.clone(), copy.join("data")),
    ] {
        if into != copy {
            fs::create_dir(&copy).unwrap();
        }
        scene.map_tablespace_to(&place);
        let before = scene.everything();
        let run = scene.restore(&into, &[]);
        assert_eq!(run.exit, 5, "{}{}", run.out, run.err);
        assert!(run.err.contains(" overlaps "), "{}", run.err);
        assert_eq!(changes(&before, &scene.everything()), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_leads_the_tablespaces_into_the_repository_or_nowhere_is_refused_before_anything_is_touched()
 {
    let scene = Scene::make().await;
    let repository = scene.place.directory.join("backups");
    let empty = repository.join("e");
    fs::create_dir(&empty).unwrap();
    let oid = fs::read_dir(scene.server.data_dir().join("pg_tblspc"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .file_name();
    let led = |name: &str, to: &Path| {
        symlink(to, scene.room().join(name)).unwrap();
    };
    let refused = |into: &str, real: &Path| {
        let said = format!(
            "{}: lies in the repository, {}",
            real.display(),
            repository.display()
        );
        scene.is_refused(&scene.room().join(into), &[], &said);
    };
    led("z.tablespaces", &empty);
    refused("z", &empty.join(&oid));
    led("w.tablespaces", &repository);
    refused("w", &repository.join(&oid));
    fs::create_dir(scene.room().join("x.tablespaces")).unwrap();
    led(&format!("x.tablespaces/{}", oid.display()), &empty);
    refused("x", &empty);

    let nowhere = scene.room().join("y.tablespaces");
    led("y.tablespaces", &scene.room().join("nowhere"));
    fs::write(scene.room().join("v.tablespaces"), "").unwrap();
    let said = format!("{}: is not a directory", nowhere.display());
    scene.is_refused(&scene.room().join("y"), &[], &said);
    let below = scene.room().join("v.tablespaces").join(&oid);
    let said = format!("{}: is not a directory", below.display());
    scene.is_refused(&scene.room().join("v"), &[], &said);
    // A link to a place of the reader's own is followed.
    let far = scene.server.room().dir("far");
    led("u.tablespaces", &far);
    let run = scene.restore(&scene.room().join("u"), &[]);
    assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
    let link = fs::read_link(scene.room().join("u/pg_tblspc").join(&oid)).unwrap();
    assert_eq!(link, far.join(&oid));
    assert!(fs::read_dir(&link).unwrap().next().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_leads_into_the_repository_is_refused_before_anything_is_touched() {
    let scene = Scene::make().await;
    let repository = scene.place.directory.join("backups");
    let mut stored = fs::read_dir(&repository)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let within = stored.find(|path| path.is_dir()).unwrap();
    let second = scene.server.room().dir("second");
    let copy = second.join("copy");
    // The whole of it, and a part of it: no directory above that one is the repository.
    for part in [&repository, &within] {
        let mount = format!("mount --bind {} {}", part.display(), second.display());
        let arguments = [&RESTORE[..], &[copy.to_str().unwrap()]].concat();
        let said = format!(
            "{}: lies in the repository, {}",
            copy.display(),
            repository.display()
        );
        if mounted(&scene.place, &mount, &["version"]).is_none() {
            return;
        }
        scene.refuses(&said, || mounted(&scene.place, &mount, &arguments).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_and_a_trailing_slash_are_followed_to_where_the_files_go() {
    let scene = Scene::make().await;
    let far = scene.server.room().dir("far");
    let link = scene.place.directory.join("link");
    symlink(far.join("copy"), &link).unwrap();
    let said = format!("{}: is not a directory", link.display());
    scene.is_refused(&link, &[], &said);
    fs::create_dir(far.join("copy")).unwrap();
    for (into, lies) in [
        (link.clone(), far.join("copy")),
        (scene.room().join("slash/"), scene.room().join("slash")),
    ] {
        let port = free_port().to_string();
        let run = scene.restore(&into, &["--start", "--json", "--port", &port]);
        assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
        let told: serde_json::Value = serde_json::from_str(&run.out).unwrap();
        let rows = serde_json::json!([["postgres", "public.t", 1000]]);
        assert_eq!(told["evidence"]["rows"], rows);
        assert!(lies.join("PG_VERSION").exists());
        assert!(!lies.join(".tablespaces").exists());
        let spaces = lies.with_extension("tablespaces");
        let in_copy = fs::read_dir(lies.join("pg_tblspc"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        let target = fs::read_link(in_copy.path()).unwrap();
        assert!(target.starts_with(&spaces), "{}", target.display());
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let options = RestoreOptions::new(&lies, Arc::new(SystemClock::new()));
        PostgresDirectory::new(options).stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_below_a_directory_that_the_server_may_not_enter_is_refused_before_anything_is_touched() {
    if !rustix::process::geteuid().is_root() {
        skipped(
            "a start below a shut directory",
            "whoever is not root runs the server as himself",
        );
        return;
    }
    let scene = Scene::make().await;
    let shut = scene.room().join("shut");
    fs::create_dir_all(shut.join("open")).unwrap();
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).unwrap();
    let port = free_port().to_string();
    let said = format!(
        "{}: the user postgres, who runs the server, may not go into this directory",
        shut.display()
    );
    scene.is_refused(&shut.join("open/copy"), &["--start", "--port", &port], &said);
    scene.map_tablespace_to(&shut.join("fast"));
    scene.is_refused(&scene.room().join("copy"), &["--start", "--port", &port], &said);
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o701)).unwrap();
    let run = scene.restore(&shut.join("open/copy"), &["--start", "--json", "--port", &port]);
    assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
    let options = RestoreOptions::new(shut.join("open/copy"), Arc::new(SystemClock::new()));
    PostgresDirectory::new(options).stop().await.unwrap();
}

#[test]
fn a_port_that_is_none_is_a_wrong_command_line() {
    let place = Place::new();
    for port in ["0", "65536", "five"] {
        let run = place.run(&format!(
            "restore main --to latest --into copy --start --port {port}"
        ));
        assert_eq!(run.exit, 2, "{}", run.err);
        let said = "a server listens on a port from 1 to 65535";
        assert!(run.err.contains(said), "{}", run.err);
        assert!(!place.directory.join("copy").exists());
    }
}
