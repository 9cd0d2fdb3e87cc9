//! Which lineage of a source is its present one, and which others hold log that the present one never had.
//!
//! Promise: a lineage that holds transactions outside of the present one's history is a rival until a person adopts one
//! of the two; whoever plans a restore past the place where they parted is refused till then. An adoption counts for what
//! was stored when it was made: a lineage that grows afterwards is a rival again.
//! Not here: storing an adoption (jobs::adopt).

use super::catalog::Catalog;
use super::chain::{Chain, Link};
use super::restore::{Request, RestorePlan};
use crate::EngineError;
use backstay_repository::{
    LineageKind, LineageRecord, LogStore, PassedOver, RangesSeen, RepositoryError, StoredRange,
};
use backstay_source::RecoveryStop;
use backstay_terms::{Branch, Lsn, Position, RecoveryTarget};
use std::collections::BTreeSet;

/// A lineage that holds log which the present one never had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rival {
    /// The lineage.
    pub branch: Branch,
    /// Up to here the two are one history; zero if nothing proves that they ever were.
    pub parted: Position,
    /// The end of its stored log.
    pub reach: Position,
}

/// What the newest adoption that speaks of a lineage says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Adopted,
    /// It was passed over when it was stored up to here.
    PassedOver(Position),
}

fn word(records: &[LineageRecord], branch: &Branch) -> Option<Word> {
    let adoptions = records
        .iter()
        .rev()
        .filter(|record| record.kind == LineageKind::Adopt);
    adoptions.into_iter().find_map(|record| {
        if record.branch == *branch {
            return Some(Word::Adopted);
        }
        let passed = record.over.iter().find(|passed| passed.branch == *branch)?;
        Some(Word::PassedOver(passed.reach))
    })
}

/// Whether a person passed a lineage over that reaches so far now, and that has stored nothing since.
pub(crate) fn is_passed_over(records: &[LineageRecord], now: &PassedOver) -> bool {
    matches!(word(records, &now.branch), Some(Word::PassedOver(known)) if now.reach <= known)
}

/// The present lineage: the newest that was not passed over. `records` are those of the source, oldest first.
pub(crate) fn present(records: &[LineageRecord]) -> Option<Branch> {
    let passed_over = |branch: &Branch| matches!(word(records, branch), Some(Word::PassedOver(_)));
    let newest_first = || records.iter().rev().map(|record| record.branch);
    newest_first()
        .find(|branch| !passed_over(branch))
        .or_else(|| newest_first().next())
}

/// The chain of a lineage with what is stored of it.
pub(crate) async fn stored_chain(
    log: &LogStore,
    target: Branch,
    records: &[LineageRecord],
) -> Result<Chain, RepositoryError> {
    let mut chain = Chain::of(target, records);
    for link in &mut chain.links {
        RangesSeen {
            ranges: link.ranges,
            cut: link.cut,
        } = log.ranges_seen(&link.branch, None).await?;
    }
    Ok(chain)
}

/// The rivals of a chain's target.
pub(crate) async fn rivals(
    log: &LogStore,
    records: &[LineageRecord],
    chain: &Chain,
) -> Result<Vec<Rival>, RepositoryError> {
    let branches: BTreeSet<Branch> = records.iter().map(|record| record.branch).collect();
    let target = chain.target().map(|link| link.branch);
    let mut rivals = Vec::new();
    for branch in branches.into_iter().filter(|branch| Some(*branch) != target) {
        let link = chain.links.iter().find(|link| link.branch == branch);
        let ranges = match link {
            Some(link) => link.ranges.clone(),
            None => log.ranges(&branch, None).await?,
        };
        let Some(reach) = reach(&ranges) else { continue };
        if is_passed_over(records, &PassedOver { branch, reach }) {
            continue;
        }
        let is_rival = match left_at(records, chain, &branch) {
            Some(left) => has_transactions_after(log, &ranges, left).await?,
            None => true,
        };
        if is_rival {
            let parted = parted(chain, &Chain::of(branch, records));
            rivals.push(Rival {
                branch,
                parted,
                reach,
            });
        }
    }
    Ok(rivals)
}

