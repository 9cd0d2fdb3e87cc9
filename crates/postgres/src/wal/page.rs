//! WAL pages: the header at every 8 KiB and what is checked of it.
//!
//! Promise: a header passes only if version, address, timeline, system, sizes and flags are those expected at its place.
//! Source: XLogPageHeaderData and XLogLongPageHeaderData in access/xlog_internal.h, XLogReaderValidatePageHeader.
//! Not here: what a header's remaining length means for the record in hand (walker).

use super::versions::VersionFacts;
use crate::timeline::Ancestry;
use backstay_terms::{Lsn, SystemIdentifier, Timeline, WalSegmentSize};

/// Bytes in a WAL page (XLOG_BLCKSZ); other sizes need a server built for them, which is refused.
pub const PAGE_BYTES: u64 = 8192;
/// Bytes in the header of an ordinary page.
pub const SHORT_HEADER: usize = 24;
/// Bytes in the header of a segment's first page.
pub const LONG_HEADER: usize = 40;

const FIRST_IS_CONTINUATION: u16 = 0x0001;
const LONG: u16 = 0x0002;
const FIRST_IS_OVERWRITE: u16 = 0x0008;
const ALL_FLAGS: u16 = 0x000F;

/// Which log it is that is walked; what every page is compared with.
#[derive(Clone, Debug)]
pub struct WalIdentity {
    /// The version that writes it.
    pub version: &'static VersionFacts,
    /// The cluster.
    pub system: SystemIdentifier,
    /// The size of its segments.
    pub segment_size: WalSegmentSize,
    /// The way to the timeline that is read.
    pub ancestry: Ancestry,
}

/// Something in the log is not what a server writes at this place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("WAL at {at}: {damage}")]
pub struct WalDamage {
    /// The page or record that is wrong.
    pub at: Lsn,
    /// What is wrong with it.
    pub damage: Damage,
}

/// What can be wrong with a page or record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Not the first bytes of a page of this version.
    #[error("page magic {found:04X}, expected {expected:04X}")]
    Magic {
        /// What stands there.
        found: u16,
        /// What this version writes.
        expected: u16,
    },
    /// Unknown flags, or a long header where a short one belongs.
    #[error("page flags {0:04X} do not belong here")]
    Flags(u16),
    /// The page belongs elsewhere: a recycled segment, or bytes out of order.
    #[error("page says it belongs at {0}")]
    Address(Lsn),
    /// The page's timeline cannot hold this position.
    #[error("page is of timeline {0}, which does not hold this position")]
    Timeline(Timeline),
    /// Another cluster's segment.
    #[error("segment is of system {0}")]
    System(SystemIdentifier),
    /// Another segment size.
    #[error("segment says its size is {0} bytes")]
    SegmentSize(u32),
    /// Another page size.
    #[error("segment says its pages have {0} bytes")]
    PageSize(u32),
    /// The page's remaining length contradicts the record in hand.
    #[error("page continues a record by {found} bytes, expected {expected}")]
    Continuation {
        /// What the page says; 0 if it continues none.
        found: u32,
        /// What is missing of the record in hand; 0 if there is none.
        expected: u32,
    },
    /// A page announces that a torn record was abandoned, and no record says so.
    #[error("page abandons a torn record, and its first record does not name it")]
    Abandoned,
    /// A length that no record has.
    #[error("record length {0}")]
    Length(u32),
    /// Bytes after the end of the log within its last page.
    #[error("bytes after the end of the log")]
    AfterEnd,
    /// The record does not name its predecessor.
    #[error("record names {found} as its predecessor, expected {expected}")]
    Previous {
        /// What it names.
        found: Lsn,
        /// The record before it.
        expected: Lsn,
    },
    /// The record's bytes are not those that were written.
    #[error("record checksum {found:08X}, computed {computed:08X}")]
    Checksum {
        /// In the record.
        found: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// A checked record of a kind that matters here cannot be understood.
    #[error("record of resource manager {resource_manager}, info {info:02X}, has an unknown form")]
    Form {
        /// Its resource manager.
        resource_manager: u8,
        /// Its info byte.
        info: u8,
    },
}

