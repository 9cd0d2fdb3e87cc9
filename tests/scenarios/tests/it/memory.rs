//! The memory of a backup and of a restore does not grow with the database and stays under the ceiling.
//!
//! Promise: what is measured is a process of its own that runs the whole job: a backup from a source's steps to a store
//! that is as slow as a distant one, a restore from a directory to a target that takes everything. It runs under a hard
//! limit where one can be set (cage), and the kernel's figure (VmHWM) is compared in any case.
//! Not here: the PostgreSQL client in front of a backup, and a data directory behind a restore (their buffers are bounded
//! in their own tests).

mod cage;
mod replay;

use async_trait::async_trait;
use backstay_clock::{SeededChance, SystemClock};
use backstay_codec::SecretKey;
use backstay_engine::Silent;
use backstay_engine::jobs::backup::BackupJob;
use backstay_engine::jobs::fetch::{FetchJob, Fetched};
use backstay_engine::jobs::restore::{RestoreJob, Restored};
use backstay_engine::plan::{Catalog, RestorePlan, SegmentPlan};
use backstay_repository::{
    AttachReason, Head, HeadLog, LineageKind, LineageRecord, LogStore, LogWriter, Recipient, Repository,
};
use backstay_source::{
    Checkpoint, Evidence, FileSink, Need, Recovery, RecoveryAction, RecoveryStop, Rehearsal, Restore,
    SourceError, SourceErrorKind, Space, StartRequest, Ticket, WalDelivery,
};
use backstay_store::{LocalDirectory, Store};
use backstay_terms::{
    Branch, EngineKind, EntryHeader, Lineage, LogFacts, LogRange, Position, RecoveryTarget, RetentionClass,
    SourceName, Timeline, WalFileName, WalSegmentSize,
};
use cage::{CEILING_KIB, own_peak_kib, peak_of};
use replay::{Forgetful, Replayed, half_random};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a restore with two workers from a directory stays under: half of the ceiling.
const RESTORE_KIB: u64 = 64 << 10;

/// What the fetch of one segment stays under: less than the segment has.
const FETCH_KIB: u64 = 60 << 10;

/// The tests below that are run in processes of their own, and what they are told.
const BACKUP: &str = "memory::a_replayed_base_in_a_process_of_its_own";
const RESTORE: &str = "memory::a_restore_in_a_process_of_its_own";
const FETCH: &str = "memory::a_fetch_in_a_process_of_its_own";
const BYTES: &str = "BACKSTAY_REPLAY_BYTES";
const FILES: &str = "BACKSTAY_REPLAY_FILES";
const PLACE: &str = "BACKSTAY_REPLAY_PLACE";
const WORKERS: &str = "BACKSTAY_REPLAY_WORKERS";

/// A segment, of which initdb allows up to 1 GiB, is larger than what a restore may hold.
const SEGMENT: u64 = 64 << 20;
/// Segments of log that a restore assembles beside the base.
const SEGMENTS: u64 = 2;
/// A settled range of the log.
const SETTLED: u64 = 16 << 20;
/// Where the log begins.
const BEGINS: u64 = SEGMENT;

fn name() -> SourceName {
    "orders".parse().unwrap()
}

fn key() -> Recipient {
    Recipient::Raw(SecretKey::new([7; 32]))
}

async fn made(store: Arc<dyn Store>) -> Repository {
    let (clock, chance) = (Arc::new(SystemClock::new()), Arc::new(SeededChance::new(9)));
    Repository::init(store, clock, chance, &[key()]).await.unwrap()
}

async fn directory(place: &Path) -> Arc<dyn Store> {
    let opened = LocalDirectory::open(place, Arc::new(SystemClock::new())).await;
    Arc::new(opened.unwrap())
}

async fn replayed(repository: Repository, bytes: u64, files: u32) -> Head {
    let job = BackupJob {
        name: name(),
        source: Arc::new(Replayed { bytes, files }),
        repository,
        class: RetentionClass::Days35,
        checkpoint: Checkpoint::Fast,
        rate_max: None,
        scratch: std::env::temp_dir(),
        observer: Arc::new(Silent),
    };
    job.run().await.unwrap()
}

fn branch() -> Branch {
    Branch {
        system: 7,
        timeline: 1,
        lineage: Lineage(1),
    }
}

