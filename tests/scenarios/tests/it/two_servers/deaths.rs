//! A process dies at each of its store calls while two servers are told apart, by a stream and by settling.
//!
//! Promise: whatever each server was told is durable is read back from one lineage and no other, and the next process
//! comes to the same two lineages.

use super::{FORK, unknown_to_all};
use crate::fake::{self, FakeServer, SEGMENT};
use crate::shelf::{SEGMENT as FILE, Shelf, Written, branch, key, log_bytes, name};
use backstay_engine::jobs::stream::settle_all;
use backstay_engine::{Fact, Silent};
use backstay_repository::LogStore;
use backstay_scenarios::Running;
use backstay_store::faults::{CrashMode, CrashPlan, CrashStore};
use backstay_terms::{EngineKind, LogRange, Position};
use std::sync::Arc;
use std::time::Duration;

const CALLS_MAX: u64 = 1000;

/// How many processes died before somebody had told the two apart, and how many afterwards.
#[derive(Default)]
struct Deaths {
    before: usize,
    after: usize,
}

impl Deaths {
    fn count(&mut self, shelf: &Shelf) {
        match shelf.names("-move-").is_empty() {
            true => self.before += 1,
            false => self.after += 1,
        }
    }
}

async fn log_of(shelf: &Shelf) -> LogStore {
    LogStore::new(&shelf.open().await, EngineKind::Postgres, &name())
}

/// In how many lineages these bytes of a server are.
async fn holders(shelf: &Shelf, seed: u64, from: u64, to: u64) -> usize {
    let log = log_of(shelf).await;
    let range = LogRange {
        from: Position(from),
        to: Position(to),
    };
    let mut holders = 0;
    for known in log.known().await.unwrap() {
        let read = log.read(&known.record.branch, range).await;
        holders += usize::from(read.is_ok_and(|bytes| bytes == log_bytes(seed, from, to)));
    }
    holders
}

async fn settle(shelf: &Shelf) {
    settle_all(&shelf.open().await, &name(), &Silent).await.unwrap();
}

#[tokio::test]
async fn settling_that_dies_at_any_call_is_done_by_the_next_one() {
    let before = unknown_to_all().await;
    let mut deaths = Deaths::default();
    for mode in CrashMode::HONEST {
        for call in 1..CALLS_MAX {
            let (shelf, plan) = (before.copy(), CrashPlan::at(call, mode));
            let store = CrashStore::new(Arc::new(shelf.memory.clone()), plan.clone());
            if let Ok(repository) = shelf.open_with(Arc::new(store), key(7)).await {
                let ended = settle_all(&repository, &name(), &Silent).await;
                assert_eq!(
                    ended.is_err(),
                    plan.is_dead(),
                    "{ended:?} (call {call}, {mode:?})"
                );
            }
            let died = plan.is_dead();
            if died {
                deaths.count(&shelf);
            }
            settle(&shelf).await;
            for (seed, to) in [(1, 2 * FILE), (99, FORK + 9000)] {
                let holders = holders(&shelf, seed, FORK, to).await;
                assert_eq!(holders, 1, "server {seed} (call {call}, {mode:?})");
            }
            assert_eq!(log_of(&shelf).await.known().await.unwrap().len(), 2);
            if !died {
                break;
            }
        }
    }
    assert!(deaths.before > 0 && deaths.after > 0);
}

/// Where the disk was copied.
const COPIED: u64 = 2 * SEGMENT + 5000;
const END: u64 = COPIED + 2 * SEGMENT;
/// So far the other server's log goes.
const OTHERS: u64 = COPIED + 3000;

/// Who is to leave: the stream that may die, or the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    Itself,
    Other,
}

/// The other stream stores bytes of its own where this one is attached. It began before, or at the same position later.
async fn other_stores(shelf: &Shelf, leaves: Leaves) {
    let borders = [COPIED, OTHERS];
    if leaves == Leaves::Other {
        shelf.clock.advance(Duration::from_secs(2));
        return shelf.log_of(branch(1, 1), &borders, 0, &[Written::Live], 1).await;
    }
    let early = shelf.copy_with_clock_at_start();
    early.log_of(branch(1, 1), &borders, 0, &[Written::Live], 1).await;
    for (key, body) in early.memory.snapshot().objects() {
        if shelf.memory.snapshot().get(key).is_none() {
            shelf.memory.overwrite(key, body.clone());
        }
    }
}

