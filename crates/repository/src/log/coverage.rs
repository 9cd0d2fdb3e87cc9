//! Which positions of a branch are stored: stretches and gaps.
//!
//! Promise: pure functions of names; time marks never add coverage.
//! Not here: listing and fetching (log::store), which copy is read (log::copies).

use super::range::range_bytes_min;
use crate::layout::{Level, RangeName};
use backstay_terms::{Branch, LogRange, Position};

/// A stored range: where it lies, its name and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRange {
    /// The branch under which it is stored.
    pub branch: Branch,
    /// The level it lies at.
    pub level: Level,
    /// Its name.
    pub name: RangeName,
    /// The object's bytes.
    pub size: u64,
}

/// What is stored of a branch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangesSeen {
    /// What may be whole, by position.
    pub ranges: Vec<StoredRange>,
    /// What is too small to be a range: its name is all that is left of it.
    pub cut: Vec<StoredRange>,
}

impl StoredRange {
    /// True if the object is too small to hold what its name says.
    pub fn is_cut(&self) -> bool {
        self.size < range_bytes_min()
    }
}

/// The contiguous stretches of a set of ranges, in order. Marks count as nothing.
pub fn stretches<'a>(ranges: impl IntoIterator<Item = &'a LogRange>) -> Vec<LogRange> {
    let mut sorted: Vec<LogRange> = ranges
        .into_iter()
        .copied()
        .filter(|range| !range.is_mark())
        .collect();
    sorted.sort();
    let mut joined: Vec<LogRange> = Vec::new();
    for range in sorted {
        match joined.last_mut() {
            Some(last) if range.from <= last.to => last.to = last.to.max(range.to),
            _ => joined.push(range),
        }
    }
    joined
}

/// The positions that two ranges both hold.
pub(super) fn shared(one: &LogRange, two: &LogRange) -> Option<LogRange> {
    let (from, to) = (one.from.max(two.from), one.to.min(two.to));
    (from < to).then_some(LogRange { from, to })
}

/// The gaps between stretches.
pub fn gaps(stretches: &[LogRange]) -> Vec<LogRange> {
    let pairs = stretches.iter().zip(stretches.iter().skip(1));
    pairs
        .map(|(before, after)| LogRange {
            from: before.to,
            to: after.from,
        })
        .collect()
}

/// What `wanted` lacks in `covered` (stretches, in order).
pub fn missing(wanted: LogRange, covered: &[LogRange]) -> Vec<LogRange> {
    let mut lacking = Vec::new();
    let mut at = wanted.from;
    for stretch in covered
        .iter()
        .filter(|stretch| stretch.to > wanted.from && stretch.from < wanted.to)
    {
        if stretch.from > at {
            lacking.push(LogRange {
                from: at,
                to: stretch.from,
            });
        }
        at = at.max(stretch.to);
    }
    if at < wanted.to {
        lacking.push(LogRange {
            from: at,
            to: wanted.to,
        });
    }
    lacking
}

/// The stretch that holds the byte at `position`, or that ends there.
pub fn stretch_at(stretches: &[LogRange], position: Position) -> Option<LogRange> {
    stretches
        .iter()
        .copied()
        .find(|stretch| stretch.from <= position && position <= stretch.to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(from: u64, to: u64) -> LogRange {
        LogRange {
            from: Position(from),
            to: Position(to),
        }
    }

    #[test]
    fn marks_cover_nothing_and_gaps_lie_between_stretches() {
        let joined = stretches(&[
            range(0, 10),
            range(10, 10),
            range(10, 20),
            range(30, 40),
            range(25, 25),
        ]);
        assert_eq!(joined, [range(0, 20), range(30, 40)]);
        assert_eq!(gaps(&joined), [range(20, 30)]);
        assert_eq!(stretch_at(&joined, Position(20)), Some(range(0, 20)));
        assert_eq!(stretch_at(&joined, Position(25)), None);
    }

    proptest! {
        #[test]
        fn what_is_missing_is_what_no_stretch_covers(
            pieces in proptest::collection::vec((0u64..100, 0u64..20), 0..12), from in 0u64..100, length in 1u64..60,
        ) {
            let all: Vec<LogRange> = pieces.iter().map(|(from, length)| range(*from, from + length)).collect();
            let covered = |p: u64| all.iter().any(|range| range.from.0 <= p && p < range.to.0);
            let lacking = missing(range(from, from + length), &stretches(&all));
            for p in from..from + length {
                prop_assert_eq!(covered(p), !lacking.iter().any(|gap| gap.from.0 <= p && p < gap.to.0));
            }
        }
    }
}
