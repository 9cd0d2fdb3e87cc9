//! Expiry while something is restored: it waits for the end, for a killed restore some days, and for a copy that fetches
//! its log as long.

use super::{content, job, shelf};
use crate::shelf::{DAY, Shelf, key, log_bytes, name};
use async_trait::async_trait;
use backstay_engine::jobs::restore::{RestoreJob, Restored};
use backstay_engine::plan::{Catalog, Request, plan};
use backstay_engine::{EngineError, Fact, Observer, Silent};
use backstay_postgres::wal::PostgresLog;
use backstay_repository::layout::{RunMoment, of_run};
use backstay_repository::{Removal, Repository, RunFinished, RunResult};
use backstay_source::{
    Evidence, FileSink, Need, Recovery, RecoveryAction, Rehearsal, Restore, SourceError, SourceErrorKind,
    Space, StartRequest, Ticket, WalDelivery,
};
use backstay_store::faults::{Fault, FaultKind, FaultyStore, When};
use backstay_store::{Key, Operation};
use backstay_terms::{BackupId, EngineKind, EntryHeader, Position, RecoveryTarget};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A target in memory.
#[derive(Debug, Default)]
struct InMemory {
    files: Files,
    /// The first file waits until the other end is dropped, after it has told so.
    waits: Mutex<Option<(tokio::sync::oneshot::Sender<()>, Receiver<()>)>>,
    begin_refuses: bool,
    /// Whether the started server reaches its target.
    starts: bool,
}

impl InMemory {
    fn waiting() -> (InMemory, tokio::sync::oneshot::Receiver<()>, Sender<()>) {
        let (told, tells) = tokio::sync::oneshot::channel();
        let (ends, waits) = channel();
        let target = InMemory {
            waits: Mutex::new(Some((told, waits))),
            ..InMemory::default()
        };
        (target, tells, ends)
    }
}

struct Sink {
    files: Files,
    path: String,
    bytes: Vec<u8>,
}

impl FileSink for Sink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), SourceError> {
        self.files.lock().unwrap().insert(self.path, self.bytes);
        Ok(())
    }
}

fn failed(what: &str) -> SourceError {
    SourceError::new(SourceErrorKind::Local, what, "")
}

#[async_trait]
impl Restore for InMemory {
    fn inspect(&self, _need: &Need, _ticket: &Ticket) -> Result<(), SourceError> {
        Ok(())
    }

    fn inspect_start(&self, _need: &Need, _request: &StartRequest) -> Result<(), SourceError> {
        Ok(())
    }

    fn space(&self, _need: &Need) -> Result<Space, SourceError> {
        Ok(Space { needed: 0, free: 1 })
    }

    async fn rehearse(&self, _rehearsal: &Rehearsal) -> Result<(), SourceError> {
        Ok(())
    }

    fn begin(&self, _ticket: &Ticket) -> Result<(), SourceError> {
        match self.begin_refuses {
            true => Err(failed("another restore holds the directory")),
            false => Ok(()),
        }
    }

    fn place(&self, entry: &EntryHeader) -> Result<Box<dyn FileSink>, SourceError> {
        if let Some((told, waits)) = self.waits.lock().unwrap().take() {
            told.send(()).unwrap();
            let _dropped = waits.recv();
        }
        Ok(Box::new(Sink {
            files: self.files.clone(),
            path: entry.path.to_string(),
            bytes: Vec::new(),
        }))
    }

    fn finish(&self, _recovery: &Recovery) -> Result<(), SourceError> {
        Ok(())
    }

    async fn start(&self, _request: &StartRequest, _recovery: &Recovery) -> Result<Evidence, SourceError> {
        match self.starts {
            true => Ok(Evidence {
                replayed: Position(4711),
                state: "paused".to_owned(),
                connect: String::new(),
                last_transaction: None,
                transaction_before_stop: None,
                rows: vec![],
                uncounted: vec![],
            }),
            false => Err(failed("the server ended")),
        }
    }
}

/// Hears what a restore says of its records.
#[derive(Debug, Default)]
struct Ears(Mutex<Vec<Fact>>);

impl Observer for Ears {
    fn observe(&self, fact: &Fact) {
        if matches!(fact, Fact::RestoreNotRecorded { .. }) {
            self.0.lock().unwrap().push(fact.clone());
        }
    }
}

/// The oldest backup that would go.
async fn doomed(shelf: &Shelf) -> BackupId {
    let removals = job(shelf.open().await).plan().await.unwrap().removals;
    let backup = removals.into_iter().find_map(|removal| match removal {
        Removal::Backup { backup, .. } => Some(backup),
        _ => None,
    });
    backup.unwrap()
}

