//! How the answers to `BASE_BACKUP` follow each other, in both dialects.
//!
//! Promise: sans-I/O; an answer out of order, an unknown type of message and an archive that was not announced are errors.
//! Not here: what an archive holds (tar), the manifest's text (manifest).

#[cfg(test)]
mod tests;

use backstay_terms::{Lsn, Timeline};
use bytes::{Buf, Bytes};

use crate::connection::{Answer, unexpected};
use crate::error::PostgresError;
use crate::replication::version::Dialect;

/// A tablespace as the server announced it, the data directory among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Its object identifier; none for the data directory.
    pub oid: Option<u32>,
    /// Where it lies at the server; empty for the data directory.
    pub location: String,
    /// The server's estimate of its size in kB.
    pub kilobytes: Option<u64>,
}

/// One step of a base backup's conversation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framed {
    /// The checkpoint is done.
    Started { lsn: Lsn, timeline: Timeline },
    /// What will be sent.
    Tablespaces(Vec<Tablespace>),
    /// The next archive begins, and with it the one before ends: the data directory's without an oid.
    Archive(Option<u32>),
    /// Bytes of the archive.
    Data(Bytes),
    /// The manifest begins; all archives have ended.
    ManifestBegins,
    /// Bytes of the manifest.
    Manifest(Bytes),
    /// The server's count of bytes done.
    Done(u64),
    /// Where the backup becomes consistent.
    Stopped { lsn: Lsn, timeline: Timeline },
    /// The command has ended.
    Ready,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Start,
    Tablespaces,
    /// Between or before copies: this many have ended.
    Between(usize),
    /// Inside the copy of this number.
    Copying(usize),
    Stop,
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Nothing,
    Archive,
    Manifest,
}

/// The state of the conversation.
#[derive(Debug)]
pub(super) struct Framing {
    dialect: Dialect,
    stage: Stage,
    content: Content,
    tablespaces: Vec<Tablespace>,
}

