//! What differs between the major versions of PostgreSQL in WAL and pg_control: the one table.
//!
//! Promise: a version that is not in the table is refused by whoever asks, never guessed.
//! Source: XLOG_PAGE_MAGIC in access/xlog_internal.h, xl_xact_stats_item in access/xact.h, ControlFileData in
//! catalog/pg_control.h of each release branch. Checked against servers of each: the program's tests back up,
//! stream and restore with all six.
//! Not here: differences in commands (replication::command).

/// The facts of one major version.
#[derive(Debug, PartialEq, Eq)]
pub struct VersionFacts {
    /// The major version.
    pub major: u32,
    /// The first two bytes of every WAL page, little-endian.
    pub page_magic: u16,
    /// `pg_control_version` in pg_control.
    pub control_version: u32,
    /// Where the CRC of pg_control lies: the length of what it covers.
    pub control_crc_at: usize,
    /// The size of one dropped-statistics item in a commit or abort record; none before they existed.
    pub dropped_statistics_item: Option<usize>,
}

/// Versions 13 to 18.
pub static VERSIONS: [VersionFacts; 6] = [
    facts(13, 0xD106, 1300, 288, None),
    facts(14, 0xD10D, 1300, 288, None),
    facts(15, 0xD110, 1300, 288, Some(12)),
    facts(16, 0xD113, 1300, 288, Some(12)),
    // 17 put wal_level into padding of the checkpoint copy: no offset moved.
    facts(17, 0xD116, 1700, 288, Some(12)),
    // 18 added default_char_signedness before the nonce, and widened the object id of a statistics item.
    facts(18, 0xD118, 1800, 292, Some(16)),
];

const fn facts(
    major: u32,
    page_magic: u16,
    control_version: u32,
    control_crc_at: usize,
    dropped_statistics_item: Option<usize>,
) -> VersionFacts {
    VersionFacts {
        major,
        page_magic,
        control_version,
        control_crc_at,
        dropped_statistics_item,
    }
}

impl VersionFacts {
    /// The facts of a major version.
    pub fn of_major(major: u32) -> Option<&'static VersionFacts> {
        VERSIONS.iter().find(|facts| facts.major == major)
    }

    /// The facts of the version that writes pages with this magic number.
    pub fn of_page_magic(magic: u16) -> Option<&'static VersionFacts> {
        VERSIONS.iter().find(|facts| facts.page_magic == magic)
    }

    /// The facts of the first version with this `pg_control_version`; 13 to 16 share one layout.
    pub fn of_control_version(version: u32) -> Option<&'static VersionFacts> {
        VERSIONS.iter().find(|facts| facts.control_version == version)
    }
}
