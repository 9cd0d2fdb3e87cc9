//! Which positions of a branch are stored: stretches, gaps, and the choice of one copy for each position.
//!
//! Promise: pure functions of names; time marks never add coverage; a choice prefers copies that need no thaw and
//! then the fewest requests.
//! Not here: listing and fetching (log::view).

use crate::layout::{Level, RangeName};
use backstay_terms::{LogRange, Position};

/// A stored range: its name, level and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRange {
    /// The level it lies at.
    pub level: Level,
    /// Its name.
    pub name: RangeName,
    /// The object's bytes.
    pub size: u64,
}

impl StoredRange {
    fn range(&self) -> LogRange {
        self.name.range
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

/// A chosen copy: these positions are to be taken from this object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The positions to take.
    pub take: LogRange,
    /// The object to take them from.
    pub from: StoredRange,
}

/// One copy for each position of `wanted`, in order; an error names the first gap.
pub fn choose(wanted: LogRange, stored: &[StoredRange]) -> Result<Vec<Choice>, LogRange> {
    let mut sorted: Vec<&StoredRange> = stored.iter().filter(|s| !s.range().is_mark()).collect();
    sorted.sort_by_key(|s| s.range());
    let mut choices: Vec<Choice> = Vec::new();
    let mut at = wanted.from;
    while at < wanted.to {
        let reaching = sorted
            .iter()
            .take_while(|s| s.range().from <= at)
            .filter(|s| s.range().to > at);
        let Some(best) = reaching.max_by_key(|s| (s.range().to, s.level != Level::Held)) else {
            let next = sorted.iter().map(|s| s.range().from).find(|from| *from > at);
            return Err(LogRange {
                from: at,
                to: next.unwrap_or(wanted.to).min(wanted.to),
            });
        };
        let to = best.range().to.min(wanted.to);
        choices.push(Choice {
            take: LogRange { from: at, to },
            from: (*best).clone(),
        });
        at = to;
    }
    Ok(choices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstay_terms::{Suffix, TimedId};
    use proptest::prelude::*;

    fn range(from: u64, to: u64) -> LogRange {
        LogRange {
            from: Position(from),
            to: Position(to),
        }
    }

    fn stored(level: Level, from: u64, to: u64, number: u32) -> StoredRange {
        let epoch = TimedId::new("20261123T020011Z", "log", Suffix::from_chance(1)).unwrap();
        StoredRange {
            level,
            name: RangeName {
                range: range(from, to),
                epoch,
                number,
            },
            size: to - from,
        }
    }

    proptest! {
        #[test]
        fn every_position_is_either_chosen_once_or_named_as_missing(
            pieces in proptest::collection::vec((0u64..100, 0u64..20), 0..12), from in 0u64..100, length in 1u64..60,
        ) {
            let all: Vec<StoredRange> =
                pieces.iter().enumerate().map(|(n, (f, l))| stored(Level::Live, *f, f + l, n as u32)).collect();
            let wanted = range(from, from + length);
            let covered = |p: u64| all.iter().any(|s| s.name.range.from.0 <= p && p < s.name.range.to.0);
            match choose(wanted, &all) {
                Ok(choices) => {
                    let mut at = wanted.from;
                    for choice in &choices {
                        prop_assert_eq!(choice.take.from, at);
                        let held = choice.from.name.range;
                        prop_assert!(held.from <= choice.take.from && choice.take.to <= held.to);
                        at = choice.take.to;
                    }
                    prop_assert_eq!(at, wanted.to);
                }
                Err(gap) => {
                    prop_assert!(!covered(gap.from.0));
                    prop_assert!((gap.from.0..gap.to.0).all(|p| !covered(p)));
                    prop_assert!((from..gap.from.0).all(covered));
                }
            }
            let names: Vec<LogRange> = all.iter().map(|s| s.name.range).collect();
            let joined = stretches(&names);
            let lacking = missing(wanted, &joined);
            for p in wanted.from.0..wanted.to.0 {
                prop_assert_eq!(covered(p), !lacking.iter().any(|gap| gap.from.0 <= p && p < gap.to.0));
            }
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
}
