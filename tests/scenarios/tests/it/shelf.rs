//! A repository in memory with hand-made backups and log, for verify, expire and fetch.
//!
//! Promise: the clock stands until a test moves it; content comes from seeds.
//! Not here: real servers.

use backstay_clock::{Chance, Clock, SeededChance, SimClock};
use backstay_codec::SecretKey;
use backstay_repository::{
    AttachReason, BackupOrder, BackupSummary, BaseWriter, EndPoint, Head, HeadLog, HeadVerdict, LineageKind,
    LineageRecord, LogStore, LogWriter, Parent, Recipient, Repository, RunFinished, RunResult, Wanted,
};
use backstay_store::{Key, MemoryImage, MemoryStore, Store};
use backstay_terms::{
    Branch, EngineKind, EntryHeader, EntryKind, EntryPath, EntryRole, Lineage, LogFacts, LogMark, LogPoint,
    LogPointKind, LogRange, Position, RecordBounds, RetentionClass, RunId, SourceName, TimedId,
    TransactionBounds,
};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes of a segment.
pub const SEGMENT: u64 = 1 << 20;
pub const SYSTEM: u64 = 7;
pub const DAY: Duration = Duration::from_secs(24 * 3600);

pub fn name() -> SourceName {
    "orders".parse().unwrap()
}

pub fn branch(timeline: u32, lineage: u32) -> Branch {
    let lineage = Lineage(lineage);
    Branch {
        system: SYSTEM,
        timeline,
        lineage,
    }
}

