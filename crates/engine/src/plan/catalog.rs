//! What the store holds of one source, read once and kept for planning.
//!
//! Promise: reads names first and index parts only when a decision needs them; each index part is read once. A damaged
//! range counts only where no other copy says or holds the same.

use super::chain::{Chain, Link};
use super::closed::Closed;
use super::headless::HeadlessBackup;
use super::lost::LostLog;
use super::lost_backups::LostBackup;
use super::own_log::own_log_is_of;
use super::rivals::{Rival, rivals, stored_chain};
use super::two_servers::twins_along;
use super::unread::{Seen, Unread};
use crate::EngineError;
use backstay_repository::layout::Level;
use backstay_repository::{
    Choice, EndPoint, Head, HeadLog, Leaving, LineageKind, LineageRecord, LogStore, Repository,
    RepositoryError, Selection, StoredRange, missing, stretches,
};
use backstay_terms::{
    BackupId, Branch, EngineKind, LogFacts, LogPoint, LogPointKind, LogRange, Position, SourceName,
};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;
use tracing::warn;

/// How much of a descendant's beginning is compared with its ancestor.
const COMPARED: u64 = 1 << 20;

/// Everything stored of one source.
#[derive(Debug)]
pub struct Catalog {
    /// The source.
    pub source: SourceName,
    /// Its log.
    pub log: LogStore,
    /// Its backups, oldest first.
    pub heads: Vec<Head>,
    /// Its lineage records, oldest first.
    pub records: Vec<LineageRecord>,
    /// What is stored beside these and cannot be opened.
    pub unread: Unread,
    /// The chain of the lineage that was asked for, else of the present one; none if the source never streamed.
    pub chain: Option<Chain>,
    /// The lineage that was asked for.
    pub asked: Option<Branch>,
    /// Lineages that hold log which the present one never had; none where a lineage was asked for.
    pub rivals: Vec<Rival>,
    /// Log of two servers in one of the chain's lineages, which nobody has told apart yet.
    pub(super) twins: Vec<Leaving>,
    pub(super) closed: Mutex<Closed>,
    facts: Mutex<HashMap<RangeKey, Arc<LogFacts>>>,
    gathered: Mutex<HashSet<Branch>>,
    owned: Mutex<HashMap<(BackupId, Branch), bool>>,
    pub(super) lost: OnceCell<Vec<LostLog>>,
    pub(super) lost_backups: OnceCell<Vec<LostBackup>>,
    pub(super) headless: OnceCell<Vec<HeadlessBackup>>,
}

/// A range: the branch under which it is stored, its level and name.
type RangeKey = (Branch, (Level, String));

impl Catalog {
    /// Reads names, heads and lineage records.
    pub async fn read(
        repository: &Repository,
        engine: EngineKind,
        source: &SourceName,
        lineage: Option<Branch>,
    ) -> Result<Catalog, EngineError> {
        let log = LogStore::new(repository, engine, source);
        let seen = Seen::read(repository, &log, engine, source, lineage).await?;
        let Seen {
            heads,
            records,
            target,
            unread,
        } = seen;
        if let Some(lineage) = lineage.filter(|wanted| target != Some(*wanted)) {
            return Err(EngineError::NoSuchThing {
                what: format!("there is no lineage {lineage} of {source}"),
                advice: format!(
                    "the stream names its lineage when it attaches; see: backstay show latest {source}"
                ),
            });
        }
        let chain = match target {
            Some(target) => Some(stored_chain(&log, target, &records).await?),
            None => None,
        };
        let mut catalog = Catalog {
            source: source.clone(),
            log,
            heads,
            records,
            unread,
            chain,
            asked: lineage,
            rivals: Vec::new(),
            twins: Vec::new(),
            closed: Mutex::default(),
            facts: Mutex::default(),
            gathered: Mutex::default(),
            owned: Mutex::default(),
            lost: OnceCell::new(),
            lost_backups: OnceCell::new(),
            headless: OnceCell::new(),
        };
        if let Some(chain) = &catalog.chain {
            catalog.twins = twins_along(&catalog.log, chain).await?;
        }
        catalog.prove_chain().await?;
        if let (Some(chain), None) = (&catalog.chain, lineage) {
            catalog.rivals = rivals(&catalog.log, &catalog.records, chain).await?;
        }
        Ok(catalog)
    }

