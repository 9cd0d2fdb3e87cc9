//! Finds epochs that stored other bytes than another one at the same positions of one lineage: two servers that were
//! streamed under one name at the same time.
//!
//! An epoch begins to append where the lineage ended when it attached. So two of them hold positions past both beginnings
//! only if both wrote there at the same time; whether they are two servers the bytes tell. One of two leaves: the one that
//! began later. What went on after it, and what settling copied of it, leaves with it.
//! Promise: whoever looks, and how often, comes to the same lineage. What cannot be read contradicts nobody.
//! Not here: when to look (backstay-engine::jobs), what a move means to readers (log::moves).

use super::copies::Candidate;
use super::coverage::{StoredRange, missing, shared, stretches};
use super::hidden::STREAMED;
use super::lineage::{AttachReason, LineageKind, LineageRecord, Parent};
use super::moves::{MOVE, Moved};
use super::store::LogStore;
use crate::RepositoryError;
use backstay_codec::digest_hex;
use backstay_terms::{Branch, EpochId, Lineage, LogRange, Position};
use std::collections::{BTreeMap, BTreeSet};
use tracing::warn;

/// How many pairs of ranges are compared of two epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The first four, where two histories part, and the last four.
    Ends,
    /// All.
    Everything,
}

/// So many pairs at each end.
const AT_EACH_END: usize = 4;

/// Epochs that are to leave a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// The branch.
    pub branch: Branch,
    /// Which, the one that was found out first.
    pub epochs: Vec<EpochId>,
    /// The lineage that they are of.
    pub to: Branch,
    /// Up to here the two are one history.
    pub fork: Position,
}

/// What a look at a branch found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Twins {
    /// Who is to leave.
    pub leaving: Vec<Leaving>,
    /// Epochs that hold the bytes of another one, written at the same time: streams of one server.
    pub equal: BTreeSet<EpochId>,
}

/// An epoch of a stream in a branch.
struct Writer<'a> {
    epoch: &'a EpochId,
    begin: Position,
    after: Option<&'a EpochId>,
    ranges: Vec<&'a StoredRange>,
}

/// What comparing told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Equal,
    Different,
}

impl LogStore {
    /// Looks for two servers in what is stored of a lineage, from a position on if one is given. Writes nothing.
    pub async fn twins(
        &self,
        branch: &Branch,
        from: Option<Position>,
        compared: Compared,
    ) -> Result<Twins, RepositoryError> {
        let ranges = self.ranges(branch, from).await?;
        let moves = self.moves().await?;
        let had_moved = moves.out_of(*branch).next().is_some();
        if !had_moved && !overlapped(&ranges) {
            return Ok(Twins::default());
        }
        let records = self.every_record().await?.records;
        let mut search = Search {
            log: self,
            branch: *branch,
            records: &records,
            compared,
            gone: moves
                .out_of(*branch)
                .map(|(epoch, to)| (epoch.clone(), to))
                .collect(),
            twins: Twins::default(),
        };
        let staying = search.streams(&ranges).await?;
        search.copies(&ranges, &staying).await?;
        Ok(search.twins)
    }

    /// Tells two servers apart: stores a record for each lineage that epochs leave to.
    pub async fn tell_apart(
        &self,
        branch: &Branch,
        from: Option<Position>,
        compared: Compared,
    ) -> Result<Twins, RepositoryError> {
        let twins = self.twins(branch, from, compared).await?;
        if twins.leaving.is_empty() {
            return Ok(twins);
        }
        let records = self.every_record().await?.records;
        for leaving in &twins.leaving {
            self.put_move(leaving, &records).await?;
        }
        Ok(twins)
    }

