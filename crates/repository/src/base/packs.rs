//! Gathers compressed frames into packs, seals and uploads them, two at a time.
//!
//! Promise: a pack is at most `PACK_PLAINTEXT_MAX` long and is in memory once, sealed where it was collected; all packs
//! together take at most `IN_FLIGHT_MAX` and a quarter of that; every sealed pack has been opened again and compared
//! before it is stored (REPO-3); rows come out in the order of pack numbers.
//! Not here: what the frames hold (base::frames).

use super::frames::{Frame, joined};
use super::head::NamedObject;
use super::tables::{FrameRow, PackRow};
use crate::layout::{BackupPlace, Place};
use crate::{Repository, RepositoryError};
use backstay_codec::{Kind, Salt, SealBuffer, SecretKey};
use std::collections::VecDeque;
use tokio::task::JoinHandle;

/// The most plaintext in one pack: 32 MiB less room for its header and tags.
pub const PACK_PLAINTEXT_MAX: usize = (32 << 20) - (64 << 10);

/// Packs that may be sealed or uploaded at the same time.
const IN_FLIGHT_MAX: usize = 2;

/// A pack grows past this only while fewer than `IN_FLIGHT_MAX` are in flight.
const FILLED_MEANWHILE_MAX: usize = PACK_PLAINTEXT_MAX / 4;

/// What is allocated for a pack. glibc maps what is larger than 32 MiB by itself and gives it back when it is freed; what
/// is smaller it would keep for later, in each thread's arena, and the process would grow by what it does not use.
/// Only what is written becomes memory.
const PACK_CAPACITY: usize = (32 << 20) + (64 << 10);

/// Fills and stores packs.
#[derive(Debug)]
pub(crate) struct PackWriter {
    repository: Repository,
    place: BackupPlace,
    key: SecretKey,
    filling: SealBuffer,
    number: u32,
    in_flight: VecDeque<JoinHandle<Result<PackRow, RepositoryError>>>,
    rows: Vec<PackRow>,
}

impl PackWriter {
    pub fn new(repository: Repository, place: BackupPlace, key: SecretKey) -> PackWriter {
        let (in_flight, rows) = (VecDeque::new(), Vec::new());
        PackWriter {
            repository,
            place,
            key,
            filling: empty_pack(),
            number: 0,
            in_flight,
            rows,
        }
    }

    /// Adds a frame; returns where it lies.
    pub async fn add(&mut self, frame: Frame) -> Result<FrameRow, RepositoryError> {
        if !self.filling.is_empty() && self.filling.len() + frame.compressed.len() > PACK_PLAINTEXT_MAX {
            self.close_pack().await?;
        }
        let position = self.filling.len() as u32;
        self.filling.append(&frame.compressed);
        if self.filling.len() > FILLED_MEANWHILE_MAX {
            self.wait_for_room().await?;
        }
        Ok(FrameRow {
            pack: self.number,
            position,
            compressed: frame.compressed.len() as u32,
            plain: frame.plain,
        })
    }

    /// Stores what is left and waits for everything; returns the packs in order.
    pub async fn finish(mut self) -> Result<Vec<PackRow>, RepositoryError> {
        if !self.filling.is_empty() {
            self.close_pack().await?;
        }
        while !self.in_flight.is_empty() {
            self.wait_for_one().await?;
        }
        Ok(std::mem::take(&mut self.rows))
    }

    async fn close_pack(&mut self) -> Result<(), RepositoryError> {
        self.wait_for_room().await?;
        let name = format!("p{:05}", self.number);
        self.number += 1;
        let place = self.place.pack(&name)?;
        let plain = std::mem::replace(&mut self.filling, empty_pack());
        let (repository, key) = (self.repository.clone(), self.key.clone());
        self.in_flight
            .push_back(tokio::spawn(store_pack(repository, key, place, name, plain)));
        Ok(())
    }

    async fn wait_for_room(&mut self) -> Result<(), RepositoryError> {
        while self.in_flight.len() >= IN_FLIGHT_MAX {
            self.wait_for_one().await?;
        }
        Ok(())
    }

