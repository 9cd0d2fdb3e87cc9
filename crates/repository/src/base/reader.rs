//! Reads one backup: its head, its tables, its files, any page of a file.
//!
//! Promise: every object is compared with the digest that the head or a table recorded for it; tables are compared
//! with each other before a byte of a file is given out; a page costs only the sealed chunks of its frames.
//! Not here: where files go (backstay-engine::jobs::restore).

use super::head::Head;
use super::table_writer::container_kind;
use super::tables::{
    Extent, FileRow, FrameRow, PackRow, RootTable, TABLE_BYTES_MAX, TableKind, TableRow, lines, records,
};
use crate::layout::{BackupPlace, EnvelopePlace, heads_prefix};
use crate::objects::on_worker;
use crate::{Repository, RepositoryError};
use backstay_codec::{
    Decompressor, FRAME_PLAINTEXT, FrameError, KeyClass, Kind, Opener, SecretKey, Sha256, digest,
    plaintext_length, unseal,
};
use backstay_store::{Prefix, list_all};
use backstay_terms::{EngineKind, EntryKind, RetentionClass, SourceName};
use bytes::Bytes;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// An opened backup. Clones share its tables.
#[derive(Clone, Debug)]
pub struct BaseReader {
    repository: Repository,
    place: BackupPlace,
    data: SecretKey,
    tables: Arc<Tables>,
}

#[derive(Debug)]
struct Tables {
    head: Head,
    packs: Vec<PackRow>,
    files: Vec<FileRow>,
    frames: Vec<FrameRow>,
    /// Extents by entry number, in the order of their offsets.
    extents: HashMap<u32, Vec<Extent>>,
    manifest: Vec<TableRow>,
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

    /// Where the backups of a source lie, oldest first, from names alone.
    pub async fn backup_places(
        &self,
        engine: EngineKind,
        source: &SourceName,
    ) -> Result<Vec<BackupPlace>, RepositoryError> {
        let mut places = Vec::new();
        for class in RetentionClass::ALL {
            let objects = list_all(self.store(), &heads_prefix(engine, class, source)?, None).await?;
            places.extend(
                objects
                    .iter()
                    .filter_map(|object| BackupPlace::of_head(&object.key)),
            );
        }
        places.sort_by(|a, b| a.backup.cmp(&b.backup));
        Ok(places)
    }

    /// The heads of a source, oldest first.
    pub async fn heads(&self, engine: EngineKind, source: &SourceName) -> Result<Vec<Head>, RepositoryError> {
        let mut heads = Vec::new();
        for place in self.backup_places(engine, source).await? {
            heads.push(self.read_head(&place).await?);
        }
        heads.sort_by(|a, b| (a.created, &a.backup).cmp(&(b.created, &b.backup)));
        Ok(heads)
    }

    /// Every source that has a backup, from names alone.
    pub async fn sources(&self) -> Result<Vec<(EngineKind, SourceName)>, RepositoryError> {
        let mut sources = Vec::new();
        for engine in [EngineKind::Postgres, EngineKind::Redis, EngineKind::Qdrant] {
            let prefix = Prefix::new(format!("{engine}-backups/manifests/"))?;
            for object in list_all(self.store(), &prefix, None).await? {
                sources.extend(BackupPlace::of_head(&object.key).map(|place| (place.engine, place.source)));
            }
        }
        sources.sort();
        sources.dedup();
        Ok(sources)
    }
}

