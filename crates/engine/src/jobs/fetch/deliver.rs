//! Puts a fetched file where the server waits for it, part by part: a segment has up to 1 GiB.
//!
//! Promise: the destination is the whole file, durable and read back once, or what it was before; a file that is given up
//! leaves nothing.

use crate::EngineError;
use backstay_repository::{Digest, RepositoryError};
use backstay_source::{SourceError, SourceErrorKind};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Permission bits of a file of the log.
const MODE: u32 = 0o600;

/// How much is read back, and written of zeros, at once.
const BUFFER: usize = 1 << 20;

/// A file beside its destination, until it is whole.
pub(super) struct Delivery {
    destination: PathBuf,
    /// None until something is written, and once it has its name.
    file: Option<File>,
    /// Zeros that are not written yet.
    zeros: u64,
    bytes: u64,
    digest: Digest,
}

impl Delivery {
    /// Begins; nothing is written yet.
    pub fn new(destination: &Path) -> Delivery {
        Delivery {
            destination: destination.to_owned(),
            file: None,
            zeros: 0,
            bytes: 0,
            digest: Digest::new(),
        }
    }

    /// Adds zeros.
    pub fn add_zeros(&mut self, count: u64) {
        self.zeros += count;
    }

    /// Adds bytes.
    pub async fn add(self, content: Vec<u8>) -> Result<Delivery, EngineError> {
        self.on_worker(move |delivery| {
            delivery.write_zeros()?;
            delivery.write(&content)
        })
        .await
    }

    /// Reads back what was written, and gives it its name. Returns its bytes.
    pub async fn finish(self) -> Result<u64, EngineError> {
        Ok(self.on_worker(Delivery::place).await?.bytes)
    }

    async fn on_worker(
        mut self,
        work: impl FnOnce(&mut Delivery) -> io::Result<()> + Send + 'static,
    ) -> Result<Delivery, EngineError> {
        let work = move || match work(&mut self) {
            Ok(()) => Ok(self),
            Err(error) => Err(local(&self.destination, &error)),
        };
        let failed = |e| RepositoryError::OutOfOrder {
            what: format!("a worker thread failed: {e}"),
        };
        tokio::task::spawn_blocking(work).await.map_err(failed)?
    }

    fn place(&mut self) -> io::Result<()> {
        self.write_zeros()?;
        self.opened()?.sync_all()?;
        let written = std::mem::replace(&mut self.digest, Digest::new()).finish();
        if digest_of(&beside(&self.destination))? != written {
            return Err(io::Error::other("what was written is not what is read back"));
        }
        std::fs::rename(beside(&self.destination), &self.destination)?;
        self.file = None;
        let directory = self.destination.parent();
        let directory = directory.filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn write_zeros(&mut self) -> io::Result<()> {
        let zeros = [0; BUFFER];
        while self.zeros > 0 {
            let count = self.zeros.min(BUFFER as u64);
            self.write(zeros.get(..count as usize).unwrap_or(&zeros))?;
            self.zeros -= count;
        }
        Ok(())
    }

    fn write(&mut self, content: &[u8]) -> io::Result<()> {
        self.opened()?.write_all(content)?;
        self.digest.update(content);
        self.bytes += content.len() as u64;
        Ok(())
    }

    fn opened(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(MODE);
            self.file = Some(options.open(beside(&self.destination))?);
        }
        self.file.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.file.is_some() {
            // Why it was given up is told; a rest of it only costs room, and the next fetch replaces it.
            let _ = std::fs::remove_file(beside(&self.destination));
        }
    }
}

/// A name in the same directory: a rename between file systems is none. The server runs one fetch at a time into one
/// destination.
fn beside(destination: &Path) -> PathBuf {
    let mut name = destination.file_name().unwrap_or_default().to_owned();
    name.push(".backstay-part");
    destination.with_file_name(name)
}

fn digest_of(path: &Path) -> io::Result<backstay_repository::Sha256> {
    let (mut file, mut digest, mut buffer) = (File::open(path)?, Digest::new(), vec![0; BUFFER]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digest.finish()),
            count => digest.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}

fn local(destination: &Path, error: &io::Error) -> EngineError {
    SourceError::new(
        SourceErrorKind::of_local(error),
        format!("cannot write {}: {error}", destination.display()),
        "make room there, and let the server's user write",
    )
    .into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn destination(test: &str) -> PathBuf {
        let room = std::env::temp_dir().join(format!("backstay-deliver-{test}-{}", std::process::id()));
        std::fs::create_dir(&room).unwrap();
        room.join("RECOVERYXLOG")
    }

    fn files(destination: &Path) -> usize {
        std::fs::read_dir(destination.parent().unwrap()).unwrap().count()
    }

    #[tokio::test]
    async fn parts_and_zeros_become_one_file_and_what_is_given_up_leaves_nothing() {
        let destination = destination("parts");
        std::fs::write(&destination, "before").unwrap();
        let given_up = Delivery::new(&destination).add(vec![1; 10]).await.unwrap();
        assert_eq!(files(&destination), 2);
        drop(given_up);
        assert_eq!(files(&destination), 1);
        assert_eq!(std::fs::read(&destination).unwrap(), b"before");

        let mut whole = Delivery::new(&destination).add(vec![1; 10]).await.unwrap();
        whole.add_zeros(3 * BUFFER as u64 + 5);
        let mut whole = whole.add(vec![2; 10]).await.unwrap();
        whole.add_zeros(7);
        let expected = [vec![1; 10], vec![0; 3 * BUFFER + 5], vec![2; 10], vec![0; 7]].concat();
        assert_eq!(whole.finish().await.unwrap(), expected.len() as u64);
        assert!(std::fs::read(&destination).unwrap() == expected);
        assert_eq!(files(&destination), 1);
        std::fs::remove_dir_all(destination.parent().unwrap()).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_not_read_back_as_it_was_written_is_never_placed() {
        let destination = destination("changed");
        let written = Delivery::new(&destination).add(vec![1; 10]).await.unwrap();
        std::fs::write(beside(&destination), [1, 1, 2]).unwrap();
        let error = written.finish().await.unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("what was written is not what is read back")
        );
        assert_eq!(files(&destination), 0);
        std::fs::remove_dir_all(destination.parent().unwrap()).unwrap();
    }
}