impl WalDamage {
    /// What the person can do.
    pub fn advice(&self) -> &'static str {
        match self.damage {
            Damage::System(_) => "this log belongs to another cluster: check the address of the server",
            Damage::Magic { .. } | Damage::SegmentSize(_) | Damage::PageSize(_) => {
                "check that server version and segment size are the recorded ones"
            }
            Damage::Form { .. } => {
                "report this with the server's exact version: the record is intact but not understood"
            }
            _ => "the bytes are not what the server wrote: read them again, from another copy if it repeats",
        }
    }
}

/// What a page does with the record before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Join {
    /// A record ended with the page before.
    Fresh,
    /// It continues a record that still misses this many bytes.
    Continues(u32),
    /// The record before it was torn by a crash and is given up.
    Abandons,
}

/// A header that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageHeader {
    pub(crate) timeline: Timeline,
    pub(crate) join: Join,
}

impl WalIdentity {
    /// How many bytes of header the page at `page` has.
    pub(crate) fn header_length(&self, page: Lsn) -> usize {
        if page.0.is_multiple_of(self.segment_size.bytes()) {
            LONG_HEADER
        } else {
            SHORT_HEADER
        }
    }

    /// Checks the header of the page at `page`; `newest` is the timeline of the page before.
    pub(crate) fn check_header(
        &self,
        page: Lsn,
        bytes: &[u8],
        newest: Timeline,
    ) -> Result<PageHeader, Damage> {
        let fields = Fields(bytes);
        let (magic, flags) = (fields.u16(0), fields.u16(2));
        if magic != self.version.page_magic {
            return Err(Damage::Magic {
                found: magic,
                expected: self.version.page_magic,
            });
        }
        let long = self.header_length(page) == LONG_HEADER;
        if flags & !ALL_FLAGS != 0 || (flags & LONG != 0) != long {
            return Err(Damage::Flags(flags));
        }
        if fields.u64(8) != page.0 {
            return Err(Damage::Address(Lsn(fields.u64(8))));
        }
        let timeline = Timeline(fields.u32(4));
        if timeline < newest || !self.ancestry.may_carry(page, timeline) {
            return Err(Damage::Timeline(timeline));
        }
        if long {
            self.check_long(&fields)?;
        }
        Ok(PageHeader {
            timeline,
            join: join(flags, fields.u32(16))?,
        })
    }

    fn check_long(&self, fields: &Fields<'_>) -> Result<(), Damage> {
        if fields.u64(24) != self.system.0 {
            return Err(Damage::System(SystemIdentifier(fields.u64(24))));
        }
        if u64::from(fields.u32(32)) != self.segment_size.bytes() {
            return Err(Damage::SegmentSize(fields.u32(32)));
        }
        if u64::from(fields.u32(36)) != PAGE_BYTES {
            return Err(Damage::PageSize(fields.u32(36)));
        }
        Ok(())
    }
}

fn join(flags: u16, remaining: u32) -> Result<Join, Damage> {
    match (
        flags & FIRST_IS_CONTINUATION != 0,
        flags & FIRST_IS_OVERWRITE != 0,
    ) {
        (true, false) if remaining > 0 => Ok(Join::Continues(remaining)),
        (false, false) if remaining == 0 => Ok(Join::Fresh),
        (false, true) if remaining == 0 => Ok(Join::Abandons),
        (true, true) => Err(Damage::Flags(flags)),
        _ => Err(Damage::Continuation {
            found: remaining,
            expected: 0,
        }),
    }
}

/// Little-endian fields at known places; what lies beyond the end reads as zero, so no input can panic here.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    fn at<const N: usize>(&self, place: usize) -> [u8; N] {
        let end = place.saturating_add(N);
        self.0
            .get(place..end)
            .and_then(|bytes| bytes.try_into().ok())
            .unwrap_or([0; N])
    }

    pub(crate) fn u16(&self, place: usize) -> u16 {
        u16::from_le_bytes(self.at(place))
    }

    pub(crate) fn u32(&self, place: usize) -> u32 {
        u32::from_le_bytes(self.at(place))
    }

    pub(crate) fn u64(&self, place: usize) -> u64 {
        u64::from_le_bytes(self.at(place))
    }

    pub(crate) fn i64(&self, place: usize) -> i64 {
        i64::from_le_bytes(self.at(place))
    }
}
