//! A small repository that holds every kind of object that is written, at least two of each.

use std::collections::BTreeMap;

use backstay_clock::{Chance, SeededChance};
use backstay_repository::layout::{Level, of_run};
use backstay_repository::{
    AttachReason, BaseReader, Head, LineageKind, LineageRecord, PackReading, Repository, RepositoryError,
    RunFinished, RunResult,
};
use backstay_store::{Key, Store};
use backstay_terms::{EngineKind, RunId};

use crate::log::{append, begin, branch, log_store, range, store_live, store_settled};
use crate::support::*;

const SYSTEM: u64 = 0x6543_2100_1234_5678;

/// How an object is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// `repository.json`.
    Repository,
    /// A wrap: a new process reads the head with it.
    Wrap,
    /// All heads.
    Heads,
    /// The tables of all backups.
    Tables,
    /// The server's manifests.
    Manifests,
    /// The files of the first backup, whole.
    Files,
    /// All ranges, index and bytes.
    Ranges,
    Records,
    Histories,
    Runs,
}

impl Reading {
    /// Clear JSON: a change may be without meaning.
    pub fn is_clear(self) -> bool {
        matches!(self, Reading::Repository | Reading::Wrap)
    }

    pub fn may_survive(self) -> bool {
        self.is_clear()
    }

    /// The digest of the object stands in a sealed one.
    pub fn is_recorded(self) -> bool {
        matches!(self, Reading::Tables | Reading::Manifests | Reading::Files)
    }

    /// The object is a container that nothing else describes.
    pub fn is_sealed_alone(self) -> bool {
        !self.is_clear() && !self.is_recorded()
    }

    /// What an error must name: the object, or the envelope of a wrap.
    pub fn named(self, key: &Key) -> &str {
        match self {
            Reading::Wrap => "postgres/orders/",
            Reading::Repository => "repository",
            _ => key.as_str(),
        }
    }
}

/// The repository and what is known about it.
pub struct Scene {
    pub world: World,
    repository: Repository,
    heads: Vec<Head>,
    reader: BaseReader,
}

fn files(seed: u64) -> Vec<Entry> {
    vec![
        file("noise", noise(seed, 400_000)),
        file("prose", prose(seed, 3000)),
        manifest(prose(seed + 1, 500)),
    ]
}

impl Scene {
    pub async fn new() -> Scene {
        let world = World::new();
        let repository = world.init().await;
        let mut heads = Vec::new();
        for seed in [1, 2] {
            heads.push(back_up(&repository, &files(seed)).await.unwrap());
            world.clock.advance(std::time::Duration::from_secs(3600));
        }
        for lineage in [1, 2] {
            stream(&repository, lineage).await;
        }
        for verb in ["backup", "verify"] {
            let started = repository.run_started(verb, "orders").await.unwrap();
            repository
                .run_finished(&RunFinished {
                    started,
                    finished: repository.now(),
                    result: RunResult::Succeeded,
                    error: None,
                    figures: serde_json::json!({"bytes": 1}),
                })
                .await
                .unwrap();
        }
        let repository = world.open().await;
        let reader = open_backup(&repository, &heads[0]).await.unwrap();
        Scene {
            world,
            repository,
            heads,
            reader,
        }
    }

    /// Every object but packs, with how it is read. `.started` records have no reader of their own.
    pub fn small_objects(&self) -> Vec<(Key, Reading)> {
        let all = self.all_objects().into_iter();
        let mut seen = BTreeMap::new();
        // One of each kind is changed byte by byte: its name without what is random in it.
        all.filter(|(key, reading)| {
            let kind = match reading {
                Reading::Tables | Reading::Manifests => key.as_str().rsplit('/').next().unwrap_or_default(),
                Reading::Ranges => key.as_str().split('/').nth(1).unwrap_or_default(),
                _ => "",
            };
            *reading != Reading::Files
                && seen
                    .insert((format!("{reading:?}"), kind.to_owned()), ())
                    .is_none()
        })
        .collect()
    }

    pub fn all_objects(&self) -> Vec<(Key, Reading)> {
        let names = self.world.names("").into_iter();
        names
            .filter_map(|key| reading_of(&key).map(|reading| (key, reading)))
            .filter(|(key, _)| self.is_read(key))
            .collect()
    }

