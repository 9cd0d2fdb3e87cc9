//! A reader for the tar archives that a server sends (ustar, POSIX.1-1988, as `tarCreateHeader` of PostgreSQL writes it).
//!
//! Promise: sans-I/O and without buffering: bytes in, slices of the same bytes out, however the input is cut. Nothing
//! but regular files, directories and links below `pg_tblspc` passes, and no name that could leave its directory.
//! Not here: which tablespace an archive belongs to (framing), checksums of contents (ledger).

#[cfg(test)]
mod tests;

use backstay_terms::{EntryKind, EntryPath};
use bytes::{Buf, Bytes};

use crate::error::PostgresError;
use crate::replication::version::ArchiveTrailer;

const BLOCK: usize = 512;

/// What an archive holds, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TarEvent {
    /// A header.
    Entry(TarEntry),
    /// Bytes of the last entry.
    Data(Bytes),
    /// The last entry is complete.
    EntryEnd,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// Relative to the archive's directory.
    pub path: EntryPath,
    /// File, directory or link.
    pub kind: EntryKind,
    /// Bytes that follow; 0 for directories and links.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub modified: i64,
}

#[derive(Debug)]
enum State {
    /// Collecting a header block.
    Header { block: Box<[u8; BLOCK]>, filled: usize },
    /// Inside an entry: bytes still to come, then padding.
    Data { left: u64, padding: usize },
    /// The entry's bytes are complete; its end has to be said.
    Ending { padding: usize },
    /// Dropping the bytes that fill the last block.
    Padding { left: usize },
    /// One block of zeroes was seen.
    FirstZero { filled: usize },
    /// Both were: nothing but zeroes may follow.
    Finished,
}

/// Reads one archive.
#[derive(Debug)]
pub struct TarReader {
    state: State,
}

impl Default for TarReader {
    fn default() -> Self {
        Self {
            state: State::header(),
        }
    }
}

impl State {
    fn header() -> Self {
        Self::Header {
            block: Box::new([0; BLOCK]),
            filled: 0,
        }
    }

    fn after_data(padding: usize) -> Self {
        match padding {
            0 => Self::header(),
            left => Self::Padding { left },
        }
    }
}

impl TarReader {
    /// Takes bytes off the front of `input` until there is something to say; `None` when all is taken.
    ///
    /// # Errors
    /// `Entry` for a refused entry, `Protocol` for bytes that are no tar.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<TarEvent>, PostgresError> {
        loop {
            match &mut self.state {
                State::Ending { padding } => {
                    self.state = State::after_data(*padding);
                    return Ok(Some(TarEvent::EntryEnd));
                }
                _ if input.is_empty() => return Ok(None),
                State::Header { block, filled } => {
                    let taken = input.len().min(BLOCK - *filled);
                    input.copy_to_slice(&mut block[*filled..*filled + taken]);
                    *filled += taken;
                    if *filled == BLOCK
                        && let Some(entry) = self.header_complete()?
                    {
                        return Ok(Some(TarEvent::Entry(entry)));
                    }
                }
                State::Data { left, padding } => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    *left -= taken as u64;
                    if *left == 0 {
                        self.state = State::Ending { padding: *padding };
                    }
                    return Ok(Some(TarEvent::Data(input.split_to(taken))));
                }
                State::Padding { left } => {
                    let taken = input.len().min(*left);
                    input.advance(taken);
                    *left -= taken;
                    if *left == 0 {
                        self.state = State::header();
                    }
                }
                State::FirstZero { filled } => {
                    let taken = input.len().min(BLOCK - *filled);
                    zeroes(&input.split_to(taken))?;
                    *filled += taken;
                    if *filled == BLOCK {
                        self.state = State::Finished;
                    }
                }
                State::Finished => zeroes(&input.split_to(input.len()))?,
            }
        }
    }

    /// Checks that the archive ended where an archive may end.
    ///
    /// # Errors
    /// `Protocol` when it is cut short.
    pub fn finish(self, trailer: ArchiveTrailer) -> Result<(), PostgresError> {
        match (self.state, trailer) {
            (State::Finished, _) | (State::Header { filled: 0, .. }, ArchiveTrailer::Absent) => Ok(()),
            _ => Err(PostgresError::protocol(
                "an archive of the base backup is cut short",
            )),
        }
    }

    fn header_complete(&mut self) -> Result<Option<TarEntry>, PostgresError> {
        let State::Header { block, .. } = &self.state else {
            return Ok(None);
        };
        if block.iter().all(|byte| *byte == 0) {
            self.state = State::FirstZero { filled: 0 };
            return Ok(None);
        }
        let entry = Header(block).read()?;
        let padding = ((BLOCK as u64 - entry.size % BLOCK as u64) % BLOCK as u64) as usize;
        self.state = match entry.size {
            0 => State::Ending { padding },
            left => State::Data { left, padding },
        };
        Ok(Some(entry))
    }
}

