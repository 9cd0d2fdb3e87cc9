//! Two servers that are streamed into one lineage at the same time are told apart, whoever looks and whenever.
//!
//! Promise: a model says what each server was told is durable; each of these bytes is read back from the server's own
//! lineage, whatever the order of writes, looks, deaths and settlings.
//! Not here: what a move means to readers (moved).

use backstay_repository::{Compared, LogStore, LogWriter, Repository};
use backstay_terms::{Branch, EpochId, Position};
use proptest::prelude::*;
use std::collections::BTreeMap;

use crate::log::{FILE, begin, branch, log_bytes, log_store, range, store_settled};
use crate::moved::{OURS, attached, write};
use crate::support::*;

/// A server whose bytes are its number's from `FORK` on, and those of the first before.
struct Server {
    number: u32,
    writer: LogWriter,
    at: u64,
    /// The epoch that stored what ends there.
    last: EpochId,
}

const FORK: u64 = 2000;

async fn attach(repository: &Repository, number: u32, at: u64, after: Option<&EpochId>) -> Server {
    let log = log_store(repository);
    let writer = begin(repository, branch(1, OURS)).await;
    let record = attached(repository, writer.epoch(), at, after);
    log.put_record(&record).await.unwrap();
    let last = after.unwrap_or(writer.epoch()).clone();
    Server {
        number,
        writer,
        at,
        last,
    }
}

impl Server {
    async fn write(&mut self, length: u64) {
        let to = self.at + length;
        write(&mut self.writer, self.number, self.at, to).await;
        (self.at, self.last) = (to, self.writer.epoch().clone());
    }
}

/// Who stored what of it: the lineage that now holds the bytes of this epoch.
async fn home(log: &LogStore, epoch: &EpochId) -> Branch {
    log.moves().await.unwrap().lineage_of(branch(1, OURS), epoch)
}

async fn holds(log: &LogStore, lineage: Branch, server: u32, from: u64, to: u64) {
    let bytes = log.read(&lineage, range(from, to)).await.unwrap();
    assert!(
        bytes == log_bytes(branch(1, server), range(from, to)),
        "{lineage} {from}..{to}"
    );
}

/// A server up to the fork, then it and its copy at the same time; the copy is attached to the end of the first.
async fn pair(copy: u32) -> (World, Repository, Server, Server) {
    let world = World::new();
    let repository = world.init().await;
    let mut first = attach(&repository, OURS, 0, None).await;
    first.write(FORK).await;
    let after = first.writer.epoch().clone();
    let second = attach(&repository, copy, FORK, Some(&after)).await;
    (world, repository, first, second)
}

#[tokio::test]
async fn the_one_that_attached_later_leaves_with_all_its_bytes_and_who_looks_twice_moves_nothing_more() {
    let (world, repository, mut first, mut second) = pair(2).await;
    second.write(700).await;
    first.write(300).await;
    let log = log_store(&repository);
    let twins = log
        .tell_apart(&branch(1, OURS), None, Compared::Ends)
        .await
        .unwrap();
    let [leaving] = &twins.leaving[..] else {
        panic!("{twins:?}")
    };
    assert_eq!(leaving.epochs, [second.writer.epoch().clone()]);
    assert_eq!(leaving.fork, Position(FORK));
    // What was on its way arrives where it belongs.
    second.write(200).await;
    store_settled(&mut second.writer).await;
    let log = log_store(&world.open().await);
    let again = log
        .tell_apart(&branch(1, OURS), None, Compared::Everything)
        .await
        .unwrap();
    assert_eq!(again.leaving, []);
    holds(&log, branch(1, OURS), OURS, 0, FORK + 300).await;
    holds(&log, leaving.to, 2, FORK, FORK + 900).await;
}

#[tokio::test]
async fn two_that_find_it_out_at_the_same_time_come_to_the_same_lineage() {
    let (world, _, mut first, mut second) = pair(2).await;
    second.write(700).await;
    first.write(300).await;
    let (one, two) = (log_store(&world.open().await), log_store(&world.open().await));
    let (one_saw, two_saw) = (
        one.twins(&branch(1, OURS), None, Compared::Ends).await.unwrap(),
        two.twins(&branch(1, OURS), Some(Position(FORK)), Compared::Ends)
            .await
            .unwrap(),
    );
    assert_eq!(one_saw, two_saw);
    one.tell_apart(&branch(1, OURS), None, Compared::Ends)
        .await
        .unwrap();
    let log = log_store(&world.open().await);
    assert_eq!(home(&log, second.writer.epoch()).await, one_saw.leaving[0].to);
}

#[tokio::test]
async fn two_streams_of_one_server_stay_in_one_lineage() {
    let (world, repository, mut first, mut second) = pair(OURS).await;
    for length in [300, 5, 700] {
        first.write(length).await;
        second.write(length + 1).await;
    }
    let log = log_store(&repository);
    let twins = log
        .tell_apart(&branch(1, OURS), None, Compared::Everything)
        .await
        .unwrap();
    assert_eq!(twins.leaving, []);
    assert_eq!(twins.equal, [second.writer.epoch().clone()].into());
    assert_eq!(world.names("wal-archive/lineage/").len(), 2);
    log.settle(&branch(1, OURS), FILE).await.unwrap();
}

