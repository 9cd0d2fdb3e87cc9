//! Walks WAL bytes as they arrive and hands out each record that is complete and whose checksum holds.
//!
//! Promise: any split of the same bytes gives the same records. Memory is bounded: a record's body is not kept, only
//! its running checksum and the part that its meaning needs. The first damage stops the walker for good.
//! Bytes that nothing can vouch for, because the server writes no checksum over them: the removable flag and the 4 bytes
//! of padding of a page header, up to 7 bytes of padding after a record, the rest of a segment after a switch, a record
//! that a page declares abandoned, and what a cold start has to skip of a record begun earlier.
//! Not here: what to do about damage or an end.

use super::page::{Damage, Join, LONG_HEADER, PAGE_BYTES, WalDamage, WalIdentity};
use super::record::{Meaning, RECORD_BYTES_MAX, RECORD_HEADER, Record, RecordHeader};
use backstay_terms::{Lsn, Timeline};
use crc32c::{crc32c, crc32c_append};

/// The walker: feed it consecutive bytes.
#[derive(Clone, Debug)]
pub struct Walker {
    identity: WalIdentity,
    at: Lsn,
    state: State,
    header: [u8; LONG_HEADER],
    timeline: Timeline,
    last: Option<LastRecord>,
    abandoned: Option<Abandoned>,
    // Kept between records so that its allocation is reused.
    kept: Vec<u8>,
    damage: Option<WalDamage>,
}

/// Where the last complete record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRecord {
    /// Its first byte.
    pub start: Lsn,
    /// The position after its last byte, not aligned.
    pub end: Lsn,
}

/// The log's own end: zeroes where the next record or page would begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndOfWal {
    /// Where the next record would begin.
    pub at: Lsn,
    /// The start of a record that the end cuts off.
    pub unfinished: Option<Lsn>,
}

#[derive(Clone, Debug)]
enum State {
    /// Before the first page that begins here or later.
    Unaligned,
    /// Before the first page.
    Cold,
    /// Inside a record that began before the first page; this much of it is still to come.
    Skipping(u32),
    /// A record may begin.
    Between,
    /// A record has begun.
    Within(Partial),
    /// After a switch, until the segment ends.
    Padding,
    /// After the end; the rest of its page must be zero.
    Blank(EndOfWal),
    /// After the end, in later pages: anything, because recycled segments hold old bytes there.
    Over(EndOfWal),
}

#[derive(Clone, Copy, Debug)]
struct Partial {
    start: Lsn,
    head: [u8; RECORD_HEADER],
    // Zero until its four bytes are there.
    length: u32,
    have: u32,
    checksum: u32,
    keep: usize,
}

#[derive(Clone, Copy, Debug)]
struct Abandoned {
    page: Lsn,
    // None after a cold start: the record began before the first byte that was seen.
    lost: Option<Lsn>,
}

impl Walker {
    /// A walker whose next byte lies at `at`: the start of a page, best of a segment. Anywhere else, bytes up to the next
    /// page are passed over unseen. A record that began before the first page is passed over too.
    pub fn new(identity: WalIdentity, at: Lsn) -> Walker {
        let aligned = at.0.is_multiple_of(PAGE_BYTES);
        Walker {
            identity,
            at,
            state: if aligned { State::Cold } else { State::Unaligned },
            header: [0; LONG_HEADER],
            timeline: Timeline(1),
            last: None,
            abandoned: None,
            kept: Vec::new(),
            damage: None,
        }
    }

    /// A walker of the same log that knows nothing before `at`; see `new`.
    pub fn afresh(&self, at: Lsn) -> Walker {
        Walker::new(self.identity.clone(), at)
    }

    /// The same walk along a timeline that shares everything up to here.
    pub fn along(self, identity: WalIdentity) -> Walker {
        Walker { identity, ..self }
    }

    /// Whether the next byte begins a segment.
    pub fn is_at_border(&self) -> bool {
        self.at.0.is_multiple_of(self.identity.segment_size.bytes())
    }

    /// The position of the next byte.
    pub fn at(&self) -> Lsn {
        self.at
    }

    /// The last complete record.
    pub fn last(&self) -> Option<LastRecord> {
        self.last
    }

