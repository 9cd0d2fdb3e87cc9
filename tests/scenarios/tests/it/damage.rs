//! One damaged copy of the log: what another one holds is served, what none holds is named.
//!
//! Promise: every range object of a shelf is damaged in turn and in every manner; bytes, facts, fetched segments and a
//! restore are compared.
//! Not here: the choice itself (backstay-repository, log::copies), what verify finds (verify).

use crate::copy;
use crate::shelf::{SEGMENT, Shelf, Written, branch, log_bytes, name};
use crate::stream::end_of_log;
use backstay_clock::SystemClock;
use backstay_engine::jobs::fetch::{FetchJob, Fetched};
use backstay_engine::jobs::verify::{Depth, Recording, VerifyJob};
use backstay_engine::plan::Catalog;
use backstay_engine::{EngineError, ErrorKind};
use backstay_repository::layout::Level;
use backstay_repository::{Candidate, Parent, choose, missing, stretches};
use backstay_scenarios::World;
use backstay_store::{Key, MemoryStore, Store};
use backstay_terms::{Branch, EngineKind, LogRange, Position, RecoveryTarget};
use backstay_testkit::pg::{PgServer, Stop};
use std::collections::BTreeSet;
use std::sync::Arc;

const MIB: u64 = SEGMENT;
const HALF: u64 = MIB / 2;
/// Where timeline 2 left timeline 1.
const FORK: u64 = 3 * MIB + HALF;
/// The log goes from 1 MiB to here.
const END: u64 = 4 * MIB + HALF;

fn old() -> Branch {
    branch(1, 1)
}

fn new() -> Branch {
    branch(2, 2)
}

/// Settled twice and live; live alone; settled alone; settled in the ancestor and live in the descendant; the
/// descendant's own, in long settled and short live ranges.
async fn shelf() -> Shelf {
    let shelf = Shelf::new().await;
    shelf.attach(old(), MIB, None, None).await;
    let both = [Written::Live, Written::Settled];
    shelf.log(old(), &[MIB, MIB + HALF, 2 * MIB], 0, &both).await;
    shelf.log(old(), &[MIB, 2 * MIB], 0, &[Written::Settled]).await;
    let live = [2 * MIB, 2 * MIB + HALF];
    shelf.log(old(), &live, MIB + HALF, &[Written::Live]).await;
    let settled = [2 * MIB + HALF, 3 * MIB, FORK, FORK + HALF];
    shelf.log(old(), &settled, 2 * MIB, &[Written::Settled]).await;
    let parent = Parent {
        branch: old(),
        fork: Position(FORK),
    };
    shelf
        .attach(new(), 3 * MIB, Some(parent), Some("1\t0/380000\tx\n"))
        .await;
    shelf
        .log_of(new(), &[3 * MIB, FORK], 2 * MIB + HALF, &[Written::Live], 1)
        .await;
    shelf
        .log(new(), &[FORK, 4 * MIB, END], 3 * MIB, &[Written::Live])
        .await;
    shelf
        .log(new(), &[FORK, 4 * MIB], 3 * MIB, &[Written::Settled])
        .await;
    shelf
}

/// The bytes of timeline 2 with its ancestor.
fn truth(range: LogRange) -> Vec<u8> {
    let (from, to) = (range.from.0, range.to.0);
    let fork = FORK.clamp(from, to);
    [log_bytes(1, from, fork), log_bytes(2, fork, to)].concat()
}

async fn catalog(shelf: &Shelf) -> Catalog {
    let read = Catalog::read(&shelf.open().await, EngineKind::Postgres, &name(), None).await;
    read.unwrap()
}

/// What can become of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Magic,
    KeyId,
    IndexPart,
    Middle,
    LastByte,
    CutInHalf,
    CutByOne,
    Emptied,
    Gone,
}

impl Damage {
    const ALL: [Damage; 9] = [
        Damage::Magic,
        Damage::KeyId,
        Damage::IndexPart,
        Damage::Middle,
        Damage::LastByte,
        Damage::CutInHalf,
        Damage::CutByOne,
        Damage::Emptied,
        Damage::Gone,
    ];

