//! What the slot at the server means beside what is stored here: whom it serves, and whether anybody streams from it.
//!
//! Promise: reads only. What the server itself finds wrong with the slot stands as it is.
//! Not here: a slot that lost WAL or is of the wrong kind (backstay-postgres).

use crate::config::Service;
use backstay_postgres::{PostgresSource, SlotState, SlotUse};
use backstay_repository::{Inventory, LogStore, Repository};
use backstay_source::{Finding, Severity};
use backstay_terms::EngineKind;
use jiff::Timestamp;

/// What is stored of a service's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Log {
    /// Nothing, and no stream ever attached.
    None,
    /// A stream attached; the newest log is of then, if there is any.
    Until(Option<Timestamp>),
}

/// Replaces the server's good word about the slot where what is stored says otherwise.
pub(super) async fn compare(
    findings: &mut [Finding],
    server: &PostgresSource,
    (repository, service, inventory): (&Repository, &Service, &Inventory),
) {
    let good = |finding: &&mut Finding| finding.id == "slot" && finding.severity == Severity::Good;
    let Some(finding) = findings.iter_mut().find(good) else {
        return;
    };
    // What cannot be asked now is told of the connection.
    if let Ok(state) = server.slot_state().await
        && let Some(log) = stored(repository, service, inventory).await
        && let Some(judged) = judge(service, state.as_ref(), log)
    {
        *finding = judged;
    }
}

/// None if the store does not tell.
async fn stored(repository: &Repository, service: &Service, inventory: &Inventory) -> Option<Log> {
    let ranges = inventory.branches.iter().flat_map(|branch| &branch.ranges);
    let newest = ranges.map(|range| range.object.modified).max();
    let store = LogStore::new(repository, EngineKind::Postgres, &service.name);
    let seen = store.records_seen().await.ok()?;
    let is_new = newest.is_none() && seen.records.is_empty() && seen.unreadable.is_empty();
    Some(if is_new { Log::None } else { Log::Until(newest) })
}

/// None: it is as the server says.
fn judge(service: &Service, state: Option<&SlotState>, log: Log) -> Option<Finding> {
    let (name, slot) = (&service.name, &service.slot.value);
    let until = |newest: Option<Timestamp>| {
        newest.map_or_else(
            || "no log was stored".to_owned(),
            |newest| {
                format!(
                    "the last log was stored at {}",
                    crate::time::to_the_second(newest)
                )
            },
        )
    };
    match (state, log) {
        (None, Log::None) => None,
        (None, Log::Until(newest)) => Some(Finding::warning(
            "slot",
            format!(
                "the server has no slot {slot}, though a stream had one; {}: it removes WAL that is not stored",
                until(newest)
            ),
            format!("backstay stream {name}; if it logs a gap, then also: backstay backup {name}"),
        )),
        (Some(_), Log::None) => Some(Finding::warning(
            "slot",
            format!(
                "the server has a slot {slot} already, and no log of {name} is stored here: if it serves another repository, \
                 a stream into this one makes a gap in that one"
            ),
            format!(
                "give this service a slot of its own, slot: NAME below {name}: in the configuration, unless it is yours"
            ),
        )),
        (Some(state), Log::Until(newest)) => (state.use_now == SlotUse::Idle).then(|| {
            Finding::warning(
                "slot",
                format!(
                    "nobody streams from the slot {slot}, and WAL piles up at the server; {}",
                    until(newest)
                ),
                format!("backstay stream {name}, and see that it goes on running"),
            )
        }),
    }
}
