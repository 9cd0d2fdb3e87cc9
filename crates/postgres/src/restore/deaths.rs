//! A restore dies at every call that changes its directory, in every way; the same restore is run again.

#![allow(clippy::unwrap_used)]

use super::marker::MARKER;
use super::mortal::{Death, calls_of, with_death};
use super::place::{CONTROL, CONTROL_INCOMPLETE};
use super::{PostgresDirectory, RestoreOptions};
use crate::control_file::tests::forged;
use crate::wal::versions::VERSIONS;
use backstay_clock::SystemClock;
use backstay_source::{Recovery, RecoveryAction, RecoveryStop, Restore, SourceError, Ticket, WalDelivery};
use backstay_terms::{EntryHeader, EntryKind, EntryPath, EntryRole, Position};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const TABLESPACE: u32 = 16_400;

/// A base with a tablespace, on a timeline that is not the first, of a system that knows later ones.
fn entries() -> Vec<(EntryRole, &'static str, Vec<u8>)> {
    let fifteen = VERSIONS.iter().find(|version| version.major == 15).unwrap();
    vec![
        (EntryRole::Data, "PG_VERSION", b"15\n".to_vec()),
        (
            EntryRole::Data,
            "backup_label",
            b"START WAL LOCATION: 0/2000028\n".to_vec(),
        ),
        (
            EntryRole::Data,
            "tablespace_map",
            format!("{TABLESPACE} /somewhere/else\n").into_bytes(),
        ),
        (EntryRole::Data, "base/1/1259", vec![7; 20_000]),
        (EntryRole::Data, "global/pg_control", forged(fifteen)),
        (
            EntryRole::Tablespace(TABLESPACE),
            "PG_15_202209061/1/1260",
            vec![8; 9_000],
        ),
        (EntryRole::Wal, "000000020000000000000002", vec![9; 4096]),
        (
            EntryRole::History,
            "00000002.history",
            b"1\t0/2000000\tno reason\n".to_vec(),
        ),
    ]
}

fn ticket() -> Ticket {
    Ticket {
        backup: "20261123T220000Z-full-abcdefghij".to_owned(),
        target: "latest".to_owned(),
    }
}

/// One process from the beginning to the end.
fn restore(directory: &Path) -> Result<(), SourceError> {
    let target = PostgresDirectory::new(RestoreOptions::new(directory, Arc::new(SystemClock::new())));
    target.begin(&ticket())?;
    for (role, path, bytes) in entries() {
        let path = EntryPath::new(path).unwrap();
        let (kind, size) = (EntryKind::File, bytes.len() as u64);
        let header = EntryHeader {
            role,
            path,
            kind,
            size,
            mode: 0o600,
            modified: 0,
        };
        let mut sink = target.place(&header)?;
        sink.write(&bytes)?;
        sink.close()?;
    }
    target.finish(&Recovery {
        timeline: 2,
        stop: RecoveryStop::After(Position(0x200_0100)),
        action: RecoveryAction::Promote,
        delivery: WalDelivery::Placed,
        timeline_highest: 4,
    })
}

type Content = BTreeMap<String, Vec<u8>>;

/// Everything below the directory and its tablespaces: bytes of files, targets of links. Paths of their own are left out.
fn content(directory: &Path) -> Content {
    let own = directory.display().to_string();
    let mut found = BTreeMap::new();
    let mut waiting = vec![directory.to_owned(), tablespaces(directory)];
    while let Some(at) = waiting.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.display().to_string().replace(&own, "");
            let kind = fs::symlink_metadata(&path).unwrap();
            let bytes = match (kind.is_symlink(), kind.is_dir()) {
                (true, _) => fs::read_link(&path)
                    .unwrap()
                    .display()
                    .to_string()
                    .replace(&own, "")
                    .into_bytes(),
                (_, true) => {
                    waiting.push(path.clone());
                    b"a directory".to_vec()
                }
                _ => fs::read(&path).unwrap(),
            };
            found.insert(name, bytes);
        }
    }
    found
}

fn tablespaces(directory: &Path) -> PathBuf {
    PathBuf::from(format!("{}.tablespaces", directory.display()))
}

fn without_markers(content: &Content) -> Content {
    let mut content = content.clone();
    content.retain(|name, _| !name.contains(MARKER));
    content
}

/// A directory in memory: no order of writes is asked of a disk here.
struct Fast(PathBuf);

impl Fast {
    fn new() -> Fast {
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() {
            memory
        } else {
            std::env::temp_dir()
        };
        let path = parent.join(format!(
            "backstay-deaths-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        fs::create_dir(&path).unwrap();
        Fast(path)
    }
}

impl Drop for Fast {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Dies at a call; what has pg_control afterwards is all there, as it may start.
fn die(directory: &Path, point: (usize, Death), whole: &Content, cell: &str) {
    let died = with_death(Some(point), || restore(directory));
    assert!(died.is_err(), "{cell}");
    let left = content(directory);
    if left.contains_key(&format!("/{CONTROL}")) {
        assert!(
            without_markers(&left) == *whole,
            "{cell} can start and is not whole"
        );
    }
}

/// The same restore gives the same directory, unless the dead one was done but for its answer: then nothing of the
/// directory is ours any more.
fn converge(directory: &Path, whole: &Content, cell: &str) {
    let is_done = content(directory) == *whole;
    assert_eq!(restore(directory).is_err(), is_done, "{cell}, again");
    assert!(
        content(directory) == *whole,
        "{cell}: another directory than without the death"
    );
}

#[test]
fn a_death_at_any_call_leaves_nothing_that_starts_half_and_the_same_restore_completes_it() {
    let room = Fast::new();
    let undisturbed = room.0.join("undisturbed");
    let calls = calls_of(|| restore(&undisturbed).unwrap());
    let whole = content(&undisturbed);
    assert!(
        whole.contains_key(&format!("/{CONTROL}")) && !whole.contains_key(&format!("/{CONTROL_INCOMPLETE}"))
    );
    assert!(whole.keys().all(|name| !name.ends_with(MARKER)));
    let mut cells = 0;
    for (number, call) in (1..).zip(&calls) {
        for death in [Death::Before, Death::Half, Death::After] {
            let cell = format!("{death:?} at call {number}, {call}");
            let directory = room.0.join(format!("{number}-{death:?}"));
            die(&directory, (number, death), &whole, &cell);
            converge(&directory, &whole, &cell);
            cells += 1;
        }
    }
    println!("measured: restore target: {} calls, {cells} deaths", calls.len());
    assert!(
        calls.iter().any(|call| call == "rename global/pg_control"),
        "{calls:?}"
    );
}

/// From a directory that is all but done, a second process begins by taking it apart.
#[test]
fn a_second_death_while_what_is_all_but_done_is_taken_apart_changes_nothing() {
    let room = Fast::new();
    let undisturbed = room.0.join("undisturbed");
    let calls = calls_of(|| restore(&undisturbed).unwrap()).len();
    let whole = content(&undisturbed);
    // The last two remove its marker and sync: from then on it is done.
    for first in calls - 6..calls - 1 {
        let count = room.0.join(format!("{first}"));
        die(&count, (first, Death::After), &whole, "the first death");
        let again = calls_of(|| restore(&count).unwrap()).len();
        for second in 1..=again {
            let cell = format!("dead at call {first}, then at call {second}");
            let directory = room.0.join(format!("{first}-{second}"));
            die(&directory, (first, Death::After), &whole, &cell);
            die(&directory, (second, Death::Half), &whole, &cell);
            converge(&directory, &whole, &cell);
        }
    }
}