    async fn befall(self, memory: &MemoryStore, key: &Key) {
        let mut body = memory.snapshot().get(key).unwrap().to_vec();
        let length = body.len();
        match self {
            Damage::Magic => body[0] ^= 1,
            Damage::KeyId => body[20] ^= 1,
            Damage::IndexPart => body[150] ^= 1,
            Damage::Middle => body[length / 2] ^= 1,
            Damage::LastByte => body[length - 1] ^= 1,
            Damage::CutInHalf => body.truncate(length / 2),
            Damage::CutByOne => body.truncate(length - 1),
            Damage::Emptied => body.clear(),
            Damage::Gone => return memory.delete(key).await.unwrap(),
        }
        memory.overwrite(key, body.into());
    }
}

/// Whether some other object holds all of these positions.
fn held_elsewhere(catalog: &Catalog, wanted: LogRange, damaged: &Key) -> bool {
    let candidates = catalog.chain.as_ref().unwrap().candidates(wanted);
    let others: Vec<Candidate> = candidates
        .into_iter()
        .filter(|c| key_of(catalog, c) != *damaged)
        .collect();
    choose(wanted, others).is_ok()
}

fn key_of(catalog: &Catalog, candidate: &Candidate) -> Key {
    let stored = &candidate.stored;
    let place = catalog
        .log
        .place()
        .range(stored.level, &stored.branch, &stored.name);
    place.unwrap().key
}

/// `what` begins with the damage. A damaged key id is a key that nobody has.
fn assert_named(error: &EngineError, key: &Key, what: &str) {
    let kind = match what.starts_with("KeyId ") {
        true => ErrorKind::Key,
        false => ErrorKind::Integrity,
    };
    assert_eq!(error.kind(), kind, "{what}: {error}");
    assert!(error.to_string().contains(key.as_str()), "{what}: {error}");
}

fn objects(shelf: &Shelf) -> Vec<Key> {
    [
        shelf.names("wal-archive/live/"),
        shelf.names("wal-archive/settled/"),
    ]
    .concat()
}

#[tokio::test]
async fn whatever_another_copy_holds_is_served_and_the_rest_is_named() {
    let shelf = shelf().await;
    let whole = LogRange {
        from: Position(MIB),
        to: Position(END),
    };
    assert!(catalog(&shelf).await.bytes_in(whole).await.unwrap() == truth(whole));
    let (mut served, mut named) = (0, 0);
    for key in objects(&shelf) {
        for damage in Damage::ALL {
            let copy = shelf.copy();
            let listed = catalog(&copy).await;
            damage.befall(&copy.memory, &key).await;
            let what = format!("{damage:?} of {key}");
            for from in (MIB..END).step_by((MIB / 8) as usize) {
                let wanted = LogRange {
                    from: Position(from),
                    to: Position(from + MIB / 8),
                };
                match listed.bytes_in(wanted).await {
                    Ok(bytes) => assert!(bytes == truth(wanted), "{what}"),
                    Err(error) => {
                        assert!(!held_elsewhere(&listed, wanted, &key), "{what}: {error}");
                        assert_named(&error, &key, &what);
                        named += 1;
                        continue;
                    }
                }
                served += 1;
            }
            match listed.facts_in(whole).await {
                Ok(facts) => assert_eq!(
                    facts.iter().map(|(range, _)| range.length()).sum::<u64>(),
                    whole.length()
                ),
                Err(error) => {
                    assert!(!held_elsewhere(&listed, whole, &key), "{what}: {error}");
                    assert_named(&error, &key, &what);
                }
            }
            // Whoever comes later can read the catalog all the same.
            catalog(&copy).await;
        }
    }
    println!("measured: {served} pieces served beside a damaged copy, {named} named");
    assert!(served > 2000 && named > 50, "{served} {named}");
}

/// The segments of the new timeline: each with its content, padded where the log ends.
fn segments() -> [(String, Vec<u8>); 4] {
    [1, 2, 3, 4].map(|number: u64| {
        let range = LogRange {
            from: Position(number * MIB),
            to: Position(END.min((number + 1) * MIB)),
        };
        let mut content = truth(range);
        content.resize(MIB as usize, 0);
        (format!("0000000200000000{number:08X}"), content)
    })
}