    async fn put_move(&self, leaving: &Leaving, records: &[LineageRecord]) -> Result<(), RepositoryError> {
        let first = leaving.epochs.first();
        let own = records
            .iter()
            .find(|record| record.branch == leaving.branch && Some(&record.epoch) == first);
        let of_branch = || records.iter().find(|record| record.branch == leaving.branch);
        let known = records.iter().find(|record| record.branch == leaving.to);
        let (Some(attached), Some(epoch)) = (own.or_else(of_branch), first) else {
            let what = format!(
                "{} holds log of two servers and has no lineage record",
                leaving.branch
            );
            return Err(RepositoryError::malformed(leaving.branch, what));
        };
        let parent = known.and_then(|known| known.parent).unwrap_or(Parent {
            branch: leaving.branch,
            fork: leaving.fork,
        });
        let record = LineageRecord {
            format: 1,
            kind: LineageKind::Attach,
            id: self.repository.new_id(MOVE)?,
            created: self.repository.now(),
            branch: leaving.to,
            from: leaving.fork,
            parent: Some(parent),
            reason: AttachReason::Differs,
            epoch: epoch.clone(),
            frontier: None,
            over: vec![],
            moved: Some(Moved {
                branch: leaving.branch,
                epochs: leaving.epochs.clone(),
            }),
            after: None,
            ..attached.clone()
        };
        self.put_record(&record).await
    }

