//! Reads one backup: its head, its tables, its files, any page of a file.
//!
//! Promise: head and tables are compared with the digests recorded for them and with each other before a byte of a file is
//! given out; every chunk of a pack is authenticated under the salt and the length that the pack list records; a page
//! costs only the sealed chunks of its frames.
//! Not here: the tables (table_reader), whole files (cursor), where files go (backstay-engine::jobs::restore).

use super::cursor::{Cursor, PackReading};
use super::file_list::Files;
use super::head::Head;
use super::table_reader::{Tables, read_table, read_tables};
use super::tables::{Extent, FileRow, FrameRow, PackRow};
use crate::layout::{BackupPlace, EnvelopePlace};
use crate::objects::{Opened, on_worker};
use crate::{Repository, RepositoryError};
use backstay_codec::{
    Decompressor, FRAME_PLAINTEXT, KeyClass, Kind, Opener, SecretKey, Sha256, digest, plaintext_length,
    unseal,
};
use std::ops::Range;
use std::sync::Arc;

/// An opened backup. Clones share its tables.
#[derive(Clone, Debug)]
pub struct BaseReader {
    pub(super) repository: Repository,
    pub(super) place: BackupPlace,
    data: SecretKey,
    tables: Arc<Tables>,
}

impl Repository {
    /// Reads the head of a backup.
    pub async fn read_head(&self, place: &BackupPlace) -> Result<Head, RepositoryError> {
        let json = self
            .get_sealed(&place.head()?, Kind::Head, &envelope_of(place))
            .await?;
        let head = Head::from_json(&json, place)?;
        if head.repository != self.id() {
            return Err(RepositoryError::OtherRepository {
                found: head.repository,
                expected: self.id().to_owned(),
            });
        }
        Ok(head)
    }
}

/// The envelope of a backup's generation. It lies under the class of the generation's full.
pub(super) fn envelope_of(place: &BackupPlace) -> EnvelopePlace {
    EnvelopePlace::generation(place.engine, place.class, &place.source, &place.generation)
}

impl BaseReader {
    /// Opens a backup and compares its tables with each other.
    pub async fn open(repository: &Repository, place: &BackupPlace) -> Result<BaseReader, RepositoryError> {
        let head = repository.read_head(place).await?;
        // KEY-3: the key that the head names, whatever else the envelope holds.
        let (id, at) = (head.key_ids.data, place.head()?.key);
        let data = repository
            .key_with_id(&id, KeyClass::Data, &envelope_of(place), &at)
            .await?;
        let tables = Arc::new(read_tables(repository, place, head).await?);
        Ok(BaseReader {
            repository: repository.clone(),
            place: place.clone(),
            data,
            tables,
        })
    }

    /// The head.
    pub fn head(&self) -> &Head {
        &self.tables.head
    }

