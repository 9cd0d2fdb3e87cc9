//! A lineage with its ancestors, as one log.
//!
//! Promise: no byte past a switch point is taken from an ancestor (LIN-3); where both hold a position, the nearest
//! to the target is taken; a segment has the name of the newest timeline that begins in it or before it.

use backstay_repository::{Candidate, Choice, LineageRecord, Parent, StoredRange, choose, stretches};
use backstay_terms::{Branch, LogRange, Position, Timeline, WalFileName, WalSegmentNumber, WalSegmentSize};

/// One lineage of a chain.
#[derive(Clone, Debug)]
pub struct Link {
    /// The branch.
    pub branch: Branch,
    /// The digest of its timeline's history file.
    pub history: Option<String>,
    /// Where its timeline began; zero for the oldest known.
    pub begins: Position,
    /// Where its descendant left it; none for the target.
    pub until: Option<Position>,
    /// What is stored of it.
    pub ranges: Vec<StoredRange>,
    /// Objects that are too small to be what their names say.
    pub cut: Vec<StoredRange>,
}

impl Link {
    /// A lineage by itself.
    pub fn alone(branch: Branch, ranges: Vec<StoredRange>) -> Link {
        Link {
            branch,
            history: None,
            begins: Position(0),
            until: None,
            ranges,
            cut: Vec::new(),
        }
    }

    /// What of a range counts: nothing past where the descendant left.
    pub(super) fn clipped(&self, range: LogRange) -> Option<LogRange> {
        let to = self.until.map_or(range.to, |until| range.to.min(until));
        LogRange::new(range.from, to).filter(|range| !range.is_mark())
    }
}

/// A lineage and its ancestors, oldest first.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The links; the last one is the target.
    pub links: Vec<Link>,
}

impl Chain {
    /// The branches of a target and its ancestors with their bounds, oldest first; ranges are still empty.
    pub fn of(target: Branch, records: &[LineageRecord]) -> Chain {
        let mut links = Vec::new();
        let (mut branch, mut until) = (Some(target), None);
        while let Some(current) = branch.filter(|b| links.iter().all(|link: &Link| link.branch != *b)) {
            let of_branch = || records.iter().filter(|record| record.branch == current);
            let parent: Option<Parent> = of_branch().find_map(|record| record.parent);
            let history = of_branch().find_map(|record| record.history.clone());
            let begins = parent.map_or(Position(0), |parent| parent.fork);
            links.push(Link {
                branch: current,
                history,
                begins,
                until,
                ranges: Vec::new(),
                cut: Vec::new(),
            });
            (branch, until) = (parent.map(|p| p.branch), parent.map(|p| p.fork));
        }
        links.reverse();
        Chain { links }
    }

    /// The target.
    pub fn target(&self) -> Option<&Link> {
        self.links.last()
    }

    /// The contiguous stretches of the whole chain, with `own` (what a base carries itself) joined in.
    pub fn stretches(&self, own: Option<LogRange>) -> Vec<LogRange> {
        let of_link = |link: &Link| -> Vec<LogRange> {
            link.ranges
                .iter()
                .filter_map(|stored| link.clipped(stored.name.range))
                .collect()
        };
        let all: Vec<LogRange> = self.links.iter().flat_map(of_link).chain(own).collect();
        stretches(&all)
    }

    /// One copy of each position of `wanted`, in order; an error names the first gap.
    pub fn choose(&self, wanted: LogRange) -> Result<Vec<Choice>, LogRange> {
        choose(wanted, self.candidates(wanted))
    }

    /// Everything that may give positions of `wanted`.
    pub fn candidates(&self, wanted: LogRange) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for (distance, link) in self.links.iter().rev().enumerate() {
            let clipped = |stored: &StoredRange| {
                let gives = link.clipped(stored.name.range)?;
                (gives.from < wanted.to && wanted.from < gives.to).then(|| Candidate {
                    distance,
                    gives,
                    stored: stored.clone(),
                })
            };
            candidates.extend(link.ranges.iter().filter_map(clipped));
        }
        candidates
    }

    /// The timeline in the name of a segment.
    pub fn timeline_of(&self, segment: WalSegmentNumber, size: WalSegmentSize) -> Option<u32> {
        let begun = |link: &&Link| size.segment_holding(link.begins.into()) <= segment;
        self.links
            .iter()
            .rev()
            .find(begun)
            .map(|link| link.branch.timeline)
    }

    /// The name of a segment.
    pub fn name_of(&self, segment: WalSegmentNumber, size: WalSegmentSize) -> Option<WalFileName> {
        self.timeline_of(segment, size)
            .map(|timeline| WalFileName::new(Timeline(timeline), segment, size))
    }
}
