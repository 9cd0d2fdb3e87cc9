//! The sweep: a flow dies at each of its store calls, then runs again over what survived.
//!
//! Promise: knows nothing of a flow but its name; every broken sentence says at which call and how the process died.

use std::sync::Arc;

use backstay_clock::{Chance, SeededChance, SimClock};
use backstay_repository::RepositoryError;
use backstay_store::faults::{CrashMode, CrashPlan, CrashStore, Fault, FaultyStore, When};
use backstay_store::{MemoryImage, Patience, RetryingStore, Store};
use futures_util::future::BoxFuture;

use super::invariants::{Faith, broken, changed, unconverged};
use super::ledger::Ledger;
use super::stores::{Base, WatchedStore};
use crate::support::World;

/// One process: the store as it sees it, and whom it tells.
#[derive(Debug, Clone)]
pub struct Process {
    pub world: World,
    pub store: Arc<dyn Store>,
    pub ledger: Ledger,
}

/// What a process does from its start to its end.
pub type Flow = for<'a> fn(&'a Process) -> BoxFuture<'a, Result<(), RepositoryError>>;

/// What a sweep found.
#[derive(Debug, Default)]
pub struct Report {
    pub cells: usize,
    pub calls: u64,
    pub broken: Vec<String>,
}

impl Report {
    /// Whether something broke the invariant with this id.
    pub fn finds(&self, id: &str) -> bool {
        self.broken.iter().any(|what| what.starts_with(id))
    }
}

/// Dies at every call in every mode.
pub async fn sweep(flow: Flow, base: Base, modes: &[CrashMode]) -> Report {
    let calls = Cell::new(flow, base).calls().await;
    let mut report = Report {
        calls,
        ..Report::default()
    };
    for call in 1..=calls {
        for mode in modes {
            report.cells += 1;
            for what in Cell::new(flow, base).die_and_recover(&[(call, *mode)]).await {
                report.broken.push(format!("{what} (call {call}, {mode:?})"));
            }
        }
    }
    report
}

/// Dies at a call, runs again and dies again, runs a third time: places and modes by chance.
pub async fn sweep_twice(flow: Flow, cells: usize, seed: u64) -> Report {
    let calls = Cell::new(flow, Base::Strict).calls().await;
    let chance = SeededChance::new(seed);
    let draw = || {
        let mode = CrashMode::HONEST[(chance.next_u64() % 3) as usize];
        (1 + chance.next_u64() % calls, mode)
    };
    let mut report = Report {
        calls,
        ..Report::default()
    };
    for _ in 0..cells {
        let deaths = [draw(), draw()];
        report.cells += 1;
        for what in Cell::new(flow, Base::Strict).die_and_recover(&deaths).await {
            report.broken.push(format!("{what} ({deaths:?})"));
        }
    }
    report
}

/// At every call something passes by itself: with retries the flow succeeds at once, and nothing is broken.
pub async fn sweep_faults(flow: Flow, base: Base, faults: &[Fault]) -> Report {
    let calls = Cell::new(flow, base).calls().await;
    let mut report = Report {
        calls,
        ..Report::default()
    };
    for call in 1..=calls {
        for fault in faults {
            report.cells += 1;
            for what in Cell::new(flow, base).retry_once(call, *fault).await {
                report.broken.push(format!("{what} (call {call}, {fault:?})"));
            }
        }
    }
    report
}

/// One world in which processes die.
struct Cell {
    flow: Flow,
    base: Base,
    world: World,
    ledger: Ledger,
}

impl Cell {
    fn new(flow: Flow, base: Base) -> Cell {
        let (world, ledger) = (World::new(), Ledger::default());
        Cell {
            flow,
            base,
            world,
            ledger,
        }
    }

    async fn calls(&self) -> u64 {
        let plan = CrashPlan::never();
        let ended = self.run(&plan).await;
        assert!(ended.is_ok(), "without a crash the flow fails: {ended:?}");
        plan.count()
    }

    async fn run(&self, plan: &CrashPlan) -> Result<(), RepositoryError> {
        let store = WatchedStore::over(self.base, self.world.memory.clone(), self.ledger.clone());
        let process = Process {
            world: self.world.clone(),
            store: Arc::new(CrashStore::new(store, plan.clone())),
            ledger: self.ledger.clone(),
        };
        (self.flow)(&process).await
    }

    async fn die_and_recover(&self, deaths: &[(u64, CrashMode)]) -> Vec<String> {
        let torn = deaths.iter().any(|(_, mode)| *mode == CrashMode::TornWrite);
        let faith = if torn { Faith::Torn } else { Faith::Honest };
        let mut found = Vec::new();
        let mut image = MemoryImage::default();
        for (call, mode) in deaths {
            let plan = CrashPlan::at(*call, *mode);
            let ended = self.run(&plan).await;
            // A second run may need fewer calls than the first and end before its death.
            if plan.is_dead() && ended.is_ok() {
                found.push("a process went on after its death".to_owned());
            }
            found.extend(self.examine(&mut image, faith).await);
            self.world.clock.advance(std::time::Duration::from_secs(3600));
        }
        let ended = self.run(&CrashPlan::never()).await;
        found.extend(self.examine(&mut image, faith).await);
        match ended {
            // After an object was torn the next run may refuse, loudly.
            Err(_) if faith == Faith::Torn => {}
            Err(error) => found.push(format!("CONVERGE: the next run fails: {error}")),
            Ok(()) if faith == Faith::Torn => {}
            Ok(()) => found.extend(unconverged(&self.world, &self.ledger).await),
        }
        found
    }

    async fn retry_once(&self, call: u64, fault: Fault) -> Vec<String> {
        let store = WatchedStore::over(self.base, self.world.memory.clone(), self.ledger.clone());
        let faulty = Arc::new(FaultyStore::new(store).with(When::Call(call), fault));
        let (clock, chance) = (Arc::new(SimClock::jumping()), self.world.chance());
        let process = Process {
            world: self.world.clone(),
            store: Arc::new(RetryingStore::new(faulty.clone(), clock, chance, Patience::RUN)),
            ledger: self.ledger.clone(),
        };
        let ended = (self.flow)(&process).await;
        let mut found = self.examine(&mut MemoryImage::default(), Faith::Honest).await;
        if let Err(error) = ended {
            found.push(format!("RETRY: {error}"));
        } else {
            found.extend(unconverged(&self.world, &self.ledger).await);
        }
        assert_eq!(faulty.unused(), []);
        found
    }

    async fn examine(&self, image: &mut MemoryImage, faith: Faith) -> Vec<String> {
        let now = self.world.memory.snapshot();
        let mut found = changed(image, &now);
        found.extend(self.ledger.read().misdeeds);
        found.extend(broken(&self.world, &now, &self.ledger, faith).await);
        *image = now;
        found
    }
}
