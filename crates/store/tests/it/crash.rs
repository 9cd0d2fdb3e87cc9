//! A directory store dies at every file call, the power fails, and nothing acknowledged is lost.
//!
//! Promise: every call x every way to die x every way for a disk to forget; the counts are printed.
//! Not here: crashes of the jobs above (repository, engine).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backstay_clock::{Clock, SimClock};
use backstay_store::directory::FileCalls;
use backstay_store::directory::sim::{HardLinks, SimDisk, Survival};
use backstay_store::faults::{CrashMode, CrashPlan};
use backstay_store::{Key, LocalDirectory, Prefix, Store, list_all};
use bytes::Bytes;
use rustix::io::Errno;

use crate::meddling::{Meddle, Meddling};
use crate::support::key;

/// What one process does, in order.
const STEPS: [Step; 7] = [
    Step::Put("a/b/one"),
    Step::Put("a/b/two"),
    Step::Put("a/c/d/three"),
    Step::Delete("a/b/one"),
    Step::Put("a/b/two"),
    Step::Put("four"),
    Step::Delete("a/never"),
];

#[derive(Debug, Clone, Copy)]
enum Step {
    Put(&'static str),
    Delete(&'static str),
}

/// What may be under a name after the crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    There,
    Absent,
    Either,
}

fn body(name: &str) -> Bytes {
    name.repeat(50).into()
}

/// Takes the steps until one fails; says what each name must be after.
async fn take_steps(store: &LocalDirectory) -> BTreeMap<Key, Expected> {
    let mut expected = BTreeMap::new();
    for step in STEPS {
        let (name, after, succeeded) = match step {
            Step::Put(name) => {
                let put = store.put_if_absent(&key(name), body(name)).await;
                (name, Expected::There, put.is_ok())
            }
            Step::Delete(name) => {
                let deleted = store.delete(&key(name)).await;
                (name, Expected::Absent, deleted.is_ok())
            }
        };
        let before = expected.get(&key(name)).copied();
        let unanswered = match before == Some(after) {
            true => after,
            false => Expected::Either,
        };
        expected.insert(key(name), if succeeded { after } else { unanswered });
        if !succeeded {
            break;
        }
    }
    expected
}

/// The broken invariants, as sentences.
async fn broken(store: &LocalDirectory, expected: &BTreeMap<Key, Expected>) -> Vec<String> {
    let mut broken = Vec::new();
    let listed = list_all(store, &Prefix::everything(), None).await.unwrap();
    for object in &listed {
        if store.get(&object.key).await.unwrap() != body(object.key.as_str()) {
            broken.push(format!("{} is torn", object.key));
        }
        if !expected.contains_key(&object.key) {
            broken.push(format!("{} came from nowhere", object.key));
        }
    }
    for (name, expected) in expected {
        let is_there = listed.iter().any(|object| object.key == *name);
        match expected {
            Expected::There if !is_there => broken.push(format!("{name} was acknowledged and is lost")),
            Expected::Absent if is_there => broken.push(format!("{name} was deleted and is back")),
            _ => {}
        }
    }
    broken
}

type Wrap = fn(SimDisk) -> Box<dyn FileCalls>;

#[derive(Clone)]
struct World {
    clock: Arc<SimClock>,
    wrap: Wrap,
    links: HardLinks,
}

impl World {
    fn new(links: HardLinks, wrap: Wrap) -> Self {
        Self {
            clock: Arc::new(SimClock::new()),
            wrap,
            links,
        }
    }

    fn open(&self, disk: SimDisk) -> LocalDirectory {
        let clock: Arc<dyn Clock> = self.clock.clone();
        LocalDirectory::over((self.wrap)(disk), "simulated".to_owned(), clock)
    }

    /// One cell: dies at a call, loses power, opens again, checks, runs again, loses power once more, checks.
    async fn cell(&self, plan: CrashPlan, survival: Survival) -> Vec<String> {
        let disk = SimDisk::new(self.clock.clone(), self.links);
        let expected = take_steps(&self.open(disk.under(plan))).await;
        let disk = disk.after_power_cut(survival);
        let mut found = broken(&self.open(disk.clone()), &expected).await;

        let store = self.open(disk.clone());
        let expected = take_steps(&store).await;
        found.extend(broken(&store, &expected).await);
        let disk = disk.after_power_cut(Survival::OnlySynced);
        let store = self.open(disk.clone());
        found.extend(broken(&store, &expected).await);

        self.clock.advance(std::time::Duration::from_secs(2 * 86_400));
        store.sweep_leftovers().await.unwrap();
        found.extend(disk.files().into_iter().filter(|path| path.contains(".tmp-")));
        found
    }