/// Settled log of whole segments, every second byte of it random.
async fn log(repository: &Repository) {
    let log = LogStore::new(repository, EngineKind::Postgres, &name());
    let epoch = repository.new_id("log").unwrap();
    let record = LineageRecord {
        format: 1,
        kind: LineageKind::Attach,
        id: repository.new_id("attach").unwrap(),
        created: repository.now(),
        branch: branch(),
        from: Position(BEGINS),
        history: None,
        parent: None,
        reason: AttachReason::First,
        epoch: epoch.clone(),
        segment_size: SEGMENT,
        server_end: Position(BEGINS),
        frontier: None,
        over: vec![],
        moved: None,
        after: None,
    };
    log.put_record(&record).await.unwrap();
    let mut writer = LogWriter::begin(repository, log.place().clone(), branch(), epoch)
        .await
        .unwrap();
    let pool = half_random(&SeededChance::new(3));
    for begins in (BEGINS..BEGINS + SEGMENTS * SEGMENT).step_by(pool.len()) {
        writer
            .append(Position(begins), pool.clone(), LogFacts::default())
            .unwrap();
        if (begins + pool.len() as u64).is_multiple_of(SETTLED) {
            let stored = writer
                .cut_settled(SEGMENT, None)
                .unwrap()
                .unwrap()
                .run()
                .await
                .unwrap();
            writer.complete(&stored);
        }
    }
}

/// A target that takes everything and keeps nothing.
#[derive(Debug, Default)]
struct Taker {
    bytes: Arc<AtomicU64>,
}

struct TakerSink(Arc<AtomicU64>);

impl FileSink for TakerSink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        self.0.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), SourceError> {
        Ok(())
    }
}

#[async_trait]
impl Restore for Taker {
    fn inspect(&self, _: &Need, _: &Ticket) -> Result<(), SourceError> {
        Ok(())
    }

    fn inspect_start(&self, _: &Need, _: &StartRequest) -> Result<(), SourceError> {
        Err(SourceError::new(SourceErrorKind::Local, "nothing to start", ""))
    }

    fn space(&self, need: &Need) -> Result<Space, SourceError> {
        Ok(Space {
            needed: need.bytes,
            free: u64::MAX,
        })
    }

    async fn rehearse(&self, _: &Rehearsal) -> Result<(), SourceError> {
        Err(SourceError::new(
            SourceErrorKind::Local,
            "nothing to rehearse",
            "",
        ))
    }

    fn begin(&self, _: &Ticket) -> Result<(), SourceError> {
        Ok(())
    }

    fn place(&self, _: &EntryHeader) -> Result<Box<dyn FileSink>, SourceError> {
        Ok(Box::new(TakerSink(self.bytes.clone())))
    }

    fn finish(&self, _: &Recovery) -> Result<(), SourceError> {
        Ok(())
    }

    async fn start(&self, _: &StartRequest, _: &Recovery) -> Result<Evidence, SourceError> {
        Err(SourceError::new(SourceErrorKind::Local, "nothing to start", ""))
    }
}

/// The newest backup, and all of the log.
fn plan(catalog: &Catalog) -> RestorePlan {
    let size = WalSegmentSize::new(SEGMENT).unwrap();
    let segment = |number: u64| {
        let needed = LogRange {
            from: Position(BEGINS + number * SEGMENT),
            to: Position(BEGINS + (number + 1) * SEGMENT),
        };
        let at = size.segment_holding(needed.from.into());
        SegmentPlan {
            name: WalFileName::new(Timeline(1), at, size),
            begins: needed.from,
            needed,
        }
    };
    let stop = Position(BEGINS + 100);
    RestorePlan {
        head: catalog.heads.last().unwrap().clone(),
        log: HeadLog {
            system: 7,
            timeline: 1,
            start: Position(BEGINS),
            stop,
            segment_size: SEGMENT,
            stop_time: 0,
            end_point: None,
        },
        timeline: 1,
        stop: RecoveryStop::After(stop),
        time: None,
        outcome: None,
        segments: (0..SEGMENTS).map(segment).collect(),
        needs: Position(BEGINS + SEGMENTS * SEGMENT),
        written_by_log: vec![],
        passed_over: vec![],
        timeline_highest: 1,
        target: RecoveryTarget::Latest,
    }
}

async fn restored(place: &Path, workers: usize) -> (Restored, u64) {
    let (clock, chance) = (Arc::new(SystemClock::new()), Arc::new(SeededChance::new(10)));
    let repository = Repository::open(directory(place).await, clock, chance, &[key()])
        .await
        .unwrap();
    let catalog = Catalog::read(&repository, EngineKind::Postgres, &name(), None)
        .await
        .unwrap();
    let target = Arc::new(Taker::default());
    let taken = target.bytes.clone();
    let job = RestoreJob {
        plan: plan(&catalog),
        repository,
        catalog,
        target,
        action: RecoveryAction::Pause,
        delivery: WalDelivery::Placed,
        start: None,
        observer: Arc::new(Silent),
        workers,
    };
    let restored = job.run().await.unwrap();
    (restored, taken.load(Ordering::Relaxed))
}

