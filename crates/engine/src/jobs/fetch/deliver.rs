//! Puts a fetched file where the server waits for it.
//!
//! Promise: the destination is the whole file, durable, or what it was before.

use crate::EngineError;
use backstay_repository::RepositoryError;
use backstay_source::{SourceError, SourceErrorKind};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Permission bits of a file of the log.
const MODE: u32 = 0o600;

/// Writes `content` beside the destination and renames it into place.
pub(super) async fn write(destination: &Path, content: Vec<u8>) -> Result<(), EngineError> {
    let destination = destination.to_owned();
    let work = move || {
        let temporary = beside(&destination);
        let written = replace(&destination, &temporary, &content);
        if written.is_err() {
            // What failed already is told; a rest of it only costs room, and the next fetch replaces it.
            let _ = std::fs::remove_file(&temporary);
        }
        written.map_err(|error| local(&destination, &error))
    };
    let failed = |e| RepositoryError::OutOfOrder {
        what: format!("a worker thread failed: {e}"),
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

/// A name in the same directory: a rename between file systems is none. The server runs one fetch at a time into one
/// destination.
fn beside(destination: &Path) -> PathBuf {
    let mut name = destination.file_name().unwrap_or_default().to_owned();
    name.push(".backstay-part");
    destination.with_file_name(name)
}

fn replace(destination: &Path, temporary: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .open(temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(temporary, destination)?;
    let directory = destination
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn local(destination: &Path, error: &io::Error) -> EngineError {
    SourceError::new(
        SourceErrorKind::Local,
        format!("cannot write {}: {error}", destination.display()),
        "make room there, and let the server's user write",
    )
    .into()
}
