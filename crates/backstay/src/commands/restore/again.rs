//! A plan as the command line that makes it again: the same point, whatever is stored later and whoever types it.
//!
//! Not here: the plan itself (engine), what is done with it (restore).

use crate::commands::seen::moment;
use crate::render::shell;
use crate::time::in_utc;
use backstay_engine::plan::{Catalog, Chain, RestorePlan};
use backstay_source::RecoveryStop;
use backstay_terms::{Lsn, RecoveryTarget};

/// The command of a plan: its record or its moment in UTC, its base, and its lineage where log is replayed.
pub fn again(service: &str, catalog: &Catalog, plan: &RestorePlan) -> String {
    let mut command = format!("backstay restore {service} --to {}", shell::quoted(&point(plan)));
    command.push_str(&format!(" --base {}", plan.head.backup));
    let target = catalog.chain.as_ref().and_then(Chain::target);
    if let Some(link) = target.filter(|_| !plan.segments.is_empty()) {
        command.push_str(&format!(" --lineage {}", link.branch));
    }
    command
}

/// What a time or `latest` means changes while log is added, unless a later record bounds it; the record itself does not.
fn point(plan: &RestorePlan) -> String {
    match (plan.stop, &plan.target) {
        (RecoveryStop::After(_) | RecoveryStop::Consistent, _) if plan.segments.is_empty() => {
            RecoveryTarget::Immediate.to_string()
        }
        (RecoveryStop::After(at), _) => RecoveryTarget::Lsn(Lsn::from(at)).to_string(),
        (_, RecoveryTarget::Time(time)) => in_utc(moment(*time)),
        (_, as_asked) => as_asked.to_string(),
    }
}
