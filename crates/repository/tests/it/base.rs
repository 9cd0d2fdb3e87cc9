//! What a backup's writer stored, its reader gives back.
//!
//! Promise: every byte is compared; the heads say what is there.
//! Not here: single pages (pages), damage (tamper), crashes (crash).

use std::sync::Arc;

use backstay_codec::digest;
use backstay_repository::{BaseWriter, HeadVerdict, RepositoryError, expires_at};
use backstay_store::faults::{Fault, FaultyStore, When};
use backstay_store::{Key, Operation, Store, StoreError};
use backstay_terms::{ByteCount, EngineKind, EntryKind, EntryRole, RetentionClass};
use bytes::Bytes;
use jiff::SignedDuration;

use crate::support::*;

/// Every shape of entry that a server has; about 70 MiB, half of it incompressible.
fn many_entries() -> Vec<Entry> {
    const FRAME: usize = 256 << 10;
    let mut entries = vec![
        file("PG_VERSION", b"15\n".to_vec()),
        file("base/1/empty", vec![]),
        file("base/1/one", vec![42]),
        file(&b"base/1/not \xff utf-8 \xc3\x28"[..], prose(1, 300)),
        file("base/1/Gr\u{fc}\u{df}e \u{2603}\n", prose(2, 5000)),
        entry(EntryRole::Data, "pg_wal", EntryKind::Directory, vec![]),
        entry(EntryRole::Data, "pg_tblspc", EntryKind::Directory, vec![]),
        entry(
            EntryRole::Data,
            "pg_tblspc/16400",
            EntryKind::Link("/srv/space one".into()),
            vec![],
        ),
        entry(
            EntryRole::Tablespace(16400),
            "base/1/one",
            EntryKind::File,
            vec![43; 100],
        ),
        entry(
            EntryRole::Wal,
            "000000010000000000000002",
            EntryKind::File,
            prose(3, 1 << 20),
        ),
        entry(
            EntryRole::History,
            "00000002.history",
            EntryKind::File,
            b"1\t0/3000000\tno reason\n".to_vec(),
        ),
        entry(
            EntryRole::Settings,
            "settings.json",
            EntryKind::File,
            b"{}".to_vec(),
        ),
        entry(
            EntryRole::Configuration,
            "pg_hba.conf",
            EntryKind::File,
            prose(4, 77),
        ),
    ];
    for (n, length) in [
        FRAME - 1,
        FRAME,
        FRAME + 1,
        2 * FRAME - 1,
        2 * FRAME,
        2 * FRAME + 1,
        65_535,
        65_536,
        65_537,
    ]
    .iter()
    .enumerate()
    {
        entries.push(file(format!("base/2/{length}"), prose(1000 * n as u64, *length)));
    }
    entries.push(file("base/3/noise", noise(5, 40 << 20)));
    entries.push(file("base/3/prose", prose(6, 20 << 20)));
    entries.push(file("base/3/more-noise", noise(7, 6 << 20)));
    entries.extend((0..500).map(|n| file(format!("base/4/{n}"), prose(n, 37 * n as usize))));
    entries.push(manifest(prose(8, 100_000)));
    entries
}

