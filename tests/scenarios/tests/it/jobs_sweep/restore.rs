//! A restore dies at its store calls and at the calls of its target; the same restore is run again.
//!
//! Store and target share one count; what the target is asked before and after its files counts too: its space, a rehearsal
//! of the command that fetches, the start. Every store call is met in every mode that is another one for it, and so is every
//! call of the target that is not about a file of the databases; of those, which are hundreds alike, a sample by seed is met,
//! each call in one mode.
//! Promise: after a death there is no directory, or it has its marker and no pg_control, or it is finished. The second run,
//! which syncs hundreds of files, is a sample by seed too, and gives byte for byte the directory of an undisturbed one.
//! Not here: deaths within one call of the target, which the port hides.

use super::process::{Scene, name};
use super::sweep::Report;
use super::wrong::ControlFirst;
use async_trait::async_trait;
use backstay_clock::{Chance, SeededChance, SystemClock};
use backstay_engine::jobs::restore::{LogWish, RestoreJob, deliver};
use backstay_engine::plan::{Catalog, Request, RestorePlan, plan};
use backstay_engine::{EngineError, Silent};
use backstay_postgres::wal::PostgresLog;
use backstay_postgres::{PostgresDirectory, RestoreOptions};
use backstay_repository::Repository;
use backstay_repository::layout::Level;
use backstay_source::{
    Evidence, FileSink, Need, Recovery, RecoveryAction, Rehearsal, Restore, SourceError, SourceErrorKind,
    Space, StartRequest, Ticket, WalDelivery,
};
use backstay_store::faults::{CrashMode, CrashPlan, CrashStore, Fate};
use backstay_terms::{EngineKind, EntryHeader, LogRange, Position, RecoveryTarget};
use backstay_testkit::pg::{Room, free_port};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many calls about files of the databases are met.
const SAMPLED: u64 = 40;

/// After one death of so many the restore is run again.
const AGAIN: u64 = 16;

/// The target that is restored into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Right,
    /// A planted bug.
    ControlFirst,
}

/// The bytes of every file below a directory; links and directories by their kind.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Restores of one scene, each into a directory of its own.
#[derive(Debug)]
pub struct Restores<'a> {
    scene: &'a Scene,
    wish: LogWish,
    room: Room,
    made: AtomicU64,
    undisturbed: Files,
    calls: Vec<String>,
}

