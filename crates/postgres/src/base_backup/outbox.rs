//! Steps on their way to the caller: numbers, offsets, entries made of texts.
//!
//! Promise: numbers count from 0 and are never reused; an entry's offsets ascend without gaps.
//! Not here: where the bytes come from.

use std::collections::VecDeque;

use backstay_source::{BaseEnd, BaseProgress, BaseStep, Phase};
use backstay_terms::{EntryHeader, EntryKind, EntryPath, EntryRole};
use bytes::Bytes;

use crate::error::PostgresError;

/// Steps that wait to be fetched: at most what one message of the server holds, and the captured texts.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    steps: VecDeque<BaseStep>,
    next_number: u32,
}

/// An entry that has begun.
#[derive(Debug)]
pub(super) struct OpenEntry {
    number: u32,
    offset: u64,
}

impl Outbox {
    pub(super) fn pop(&mut self) -> Option<BaseStep> {
        self.steps.pop_front()
    }

    pub(super) fn begin(&mut self, header: EntryHeader) -> Result<OpenEntry, PostgresError> {
        let number = self.next_number;
        self.next_number = number
            .checked_add(1)
            .ok_or_else(|| PostgresError::protocol("a base backup of too many files"))?;
        self.steps.push_back(BaseStep::Entry { number, header });
        Ok(OpenEntry { number, offset: 0 })
    }

    pub(super) fn bytes(&mut self, entry: &mut OpenEntry, bytes: Bytes) {
        let offset = entry.offset;
        entry.offset += bytes.len() as u64;
        self.steps.push_back(BaseStep::Bytes {
            number: entry.number,
            offset,
            bytes,
        });
    }

    pub(super) fn end(&mut self, entry: OpenEntry) {
        self.steps.push_back(BaseStep::EntryEnd { number: entry.number });
    }

    /// A whole file of our own making.
    pub(super) fn text(
        &mut self,
        role: EntryRole,
        path: EntryPath,
        text: Bytes,
    ) -> Result<(), PostgresError> {
        let mut entry = self.begin(file(role, path, text.len() as u64))?;
        if !text.is_empty() {
            self.bytes(&mut entry, text);
        }
        self.end(entry);
        Ok(())
    }

    pub(super) fn progress(&mut self, phase: Phase, done: u64, estimate: Option<u64>) {
        self.steps.push_back(BaseStep::Progress(BaseProgress {
            phase,
            done,
            estimate,
        }));
    }

    pub(super) fn finish(&mut self, end: BaseEnd) {
        self.steps.push_back(BaseStep::End(Box::new(end)));
    }
}

/// The header of a file that is not in the server's archives.
pub(super) fn file(role: EntryRole, path: EntryPath, size: u64) -> EntryHeader {
    EntryHeader {
        role,
        path,
        kind: EntryKind::File,
        size,
        mode: 0o600,
        modified: 0,
    }
}

/// A path that we or the server made of plain characters.
pub(super) fn entry_path(path: &str) -> Result<EntryPath, PostgresError> {
    EntryPath::new(path).map_err(|error| PostgresError::Entry {
        path: path.escape_default().to_string(),
        reason: error.reason.to_owned(),
    })
}
