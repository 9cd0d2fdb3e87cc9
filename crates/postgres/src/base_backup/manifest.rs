//! The server's manifest of a base backup, read line by line as `backup_manifest.c` writes it (13 to 18).
//!
//! Promise: constant memory; the manifest's own SHA-256 is checked; a line that cannot be read is an error.
//! Not here: comparing with what arrived (ledger), keeping the bytes (base_backup).

#[cfg(test)]
mod tests;

use aws_lc_rs::digest;
use backstay_terms::{Lsn, SystemIdentifier, Timeline};
use bytes::{Bytes, BytesMut};
use serde::Deserialize;

use crate::error::PostgresError;

/// A path has 1023 bytes at most, each of which takes up to 6 in JSON.
const LINE_BYTES_MAX: usize = 64 << 10;

/// A file as the manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedFile {
    /// Relative to the data directory; tablespaces lie below pg_tblspc.
    pub(super) path: Vec<u8>,
    pub(super) size: u64,
    /// CRC-32C.
    pub(super) checksum: u32,
}

/// WAL that the manifest says is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WalRange {
    pub(super) timeline: Timeline,
    pub(super) start: Lsn,
    pub(super) end: Lsn,
}

/// What a complete manifest says besides its files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ManifestFacts {
    /// Since 17.
    pub(super) system: Option<SystemIdentifier>,
    pub(super) ranges: Vec<WalRange>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Start,
    Head,
    Files,
    AfterFiles,
    Ranges,
    AfterRanges,
    Finished,
}

/// Reads a manifest.
pub(super) struct ManifestReader {
    section: Section,
    line: BytesMut,
    number: u64,
    digest: digest::Context,
    facts: ManifestFacts,
}

impl ManifestReader {
    pub(super) fn new() -> Self {
        Self {
            section: Section::Start,
            line: BytesMut::new(),
            number: 0,
            digest: digest::Context::new(&digest::SHA256),
            facts: ManifestFacts {
                system: None,
                ranges: Vec::new(),
            },
        }
    }

    /// Takes bytes off the front of `input` until a file is listed; `None` when all is taken.
    pub(super) fn next(&mut self, input: &mut Bytes) -> Result<Option<ListedFile>, PostgresError> {
        while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
            let part = input.split_to(end + 1);
            // A line that lies whole in the input is not copied.
            let line = match self.line.is_empty() {
                true => part,
                false => {
                    self.line.extend_from_slice(&part);
                    self.line.split().freeze()
                }
            };
            if let Some(file) = self.on_line(&line)? {
                return Ok(Some(file));
            }
        }
        self.line.extend_from_slice(&input.split_to(input.len()));
        match self.line.len() > LINE_BYTES_MAX {
            true => Err(self.unreadable()),
            false => Ok(None),
        }
    }

    /// What the manifest said, when it is complete and its checksum holds.
    pub(super) fn finish(self) -> Result<ManifestFacts, PostgresError> {
        match self.section == Section::Finished && self.line.is_empty() {
            true => Ok(self.facts),
            false => Err(PostgresError::Manifest("it is cut short".to_owned())),
        }
    }

    fn unreadable(&self) -> PostgresError {
        PostgresError::Manifest(format!("line {} cannot be read", self.number))
    }

    fn on_line(&mut self, line: &[u8]) -> Result<Option<ListedFile>, PostgresError> {
        self.number += 1;
        let text = std::str::from_utf8(line)
            .map_err(|_| self.unreadable())?
            .trim_end_matches(['\n', ',']);
        if let Some(rest) = text.strip_prefix("\"Manifest-Checksum\": \"") {
            return self.on_checksum(rest).map(|()| None);
        }
        self.digest.update(line);
        self.section = match (self.section, text) {
            (Section::Start, _) if is_known_version(text) => Section::Head,
            (Section::Head, "\"Files\": [") => Section::Files,
            (Section::Head, _) => {
                self.facts.system = Some(self.system(text)?);
                Section::Head
            }
            (Section::Files, "]") => Section::AfterFiles,
            (Section::Files, "") => Section::Files,
            (Section::Files, _) => return self.file(text).map(Some),
            (Section::AfterFiles, "\"WAL-Ranges\": [") => Section::Ranges,
            (Section::Ranges, "]") => Section::AfterRanges,
            (Section::Ranges, _) => {
                let range = self.range(text)?;
                self.facts.ranges.push(range);
                Section::Ranges
            }
            _ => return Err(self.unreadable()),
        };
        Ok(None)
    }

    fn on_checksum(&mut self, rest: &str) -> Result<(), PostgresError> {
        let listed = rest
            .strip_suffix("\"}")
            .and_then(from_hex)
            .ok_or_else(|| self.unreadable())?;
        let computed = std::mem::replace(&mut self.digest, digest::Context::new(&digest::SHA256)).finish();
        if self.section != Section::AfterRanges {
            return Err(self.unreadable());
        }
        if computed.as_ref() != listed {
            return Err(PostgresError::Manifest(
                "its own checksum does not hold".to_owned(),
            ));
        }
        self.section = Section::Finished;
        Ok(())
    }

    fn system(&self, text: &str) -> Result<SystemIdentifier, PostgresError> {
        let number = text
            .strip_prefix("\"System-Identifier\": ")
            .and_then(|number| number.parse().ok());
        number.map(SystemIdentifier).ok_or_else(|| self.unreadable())
    }

    fn file(&self, text: &str) -> Result<ListedFile, PostgresError> {
        let file: FileLine = serde_json::from_str(text).map_err(|_| self.unreadable())?;
        let path = match (file.path, file.encoded_path) {
            (Some(path), None) => path.into_bytes(),
            (None, Some(hex)) => from_hex(&hex).ok_or_else(|| self.unreadable())?,
            _ => return Err(self.unreadable()),
        };
        let bytes = file
            .checksum
            .as_deref()
            .and_then(from_hex)
            .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        match (file.checksum_algorithm.as_deref(), bytes) {
            // The server copies the number's own bytes: least significant first on every machine that we know servers on.
            (Some("CRC32C"), Some(bytes)) => Ok(ListedFile {
                path,
                size: file.size,
                checksum: u32::from_le_bytes(bytes),
            }),
            _ => Err(PostgresError::Manifest(format!(
                "line {} has no CRC-32C",
                self.number
            ))),
        }
    }

    fn range(&self, text: &str) -> Result<WalRange, PostgresError> {
        let range: RangeLine = serde_json::from_str(text).map_err(|_| self.unreadable())?;
        Ok(WalRange {
            timeline: range.timeline,
            start: range.start,
            end: range.end,
        })
    }
}

fn is_known_version(text: &str) -> bool {
    matches!(
        text.strip_prefix("{ \"PostgreSQL-Backup-Manifest-Version\": "),
        Some("1" | "2")
    )
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| Some((digit(*pair.first()?)? * 16 + digit(*pair.get(1)?)?) as u8))
        .collect()
}

#[derive(Deserialize)]
struct FileLine {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    checksum_algorithm: Option<String>,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

#[derive(Deserialize)]
struct RangeLine {
    #[serde(rename = "Timeline")]
    timeline: Timeline,
    #[serde(rename = "Start-LSN")]
    start: Lsn,
    #[serde(rename = "End-LSN")]
    end: Lsn,
}