    // Files are read of the first backup only, wraps of the generations only.
    fn is_read(&self, key: &Key) -> bool {
        let first = self.heads[0].backup.as_str();
        !key.as_str().contains("/data/") || key.as_str().contains(first)
    }

    /// The objects of the same kind that might be put in its place.
    pub fn siblings(&self, key: &Key) -> Vec<Key> {
        let kind = |key: &Key| {
            let parts: Vec<&str> = key.as_str().split('/').collect();
            (
                parts.first().map(|p| p.to_string()),
                parts.get(1).map(|p| p.to_string()),
            )
        };
        let names = self.world.names("").into_iter();
        names
            .filter(|other| other != key && kind(other) == kind(key) && suffix(other) == suffix(key))
            .collect()
    }

    /// The first pack.
    pub fn pack(&self) -> Key {
        name_of(&self.heads[0].place(), "data", "/p00000")
    }

    pub fn places(&self, length: usize, count: usize) -> Vec<usize> {
        let chance = SeededChance::new(7);
        let random = (0..count - 112).map(|_| (chance.next_u64() % length as u64) as usize);
        (0..112).chain(random).collect()
    }

    /// Reads bytes whose frame lies in the sealed chunk at this place of the first pack.
    pub async fn read_chunk_at(&self, place: usize) -> Result<(), RepositoryError> {
        // 400,000 bytes of noise and a little prose: what does not compress lies where its offset says, but for a few bytes.
        let plain = (place.saturating_sub(112) / 65_552 * 65_536) as u64;
        let row = row(&self.reader, "noise");
        let from = (plain + 4000).min(row.size - 1);
        let bytes = self.reader.read_range(&row, from..from + 1).await?;
        let expected = &noise(1, 400_000)[from as usize..from as usize + 1];
        assert_eq!(bytes, expected);
        Ok(())
    }

    /// The object that is copied, and which part of its name becomes what.
    pub fn renames(&self) -> Vec<(Key, String, String)> {
        let head = name_of(&self.heads[0].place(), "manifests", "");
        let other = |id: &str| format!("{}aaaaaaaaaa", &id[..id.len() - 10]);
        let backup = self.heads[0].backup.as_str().to_owned();
        let live = self.world.names("wal-archive/live/")[0].clone();
        let record = self.world.names("wal-archive/lineage/")[0].clone();
        let id = record.as_str().rsplit('/').next().unwrap().to_owned();
        vec![
            (
                head,
                format!("/{backup}/{backup}"),
                format!("/{backup}/{}", other(&backup)),
            ),
            (live.clone(), "-00000000".into(), "-00000077".into()),
            (live, "/00000001.00000001/".into(), "/00000001.00000002/".into()),
            (record, id.clone(), other(&id)),
        ]
    }

    pub async fn remove(&self, key: &Key) {
        self.world.memory.delete(key).await.unwrap();
    }

    pub async fn read_everything(&self) -> Result<String, RepositoryError> {
        let mut all = String::new();
        for reading in [
            Reading::Heads,
            Reading::Tables,
            Reading::Manifests,
            Reading::Files,
            Reading::Ranges,
            Reading::Records,
            Reading::Histories,
            Reading::Runs,
        ] {
            all.push_str(&self.read(reading).await?);
        }
        Ok(all)
    }