/// Bytes that belong to these positions of this branch: the same wherever they are made.
pub fn log_bytes(seed: u64, from: u64, to: u64) -> Vec<u8> {
    let at = |position: u64| (position.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8 ^ seed as u8;
    (from..to).map(at).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    Live,
    Settled,
}

/// Chance that gives the suffix of an id once more: a backup has that of its run.
#[derive(Debug)]
struct SameSuffix(u64);

impl SameSuffix {
    fn of(id: &TimedId) -> SameSuffix {
        let digit = |c: char| "abcdefghijklmnopqrstuvwxyz234567".find(c).unwrap() as u64;
        let digits = id.suffix().to_string();
        SameSuffix(digits.chars().rev().fold(0, |bits, c| bits << 5 | digit(c)))
    }
}

impl Chance for SameSuffix {
    fn next_u64(&self) -> u64 {
        self.0
    }
}

#[derive(Clone, Debug)]
pub struct Shelf {
    pub clock: SimClock,
    pub memory: MemoryStore,
    segment: u64,
    processes: Arc<AtomicU64>,
}

impl Shelf {
    pub async fn new() -> Shelf {
        Shelf::with_segment(SEGMENT).await
    }

    /// With segments of another size than a server would take.
    pub async fn with_segment(segment: u64) -> Shelf {
        let clock = SimClock::new();
        let memory = MemoryStore::new(Arc::new(clock.clone()));
        let processes = Arc::new(AtomicU64::new(1));
        let shelf = Shelf {
            clock,
            memory,
            segment,
            processes,
        };
        let store = Arc::new(shelf.memory.clone());
        let made = Repository::init(store, Arc::new(shelf.clock.clone()), shelf.chance(), &[key(7)]).await;
        made.unwrap();
        shelf
    }

    fn chance(&self) -> Arc<dyn Chance> {
        let process = self.processes.fetch_add(1, Ordering::Relaxed);
        Arc::new(SeededChance::new(process << 32))
    }

    /// The same clock over a copy of the objects.
    pub fn copy(&self) -> Shelf {
        self.over(self.memory.snapshot())
    }

    /// The same over a copy of the objects, as a machine sees it whose clock is behind.
    pub fn copy_with_clock_at_start(&self) -> Shelf {
        let clock = SimClock::new();
        let memory = MemoryStore::from_snapshot(Arc::new(clock.clone()), self.memory.snapshot());
        Shelf {
            clock,
            memory,
            ..self.clone()
        }
    }

    pub fn over(&self, image: MemoryImage) -> Shelf {
        let memory = MemoryStore::from_snapshot(Arc::new(self.clock.clone()), image);
        Shelf {
            memory,
            ..self.clone()
        }
    }

    pub async fn open(&self) -> Repository {
        self.open_with(Arc::new(self.memory.clone()), key(7))
            .await
            .unwrap()
    }

    pub async fn open_with(
        &self,
        store: Arc<dyn Store>,
        key: Recipient,
    ) -> Result<Repository, backstay_repository::RepositoryError> {
        Repository::open(store, Arc::new(self.clock.clone()), self.chance(), &[key]).await
    }

    /// Opened with several keys.
    pub async fn open_for(&self, recipients: &[Recipient]) -> Repository {
        let store = Arc::new(self.memory.clone());
        let opened = Repository::open(store, Arc::new(self.clock.clone()), self.chance(), recipients).await;
        opened.unwrap()
    }

    /// The time, so many seconds from now.
    pub fn clock_at(&self, seconds: i64) -> jiff::Timestamp {
        self.clock.now() + jiff::SignedDuration::from_secs(seconds)
    }

    pub fn names(&self, part: &str) -> Vec<Key> {
        let image = self.memory.snapshot();
        let names = image.objects().map(|(key, _)| key.clone());
        names.filter(|key| key.as_str().contains(part)).collect()
    }

    pub async fn remove(&self, part: &str) {
        let names = self.names(part);
        assert!(!names.is_empty(), "{part}");
        for name in names {
            self.memory.delete(&name).await.unwrap();
        }
    }

    /// Changes an object's body.
    pub fn change(&self, key: &Key, change: impl Fn(&mut Vec<u8>)) {
        let mut body = self.memory.snapshot().get(key).unwrap().to_vec();
        change(&mut body);
        self.memory.overwrite(key, Bytes::from(body));
    }

    /// A full backup whose log starts at `start`.
    pub async fn backup(&self, class: RetentionClass, start: u64) -> Head {
        self.backup_ending(class, start, None).await
    }

    /// A full backup whose log starts at `start` and ends with this record.
    pub async fn backup_ending(
        &self,
        class: RetentionClass,
        start: u64,
        end_point: Option<EndPoint>,
    ) -> Head {
        self.backup_of(SYSTEM, class, start, end_point).await
    }

    /// The same of this system.
    pub async fn backup_of(
        &self,
        system: u64,
        class: RetentionClass,
        start: u64,
        end_point: Option<EndPoint>,
    ) -> Head {
        let repository = self.open().await;
        let order = BackupOrder {
            engine: EngineKind::Postgres,
            source: name(),
            class,
            run: None,
        };
        let mut writer = BaseWriter::begin(&repository, order).await.unwrap();
        write_file(
            &mut writer,
            0,
            EntryRole::Data,
            "base/1/1",
            log_bytes(start, 0, 300_000),
        )
        .await;
        write_file(
            &mut writer,
            1,
            EntryRole::ServerManifest,
            "backup_manifest",
            b"{}".to_vec(),
        )
        .await;
        let log = HeadLog {
            system,
            timeline: 1,
            start: Position(start),
            stop: Position(start + 100),
            segment_size: self.segment,
            stop_time: 0,
            end_point,
        };
        let summary = BackupSummary {
            verdict: HeadVerdict::Good,
            damage: vec![],
            version: "15.10".into(),
            log: Some(log),
            engine: serde_json::Value::Null,
            notices: vec![],
        };
        writer.commit(summary).await.unwrap()
    }

    /// What a backup leaves whose process died: the record that it began, and parts without a head.
    pub async fn abandoned(&self) {
        let repository = self.open().await;
        let started = repository.run_started("backup", name().as_str()).await.unwrap();
        let order = BackupOrder {
            engine: EngineKind::Postgres,
            source: name(),
            class: RetentionClass::Days35,
            run: Some(started.run),
        };
        let writer = BaseWriter::begin(&repository, order).await.unwrap();
        let place = writer.place();
        for part in [place.pack("p00000"), place.pack("p00001"), place.table("t0001")] {
            self.memory
                .overwrite(&part.unwrap().key, Bytes::from_static(b"half"));
        }
    }

    /// An attach record.
    pub async fn attach(&self, branch: Branch, from: u64, parent: Option<Parent>, history: Option<&str>) {
        self.attach_at(branch, from, parent, history, None).await;
    }

    /// The attach record of a stream that resumed where the log ended.
    pub async fn resume(&self, branch: Branch, from: u64, frontier: u64) {
        self.attach_at(branch, from, None, None, Some(Position(frontier)))
            .await;
    }

    async fn attach_at(
        &self,
        branch: Branch,
        from: u64,
        parent: Option<Parent>,
        history: Option<&str>,
        frontier: Option<Position>,
    ) {
        let repository = self.open().await;
        let log = LogStore::new(&repository, EngineKind::Postgres, &name());
        let digest = history.map(|text| backstay_repository::history_digest(text.as_bytes()));
        if let Some(text) = history {
            log.put_history(SYSTEM, branch.timeline, text.as_bytes())
                .await
                .unwrap();
        }
        let record = LineageRecord {
            format: 1,
            kind: LineageKind::Attach,
            id: repository.new_id("attach").unwrap(),
            created: repository.now(),
            branch,
            from: Position(from),
            history: digest,
            parent,
            reason: frontier.map_or(AttachReason::First, |_| AttachReason::Resumed),
            epoch: repository.new_id("log").unwrap(),
            segment_size: self.segment,
            server_end: Position(from),
            frontier,
            over: vec![],
            moved: None,
            after: None,
        };
        log.put_record(&record).await.unwrap();
        self.clock.advance(Duration::from_secs(1));
    }

    /// Writes log from position to position, one record a piece; `previous` is where the record before started.
    pub async fn log(&self, branch: Branch, borders: &[u64], previous: u64, levels: &[Written]) {
        let seed = u64::from(branch.lineage.0);
        self.log_of(branch, borders, previous, levels, seed).await;
    }

    pub async fn log_of(
        &self,
        branch: Branch,
        borders: &[u64],
        previous: u64,
        levels: &[Written],
        seed: u64,
    ) {
        self.write_log(branch, borders, previous, levels, seed).await;
    }

    /// Settled log whose index is stored too, as a stream leaves it that was stopped.
    pub async fn log_indexed(&self, branch: Branch, borders: &[u64], previous: u64) {
        let seed = u64::from(branch.lineage.0);
        let mut writer = self
            .write_log(branch, borders, previous, &[Written::Settled], seed)
            .await;
        let index = writer.cut_index(Wanted::Everything).unwrap().unwrap();
        index.run().await.unwrap();
    }

    async fn write_log(
        &self,
        branch: Branch,
        borders: &[u64],
        previous: u64,
        levels: &[Written],
        seed: u64,
    ) -> LogWriter {
        let repository = self.open().await;
        let place = LogStore::new(&repository, EngineKind::Postgres, &name())
            .place()
            .clone();
        let epoch = repository.new_id("log").unwrap();
        let mut writer = LogWriter::begin(&repository, place, branch, epoch).await.unwrap();
        let mut previous = previous;
        for pair in borders.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            let bytes = Bytes::from(log_bytes(seed, from, to));
            writer
                .append(Position(from), bytes, facts(from, to, previous))
                .unwrap();
            previous = from;
            for level in levels {
                let upload = match level {
                    Written::Live => writer.cut_live(self.segment, None),
                    Written::Settled => writer.cut_settled(self.segment, None),
                };
                let stored = upload.unwrap().unwrap().run().await.unwrap();
                writer.complete(&stored);
            }
        }
        writer
    }

    /// Live log of one writer, of whose uploads these, by number, never arrive.
    pub async fn log_overtaking(&self, branch: Branch, borders: &[u64], previous: u64, never: &[usize]) {
        let repository = self.open().await;
        let place = LogStore::new(&repository, EngineKind::Postgres, &name())
            .place()
            .clone();
        let epoch = repository.new_id("log").unwrap();
        let mut writer = LogWriter::begin(&repository, place, branch, epoch).await.unwrap();
        let mut previous = previous;
        for (number, pair) in borders.windows(2).enumerate() {
            let (from, to) = (pair[0], pair[1]);
            let bytes = Bytes::from(log_bytes(u64::from(branch.lineage.0), from, to));
            writer
                .append(Position(from), bytes, facts(from, to, previous))
                .unwrap();
            previous = from;
            let upload = writer.cut_live(self.segment, None).unwrap().unwrap();
            if !never.contains(&number) {
                upload.run().await.unwrap();
            }
        }
    }

    /// The records of the run that took a backup, as the job writes them; `figures` may leave out what earlier versions did.
    pub async fn committed(&self, head: &Head, figures: serde_json::Value) -> RunId {
        let (store, clock) = (Arc::new(self.memory.clone()), Arc::new(self.clock.clone()));
        let chance = Arc::new(SameSuffix::of(&head.backup));
        let repository = Repository::open(store, clock, chance, &[key(7)]).await.unwrap();
        let started = repository.run_started("backup", name().as_str()).await.unwrap();
        let run = started.run.clone();
        let record = RunFinished {
            started,
            finished: head.finished,
            result: RunResult::Succeeded,
            error: None,
            figures,
        };
        repository.run_finished(&record).await.unwrap();
        run
    }

    /// A settled range that holds the record which ended a backup.
    pub async fn log_ending(&self, branch: Branch, from: u64, to: u64, seed: u64, end: EndPoint) {
        let ends = |facts: &mut LogFacts| {
            facts.points.push(LogPoint {
                start: end.start,
                kind: LogPointKind::BackupEnd,
                name: None,
                time: None,
                crc: end.crc,
            });
        };
        self.settled(branch, from, to, seed, ends).await;
    }

    /// A settled range in which one transaction ended, with a record that began at `commit`.
    pub async fn log_committing(&self, branch: Branch, from: u64, to: u64, commit: u64) {
        let commits = |facts: &mut LogFacts| {
            facts.transactions = Some(TransactionBounds {
                count: 1,
                time_min: 0,
                time_max: 0,
                xid_min: 700,
                xid_max: 700,
                last_start: Position(commit),
                last_time: 0,
            });
        };
        self.settled(branch, from, to, u64::from(branch.lineage.0), commits)
            .await;
    }

    async fn settled(&self, branch: Branch, from: u64, to: u64, seed: u64, also: impl FnOnce(&mut LogFacts)) {
        let repository = self.open().await;
        let place = LogStore::new(&repository, EngineKind::Postgres, &name())
            .place()
            .clone();
        let epoch = repository.new_id("log").unwrap();
        let mut writer = LogWriter::begin(&repository, place, branch, epoch).await.unwrap();
        let mut facts = facts(from, to, 0);
        also(&mut facts);
        let bytes = Bytes::from(log_bytes(seed, from, to));
        writer.append(Position(from), bytes, facts).unwrap();
        let upload = writer.cut_settled(self.segment, None).unwrap().unwrap();
        writer.complete(&upload.run().await.unwrap());
    }

    /// A time mark.
    pub async fn mark(&self, branch: Branch, position: u64) {
        self.mark_at(branch, position, 5).await;
    }

    /// A time mark of this time of the source.
    pub async fn mark_at(&self, branch: Branch, position: u64, time: i64) {
        let repository = self.open().await;
        let place = LogStore::new(&repository, EngineKind::Postgres, &name())
            .place()
            .clone();
        let epoch = repository.new_id("log").unwrap();
        let mut writer = LogWriter::begin(&repository, place, branch, epoch).await.unwrap();
        let position = Position(position);
        let mark = LogMark { position, time };
        writer.cut_mark(mark).unwrap().run().await.unwrap();
    }
}

