//! Bytes that are written once and read once, in memory while they are few, in a scratch file when not.
//!
//! Promise: at most 1 MiB of memory. The file is removed when dropped.
//! Not here: what the bytes are.

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use crate::error::PostgresError;

const MEMORY_MAX: usize = 1 << 20;
const READ_BYTES: usize = 64 << 10;

/// The writing side.
#[derive(Debug)]
pub(super) struct Spool {
    path: PathBuf,
    memory: BytesMut,
    file: Option<File>,
    length: u64,
}

/// The reading side.
#[derive(Debug)]
pub(super) struct SpoolReader {
    path: PathBuf,
    memory: Bytes,
    file: Option<File>,
}

impl Spool {
    /// An empty one; `name` is its file's, when it comes to that.
    pub(super) fn new(scratch: &Path, name: &str) -> Self {
        Self {
            path: scratch.join(name),
            memory: BytesMut::new(),
            file: None,
            length: 0,
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) async fn append(&mut self, bytes: &[u8]) -> Result<(), PostgresError> {
        self.memory.extend_from_slice(bytes);
        self.length += bytes.len() as u64;
        if self.memory.len() > MEMORY_MAX {
            self.spill()
                .await
                .map_err(|source| scratch_error(&self.path, source))?;
        }
        Ok(())
    }

    async fn spill(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(new_file(&self.path).await?),
        };
        file.write_all(&self.memory).await?;
        self.memory.clear();
        Ok(())
    }

    pub(super) async fn into_reader(mut self) -> Result<SpoolReader, PostgresError> {
        if self.file.is_some() {
            self.rewind()
                .await
                .map_err(|source| scratch_error(&self.path, source))?;
        }
        Ok(SpoolReader {
            path: std::mem::take(&mut self.path),
            memory: self.memory.split().freeze(),
            file: self.file.take(),
        })
    }

    async fn rewind(&mut self) -> io::Result<()> {
        self.spill().await?;
        match &mut self.file {
            None => Ok(()),
            Some(file) => {
                file.flush().await?;
                file.rewind().await.map(drop)
            }
        }
    }
}

impl SpoolReader {
    /// The next bytes; empty at the end.
    pub(super) async fn next(&mut self) -> Result<Bytes, PostgresError> {
        let Some(file) = &mut self.file else {
            return Ok(std::mem::take(&mut self.memory));
        };
        let mut bytes = BytesMut::with_capacity(READ_BYTES);
        let read = file.read_buf(&mut bytes).await;
        read.map_err(|source| scratch_error(&self.path, source))?;
        Ok(bytes.freeze())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        remove(self.file.as_ref(), &self.path);
    }
}

impl Drop for SpoolReader {
    fn drop(&mut self) {
        remove(self.file.as_ref(), &self.path);
    }
}

fn remove(file: Option<&File>, path: &Path) {
    if file.is_some() {
        // The scratch directory goes with the run: a file that stays is not worth an error.
        let _ = std::fs::remove_file(path);
    }
}

/// A new file of ours: it holds parts of the backup, so nobody else may read it.
pub(super) async fn new_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .await
}

pub(super) fn scratch_error(path: &Path, source: io::Error) -> PostgresError {
    PostgresError::Scratch {
        path: path.display().to_string(),
        source,
    }
}