    /// What this reading gives, as text.
    pub async fn read(&self, reading: Reading) -> Result<String, RepositoryError> {
        let (repository, log) = (&self.repository, log_store(&self.repository));
        Ok(match reading {
            Reading::Repository | Reading::Wrap => {
                let repository = self.world.open_with(&[raw_key(7)]).await?;
                let heads = repository.heads(EngineKind::Postgres, &source()).await?;
                format!("{heads:?}")
            }
            Reading::Heads => format!("{:?}", repository.heads(EngineKind::Postgres, &source()).await?),
            Reading::Tables => {
                let mut all = String::new();
                for head in &self.heads {
                    let reader = open_backup(repository, head).await?;
                    all.push_str(&format!(
                        "{:?}{:?}",
                        reader.files().collect::<Vec<_>>(),
                        reader.packs().collect::<Vec<_>>()
                    ));
                }
                all
            }
            Reading::Manifests => {
                let mut all = String::new();
                for head in &self.heads {
                    let manifest = open_backup(repository, head).await?.server_manifest().await?;
                    all.push_str(&String::from_utf8(manifest).unwrap());
                }
                all
            }
            // As verify reads.
            Reading::Files => format!("{:?}", read_all(&self.reader, 1, PackReading::WholePacks).await?),
            Reading::Ranges => self.read_ranges().await?,
            Reading::Records => format!("{:?}", log.records().await?),
            Reading::Histories => {
                let mut all = String::new();
                for (name, object) in log.history_names(SYSTEM).await?.0 {
                    all.push_str(&format!("{:?}", log.history(SYSTEM, &name, &object).await?));
                }
                all
            }
            Reading::Runs => {
                let mut all = String::new();
                for run in self.runs() {
                    all.push_str(&format!("{:?}", repository.read_run_finished(&run).await?));
                }
                all
            }
        })
    }

    async fn read_ranges(&self) -> Result<String, RepositoryError> {
        let log = log_store(&self.repository);
        let mut all = String::new();
        for branch in [branch(1, 1), branch(1, 2)] {
            for stored in log.ranges(&branch, None).await? {
                // The index alone may be read without its bytes: both must hold.
                let alone = log.index_of(&branch, &stored).await;
                let (index, bytes) = log.range(&branch, &stored).await?;
                assert_eq!(alone?, index);
                all.push_str(&format!("{:?} {index:?} {bytes:?}", stored.name));
            }
        }
        Ok(all)
    }

    fn runs(&self) -> Vec<RunId> {
        let names = self.world.names("facts/runs/").into_iter();
        let mut runs: Vec<RunId> = names.filter_map(|key| of_run(&key)).map(|(run, _)| run).collect();
        runs.dedup();
        runs
    }
}

fn suffix(key: &Key) -> String {
    let last = key.as_str().rsplit('/').next().unwrap_or_default();
    match last.ends_with(".finished") {
        true => ".finished".to_owned(),
        false => String::new(),
    }
}

fn reading_of(key: &Key) -> Option<Reading> {
    let parts: Vec<&str> = key.as_str().split('/').collect();
    Some(match parts.as_slice() {
        ["repository.json"] => Reading::Repository,
        ["postgres-backups", "keys", ..] => Reading::Wrap,
        ["postgres-backups", "manifests", ..] => Reading::Heads,
        // Tables are stored by kind: packs, files, extents, frames, manifest; the root is t0000.
        ["postgres-backups", "tables", .., "t0005"] => Reading::Manifests,
        ["postgres-backups", "tables", ..] => Reading::Tables,
        ["postgres-backups", "data", ..] => Reading::Files,
        ["wal-archive", "live" | "settled", ..] => Reading::Ranges,
        ["wal-archive", "lineage", ..] => Reading::Records,
        ["wal-archive", "history", ..] => Reading::Histories,
        ["facts", "runs", ..] if parts.last()?.ends_with(".finished") => Reading::Runs,
        _ => return None,
    })
}

async fn stream(repository: &Repository, lineage: u32) {
    let log = log_store(repository);
    let mut writer = begin(repository, branch(1, lineage)).await;
    let record = LineageRecord {
        format: 1,
        kind: LineageKind::Attach,
        id: repository.new_id("attach").unwrap(),
        created: repository.now(),
        branch: branch(1, lineage),
        from: range(100, 100).from,
        history: None,
        parent: None,
        reason: AttachReason::First,
        epoch: writer.epoch().clone(),
        segment_size: 4096,
        server_end: range(500, 500).from,
        over: vec![],
    };
    log.put_record(&record).await.unwrap();
    let history = format!("1\t0/{lineage}\tno reason\n");
    log.put_history(SYSTEM, 2, history.as_bytes()).await.unwrap();
    for (from, to) in [(100, 300), (300, 500)] {
        append(&mut writer, from, to);
        let stored = store_live(&mut writer).await;
        assert_eq!(stored.level, Level::Live);
    }
    store_settled(&mut writer).await;
}
