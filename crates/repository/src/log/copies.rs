//! Chooses one copy of each position, and another one where that copy turns out to be damaged.
//!
//! Promise: pure; names alone decide which copy is best: the nearest lineage, then no thaw, then the fewest requests. A
//! damaged copy is passed over and said loudly; the others give what they can. Only a position of which no copy is left
//! is an error: it names the damage of the best copy and the positions. Passing errors are no damage, and neither is a key
//! that lacks; but a copy whose key nobody has is passed over too: a damaged header names one, and a wrap can be lost.
//! Not here: fetching (log::store, backstay-engine::plan), what covers what (log::coverage).

use super::coverage::{StoredRange, missing, stretches};
use crate::RepositoryError;
use crate::layout::Level;
use backstay_terms::{LogRange, Position};
use std::cmp::Reverse;
use tracing::warn;

/// An object and the positions that it may give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// How many lineages lie between its own and the one that is read.
    pub distance: usize,
    /// The positions that may be taken from it.
    pub gives: LogRange,
    /// The object.
    pub stored: StoredRange,
}

impl Candidate {
    /// Those of the ranges of one lineage that hold positions of `wanted`.
    pub fn of(stored: &[StoredRange], wanted: LogRange) -> Vec<Candidate> {
        let holding = stored.iter().filter(|stored| {
            let held = stored.name.range;
            held.from < wanted.to && wanted.from < held.to
        });
        let whole = |stored: &StoredRange| Candidate {
            distance: 0,
            gives: stored.name.range,
            stored: stored.clone(),
        };
        holding.map(whole).collect()
    }

    /// The better, the higher; no two objects are equal.
    fn rank(&self) -> impl Ord {
        let needs_no_thaw = self.stored.level != Level::Held;
        let StoredRange { level, name, .. } = &self.stored;
        (Reverse(self.distance), needs_no_thaw, self.gives.to, level, name)
    }

    fn holds(&self, position: Position) -> bool {
        self.gives.from <= position && position < self.gives.to
    }
}

/// A chosen copy: these positions are to be taken from this object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The positions to take.
    pub take: LogRange,
    /// The object to take them from.
    pub from: StoredRange,
}

impl Choice {
    /// The part to take of a piece of the object, and where that begins; none if nothing of it is taken.
    pub fn part<'a>(&self, begins: Position, piece: &'a [u8]) -> Option<(Position, &'a [u8])> {
        let from = self.take.from.max(begins);
        let to = self.take.to.min(Position(begins.0 + piece.len() as u64));
        let part =
            (from < to).then(|| piece.get((from.0 - begins.0) as usize..(to.0 - begins.0) as usize))?;
        part.map(|part| (from, part))
    }
}

/// One copy for each position of `wanted`, in order; an error names the first gap.
pub fn choose(wanted: LogRange, candidates: Vec<Candidate>) -> Result<Vec<Choice>, LogRange> {
    let mut selection = Selection::new(wanted, candidates)?;
    let mut choices = Vec::new();
    // Nothing is passed over, so every position has a copy.
    while let Ok(Some(choice)) = selection.next_copy() {
        selection.taken(&choice);
        choices.push(choice);
    }
    Ok(choices)
}

/// A choice under way. The caller reads what `next_copy` names and says how that went.
#[derive(Debug)]
pub struct Selection {
    rest: LogRange,
    /// Those that begin later, the next one last.
    waiting: Vec<Candidate>,
    /// Those that begin at or before the rest.
    begun: Vec<Candidate>,
    /// Those that were damaged, in the order in which they were asked for.
    passed: Vec<(Candidate, RepositoryError)>,
}

impl Selection {
    /// Begins; an error names the first gap among the names.
    pub fn new(wanted: LogRange, mut candidates: Vec<Candidate>) -> Result<Selection, LogRange> {
        candidates.retain(|c| !c.gives.is_mark() && c.gives.from < wanted.to && wanted.from < c.gives.to);
        let covered = stretches(candidates.iter().map(|candidate| &candidate.gives));
        if let Some(gap) = missing(wanted, &covered).first() {
            return Err(*gap);
        }
        candidates.sort_by_key(|candidate| Reverse(candidate.gives));
        Ok(Selection {
            rest: wanted,
            waiting: candidates,
            begun: Vec::new(),
            passed: Vec::new(),
        })
    }

    /// The best copy of what comes next; none at the end.
    pub fn next_copy(&mut self) -> Result<Option<Choice>, RepositoryError> {
        let LogRange { from: at, to } = self.rest;
        if at >= to {
            return Ok(None);
        }
        while let Some(next) = self.waiting.pop_if(|candidate| candidate.gives.from <= at) {
            self.begun.push(next);
        }
        self.begun.retain(|candidate| candidate.holds(at));
        let Some(best) = self.begun.iter().max_by_key(|candidate| candidate.rank()) else {
            return Err(self.unreadable(at));
        };
        Ok(Some(Choice {
            take: LogRange {
                from: at,
                to: best.gives.to.min(to),
            },
            from: best.stored.clone(),
        }))
    }

    /// The positions of this choice were read.
    pub fn taken(&mut self, choice: &Choice) {
        self.rest.from = choice.take.to;
    }

    /// This choice could not be read. What is no damage is given back.
    pub fn pass_over(&mut self, choice: &Choice, error: RepositoryError) -> Result<(), RepositoryError> {
        if !error.is_damage() && !lacks_key(&error) {
            return Err(error);
        }
        let (branch, LogRange { from, to }) = (choice.from.branch, choice.take);
        warn!(%branch, %from, %to, %error, "a damaged copy of the log is passed over");
        let is_it = |c: &Candidate| c.stored == choice.from;
        if let Some(place) = self.begun.iter().position(is_it) {
            self.passed.push((self.begun.swap_remove(place), error));
        }
        Ok(())
    }

    /// The damage of the best copy at `at`. It counts up to where something else may be read again.
    fn unreadable(&mut self, at: Position) -> RepositoryError {
        let holding = self
            .passed
            .iter()
            .enumerate()
            .filter(|(_, (passed, _))| passed.holds(at));
        // A key that is missing can be had, so it is said before any damage.
        let best = holding.max_by_key(|(_, (passed, error))| (lacks_key(error), passed.rank()));
        let Some(place) = best.map(|(place, _)| place) else {
            let what = format!("the log at {at} has a name and no copy");
            return RepositoryError::OutOfOrder { what };
        };
        let (passed, damage) = self.passed.swap_remove(place);
        let next = self.waiting.last().map(|candidate| candidate.gives.from);
        let to = passed.gives.to.min(self.rest.to);
        RepositoryError::Unreadable {
            from: at,
            to: next.map_or(to, |next| next.min(to)),
            damage: Box::new(damage),
        }
    }
}

/// A header whose key id was damaged names a key that nobody has, and so does an object whose key is lost. Another copy
/// serves in both cases, being authentic; without one the key is what is missing.
fn lacks_key(error: &RepositoryError) -> bool {
    matches!(
        error,
        RepositoryError::UnknownKey { .. } | RepositoryError::NoKey { .. }
    )
}

#[cfg(test)]
mod tests;