    /// What is known about a range: from the log indexes that lie beside it, else from the range itself.
    pub async fn facts_of(&self, stored: &StoredRange) -> Result<Arc<LogFacts>, RepositoryError> {
        let branch = stored.branch;
        let key = (branch, LogStore::gathered_key(stored));
        if let Some(known) = self.known(&key) {
            return Ok(known);
        }
        if let Some(closed) = self.closed_epoch(&stored.name.epoch) {
            return Err(closed);
        }
        if self.gathered().insert(branch) {
            let gathered = self.log.gathered(&branch).await?;
            let facts = gathered
                .into_iter()
                .map(|(range, facts)| ((branch, range), Arc::new(facts)));
            self.facts().extend(facts);
            if let Some(known) = self.known(&key) {
                return Ok(known);
            }
        }
        let facts = Arc::new(self.log.index_of(stored).await?.facts);
        self.facts().insert(key, facts.clone());
        Ok(facts)
    }

    fn known(&self, key: &RangeKey) -> Option<Arc<LogFacts>> {
        self.facts().get(key).cloned()
    }

    fn facts(&self) -> MutexGuard<'_, HashMap<RangeKey, Arc<LogFacts>>> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gathered(&self) -> MutexGuard<'_, HashSet<Branch>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The facts of every range that holds bytes of `wanted`, in the order of positions, with the positions it gives.
    pub async fn facts_in(&self, wanted: LogRange) -> Result<Vec<(LogRange, LogFacts)>, EngineError> {
        let Some(chain) = &self.chain else {
            return Ok(Vec::new());
        };
        let mut selection = Selection::new(wanted, chain.candidates(wanted)).map_err(|gap| self.gap(gap))?;
        let mut all = Vec::new();
        while let Some(choice) = selection.next_copy()? {
            match self.facts_of(&choice.from).await {
                Ok(facts) => {
                    all.push((choice.take, facts.as_ref().clone()));
                    selection.taken(&choice);
                }
                Err(error) => selection.pass_over(&choice, error)?,
            }
        }
        Ok(all)
    }

