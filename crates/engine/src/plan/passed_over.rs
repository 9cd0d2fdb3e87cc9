//! Newer backups that a plan does not take because they are of another history than the one it follows.
//!
//! Promise: where the newest point is meant, each of them is named with the reason.
//! Not here: which history is followed (plan::rivals), choosing the base (plan::restore).

use super::catalog::Catalog;
use super::restore::Request;
use crate::EngineError;
use backstay_repository::{Head, HeadLog};
use backstay_terms::{BackupId, RecoveryTarget};
use serde::Serialize;
use std::collections::BTreeMap;

/// Why a backup is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PassedOver {
    /// It is of another system than the one whose log is followed.
    OtherSystem,
    /// It lies in another history of that system.
    OtherHistory,
    /// Its timeline has several lineages, and none is stored that shows which one it is of.
    UnclearHistory,
}

/// A backup that is newer than the one of a plan, and not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOverBackup {
    /// Which.
    pub backup: BackupId,
    /// When it was consistent, by the source's clock.
    pub consistent: i64,
    /// Why.
    pub why: PassedOver,
}

/// Why a base that the log does not reach is passed over, if it is. One that was named counts, but not together with a
/// lineage that it is not of.
pub(super) async fn why_passed_over(
    catalog: &Catalog,
    request: &Request,
    head: &Head,
    log: &HeadLog,
) -> Result<Option<PassedOver>, EngineError> {
    let elsewhere = catalog.is_elsewhere(head).await?;
    match (&request.base, catalog.asked) {
        (None, _) if elsewhere => Ok(Some(PassedOver::OtherHistory)),
        (None, _) => {
            let unclear = matches!(request.target, RecoveryTarget::Immediate) && catalog.has_twins(log);
            Ok(unclear.then_some(PassedOver::UnclearHistory))
        }
        (Some(base), Some(lineage)) if elsewhere => Err(EngineError::Refused {
            what: format!("backup {base} is not of lineage {lineage}"),
            advice: "leave out --base or --lineage".to_owned(),
        }),
        (Some(_), _) => Ok(None),
    }
}

/// The backups that are newer than the chosen one and of another history, the newest first; `tried` are those of its
/// system. None where the newest is not what was asked for.
pub(super) fn passed_over(
    catalog: &Catalog,
    request: &Request,
    (chosen, chosen_log): (&Head, &HeadLog),
    tried: &BTreeMap<BackupId, PassedOver>,
) -> Vec<PassedOverBackup> {
    let newest_meant = matches!(request.target, RecoveryTarget::Latest | RecoveryTarget::Immediate);
    if request.base.is_some() || !newest_meant {
        return Vec::new();
    }
    let newer = catalog.heads.iter().rev();
    let newer = newer.take_while(|head| head.backup != chosen.backup);
    let passed = |head: &Head| {
        let log = head.log.as_ref().filter(|_| head.is_usable(request.now))?;
        let why = match log.system == chosen_log.system {
            true => tried.get(&head.backup).copied()?,
            false => PassedOver::OtherSystem,
        };
        Some(PassedOverBackup {
            backup: head.backup.clone(),
            consistent: log.stop_time,
            why,
        })
    };
    newer.filter_map(passed).collect()
}
