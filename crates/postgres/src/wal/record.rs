//! WAL records: the header, and the meaning of the few kinds that a recovery target can name.
//!
//! Promise: meanings are read only from records whose checksum held. Restore point names are cut at the first NUL: what
//! follows in the field is uninitialised memory of the server and is never kept.
//! Source: access/xlogrecord.h, catalog/pg_control.h (XLOG info values), access/xact.h (ParseCommitRecord),
//! commands/tablespace.h.
//! Not here: block references and their data.

use super::page::{Damage, Fields};
use super::versions::VersionFacts;
use backstay_terms::{Lsn, Timeline};

/// Bytes in a record's header.
pub const RECORD_HEADER: usize = 24;
/// The longest record that is read. PostgreSQL's own limit is 1020 MiB since 16 and the allocation limit before.
pub const RECORD_BYTES_MAX: u32 = 1 << 30;

/// How much of the end of a prepared transaction is kept: its id comes after some 1,000,000 subtransactions at most.
const PREPARED_KEPT_MAX: usize = 4 << 20;

const RESOURCE_MANAGER_XLOG: u8 = 0;
const RESOURCE_MANAGER_TRANSACTION: u8 = 1;
const RESOURCE_MANAGER_TABLESPACE: u8 = 5;
/// XLOG_SWITCH: the rest of the segment is padding.
const INFO_SWITCH: u8 = 0x40;

/// A complete record whose checksum held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its first byte. This is what recovery targets are compared with.
    pub start: Lsn,
    /// The position after its last byte, not aligned.
    pub end: Lsn,
    /// The start of the record before it, as it says (xl_prev).
    pub previous: Lsn,
    /// The transaction that wrote it; 0 for none.
    pub xid: u32,
    /// The resource manager (xl_rmid).
    pub resource_manager: u8,
    /// The info byte (xl_info).
    pub info: u8,
    /// Its length with header (xl_tot_len).
    pub length: u32,
    /// Its checksum (xl_crc).
    pub crc: u32,
    /// What it means, where that matters here.
    pub meaning: Meaning,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// COMMIT.
    Committed,
    /// ROLLBACK.
    Aborted,
    /// COMMIT PREPARED.
    CommittedPrepared,
    /// ROLLBACK PREPARED.
    AbortedPrepared,
}

/// Why a checkpoint was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointKind {
    /// At shutdown or at the end of a recovery: nothing was written meanwhile.
    Shutdown,
    /// While the server ran.
    Online,
}

/// What a record means, as far as a recovery target, a lineage or the walker needs it.
/// Times are microseconds since 2000-01-01 00:00:00 UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Anything else.
    Other,
    /// A transaction ended.
    TransactionEnd {
        /// How.
        ended: Ended,
        /// When, on the server's clock.
        time: i64,
        /// Which: for a prepared one the transaction that had been prepared.
        xid: u32,
        /// The subtransactions that end with it, as far as the list was kept: some 240 of one that was not prepared.
        subtransactions: Vec<u32>,
    },
    /// `pg_create_restore_point`.
    RestorePoint {
        /// When.
        time: i64,
        /// Its name; bytes that are not UTF-8 are replaced.
        name: String,
    },
    /// The end of a base backup that began at `start`.
    BackupEnd {
        /// The redo position of the backup's checkpoint.
        start: Lsn,
    },
    /// A checkpoint. With `timeline != previous` it is the first record after a recovery without promotion request.
    Checkpoint {
        /// Why.
        kind: CheckpointKind,
        /// Where redo begins.
        redo: Lsn,
        /// The timeline.
        timeline: Timeline,
        /// The timeline before.
        previous: Timeline,
    },
    /// The first record after a promotion.
    EndOfRecovery {
        /// When.
        time: i64,
        /// The new timeline.
        timeline: Timeline,
        /// The timeline that was left.
        previous: Timeline,
    },
    /// A tablespace was made in this directory (commands/tablespace.c, xl_tblspc_create_rec); empty for one inside of the
    /// data directory. Bytes that are not UTF-8 are replaced.
    TablespaceMade {
        /// The absolute path.
        location: String,
    },
    /// The rest of the segment is padding.
    Switch,
    /// The torn record that began at `lost` was given up after a crash.
    Abandoned {
        /// Its start.
        lost: Lsn,
    },
}

