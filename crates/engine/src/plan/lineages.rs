//! Every lineage of a source, and what has become of it.

use super::catalog::Catalog;
use super::chain::Chain;
use super::rivals::reach;
use crate::EngineError;
use backstay_repository::{AttachReason, Parent, StoredRange};
use backstay_terms::{Branch, Position};
use jiff::Timestamp;
use std::collections::BTreeSet;

/// What has become of a lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is the source's present history.
    Present,
    /// The present one left it; up to there they are one.
    Ancestor,
    /// It holds log that the present one never had, and nobody has chosen.
    Rival,
    /// It holds nothing that counts: a descendant has what it holds, or it was passed over.
    Past,
    /// Nothing of it is stored.
    Empty,
}

/// A lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineageSeen {
    /// Its name.
    pub branch: Branch,
    /// When it began.
    pub began: Timestamp,
    /// When a stream last attached to it, or a person adopted it.
    pub touched: Timestamp,
    /// Why it began.
    pub reason: AttachReason,
    /// Where it left its parent, where that is proven.
    pub parent: Option<Parent>,
    /// The end of its stored log; none if nothing is stored.
    pub reach: Option<Position>,
    /// What has become of it.
    pub standing: Standing,
}

/// The lineages of a source, the one that began last at the end.
pub async fn lineages(catalog: &Catalog) -> Result<Vec<LineageSeen>, EngineError> {
    let mut seen = Vec::new();
    let mut told = BTreeSet::new();
    for first in &catalog.records {
        let branch = first.branch;
        if !told.insert(branch) {
            continue;
        }
        let newest = catalog
            .records
            .iter()
            .rev()
            .find(|record| record.branch == branch);
        let reach = reach(&ranges(catalog, branch).await?);
        seen.push(LineageSeen {
            branch,
            began: first.created,
            touched: newest.unwrap_or(first).created,
            reason: first.reason,
            parent: first.parent,
            reach,
            standing: standing(catalog, branch, reach),
        });
    }
    Ok(seen)
}

async fn ranges(catalog: &Catalog, branch: Branch) -> Result<Vec<StoredRange>, EngineError> {
    let links = catalog.chain.iter().flat_map(|chain| &chain.links);
    Ok(match links.into_iter().find(|link| link.branch == branch) {
        Some(link) => link.ranges.clone(),
        None => catalog.log.ranges(&branch, None).await?,
    })
}

fn standing(catalog: &Catalog, branch: Branch, reach: Option<Position>) -> Standing {
    let chain = catalog.chain.as_ref();
    if chain
        .and_then(Chain::target)
        .is_some_and(|target| target.branch == branch)
    {
        return Standing::Present;
    }
    if catalog.rivals.iter().any(|rival| rival.branch == branch) {
        return Standing::Rival;
    }
    if chain.is_some_and(|chain| chain.links.iter().any(|link| link.branch == branch)) {
        return Standing::Ancestor;
    }
    if reach.is_some() {
        Standing::Past
    } else {
        Standing::Empty
    }
}
