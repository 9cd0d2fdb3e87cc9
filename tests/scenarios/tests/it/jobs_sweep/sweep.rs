//! A verb dies at each of its store calls, in each way; then it is run again over what survived.
//!
//! Promise: every broken sentence says at which call and how the process died. A cell in which nobody died is counted.
//! Each sweep has a least number of cells, so that one that shrinks is noticed.
//! Not here: restores (restore), what is examined (invariants).

use super::conversation::{Act, Conversation};
use super::invariants::{Content, Examiner, Removal, changed, unsettled};
use super::process::{Ledger, Process, Scene, Verb};
use backstay_clock::{Chance, SeededChance};
use backstay_engine::EngineError;
use backstay_store::MemoryImage;
use backstay_store::faults::{CrashMode, CrashPlan};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Every sweep of honest jobs with its least number of cells, a little below what it has.
pub const SWEEPS: [(&str, usize); 11] = [
    ("init", 12),
    ("key rotation", 51),
    ("backup", 54),
    ("stream", 210),
    ("stream, two deaths by chance (seed 15)", 300),
    ("stream over a promotion", 186),
    ("stream over a promotion, two deaths by chance (seed 16)", 300),
    ("settle", 48),
    ("expire", 360),
    ("restore, calls of the target by chance (seed 17)", 180),
    ("restore with fetched log, up to its first file", 66),
];

/// Cells and time of the sweeps that this run has ended.
static ENDED: Mutex<BTreeMap<&str, (usize, Duration)>> = Mutex::new(BTreeMap::new());

/// How long a process may live.
const CELL_MAX: Duration = Duration::from_secs(60);

/// What every cell begins with.
#[derive(Debug)]
pub struct Stage<'a> {
    pub conversation: &'a Conversation,
    pub content: &'a Content,
    pub scene: &'a Scene,
    pub verb: Verb,
}

/// What a sweep found.
#[derive(Debug)]
pub struct Report {
    began: Instant,
    pub cells: usize,
    pub calls: u64,
    /// Cells in which the verb needed fewer calls than before, so that nobody died.
    pub survived: usize,
    pub broken: Vec<String>,
}

impl Report {
    /// Of a sweep that begins now, over a job with so many calls.
    pub fn begin(calls: u64) -> Report {
        Report {
            began: Instant::now(),
            cells: 0,
            calls,
            survived: 0,
            broken: Vec::new(),
        }
    }

    /// Whether something broke the invariant with this id.
    pub fn finds(&self, id: &str) -> bool {
        self.broken.iter().any(|what| what.starts_with(id))
    }

    /// Prints the counts, after the last sweep their sum; fails when something is broken or the sweep, one of `SWEEPS`, has
    /// shrunk.
    pub fn none_broken(&self, what: &'static str) {
        println!(
            "measured: crash sweep of the jobs, {what}: {} cells over {} calls in {} s, {} without a death",
            self.cells,
            self.calls,
            self.began.elapsed().as_secs(),
            self.survived
        );
        let shown: Vec<&String> = self.broken.iter().take(10).collect();
        assert!(
            shown.is_empty(),
            "{} broken in {} cells: {shown:#?}",
            self.broken.len(),
            self.cells
        );
        assert!(
            self.survived * 20 <= self.cells,
            "{} of {} cells saw no death",
            self.survived,
            self.cells
        );
        let least = SWEEPS.iter().find(|(name, _)| *name == what);
        let (_, least) = least.expect("every sweep has its least number of cells");
        assert!(
            self.cells >= *least,
            "{what}: {} cells, at least {least} before",
            self.cells
        );
        self.add_to_sum(what);
    }

    fn add_to_sum(&self, what: &'static str) {
        let mut ended = ENDED.lock().unwrap();
        ended.insert(what, (self.cells, self.began.elapsed()));
        if ended.len() == SWEEPS.len() {
            let cells: usize = ended.values().map(|(cells, _)| cells).sum();
            let took: Duration = ended.values().map(|(_, took)| *took).sum();
            println!(
                "measured: all {} crash sweeps of the jobs: {cells} cells in {} s of sweeping",
                SWEEPS.len(),
                took.as_secs()
            );
        }
    }
}