    async fn told_by(
        &self,
        one: &[&StoredRange],
        two: &[&StoredRange],
        within: LogRange,
        compared: Compared,
    ) -> Result<Told, RepositoryError> {
        let mut pairs = Vec::new();
        let theirs = cover(two);
        for mine in cover(one) {
            for other in &theirs {
                let both = shared(&mine.name.range, &other.name.range);
                let both = both.and_then(|both| shared(&both, &within));
                pairs.extend(both.map(|both| (both, mine, *other)));
            }
        }
        pairs.sort_by_key(|(both, ..)| *both);
        if compared == Compared::Ends && pairs.len() > 2 * AT_EACH_END {
            pairs.drain(AT_EACH_END..pairs.len() - AT_EACH_END);
        }
        let mut told = Told::Nothing;
        for (both, one, two) in pairs {
            match self.holds_equal(both, one, two).await {
                Ok(true) => told = Told::Equal,
                Ok(false) => return Ok(Told::Different),
                Err(error) if error.is_damage() || error.is_about_keys() => {
                    warn!(branch = %one.branch, %error, "a range that cannot be opened is compared with no other");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(told)
    }

    /// Refuses to read positions of which two streams stored different bytes in one lineage.
    pub(super) async fn refuse_two_servers(
        &self,
        wanted: LogRange,
        candidates: &[Candidate],
    ) -> Result<(), RepositoryError> {
        let mut lineages: BTreeMap<usize, (Position, BTreeMap<&EpochId, Vec<&StoredRange>>)> =
            BTreeMap::new();
        for Candidate {
            distance,
            gives,
            stored,
        } in candidates
        {
            if stored.name.epoch.kind() == STREAMED {
                let (ends, epochs) = lineages.entry(*distance).or_default();
                *ends = gives.to.max(*ends);
                epochs.entry(&stored.name.epoch).or_default().push(stored);
            }
        }
        for (ends, epochs) in lineages.into_values() {
            let within = LogRange {
                from: wanted.from,
                to: wanted.to.min(ends),
            };
            let epochs: Vec<(&EpochId, Vec<&StoredRange>)> = epochs.into_iter().collect();
            for (place, (_, one)) in epochs.iter().enumerate() {
                for (epoch, two) in epochs.iter().skip(place + 1) {
                    if self.told_by(one, two, within, Compared::Everything).await? == Told::Different
                        && let Some(stored) = two.first()
                    {
                        return Err(self.two_servers(stored.branch, wanted.from, epoch));
                    }
                }
            }
        }
        Ok(())
    }

    /// An error that says what is to be told apart.
    pub fn two_servers(&self, branch: Branch, fork: Position, epoch: &EpochId) -> RepositoryError {
        RepositoryError::TwoServers {
            source_name: self.place.source.to_string(),
            branch,
            fork,
            epoch: epoch.clone(),
        }
    }

    pub(super) async fn holds_equal(
        &self,
        both: LogRange,
        one: &StoredRange,
        two: &StoredRange,
    ) -> Result<bool, RepositoryError> {
        if one.name.range == two.name.range {
            // The digests of the same positions are enough.
            return Ok(self.index_of(one).await?.sha256 == self.index_of(two).await?.sha256);
        }
        let (of_one, of_two) = (self.range(one).await?.1, self.range(two).await?.1);
        let part = |stored: &StoredRange, bytes: &bytes::Bytes| {
            let origin = stored.name.range.from.0;
            bytes.slice((both.from.0 - origin) as usize..(both.to.0 - origin) as usize)
        };
        Ok(part(one, &of_one) == part(two, &of_two))
    }
}

struct Search<'a> {
    log: &'a LogStore,
    branch: Branch,
    records: &'a [LineageRecord],
    compared: Compared,
    /// Who left, before or now, and where to.
    gone: BTreeMap<EpochId, Branch>,
    twins: Twins,
}

impl<'a> Search<'a> {
    /// Decides about the epochs of streams, the one that began first at first; gives back who stays.
    async fn streams(&mut self, ranges: &'a [StoredRange]) -> Result<Vec<Writer<'a>>, RepositoryError> {
        let mut staying: Vec<Writer<'a>> = Vec::new();
        let mut gone: Vec<(Branch, Writer<'a>)> = Vec::new();
        for writer in self.writers(ranges) {
            if let Some(to) = writer.after.and_then(|after| self.gone.get(after)).copied() {
                self.leaves(&writer, to);
                gone.push((to, writer));
                continue;
            }
            let mut told = Told::Nothing;
            for other in &staying {
                match self.between(&writer, other).await? {
                    Told::Nothing => {}
                    Told::Equal => told = Told::Equal,
                    Told::Different => {
                        told = Told::Different;
                        break;
                    }
                }
            }
            if told == Told::Equal {
                self.twins.equal.insert(writer.epoch.clone());
            }
            if told != Told::Different {
                staying.push(writer);
                continue;
            }
            let mut to = apart(self.branch, writer.epoch);
            for (lineage, other) in &gone {
                if self.between(&writer, other).await? == Told::Equal {
                    to = *lineage;
                    break;
                }
            }
            self.leaves(&writer, to);
            gone.push((to, writer));
        }
        Ok(staying)
    }

    async fn between(&self, one: &Writer<'_>, two: &Writer<'_>) -> Result<Told, RepositoryError> {
        let past = from(one.begin.max(two.begin));
        self.log
            .told_by(&one.ranges, &two.ranges, past, self.compared)
            .await
    }

    fn leaves(&mut self, writer: &Writer<'_>, to: Branch) {
        self.gone.insert(writer.epoch.clone(), to);
        self.leave(writer.epoch, to, writer.begin);
    }

    fn leave(&mut self, epoch: &EpochId, to: Branch, fork: Position) {
        match self.twins.leaving.iter_mut().find(|leaving| leaving.to == to) {
            Some(leaving) => leaving.epochs.push(epoch.clone()),
            None => self.twins.leaving.push(Leaving {
                branch: self.branch,
                epochs: vec![epoch.clone()],
                to,
                fork,
            }),
        }
    }

    /// Decides about what settling copied: it leaves with those whose bytes it holds, unless those who stay hold them too.
    async fn copies(
        &mut self,
        ranges: &'a [StoredRange],
        staying: &[Writer<'a>],
    ) -> Result<(), RepositoryError> {
        let mut copies: BTreeMap<&EpochId, Vec<&StoredRange>> = BTreeMap::new();
        for stored in ranges
            .iter()
            .filter(|stored| stored.name.epoch.kind() != STREAMED)
        {
            copies.entry(&stored.name.epoch).or_default().push(stored);
        }
        if copies.is_empty() || self.gone.is_empty() {
            return Ok(());
        }
        let kept: Vec<&StoredRange> = staying.iter().flat_map(|writer| writer.ranges.clone()).collect();
        let mut away: BTreeMap<Branch, Vec<StoredRange>> = BTreeMap::new();
        for to in self.gone.values().copied().collect::<BTreeSet<_>>() {
            let mut theirs = self.log.ranges(&to, None).await?;
            let leaves = |stored: &&StoredRange| self.gone.get(&stored.name.epoch) == Some(&to);
            theirs.extend(ranges.iter().filter(leaves).cloned());
            away.insert(to, theirs);
        }
        let start = from(Position::default());
        for (epoch, copy) in copies {
            let with_kept = self
                .log
                .told_by(&copy, &kept, start, Compared::Everything)
                .await?;
            let held = stretches(kept.iter().map(|stored| &stored.name.range));
            let whole = copy
                .iter()
                .all(|stored| missing(stored.name.range, &held).is_empty());
            if with_kept == Told::Equal && whole {
                continue;
            }
            for (to, theirs) in &away {
                let theirs: Vec<&StoredRange> = theirs.iter().collect();
                if self
                    .log
                    .told_by(&copy, &theirs, start, Compared::Everything)
                    .await?
                    == Told::Equal
                {
                    let first = copy.iter().map(|stored| stored.name.range.from).min();
                    self.leave(epoch, *to, first.unwrap_or_default());
                    break;
                }
            }
        }
        Ok(())
    }

    /// The epochs of streams, the one that began first at first. One whose record cannot be opened begins with its first range.
    fn writers(&self, ranges: &'a [StoredRange]) -> Vec<Writer<'a>> {
        let mut of_epoch: BTreeMap<&EpochId, Vec<&StoredRange>> = BTreeMap::new();
        for stored in ranges
            .iter()
            .filter(|stored| stored.name.epoch.kind() == STREAMED)
        {
            of_epoch.entry(&stored.name.epoch).or_default().push(stored);
        }
        let writer = |(epoch, ranges): (&'a EpochId, Vec<&'a StoredRange>)| {
            let is_it = |record: &&LineageRecord| {
                record.kind == LineageKind::Attach && (record.branch, &record.epoch) == (self.branch, epoch)
            };
            let record = self.records.iter().find(is_it);
            let first = ranges.iter().map(|stored| stored.name.range.from).min();
            let begin = record
                .map(|record| record.frontier.unwrap_or(record.from))
                .or(first);
            Writer {
                epoch,
                begin: begin.unwrap_or_default(),
                after: record.and_then(|record| record.after.as_ref()),
                ranges,
            }
        };
        let mut writers: Vec<Writer<'a>> = of_epoch.into_iter().map(writer).collect();
        writers.sort_by_key(|writer| (writer.begin, writer.epoch));
        writers
    }
}

fn from(position: Position) -> LogRange {
    LogRange {
        from: position,
        to: Position(u64::MAX),
    }
}

/// The lineage of the epoch that leaves a branch: whoever finds it out comes to the same.
fn apart(branch: Branch, epoch: &EpochId) -> Branch {
    let digest = digest_hex(format!("backstay/1/apart {branch} {epoch}").as_bytes());
    let lineage = digest.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok());
    Branch {
        lineage: Lineage(lineage.unwrap_or_default()),
        ..branch
    }
}

/// Whether ranges of two streams overlap.
fn overlapped(ranges: &[StoredRange]) -> bool {
    let mut reaches: BTreeMap<&EpochId, Position> = BTreeMap::new();
    for stored in ranges.iter().filter(|stored| !stored.name.range.is_mark()) {
        let StoredRange { name, .. } = stored;
        if name.epoch.kind() != STREAMED {
            continue;
        }
        if reaches
            .iter()
            .any(|(epoch, reach)| **epoch != name.epoch && *reach > name.range.from)
        {
            return true;
        }
        let reach = reaches.entry(&name.epoch).or_default();
        *reach = name.range.to.max(*reach);
    }
    false
}

/// Ranges of one epoch that hold everything that all of them hold, each position as few times as can be.
fn cover<'a>(ranges: &[&'a StoredRange]) -> Vec<&'a StoredRange> {
    let mut sorted: Vec<&StoredRange> = ranges
        .iter()
        .copied()
        .filter(|r| !r.name.range.is_mark())
        .collect();
    sorted.sort_by_key(|stored| (stored.name.range.from, std::cmp::Reverse(stored.name.range.to)));
    let mut reach = Position::default();
    sorted.retain(|stored| {
        let more = stored.name.range.to > reach;
        reach = reach.max(stored.name.range.to);
        more
    });
    sorted
}