    /// The files, directories and links, in the order in which their bytes are stored. Each is made as it is asked for.
    pub fn files(&self) -> Files<'_> {
        self.tables.files.iter()
    }

    /// Those at these places.
    pub fn files_at(&self, places: Range<usize>) -> Files<'_> {
        self.tables.files.range(places)
    }

    /// Bytes of a file by ranged requests: only the sealed chunks that hold its frames are fetched.
    pub async fn read_range(&self, file: &FileRow, range: Range<u64>) -> Result<Vec<u8>, RepositoryError> {
        let range = range.start..range.end.min(file.size);
        let mut bytes = Vec::new();
        if range.is_empty() {
            return Ok(bytes);
        }
        for extent in self.extents_of(file) {
            let ends = extent.offset + u64::from(extent.length);
            if ends <= range.start || extent.offset >= range.end {
                continue;
            }
            let frame = self.fetch_frame(extent.frame).await?;
            let from = range.start.max(extent.offset) - extent.offset;
            let to = range.end.min(ends) - extent.offset;
            let skip = u64::from(extent.skip);
            bytes.extend_from_slice(part(&frame, skip + from, skip + to, &self.place)?);
        }
        Ok(bytes)
    }

    /// A cursor that reads whole files in order.
    pub fn cursor(&self, reading: PackReading) -> Cursor {
        Cursor::new(self.clone(), reading)
    }

    /// Cuts the files into `parts` runs of about equal bytes, in order: places in `files`.
    pub fn partition(&self, parts: usize) -> Vec<Range<usize>> {
        let total: u64 = self.files().map(|file| file.size + 1).sum();
        let share = total.div_ceil(parts.max(1) as u64).max(1);
        let mut cut: Vec<Range<usize>> = Vec::new();
        let (mut before, mut begins) = (0, 0);
        for (place, file) in self.files().enumerate() {
            if before / share > cut.len() as u64 {
                cut.push(begins..place);
                begins = place;
            }
            before += file.size + 1;
        }
        cut.push(begins..self.files().len());
        cut
    }

    /// The server's own manifest, byte for byte.
    pub async fn server_manifest(&self) -> Result<Vec<u8>, RepositoryError> {
        let mut manifest = Vec::new();
        for row in &self.tables.manifest {
            manifest.extend(read_table(&self.repository, &self.place, row).await?);
        }
        Ok(manifest)
    }

    /// Every pack's name, size and digest.
    pub fn packs(&self) -> impl Iterator<Item = (&str, u64, &Sha256)> {
        self.tables
            .packs
            .iter()
            .map(|pack| (pack.name.as_str(), pack.size, &pack.sha256))
    }

    pub(super) fn extents_of(&self, file: &FileRow) -> &[Extent] {
        self.tables.extents_of(file.n)
    }

    pub(super) fn frame_row(&self, frame: u32) -> Result<FrameRow, RepositoryError> {
        let row = self.tables.frames.get(frame as usize).copied();
        row.ok_or_else(|| {
            RepositoryError::malformed(&self.place.backup, format!("frame {frame} is in no table"))
        })
    }

    pub(super) fn pack_row(&self, pack: u32) -> Result<PackRow, RepositoryError> {
        let row = self.tables.packs.get(pack as usize).cloned();
        row.ok_or_else(|| {
            RepositoryError::malformed(&self.place.backup, format!("pack {pack} is in no table"))
        })
    }

    async fn fetch_frame(&self, frame: u32) -> Result<Vec<u8>, RepositoryError> {
        let row = self.frame_row(frame)?;
        let pack = self.open_pack(row.pack)?;
        let wanted = u64::from(row.position)..u64::from(row.position) + u64::from(row.compressed);
        let chunks = pack.opener.sealed_range(wanted.clone());
        let body = self.repository.store().get_range(&pack.place.key, chunks).await;
        let body = body.map_err(RepositoryError::of_named)?;
        let compressed = pack
            .opener
            .open_range(wanted, &body)
            .map_err(|source| pack.sealed(source))?;
        let mut plain = Vec::new();
        decompress(&mut None, &compressed, row.plain, &mut plain, &self.place)?;
        Ok(plain)
    }

    /// A pack whose chunks can be opened, from what the pack list records: nothing is fetched.
    pub(super) fn open_pack(&self, pack: u32) -> Result<Opened, RepositoryError> {
        let row = self.pack_row(pack)?;
        let place = self.place.pack(&row.name)?;
        let length = plaintext_length(row.size)
            .ok_or_else(|| RepositoryError::malformed(&place.key, "its size is impossible"))?;
        match Opener::new(Kind::Pack, &self.data, &place.logical, &row.salt, length) {
            Ok(opener) => Ok(Opened {
                place,
                offset: 0,
                opener,
            }),
            Err(source) => Err(RepositoryError::Sealed {
                key: place.key.to_string(),
                source,
            }),
        }
    }

    /// A whole pack, compared with the digest that the pack list states.
    pub(super) async fn fetch_pack(&self, pack: u32) -> Result<Vec<u8>, RepositoryError> {
        let row = self.pack_row(pack)?;
        let at = self.place.pack(&row.name)?;
        let body = self.repository.store().get(&at.key).await;
        let body = body.map_err(RepositoryError::of_named)?;
        let key = self.data.clone();
        on_worker(move || {
            if digest(&body) != row.sha256 {
                let what = "its SHA-256 is another one than the pack list states".to_owned();
                return Err(RepositoryError::Differs {
                    object: at.key.to_string(),
                    what,
                });
            }
            unseal(Kind::Pack, &key, &at.logical, &body).map_err(|source| RepositoryError::Sealed {
                key: at.key.to_string(),
                source,
            })
        })
        .await
    }
}

/// A part of what a frame or a pack holds.
pub(super) fn part<'a>(
    bytes: &'a [u8],
    from: u64,
    to: u64,
    place: &BackupPlace,
) -> Result<&'a [u8], RepositoryError> {
    let beyond = || RepositoryError::malformed(&place.backup, "its tables point beyond what is stored");
    bytes.get(from as usize..to as usize).ok_or_else(beyond)
}

/// Decompresses one frame with a decompressor that is made when it is first needed.
pub(super) fn decompress(
    decompressor: &mut Option<Decompressor>,
    compressed: &[u8],
    length: u32,
    plain: &mut Vec<u8>,
    place: &BackupPlace,
) -> Result<(), RepositoryError> {
    if length as usize > FRAME_PLAINTEXT {
        return Err(RepositoryError::malformed(
            &place.backup,
            "a frame is longer than frames are",
        ));
    }
    let decompressor = match decompressor {
        Some(ready) => ready,
        None => decompressor.insert(Decompressor::new().map_err(RepositoryError::encoding)?),
    };
    decompressor
        .decompress_into(compressed, length as usize, plain)
        .map_err(|e| RepositoryError::malformed(&place.backup, e))
}