    async fn wait_for_one(&mut self) -> Result<(), RepositoryError> {
        // It leaves the queue when it has ended: one that is waited for must still be found by `drop`.
        if let Some(upload) = self.in_flight.front_mut() {
            let stored = upload.await;
            self.in_flight.pop_front();
            self.rows.push(joined(stored)?);
        }
        Ok(())
    }
}

impl Drop for PackWriter {
    // An abandoned backup stops storing: what is stored already is harmless without a head.
    fn drop(&mut self) {
        self.in_flight.iter().for_each(JoinHandle::abort);
    }
}

fn empty_pack() -> SealBuffer {
    SealBuffer::with_capacity(PACK_CAPACITY)
}

async fn store_pack(
    repository: Repository,
    key: SecretKey,
    place: Place,
    name: String,
    plain: SealBuffer,
) -> Result<PackRow, RepositoryError> {
    let salt = Salt::random().map_err(RepositoryError::encoding)?;
    let NamedObject { name, size, sha256 } = repository
        .put_sealed_buffer(place, Kind::Pack, key, salt, plain, name)
        .await?;
    Ok(PackRow {
        name,
        size,
        sha256,
        salt,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Recipient;
    use backstay_clock::{SeededChance, SimClock};
    use backstay_store::faults::{Fault, FaultyStore, When};
    use backstay_store::{MemoryStore, Operation};
    use backstay_terms::{EngineKind, RetentionClass};
    use futures_util::FutureExt;
    use std::sync::Arc;

    const FRAME: usize = 256 << 10;

    fn frame() -> Frame {
        let (plain, compressed) = (FRAME as u32, vec![7; FRAME]);
        Frame { plain, compressed }
    }

    async fn packs_over(store: Arc<FaultyStore>) -> PackWriter {
        let clock = Arc::new(SimClock::new());
        let chance = Arc::new(SeededChance::new(7));
        let repository = Repository::init(store, clock, chance, &[Recipient::None])
            .await
            .unwrap();
        let id = repository.new_id("full").unwrap();
        let place = BackupPlace {
            engine: EngineKind::Postgres,
            source: "orders".parse().unwrap(),
            class: RetentionClass::Days35,
            generation: id.clone(),
            backup: id,
        };
        PackWriter::new(repository, place, SecretKey::new([1; 32]))
    }

    fn memory() -> Arc<FaultyStore> {
        let clock = Arc::new(SimClock::new());
        Arc::new(FaultyStore::new(Arc::new(MemoryStore::new(clock))))
    }

    #[tokio::test]
    async fn a_store_that_never_answers_is_given_two_packs_and_a_quarter_of_one_is_kept_for_later() {
        let store = memory();
        let mut packs = packs_over(store.clone()).await;
        store.add(When::Every(Operation::Put), Fault::Hang);
        let mut taken = 0;
        while packs.add(frame()).now_or_never().is_some() {
            taken += FRAME;
        }
        assert_eq!(packs.in_flight.len(), IN_FLIGHT_MAX);
        // The frame that had to wait is in the pack already.
        let filling = taken + FRAME - IN_FLIGHT_MAX * (PACK_PLAINTEXT_MAX / FRAME * FRAME);
        assert_eq!(packs.filling.len(), filling);
        assert!((FILLED_MEANWHILE_MAX..=FILLED_MEANWHILE_MAX + FRAME).contains(&filling));
    }

    #[tokio::test]
    async fn rows_come_in_the_order_of_the_packs_and_frames_lie_where_they_are_said_to_lie() {
        let mut packs = packs_over(memory()).await;
        let in_one = (PACK_PLAINTEXT_MAX / FRAME) as u32;
        for number in 0..2 * in_one + 3 {
            let row = packs.add(frame()).await.unwrap();
            let (pack, position) = (number / in_one, number % in_one * FRAME as u32);
            assert_eq!((row.pack, row.position), (pack, position));
        }
        let rows = packs.finish().await.unwrap();
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["p00000", "p00001", "p00002"]);
        assert!(rows.iter().all(|row| row.size <= 32 << 20));
        assert!(rows[2].size < 1 << 20);
    }
}
