//! A directory of the real file system: links, strangers, leftovers, errors of the kernel.
//!
//! Promise: every test has a directory of its own.
//! Not here: crashes (crash), the port's promises (conformance).

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::Duration;

use backstay_clock::{SimClock, SystemClock};
use backstay_store::directory::Swept;
use backstay_store::directory::sim::{HardLinks, SimDisk};
use backstay_store::{Created, Key, LocalDirectory, Prefix, Store, StoreError, list_all};
use bytes::Bytes;
use rustix::io::Errno;

use crate::meddling::{Meddle, Meddling};
use crate::support::{Scratch, clock, key, prefix};

async fn open(scratch: &Scratch) -> LocalDirectory {
    LocalDirectory::open(scratch.path(), clock()).await.unwrap()
}

async fn names(store: &LocalDirectory, below: &str) -> Vec<String> {
    let listed = list_all(store, &prefix(below), None).await.unwrap();
    listed.into_iter().map(|object| object.key.to_string()).collect()
}

/// Every call on this name says that no object lies there.
async fn is_no_object(store: &LocalDirectory, name: &Key) {
    let refused = [
        store.get(name).await.map(drop),
        store.get_range(name, 0..1).await.map(drop),
        store.get_range(name, 1..2).await.map(drop),
        store.head(name).await.map(drop),
        store.put_if_absent(name, Bytes::from("x")).await.map(drop),
    ];
    for answer in refused {
        assert!(
            matches!(answer, Err(StoreError::NotAnObject { .. })),
            "{name}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn no_call_follows_a_symbolic_link_out_of_the_root() {
    let (scratch, outside) = (Scratch::new(), Scratch::new());
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    symlink(outside.path(), scratch.path().join("folder")).unwrap();
    symlink(outside.path().join("secret"), scratch.path().join("file")).unwrap();
    let store = open(&scratch).await;
    for name in ["folder/secret", "file", "folder/new"] {
        is_no_object(&store, &key(name)).await;
    }
    assert!(store.delete(&key("folder/secret")).await.is_err());
    assert_eq!(std::fs::read(outside.path().join("secret")).unwrap(), b"secret");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn what_is_no_file_and_no_directory_is_passed_over_and_named() {
    let (scratch, outside) = (Scratch::new(), Scratch::new());
    let store = open(&scratch).await;
    for name in ["live/a/1", "live/b/1"] {
        store.put_if_absent(&key(name), Bytes::from("1")).await.unwrap();
    }
    std::fs::write(outside.path().join("hidden"), "secret").unwrap();
    let at = |name: &str| scratch.path().join(name);
    symlink(outside.path(), at("live/a/0")).unwrap();
    symlink(outside.path().join("hidden"), at("live/a/2")).unwrap();
    symlink("/nowhere", at("live/aa")).unwrap();
    std::os::unix::net::UnixListener::bind(at("live/b/0")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("live/b/2"),
        rustix::fs::FileType::Fifo,
        mode,
        0,
    )
    .unwrap();
    std::fs::create_dir_all(at("live/b/3/empty")).unwrap();
    // In the place of a whole folder, and not a name of ours at all.
    symlink(outside.path(), at("held")).unwrap();
    symlink(outside.path(), at("lost+found")).unwrap();
    assert_eq!(names(&store, "").await, ["live/a/1", "live/b/1"]);
    assert_eq!(names(&store, "live/a/").await, ["live/a/1"]);
    assert_eq!(names(&store, "held/").await, Vec::<String>::new());
    let expected = ["held", "live/a/0", "live/a/2", "live/aa", "live/b/0", "live/b/2"];
    assert_eq!(store.passed_over(), expected);
    // Nor is it written into: what is put there would lie outside.
    let put = store.put_if_absent(&key("held/new"), Bytes::from("x")).await;
    assert!(matches!(put, Err(StoreError::NotAnObject { .. })), "{put:?}");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn strangers_and_leftovers_are_not_listed() {
    let scratch = Scratch::new();
    let store = open(&scratch).await;
    store
        .put_if_absent(&key("a/one"), Bytes::from("1"))
        .await
        .unwrap();
    for stranger in [".tmp-1-2-3", "lost+found", "a/.nfs0001", "a/two~", "a/with space"] {
        std::fs::write(scratch.path().join(stranger), "x").unwrap();
    }
    assert_eq!(names(&store, "").await, ["a/one"]);
    assert_eq!(names(&store, "a/").await, ["a/one"]);
}

#[tokio::test]
async fn leftovers_older_than_a_day_are_swept_and_nothing_else() {
    let scratch = Scratch::new();
    let wall = jiff::Timestamp::now();
    let sim = Arc::new(SimClock::starting_at(wall));
    let store = LocalDirectory::open(scratch.path(), sim.clone()).await.unwrap();
    store
        .put_if_absent(&key("a/one"), Bytes::from("1"))
        .await
        .unwrap();
    std::fs::write(scratch.path().join(".tmp-9-1-0"), "12345").unwrap();
    std::fs::write(scratch.path().join("a/.tmp-9-1-1"), "67").unwrap();
    std::fs::write(scratch.path().join("a/.hidden"), "stays").unwrap();
    sim.advance(Duration::from_secs(23 * 3600));
    assert_eq!(store.sweep_leftovers().await, Ok(Swept::default()));
    sim.advance(Duration::from_secs(2 * 3600));
    assert_eq!(store.sweep_leftovers().await, Ok(Swept { files: 2, bytes: 7 }));
    assert!(scratch.path().join("a/.hidden").exists());
    assert_eq!(names(&store, "").await, ["a/one"]);
}

#[tokio::test]
async fn a_put_leaves_one_file_with_one_name() {
    use std::os::unix::fs::MetadataExt;
    let scratch = Scratch::new();
    let store = open(&scratch).await;
    let name = key("a/b/one");
    let put = || store.put_if_absent(&name, Bytes::from("1"));
    assert_eq!(
        (put().await, put().await),
        (Ok(Created::Now), Ok(Created::AlreadyThere))
    );
    let folder = scratch.path().join("a/b");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    assert_eq!(std::fs::metadata(folder.join("one")).unwrap().nlink(), 1);
}

#[tokio::test]
async fn a_name_cannot_be_an_object_and_a_folder() {
    let scratch = Scratch::new();
    let store = open(&scratch).await;
    store.put_if_absent(&key("a/b"), Bytes::from("1")).await.unwrap();
    let below = store.put_if_absent(&key("a/b/c"), Bytes::from("2")).await;
    let above = store.put_if_absent(&key("a"), Bytes::from("3")).await;
    assert_eq!(
        below.unwrap_err().to_string(),
        "cannot put a/b/c: a part of this name is an object"
    );
    assert_eq!(
        above.unwrap_err().to_string(),
        "cannot put a: a directory lies there, which is no object"
    );
    store.delete(&key("a")).await.unwrap();
    assert_eq!(names(&store, "").await, ["a/b"]);
}

#[tokio::test]
async fn a_directory_that_is_taken_away_is_made_again() {
    let scratch = Scratch::new();
    let store = open(&scratch).await;
    store
        .put_if_absent(&key("a/b/one"), Bytes::from("1"))
        .await
        .unwrap();
    std::fs::remove_dir_all(scratch.path().join("a")).unwrap();
    let created = store.put_if_absent(&key("a/b/two"), Bytes::from("2")).await;
    assert_eq!(created, Ok(Created::Now));
    assert_eq!(names(&store, "").await, ["a/b/two"]);
}

#[tokio::test]
async fn an_absent_root_is_not_found_and_never_made_by_opening() {
    let scratch = Scratch::new();
    let root = scratch.path().join("absent");
    let error = LocalDirectory::open(&root, clock()).await.unwrap_err();
    let message = format!("cannot open {}: it is not there", root.display());
    assert_eq!(error.to_string(), message);
    assert!(!root.exists());
    let deep = root.join("b/c");
    LocalDirectory::create(&deep, clock()).await.unwrap();
    LocalDirectory::create(&deep, clock()).await.unwrap();
    assert!(deep.is_dir());
}

/// Named, and never opened: a pipe would hold us up until somebody writes into it.
#[tokio::test]
async fn what_lies_in_the_place_of_an_object_and_is_none_holds_nobody_up() {
    let scratch = Scratch::new();
    let at = |name: &str| scratch.path().join(name);
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    std::fs::create_dir_all(at("folder/empty")).unwrap();
    let store = open(&scratch).await;
    for name in ["pipe", "socket"] {
        is_no_object(&store, &key(name)).await;
    }
    assert_eq!(names(&store, "").await, Vec::<String>::new());
    assert_eq!(store.passed_over(), ["pipe", "socket"]);
    assert_eq!(store.folders(), ["folder", "folder/empty"]);
    for folder in ["folder", "folder/empty"] {
        let got = store.get(&key(folder)).await;
        assert!(matches!(got, Err(StoreError::NotFound { .. })), "{got:?}");
        let put = store.put_if_absent(&key(folder), Bytes::from("x")).await;
        assert!(matches!(put, Err(StoreError::NotAnObject { .. })), "{put:?}");
    }
}

#[tokio::test]
async fn what_a_directory_cannot_do_is_said_so() {
    let scratch = Scratch::new();
    let store = open(&scratch).await;
    let error = store.list_versions(&prefix("a/")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot list versions of a/*: this store does not support it (a directory keeps no versions)"
    );
    let until = jiff::Timestamp::UNIX_EPOCH;
    let error = store.retain_until(&key("a"), until).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot lock a: this store does not support it (a directory has no locks)"
    );
}

#[tokio::test]
async fn objects_carry_the_time_of_the_file_system() {
    let scratch = Scratch::new();
    let store = LocalDirectory::open(scratch.path(), Arc::new(SystemClock::new()))
        .await
        .unwrap();
    store.put_if_absent(&key("a"), Bytes::from("1")).await.unwrap();
    store.secure_what_is_there().await.unwrap();
    let age = jiff::Timestamp::now().duration_since(store.head(&key("a")).await.unwrap().modified);
    assert!(age.abs() < jiff::SignedDuration::from_mins(1), "{age:?}");
}

#[tokio::test]
async fn a_root_that_was_removed_is_unreachable_and_not_empty() {
    let scratch = Scratch::new();
    let store = open(&scratch).await;
    std::fs::remove_dir(scratch.path()).unwrap();
    let listed = list_all(&store, &Prefix::everything(), None).await;
    assert!(
        matches!(listed, Err(StoreError::Unreachable { .. })),
        "{listed:?}"
    );
    let put = store.put_if_absent(&key("a"), Bytes::from("1")).await;
    assert!(matches!(put, Err(StoreError::Unreachable { .. })), "{put:?}");
}

/// A directory on a disk where these calls end so.
fn on_a_disk_where(decide: impl Fn(&str, &str) -> Meddle + Send + Sync + 'static) -> LocalDirectory {
    let disk = SimDisk::new(clock(), HardLinks::Supported);
    let calls = Box::new(Meddling::new(disk, decide));
    LocalDirectory::over(calls, "simulated".to_owned(), clock())
}

#[tokio::test]
async fn a_link_that_a_network_file_system_repeated_is_our_own() {
    let store = on_a_disk_where(|call, _| match call {
        "link" => Meddle::FailAfterEffect(Errno::EXIST),
        _ => Meddle::Pass,
    });
    let put = || async { store.put_if_absent(&key("a"), Bytes::from("1")).await };
    assert_eq!(
        (put().await, put().await),
        (Ok(Created::Now), Ok(Created::AlreadyThere))
    );
    assert_eq!(names(&store, "").await, ["a"]);
}

#[tokio::test]
async fn a_file_system_that_can_neither_link_nor_rename_safely_is_refused() {
    let store = on_a_disk_where(|call, _| match call {
        "link" => Meddle::Fail(Errno::PERM),
        "rename" => Meddle::Fail(Errno::OPNOTSUPP),
        _ => Meddle::Pass,
    });
    let error = store
        .put_if_absent(&key("a"), Bytes::from("1"))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::NotSupported { .. }), "{error}");
    assert_eq!(names(&store, "").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_root_that_was_moved_away_is_unreachable_until_the_same_repository_is_back() {
    let scratch = Scratch::new();
    let (at, aside) = (scratch.path().join("repo"), scratch.path().join("aside"));
    let store = LocalDirectory::create(&at, clock()).await.unwrap();
    let identity = Bytes::from_static(b"{\"repository\":\"one\"}");
    let put = async |name: &str| store.put_if_absent(&key(name), identity.clone()).await;
    assert_eq!(put("repository.json").await.unwrap(), Created::Now);
    std::fs::rename(&at, &aside).unwrap();
    let unreachable = |answer: Result<Created, StoreError>| match answer {
        Err(error @ StoreError::Unreachable { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let said = unreachable(put("a/1").await);
    assert!(said.contains("it was moved, removed or unmounted"), "{said}");
    assert!(store.get(&key("repository.json")).await.is_err());
    assert!(!at.exists());
    // An empty mount point, and another repository.
    std::fs::create_dir(&at).unwrap();
    unreachable(put("a/1").await);
    assert_eq!(std::fs::read_dir(&at).unwrap().count(), 0);
    std::fs::write(at.join("repository.json"), "{\"repository\":\"two\"}").unwrap();
    unreachable(put("a/1").await);
    assert_eq!(std::fs::read_dir(&at).unwrap().count(), 1);
    assert_eq!(
        std::fs::read_dir(&aside).unwrap().count(),
        1,
        "nor where it lies now"
    );
    // Mounted again it is another directory that holds the same.
    std::fs::write(at.join("repository.json"), &identity).unwrap();
    assert_eq!(put("a/1").await.unwrap(), Created::Now);
    assert_eq!(std::fs::read(at.join("a/1")).unwrap(), identity);
    assert_eq!(put("a/2").await.unwrap(), Created::Now);
    // And the first one, moved back.
    std::fs::remove_dir_all(&at).unwrap();
    std::fs::rename(&aside, &at).unwrap();
    assert_eq!(put("a/1").await.unwrap(), Created::Now);
    assert_eq!(names(&store, "").await, ["a/1", "repository.json"]);
}
