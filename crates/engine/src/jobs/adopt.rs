//! A person's word which of several lineages is a source's present history.
//!
//! Promise: nothing is removed and nothing is joined: the lineages that are passed over stay restorable by name. The word
//! counts for what is stored now; what a stream adds to them afterwards contests it again.

use super::recorded::recorded;
use crate::EngineError;
use crate::plan::{Catalog, LineageSeen, lineages};
use backstay_repository::{LineageKind, LineageRecord, PassedOver, Repository, moment_of};
use backstay_terms::Branch;
use jiff::SignedDuration;
use serde_json::json;

/// What an adoption did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// It was the only present history already: nothing was stored.
    Already,
    /// These were passed over.
    Over(Vec<Branch>),
}

/// Makes `branch` the present lineage of the source of `catalog`, which was read without naming one.
pub async fn adopt(
    repository: &Repository,
    catalog: &Catalog,
    branch: Branch,
) -> Result<Adopted, EngineError> {
    let of_branch = catalog
        .records
        .iter()
        .rev()
        .find(|record| record.branch == branch);
    let Some(newest) = of_branch else {
        let source = &catalog.source;
        let is_hidden = catalog
            .unread
            .hidden()
            .iter()
            .any(|hidden| hidden.branch == branch);
        let what = match is_hidden {
            true => "no record opens that tells of the lineage",
            false => "there is no lineage",
        };
        return Err(EngineError::NoSuchThing {
            what: format!("{what} {branch} of {source}"),
            advice: format!("see: backstay lineage list {source}"),
        });
    };
    let present = catalog.chain.as_ref().and_then(|chain| chain.target());
    let is_present = present.is_some_and(|link| link.branch == branch);
    if is_present && catalog.rivals.is_empty() && !catalog.unread.leaves_newest_unsure() {
        return Ok(Adopted::Already);
    }
    let passed_over = |seen: LineageSeen| {
        let reach = seen.reach.filter(|_| seen.branch != branch)?;
        Some(PassedOver {
            branch: seen.branch,
            reach,
        })
    };
    let over: Vec<PassedOver> = lineages(catalog)
        .await?
        .into_iter()
        .filter_map(passed_over)
        .chain(catalog.unread.hidden().iter().copied())
        .collect();
    // The newest adoption counts, whatever the clocks of those who adopt. Of a record that does not open the name tells the second.
    let created = catalog.records.iter().map(|record| record.created);
    let named = catalog
        .unread
        .records
        .iter()
        .filter_map(|record| moment_of(&record.id));
    let named = named.filter_map(|moment| moment.checked_add(SignedDuration::from_secs(1)).ok());
    let last = created.chain(named).max();
    let after_last = last.and_then(|last| last.checked_add(SignedDuration::from_micros(1)).ok());
    let record = LineageRecord {
        kind: LineageKind::Adopt,
        id: repository.new_id("adopt")?,
        created: after_last.unwrap_or_default().max(repository.now()),
        over: over.clone(),
        moved: None,
        after: None,
        ..newest.clone()
    };
    let over: Vec<Branch> = over.iter().map(|passed| passed.branch).collect();
    let work = |_| async { Ok(catalog.log.put_record(&record).await?) };
    let words = |branches: &[Branch]| branches.iter().map(ToString::to_string).collect::<Vec<_>>();
    let figures = |_: &_| json!({ "lineage": branch.to_string(), "over": words(&over) });
    recorded(repository, "adopt", catalog.source.as_str(), work, figures).await?;
    Ok(Adopted::Over(over))
}
