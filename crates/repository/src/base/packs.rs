//! Gathers compressed frames into packs, seals and uploads them, two at a time.
//!
//! Promise: a pack is at most `PACK_PLAINTEXT_MAX` long; every sealed pack has been opened again and compared before
//! it is stored (REPO-3); rows come out in the order of pack numbers.
//! Not here: what the frames hold (base::frames).

use super::frames::{Frame, joined};
use super::head::NamedObject;
use super::tables::{FrameRow, PackRow};
use crate::layout::{BackupPlace, Place};
use crate::{Repository, RepositoryError};
use backstay_codec::{Kind, Salt, SecretKey};
use std::collections::VecDeque;
use tokio::task::JoinHandle;

/// The most plaintext in one pack: 32 MiB less room for its header and tags.
pub const PACK_PLAINTEXT_MAX: usize = (32 << 20) - (64 << 10);

/// Packs that may be sealed or uploaded at the same time.
const IN_FLIGHT_MAX: usize = 2;

/// Fills and stores packs.
#[derive(Debug)]
pub(crate) struct PackWriter {
    repository: Repository,
    place: BackupPlace,
    key: SecretKey,
    filling: Vec<u8>,
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
            filling: Vec::new(),
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
        self.filling.extend_from_slice(&frame.compressed);
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
        while self.in_flight.len() >= IN_FLIGHT_MAX {
            self.wait_for_one().await?;
        }
        let name = format!("p{:05}", self.number);
        self.number += 1;
        let place = self.place.pack(&name)?;
        let plain = std::mem::take(&mut self.filling);
        let (repository, key) = (self.repository.clone(), self.key.clone());
        self.in_flight
            .push_back(tokio::spawn(store_pack(repository, key, place, name, plain)));
        Ok(())
    }

    async fn wait_for_one(&mut self) -> Result<(), RepositoryError> {
        if let Some(upload) = self.in_flight.pop_front() {
            self.rows.push(joined(upload.await)?);
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

async fn store_pack(
    repository: Repository,
    key: SecretKey,
    place: Place,
    name: String,
    plain: Vec<u8>,
) -> Result<PackRow, RepositoryError> {
    let salt = Salt::random().map_err(RepositoryError::encoding)?;
    let NamedObject { name, size, sha256 } = repository
        .put_sealed_with(place, Kind::Pack, key, salt, plain, name)
        .await?;
    Ok(PackRow {
        name,
        size,
        sha256,
        salt,
    })
}
