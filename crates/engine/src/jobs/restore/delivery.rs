//! How the restored server gets its log: placed beforehand, or fetched by a command while it recovers.
//!
//! Placed is better wherever there is room: every byte is checked before the server starts, and the copy then needs
//! nothing of ours. Fetched needs the repository, the configuration and a key within reach of the server's user, so the
//! command is rehearsed before anything is touched.
//! Promise: only reads.
//! Not here: the words of the command (the binary), what it does (jobs::fetch).

use crate::EngineError;
use crate::plan::RestorePlan;
use backstay_source::{Need, Rehearsal, Restore, WalDelivery};

/// What a recovering server keeps of fetched log at most, as far as its usual settings go: `max_wal_size` is 1 GiB
/// unless somebody changed it (a restartpoint removes what is replayed; postgresql.conf.sample).
const FETCHED_LOG_KEPT: u64 = 1 << 30;

/// What a person wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogWish {
    /// Placed if it fits, else fetched.
    #[default]
    WhereItFits,
    /// Placed, or nothing is restored.
    Place,
    /// Fetched.
    Fetch,
}

/// Decides how the log gets to the server. `command` is what would fetch it.
///
/// # Errors
/// Whatever the target says when it is asked for its space.
pub fn deliver(
    plan: &RestorePlan,
    wish: LogWish,
    command: String,
    target: &dyn Restore,
) -> Result<WalDelivery, EngineError> {
    // A base's own log is part of it.
    if plan.segments.is_empty() || wish == LogWish::Place {
        return Ok(WalDelivery::Placed);
    }
    let fetched = WalDelivery::Command(command);
    if wish == LogWish::Fetch {
        return Ok(fetched);
    }
    match target.space(&need(plan, &WalDelivery::Placed))?.is_enough() {
        true => Ok(WalDelivery::Placed),
        false => Ok(fetched),
    }
}

/// What the target will need.
pub(super) fn need(plan: &RestorePlan, delivery: &WalDelivery) -> Need {
    let log = match delivery {
        WalDelivery::Placed => plan.log_bytes(),
        WalDelivery::Command(_) => plan.log_bytes().min(FETCHED_LOG_KEPT),
    };
    Need {
        bytes: plan.head.totals.bytes.0.saturating_add(log),
        version: plan.head.version.clone(),
        engine_facts: plan.head.engine.clone(),
        written_by_log: plan.written_by_log.clone(),
    }
}

/// The first call that the server will make of the command.
pub(super) fn rehearsal(plan: &RestorePlan, delivery: &WalDelivery) -> Option<Rehearsal> {
    let (WalDelivery::Command(command), Some(first)) = (delivery, plan.segments.first()) else {
        return None;
    };
    Some(Rehearsal {
        command: command.clone(),
        file: first.name.to_string(),
        size: plan.log.segment_size,
    })
}
