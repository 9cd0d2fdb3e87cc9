//! Checks what a log's bytes need around them: lineage records and history files.
//!
//! Promise: each object is opened on its own, so that a damaged one hides no other.
//! Not here: deciding lineages (log::lineage), envelopes (wraps).

use super::{CheckFinding, Hiding, Invariant, keep};
use crate::{LineageRecord, LogStore, Moves, RepositoryError};
use backstay_terms::Branch;
use std::collections::BTreeSet;

impl LogStore {
    /// Opens every lineage record; those that say something of their branch come back, oldest first.
    pub async fn check_records(
        &self,
        branches: &[Branch],
    ) -> Result<(Vec<LineageRecord>, Vec<CheckFinding>), RepositoryError> {
        let (mut records, mut findings) = (Vec::new(), Vec::new());
        let (names, strays) = self.record_names().await?;
        findings.extend(strays.iter().map(|stray| CheckFinding::stray(&stray.name)));
        for (id, object) in &names {
            records.extend(keep(&mut findings, &object.name, self.record(id).await)?);
        }
        records.sort_by_key(|record: &LineageRecord| record.created);
        let known: BTreeSet<Branch> = records.iter().map(|record| record.branch).collect();
        // A record that cannot be opened is a finding already: which branch it was for is not known.
        let all_read = records.len() == names.len();
        for branch in branches
            .iter()
            .filter(|branch| all_read && !known.contains(branch))
        {
            let what = "ranges are stored of it, and no lineage record says where it began";
            findings.push(CheckFinding::new(branch.to_string(), Invariant::Lin1, what));
        }
        for record in records.iter().filter(|_| all_read) {
            let parent = record.parent.map(|parent| parent.branch);
            if let Some(parent) = parent.filter(|parent| !known.contains(parent)) {
                let what = format!("its parent {parent} has no lineage record");
                findings.push(CheckFinding::new(
                    record.branch.to_string(),
                    Invariant::Lin1,
                    what,
                ));
            }
        }
        Ok((Moves::of(&records).without_moved(records), findings))
    }

    /// Opens every history file, and looks that each digest that a record names is among them.
    pub async fn check_histories(
        &self,
        records: &[LineageRecord],
    ) -> Result<(u64, Vec<CheckFinding>), RepositoryError> {
        let (mut opened, mut findings) = (0, Vec::new());
        let systems: BTreeSet<u64> = records.iter().map(|record| record.branch.system).collect();
        for system in systems {
            let (names, strays) = self.history_names(system).await?;
            findings.extend(strays.iter().map(|stray| CheckFinding::stray(&stray.name)));
            let mut good = BTreeSet::new();
            for (name, object) in &names {
                let content = self.history(system, name, object).await;
                if keep(&mut findings, &object.name, content)?.is_some() {
                    opened += 1;
                    good.insert((name.timeline, name.digest.as_str()));
                }
            }
            for record in records.iter().filter(|record| record.branch.system == system) {
                let Some(digest) = &record.history else { continue };
                let timeline = record.branch.timeline;
                let listed = names
                    .iter()
                    .any(|(n, _)| n.timeline == timeline && n.digest == *digest);
                if !good.contains(&(timeline, digest.as_str())) && !listed {
                    let what =
                        format!("the history file of timeline {timeline} with digest {digest} is not there");
                    findings.push(CheckFinding::new(
                        record.branch.to_string(),
                        Invariant::Lin3,
                        what,
                    ));
                }
            }
        }
        findings.sort_by(|a, b| (&a.object, &a.what).cmp(&(&b.object, &b.what)));
        findings.dedup();
        Ok((opened, findings))
    }
}

impl CheckFinding {
    /// A name that is not of this format.
    pub fn stray(name: &str) -> CheckFinding {
        CheckFinding::new(name, Invariant::Repo1, "its name is none of this format")
            .then("give it its name back if it was renamed; else move it out of the repository")
    }

    /// A name in the repository under which no object lies though one may be meant.
    pub fn hiding(hiding: &Hiding) -> CheckFinding {
        CheckFinding::new(&hiding.name, Invariant::Repo1, format!("it is {}", hiding.what))
            .then("move it away, and bring what belongs there back from a copy of the repository")
    }
}
