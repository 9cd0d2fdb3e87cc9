//! Writes WAL the way a server does, for tests that need particular records at particular places.
//!
//! Promise: what it writes is what PostgreSQL 15 would: headers, continuation lengths, alignment, checksums.
//! Not here: block references; tests against real servers are in tests/it.

#![allow(clippy::unwrap_used, missing_docs)]

use super::page::{PAGE_BYTES, WalIdentity};
use super::versions::VersionFacts;
use crate::timeline::Ancestry;
use backstay_terms::{Lsn, SystemIdentifier, Timeline, WalSegmentSize};
use crc32c::{crc32c, crc32c_append};

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn identity() -> WalIdentity {
    WalIdentity {
        version: VersionFacts::of_major(15).unwrap(),
        system: SystemIdentifier(7_000_000_000_000_000_001),
        segment_size: WalSegmentSize::new(MIB).unwrap(),
        ancestry: Ancestry::without_history(Timeline(1)),
    }
}

pub(crate) struct Forge {
    pub(crate) identity: WalIdentity,
    pub(crate) begins: Lsn,
    pub(crate) bytes: Vec<u8>,
    pub(crate) previous: Lsn,
    pub(crate) starts: Vec<Lsn>,
    pub(crate) page_timeline: Timeline,
}

impl Forge {
    /// A log that begins with the segment at `begins`.
    pub(crate) fn new(begins: Lsn) -> Forge {
        let timeline = Timeline(1);
        Forge {
            identity: identity(),
            begins,
            bytes: vec![],
            previous: Lsn(begins.0 - 40),
            starts: vec![],
            page_timeline: timeline,
        }
    }

    pub(crate) fn at(&self) -> Lsn {
        self.begins.plus(self.bytes.len() as u64)
    }

    fn page_header(&mut self, flags: u16, remaining: u32) {
        let at = self.at();
        let long = at.0.is_multiple_of(self.identity.segment_size.bytes());
        let flags = if long { flags | 2 } else { flags };
        self.bytes.extend(self.identity.version.page_magic.to_le_bytes());
        self.bytes.extend(flags.to_le_bytes());
        self.bytes.extend(self.page_timeline.0.to_le_bytes());
        self.bytes.extend(at.0.to_le_bytes());
        self.bytes.extend(remaining.to_le_bytes());
        self.bytes.extend([0; 4]);
        if long {
            self.bytes.extend(self.identity.system.0.to_le_bytes());
            self.bytes
                .extend((self.identity.segment_size.bytes() as u32).to_le_bytes());
            self.bytes.extend((PAGE_BYTES as u32).to_le_bytes());
        }
    }

    fn room(&self) -> usize {
        (PAGE_BYTES - self.at().0 % PAGE_BYTES) as usize
    }

    /// Ends the padding of the record before and begins a page where one is due.
    fn align(&mut self, flags: u16) {
        while !self.at().0.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if self.at().0.is_multiple_of(PAGE_BYTES) {
            self.page_header(flags, 0);
        }
    }

    /// A record with this main data.
    pub(crate) fn record(&mut self, resource_manager: u8, info: u8, xid: u32, data: &[u8]) -> Lsn {
        self.align(0);
        let body = main_data(data);
        self.write(resource_manager, info, xid, &body)
    }

    fn write(&mut self, resource_manager: u8, info: u8, xid: u32, body: &[u8]) -> Lsn {
        let start = self.at();
        let mut record = Vec::new();
        record.extend((24 + body.len() as u32).to_le_bytes());
        record.extend(xid.to_le_bytes());
        record.extend(self.previous.0.to_le_bytes());
        record.extend([info, resource_manager, 0, 0]);
        let checksum = crc32c_append(crc32c(body), &record);
        record.extend(checksum.to_le_bytes());
        record.extend(body);
        self.previous = start;
        self.starts.push(start);
        self.emit(&record);
        start
    }

    fn emit(&mut self, record: &[u8]) {
        let mut rest = record;
        loop {
            let (now, later) = rest.split_at(rest.len().min(self.room()));
            self.bytes.extend(now);
            if later.is_empty() {
                return;
            }
            self.page_header(1, later.len() as u32);
            rest = later;
        }
    }