impl Restores<'_> {
    /// With the directory that nothing disturbed.
    pub async fn of(scene: &Scene, wish: LogWish) -> Restores<'_> {
        let mut restores = Restores {
            scene,
            wish,
            room: Room::new(),
            made: AtomicU64::new(0),
            undisturbed: Files::new(),
            calls: Vec::new(),
        };
        let (directory, plan) = (restores.directory(), CrashPlan::never());
        restores.run(&directory, &plan, Target::Right).await.unwrap();
        restores.undisturbed = files(&directory);
        restores.calls = plan.calls();
        restores.remove(&directory);
        restores
    }

    /// Dies at every call that is to be met.
    pub async fn sweep(&self, seed: u64, target: Target) -> Report {
        let chance = SeededChance::new(seed);
        let alike = self.calls.iter().filter(|call| is_alike(call)).count() as u64;
        let mut deaths = Vec::new();
        for (number, call) in (1..).zip(&self.calls) {
            if !is_alike(call) {
                deaths.extend(modes(call).iter().map(|mode| (number, *mode)));
            } else if chance.next_u64() % alike < SAMPLED {
                let modes = modes(call);
                let mode = modes[(chance.next_u64() % modes.len() as u64) as usize];
                deaths.push((number, mode));
            }
        }
        self.die_at(deaths, &chance, target).await
    }

    /// Dies at every call up to the one that makes the directory, in every mode.
    pub async fn sweep_up_to_begin(&self) -> Report {
        let begins = self.calls.iter().position(|call| call == "begin");
        let begins = begins.expect("every restore begins") + 1;
        for asked in ["inspect", "inspect_start", "rehearse"] {
            assert!(
                self.calls.iter().any(|call| call == asked),
                "{asked} is not among the calls"
            );
        }
        let calls = (1..).zip(&self.calls).take(begins);
        let deaths = calls.flat_map(|(number, call)| modes(call).iter().map(move |mode| (number, *mode)));
        self.die_at(deaths.collect(), &SeededChance::new(1), Target::Right)
            .await
    }

    /// Dies at a few calls after the one that ends pg_control.
    pub async fn sweep_after_control(&self, target: Target) -> Report {
        let ends = "close global/pg_control";
        let control = self.calls.iter().position(|call| call == ends);
        let after = control.expect("every base holds pg_control") as u64 + 2;
        let deaths = (after..after + 3).map(|call| (call, CrashMode::Before));
        self.die_at(deaths.collect(), &SeededChance::new(1), target).await
    }

    async fn die_at(&self, deaths: Vec<(u64, CrashMode)>, chance: &SeededChance, target: Target) -> Report {
        let mut report = Report::begin(self.calls.len() as u64);
        for (call, mode) in deaths {
            let directory = self.directory();
            let plan = CrashPlan::at(call, mode);
            let ended = self.run(&directory, &plan, target).await;
            report.cells += 1;
            report.survived += usize::from(!plan.is_dead());
            let name = &self.calls[call as usize - 1];
            // With the record of its end everything is done: that it cannot be written fails no restore.
            if plan.is_dead() && ended.is_ok() && !name.ends_with(".finished") {
                report
                    .broken
                    .push(format!("CELL: it went on after its death at {call}"));
            }
            let once = matches!(name.as_str(), "begin" | "finish");
            let again = once || chance.next_u64().is_multiple_of(AGAIN);
            let mut found = left(&directory);
            if again {
                found.extend(self.converge(&directory).await);
            }
            let places = found
                .into_iter()
                .map(|what| format!("{what} (call {call} {name:?}, {mode:?})"));
            report.broken.extend(places);
            self.remove(&directory);
        }
        report
    }

    /// Runs the same restore again, if it is not done, and compares.
    async fn converge(&self, directory: &Path) -> Vec<String> {
        if !is_marked(directory) && is_startable(directory) {
            return self.differences(directory);
        }
        match self.run(directory, &CrashPlan::never(), Target::Right).await {
            Ok(()) => self.differences(directory),
            Err(error) => vec![format!("CONVERGE: the same restore is refused: {error}")],
        }
    }

    fn differences(&self, directory: &Path) -> Vec<String> {
        let restored = files(directory);
        let names = self.undisturbed.keys().chain(restored.keys());
        let mut differ: Vec<&PathBuf> = names
            .filter(|name| self.undisturbed.get(*name) != restored.get(*name))
            .collect();
        differ.dedup();
        match differ.is_empty() {
            true => Vec::new(),
            false => vec![format!("BYTES: not as in an undisturbed restore: {differ:?}")],
        }
    }

    async fn run(&self, directory: &Path, plan: &CrashPlan, target: Target) -> Result<(), EngineError> {
        let store = CrashStore::new(Arc::new(self.scene.memory.clone()), plan.clone());
        let repository = self.scene.open_over(Arc::new(store), &[7]).await?;
        let (catalog, planned) = planned(&repository, RecoveryTarget::Latest).await?;
        let options = RestoreOptions::new(directory, Arc::new(SystemClock::new()));
        let right: Arc<dyn Restore> = Arc::new(PostgresDirectory::new(options));
        let inner = match target {
            Target::Right => right,
            Target::ControlFirst => Arc::new(ControlFirst {
                inner: right,
                directory: directory.to_owned(),
            }),
        };
        let target = Arc::new(Dying {
            inner,
            plan: plan.clone(),
        });
        // What a rehearsal looks at is the size; no server runs this.
        let command = format!("truncate -s {} %p # %f", planned.log.segment_size);
        let job = RestoreJob {
            delivery: deliver(&planned, self.wish, command, &*target)?,
            repository,
            catalog,
            plan: planned,
            target,
            action: RecoveryAction::Pause,
            start: Some(StartRequest {
                port: free_port(),
                wait_max: Duration::from_secs(1),
            }),
            observer: Arc::new(Silent),
            workers: 1,
        };
        job.run().await.map(drop)
    }

    fn directory(&self) -> PathBuf {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        self.room.path().join(format!("restored-{number}"))
    }

    fn remove(&self, directory: &Path) {
        if directory.exists() {
            std::fs::remove_dir_all(directory).unwrap();
        }
    }
}