#[tokio::test]
async fn fetch_serves_what_another_copy_holds_and_calls_no_damaged_position_absent() {
    let shelf = shelf().await;
    let room = std::env::temp_dir().join(format!("backstay-damage-{}", std::process::id()));
    std::fs::create_dir_all(&room).unwrap();
    let destination = room.join("RECOVERYXLOG");
    let (mut delivered, mut named) = (0, 0);
    // What is gone before it is listed cannot be told from what never was.
    let damages = Damage::ALL.iter().filter(|damage| **damage != Damage::Gone);
    for (key, damage) in objects(&shelf)
        .iter()
        .flat_map(|key| damages.clone().map(move |d| (key, d)))
    {
        let copy = shelf.copy();
        damage.befall(&copy.memory, key).await;
        let listed = catalog(&copy).await;
        for (file, content) in segments() {
            let job = FetchJob {
                repository: copy.open().await,
                engine: EngineKind::Postgres,
                name: name(),
                lineage: Some(new()),
                base: None,
                until: None,
                file: file.clone(),
                destination: destination.clone(),
            };
            // Along a lineage, a segment of the ancestor has the ancestor's name.
            let job = match file.ends_with('1') || file.ends_with('2') {
                true => FetchJob {
                    file: file.replacen("00000002", "00000001", 1),
                    ..job
                },
                false => job,
            };
            let what = format!("{damage:?} of {key}, {file}");
            match job.run().await {
                Ok(fetched) => {
                    assert_eq!(fetched, Fetched::Delivered { bytes: MIB }, "{what}");
                    assert!(std::fs::read(&destination).unwrap() == content, "{what}");
                    delivered += 1;
                }
                Err(error) => {
                    let number = u64::from_str_radix(&file[16..], 16).unwrap();
                    let wanted = LogRange {
                        from: Position(number * MIB),
                        to: Position(END.min((number + 1) * MIB)),
                    };
                    assert!(!held_elsewhere(&listed, wanted, key), "{what}: {error}");
                    assert_named(&error, key, &what);
                    named += 1;
                }
            }
        }
    }
    std::fs::remove_dir_all(&room).unwrap();
    assert!(delivered > 200 && named > 10, "{delivered} {named}");
}

/// Damages every settled range whose positions live ranges hold too; returns how many.
async fn damage_what_is_doubled(world: &World, memory: &MemoryStore) -> usize {
    let catalog = world.catalog().await.unwrap();
    let link = catalog.chain.as_ref().unwrap().target().unwrap();
    let live = link.ranges.iter().filter(|r| r.level == Level::Live);
    let live = stretches(live.map(|r| &r.name.range));
    let mut damaged = 0;
    for stored in link.ranges.iter().filter(|r| r.level == Level::Settled) {
        if missing(stored.name.range, &live).is_empty() {
            let place = catalog
                .log
                .place()
                .range(stored.level, &link.branch, &stored.name);
            Damage::Middle.befall(memory, &place.unwrap().key).await;
            damaged += 1;
        }
    }
    damaged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_takes_live_ranges_where_settled_ones_are_damaged_and_verify_names_them() {
    let mut server = PgServer::start().await;
    let memory = MemoryStore::new(Arc::new(SystemClock::new()));
    let world = World::over(Arc::new(memory.clone())).await;
    let source = world.source(server.conninfo());
    let running = world.stream(source.clone());
    world.backup(source, &server.room().dir("scratch")).await.unwrap();
    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 20000) AS n")
        .await;
    running.until_durable(end_of_log(&server).await).await;
    server.sql("INSERT INTO t VALUES (0)").await;
    running.until_durable(end_of_log(&server).await).await;
    // A server that stops has everything flushed live; what is settled afterwards is all stored twice.
    server.stop(Stop::Fast).await;
    running.stop().await.unwrap();
    let damaged = damage_what_is_doubled(&world, &memory).await;
    assert!(damaged > 0);

    let into = server.room().path().join("restored");
    let rows = copy::counts(&world, &into, &RecoveryTarget::Latest).await;
    assert_eq!(rows, [("postgres".to_owned(), "public.t".to_owned(), 20_001)]);

    let job = VerifyJob {
        repository: world.repository.clone(),
        services: vec![],
        depth: Depth::Everything,
        formats: vec![],
        identities: vec![],
        recording: Recording::Skipped,
    };
    let findings = job.run().await.unwrap().findings;
    let named: BTreeSet<&str> = findings.iter().map(|finding| finding.object.as_str()).collect();
    let settled = named.iter().all(|object| object.contains("/settled/"));
    assert!(named.len() == damaged && settled, "{findings:?}");
}
