//! Any page of any file is read by ranged requests, and costs the sealed chunks of its frames alone.
//!
//! Promise: what a read may fetch is computed from the format document, by a second reader (raw).

use std::sync::Arc;

use backstay_clock::{Chance, SeededChance};
use backstay_repository::{BaseWriter, Head, HeadVerdict, PackReading};
use backstay_store::{Meter, MeteredStore, Operation, RangeRead};
use backstay_terms::EntryKind;

use crate::raw::RawBackup;
use crate::support::*;

const PAGE: u64 = 8192;

/// Files whose pages lie in frames with others, across frames, across packs, compressed well or not at all.
fn files() -> Vec<Entry> {
    let mut files = vec![file("empty", vec![]), file("short", prose(1, 100))];
    for n in 0..40 {
        files.push(file(
            format!("small/{n}"),
            prose(n * 1000, 8192 * (n as usize % 9)),
        ));
    }
    files.push(file("noise", noise(2, 34 << 20)));
    files.push(file("prose", prose(3, 5 << 20)));
    files.push(file("torn", noise(4, (1 << 20) + 4321)));
    files
}

/// Two large files in turns of 24 KiB, so that their extents alternate; all others one after the other.
async fn write(writer: &mut BaseWriter, files: &[Entry]) {
    let turns: Vec<usize> = (files.len() - 2..files.len()).collect();
    write_entries(writer, &files[..turns[0]]).await.unwrap();
    for number in &turns {
        let header = files[*number].header.clone();
        writer.open_entry(*number as u32, header).await.unwrap();
    }
    for offset in (0..8 << 20).step_by(24 << 10) {
        for number in &turns {
            let piece = files[*number].content.get(offset..).unwrap_or_default();
            let piece = &piece[..piece.len().min(24 << 10)];
            let offset = offset as u64;
            if !piece.is_empty() {
                writer.append(*number as u32, offset, piece).await.unwrap();
            }
        }
    }
    for number in turns {
        writer.close_entry(number as u32).await.unwrap();
    }
}

async fn backed_up(world: &World, files: &[Entry]) -> Head {
    let repository = world.init().await;
    let mut writer = BaseWriter::begin(&repository, order()).await.unwrap();
    write(&mut writer, files).await;
    writer.commit(summary(HeadVerdict::Good)).await.unwrap()
}

#[tokio::test]
async fn a_thousand_random_pages_cost_no_more_than_the_sealed_chunks_of_their_frames() {
    let (world, files) = (World::new(), files());
    let head = backed_up(&world, &files).await;
    let raw = RawBackup::read(&world.memory.snapshot(), &head.place(), [7; 32]);
    let meter = Meter::recording_reads();
    let metered = Arc::new(MeteredStore::new(world.store(), meter.clone()));
    let repository = world.open_over(metered, &[raw_key(7)]).await.unwrap();
    let reader = open_backup(&repository, &head).await.unwrap();

    let chance = SeededChance::new(1);
    let (mut fetched, mut bound) = (0, 0);
    for _ in 0..1000 {
        let number = (chance.next_u64() % files.len() as u64) as usize;
        let content = &files[number].content;
        let pages = (content.len() as u64).div_ceil(PAGE).max(1);
        let from = chance.next_u64() % pages * PAGE;
        let row = reader.files().find(|row| row.n == number as u32).unwrap();
        meter.reset();
        let page = reader.read_range(&row, from..from + PAGE).await.unwrap();
        let expected = &content[from as usize..content.len().min((from + PAGE) as usize)];
        assert!(page == expected, "{} at {from}", row.path);

        let frames = raw.frames_of(row.n, from..(from + PAGE).min(row.size));
        let allowed: Vec<RangeRead> = frames
            .iter()
            .map(|frame| raw.sealed_chunks_of(*frame))
            .map(|(key, range)| RangeRead { key, range })
            .collect();
        assert_eq!(meter.reads(), allowed, "{} at {from}", row.path);
        let tallies = meter.tallies();
        assert!(
            tallies.keys().all(|operation| *operation == Operation::GetRange),
            "{tallies:?}"
        );
        fetched += meter.tally(Operation::GetRange).bytes_read;
        bound += allowed
            .iter()
            .map(|read| read.range.end - read.range.start)
            .sum::<u64>();
    }
    assert!(fetched <= bound);
    println!("measured: 1000 pages of 8 KiB by ranged requests: {fetched} bytes fetched, {bound} allowed");
}

#[tokio::test]
async fn a_range_is_cut_at_the_end_of_its_file_and_an_empty_one_costs_nothing() {
    let (world, files) = (World::new(), files());
    let head = backed_up(&world, &files).await;
    let meter = Meter::recording_reads();
    let metered = Arc::new(MeteredStore::new(world.store(), meter.clone()));
    let repository = world.open_over(metered, &[raw_key(7)]).await.unwrap();
    let reader = open_backup(&repository, &head).await.unwrap();
    let torn = row(&reader, "torn");
    assert_eq!(torn.kind, EntryKind::File);
    let content = &files.last().map(|file| file.content.clone()).unwrap();
    let size = torn.size;
    for range in [
        0..size,
        1..2,
        size - 1..size + 5000,
        24_575..24_577,
        262_143..262_145,
    ] {
        let wanted = &content[range.start as usize..(range.end.min(size)) as usize];
        assert!(
            reader.read_range(&torn, range.clone()).await.unwrap() == wanted,
            "{range:?}"
        );
    }
    meter.reset();
    for range in [0..0, 100..100, size..size, size..size + 1, size + 9..size + 10] {
        assert_eq!(reader.read_range(&torn, range).await.unwrap(), Vec::<u8>::new());
    }
    assert_eq!(meter.reads(), []);
}