    /// Every cell; how many there were, and what was broken in which.
    async fn enumerate(&self) -> (usize, Vec<String>) {
        let plan = CrashPlan::never();
        let disk = SimDisk::new(self.clock.clone(), self.links);
        take_steps(&self.open(disk.under(plan.clone()))).await;
        let mut survivals = vec![
            Survival::Everything,
            Survival::OnlySynced,
            Survival::NamesBeforeContent,
        ];
        survivals.extend((1..=8).map(Survival::Tossed));
        let (mut cells, mut found) = (0, Vec::new());
        for call in 1..=plan.count() + 1 {
            for mode in CrashMode::HONEST {
                for survival in &survivals {
                    cells += 1;
                    for what in self.cell(CrashPlan::at(call, mode), *survival).await {
                        found.push(format!("{what} (call {call}, {mode:?}, {survival:?})"));
                    }
                }
            }
        }
        (cells, found)
    }
}

fn as_it_is(disk: SimDisk) -> Box<dyn FileCalls> {
    Box::new(disk)
}

#[tokio::test]
async fn an_object_is_whole_or_absent_and_an_acknowledged_one_is_there() {
    for links in [HardLinks::Supported, HardLinks::Refused] {
        let (cells, found) = World::new(links, as_it_is).enumerate().await;
        assert_eq!(found, Vec::<String>::new());
        println!("directory crash cells, links {links:?}: {cells}");
        assert!(cells > 1_000, "only {cells} cells");
    }
}

/// Whether the enumeration finds a bug that a wrapper plants, by its sentence.
async fn finds(wrap: Wrap, sentence: &str) -> bool {
    let (_, found) = World::new(HardLinks::Supported, wrap).enumerate().await;
    found.iter().any(|what| what.contains(sentence))
}

#[tokio::test]
async fn the_harness_finds_a_store_that_does_not_fsync_directories() {
    let wrap: Wrap = |disk| {
        Box::new(Meddling::new(disk, |call, _| match call {
            "sync directory" => Meddle::Skip,
            _ => Meddle::Pass,
        }))
    };
    assert!(finds(wrap, "acknowledged and is lost").await);
}

#[tokio::test]
async fn the_harness_finds_a_store_that_does_not_fsync_content() {
    let wrap: Wrap = |disk| {
        Box::new(Meddling::new(disk, |call, _| match call {
            "sync" => Meddle::Skip,
            _ => Meddle::Pass,
        }))
    };
    assert!(finds(wrap, "is torn").await);
}

#[tokio::test]
async fn the_harness_finds_a_store_that_does_not_fsync_the_directories_above() {
    let wrap: Wrap = |disk| {
        Box::new(Meddling::new(disk, |call, path| match call {
            "sync directory" if ["", "a"].contains(&path) => Meddle::Skip,
            _ => Meddle::Pass,
        }))
    };
    assert!(finds(wrap, "acknowledged and is lost").await);
}

#[tokio::test]
async fn an_error_of_the_disk_at_any_call_tears_nothing_and_the_next_run_succeeds() {
    let world = World::new(HardLinks::Supported, as_it_is);
    let plan = CrashPlan::never();
    let disk = SimDisk::new(world.clock.clone(), HardLinks::Supported);
    take_steps(&world.open(disk.under(plan.clone()))).await;
    for (errno, call) in [Errno::NOSPC, Errno::IO]
        .into_iter()
        .flat_map(|errno| (1..=plan.count()).map(move |call| (errno, call)))
    {
        let disk = SimDisk::new(world.clock.clone(), HardLinks::Supported);
        let made = AtomicU64::new(0);
        let failing = Meddling::new(disk.clone(), move |_, _| {
            match made.fetch_add(1, Ordering::Relaxed) + 1 == call {
                true => Meddle::Fail(errno),
                false => Meddle::Pass,
            }
        });
        let clock: Arc<dyn Clock> = world.clock.clone();
        let store = LocalDirectory::over(Box::new(failing), "failing".to_owned(), clock);
        let expected = take_steps(&store).await;
        let none = Vec::<String>::new();
        assert_eq!(
            broken(&world.open(disk.clone()), &expected).await,
            none,
            "call {call}"
        );
        let cut = disk.after_power_cut(Survival::OnlySynced);
        assert_eq!(broken(&world.open(cut), &expected).await, none, "call {call}");
        let expected = take_steps(&store).await;
        assert_eq!(expected.len(), 5, "call {call}");
        assert_eq!(broken(&store, &expected).await, none, "call {call}");
        let failed_remove = plan.calls()[call as usize - 1].starts_with("remove");
        let left = disk.files().iter().any(|path| path.contains(".tmp-"));
        assert!(!left || failed_remove, "call {call} left {:?}", disk.files());
    }
}

#[tokio::test]
async fn what_a_killed_process_left_is_durable_once_it_was_secured() {
    let world = World::new(HardLinks::Supported, as_it_is);
    for call in 1..50 {
        let disk = SimDisk::new(world.clock.clone(), HardLinks::Supported);
        let plan = CrashPlan::at(call, CrashMode::AfterWithoutAnswer);
        take_steps(&world.open(disk.under(plan))).await;
        let store = world.open(disk.clone());
        store.secure_what_is_there().await.unwrap();
        let seen = list_all(&store, &Prefix::everything(), None).await;
        let store = world.open(disk.after_power_cut(Survival::OnlySynced));
        let left = list_all(&store, &Prefix::everything(), None).await;
        assert_eq!(seen, left, "call {call}");
    }
}