/// The positions in the name of a range.
pub fn range_of(key: &str) -> Option<LogRange> {
    let name = key.rsplit_once('/')?.1.split('.').next()?;
    let (from, to) = name.split_once('-')?;
    let position = |hex| u64::from_str_radix(hex, 16).ok().map(Position);
    LogRange::new(position(from)?, position(to)?)
}

pub fn key(byte: u8) -> Recipient {
    Recipient::Raw(SecretKey::new([byte; 32]))
}

fn facts(from: u64, to: u64, previous: u64) -> LogFacts {
    let records = RecordBounds {
        count: 1,
        first_start: Position(from),
        first_previous: Position(previous),
        last_start: Position(from),
        last_end: Position(to),
    };
    LogFacts {
        records: Some(records),
        ..LogFacts::default()
    }
}

fn header(role: EntryRole, path: &str, size: usize) -> EntryHeader {
    EntryHeader {
        role,
        path: EntryPath::new(path).unwrap(),
        kind: EntryKind::File,
        size: size as u64,
        mode: 0o600,
        modified: 0,
    }
}

async fn write_file(writer: &mut BaseWriter, number: u32, role: EntryRole, path: &str, content: Vec<u8>) {
    writer
        .open_entry(number, header(role, path, content.len()))
        .await
        .unwrap();
    writer.append(number, 0, &content).await.unwrap();
    writer.close_entry(number).await.unwrap();
}