/// What a death left must not start by accident.
fn left(directory: &Path) -> Vec<String> {
    let what = match (directory.exists(), is_marked(directory), is_startable(directory)) {
        (true, true, true) => "STARTABLE: pg_control has its name and the restore is incomplete",
        (true, false, false) => "MARKER: the directory is neither finished nor marked as incomplete",
        _ => return Vec::new(),
    };
    vec![what.to_owned()]
}

fn is_marked(directory: &Path) -> bool {
    directory.join("backstay.restore-incomplete").exists()
}

fn is_startable(directory: &Path) -> bool {
    directory.join("global/pg_control").exists()
}

/// Restores a scene to the moment before the last transaction that it holds, starts the copy and counts the rows of `t`.
/// Gives the levels that the log was taken from, too.
pub async fn rows_before_the_last_transaction(scene: &Scene) -> (BTreeSet<Level>, u64) {
    let repository = scene.open(&[7]).await.unwrap();
    let (catalog, newest) = planned(&repository, RecoveryTarget::Latest).await.unwrap();
    let whole = newest.segments.iter().map(|segment| segment.needed);
    let whole = LogRange {
        from: newest.log.start,
        to: whole.map(|needed| needed.to).max().unwrap(),
    };
    let facts = catalog.facts_in(whole).await.unwrap();
    let transactions = facts.iter().filter_map(|(_, facts)| facts.transactions.as_ref());
    let last = transactions.map(|own| own.time_max).max().unwrap();
    let (catalog, plan) = planned(&repository, RecoveryTarget::Time(last - 1))
        .await
        .unwrap();
    let taken = catalog.chain.as_ref().unwrap().choose(whole).unwrap();
    let levels = taken.iter().map(|taken| taken.from.level).collect();
    let room = Room::new();
    let options = RestoreOptions::new(room.path().join("restored"), Arc::new(SystemClock::new()));
    let directory = Arc::new(PostgresDirectory::new(options));
    let job = RestoreJob {
        repository,
        catalog,
        plan,
        target: directory.clone(),
        action: RecoveryAction::Pause,
        delivery: WalDelivery::Placed,
        start: Some(StartRequest {
            port: free_port(),
            wait_max: Duration::from_secs(120),
        }),
        observer: Arc::new(Silent),
        workers: 2,
    };
    let evidence = job.run().await.unwrap().evidence.unwrap();
    directory.stop().await.unwrap();
    let rows = evidence.rows.iter().find(|(_, table, _)| table.ends_with('t'));
    (levels, rows.expect("t is counted").2)
}

async fn planned(
    repository: &Repository,
    target: RecoveryTarget,
) -> Result<(Catalog, RestorePlan), EngineError> {
    let catalog = Catalog::read(repository, EngineKind::Postgres, &name(), None).await?;
    let request = Request {
        target,
        base: None,
        now: repository.now(),
    };
    let planned = plan(&catalog, &request, &PostgresLog).await?;
    Ok((catalog, planned))
}

/// How a process can die at a call: what writes nothing cannot end in the middle.
fn modes(call: &str) -> &'static [CrashMode] {
    match call.starts_with("write ") {
        true => &CrashMode::HONEST,
        false => &[CrashMode::Before, CrashMode::AfterWithoutAnswer],
    }
}

/// A call about one of the many files of the databases.
fn is_alike(call: &str) -> bool {
    let of_target = ["place ", "write ", "close "]
        .iter()
        .any(|verb| call.starts_with(verb));
    let special = ["pg_control", "backup_label", "PG_VERSION", "00000"];
    of_target && !special.iter().any(|part| call.contains(part))
}

fn files(directory: &Path) -> Files {
    let mut found = Files::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
        let content = match kind {
            kind if kind.is_dir() => {
                let entries = std::fs::read_dir(&path).unwrap();
                waiting.extend(entries.map(|entry| entry.unwrap().path()));
                b"a directory".to_vec()
            }
            kind if kind.is_symlink() => b"a link".to_vec(),
            _ => std::fs::read(&path).unwrap(),
        };
        found.insert(path.strip_prefix(directory).unwrap().to_owned(), content);
    }
    found
}

