//! Looks for holes in the log of a source, and says of each what is known and what to type.
//!
//! Promise: what was stored once and is gone is a finding, and so is what cannot be told from it; a hole that an attachment
//! declared, or that an upload may be filling now, is named beside them. A hole counts only if it is still there when the
//! branch is listed again: log that arrives meanwhile is no damage.
//! Not here: finding them (backstay-repository::check).

use crate::EngineError;
use crate::plan::retention::ExpiryPolicy;
use crate::plan::{Chain, LostLog};
use backstay_repository::{
    BranchObjects, CheckFinding, Hole, HoleContext, HoleKind, Indexed, Invariant, Inventory, LineageKind,
    LineageRecord, LogCheck, LogStore,
};
use backstay_terms::{EngineKind, LogRange, Lsn, Position, SourceName};
use jiff::Timestamp;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// What holes are looked for in.
pub(super) struct Look<'a> {
    pub log: &'a LogStore,
    pub inventory: &'a Inventory,
    /// Every lineage record that opens, oldest first.
    pub records: &'a [LineageRecord],
    pub indexed: &'a Indexed,
    pub now: Timestamp,
}

impl Look<'_> {
    /// The holes of every branch of which something is stored or indexed.
    pub async fn holes(&self) -> Result<Vec<Hole>, EngineError> {
        let stored = self.inventory.branches.iter();
        let mut branches: Vec<Cow<'_, BranchObjects>> = stored.map(Cow::Borrowed).collect();
        let listed: BTreeSet<_> = branches.iter().map(|objects| objects.branch).collect();
        let gone = self.indexed.keys().filter(|branch| !listed.contains(branch));
        branches.extend(gone.map(|branch| {
            Cow::Owned(BranchObjects {
                branch: *branch,
                ranges: Vec::new(),
                cut: Vec::new(),
            })
        }));
        let suspicious: Vec<usize> = (0..branches.len())
            .filter(|place| !self.of(&branches, *place).is_empty())
            .collect();
        for place in &suspicious {
            if let Some(objects) = branches.get_mut(*place) {
                let (listed, _) = self.log.listed(&objects.branch, Position::default()).await?;
                *objects = Cow::Owned(listed);
            }
        }
        Ok(suspicious
            .iter()
            .flat_map(|place| self.of(&branches, *place))
            .collect())
    }

    fn of(&self, branches: &[Cow<'_, BranchObjects>], place: usize) -> Vec<Hole> {
        let Some(objects) = branches.get(place) else {
            return Vec::new();
        };
        // An adoption repeats where a stream attached before.
        let attached =
            |record: &&LineageRecord| record.kind == LineageKind::Attach && record.branch == objects.branch;
        let records: Vec<&LineageRecord> = self.records.iter().filter(attached).collect();
        let mut chain = Chain::of(objects.branch, self.records);
        chain.links.retain(|link| link.branch != objects.branch);
        for link in &mut chain.links {
            let of_link = branches.iter().find(|other| other.branch == link.branch);
            let ranges = of_link.iter().flat_map(|other| &other.ranges);
            link.ranges = ranges.map(|range| range.stored.clone()).collect();
        }
        let named = self.indexed.get(&objects.branch).into_iter().flatten();
        // A name was given to what was stored.
        let cut = objects.cut.iter().map(|cut| &cut.stored.name.range);
        let named: Vec<LogRange> = named.chain(cut).copied().collect();
        LogCheck::new(self.log, objects).holes(&HoleContext {
            records: &records,
            ancestors: &chain.stretches(None),
            indexed: &named,
            now: self.now,
            expires_after: ExpiryPolicy::of(self.inventory.engine).settled,
        })
    }
}

/// The finding that a hole is; none if it is known or passes.
pub(super) fn finding(engine: EngineKind, source: &SourceName, hole: &Hole) -> Option<CheckFinding> {
    let gaps = format!("backstay wal gaps {source}");
    let (what, next) = match hole.kind {
        HoleKind::Lost => (
            "is not stored any more: it was stored or confirmed, and no restore can cross it",
            format!("bring it back from a copy of the repository, or: backstay backup {source}; see: {gaps}"),
        ),
        HoleKind::LostOrUnsent => (
            "is not stored: either it is lost, or a stream died before it had stored it, and reads it again when it runs",
            format!(
                "see that this runs: backstay stream {source}; if the hole stays: backstay backup {source}; see: {gaps}"
            ),
        ),
        HoleKind::UnderWay | HoleKind::Declared => return None,
    };
    let object = format!("branch {} {}", hole.branch, positions(engine, hole.range));
    let what = format!(
        "the log {}{} {what}",
        positions(engine, hole.range),
        between(hole)
    );
    Some(CheckFinding::new(object, Invariant::Log1, what).then(next))
}

/// The finding that lost log is which leaves no hole.
pub(super) fn lost(source: &SourceName, loss: &LostLog) -> CheckFinding {
    let next = format!("bring it back from a copy of the repository, or: backstay backup {source}");
    let object = format!("branch {} up to {}", loss.branch, Lsn::from(loss.to));
    CheckFinding::new(object, Invariant::Log1, loss.words()).then(next)
}

fn positions(engine: EngineKind, range: LogRange) -> String {
    match engine {
        EngineKind::Postgres => format!("from {} to {}", Lsn::from(range.from), Lsn::from(range.to)),
        EngineKind::Redis | EngineKind::Qdrant => format!("from {} to {}", range.from, range.to),
    }
}

/// The times around a hole, as far as they are known: those of the store, which are of the copy where it was copied.
fn between(hole: &Hole) -> String {
    match (hole.before, hole.after) {
        (Some(before), Some(after)) => {
            format!(", between objects that the store dates {before:.0} and {after:.0},")
        }
        (Some(before), None) => format!(", after an object that the store dates {before:.0},"),
        (None, Some(after)) => format!(", before an object that the store dates {after:.0},"),
        (None, None) => String::new(),
    }
}