/// Opens all entries, then takes turns: each gives a piece until all are done.
async fn write_interleaved(writer: &mut BaseWriter, entries: &[Entry]) {
    const PIECE: usize = 100_003;
    let files = || {
        entries
            .iter()
            .enumerate()
            .filter(|(_, e)| e.header.kind == EntryKind::File)
    };
    for (number, entry) in entries.iter().enumerate() {
        writer
            .open_entry(number as u32, entry.header.clone())
            .await
            .unwrap();
    }
    let longest = files().map(|(_, e)| e.content.len()).max().unwrap();
    for offset in (0..=longest).step_by(PIECE) {
        for (number, entry) in files() {
            let piece = entry.content.get(offset..).unwrap_or_default();
            let piece = &piece[..piece.len().min(PIECE)];
            if !piece.is_empty() {
                writer.append(number as u32, offset as u64, piece).await.unwrap();
            }
        }
    }
    for number in 0..entries.len() {
        writer.close_entry(number as u32).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_written_is_read_back_byte_by_byte() {
    let world = World::new();
    let entries = many_entries();
    let repository = world.init().await;
    let mut writer = BaseWriter::begin(&repository, order()).await.unwrap();
    write_interleaved(&mut writer, &entries).await;
    world.clock.advance(std::time::Duration::from_secs(60));
    let head = writer.commit(summary(HeadVerdict::Good)).await.unwrap();

    let repository = world.open().await;
    let reader = open_backup(&repository, &head).await.unwrap();
    assert_eq!(*reader.head(), head);
    let expected = contents_of(&entries);
    for parts in [1, 4] {
        assert!(
            read_whole(&reader, parts).await.unwrap() == expected,
            "{parts} parts"
        );
    }
    let manifest = entries.last().map(|entry| entry.content.clone());
    assert_eq!(reader.server_manifest().await.ok(), manifest);
    for row in reader.files().filter(|row| row.kind == EntryKind::File) {
        let (_, content) = &expected[&(row.role, row.path.clone())];
        assert_eq!(row.sha256, Some(digest(content)), "{}", row.path);
    }
    assert_totals(&world, &head, &entries, &reader);
}

fn assert_totals(
    world: &World,
    head: &backstay_repository::Head,
    entries: &[Entry],
    reader: &backstay_repository::BaseReader,
) {
    let packs = world.names("postgres-backups/data/");
    let tables = world.names("postgres-backups/tables/");
    let size = |key: &Key| world.body(key).len() as u64;
    assert!(
        packs.len() >= 2,
        "70 MiB of which 46 are noise need two packs: {}",
        packs.len()
    );
    assert!(packs.iter().all(|key| size(key) <= 32 << 20));
    let kept: Vec<&Entry> = entries
        .iter()
        .filter(|e| e.header.role != EntryRole::ServerManifest)
        .collect();
    let bytes: u64 = kept.iter().map(|e| e.content.len() as u64).sum();
    let stored: u64 = packs.iter().chain(&tables).map(size).sum();
    let totals = head.totals;
    assert_eq!(
        (totals.files, totals.packs),
        (kept.len() as u64, packs.len() as u32)
    );
    assert_eq!(
        (totals.bytes, totals.stored),
        (ByteCount(bytes), ByteCount(stored))
    );
    let listed: Vec<(&str, u64)> = reader.packs().map(|(name, size, _)| (name, size)).collect();
    let expected: Vec<(String, u64)> = packs
        .iter()
        .map(|key| {
            (
                key.as_str().rsplit('/').next().unwrap_or_default().to_owned(),
                size(key),
            )
        })
        .collect();
    let expected: Vec<(&str, u64)> = expected
        .iter()
        .map(|(name, size)| (name.as_str(), *size))
        .collect();
    assert_eq!(listed, expected);
    assert_eq!(
        head.expires_at,
        head.created + SignedDuration::from_hours(24 * 35)
    );
    assert_eq!(head.finished - head.created, SignedDuration::from_secs(60));
}

#[tokio::test]
async fn a_backup_of_nothing_has_no_pack_and_is_read_back() {
    let world = World::new();
    let head = back_up(&world.init().await, &[file("empty", vec![])])
        .await
        .unwrap();
    let repository = world.open().await;
    let reader = open_backup(&repository, &head).await.unwrap();
    assert_eq!(
        read_whole(&reader, 3).await.unwrap(),
        contents_of(&[file("empty", vec![])])
    );
    assert_eq!(
        (head.totals.packs, reader.server_manifest().await.unwrap()),
        (0, vec![])
    );
}

#[tokio::test]
async fn the_heads_of_a_source_come_oldest_first_and_say_what_was_said() {
    let world = World::new();
    let repository = world.init().await;
    let first = back_up(&repository, &[file("a", prose(1, 10))]).await.unwrap();
    world.clock.advance(std::time::Duration::from_secs(86_400));
    let mut writer = BaseWriter::begin(&repository, order()).await.unwrap();
    write_entries(&mut writer, &[file("a", prose(2, 20))])
        .await
        .unwrap();
    let damaged = writer.commit(summary(HeadVerdict::Damaged)).await.unwrap();
    let repository = world.open().await;
    let heads = repository.heads(EngineKind::Postgres, &source()).await.unwrap();
    assert_eq!(heads, [first.clone(), damaged.clone()]);
    assert_eq!(
        repository.sources().await.unwrap(),
        [(EngineKind::Postgres, source())]
    );
    // REPO-6: a damaged backup is complete, keeps its texts, and never counts.
    assert!(damaged.damage[0].contains("base/5/1259"));
    let now = world.clock().now();
    assert_eq!((first.is_usable(now), damaged.is_usable(now)), (true, false));
    let late = first.expires_at;
    assert!(!first.is_usable(late), "the promise ends at expires_at");
    let reader = open_backup(&repository, &damaged).await.unwrap();
    assert_eq!(
        read_whole(&reader, 1).await.unwrap(),
        contents_of(&[file("a", prose(2, 20))])
    );
}

#[test]
fn an_increment_is_promised_no_longer_than_its_full_can_serve_it() {
    let full: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let days = |n: i64| full + SignedDuration::from_hours(24 * n);
    for class in RetentionClass::ALL {
        assert_eq!(expires_at(class, full, full), days(class.days()));
        assert_eq!(expires_at(class, days(7), full), days(class.days() + 7));
        assert_eq!(expires_at(class, days(30), full), days(class.days() + 28));
    }
}

fn entry_of_a_directory() -> Entry {
    entry(EntryRole::Data, "pg_wal", EntryKind::Directory, vec![])
}

#[tokio::test]
async fn bytes_out_of_order_are_refused_and_no_head_appears() {
    let world = World::new();
    let repository = world.init().await;
    let mut writer = BaseWriter::begin(&repository, order()).await.unwrap();
    let entry = file("a", prose(1, 10));
    writer.open_entry(1, entry.header.clone()).await.unwrap();
    let refused = |error: RepositoryError| matches!(error, RepositoryError::OutOfOrder { .. });
    assert!(refused(
        writer.open_entry(1, entry.header.clone()).await.unwrap_err()
    ));
    assert!(refused(writer.append(2, 0, b"x").await.unwrap_err()));
    assert!(refused(writer.append(1, 1, b"x").await.unwrap_err()));
    writer.append(1, 0, b"short").await.unwrap();
    assert!(refused(writer.append(1, 0, b"again").await.unwrap_err()));
    assert!(
        refused(writer.close_entry(1).await.unwrap_err()),
        "10 bytes were announced, 5 came"
    );
    assert!(refused(writer.close_entry(1).await.unwrap_err()));
    let directory = entry_of_a_directory();
    writer.open_entry(3, directory.header).await.unwrap();
    assert!(
        refused(writer.append(3, 0, b"x").await.unwrap_err()),
        "a directory takes no bytes"
    );

    let mut writer = BaseWriter::begin(&repository, order()).await.unwrap();
    writer.open_entry(1, entry.header.clone()).await.unwrap();
    assert!(refused(
        writer.commit(summary(HeadVerdict::Good)).await.unwrap_err()
    ));
    assert_eq!(world.names("postgres-backups/manifests/"), []);
}

#[tokio::test]
async fn a_commit_is_refused_when_an_object_is_listed_that_was_not_written() {
    // REPO-4: the names and sizes that the store lists must equal what was written.
    let world = World::new();
    let repository = world.init().await;
    let mut writer = BaseWriter::begin(&repository, order()).await.unwrap();
    let stray = name_of(writer.place(), "tables", "/t0099");
    world.memory.overwrite(&stray, Bytes::from_static(b"planted"));
    write_entries(&mut writer, &[file("a", noise(1, 100))])
        .await
        .unwrap();
    let error = writer.commit(summary(HeadVerdict::Good)).await.unwrap_err();
    assert!(
        matches!(&error, RepositoryError::Differs { object, .. } if *object == stray.to_string()),
        "{error}"
    );
    assert_eq!(world.names("postgres-backups/manifests/"), []);
}

#[tokio::test]
async fn a_commit_is_refused_when_the_store_lost_what_it_said_it_stored() {
    let world = World::new();
    world.init().await;
    // Each put of a backup in turn but the head: wraps are read back, all else is listed.
    for put in 1..=6 {
        let faulty = Arc::new(FaultyStore::new(world.store()));
        faulty.add(When::Nth(Operation::Put, put), Fault::LostPut);
        let repository = world.open_over(faulty.clone(), &[raw_key(7)]).await.unwrap();
        let error = back_up(&repository, &[file("a", noise(1, 100))])
            .await
            .unwrap_err();
        let names_it = matches!(
            &error,
            RepositoryError::Differs { .. } | RepositoryError::Store(StoreError::NotFound { .. })
        );
        assert!(names_it, "put {put}: {error}");
        assert_eq!(faulty.unused(), []);
        assert_eq!(world.names("postgres-backups/manifests/"), [], "put {put}");
    }
}

#[tokio::test]
async fn an_object_that_lies_under_our_name_already_is_refused_and_left_as_it_is() {
    let world = World::new();
    let repository = world.init().await;
    let mut writer = BaseWriter::begin(&repository, order()).await.unwrap();
    let pack = name_of(writer.place(), "data", "/p00000");
    world
        .memory
        .overwrite(&pack, Bytes::from_static(b"somebody else's"));
    write_entries(&mut writer, &[file("a", noise(1, 100))])
        .await
        .unwrap();
    let error = writer.commit(summary(HeadVerdict::Good)).await.unwrap_err();
    assert!(matches!(&error, RepositoryError::Differs { object, .. } if *object == pack.to_string()));
    assert_eq!(world.body(&pack), Bytes::from_static(b"somebody else's"));
    assert_eq!(world.names("postgres-backups/manifests/"), []);
}

#[tokio::test]
async fn key_1_a_generation_older_than_31_days_seals_nothing() {
    let world = World::new();
    let repository = world.init().await;
    let mut writer = BaseWriter::begin(&repository, order()).await.unwrap();
    let entry = file("a", prose(1, 10));
    writer.open_entry(0, entry.header.clone()).await.unwrap();
    world.clock.advance(std::time::Duration::from_secs(31 * 86_400));
    writer.append(0, 0, &entry.content).await.unwrap();
    writer.close_entry(0).await.unwrap();
    world.clock.advance(std::time::Duration::from_secs(1));
    let too_old = |error: RepositoryError| matches!(error, RepositoryError::KeyTooOld { .. });
    assert!(too_old(writer.append(0, 0, &entry.content).await.unwrap_err()));
    assert!(too_old(
        writer.commit(summary(HeadVerdict::Good)).await.unwrap_err()
    ));
    assert_eq!(world.names("postgres-backups/manifests/"), []);
}

#[tokio::test]
async fn a_backup_is_not_committed_into_a_place_that_became_another_repository() {
    for replaced in [true, false] {
        let world = World::new();
        let repository = world.init().await;
        let mut writer = BaseWriter::begin(&repository, order()).await.unwrap();
        write_entries(&mut writer, &many_entries()[..3]).await.unwrap();
        let info = Key::new("repository.json").unwrap();
        world.memory.delete(&info).await.unwrap();
        let said = match replaced {
            true => {
                let other = br#"{"format":1,"repository":"0123456789abcdef0123456789abcdef","created":"2026-01-01T00:00:00Z"}"#;
                let put = world.memory.put_if_absent(&info, Bytes::from_static(other));
                put.await.unwrap();
                "repository.json says that this is repository 0123456789abcdef0123456789abcdef"
            }
            false => "repository.json is gone",
        };
        let refused = writer.commit(summary(HeadVerdict::Good)).await.unwrap_err();
        assert!(matches!(refused, RepositoryError::Replaced { .. }), "{refused}");
        assert!(refused.to_string().ends_with(said), "{refused}");
        let heads = world.names("").into_iter();
        let heads: Vec<Key> = heads.filter(|key| key.as_str().contains("/manifests/")).collect();
        assert_eq!(heads, []);
    }
}