/// A target whose process dies where the plan says.
#[derive(Debug)]
struct Dying {
    inner: Arc<dyn Restore>,
    plan: CrashPlan,
}

/// The process died: nobody hears an answer.
fn died() -> SourceError {
    SourceError::new(
        SourceErrorKind::Local,
        "the process died here, as the test asked",
        "",
    )
}

fn step<T>(
    plan: &CrashPlan,
    call: &str,
    act: impl FnOnce() -> Result<T, SourceError>,
) -> Result<T, SourceError> {
    match plan.next(call) {
        Fate::Live => act(),
        Fate::DieNow(CrashMode::AfterWithoutAnswer) => {
            let _never_heard = act();
            Err(died())
        }
        Fate::DieNow(_) | Fate::DeadAlready => Err(died()),
    }
}

#[async_trait]
impl Restore for Dying {
    fn inspect(&self, need: &Need, ticket: &Ticket) -> Result<(), SourceError> {
        step(&self.plan, "inspect", || self.inner.inspect(need, ticket))
    }

    fn inspect_start(&self, need: &Need, request: &StartRequest) -> Result<(), SourceError> {
        step(&self.plan, "inspect_start", || {
            self.inner.inspect_start(need, request)
        })
    }

    fn space(&self, need: &Need) -> Result<Space, SourceError> {
        step(&self.plan, "space", || self.inner.space(need))
    }

    async fn rehearse(&self, rehearsal: &Rehearsal) -> Result<(), SourceError> {
        match self.plan.next("rehearse") {
            Fate::Live => self.inner.rehearse(rehearsal).await,
            Fate::DieNow(CrashMode::AfterWithoutAnswer) => {
                let _never_heard = self.inner.rehearse(rehearsal).await;
                Err(died())
            }
            Fate::DieNow(_) | Fate::DeadAlready => Err(died()),
        }
    }

    fn begin(&self, ticket: &Ticket) -> Result<(), SourceError> {
        step(&self.plan, "begin", || self.inner.begin(ticket))
    }

    fn place(&self, entry: &EntryHeader) -> Result<Box<dyn FileSink>, SourceError> {
        let (plan, path) = (self.plan.clone(), entry.path.to_string());
        let inner = step(&plan, &format!("place {path}"), || self.inner.place(entry))?;
        Ok(Box::new(DyingSink { inner, plan, path }))
    }

    fn finish(&self, recovery: &Recovery) -> Result<(), SourceError> {
        step(&self.plan, "finish", || self.inner.finish(recovery))
    }

    /// No server runs: what is compared is the directory.
    async fn start(&self, _request: &StartRequest, _recovery: &Recovery) -> Result<Evidence, SourceError> {
        step(&self.plan, "start", || {
            Ok(Evidence {
                replayed: Position::default(),
                state: "not started".to_owned(),
                connect: String::new(),
                last_transaction: None,
                transaction_before_stop: None,
                rows: Vec::new(),
                uncounted: Vec::new(),
            })
        })
    }
}

struct DyingSink {
    inner: Box<dyn FileSink>,
    plan: CrashPlan,
    path: String,
}

impl FileSink for DyingSink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        match self.plan.next(format!("write {}", self.path)) {
            Fate::Live => self.inner.write(bytes),
            Fate::DieNow(CrashMode::AfterWithoutAnswer) => {
                let _never_heard = self.inner.write(bytes);
                Err(died())
            }
            Fate::DieNow(CrashMode::HalfWrite | CrashMode::TornWrite) => {
                let half = bytes.len() / 2;
                let _never_heard = self.inner.write(bytes.get(..half).unwrap_or_default());
                Err(died())
            }
            Fate::DieNow(CrashMode::Before) | Fate::DeadAlready => Err(died()),
        }
    }

    fn close(self: Box<Self>) -> Result<(), SourceError> {
        let Self { inner, plan, path } = *self;
        step(&plan, &format!("close {path}"), || inner.close())
    }
}