/// A record header before its body is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordHeader {
    pub(crate) length: u32,
    pub(crate) xid: u32,
    pub(crate) previous: Lsn,
    pub(crate) info: u8,
    pub(crate) resource_manager: u8,
    pub(crate) crc: u32,
}

impl RecordHeader {
    pub(crate) fn read(bytes: &[u8]) -> RecordHeader {
        let fields = Fields(bytes);
        let [info, resource_manager] = fields.u16(16).to_le_bytes();
        RecordHeader {
            length: fields.u32(0),
            xid: fields.u32(4),
            previous: Lsn(fields.u64(8)),
            info,
            resource_manager,
            crc: fields.u32(20),
        }
    }

    /// How many bytes of the body have to be kept to read the meaning.
    pub(crate) fn kept_bytes(&self) -> usize {
        match (self.resource_manager, self.info & 0x70) {
            // The prepared transaction's id comes after lists of any length.
            (RESOURCE_MANAGER_TRANSACTION, 0x30 | 0x40) => PREPARED_KEPT_MAX,
            (RESOURCE_MANAGER_TRANSACTION, 0x00 | 0x20) => 1 << 10,
            (RESOURCE_MANAGER_XLOG, _) => 1 << 10,
            // A number and a path of at most MAXPGPATH, 1024 bytes.
            (RESOURCE_MANAGER_TABLESPACE, 0x00) => 2 << 10,
            _ => 0,
        }
    }

    /// What the record means; `body` is what follows the header, at least `kept_bytes` of it.
    pub(crate) fn meaning(&self, body: &[u8], version: &VersionFacts) -> Result<Meaning, Damage> {
        let meaning = match (self.resource_manager, self.info & 0xF0) {
            (RESOURCE_MANAGER_XLOG, INFO_SWITCH) => Some(Meaning::Switch),
            (RESOURCE_MANAGER_XLOG, info) => self.control_meaning(info, body),
            (RESOURCE_MANAGER_TRANSACTION, info) => self.transaction_end(info, body, version),
            (RESOURCE_MANAGER_TABLESPACE, 0x00) => tablespace_made(body),
            _ => Some(Meaning::Other),
        };
        meaning.ok_or(Damage::Form {
            resource_manager: self.resource_manager,
            info: self.info,
        })
    }

    fn control_meaning(&self, info: u8, body: &[u8]) -> Option<Meaning> {
        let least = match info {
            0x00 | 0x10 | 0x90 | 0xD0 => 16,
            0x50 => 8,
            0x70 => 8 + 64,
            _ => return Some(Meaning::Other),
        };
        let data = main_data(body).filter(|data| data.len() >= least)?;
        let fields = Fields(data);
        Some(match info {
            0x50 => Meaning::BackupEnd {
                start: Lsn(fields.u64(0)),
            },
            0x70 => Meaning::RestorePoint {
                time: fields.i64(0),
                name: name_field(data.get(8..8 + 64)?),
            },
            0x90 => Meaning::EndOfRecovery {
                time: fields.i64(0),
                timeline: Timeline(fields.u32(8)),
                previous: Timeline(fields.u32(12)),
            },
            0xD0 => Meaning::Abandoned {
                lost: Lsn(fields.u64(0)),
            },
            _ => Meaning::Checkpoint {
                kind: if info == 0 {
                    CheckpointKind::Shutdown
                } else {
                    CheckpointKind::Online
                },
                redo: Lsn(fields.u64(0)),
                timeline: Timeline(fields.u32(8)),
                previous: Timeline(fields.u32(12)),
            },
        })
    }