impl Framing {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            stage: Stage::Start,
            content: Content::Nothing,
            tablespaces: Vec::new(),
        }
    }

    /// Whether the stop position has been received: an error after it leaves a complete backup.
    pub(super) fn has_stopped(&self) -> bool {
        self.stage == Stage::Stopped
    }

    /// The next answer; notices are not for here.
    pub(super) fn on(&mut self, answer: Answer) -> Result<Option<Framed>, PostgresError> {
        match (self.stage, answer) {
            (Stage::Copying(_), Answer::CopyData(bytes)) => self.data(bytes),
            (Stage::Start, Answer::Row(row)) => {
                self.stage = Stage::Tablespaces;
                let (lsn, timeline) = position(&row)?;
                Ok(Some(Framed::Started { lsn, timeline }))
            }
            (Stage::Tablespaces, Answer::Row(row)) => {
                self.tablespaces.push(tablespace(&row)?);
                Ok(None)
            }
            (Stage::Tablespaces, Answer::Complete(_)) if !self.tablespaces.is_empty() => {
                self.stage = Stage::Between(0);
                Ok(Some(Framed::Tablespaces(self.tablespaces.clone())))
            }
            (Stage::Between(number), Answer::CopyOut) => Ok(self.copy_begins(number)),
            (Stage::Copying(number), Answer::CopyDone) => self.copy_ends(number),
            (Stage::Stop, Answer::Row(row)) => {
                self.stage = Stage::Stopped;
                let (lsn, timeline) = position(&row)?;
                Ok(Some(Framed::Stopped { lsn, timeline }))
            }
            (Stage::Stopped, Answer::Ready) => Ok(Some(Framed::Ready)),
            (_, Answer::Columns(_) | Answer::Complete(_)) => Ok(None),
            (_, other) => Err(unexpected(&other)),
        }
    }

    fn copy_begins(&mut self, number: usize) -> Option<Framed> {
        self.stage = Stage::Copying(number);
        match self.dialect {
            Dialect::Parenthesised => None,
            Dialect::Positional => match self.tablespaces.get(number) {
                Some(tablespace) => {
                    self.content = Content::Archive;
                    Some(Framed::Archive(tablespace.oid))
                }
                None => {
                    self.content = Content::Manifest;
                    Some(Framed::ManifestBegins)
                }
            },
        }
    }

    fn copy_ends(&mut self, number: usize) -> Result<Option<Framed>, PostgresError> {
        self.stage = match (self.dialect, self.content) {
            (_, Content::Manifest) => Stage::Stop,
            (Dialect::Positional, _) => Stage::Between(number + 1),
            (Dialect::Parenthesised, _) => {
                return Err(PostgresError::protocol("a base backup ended without a manifest"));
            }
        };
        Ok(None)
    }

    fn data(&mut self, mut bytes: Bytes) -> Result<Option<Framed>, PostgresError> {
        let kind = match self.dialect {
            Dialect::Positional => b'd',
            Dialect::Parenthesised if bytes.is_empty() => {
                return Err(PostgresError::protocol("an empty message in a base backup"));
            }
            Dialect::Parenthesised => bytes.get_u8(),
        };
        match (kind, self.content) {
            (b'd', Content::Archive) => Ok(Some(Framed::Data(bytes))),
            (b'd', Content::Manifest) => Ok(Some(Framed::Manifest(bytes))),
            (b'n', Content::Nothing | Content::Archive) => {
                self.content = Content::Archive;
                self.archive(&bytes).map(Framed::Archive).map(Some)
            }
            (b'm', Content::Archive) => {
                self.content = Content::Manifest;
                Ok(Some(Framed::ManifestBegins))
            }
            (b'p', _) if bytes.len() == 8 => Ok(Some(Framed::Done(bytes.get_u64()))),
            _ => Err(PostgresError::Protocol(format!(
                "a message of type {:?} in a base backup",
                char::from(kind)
            ))),
        }
    }

    fn archive(&self, bytes: &[u8]) -> Result<Option<u32>, PostgresError> {
        let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let oid = match name.strip_suffix(b".tar") {
            Some(b"base") => Some(None),
            Some(oid) => std::str::from_utf8(oid)
                .ok()
                .and_then(|oid| oid.parse().ok())
                .map(Some),
            None => None,
        };
        let announced = oid.filter(|oid| self.tablespaces.iter().any(|tablespace| tablespace.oid == *oid));
        announced.ok_or_else(|| {
            PostgresError::Protocol(format!(
                "an archive \"{}\" that was not announced",
                name.escape_ascii()
            ))
        })
    }
}

fn text(row: &[Option<Bytes>], at: usize) -> Option<&str> {
    std::str::from_utf8(row.get(at)?.as_ref()?).ok()
}

fn position(row: &[Option<Bytes>]) -> Result<(Lsn, Timeline), PostgresError> {
    let read = || Some((text(row, 0)?.parse().ok()?, Timeline(text(row, 1)?.parse().ok()?)));
    read().ok_or_else(|| PostgresError::protocol("a base backup's position cannot be read"))
}

fn tablespace(row: &[Option<Bytes>]) -> Result<Tablespace, PostgresError> {
    let number = |at: usize| {
        row.get(at)
            .and_then(Option::as_ref)
            .map(|_| text(row, at).and_then(|t| t.parse::<u64>().ok()))
    };
    let malformed = || PostgresError::protocol("a base backup's tablespace cannot be read");
    let oid = match number(0) {
        None => None,
        Some(oid) => Some(
            oid.and_then(|oid| u32::try_from(oid).ok())
                .ok_or_else(malformed)?,
        ),
    };
    let location = text(row, 1).unwrap_or_default().to_owned();
    if oid.is_some() && location.is_empty() {
        return Err(malformed());
    }
    Ok(Tablespace {
        oid,
        location,
        kilobytes: number(2).flatten(),
    })
}
