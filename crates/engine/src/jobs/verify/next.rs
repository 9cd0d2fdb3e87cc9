//! What to type after a finding whose check knows nothing better than a copy of the repository.
//!
//! Promise: afterwards every finding has a `next`.
//! Not here: what concerns one kind of damage alone (the checks themselves).

use backstay_repository::{CheckFinding, Invariant};
use backstay_terms::SourceName;

/// Completes findings about a service, or about what belongs to none.
pub(super) fn fill_in<'f>(findings: impl Iterator<Item = &'f mut CheckFinding>, source: Option<&SourceName>) {
    for finding in findings.filter(|finding| finding.next.is_none()) {
        finding.next = Some(of(finding.invariant, source));
    }
}

fn of(invariant: Invariant, source: Option<&SourceName>) -> String {
    let copy = "bring it back from a copy of the repository";
    match (invariant, source) {
        (Invariant::Key2 | Invariant::Key3 | Invariant::Key4, _) => {
            format!("{copy}; see: backstay key check")
        }
        (_, Some(source)) => format!("{copy}, or: backstay backup {source}"),
        (_, None) => copy.to_owned(),
    }
}