/// The end of what is stored; none if nothing is.
pub(crate) fn reach(ranges: &[StoredRange]) -> Option<Position> {
    let positions = ranges.iter().map(|stored| stored.name.range);
    positions
        .filter(|range| !range.is_mark())
        .map(|range| range.to)
        .max()
}

/// The last place where a descendant left a lineage: up to there it lives on in them. The word of a target whose bytes
/// are not its ancestor's is not taken: its chain was cut there.
fn left_at(records: &[LineageRecord], chain: &Chain, branch: &Branch) -> Option<Position> {
    let on_chain = |branch: &Branch| chain.links.iter().any(|link| link.branch == *branch);
    let children = records.iter().filter_map(|record| {
        let parent = record.parent.filter(|parent| parent.branch == *branch)?;
        let disproved = on_chain(&record.branch) && !on_chain(branch);
        (!disproved).then_some(parent.fork)
    });
    children.max()
}

/// Up to where two chains are one history.
fn parted(own: &Chain, other: &Chain) -> Position {
    let shared = |link: &Link| {
        let twin = other.links.iter().find(|twin| twin.branch == link.branch)?;
        link.until.into_iter().chain(twin.until).min()
    };
    own.links.iter().rev().find_map(shared).unwrap_or_default()
}

/// Whether a transaction ended after `left`. What cannot be opened may hold one.
async fn has_transactions_after(
    log: &LogStore,
    ranges: &[StoredRange],
    left: Position,
) -> Result<bool, RepositoryError> {
    let beyond = |stored: &&StoredRange| !stored.name.range.is_mark() && stored.name.range.to > left;
    for stored in ranges.iter().rev().filter(beyond) {
        match log.index_of(stored).await {
            Ok(index)
                if index
                    .facts
                    .transactions
                    .is_some_and(|ended| ended.last_start >= left) =>
            {
                return Ok(true);
            }
            Ok(_) => {}
            Err(error) if error.is_damage() || error.is_about_keys() => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Refuses a plan that means one thing in the present lineage and may mean another in a rival: everything past the place
/// where they parted, and what is newest at all. A backup that was named is one point of one history, whatever came later.
pub(crate) fn refuse_if_contested(
    catalog: &Catalog,
    request: &Request,
    plan: &RestorePlan,
) -> Result<(), EngineError> {
    let Some(parted) = catalog.rivals.iter().map(|rival| rival.parted).min() else {
        return Ok(());
    };
    let means_one_thing = match request.target {
        RecoveryTarget::Immediate if request.base.is_some() => true,
        RecoveryTarget::Latest => false,
        // After the last record means that nothing later is known here; a rival may know better.
        RecoveryTarget::Time(_) => plan.needs <= parted && matches!(plan.stop, RecoveryStop::Before(_)),
        _ => plan.needs <= parted,
    };
    if means_one_thing {
        Ok(())
    } else {
        Err(contested(catalog))
    }
}

/// Says which lineages contest what is newest, and how to choose.
pub(crate) fn contested(catalog: &Catalog) -> EngineError {
    let source = &catalog.source;
    let present = catalog
        .chain
        .as_ref()
        .and_then(Chain::target)
        .map(|link| link.branch);
    let own = present.map_or(String::new(), |present| format!("{present} is followed now"));
    let others: Vec<String> = catalog.rivals.iter().map(rival_words).collect();
    EngineError::Refused {
        what: format!(
            "{source} has more than one history of bytes, and nobody has said which one counts: {own}; {}",
            others.join("; ")
        ),
        advice: format!(
            "choose for this restore with --lineage, or for good: backstay lineage list {source}, then backstay lineage adopt {source} LINEAGE"
        ),
    }
}

fn rival_words(rival: &Rival) -> String {
    let Rival {
        branch,
        parted,
        reach,
    } = rival;
    let reach = Lsn::from(*reach);
    if *parted == Position(0) {
        return format!("{branch} has log up to {reach} and shares nothing with it");
    }
    format!(
        "{branch} has log up to {reach} and parted from it at {}",
        Lsn::from(*parted)
    )
}