async fn restore(repository: Repository, base: BackupId, target: Arc<InMemory>) -> RestoreJob {
    let catalog = Catalog::read(&repository, EngineKind::Postgres, &name(), None)
        .await
        .unwrap();
    let request = Request {
        target: RecoveryTarget::Immediate,
        base: Some(base),
        now: repository.now(),
    };
    let plan = plan(&catalog, &request, &PostgresLog).await.unwrap();
    RestoreJob {
        repository,
        catalog,
        plan,
        target,
        action: RecoveryAction::Pause,
        delivery: WalDelivery::Placed,
        start: None,
        observer: Arc::new(Silent),
        workers: 1,
    }
}

async fn goes(shelf: &Shelf) -> usize {
    job(shelf.open().await).plan().await.unwrap().removals.len()
}

/// How the only restore ended.
async fn record(shelf: &Shelf) -> Option<RunFinished> {
    let runs = shelf.names("-restore-");
    let ended = runs.iter().find_map(|key| match of_run(key) {
        Some((run, RunMoment::Finished)) => Some(run),
        _ => None,
    })?;
    Some(shelf.open().await.read_run_finished(&ended).await.unwrap())
}

#[tokio::test]
async fn while_a_restore_is_under_way_nothing_goes_and_after_its_end_it_may() {
    let shelf = shelf().await;
    let expire = job(shelf.open().await);
    let shown = expire.plan().await.unwrap();
    let before = content(&shelf);
    let (target, placing, release) = InMemory::waiting();
    let (target, base) = (Arc::new(target), doomed(&shelf).await);
    let restore = restore(shelf.open().await, base.clone(), target.clone()).await;
    let running = tokio::spawn(async move { restore.run().await });
    placing.await.unwrap();

    let plan = expire.plan().await.unwrap();
    assert!(plan.removals.is_empty());
    assert!(plan.kept[0].because.contains("-restore-"), "{:?}", plan.kept);
    assert_eq!(expire.run(&shown).await.unwrap().removals, 0);
    assert_eq!(content(&shelf), before);

    drop(release);
    let restored = running.await.unwrap().unwrap();
    let files = target.files.lock().unwrap().clone();
    assert_eq!(files["base/1/1"], log_bytes(5000, 0, 300_000));
    let record = record(&shelf).await.unwrap();
    assert_eq!((record.result, record.error), (RunResult::Succeeded, None));
    assert_eq!(record.started.source, "orders");
    assert_eq!(record.figures["backup"], base.to_string());
    assert_eq!(record.figures["target"], format!("immediate:{base}"));
    assert_eq!(record.figures["files"], restored.files);
    assert_eq!(record.figures["bytes"], restored.bytes);
    assert_eq!(record.figures["log"], "placed");
    let done = expire.run(&shown).await.unwrap();
    assert_eq!(done.removed.objects, shown.size().0);
}

#[tokio::test]
async fn a_restore_that_begins_during_an_expiry_stops_it() {
    /// Another process begins a restore when the first thing has gone.
    #[derive(Debug)]
    struct Begins(Shelf);

    impl Observer for Begins {
        fn observe(&self, _fact: &Fact) {
            let moment = self.0.clock_at(0).strftime("%Y%m%dT%H%M%SZ").to_string();
            let day = self.0.clock_at(0).strftime("%Y/%m/%d").to_string();
            let key = format!("facts/runs/{day}/{moment}-restore-aaaaaaaaaa.started");
            self.0
                .memory
                .overwrite(&Key::new(key).unwrap(), Bytes::from_static(b"?"));
        }
    }

    let shelf = shelf().await;
    let mut expire = job(shelf.open().await);
    expire.observer = Arc::new(Begins(shelf.clone()));
    let shown = expire.plan().await.unwrap();
    let done = expire.run(&shown).await.unwrap();
    assert_eq!((done.removals, done.skipped.len()), (1, shown.removals.len() - 1));
    assert!(done.skipped[0].contains("the restore "), "{:?}", done.skipped);
}

#[tokio::test]
async fn a_restore_that_was_killed_keeps_everything_for_some_days_and_no_longer() {
    let shelf = shelf().await;
    let (goes_before, target) = (goes(&shelf).await, Arc::default());
    let restore = restore(shelf.open().await, doomed(&shelf).await, target).await;
    restore.run().await.unwrap();
    assert_eq!(goes(&shelf).await, goes_before);
    // What a process that is killed leaves.
    shelf.remove(".finished").await;
    assert_eq!(goes(&shelf).await, 0);
    shelf.clock.advance(DAY * 3 - Duration::from_secs(1));
    assert_eq!(goes(&shelf).await, 0);
    shelf.clock.advance(DAY + Duration::from_secs(1));
    assert!(goes(&shelf).await >= goes_before);
}

