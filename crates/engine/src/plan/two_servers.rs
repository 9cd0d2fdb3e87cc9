//! Log of two servers in one lineage: what they share can be recovered, and nothing past it until they are told apart.
//!
//! Not here: finding them and telling them apart (backstay-repository::log::twins).

use super::catalog::Catalog;
use super::chain::Chain;
use crate::EngineError;
use backstay_repository::{Compared, Leaving, LogStore, RepositoryError};
use backstay_terms::Position;

/// Those who are to leave a lineage of a chain, where the chain still follows it.
pub(super) async fn twins_along(log: &LogStore, chain: &Chain) -> Result<Vec<Leaving>, RepositoryError> {
    let mut found = Vec::new();
    for link in &chain.links {
        let twins = log.twins(&link.branch, None, Compared::Ends).await?;
        let followed = |leaving: &Leaving| link.until.is_none_or(|until| leaving.fork < until);
        found.extend(twins.leaving.into_iter().filter(followed));
    }
    Ok(found)
}

/// Refuses what needs log up to `needs`; all of it if none is given.
pub(super) fn refuse_two_servers(catalog: &Catalog, needs: Option<Position>) -> Result<(), EngineError> {
    let concerned = |leaving: &&Leaving| needs.is_none_or(|needs| leaving.fork < needs);
    let first = catalog
        .twins
        .iter()
        .filter(concerned)
        .min_by_key(|leaving| leaving.fork);
    match first.and_then(|leaving| Some((leaving, leaving.epochs.first()?))) {
        Some((Leaving { branch, fork, .. }, epoch)) => {
            Err(catalog.log.two_servers(*branch, *fork, epoch).into())
        }
        None => Ok(()),
    }
}
