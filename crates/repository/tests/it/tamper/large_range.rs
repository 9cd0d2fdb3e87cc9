//! A range of several chunks: every part of its object matters, and what is damaged is named by its part.
//!
//! Promise: both containers by every byte of index and headers, by the borders of every chunk and by places of chance.

use std::collections::BTreeSet;

use backstay_clock::{Chance, SeededChance};
use backstay_repository::layout::Level;
use backstay_repository::{RangeIndex, RepositoryError, StoredRange};
use backstay_store::Key;
use backstay_terms::{LogFacts, Position};
use bytes::Bytes;

use super::changes::{few_changes, flipped};
use super::{Refusal, refusal};
use crate::log::{begin, branch, log_store, store};
use crate::support::*;

const LENGTH: u64 = 400_000;
const HEADER: usize = 112;
const SEALED_CHUNK: usize = 65_552;

/// Two large ranges, one after the other; the first is changed.
struct Scene {
    world: World,
    keys: Vec<Key>,
    ranges: Vec<StoredRange>,
}

type Read = (Result<RangeIndex, Refusal>, Result<Bytes, Refusal>);

impl Scene {
    async fn new() -> Scene {
        let world = World::new();
        let mut writer = begin(&world.init().await, branch(1, 1)).await;
        for number in [0, 1] {
            let bytes = noise(number, LENGTH as usize).into();
            writer
                .append(Position(number * LENGTH), bytes, LogFacts::default())
                .unwrap();
            let upload = writer.cut_settled(1 << 30, None).unwrap();
            store(&mut writer, upload).await;
        }
        let repository = world.open().await;
        let ranges = log_store(&repository).ranges(&branch(1, 1), None).await.unwrap();
        let place = log_store(&repository).place().clone();
        let key = |stored: &StoredRange| {
            place
                .range(Level::Settled, &branch(1, 1), &stored.name)
                .unwrap()
                .key
        };
        Scene {
            keys: ranges.iter().map(key).collect(),
            ranges,
            world,
        }
    }

    fn body(&self, number: usize) -> Bytes {
        self.world.body(&self.keys[number])
    }

    /// Reads the first range, by its index alone and whole, when it has these bytes.
    async fn read(&self, body: impl Into<Bytes>) -> Read {
        let body = body.into();
        let stored = StoredRange {
            size: body.len() as u64,
            ..self.ranges[0].clone()
        };
        let original = self.body(0);
        self.world.memory.overwrite(&self.keys[0], body);
        let repository = self.world.open().await;
        let log = log_store(&repository);
        let alone = log.index_of(&stored).await;
        let whole = log.range(&stored).await;
        self.world.memory.overwrite(&self.keys[0], original);
        let named = |error: RepositoryError| {
            assert!(error.to_string().contains(self.keys[0].as_str()), "{error}");
            refusal(&error).unwrap_or_else(|| panic!("{error:?}"))
        };
        (alone.map_err(named), whole.map(|(_, bytes)| bytes).map_err(named))
    }
}

/// Bytes of the index container.
fn index_length(body: &[u8]) -> usize {
    let plain = u32::from_be_bytes(body[12..16].try_into().unwrap());
    HEADER + plain as usize + 16
}

#[tokio::test]
async fn every_byte_of_the_index_and_of_the_header_of_a_large_range_matters() {
    let scene = Scene::new().await;
    let original = scene.body(0);
    let index = index_length(&original);
    assert!(
        original.len() > index + HEADER + 6 * SEALED_CHUNK,
        "several chunks"
    );
    let (mut of_index, mut of_header) = (BTreeSet::new(), BTreeSet::new());
    for place in 0..index + HEADER {
        let (alone, whole) = scene.read(flipped(&original, place, 1 << (place % 8)).body).await;
        let whole = whole.expect_err("a changed byte is refused");
        if place < index {
            alone.expect_err("the index alone is refused, too");
            of_index.insert(whole);
        } else {
            alone.expect("the index is whole");
            of_header.insert(whole);
        }
    }
    let causes = BTreeSet::from([Refusal::Key, Refusal::Name, Refusal::Content]);
    assert_eq!((&of_index, &of_header), (&causes, &causes));
}

#[tokio::test]
async fn every_chunk_of_a_large_range_matters() {
    let scene = Scene::new().await;
    let original = scene.body(0);
    let begins = index_length(&original) + HEADER;
    let chance = SeededChance::new(3);
    let random = (0..200).map(|_| begins + chance.next_u64() as usize % (original.len() - begins));
    let borders = (begins..original.len()).step_by(SEALED_CHUNK).flat_map(|border| {
        let tag = (border + SEALED_CHUNK).min(original.len()) - 16;
        [border, border + 1, tag - 1, tag, tag + 15]
    });
    for place in borders.chain(random) {
        let (alone, whole) = scene.read(flipped(&original, place, 0x40).body).await;
        assert_eq!(whole.unwrap_err(), Refusal::Content, "byte {place}");
        alone.expect("the index is whole");
    }
    let mut changes = few_changes(&original, 0);
    changes.retain(|change| change.body.len() != original.len());
    assert!(
        changes.len() > 20,
        "cut around the borders of its chunks, and extended"
    );
    for change in changes {
        let (_, whole) = scene.read(change.body).await;
        assert_eq!(whole.unwrap_err(), Refusal::Content, "{}", change.what);
    }
}

#[tokio::test]
async fn the_parts_of_a_large_range_serve_in_their_own_places_alone() {
    let scene = Scene::new().await;
    let (mine, other) = (scene.body(0), scene.body(1));
    let (index, data) = mine.split_at(index_length(&mine));
    let (other_index, other_data) = other.split_at(index_length(&other));
    let (header, chunks) = data.split_at(HEADER);
    let chunks: Vec<&[u8]> = chunks.chunks(SEALED_CHUNK).collect();
    let of = |order: &[usize]| {
        let chosen: Vec<u8> = order.iter().flat_map(|n| chunks[*n].to_vec()).collect();
        [index, header, &chosen].concat()
    };
    assert_eq!(of(&[0, 1, 2, 3, 4, 5, 6]), mine);
    for (what, body, expected) in [
        ("all of the other range", other.to_vec(), Refusal::Name),
        ("the other's data", [index, other_data].concat(), Refusal::Name),
        ("the other's index", [other_index, data].concat(), Refusal::Name),
        ("data before index", [data, index].concat(), Refusal::Key),
        ("the index twice", [index, index].concat(), Refusal::Key),
        (
            "two chunks exchanged",
            of(&[1, 0, 2, 3, 4, 5, 6]),
            Refusal::Content,
        ),
        ("a chunk left out", of(&[0, 2, 3, 4, 5, 6]), Refusal::Content),
        ("a chunk twice", of(&[0, 0, 1, 2, 3, 4, 5, 6]), Refusal::Content),
        (
            "the last chunk left out",
            of(&[0, 1, 2, 3, 4, 5]),
            Refusal::Content,
        ),
        (
            "the last chunk first",
            of(&[6, 1, 2, 3, 4, 5, 0]),
            Refusal::Content,
        ),
    ] {
        let (_, whole) = scene.read(body).await;
        assert_eq!(whole.map(drop), Err(expected), "{what}");
    }
    let (alone, whole) = scene.read(mine).await;
    assert_eq!(whole.unwrap(), noise(0, LENGTH as usize));
    assert_eq!(alone.unwrap().frames.len(), 2);
}