    /// The time of the last transaction in the positions of a choice.
    pub(crate) async fn last_time_in(&self, choice: &Choice) -> Result<Option<i64>, EngineError> {
        let last_time = |facts: &LogFacts| facts.transactions.map(|transactions| transactions.last_time);
        match self.facts_of(&choice.from).await {
            Ok(facts) => Ok(last_time(&facts)),
            Err(error) if error.is_damage() || error.is_about_keys() => {
                let others = self.facts_in(choice.take).await?;
                Ok(others.iter().rev().find_map(|(_, facts)| last_time(facts)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The bytes of `wanted` along the chain.
    pub async fn bytes_in(&self, wanted: LogRange) -> Result<Vec<u8>, EngineError> {
        let mut bytes = vec![0; wanted.length() as usize];
        let take = |begins: Position, part: &[u8]| {
            let at = (begins.0 - wanted.from.0) as usize;
            if let Some(place) = bytes.get_mut(at..at + part.len()) {
                place.copy_from_slice(part);
            }
            Ok(())
        };
        bytes_along(&self.log, self.chain.as_ref(), wanted, take).await?;
        Ok(bytes)
    }

    /// Cuts off ancestors whose bytes are not the descendant's where both are stored (LIN-3): the attach record's word
    /// is not enough to mix two histories.
    async fn prove_chain(&mut self) -> Result<(), EngineError> {
        let Some(mut chain) = self.chain.take() else {
            return Ok(());
        };
        let mut kept = chain.links.len().saturating_sub(1);
        while kept > 0 {
            let (Some(parent), Some(child)) = (chain.links.get(kept - 1), chain.links.get(kept)) else {
                break;
            };
            if !self.shares_its_beginning(parent, child).await? {
                break;
            }
            kept -= 1;
        }
        chain.links.drain(..kept);
        self.chain = Some(chain);
        Ok(())
    }

    async fn shares_its_beginning(&self, parent: &Link, child: &Link) -> Result<bool, EngineError> {
        let begins = stretches(child.ranges.iter().map(|range| &range.name.range))
            .first()
            .map(|first| first.from);
        let (Some(begins), Some(fork)) = (begins, parent.until) else {
            return Ok(true);
        };
        let to = fork.min(Position(begins.0.saturating_add(COMPARED)));
        let Some(both) = LogRange::new(begins, to).filter(|both| !both.is_mark()) else {
            return Ok(true);
        };
        let held =
            |link: &Link| missing(both, &stretches(link.ranges.iter().map(|r| &r.name.range))).is_empty();
        if !held(parent) || !held(child) {
            return Ok(true);
        }
        let of_parent = self.log.read_from(both, &parent.ranges).await;
        let of_child = self.log.read_from(both, &child.ranges).await;
        match (of_parent, of_child) {
            (Ok(of_parent), Ok(of_child)) => Ok(of_parent == of_child),
            // Who may not read the data may still look at the window; a restore reads it and fails there.
            (Err(error), _) | (_, Err(error)) if error.is_about_keys() => Ok(true),
            // One of the two may be all that is left of these bytes. What the attach record says was compared then.
            (Err(error), _) | (_, Err(error)) if error.is_damage() => {
                let (parent, child) = (parent.branch, child.branch);
                warn!(%parent, %child, %error, "damaged log cannot be compared with its ancestor's");
                Ok(true)
            }
            (Err(error), _) | (_, Err(error)) => Err(error.into()),
        }
    }

    /// Whether a backup lies on the chain: its log contains the record that ended it (LIN-2).
    pub async fn is_on_chain(&self, head: &Head) -> Result<bool, EngineError> {
        let (Some(chain), Some(log)) = (&self.chain, &head.log) else {
            return Ok(false);
        };
        let Some(end_point) = log.end_point else {
            return Ok(false);
        };
        for link in &chain.links {
            if (link.branch.system, link.branch.timeline) != (log.system, log.timeline) {
                continue;
            }
            if self.holds_end(link, head, log, end_point).await? {
                return Ok(link.until.is_none_or(|until| log.stop <= until));
            }
        }
        Ok(false)
    }

    /// Whether a backup is known to lie in another history than the chain's: past the place where the chain left an ancestor,
    /// or on a lineage beside it. The newest backup of that one is not the newest point of this one.
    pub async fn is_elsewhere(&self, head: &Head) -> Result<bool, EngineError> {
        let (Some(chain), Some(log)) = (&self.chain, &head.log) else {
            return Ok(false);
        };
        let Some(end_point) = log.end_point else {
            return Ok(false);
        };
        let fits = |branch: Branch| (branch.system, branch.timeline) == (log.system, log.timeline);
        for link in chain.links.iter().filter(|link| fits(link.branch)) {
            if self.holds_end(link, head, log, end_point).await? {
                return Ok(link.until.is_some_and(|until| until < log.stop));
            }
        }
        let beside = |branch: &Branch| fits(*branch) && chain.links.iter().all(|link| link.branch != *branch);
        let branches: BTreeSet<Branch> = self.records.iter().map(|record| record.branch).collect();
        for branch in branches.into_iter().filter(beside) {
            let ranges = self.log.ranges(&branch, Some(end_point.start)).await?;
            let link = Link::alone(branch, ranges);
            match self.holds_end(&link, head, log, end_point).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                // It is not known to lie there.
                Err(EngineError::Repository(error)) if error.is_damage() || error.is_about_keys() => {
                    warn!(backup = %head.backup, %branch, %error, "log of another lineage cannot be opened");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Whether a link has the record that ends a backup. It counts to the range in which it ends: the one that holds its
    /// start, or a later one that begins up to the stop; what is closed holds it for nobody. That record says no more than where the backup began: copies of one
    /// server may each have written the same. Where a timeline has several lineages the bytes before it decide.
    async fn holds_end(
        &self,
        link: &Link,
        head: &Head,
        log: &HeadLog,
        end: EndPoint,
    ) -> Result<bool, EngineError> {
        Ok(self.names_end(link, log.stop, end).await?
            && (!self.has_twins(log) || self.holds_own_log(link, head, log).await?))
    }

    /// Whether the timeline of a backup has several lineages.
    pub(super) fn has_twins(&self, log: &HeadLog) -> bool {
        let fits = |branch: &Branch| (branch.system, branch.timeline) == (log.system, log.timeline);
        let branches: BTreeSet<Branch> = self.records.iter().map(|record| record.branch).collect();
        branches.iter().filter(|branch| fits(branch)).count() > 1
    }

    /// Whether a link has the bytes that the backup brought itself, where both are stored. Asked once of each.
    async fn holds_own_log(&self, link: &Link, head: &Head, log: &HeadLog) -> Result<bool, EngineError> {
        let key = (head.backup.clone(), link.branch);
        if let Some(known) = self.owned().get(&key) {
            return Ok(*known);
        }
        let holds = match own_log_is_of(&self.log, link, head, log).await {
            Ok(holds) => holds,
            // Who may not read the data may look at the window; what is damaged is refused when it is restored.
            Err(error) if error.is_about_keys() || error.is_damage() => {
                warn!(backup = %head.backup, branch = %link.branch, %error, "the log of a backup cannot be compared");
                true
            }
            Err(error) => return Err(error.into()),
        };
        self.owned().insert(key, holds);
        Ok(holds)
    }

    fn owned(&self) -> MutexGuard<'_, HashMap<(BackupId, Branch), bool>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a link has a record like the one that ends a backup.
    async fn names_end(&self, link: &Link, stop: Position, end: EndPoint) -> Result<bool, EngineError> {
        let near = LogRange {
            from: end.start,
            to: Position(stop.0 + 1),
        };
        let touches = |stored: &&StoredRange| {
            let range = stored.name.range;
            !range.is_mark() && range.from < near.to && near.from < range.to
        };
        let is_it = |point: &LogPoint| {
            point.kind == LogPointKind::BackupEnd && point.start == end.start && point.crc == end.crc
        };
        let (mut opened, mut damaged) = (Vec::new(), Vec::new());
        for stored in link.ranges.iter().filter(touches) {
            match self.facts_of(stored).await {
                Ok(facts) if facts.points.iter().any(is_it) => return Ok(true),
                Ok(_) => opened.push(stored.name.range),
                Err(error) if error.is_damage() || error.is_about_keys() => {
                    damaged.push((stored.name.range, error));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let opened = stretches(&opened);
        for (range, error) in damaged {
            let part = LogRange {
                from: range.from.max(near.from),
                to: range.to.min(near.to),
            };
            if !missing(part, &opened).is_empty() && !self.is_closed(part) {
                let LogRange { from, to } = part;
                let damage = Box::new(error);
                return Err(RepositoryError::Unreadable { from, to, damage }.into());
            }
            warn!(branch = %link.branch, %error, "a damaged copy of the log is passed over");
        }
        Ok(false)
    }

    /// Log that the newest attachment passed over, because its source had lost it, while nothing after it is stored yet.
    pub(super) fn gap_at_the_end(&self) -> Option<LogRange> {
        let chain = self.chain.as_ref()?;
        let (target, end) = (chain.target()?.branch, chain.stretches(None).last()?.to);
        let began_anew = |record: &&LineageRecord| {
            record.kind == LineageKind::Attach && record.branch == target && record.frontier.is_none()
        };
        let begins = self
            .records
            .iter()
            .filter(began_anew)
            .map(|record| record.from)
            .max()?;
        LogRange::new(end, begins).filter(|gap| !gap.is_mark())
    }

    /// The newest mark whose position is not beyond `until`, among the marks from `from` on.
    pub async fn newest_mark(&self, from: Position, until: Position) -> Result<Option<i64>, EngineError> {
        let Some(link) = self.chain.as_ref().and_then(Chain::target) else {
            return Ok(None);
        };
        let late = |stored: &&StoredRange| stored.name.range.to >= from && stored.name.range.to <= until;
        for stored in link.ranges.iter().rev().filter(late) {
            let facts = match self.facts_of(stored).await {
                // An older mark says less, and nothing wrong.
                Err(error) if error.is_damage() || error.is_about_keys() => {
                    warn!(branch = %link.branch, %error, "the mark of a range that cannot be opened is passed over");
                    continue;
                }
                facts => facts?,
            };
            if let Some(mark) = facts.mark {
                return Ok(Some(mark.time));
            }
        }
        Ok(None)
    }

    /// An error that names a gap.
    pub fn gap(&self, gap: LogRange) -> EngineError {
        self.log.gap(gap).into()
    }
}

/// Gives the bytes of `wanted` along a chain, part by part, one copy of each position; an error names the first gap, or
/// the first position of which no copy can be read.
pub(crate) async fn bytes_along(
    log: &LogStore,
    chain: Option<&Chain>,
    wanted: LogRange,
    take: impl FnMut(Position, &[u8]) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let chain = chain.ok_or_else(|| log.gap(wanted))?;
    log.read_copies(wanted, chain.candidates(wanted), take).await
}