/// The envelope of a backup's generation. It lies under the class of the generation's full.
fn envelope_of(place: &BackupPlace) -> EnvelopePlace {
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

    /// The files, directories and links.
    pub fn files(&self) -> &[FileRow] {
        &self.tables.files
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

    /// A cursor that reads whole files in order, pack by pack.
    pub fn cursor(&self) -> Cursor {
        Cursor {
            reader: self.clone(),
            pack: None,
            frame: None,
        }
    }

    /// Cuts the files into `parts` runs of about equal bytes, in order.
    pub fn partition(&self, parts: usize) -> Vec<Vec<FileRow>> {
        let total: u64 = self.files().iter().map(|file| file.size + 1).sum();
        let share = total.div_ceil(parts.max(1) as u64).max(1);
        let mut cut: Vec<Vec<FileRow>> = vec![Vec::new(); parts.max(1)];
        let mut before = 0;
        for file in self.files() {
            let part = ((before / share) as usize).min(cut.len() - 1);
            if let Some(part) = cut.get_mut(part) {
                part.push(file.clone());
            }
            before += file.size + 1;
        }
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

    fn extents_of(&self, file: &FileRow) -> &[Extent] {
        self.tables.extents.get(&file.n).map_or(&[], Vec::as_slice)
    }

    fn frame_row(&self, frame: u32) -> Result<FrameRow, RepositoryError> {
        let row = self.tables.frames.get(frame as usize).copied();
        row.ok_or_else(|| {
            RepositoryError::malformed(&self.place.backup, format!("frame {frame} is in no table"))
        })
    }

    fn pack_row(&self, pack: u32) -> Result<PackRow, RepositoryError> {
        let row = self.tables.packs.get(pack as usize).cloned();
        row.ok_or_else(|| {
            RepositoryError::malformed(&self.place.backup, format!("pack {pack} is in no table"))
        })
    }

    async fn fetch_frame(&self, frame: u32) -> Result<Vec<u8>, RepositoryError> {
        let row = self.frame_row(frame)?;
        let pack = self.pack_row(row.pack)?;
        let at = self.place.pack(&pack.name)?;
        let sealed = |source| RepositoryError::Sealed {
            key: at.key.to_string(),
            source,
        };
        let length = plaintext_length(pack.size)
            .ok_or_else(|| RepositoryError::malformed(&at.key, "its size is impossible"))?;
        let opener = Opener::new(Kind::Pack, &self.data, &at.logical, &pack.salt, length).map_err(sealed)?;
        let wanted = u64::from(row.position)..u64::from(row.position) + u64::from(row.compressed);
        let chunks = opener.sealed_range(wanted.clone());
        let body = self.repository.store().get_range(&at.key, chunks).await?;
        let compressed = opener.open_range(wanted, &body).map_err(sealed)?;
        decompress(&compressed, row.plain, &self.place)
    }

    async fn fetch_pack(&self, pack: u32) -> Result<Vec<u8>, RepositoryError> {
        let row = self.pack_row(pack)?;
        let at = self.place.pack(&row.name)?;
        let body = self.repository.store().get(&at.key).await?;
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

/// Reads whole files; keeps the pack and the frame that it read last.
#[derive(Debug)]
pub struct Cursor {
    reader: BaseReader,
    pack: Option<(u32, Vec<u8>)>,
    frame: Option<(u32, Bytes)>,
}

impl Cursor {
    /// The content of a file, piece by piece, in order. `take` gets each piece.
    pub async fn read_file(
        &mut self,
        file: &FileRow,
        mut take: impl FnMut(&[u8]) -> Result<(), RepositoryError>,
    ) -> Result<(), RepositoryError> {
        let extents = self.reader.extents_of(file).to_vec();
        for extent in extents {
            let frame = self.frame(extent.frame).await?;
            let skip = u64::from(extent.skip);
            take(part(
                &frame,
                skip,
                skip + u64::from(extent.length),
                &self.reader.place,
            )?)?;
        }
        Ok(())
    }

    async fn frame(&mut self, number: u32) -> Result<Bytes, RepositoryError> {
        if let Some((held, bytes)) = &self.frame
            && *held == number
        {
            return Ok(bytes.clone());
        }
        let row = self.reader.frame_row(number)?;
        let pack = match self.pack.take() {
            Some((held, bytes)) if held == row.pack => bytes,
            _ => self.reader.fetch_pack(row.pack).await?,
        };
        let position = u64::from(row.position);
        let compressed = part(
            &pack,
            position,
            position + u64::from(row.compressed),
            &self.reader.place,
        )?;
        let plain = Bytes::from(decompress(compressed, row.plain, &self.reader.place)?);
        self.pack = Some((row.pack, pack));
        self.frame = Some((number, plain.clone()));
        Ok(plain)
    }
}

fn part<'a>(bytes: &'a [u8], from: u64, to: u64, place: &BackupPlace) -> Result<&'a [u8], RepositoryError> {
    let beyond = || RepositoryError::malformed(&place.backup, "its tables point beyond what is stored");
    bytes.get(from as usize..to as usize).ok_or_else(beyond)
}

fn decompress(compressed: &[u8], plain: u32, place: &BackupPlace) -> Result<Vec<u8>, RepositoryError> {
    if plain as usize > FRAME_PLAINTEXT {
        return Err(RepositoryError::malformed(
            &place.backup,
            "a frame is longer than frames are",
        ));
    }
    let mut decompressor = Decompressor::new().map_err(RepositoryError::encoding)?;
    decompressor
        .decompress(compressed, plain as usize)
        .map_err(|e| RepositoryError::malformed(&place.backup, e))
}

async fn read_tables(
    repository: &Repository,
    place: &BackupPlace,
    head: Head,
) -> Result<Tables, RepositoryError> {
    let root_place = place.table(&head.root.name)?;
    let envelope = envelope_of(place);
    let compressed = repository
        .get_recorded(&root_place, Kind::RootTable, &envelope, &head.root.sha256)
        .await?;
    let json = decompress_root(&compressed).map_err(|e| RepositoryError::malformed(&root_place.key, e))?;
    let root: RootTable =
        serde_json::from_slice(&json).map_err(|e| RepositoryError::malformed(&root_place.key, e))?;
    if root.format != 1 {
        return Err(RepositoryError::NewerFormat {
            object: root_place.key.to_string(),
            format: root.format,
        });
    }
    let mut contents: HashMap<TableKind, Vec<u8>> = HashMap::new();
    for row in root
        .tables
        .iter()
        .filter(|row| row.kind != TableKind::ServerManifest)
    {
        let content = read_table(repository, place, row).await?;
        contents.entry(row.kind).or_default().extend(content);
    }
    let content = |kind| contents.get(&kind).map_or(&[][..], Vec::as_slice);
    let object = place.backup.as_str();
    let tables = Tables {
        packs: lines(content(TableKind::PackList), object)?,
        files: lines(content(TableKind::FileTable), object)?,
        frames: records::<FrameRow>(content(TableKind::FrameTable), object)?,
        extents: by_entry(records::<Extent>(content(TableKind::ExtentTable), object)?),
        manifest: root
            .tables
            .into_iter()
            .filter(|row| row.kind == TableKind::ServerManifest)
            .collect(),
        head,
    };
    check_tables(&tables, root.packs, object)?;
    Ok(tables)
}

/// The head records no plain length for the root table: its frame states it, and a table's bound holds.
fn decompress_root(compressed: &[u8]) -> Result<Vec<u8>, FrameError> {
    let mut decompressor = Decompressor::new()?;
    match decompressor.decompress(compressed, 0) {
        Err(FrameError::Length { found, .. }) if found <= TABLE_BYTES_MAX as u64 => {
            decompressor.decompress(compressed, found as usize)
        }
        answer => answer,
    }
}

async fn read_table(
    repository: &Repository,
    place: &BackupPlace,
    row: &TableRow,
) -> Result<Vec<u8>, RepositoryError> {
    let at = place.table(&row.name)?;
    let compressed = repository
        .get_recorded(&at, container_kind(row.kind), &envelope_of(place), &row.sha256)
        .await?;
    let plain = usize::try_from(row.plain)
        .ok()
        .filter(|plain| *plain <= 2 * TABLE_BYTES_MAX);
    let plain =
        plain.ok_or_else(|| RepositoryError::malformed(&at.key, "it claims to be longer than tables are"))?;
    let mut decompressor = Decompressor::new().map_err(RepositoryError::encoding)?;
    decompressor
        .decompress(&compressed, plain)
        .map_err(|e| RepositoryError::malformed(&at.key, e))
}

fn by_entry(extents: Vec<Extent>) -> HashMap<u32, Vec<Extent>> {
    let mut by_entry: HashMap<u32, Vec<Extent>> = HashMap::new();
    for extent in extents {
        by_entry.entry(extent.entry).or_default().push(extent);
    }
    by_entry
        .values_mut()
        .for_each(|extents| extents.sort_by_key(|extent| extent.offset));
    by_entry
}

/// Every file of a full is covered exactly; every extent lies in its frame, every frame in its pack.
fn check_tables(tables: &Tables, packs: u32, object: &str) -> Result<(), RepositoryError> {
    let refuse = |what: String| Err(RepositoryError::malformed(object, what));
    if tables.packs.len() != packs as usize {
        return refuse(format!(
            "its pack list has {} packs and its root table {packs}",
            tables.packs.len()
        ));
    }
    for frame in &tables.frames {
        let end = u64::from(frame.position) + u64::from(frame.compressed);
        let pack = tables.packs.get(frame.pack as usize);
        if pack
            .and_then(|pack| plaintext_length(pack.size))
            .is_none_or(|length| end > length)
        {
            return refuse(format!("a frame lies beyond pack {}", frame.pack));
        }
    }
    for file in tables.files.iter().filter(|file| file.kind == EntryKind::File) {
        let mut covered = 0;
        for extent in tables.extents.get(&file.n).map_or(&[][..], Vec::as_slice) {
            let end = u64::from(extent.skip) + u64::from(extent.length);
            let frame = tables.frames.get(extent.frame as usize);
            if extent.offset != covered || frame.is_none_or(|frame| end > u64::from(frame.plain)) {
                return refuse(format!("the extents of {} do not fit", file.path));
            }
            covered += u64::from(extent.length);
        }
        if covered != file.size {
            return refuse(format!(
                "{} has {} bytes and extents for {covered}",
                file.path, file.size
            ));
        }
    }
    Ok(())
}
