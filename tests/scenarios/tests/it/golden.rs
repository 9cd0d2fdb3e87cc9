//! Repositories of format version 1, kept in git, that every build must restore.
//!
//! `format-1` has one history and one key. `format-1-promoted` has a promotion: history file, two timelines, an adoption, log
//! indexes, and a raw key, a passphrase and an age identity that each open it. `tests/golden/README.md` says how each was
//! written. A new format version gets repositories of its own beside these; these are never written again.

mod maker;

use crate::copy;
use backstay_clock::{SeededChance, SimClock};
use backstay_codec::{Passphrase, SecretKey, parse_master_key};
use backstay_engine::plan::{Standing, lineages};
use backstay_repository::{BaseReader, LineageKind, LogStore, PackReading, Recipient, Repository};
use backstay_scenarios::World;
use backstay_store::LocalDirectory;
use backstay_terms::{EngineKind, RecoveryTarget};
use backstay_testkit::pg::Room;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tells every row of the table of a golden cluster.
pub const DIGEST: &str = "SELECT md5(string_agg(n || ':' || note, ',' ORDER BY n)) FROM golden";

/// A golden repository with its keys beside it.
#[derive(Clone, Copy)]
pub struct Golden {
    name: &'static str,
    /// When it is read: its promises end 35 days after it was written, the tests do not.
    read_at: &'static str,
}

pub const FIRST: Golden = Golden {
    name: "format-1",
    read_at: "2026-11-24T00:00:00Z",
};
pub const PROMOTED: Golden = Golden {
    name: "format-1-promoted",
    read_at: "2026-11-28T00:00:00Z",
};

impl Golden {
    pub fn path(self, file: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../golden")
            .join(self.name)
            .join(file)
    }

    pub fn text(self, file: &str) -> String {
        std::fs::read_to_string(self.path(file))
            .unwrap()
            .trim()
            .to_owned()
    }

    fn key(self) -> SecretKey {
        parse_master_key(&self.text("golden.key")).unwrap()
    }

    async fn open(self, recipient: Recipient) -> World {
        let clock = Arc::new(SimClock::starting_at(self.read_at.parse().unwrap()));
        let store = LocalDirectory::open(&self.path("repository"), clock.clone()).await;
        let (store, chance) = (Arc::new(store.unwrap()), Arc::new(SeededChance::new(1)));
        let repository = Repository::open(store, clock, chance, &[recipient]).await;
        World {
            name: "golden".parse().unwrap(),
            repository: repository.unwrap(),
        }
    }

    async fn open_raw(self) -> World {
        self.open(Recipient::Raw(self.key())).await
    }
}

/// Restores, starts the copy, and gives what a query says there.
async fn restored(world: &World, target: RecoveryTarget, sql: &str) -> String {
    let room = Room::new();
    let catalog = world.catalog().await.unwrap();
    let into = room.path().join("restored");
    copy::column(world, catalog, &into, &target, sql).await.remove(0)
}

/// Reads every file of the only backup and compares its digest; how many there were.
async fn files_compared(world: &World) -> usize {
    let heads = world
        .repository
        .heads(EngineKind::Postgres, &world.name)
        .await
        .unwrap();
    assert_eq!(heads.len(), 1);
    let base = BaseReader::open(&world.repository, &heads[0].place())
        .await
        .unwrap();
    let mut cursor = base.cursor(PackReading::ByRanges);
    let mut read = 0;
    for file in base.files() {
        let Some(expected) = &file.sha256 else { continue };
        let mut digest = backstay_repository::Digest::new();
        cursor
            .read_file(&file, |bytes| {
                digest.update(bytes);
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(digest.finish(), *expected, "{}", file.path);
        read += 1;
    }
    read
}

const COUNT: &str = "SELECT count(*) FROM golden";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_file_of_a_golden_repository_is_what_its_tables_say() {
    assert!(files_compared(&FIRST.open_raw().await).await > 900);
    assert!(files_compared(&PROMOTED.open_raw().await).await > 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_golden_repository_is_restored_to_its_last_row_and_to_its_restore_point() {
    let world = FIRST.open_raw().await;
    let digest = restored(&world, RecoveryTarget::Latest, DIGEST).await;
    assert_eq!(digest, FIRST.text("digest.txt"));
    let rows = restored(&world, RecoveryTarget::Name("middle".into()), COUNT).await;
    assert_eq!(rows, "1000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_promoted_golden_repository_is_restored_along_the_history_that_was_adopted() {
    let words = Recipient::Passphrase(Passphrase::new(PROMOTED.text("golden.passphrase")));
    for recipient in [Recipient::Raw(PROMOTED.key()), words] {
        let world = PROMOTED.open(recipient).await;
        let digest = restored(&world, RecoveryTarget::Latest, DIGEST).await;
        assert_eq!(digest, PROMOTED.text("digest.txt"));
    }
    let world = PROMOTED.open_raw().await;
    let rows = restored(&world, RecoveryTarget::Name("before-the-promotion".into()), COUNT).await;
    assert_eq!(rows, "200");
}

#[tokio::test]
async fn the_promoted_golden_repository_holds_what_it_was_made_for() {
    let world = PROMOTED.open_raw().await;
    let standings: Vec<_> = lineages(&world.catalog().await.unwrap())
        .await
        .unwrap()
        .iter()
        .map(|seen| (seen.branch.timeline, seen.standing))
        .collect();
    assert_eq!(standings, [(1, Standing::Ancestor), (2, Standing::Present)]);
    let log = LogStore::new(&world.repository, EngineKind::Postgres, &world.name);
    let records = log.records().await.unwrap();
    let adoption = records
        .iter()
        .find(|record| record.kind == LineageKind::Adopt)
        .unwrap();
    let over: Vec<u32> = adoption.over.iter().map(|over| over.branch.timeline).collect();
    assert_eq!((adoption.branch.timeline, over), (2, vec![1]));
    let system = adoption.branch.system;
    let (histories, _) = log.history_names(system).await.unwrap();
    assert_eq!(histories.len(), 1);
    for record in &records {
        let gathered = log.gathered(&record.branch).await.unwrap();
        assert!(!gathered.is_empty(), "{}: no log index", record.branch);
    }
    let envelopes = world.repository.envelopes().await.unwrap();
    for envelope in envelopes {
        let seen = world.repository.look_at_envelope(&envelope).await.unwrap();
        let mut kinds: Vec<&str> = seen
            .wraps
            .iter()
            .filter_map(|wrap| wrap.recipient.split(' ').next())
            .collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["age", "passphrase", "raw"], "{}", seen.name);
    }
}