fn zeroes(bytes: &[u8]) -> Result<(), PostgresError> {
    match bytes.iter().all(|byte| *byte == 0) {
        true => Ok(()),
        false => Err(PostgresError::protocol("bytes follow the end of an archive")),
    }
}

/// A header block; the offsets are POSIX's.
struct Header<'a>(&'a [u8; BLOCK]);

impl Header<'_> {
    fn read(&self) -> Result<TarEntry, PostgresError> {
        if self.0[257..262] != *b"ustar" || self.checksum() != self.number(148, 8)? {
            return Err(PostgresError::protocol(
                "an archive of the base backup has a block that is no header",
            ));
        }
        let name = self.name();
        let refuse = |reason: &str| refused(name, reason);
        if self.0[345] != 0 {
            return Err(refuse("its name is continued in a way that servers do not use"));
        }
        let path = EntryPath::new(name).map_err(|error| refused(name, error.reason))?;
        let (kind, size) = match self.0[156] {
            b'0' | 0 => (EntryKind::File, self.number(124, 12)?),
            b'5' => (EntryKind::Directory, 0),
            b'2' if is_tablespace_link(name) => (EntryKind::Link(self.target(name)?), 0),
            b'2' => return Err(refuse("it is a symbolic link outside pg_tblspc")),
            _ => return Err(refuse("it is neither a file nor a directory")),
        };
        let mode = u32::try_from(self.number(100, 8)? & 0o7777).unwrap_or(0);
        let modified =
            i64::try_from(self.number(136, 12)?).map_err(|_| refuse("its time is out of range"))?;
        Ok(TarEntry {
            path,
            kind,
            size,
            mode,
            modified,
        })
    }

    // The server marks directories and links by a slash at the end of the name, and writes "./pg_wal/archive_status".
    fn name(&self) -> &[u8] {
        let name = until_nul(&self.0[..100]);
        let name = name.strip_prefix(b"./").unwrap_or(name);
        name.strip_suffix(b"/").unwrap_or(name)
    }

    fn target(&self, name: &[u8]) -> Result<String, PostgresError> {
        let target = until_nul(&self.0[157..257]);
        let text = std::str::from_utf8(target).map_err(|_| refused(name, "its target is not UTF-8"))?;
        match text.starts_with('/') && !text.split('/').any(|part| part == "..") {
            true => Ok(text.to_owned()),
            false => Err(refused(name, "its target is not an absolute path")),
        }
    }

    /// A number in octal digits, or in base 256 where the first bit is set (sizes of 8 GiB and more).
    fn number(&self, at: usize, length: usize) -> Result<u64, PostgresError> {
        let field = &self.0[at..at + length];
        let malformed = || PostgresError::protocol("a number in an archive's header is malformed");
        if field[0] & 0x80 != 0 {
            let bytes = std::iter::once(field[0] & 0x7f).chain(field[1..].iter().copied());
            return bytes.into_iter().try_fold(0u64, |number, byte| {
                number
                    .checked_mul(256)
                    .map(|number| number | u64::from(byte))
                    .ok_or_else(malformed)
            });
        }
        let digits = until_nul(field).trim_ascii();
        let octal = |number: u64, digit: &u8| match digit {
            b'0'..=b'7' => number
                .checked_mul(8)
                .map(|number| number + u64::from(digit - b'0')),
            _ => None,
        };
        digits
            .iter()
            .try_fold(0, octal)
            .filter(|_| !digits.is_empty())
            .ok_or_else(malformed)
    }

    // The sum of all bytes, the checksum's own counted as spaces.
    fn checksum(&self) -> u64 {
        let byte = |(at, byte): (usize, &u8)| {
            if (148..156).contains(&at) {
                32
            } else {
                u64::from(*byte)
            }
        };
        self.0.iter().enumerate().map(byte).sum()
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or(field)
}

fn is_tablespace_link(name: &[u8]) -> bool {
    let oid = name.strip_prefix(b"pg_tblspc/");
    oid.is_some_and(|oid| !oid.is_empty() && oid.iter().all(u8::is_ascii_digit))
}

fn refused(name: &[u8], reason: &str) -> PostgresError {
    PostgresError::Entry {
        path: name.escape_ascii().to_string(),
        reason: reason.to_owned(),
    }
}