    fn transaction_end(&self, info: u8, body: &[u8], version: &VersionFacts) -> Option<Meaning> {
        let ended = match info & 0x70 {
            0x00 => Ended::Committed,
            0x20 => Ended::Aborted,
            0x30 => Ended::CommittedPrepared,
            0x40 => Ended::AbortedPrepared,
            _ => return Some(Meaning::Other),
        };
        let data = main_data(body).filter(|data| data.len() >= 8)?;
        let prepared = matches!(ended, Ended::CommittedPrepared | Ended::AbortedPrepared);
        let cut = body.len() >= PREPARED_KEPT_MAX;
        let xid = match prepared.then(|| prepared_xid(info, data, ended, version)) {
            Some(None) if !cut => return None,
            Some(Some(xid)) => xid,
            _ => self.xid,
        };
        Some(Meaning::TransactionEnd {
            ended,
            time: Fields(data).i64(0),
            xid,
            subtransactions: subtransactions(info, data),
        })
    }
}

/// The main data of a record without block references: after its short headers (access/xlogrecord.h, XLR_BLOCK_ID_*).
/// May be cut where the body was.
fn main_data(body: &[u8]) -> Option<&[u8]> {
    const SHORT: u8 = 255;
    const LONG: u8 = 254;
    const ORIGIN: u8 = 253;
    const TOP_LEVEL_XID: u8 = 252;
    let mut rest = body;
    loop {
        let (id, after) = rest.split_first()?;
        rest = match *id {
            SHORT => return after.get(1..),
            LONG => return after.get(4..),
            ORIGIN => after.get(2..)?,
            TOP_LEVEL_XID => after.get(4..)?,
            _ => return None,
        };
    }
}

/// Transaction ends have their lists from here on where they say that they have any (xact.h, XLOG_XACT_HAS_INFO).
const HAS_INFO: u8 = 0x80;

/// What of the list of subtransactions is there.
fn subtransactions(info: u8, data: &[u8]) -> Vec<u32> {
    let fields = Fields(data);
    let xinfo = if info & HAS_INFO != 0 && data.len() >= 12 {
        fields.u32(8)
    } else {
        0
    };
    if xinfo & 2 == 0 {
        return Vec::new();
    }
    let at = if xinfo & 1 == 1 { 20 } else { 12 };
    let Some(list) = data.get(at + 4..) else {
        return Vec::new();
    };
    let count = fields.u32(at) as usize;
    let numbers = list.chunks_exact(4).take(count);
    numbers.map(|number| Fields(number).u32(0)).collect()
}

/// The id of the transaction that had been prepared. Its place depends on which lists come before it.
fn prepared_xid(info: u8, data: &[u8], ended: Ended, version: &VersionFacts) -> Option<u32> {
    let fields = Fields(data);
    let xinfo = if info & HAS_INFO != 0 { fields.u32(8) } else { 0 };
    let has = |bit: u32| xinfo & (1 << bit) != 0;
    let mut at: usize = if has(0) { 20 } else { 12 };
    let mut skip_list = |present: bool, item: usize| {
        if present {
            at = item
                .saturating_mul(fields.u32(at) as usize)
                .saturating_add(at)
                .saturating_add(4);
        }
    };
    skip_list(has(1), 4);
    skip_list(has(2), 12);
    if let Some(item) = version.dropped_statistics_item {
        skip_list(has(8), item);
    }
    skip_list(has(3) && ended == Ended::CommittedPrepared, 16);
    (has(4) && data.len() >= at.saturating_add(4)).then(|| fields.u32(at))
}

fn tablespace_made(body: &[u8]) -> Option<Meaning> {
    let path = main_data(body)?.get(4..)?;
    Some(Meaning::TablespaceMade {
        location: name_field(path),
    })
}

fn name_field(field: &[u8]) -> String {
    let name = field.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}