    /// The end of the log, once it was seen.
    pub fn ended(&self) -> Option<EndOfWal> {
        match self.state {
            State::Blank(end) | State::Over(end) => Some(end),
            _ => None,
        }
    }

    /// The start of the record that the bytes so far leave unfinished.
    pub fn unfinished(&self) -> Option<Lsn> {
        match &self.state {
            State::Within(partial) => Some(partial.start),
            State::Blank(end) | State::Over(end) => end.unfinished,
            _ => None,
        }
    }

    /// Takes the next bytes; `sink` receives every record that they complete. After an error every call returns it.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl FnMut(Record)) -> Result<(), WalDamage> {
        if let Some(damage) = &self.damage {
            return Err(damage.clone());
        }
        let fed = self.feed_pages(bytes, sink);
        if let Err(damage) = &fed {
            self.damage = Some(damage.clone());
        }
        fed
    }

    fn feed_pages(&mut self, bytes: &[u8], sink: &mut impl FnMut(Record)) -> Result<(), WalDamage> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let page = Lsn(self.at.0 - self.at.0 % PAGE_BYTES);
            let done = (self.at.0 - page.0) as usize;
            let header = self.identity.header_length(page);
            let (part, after) = if done < header {
                let (part, after) = split_at_most(rest, header - done);
                self.take_header(page, done, part)?;
                (part.len(), after)
            } else {
                let (part, after) = split_at_most(rest, PAGE_BYTES as usize - done);
                self.take_body(part, sink)?;
                (part.len(), after)
            };
            rest = after;
            debug_assert!(part > 0, "every turn takes bytes");
            self.settle();
        }
        Ok(())
    }

    // Leaves states that end with a page or a segment.
    fn settle(&mut self) {
        if !self.at.0.is_multiple_of(PAGE_BYTES) {
            return;
        }
        match self.state {
            State::Unaligned => self.state = State::Cold,
            State::Blank(end) => self.state = State::Over(end),
            State::Padding if self.at == self.identity.segment_size.start_of_segment_holding(self.at) => {
                self.state = State::Between;
            }
            _ => {}
        }
    }

    fn take_header(&mut self, page: Lsn, done: usize, part: &[u8]) -> Result<(), WalDamage> {
        self.at = self.at.plus(part.len() as u64);
        match self.state {
            State::Unaligned | State::Padding | State::Over(_) => return Ok(()),
            State::Blank(_) => return self.expect_zeroes(page, part),
            _ => {}
        }
        if let Some(place) = self.header.get_mut(done..done + part.len()) {
            place.copy_from_slice(part);
        }
        let length = self.identity.header_length(page);
        if done + part.len() < length {
            return Ok(());
        }
        let header = self.header;
        self.enter_page(page, header.get(..length).unwrap_or_default())
    }

    fn enter_page(&mut self, page: Lsn, bytes: &[u8]) -> Result<(), WalDamage> {
        if bytes.iter().all(|byte| *byte == 0) {
            self.state = State::Blank(EndOfWal {
                at: page,
                unfinished: self.unfinished(),
            });
            return Ok(());
        }
        let refuse = |damage| WalDamage { at: page, damage };
        let header = self
            .identity
            .check_header(page, bytes, self.timeline)
            .map_err(refuse)?;
        self.timeline = header.timeline;
        self.join(page, header.join).map_err(refuse)
    }

    fn join(&mut self, page: Lsn, join: Join) -> Result<(), Damage> {
        let expected = match &self.state {
            State::Within(partial) => partial.length.saturating_sub(partial.have),
            State::Skipping(missing) => *missing,
            _ => 0,
        };
        match join {
            Join::Abandons => {
                self.abandoned = Some(Abandoned {
                    page,
                    lost: self.unfinished(),
                });
                self.state = State::Between;
            }
            Join::Continues(found) if matches!(self.state, State::Cold) => {
                self.state = State::Skipping(found)
            }
            Join::Continues(found) if found == expected => {}
            Join::Fresh if expected == 0 => self.state = State::Between,
            Join::Continues(found) => return Err(Damage::Continuation { found, expected }),
            Join::Fresh => return Err(Damage::Continuation { found: 0, expected }),
        }
        Ok(())
    }

    // `part` lies within one page, after its header.
    fn take_body(&mut self, part: &[u8], sink: &mut impl FnMut(Record)) -> Result<(), WalDamage> {
        let mut rest = part;
        while !rest.is_empty() {
            let (taken, after) = split_at_most(rest, self.wanted(rest.len()));
            let at = self.at;
            self.at = at.plus(taken.len() as u64);
            match &mut self.state {
                State::Between if at.0.is_multiple_of(8) => self.begin_record(at, taken, sink)?,
                State::Within(_) => self.continue_record(taken, sink)?,
                State::Skipping(missing) => {
                    *missing -= taken.len() as u32;
                    if *missing == 0 {
                        self.state = State::Between;
                    }
                }
                State::Blank(_) => self.expect_zeroes(at, taken)?,
                // Padding before the next aligned place, and states that pass over everything.
                _ => {}
            }
            rest = after;
        }
        Ok(())
    }

    // How many bytes the state takes at once, of at most `there` that lie in this page.
    fn wanted(&self, there: usize) -> usize {
        match &self.state {
            State::Between if !self.at.0.is_multiple_of(8) => there.min(8 - (self.at.0 % 8) as usize),
            State::Between => there,
            State::Skipping(missing) => there.min(*missing as usize),
            State::Within(partial) if partial.have < 4 => there.min(4 - partial.have as usize),
            State::Within(partial) if (partial.have as usize) < RECORD_HEADER => {
                there.min(RECORD_HEADER - partial.have as usize)
            }
            State::Within(partial) => there.min((partial.length - partial.have) as usize),
            _ => there,
        }
    }

    // The common case stays here: whole records are checked where they lie, without being copied.
    fn begin_record(
        &mut self,
        at: Lsn,
        bytes: &[u8],
        sink: &mut impl FnMut(Record),
    ) -> Result<(), WalDamage> {
        let (mut start, mut rest) = (at, bytes);
        while let Some((head, body)) = rest.split_at_checked(RECORD_HEADER) {
            let header = RecordHeader::read(head);
            let Some(body) = (header.length as usize)
                .checked_sub(RECORD_HEADER)
                .and_then(|length| body.get(..length))
            else {
                break;
            };
            let damaged = |damage| WalDamage { at: start, damage };
            self.check_header(start, &header).map_err(damaged)?;
            let checksum = crc32c_append(crc32c(body), head.get(..20).unwrap_or_default());
            let record = self.complete(start, &header, checksum, body).map_err(damaged)?;
            let switch = record.meaning == Meaning::Switch;
            let end = record.end;
            sink(record);
            if switch {
                return Ok(());
            }
            let next = Lsn(end.0.next_multiple_of(8));
            let step = ((next.0 - start.0) as usize).min(rest.len());
            rest = rest.get(step..).unwrap_or_default();
            start = next;
        }
        self.begin_partial(start, rest, sink)
    }

    // What is left is shorter than its record, or ends the log.
    fn begin_partial(
        &mut self,
        start: Lsn,
        rest: &[u8],
        sink: &mut impl FnMut(Record),
    ) -> Result<(), WalDamage> {
        if rest.is_empty() {
            return Ok(());
        }
        self.kept.clear();
        self.state = State::Within(Partial {
            start,
            head: [0; RECORD_HEADER],
            length: 0,
            have: 0,
            checksum: 0,
            keep: 0,
        });
        let mut rest = rest;
        while !rest.is_empty() {
            let (taken, after) = split_at_most(rest, self.wanted(rest.len()));
            match self.state {
                State::Within(_) => self.continue_record(taken, sink)?,
                _ => return self.expect_zeroes(start, rest),
            }
            rest = after;
        }
        Ok(())
    }

    fn continue_record(&mut self, bytes: &[u8], sink: &mut impl FnMut(Record)) -> Result<(), WalDamage> {
        let State::Within(mut partial) = self.state else {
            return Ok(());
        };
        let refuse = |damage| WalDamage {
            at: partial.start,
            damage,
        };
        let before = partial.have as usize;
        partial.have += bytes.len() as u32;
        if before < RECORD_HEADER {
            if let Some(place) = partial.head.get_mut(before..before + bytes.len()) {
                place.copy_from_slice(bytes);
            }
            if partial.have == 4 {
                partial.length = RecordHeader::read(&partial.head).length;
                if partial.length == 0 {
                    self.state = State::Blank(EndOfWal {
                        at: partial.start,
                        unfinished: None,
                    });
                    return Ok(());
                }
                check_length(partial.length).map_err(refuse)?;
            }
            if partial.have as usize == RECORD_HEADER {
                let header = RecordHeader::read(&partial.head);
                self.check_header(partial.start, &header).map_err(refuse)?;
                partial.keep = header.kept_bytes();
            }
        } else {
            partial.checksum = crc32c_append(partial.checksum, bytes);
            let room = partial.keep.saturating_sub(self.kept.len());
            self.kept.extend_from_slice(split_at_most(bytes, room).0);
        }
        self.state = State::Within(partial);
        if partial.have == partial.length && partial.have as usize >= RECORD_HEADER {
            let record = self.finish_partial(&partial).map_err(refuse)?;
            sink(record);
        }
        Ok(())
    }

    fn finish_partial(&mut self, partial: &Partial) -> Result<Record, Damage> {
        let header = RecordHeader::read(&partial.head);
        let checksum = crc32c_append(partial.checksum, partial.head.get(..20).unwrap_or_default());
        let kept = std::mem::take(&mut self.kept);
        let record = self.complete(partial.start, &header, checksum, &kept);
        // A giant is not kept for ever.
        if kept.capacity() <= 4096 {
            self.kept = kept;
        }
        // A record that spans pages ends where its last byte was taken, not where its length alone would put it.
        let end = self.at;
        record.map(|record| {
            self.last = Some(LastRecord {
                start: record.start,
                end,
            });
            Record { end, ..record }
        })
    }

    fn check_header(&self, start: Lsn, header: &RecordHeader) -> Result<(), Damage> {
        check_length(header.length)?;
        match self.last {
            Some(last) if header.previous != last.start => Err(Damage::Previous {
                found: header.previous,
                expected: last.start,
            }),
            None if header.previous >= start => Err(Damage::Previous {
                found: header.previous,
                expected: start,
            }),
            _ => Ok(()),
        }
    }

    // Everything that is checked of a record once its last byte is there.
    fn complete(
        &mut self,
        start: Lsn,
        header: &RecordHeader,
        checksum: u32,
        body: &[u8],
    ) -> Result<Record, Damage> {
        if checksum != header.crc {
            return Err(Damage::Checksum {
                found: header.crc,
                computed: checksum,
            });
        }
        let meaning = header.meaning(body, self.identity.version)?;
        if let Some(abandoned) = self.abandoned.take() {
            let names_it = |lost: Lsn| {
                abandoned
                    .lost
                    .map_or(lost < abandoned.page, |expected| lost == expected)
            };
            if !matches!(meaning, Meaning::Abandoned { lost } if names_it(lost)) {
                return Err(Damage::Abandoned);
            }
        }
        let end = start.plus(u64::from(header.length));
        self.last = Some(LastRecord { start, end });
        self.state = if meaning == Meaning::Switch {
            State::Padding
        } else {
            State::Between
        };
        Ok(Record {
            start,
            end,
            previous: header.previous,
            xid: header.xid,
            resource_manager: header.resource_manager,
            info: header.info,
            length: header.length,
            crc: header.crc,
            meaning,
        })
    }

    fn expect_zeroes(&self, at: Lsn, bytes: &[u8]) -> Result<(), WalDamage> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        Err(WalDamage {
            at,
            damage: Damage::AfterEnd,
        })
    }
}

fn check_length(length: u32) -> Result<(), Damage> {
    if (RECORD_HEADER as u32..=RECORD_BYTES_MAX).contains(&length) {
        Ok(())
    } else {
        Err(Damage::Length(length))
    }
}

fn split_at_most(bytes: &[u8], at_most: usize) -> (&[u8], &[u8]) {
    bytes.split_at(at_most.min(bytes.len()))
}

#[cfg(test)]
mod tests;
