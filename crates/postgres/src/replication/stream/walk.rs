//! The walk along a stream's records, which does not begin blind at a segment's border.
//!
//! A record counts to the piece in which it ends. A walk that begins at a border cannot see a record that lies across
//! it, and its facts would be in no piece: a commit there could not be found as a target. So the walk begins in what is
//! stored before the border, and on a new timeline in what was walked of the old one.
//! Promise: bytes that do not continue the stored ones are told once, with the first bytes; they are another history.
//! Not here: records (wal::walker), what to do about another history (engine).

use crate::wal::{FactsOfPiece, WalDamage, WalIdentity, Walker};
use backstay_source::Preceding;
use backstay_terms::{LogFacts, Lsn};

/// Whether bytes continue what was there before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joins {
    /// They do, or nothing is known of what was before.
    Continues,
    /// They do not.
    OtherHistory,
}

/// A walk along one stream.
#[derive(Debug)]
pub(super) struct Walk {
    walker: Walker,
    /// As it was at the last border, for a timeline that begins there.
    at_border: Option<Walker>,
    /// Nothing of the stream was compared with what precedes it yet.
    uncompared: bool,
}

impl Walk {
    /// A walk that begins at `from`, warm if `preceding` ends there and can be walked.
    pub(super) fn begin(identity: WalIdentity, from: Lsn, preceding: &Preceding) -> Walk {
        let mut warm = Walker::new(identity, preceding.begins.into());
        let reaches = !preceding.bytes.is_empty() && Lsn::from(preceding.ends()) == from;
        let is_whole = reaches && warm.feed(&preceding.bytes, &mut |_| {}).is_ok() && warm.ended().is_none();
        match is_whole {
            true => Walk {
                at_border: Some(warm.clone()),
                walker: warm,
                uncompared: true,
            },
            false => Walk {
                walker: warm.afresh(from),
                at_border: None,
                uncompared: false,
            },
        }
    }

    /// Walks the next bytes, which cross no border.
    ///
    /// # Errors
    /// Damage, except at the very beginning, where it means that the stored log is not this log's beginning.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(LogFacts, Joins), WalDamage> {
        let begins = self.walker.at();
        let first = std::mem::take(&mut self.uncompared);
        match self.facts(bytes) {
            Err(_) if first => {
                self.walker = self.walker.afresh(begins);
                self.at_border = None;
                Ok((self.facts(bytes)?, Joins::OtherHistory))
            }
            facts => Ok((facts?, Joins::Continues)),
        }
    }

    /// Goes on with a timeline that begins at `from`.
    pub(super) fn onto(&mut self, identity: WalIdentity, from: Lsn) {
        let before = self.at_border.take().filter(|walker| walker.at() == from);
        let walker = before.map(|walker| walker.along(identity.clone()));
        self.at_border.clone_from(&walker);
        // Proven by the server: both timelines are its own.
        self.uncompared = false;
        self.walker = walker.unwrap_or_else(|| Walker::new(identity, from));
    }

    fn facts(&mut self, bytes: &[u8]) -> Result<LogFacts, WalDamage> {
        let mut facts = FactsOfPiece::default();
        self.walker.feed(bytes, &mut |record| facts.add(&record))?;
        if self.walker.is_at_border() {
            self.at_border = Some(self.walker.clone());
        }
        Ok(facts.take())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::wal::forge::{Forge, MIB};
    use backstay_terms::Position;
    use bytes::Bytes;

    const BORDER: Lsn = Lsn(2 * MIB);
    /// The record's header and that of its data, when they are longer than 255 bytes.
    const RECORD_OVERHEAD: usize = 24 + 5;

    /// A log in which a commit lies across the border, `shift` bytes of it before.
    fn log(shift: u64) -> Forge {
        let mut log = Forge::new(Lsn(MIB));
        while BORDER.0 - log.at().0 > 2000 {
            log.filler(700);
        }
        let room = BORDER.0 - shift - log.at().0.next_multiple_of(8);
        log.filler(room as usize - RECORD_OVERHEAD);
        log.commit(900, 50);
        log.filler(3000);
        log
    }

    fn preceding(log: &Forge) -> Preceding {
        let bytes = Bytes::copy_from_slice(&log.bytes[..MIB as usize]);
        Preceding {
            begins: Position(MIB),
            bytes,
        }
    }

    #[test]
    fn a_commit_across_the_border_is_seen_by_a_walk_that_begins_before_it() {
        let log = log(32);
        let after = &log.bytes[MIB as usize..];
        let mut cold = Walk::begin(log.identity.clone(), BORDER, &Preceding::none());
        let (blind, _) = cold.feed(after).unwrap();
        assert_eq!(blind.transactions, None);
        let mut warm = Walk::begin(log.identity.clone(), BORDER, &preceding(&log));
        let (facts, joins) = warm.feed(after).unwrap();
        assert_eq!(joins, Joins::Continues);
        let commit = facts.transactions.unwrap();
        assert_eq!((commit.count, commit.last_time), (1, 50));
        assert_eq!(facts.records.unwrap().count, blind.records.unwrap().count + 1);
        assert!(Lsn::from(commit.last_start) < BORDER);
    }

    #[test]
    fn bytes_that_do_not_continue_the_stored_ones_are_another_history() {
        let (ours, theirs) = (log(32), log(24));
        let after = &theirs.bytes[MIB as usize..];
        let mut walk = Walk::begin(theirs.identity.clone(), BORDER, &preceding(&ours));
        let (facts, joins) = walk.feed(after).unwrap();
        assert_eq!(joins, Joins::OtherHistory);
        let mut cold = Walk::begin(theirs.identity.clone(), BORDER, &Preceding::none());
        assert_eq!(facts, cold.feed(after).unwrap().0);
        // Told once: what comes later is judged by itself.
        assert!(walk.feed(&[1; 64]).is_err());
    }

    #[test]
    fn stored_bytes_that_end_elsewhere_or_cannot_be_walked_are_left_alone() {
        let log = log(32);
        let after = &log.bytes[MIB as usize..];
        let mut short = preceding(&log);
        short.bytes = short.bytes.slice(..short.bytes.len() - 8192);
        let mut damaged = preceding(&log);
        let mut bytes = damaged.bytes.to_vec();
        bytes[5000] ^= 1;
        damaged.bytes = bytes.into();
        for useless in [short, damaged, Preceding::none()] {
            let mut walk = Walk::begin(log.identity.clone(), BORDER, &useless);
            let (facts, joins) = walk.feed(after).unwrap();
            assert_eq!((facts.transactions, joins), (None, Joins::Continues));
        }
    }

    #[test]
    fn a_timeline_that_begins_at_a_walked_border_begins_warm() {
        let log = log(32);
        let (before, after) = log.bytes.split_at(MIB as usize);
        let mut walk = Walk::begin(log.identity.clone(), Lsn(MIB), &Preceding::none());
        walk.feed(before).unwrap();
        walk.feed(&after[..100]).unwrap();
        walk.onto(log.identity.clone(), BORDER);
        let (facts, joins) = walk.feed(after).unwrap();
        assert_eq!(facts.transactions.unwrap().last_time, 50);
        assert_eq!(joins, Joins::Continues);
    }
}