    pub(crate) fn filler(&mut self, length: usize) -> Lsn {
        let data: Vec<u8> = (0..length).map(|n| (n * 7 + length) as u8 | 1).collect();
        self.record(10, 0, 700, &data)
    }

    pub(crate) fn commit(&mut self, xid: u32, time: i64) -> Lsn {
        self.record(1, 0, xid, &time.to_le_bytes())
    }

    /// A commit that ends these subtransactions too (xl_xact_xinfo, xl_xact_subxacts).
    pub(crate) fn commit_with_parts(&mut self, xid: u32, time: i64, parts: &[u32]) -> Lsn {
        let mut data = time.to_le_bytes().to_vec();
        data.extend((1u32 << 1).to_le_bytes());
        data.extend((parts.len() as u32).to_le_bytes());
        parts.iter().for_each(|part| data.extend(part.to_le_bytes()));
        self.record(1, 0x80, xid, &data)
    }

    pub(crate) fn abort(&mut self, xid: u32, time: i64) -> Lsn {
        self.record(1, 0x20, xid, &time.to_le_bytes())
    }

    pub(crate) fn restore_point(&mut self, name: &str, time: i64) -> Lsn {
        let mut data = time.to_le_bytes().to_vec();
        data.extend(name.as_bytes());
        data.push(0);
        data.resize(72, b'?');
        self.record(0, 0x70, 0, &data)
    }

    pub(crate) fn backup_end(&mut self, start: Lsn) -> Lsn {
        self.record(0, 0x50, 0, &start.0.to_le_bytes())
    }

    pub(crate) fn tablespace(&mut self, oid: u32, location: &str) -> Lsn {
        let data = [&oid.to_le_bytes()[..], location.as_bytes(), &[0]].concat();
        self.record(5, 0, 700, &data)
    }

    pub(crate) fn end_of_recovery(&mut self, time: i64, timeline: u32, previous: u32) -> Lsn {
        let data = [
            &time.to_le_bytes()[..],
            &timeline.to_le_bytes(),
            &previous.to_le_bytes(),
        ]
        .concat();
        self.record(0, 0x90, 0, &data)
    }

    pub(crate) fn shutdown_checkpoint(&mut self, timeline: u32, previous: u32) -> Lsn {
        let redo = self.at().0;
        let mut data = [
            &redo.to_le_bytes()[..],
            &timeline.to_le_bytes(),
            &previous.to_le_bytes(),
        ]
        .concat();
        data.resize(88, 0);
        self.record(0, 0, 0, &data)
    }

    /// A switch record and the zeroes after it.
    pub(crate) fn switch(&mut self) -> Lsn {
        self.align(0);
        let start = self.write(0, 0x40, 0, &[]);
        let border = self.identity.segment_size.segment_border_at_or_after(self.at());
        self.bytes.resize((border.0 - self.begins.0) as usize, 0);
        start
    }

    /// A record of which a crash left only what fits into this page, and the record that gives it up.
    pub(crate) fn torn(&mut self, length: usize) -> Lsn {
        let (lost, before) = (self.filler(length), self.previous);
        assert_eq!(lost, before);
        let page_end = lost.0.next_multiple_of(PAGE_BYTES) - self.begins.0;
        assert!(
            page_end < self.bytes.len() as u64,
            "the torn record leaves its page"
        );
        self.bytes.truncate(page_end as usize);
        self.starts.pop();
        self.previous = *self.starts.last().unwrap();
        self.page_header(8, 0);
        self.write(
            0,
            0xD0,
            0,
            &main_data(&[lost.0.to_le_bytes(), 5i64.to_le_bytes()].concat()),
        );
        lost
    }

    /// The bytes, with zeroes to the end of the segment.
    pub(crate) fn padded(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let border = self.identity.segment_size.segment_border_at_or_after(self.at());
        bytes.resize((border.0 - self.begins.0) as usize, 0);
        bytes
    }
}

fn main_data(data: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    match data.len() {
        0 => {}
        short @ 1..=255 => body.extend([255, short as u8]),
        long => {
            body.push(254);
            body.extend((long as u32).to_le_bytes());
        }
    }
    body.extend(data);
    body
}