/// Bytes of sealed chunks in a request of 512 KiB of plaintext.
const REQUEST_MAX: u64 = 8 * (65_536 + 16);

#[tokio::test]
async fn whole_files_come_in_few_requests_and_no_chunk_is_fetched_twice() {
    let mut files: Vec<Entry> = (0..200)
        .map(|n| file(format!("small/{n}"), prose(n * 77, 50_000)))
        .collect();
    files.push(file("noise", noise(2, 70 << 20)));
    files.push(file("torn", noise(4, (1 << 20) + 4321)));
    let world = World::new();
    let repository = world.init().await;
    let head = back_up(&repository, &files).await.unwrap();
    let meter = Meter::recording_reads();
    let metered = Arc::new(MeteredStore::new(world.store(), meter.clone()));
    let repository = world.open_over(metered, &[raw_key(7)]).await.unwrap();
    let reader = open_backup(&repository, &head).await.unwrap();
    let sealed: u64 = reader.packs().map(|(_, size, _)| size - 112).sum();
    let packs = reader.packs().count() as u64;
    for parts in [1, 3] {
        meter.reset();
        let contents = read_whole(&reader, parts).await.unwrap();
        assert!(contents == contents_of(&files), "{parts}");
        let reads: Vec<RangeRead> = meter.reads();
        assert!(
            reads
                .iter()
                .all(|read| read.range.end - read.range.start <= REQUEST_MAX)
        );
        let fetched: u64 = reads.iter().map(|read| read.range.end - read.range.start).sum();
        match parts {
            1 => assert_eq!(fetched, sealed, "every chunk once"),
            // Where two parts meet, both need the chunk; and the last request of each reaches further than its part.
            parts => assert!(
                fetched <= sealed + parts as u64 * (REQUEST_MAX + 3 * 65_552),
                "{fetched}"
            ),
        }
        let needed = sealed.div_ceil(REQUEST_MAX) + packs + parts as u64;
        assert!(
            reads.len() as u64 <= needed,
            "{} requests, {needed} are enough",
            reads.len()
        );
        println!(
            "measured: {fetched} bytes of {packs} packs in {} requests, {parts} readers",
            reads.len()
        );
    }
}

#[tokio::test]
async fn a_file_that_is_read_alone_costs_what_it_holds_and_files_may_come_in_any_order() {
    let (world, files) = (World::new(), files());
    let head = backed_up(&world, &files).await;
    let meter = Meter::recording_reads();
    let metered = Arc::new(MeteredStore::new(world.store(), meter.clone()));
    let repository = world.open_over(metered, &[raw_key(7)]).await.unwrap();
    let reader = open_backup(&repository, &head).await.unwrap();
    let mut cursor = reader.cursor(PackReading::ByRanges);
    for path in [
        "torn", "small/7", "noise", "prose", "small/39", "short", "empty", "torn",
    ] {
        let row = row(&reader, path);
        let mut content = Vec::new();
        let take = |piece: &[u8]| {
            content.extend_from_slice(piece);
            Ok(())
        };
        cursor.read_file(&row, take).await.unwrap();
        assert!(content == files[row.n as usize].content, "{path}");
    }
    meter.reset();
    let small = row(&reader, "small/8");
    reader
        .cursor(PackReading::ByRanges)
        .read_file(&small, |_| Ok(()))
        .await
        .unwrap();
    assert_eq!(meter.tally(Operation::GetRange).calls(), 1);
}

#[tokio::test]
async fn a_changed_chunk_is_refused_by_name_and_what_lies_elsewhere_is_read() {
    let world = World::new();
    let files = [
        file("first", noise(1, 3 << 20)),
        file("second", noise(2, 9 << 20)),
    ];
    let repository = world.init().await;
    let head = back_up(&repository, &files).await.unwrap();
    let key = name_of(&head.place(), "data", "/p00000");
    let body = world.body(&key);
    for at in [112, 112 + 70_000, body.len() / 2, body.len() - 1] {
        let mut changed = body.to_vec();
        changed[at] ^= 1;
        world.memory.overwrite(&key, changed.into());
        let reader = open_backup(&world.open().await, &head).await.unwrap();
        let mut cursor = reader.cursor(PackReading::ByRanges);
        let mut refused = 0;
        // Twice: what a refused chunk left behind is never taken for content.
        for path in ["first", "second", "first", "second"] {
            let row = row(&reader, path);
            let expected = &files[row.n as usize].content;
            let mut content = Vec::new();
            let take = |piece: &[u8]| {
                content.extend_from_slice(piece);
                Ok(())
            };
            match cursor.read_file(&row, take).await {
                Ok(()) => assert!(content == *expected, "{path}, changed at {at}"),
                Err(error) => {
                    assert!(error.to_string().contains(key.as_str()), "{error}");
                    assert!(expected.starts_with(&content), "{path}, changed at {at}");
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, 2, "changed at {at}");
    }
}
