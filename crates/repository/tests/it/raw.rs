//! A second reader of a backup, from the format document alone: no code of the repository is used.
//!
//! Promise: knows where every byte of a file lies in the sealed packs, so that tests can bound what a read may cost.
//! Not here: the cryptography itself, which the codec's known answers check.

use std::collections::HashMap;

use backstay_codec::{Decompressor, FrameError, KeySet, Kind, SecretKey, Wrap, unseal};
use backstay_repository::layout::BackupPlace;
use backstay_store::{Key, MemoryImage};

use crate::support::name_of;

/// A record of the extent table.
#[derive(Debug, Clone, Copy)]
pub struct RawExtent {
    pub frame: u32,
    pub length: u32,
    pub offset: u64,
}

/// A record of the frame table.
#[derive(Debug, Clone, Copy)]
pub struct RawFrame {
    pub pack: u32,
    pub position: u32,
    pub compressed: u32,
}

/// The tables of a backup.
#[derive(Debug)]
pub struct RawBackup {
    pub place: BackupPlace,
    pub extents: HashMap<u32, Vec<RawExtent>>,
    pub frames: Vec<RawFrame>,
    /// The sealed size of every pack.
    pub packs: Vec<u64>,
}

/// The keys of a generation, by its wrap for a master key.
pub fn keys(image: &MemoryImage, place: &BackupPlace, master: [u8; 32]) -> KeySet {
    let stem = format!(
        "postgres-backups/keys/{}/{}/{}.",
        place.class, place.source, place.generation
    );
    let (_, wrap) = image
        .objects()
        .find(|(key, _)| key.as_str().starts_with(&stem))
        .unwrap();
    let envelope = format!("postgres/{}/{}", place.source, place.generation);
    let wrap = Wrap::from_json(wrap).unwrap();
    wrap.open_raw(&envelope, &SecretKey::new(master)).unwrap()
}

fn logical(place: &BackupPlace, rest: &str) -> String {
    format!(
        "postgres/{}/{}/{}/{rest}",
        place.source, place.generation, place.backup
    )
}

fn numbers(record: &[u8], count: usize) -> Vec<u32> {
    let word = |n: usize| u32::from_be_bytes(record[4 * n..4 * n + 4].try_into().unwrap());
    (0..count).map(word).collect()
}

impl RawBackup {
    pub fn read(image: &MemoryImage, place: &BackupPlace, master: [u8; 32]) -> RawBackup {
        let keys = keys(image, place, master);
        let open = |name: &str, kind: Kind, plain: usize| {
            let object = image.get(&name_of(place, "tables", &format!("/{name}"))).unwrap();
            let key = keys.get(kind.key_class()).unwrap();
            let compressed = unseal(kind, key, &logical(place, name), object).unwrap();
            Decompressor::new()
                .unwrap()
                .decompress(&compressed, plain)
                .unwrap()
        };
        let head = image.get(&name_of(place, "manifests", "")).unwrap();
        let facts = keys.facts.as_ref().unwrap();
        let head = unseal(Kind::Head, facts, &logical(place, "head"), head).unwrap();
        let head: serde_json::Value = serde_json::from_slice(&head).unwrap();
        assert_eq!(head["root"]["name"], "t0000");
        let root = image.get(&name_of(place, "tables", "/t0000")).unwrap();
        let root = unseal(Kind::RootTable, facts, &logical(place, "t0000"), root).unwrap();
        // Its plain length is recorded nowhere: the frame's own statement decides, below a bound.
        let mut decompressor = Decompressor::new().unwrap();
        let Err(FrameError::Length { found, .. }) = decompressor.decompress(&root, 0) else {
            panic!("the root table is not a zstd frame with its length");
        };
        let root = decompressor.decompress(&root, found as usize).unwrap();
        let root: serde_json::Value = serde_json::from_slice(&root).unwrap();
        let mut backup = RawBackup {
            place: place.clone(),
            extents: HashMap::new(),
            frames: vec![],
            packs: vec![],
        };
        for table in root["tables"].as_array().unwrap() {
            let (name, plain) = (
                table["name"].as_str().unwrap(),
                table["plain"].as_u64().unwrap() as usize,
            );
            match table["kind"].as_str().unwrap() {
                "extent-table" => backup.take_extents(&open(name, Kind::ExtentTable, plain)),
                "frame-table" => backup.take_frames(&open(name, Kind::FrameTable, plain)),
                "pack-list" => backup.take_packs(&open(name, Kind::PackList, plain)),
                _ => {}
            }
        }
        backup
    }

    fn take_extents(&mut self, table: &[u8]) {
        for record in table.chunks(24) {
            let words = numbers(record, 4);
            let offset = u64::from_be_bytes(record[16..24].try_into().unwrap());
            let (entry, frame, length) = (words[0], words[1], words[3]);
            self.extents.entry(entry).or_default().push(RawExtent {
                frame,
                length,
                offset,
            });
        }
    }

    fn take_frames(&mut self, table: &[u8]) {
        for record in table.chunks(16) {
            let words = numbers(record, 4);
            let (pack, position, compressed) = (words[0], words[1], words[2]);
            self.frames.push(RawFrame {
                pack,
                position,
                compressed,
            });
        }
    }

    fn take_packs(&mut self, table: &[u8]) {
        for line in table.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let row: serde_json::Value = serde_json::from_slice(line).unwrap();
            self.packs.push(row["size"].as_u64().unwrap());
        }
    }

    /// The frames that hold these bytes of an entry.
    pub fn frames_of(&self, entry: u32, range: std::ops::Range<u64>) -> Vec<u32> {
        let extents = self.extents.get(&entry).map_or(&[][..], Vec::as_slice);
        let touched = extents
            .iter()
            .filter(|e| e.offset < range.end && e.offset + u64::from(e.length) > range.start);
        touched.map(|e| e.frame).collect()
    }

    /// The object and the bytes of the sealed chunks that hold a frame: section 2 of the format.
    pub fn sealed_chunks_of(&self, frame: u32) -> (Key, std::ops::Range<u64>) {
        let frame = self.frames[frame as usize];
        let (first, end) = (
            u64::from(frame.position),
            u64::from(frame.position + frame.compressed),
        );
        let (first_chunk, last_chunk) = (first / 65_536, (end - 1) / 65_536);
        let size = self.packs[frame.pack as usize];
        let range = 112 + first_chunk * 65_552..(112 + (last_chunk + 1) * 65_552).min(size);
        (
            name_of(&self.place, "data", &format!("/p{:05}", frame.pack)),
            range,
        )
    }
}