#[tokio::test]
async fn an_attachment_that_went_on_after_the_one_that_leaves_goes_with_it() {
    let (world, repository, mut first, mut second) = pair(2).await;
    second.write(700).await;
    // The copy's stream is started again; the first one has stored nothing there yet.
    let mut third = attach(&repository, 2, second.at, Some(second.writer.epoch())).await;
    third.write(400).await;
    first.write(300).await;
    let log = log_store(&repository);
    log.tell_apart(&branch(1, OURS), None, Compared::Ends)
        .await
        .unwrap();
    let log = log_store(&world.open().await);
    let theirs = home(&log, third.writer.epoch()).await;
    assert_eq!(theirs, home(&log, second.writer.epoch()).await);
    holds(&log, theirs, 2, FORK, third.at).await;
    holds(&log, branch(1, OURS), OURS, 0, first.at).await;
    let gap = log.read(&branch(1, OURS), range(first.at, first.at + 1)).await;
    assert!(gap.is_err(), "nothing of the copy continues the first");
}

#[tokio::test]
async fn what_settling_copied_of_it_before_anybody_knew_leaves_with_it() {
    let (world, repository, mut first, mut second) = pair(2).await;
    second.write(700).await;
    log_store(&repository)
        .settle(&branch(1, OURS), FILE)
        .await
        .unwrap();
    first.write(300).await;
    let log = log_store(&repository);
    let twins = log
        .tell_apart(&branch(1, OURS), None, Compared::Ends)
        .await
        .unwrap();
    let theirs = twins.leaving[0].to;
    for lineage in [branch(1, OURS), theirs] {
        log.settle(&lineage, FILE).await.unwrap();
    }
    for key in world.names("wal-archive/live/") {
        backstay_store::Store::delete(&world.memory, &key).await.unwrap();
    }
    let log = log_store(&world.open().await);
    holds(&log, branch(1, OURS), OURS, 0, first.at).await;
    holds(&log, theirs, 2, FORK, second.at).await;
}

#[derive(Debug, Clone)]
enum Step {
    /// The server of this number writes so many bytes; one that never attached does so now.
    Write(u32, u64),
    /// Its process dies and another one attaches where its own log ends.
    Dies(u32),
    Look,
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    let server = prop_oneof![Just(OURS), Just(2), Just(3)];
    prop_oneof![
        5 => (server.clone(), 16u64..400).prop_map(|(server, length)| Step::Write(server, length)),
        1 => server.prop_map(Step::Dies),
        2 => Just(Step::Look),
        1 => Just(Step::Settle),
    ]
}

/// What a process does before it settles, and what a stream does every minute.
async fn look(log: &LogStore) {
    for known in log.known().await.unwrap() {
        let branch = known.record.branch;
        log.tell_apart(&branch, None, Compared::Everything).await.unwrap();
    }
}

async fn run(steps: &[Step]) {
    let world = World::new();
    let repository = world.init().await;
    let mut first = attach(&repository, OURS, 0, None).await;
    first.write(FORK).await;
    let origin = first.writer.epoch().clone();
    let mut servers = BTreeMap::from([(OURS, first)]);
    // What each server was told is durable, by the epoch that stored it.
    let mut durable: Vec<(EpochId, u32, u64, u64)> = vec![(origin.clone(), OURS, 0, FORK)];
    for step in steps {
        world.clock.advance(std::time::Duration::from_secs(1));
        match step {
            Step::Write(number, length) => {
                if !servers.contains_key(number) {
                    let server = attach(&repository, *number, FORK, Some(&origin)).await;
                    servers.insert(*number, server);
                }
                let server = servers.get_mut(number).unwrap();
                let from = server.at;
                server.write(*length).await;
                let epoch = server.writer.epoch().clone();
                durable.push((epoch, *number, from, server.at));
            }
            Step::Dies(number) => {
                let Some(dead) = servers.remove(number) else {
                    continue;
                };
                let after = dead.last;
                // It finds its own lineage again: a record there, if it was moved already.
                let moves = log_store(&repository).moves().await.unwrap();
                let lineage = moves.lineage_of(dead.writer.branch(), &after);
                let writer = begin(&repository, lineage).await;
                let mut record = attached(&repository, writer.epoch(), dead.at, Some(&after));
                record.branch = lineage;
                log_store(&repository).put_record(&record).await.unwrap();
                let at = dead.at;
                let server = Server {
                    number: *number,
                    writer,
                    at,
                    last: after,
                };
                servers.insert(*number, server);
            }
            Step::Look => look(&log_store(&repository)).await,
            Step::Settle => {
                let log = log_store(&repository);
                look(&log).await;
                for known in log.known().await.unwrap() {
                    log.settle(&known.record.branch, FILE).await.unwrap();
                }
            }
        }
    }
    let log = log_store(&world.open().await);
    look(&log).await;
    for known in log.known().await.unwrap() {
        log.settle(&known.record.branch, FILE).await.unwrap();
    }
    let (moves, places) = (log.moves().await.unwrap(), world.names("wal-archive/live/"));
    let mut lineages: BTreeMap<u32, Branch> = BTreeMap::new();
    for (epoch, number, from, to) in durable {
        let key = places
            .iter()
            .find(|key| key.as_str().contains(epoch.as_str()))
            .unwrap();
        let (place, _) = log
            .place()
            .of_range(backstay_repository::layout::Level::Live, key)
            .unwrap();
        let lineage = moves.lineage_of(place, &epoch);
        holds(&log, lineage, number, from, to).await;
        if from >= FORK {
            lineages.insert(number, lineage);
        }
    }
    let both = |one, two| lineages.get(&one).zip(lineages.get(&two));
    for (one, two) in [(OURS, 2), (OURS, 3), (2, 3)] {
        if let Some((one, two)) = both(one, two) {
            assert_ne!(one, two, "two servers in one lineage");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whatever_two_servers_and_their_copy_do_each_reads_its_own_bytes(
        steps in prop::collection::vec(step(), 0..25),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(&steps));
    }
}