async fn follow(shelf: &Shelf, server: &Arc<FakeServer>, plan: &CrashPlan) -> Option<Running> {
    let store = CrashStore::new(Arc::new(shelf.memory.clone()), plan.clone());
    let repository = shelf.open_with(Arc::new(store), key(7)).await.ok()?;
    Some(fake::follow(server, &repository))
}

fn heard(running: &Running, wanted: impl Fn(&Fact) -> bool) -> usize {
    running.facts().iter().filter(|fact| wanted(fact)).count()
}

/// Streams from a copy while the other server is streamed too, until they were told apart or the process died.
async fn stream(shelf: &Shelf, server: &Arc<FakeServer>, plan: &CrashPlan, leaves: Leaves) {
    let attached = |running: &Running| heard(running, |fact| matches!(fact, Fact::StreamAttached { .. }));
    let pass = || shelf.clock.advance(Duration::from_secs(6));
    let running = follow(shelf, server, plan).await;
    if let Some(running) = &running {
        running
            .until_while(pass, |running| running.is_over() || attached(running) == 1)
            .await;
    }
    other_stores(shelf, leaves).await;
    server.grow(END);
    let Some(running) = running else { return };
    let attachments = match leaves {
        Leaves::Itself => 2,
        Leaves::Other => 1,
    };
    let told = |running: &Running| {
        heard(running, |fact| matches!(fact, Fact::LineageBegan { .. })) > 0
            && attached(running) == attachments
            && server.slot() == END
    };
    running
        .until_while(pass, |running| running.is_over() || told(running))
        .await;
    running.kill().await;
}

async fn sweep(leaves: Leaves) {
    let before = Shelf::with_segment(SEGMENT).await;
    before.attach(branch(1, 1), SEGMENT, None, None).await;
    let borders = [SEGMENT, 2 * SEGMENT, COPIED];
    before.log(branch(1, 1), &borders, 0, &[Written::Settled]).await;
    before.clock.advance(Duration::from_secs(600));
    let mut deaths = Deaths::default();
    for mode in CrashMode::HONEST {
        for call in 1..CALLS_MAX {
            let what = format!("{leaves:?}, call {call}, {mode:?}");
            let (shelf, plan) = (before.copy(), CrashPlan::at(call, mode));
            let mut server = FakeServer::promoted(1, 0, COPIED, SEGMENT, COPIED);
            server.parted = Some((COPIED, 99));
            let server = Arc::new(server);
            stream(&shelf, &server, &plan, leaves).await;
            let died = plan.is_dead();
            if died {
                deaths.count(&shelf);
            }
            let told = server.slot();
            let reopened = shelf.copy();
            settle(&reopened).await;
            assert_eq!(holders(&reopened, 1, COPIED, OTHERS).await, 1, "{what}");
            if told > COPIED {
                assert_eq!(holders(&reopened, 99, COPIED, told).await, 1, "{what}: {told}");
            }

            let again = follow(&shelf, &server, &CrashPlan::never()).await.unwrap();
            let pass = || shelf.clock.advance(Duration::from_secs(6));
            again.until_while(pass, |_| server.slot() == END).await;
            again.stop().await.unwrap();
            settle(&shelf).await;
            assert_eq!(holders(&shelf, 1, COPIED, OTHERS).await, 1, "{what}");
            assert_eq!(holders(&shelf, 99, COPIED, END).await, 1, "{what}");
            assert_eq!(log_of(&shelf).await.known().await.unwrap().len(), 2, "{what}");
            if !died {
                break;
            }
        }
    }
    assert!(deaths.before > 0 && deaths.after > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_dies_at_any_call_while_it_leaves_loses_nothing_of_either_server() {
    sweep(Leaves::Itself).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_dies_at_any_call_while_it_moves_the_other_out_loses_nothing_of_either_server() {
    sweep(Leaves::Other).await;
}