fn told(name: &str) -> u64 {
    std::env::var(name).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the tests below"]
async fn a_replayed_base_in_a_process_of_its_own() {
    let (bytes, files) = (told(BYTES), told(FILES) as u32);
    let head = replayed(made(Arc::new(Forgetful::new())).await, bytes, files).await;
    assert_eq!(
        (head.totals.bytes.0, head.totals.files),
        (bytes, u64::from(files))
    );
    assert!(head.totals.stored.0 > bytes / 2, "the content is too easy");
    let mib = bytes >> 20;
    let (peak, packs) = (own_peak_kib(), head.totals.packs);
    println!("measured: backup of {mib} MiB in {files} files, {packs} packs: peak memory {peak} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the tests below"]
async fn a_restore_in_a_process_of_its_own() {
    let (bytes, files, workers) = (told(BYTES), told(FILES), told(WORKERS));
    let place = PathBuf::from(std::env::var_os(PLACE).unwrap());
    let (restored, taken) = restored(&place, workers as usize).await;
    assert_eq!((restored.files, restored.bytes), (files, bytes));
    assert_eq!(taken, bytes + SEGMENTS * SEGMENT);
    let (mib, peak) = (bytes >> 20, own_peak_kib());
    println!(
        "measured: restore of {mib} MiB in {files} files and {SEGMENTS} segments, {workers} workers: peak memory {peak} KiB"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the tests below"]
async fn a_fetch_in_a_process_of_its_own() {
    let place = PathBuf::from(std::env::var_os(PLACE).unwrap());
    let (clock, chance) = (Arc::new(SystemClock::new()), Arc::new(SeededChance::new(10)));
    let repository = Repository::open(directory(&place).await, clock, chance, &[key()])
        .await
        .unwrap();
    let destination = place.with_extension("segment");
    let size = WalSegmentSize::new(SEGMENT).unwrap();
    let job = FetchJob {
        repository,
        engine: EngineKind::Postgres,
        name: name(),
        lineage: None,
        base: None,
        until: None,
        file: WalFileName::new(Timeline(1), size.segment_holding(Position(BEGINS).into()), size).to_string(),
        destination: destination.clone(),
    };
    let fetched = job.run().await.unwrap();
    assert_eq!(fetched, Fetched::Delivered { bytes: SEGMENT });
    let peak = own_peak_kib();
    let pool = half_random(&SeededChance::new(3));
    let (mut written, mut part) = (std::fs::File::open(&destination).unwrap(), vec![0; pool.len()]);
    std::fs::remove_file(&destination).unwrap();
    for _ in 0..SEGMENT / pool.len() as u64 {
        written.read_exact(&mut part).unwrap();
        assert!(part == pool);
    }
    println!(
        "measured: fetch of a segment of {} MiB: peak memory {peak} KiB",
        SEGMENT >> 20
    );
}

/// A directory that goes with the test.
struct Room(PathBuf);

impl Room {
    fn new() -> Room {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("backstay-memory-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Room(path)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn backup_stays_under_its_ceiling(bytes: u64, files: u64) {
    let told = [(BYTES, bytes.to_string()), (FILES, files.to_string())];
    let peak = peak_of(BACKUP, &told);
    assert!(peak < CEILING_KIB, "{peak} KiB is not under {CEILING_KIB} KiB");
}

async fn restores_stay_under(bytes: u64, files: u64, ceilings: &[(u64, u64)]) {
    let room = Room::new();
    let repository = made(directory(&room.0).await).await;
    replayed(repository.clone(), bytes, files as u32).await;
    log(&repository).await;
    for (workers, ceiling) in ceilings {
        let told = [
            (BYTES, bytes.to_string()),
            (FILES, files.to_string()),
            (WORKERS, workers.to_string()),
            (PLACE, room.0.to_str().unwrap().to_owned()),
        ];
        let peak = peak_of(RESTORE, &told);
        assert!(
            peak < *ceiling,
            "{workers} workers: {peak} KiB is not under {ceiling} KiB"
        );
    }
}

#[test]
fn a_backup_of_one_gibibyte_stays_under_its_ceiling() {
    backup_stays_under_its_ceiling(1 << 30, 15_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_of_one_gibibyte_stays_under_its_ceiling() {
    restores_stay_under(1 << 30, 15_000, &[(2, RESTORE_KIB), (8, CEILING_KIB)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_of_a_large_segment_holds_a_part_of_it() {
    let room = Room::new();
    log(&made(directory(&room.0).await).await).await;
    let peak = peak_of(FETCH, &[(PLACE, room.0.to_str().unwrap().to_owned())]);
    assert!(peak < FETCH_KIB, "{peak} KiB is not under {FETCH_KIB} KiB");
}

#[test]
#[ignore = "run by scripts/bench, which tells the size"]
fn a_backup_of_any_size_stays_under_its_ceiling() {
    backup_stays_under_its_ceiling(told(BYTES), told(FILES));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by scripts/bench, which tells the size"]
async fn a_restore_of_any_size_stays_under_its_ceiling() {
    let ceilings = [(2, CEILING_KIB), (8, CEILING_KIB)];
    restores_stay_under(told(BYTES), told(FILES), &ceilings).await;
}
