//! `wal fetch`: delivered, proved absent, or an error, and never the wrong one of the three.

mod failures;

use crate::shelf::{SEGMENT, SYSTEM, Shelf, Written, branch, key, log_bytes, name};
use backstay_engine::EngineError;
use backstay_engine::jobs::fetch::{FetchJob, Fetched};
use backstay_repository::{Parent, Recipient};
use backstay_store::faults::{Fault, FaultKind, FaultyStore, When};
use backstay_store::{Key, Operation, Store};
use backstay_terms::{Branch, EngineKind, Position, SourceName};
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const MIB: u64 = SEGMENT;
const QUARTER: u64 = MIB / 4;
/// Where timeline 2 left timeline 1.
const FORK: u64 = 3 * MIB + QUARTER;
const HISTORY: &str = "1\t0/340000\tno recovery target specified\n";

fn old() -> Branch {
    branch(1, 1)
}

fn new() -> Branch {
    branch(2, 2)
}

/// Timeline 1 from 1 to 3.5 MiB; timeline 2, which left it at 3.25 MiB, from there to 4.75 MiB.
async fn shelf() -> Shelf {
    let shelf = Shelf::new().await;
    shelf.attach(old(), MIB, None, None).await;
    let borders = [MIB, 2 * MIB, 3 * MIB, 3 * MIB + 2 * QUARTER];
    shelf.log(old(), &borders, 0, &[Written::Settled]).await;
    let parent = Parent {
        branch: old(),
        fork: Position(FORK),
    };
    shelf.attach(new(), 3 * MIB, Some(parent), Some(HISTORY)).await;
    let borders = [FORK, 4 * MIB, 4 * MIB + 3 * QUARTER];
    shelf.log(new(), &borders, 3 * MIB, &[Written::Settled]).await;
    shelf
}

/// A directory of one test.
struct Room(PathBuf);

