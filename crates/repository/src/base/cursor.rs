//! Reads whole files of a backup in order.
//!
//! Promise: memory is bounded by one window, whatever the size of packs and files; frames that follow each other in a pack
//! are fetched in few requests, and no chunk is fetched or opened twice on the way.
//! Not here: pages (reader), where files go (backstay-engine::jobs::restore).

use super::reader::{BaseReader, decompress, part};
use super::tables::{FileRow, FrameRow};
use crate::RepositoryError;
use crate::objects::Window;
use backstay_codec::Decompressor;

/// How packs are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackReading {
    /// By ranges, every chunk authenticated: for whoever wants the files.
    ByRanges,
    /// Whole, also compared with the digest that the pack list states: for whoever wants to know that packs are what was
    /// written. Holds a pack in memory.
    WholePacks,
}

/// Reads whole files; keeps its place in the pack and the frame that it read last.
#[derive(Debug)]
pub struct Cursor {
    reader: BaseReader,
    reading: PackReading,
    held: Option<(u32, Held)>,
    frame: Option<u32>,
    plain: Vec<u8>,
    decompressor: Option<Decompressor>,
}

/// What is held of a pack.
#[derive(Debug)]
enum Held {
    Window(Window),
    Whole(Vec<u8>),
}

impl Cursor {
    pub(super) fn new(reader: BaseReader, reading: PackReading) -> Cursor {
        Cursor {
            reader,
            reading,
            held: None,
            frame: None,
            plain: Vec::new(),
            decompressor: None,
        }
    }

    /// The content of a file, piece by piece, in order. `take` gets each piece.
    pub async fn read_file(
        &mut self,
        file: &FileRow,
        mut take: impl FnMut(&[u8]) -> Result<(), RepositoryError>,
    ) -> Result<(), RepositoryError> {
        let reader = self.reader.clone();
        for extent in reader.extents_of(file) {
            self.read_frame(extent.frame).await?;
            let skip = u64::from(extent.skip);
            let piece = part(&self.plain, skip, skip + u64::from(extent.length), &reader.place)?;
            take(piece)?;
        }
        Ok(())
    }

    /// Fills `plain` with a frame.
    async fn read_frame(&mut self, number: u32) -> Result<(), RepositoryError> {
        if self.frame == Some(number) {
            return Ok(());
        }
        self.frame = None;
        let row = self.reader.frame_row(number)?;
        self.hold(row.pack).await?;
        let reader = &self.reader;
        let wanted = u64::from(row.position)..u64::from(row.position) + u64::from(row.compressed);
        let compressed = match &mut self.held {
            Some((_, Held::Whole(pack))) => part(pack, wanted.start, wanted.end, &reader.place)?,
            Some((_, Held::Window(window))) => window.reach(reader.repository.store(), wanted).await?,
            None => return Err(self.not_held(&row)),
        };
        decompress(
            &mut self.decompressor,
            compressed,
            row.plain,
            &mut self.plain,
            &reader.place,
        )?;
        self.frame = Some(number);
        Ok(())
    }

    async fn hold(&mut self, pack: u32) -> Result<(), RepositoryError> {
        if self.held.as_ref().is_some_and(|(held, _)| *held == pack) {
            return Ok(());
        }
        // The old one goes before the new one comes.
        self.held = None;
        let held = match self.reading {
            PackReading::ByRanges => Held::Window(Window::of(self.reader.open_pack(pack)?)),
            PackReading::WholePacks => Held::Whole(self.reader.fetch_pack(pack).await?),
        };
        self.held = Some((pack, held));
        Ok(())
    }

    fn not_held(&self, row: &FrameRow) -> RepositoryError {
        RepositoryError::OutOfOrder {
            what: format!("pack {} is not held", row.pack),
        }
    }
}