impl Stage<'_> {
    /// Dies at every call in every mode that an honest store can show.
    pub async fn sweep(&self) -> Report {
        let calls = self.calls().await;
        let mut report = Report::begin(calls);
        for call in 1..=calls {
            for mode in CrashMode::HONEST {
                self.cell(&[(call, mode)], &mut report).await;
            }
        }
        report
    }

    /// Dies, runs again and dies again, runs a third time: places and modes by chance.
    pub async fn sweep_twice(&self, cells: usize, seed: u64) -> Report {
        let calls = self.calls().await;
        let mut report = Report::begin(calls);
        let chance = SeededChance::new(seed);
        let draw = || {
            let mode = CrashMode::HONEST[(chance.next_u64() % 3) as usize];
            (1 + chance.next_u64() % calls, mode)
        };
        for _ in 0..cells {
            self.cell(&[draw(), draw()], &mut report).await;
        }
        report
    }

    /// One cell: the deaths one after another, then a run that nothing disturbs.
    pub async fn cell(&self, deaths: &[(u64, CrashMode)], report: &mut Report) {
        let (scene, ledger) = (self.scene.copy(), Ledger::default());
        let mut image = scene.memory.snapshot();
        let mut died = false;
        for (call, mode) in deaths {
            let plan = CrashPlan::at(*call, *mode);
            let ended = self.run(&scene, &ledger, &plan).await;
            died |= plan.is_dead();
            if plan.is_dead() && ended.is_ok() {
                report.tell("CELL: a process went on after its death", deaths);
            }
            if !plan.is_dead()
                && let Err(error) = ended
            {
                report.tell(&format!("CELL: it failed without a death: {error}"), deaths);
            }
            self.examine(&scene, &ledger, &mut image, deaths, report).await;
            scene.clock.advance(Duration::from_secs(3600));
        }
        if let Err(error) = self.run(&scene, &ledger, &CrashPlan::never()).await {
            report.tell(&format!("CONVERGE: the next run fails: {error}"), deaths);
        }
        self.examine(&scene, &ledger, &mut image, deaths, report).await;
        for what in self.unconverged(&scene).await {
            report.tell(&what, deaths);
        }
        report.cells += 1;
        report.survived += usize::from(!died);
    }

    async fn run(&self, scene: &Scene, ledger: &Ledger, plan: &CrashPlan) -> Result<(), EngineError> {
        let process = Process {
            conversation: self.conversation,
            scene,
            ledger,
            plan: plan.clone(),
        };
        let ended = tokio::time::timeout(CELL_MAX, process.run(self.verb)).await;
        ended.unwrap_or_else(|_| panic!("{:?} does not end; its calls: {:?}", self.verb, plan.calls()))
    }

    /// How many calls a run needs that nothing disturbs.
    pub async fn calls(&self) -> u64 {
        let plan = CrashPlan::never();
        let ended = self.run(&self.scene.copy(), &Ledger::default(), &plan).await;
        assert!(ended.is_ok(), "{:?} fails without a death: {ended:?}", self.verb);
        plan.count()
    }

    async fn examine(
        &self,
        scene: &Scene,
        ledger: &Ledger,
        image: &mut MemoryImage,
        deaths: &[(u64, CrashMode)],
        report: &mut Report,
    ) {
        let now = scene.memory.snapshot();
        let examiner = Examiner {
            conversation: self.conversation,
            content: self.content,
            ledger,
        };
        let mut found = changed(image, &now, self.removal());
        found.extend(examiner.broken(scene, self.removal()).await);
        for what in found {
            report.tell(&what, deaths);
        }
        *image = now;
    }

    fn removal(&self) -> Removal {
        match self.verb {
            Verb::Expire => Removal::Asked,
            _ => Removal::Forbidden,
        }
    }

    async fn unconverged(&self, scene: &Scene) -> Vec<String> {
        match self.verb {
            Verb::Init | Verb::Backup | Verb::Expire | Verb::StreamKilled => Vec::new(),
            Verb::Rotate => unsettled(scene, &[8], None).await,
            Verb::Settle => unsettled(scene, &[7], None).await,
            Verb::Stream | Verb::StreamConfirmedEarly => {
                unsettled(scene, &[7], Some(self.conversation.end(Act::Primary))).await
            }
            Verb::FollowPromotion => unsettled(scene, &[7], Some(self.conversation.end(Act::Promoted))).await,
        }
    }
}

impl Report {
    fn tell(&mut self, what: &str, deaths: &[(u64, CrashMode)]) {
        self.broken.push(format!("{what} (deaths: {deaths:?})"));
    }
}
