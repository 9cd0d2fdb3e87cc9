//! A small repository that holds every kind of sealed object that is written, at least two of each.
//!
//! Not here: envelopes (wraps).

use std::collections::BTreeMap;

use backstay_clock::{Chance, SeededChance};
use backstay_repository::layout::{Level, RunMoment, of_run};
use backstay_repository::{
    AttachReason, BaseReader, Head, LineageKind, LineageRecord, PackReading, RangesSeen, Repository,
    RepositoryError, RunFinished, RunResult, Wanted,
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
    /// All log indexes.
    Indexes,
    Records,
    Histories,
    /// First and last records of all runs.
    Runs,
}

impl Reading {
    /// Clear JSON: a change may be without meaning.
    pub fn is_clear(self) -> bool {
        self == Reading::Repository
    }

    /// The digest of the object stands in a sealed one.
    pub fn is_recorded(self) -> bool {
        matches!(self, Reading::Tables | Reading::Manifests | Reading::Files)
    }

    /// The object is a container that nothing else describes.
    pub fn is_sealed_alone(self) -> bool {
        !self.is_clear() && !self.is_recorded()
    }

    /// What an error must name.
    pub fn named(self, key: &Key) -> &str {
        match self {
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

    /// Every object but packs, with how it is read.
    pub fn small_objects(&self) -> Vec<(Key, Reading)> {
        let all = self.all_objects().into_iter();
        let mut seen = BTreeMap::new();
        // One of each kind is changed byte by byte: its name without what is random in it.
        all.filter(|(key, reading)| {
            let kind = match reading {
                Reading::Tables | Reading::Manifests => key.as_str().rsplit('/').next().unwrap_or_default(),
                Reading::Ranges => key.as_str().split('/').nth(1).unwrap_or_default(),
                Reading::Runs => key.as_str().rsplit('.').next().unwrap_or_default(),
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

    // Files are read of the first backup only.
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
            .filter(|other| other != key && kind(other) == kind(key))
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
        let index = self.world.names("wal-archive/index/")[0].clone();
        let epoch = index.as_str().rsplit('.').next().unwrap().to_owned();
        let history = self.world.names("wal-archive/history/")[0].clone();
        let (run, _) = self.runs().remove(0);
        let of_run = |word: &str| {
            let ends = format!("{run}.{word}");
            let mut runs = self.world.names("facts/runs/").into_iter();
            runs.find(|key| key.as_str().ends_with(&ends)).unwrap()
        };
        vec![
            (
                head,
                format!("/{backup}/{backup}"),
                format!("/{backup}/{}", other(&backup)),
            ),
            (live.clone(), "-00000000".into(), "-00000077".into()),
            (live, "/00000001.00000001/".into(), "/00000001.00000002/".into()),
            (record, id.clone(), other(&id)),
            (index.clone(), epoch.clone(), other(&epoch)),
            (index, "/00000001.00000001/".into(), "/00000001.00000002/".into()),
            (history, "/00000002-".into(), "/00000003-".into()),
            (of_run("started"), run.to_string(), other(run.as_str())),
            (of_run("finished"), run.to_string(), other(run.as_str())),
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
            Reading::Indexes,
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
            Reading::Repository => {
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
            Reading::Indexes => self.read_indexes().await?,
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
                for (run, moment) in self.runs() {
                    let text = match moment {
                        RunMoment::Started => format!("{:?}", repository.read_run_started(&run).await?),
                        RunMoment::Finished => format!("{:?}", repository.read_run_finished(&run).await?),
                    };
                    all.push_str(&text);
                }
                all
            }
        })
    }

    async fn read_ranges(&self) -> Result<String, RepositoryError> {
        let log = log_store(&self.repository);
        let mut all = String::new();
        for branch in [branch(1, 1), branch(1, 2)] {
            let RangesSeen { ranges, cut } = log.ranges_seen(&branch, None).await?;
            for stored in ranges.into_iter().chain(cut) {
                // The index alone may be read without its bytes: both must hold.
                let alone = log.index_of(&stored).await;
                let (index, bytes) = log.range(&stored).await?;
                assert_eq!(alone?, index);
                all.push_str(&format!("{:?} {index:?} {bytes:?}", stored.name));
            }
        }
        Ok(all)
    }

    /// Each by itself, as a person looks at it; what `verify` finds must be the same.
    async fn read_indexes(&self) -> Result<String, RepositoryError> {
        let (_, found) = log_store(&self.repository).check_indexes(&[]).await?;
        let (mut all, mut refused) = (String::new(), Vec::new());
        for key in self.world.names("wal-archive/index/") {
            match self.repository.decrypt(key.as_str()).await {
                Ok(content) => all.push_str(&format!("{:?}", content.unwrap())),
                Err(error) => refused.push((key.to_string(), error)),
            }
        }
        let found: Vec<String> = found.into_iter().map(|found| found.object).collect();
        assert_eq!(
            found,
            refused.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>()
        );
        refused.pop().map_or(Ok(all), |(_, error)| Err(error))
    }

    fn runs(&self) -> Vec<(RunId, RunMoment)> {
        let names = self.world.names("facts/runs/").into_iter();
        names.filter_map(|key| of_run(&key)).collect()
    }
}

fn reading_of(key: &Key) -> Option<Reading> {
    let parts: Vec<&str> = key.as_str().split('/').collect();
    Some(match parts.as_slice() {
        ["repository.json"] => Reading::Repository,
        ["postgres-backups", "manifests", ..] => Reading::Heads,
        // Tables are stored by kind: packs, files, extents, frames, manifest; the root is t0000.
        ["postgres-backups", "tables", .., "t0005"] => Reading::Manifests,
        ["postgres-backups", "tables", ..] => Reading::Tables,
        ["postgres-backups", "data", ..] => Reading::Files,
        ["wal-archive", "live" | "settled", ..] => Reading::Ranges,
        ["wal-archive", "index", ..] => Reading::Indexes,
        ["wal-archive", "lineage", ..] => Reading::Records,
        ["wal-archive", "history", ..] => Reading::Histories,
        ["facts", "runs", ..] => Reading::Runs,
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
        frontier: None,
        over: vec![],
        moved: None,
        after: None,
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
    let index = writer.cut_index(Wanted::Everything).unwrap().unwrap();
    index.run().await.unwrap();
}