#[tokio::test]
async fn a_copy_that_fetches_its_log_keeps_it_until_it_has_reached_its_target() {
    let place = || WalDelivery::Placed;
    let fetch = || WalDelivery::Command("backstay wal fetch orders %f %p".to_owned());
    let start = StartRequest {
        port: 1,
        wait_max: Duration::ZERO,
    };
    for (delivery, start, starts, needs_log) in [
        (place(), None, false, false),
        (fetch(), None, false, true),
        (fetch(), Some(start.clone()), true, false),
        // A server that was left alone may still recover.
        (fetch(), Some(start), false, true),
    ] {
        let what = format!("{delivery:?} {start:?} {starts}");
        let shelf = shelf().await;
        let goes_before = goes(&shelf).await;
        let target = Arc::new(InMemory {
            starts,
            ..InMemory::default()
        });
        let mut restore = restore(shelf.open().await, doomed(&shelf).await, target).await;
        let fails = start.is_some() && !starts;
        (restore.delivery, restore.start) = (delivery, start);
        assert_eq!(restore.run().await.is_err(), fails, "{what}");
        let record = record(&shelf).await.unwrap();
        assert_eq!(record.needs_log(), needs_log, "{what}");
        assert_eq!(record.result == RunResult::Failed, fails, "{what}");
        assert_eq!(record.figures["reached"].is_object(), starts, "{what}");
        let expected = if needs_log { 0 } else { goes_before };
        assert_eq!(goes(&shelf).await, expected, "{what}");
        shelf.clock.advance(DAY * 4);
        assert!(goes(&shelf).await >= goes_before, "{what}");
    }
}

#[tokio::test]
async fn how_a_restore_ended_that_cannot_be_read_keeps_everything() {
    let shelf = shelf().await;
    let restore = restore(shelf.open().await, doomed(&shelf).await, Arc::default()).await;
    restore.run().await.unwrap();
    let ended = shelf.names(".finished");
    shelf.change(&ended[0], |body| *body.last_mut().unwrap() ^= 1);
    assert_eq!(goes(&shelf).await, 0);
}

#[tokio::test]
async fn a_repository_that_cannot_be_written_stops_no_restore_and_is_told_once() {
    for kind in [
        FaultKind::ReadOnly,
        FaultKind::PermissionDenied,
        FaultKind::NoSpace,
    ] {
        let shelf = shelf().await;
        let store = FaultyStore::new(Arc::new(shelf.memory.clone()))
            .with(When::Every(Operation::Put), Fault::Refuse(kind));
        let repository = shelf.open_with(Arc::new(store), key(7)).await.unwrap();
        let (target, ears) = (Arc::new(InMemory::default()), Arc::new(Ears::default()));
        let mut restore = restore(repository, doomed(&shelf).await, target.clone()).await;
        restore.observer = ears.clone();
        let restored: Result<Restored, EngineError> = restore.run().await;
        assert!(restored.unwrap().files > 0, "{kind:?}");
        let files = target.files.lock().unwrap().clone();
        assert_eq!(files["base/1/1"], log_bytes(5000, 0, 300_000));
        assert_eq!(ears.0.lock().unwrap().len(), 1, "{kind:?}");
        assert_eq!(shelf.names("-restore-"), vec![]);
    }
}

#[tokio::test]
async fn a_restore_that_is_refused_before_it_writes_leaves_no_record() {
    let shelf = shelf().await;
    let target = Arc::new(InMemory {
        begin_refuses: true,
        ..InMemory::default()
    });
    let restore = restore(shelf.open().await, doomed(&shelf).await, target).await;
    restore.run().await.unwrap_err();
    assert_eq!(shelf.names("-restore-"), vec![]);
}

#[tokio::test]
async fn the_lost_keys_of_the_months_of_facts_stop_no_restore() {
    for blow in ["gone", "flipped"] {
        let shelf = shelf().await;
        let target = Arc::new(InMemory::default());
        let mut restore = restore(shelf.open().await, doomed(&shelf).await, target.clone()).await;
        match blow {
            "gone" => shelf.remove("facts/keys/").await,
            _ => {
                for key in shelf.names("facts/keys/") {
                    shelf.change(&key, |body| {
                        let at = body.len() - 9;
                        body[at] ^= 1;
                    });
                }
            }
        }
        // A process that has none of the keys in its memory.
        restore.repository = shelf.open().await;
        let ears = Arc::new(Ears::default());
        restore.observer = ears.clone();
        assert!(restore.run().await.unwrap().files > 0, "{blow}");
        let files = target.files.lock().unwrap().clone();
        assert_eq!(files["base/1/1"], log_bytes(5000, 0, 300_000), "{blow}");
        let told = ears.0.lock().unwrap().len();
        assert_eq!(told + shelf.names("-restore-").len() / 2, 1, "{blow}");
    }
}