impl Room {
    fn new() -> Room {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("backstay-fetch-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Room(path)
    }

    fn files(&self) -> usize {
        std::fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One fetch and everything that can be wrong with it.
struct Case {
    shelf: Shelf,
    faults: Vec<(When, Fault)>,
    key: Recipient,
    service: SourceName,
    lineage: Option<Branch>,
    until: Option<Position>,
    file: String,
    room: Room,
    destination: PathBuf,
}

impl Case {
    fn new(shelf: &Shelf, file: &str) -> Case {
        let room = Room::new();
        Case {
            shelf: shelf.copy(),
            faults: vec![],
            key: key(7),
            service: name(),
            lineage: None,
            until: None,
            file: file.to_owned(),
            destination: room.0.join("RECOVERYXLOG"),
            room,
        }
    }

    async fn run(&self) -> Result<Fetched, EngineError> {
        self.run_counted().await.0
    }

    /// How many calls it takes to open the repository.
    async fn opening_calls(&self) -> u64 {
        let store = Arc::new(FaultyStore::new(
            Arc::new(self.shelf.memory.clone()) as Arc<dyn Store>
        ));
        self.shelf
            .open_with(store.clone(), self.key.clone())
            .await
            .unwrap();
        store.calls()
    }

    /// The answer, and whether any fault was never met.
    async fn run_counted(&self) -> (Result<Fetched, EngineError>, bool) {
        let store = Arc::new(FaultyStore::new(
            Arc::new(self.shelf.memory.clone()) as Arc<dyn Store>
        ));
        let fetched = self.fetch(store.clone()).await;
        (fetched, !store.unused().is_empty())
    }

    /// What the last fetch left.
    fn delivered(&self) -> Option<Vec<u8>> {
        std::fs::read(&self.destination).ok()
    }

    async fn fetch(&self, store: Arc<FaultyStore>) -> Result<Fetched, EngineError> {
        let repository = self.shelf.open_with(store.clone(), self.key.clone()).await?;
        self.faults
            .iter()
            .for_each(|(when, fault)| store.add(*when, *fault));
        let job = FetchJob {
            repository,
            engine: EngineKind::Postgres,
            name: self.service.clone(),
            lineage: self.lineage,
            base: None,
            until: self.until,
            file: self.file.clone(),
            destination: self.destination.clone(),
        };
        job.run().await
    }
}

fn segment(timeline: u32, number: u64) -> String {
    format!("{timeline:08X}{:08X}{:08X}", number / 4096, number % 4096)
}

#[tokio::test]
async fn segments_and_histories_are_delivered_whole_or_proved_absent() {
    let shelf = shelf().await;
    let old_bytes = |from, to| log_bytes(1, from, to);
    let new_bytes = |from, to| log_bytes(2, from, to);
    let padded = |mut bytes: Vec<u8>| {
        bytes.resize(MIB as usize, 0);
        bytes
    };
    let switch = [old_bytes(3 * MIB, FORK), new_bytes(FORK, 4 * MIB)].concat();
    let table = [
        (segment(1, 1), None, old_bytes(MIB, 2 * MIB)),
        (segment(1, 2), Some(new()), old_bytes(2 * MIB, 3 * MIB)),
        (
            segment(1, 3),
            None,
            padded(old_bytes(3 * MIB, 3 * MIB + 2 * QUARTER)),
        ),
        (segment(2, 3), None, switch.clone()),
        (segment(2, 3), Some(new()), switch),
        (
            segment(2, 4),
            None,
            padded(new_bytes(4 * MIB, 4 * MIB + 3 * QUARTER)),
        ),
        // Before its beginning a timeline is its ancestor.
        (segment(2, 2), None, old_bytes(2 * MIB, 3 * MIB)),
        ("00000002.history".to_owned(), None, HISTORY.as_bytes().to_vec()),
        (
            "00000002.history".to_owned(),
            Some(old()),
            HISTORY.as_bytes().to_vec(),
        ),
    ];
    for (file, lineage, expected) in table {
        let case = Case {
            lineage,
            ..Case::new(&shelf, &file)
        };
        let fetched = case.run().await.unwrap();
        let bytes = expected.len() as u64;
        assert_eq!(fetched, Fetched::Delivered { bytes }, "{file}");
        assert!(std::fs::read(&case.destination).unwrap() == expected, "{file}");
        assert_eq!(case.room.files(), 1, "{file}");
    }
    let absent = [
        (segment(2, 5), None),
        (segment(2, 5), Some(new())),
        (segment(2, 4000), None),
        (segment(1, 4), None),
        (segment(3, 5), None),
        ("00000003.history".to_owned(), None),
        ("00000001.history".to_owned(), None),
    ];
    for (file, lineage) in absent {
        let case = Case {
            lineage,
            ..Case::new(&shelf, &file)
        };
        let fetched = case.run().await.unwrap();
        assert!(
            matches!(fetched, Fetched::AbsentProved { .. }),
            "{file}: {fetched:?}"
        );
        assert_eq!(case.room.files(), 0, "{file}");
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_opened_stops_only_a_fetch_that_may_depend_on_it() {
    let shelf = shelf().await;
    let flipped = |shelf: &Shelf| {
        let newest = shelf.names("wal-archive/lineage/").pop().unwrap();
        shelf.change(&newest, |body| *body.last_mut().unwrap() ^= 1);
    };
    shelf.clock.advance(std::time::Duration::from_secs(3600));
    // The stream of timeline 2 attached once more, and its epoch gives its record away.
    let again = shelf.copy();
    let borders = [4 * MIB + 3 * QUARTER, 5 * MIB];
    again.log(new(), &borders, 4 * MIB, &[Written::Settled]).await;
    again.attach(new(), 4 * MIB + 3 * QUARTER, None, None).await;
    flipped(&again);
    let case = Case::new(&again, &segment(2, 4));
    assert_eq!(case.run().await.unwrap(), Fetched::Delivered { bytes: MIB });
    assert!(std::fs::read(&case.destination).unwrap() == log_bytes(2, 4 * MIB, 5 * MIB));
    // To a server that recovers absence is the end of the log.
    let error = Case::new(&again, &segment(2, 5)).run().await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("whether the log ends cannot be told"),
        "{error}"
    );
    // Another lineage may have begun.
    shelf.attach(branch(2, 9), 4 * MIB, None, None).await;
    flipped(&shelf);
    let case = Case::new(&shelf, &segment(2, 4));
    let error = case.run().await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("which lineage is recovered cannot be told"),
        "{error}"
    );
    assert_eq!(case.room.files(), 0);
    let lineage = Some(new());
    let named = Case { lineage, ..case };
    assert_eq!(named.run().await.unwrap(), Fetched::Delivered { bytes: MIB });
}

/// What a server is told that recovers along timeline 2 and needs log up to `until`.
async fn fetched_until(shelf: &Shelf, until: u64, file: String) -> Result<Option<Vec<u8>>, EngineError> {
    let case = Case {
        lineage: Some(new()),
        until: Some(Position(until)),
        ..Case::new(shelf, &file)
    };
    match case.run().await? {
        Fetched::Delivered { .. } => Ok(Some(std::fs::read(&case.destination).unwrap())),
        Fetched::AbsentProved { .. } => Ok(None),
    }
}

#[tokio::test]
async fn a_recovery_that_ends_before_a_gap_never_stumbles_over_it() {
    let shelf = shelf().await;
    // From 4.75 MiB to 6 MiB nothing is stored, after it something is.
    shelf
        .log(new(), &[6 * MIB, 7 * MIB], 0, &[Written::Settled])
        .await;
    let end = 4 * MIB + QUARTER;
    let held = log_bytes(2, 4 * MIB, 4 * MIB + 3 * QUARTER);
    let fourth = fetched_until(&shelf, end, segment(2, 4)).await.unwrap().unwrap();
    assert!(fourth[..held.len()] == held[..], "the bytes before the gap");
    assert!(
        fourth[held.len()..].iter().all(|byte| *byte == 0),
        "and zeros in it"
    );
    // A server reads ahead of its target: into the gap, and under the ancestor's name.
    for file in [segment(2, 5), segment(2, 6), segment(1, 5)] {
        let answer = fetched_until(&shelf, end, file.clone()).await.unwrap();
        assert!(answer.is_none(), "{file} is past what is needed");
    }
    // Whoever needs the gap is told so, in the segment where it begins and in those after.
    for file in [segment(2, 4), segment(2, 5)] {
        let error = fetched_until(&shelf, 7 * MIB, file).await.unwrap_err();
        assert!(error.to_string().contains("gap"), "{error}");
    }
    let sixth = fetched_until(&shelf, 7 * MIB, segment(2, 6))
        .await
        .unwrap()
        .unwrap();
    assert!(sixth == log_bytes(2, 6 * MIB, 7 * MIB));
}

#[tokio::test]
async fn what_is_needed_and_lost_since_the_plan_is_a_gap_and_not_the_end() {
    let shelf = shelf().await;
    let end = 4 * MIB + 3 * QUARTER;
    shelf.remove(&format!("{:016x}-{:016x}", 4 * MIB, end)).await;
    let error = fetched_until(&shelf, end, segment(2, 4)).await.unwrap_err();
    assert!(error.to_string().contains("gap"), "{error}");
}

#[tokio::test]
async fn a_promoted_copy_is_told_which_timelines_are_in_use_elsewhere() {
    let shelf = shelf().await;
    // Two rivals on timeline 3, one without a history file on 4; nobody knows 5.
    for (timeline, lineage, history) in [
        (3, 5, Some("1\t0/300000\ta\n")),
        (3, 6, Some("2\t0/400000\tb\n")),
        (4, 7, None),
    ] {
        shelf
            .attach(branch(timeline, lineage), 4 * MIB, None, history)
            .await;
    }
    let asked = |timeline: u32| fetched_until(&shelf, FORK, format!("{timeline:08X}.history"));
    for timeline in [3, 4] {
        let history = String::from_utf8(asked(timeline).await.unwrap().unwrap()).unwrap();
        let reserved = format!("timeline {timeline} is in use elsewhere");
        assert!(
            history.starts_with("# ") && history.contains(&reserved),
            "{history}"
        );
    }
    assert!(asked(5).await.unwrap().is_none());
    let own = asked(2).await.unwrap().unwrap();
    assert_eq!(String::from_utf8(own).unwrap(), HISTORY, "its own is whole");
}
