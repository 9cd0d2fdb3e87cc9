//! Verifies what is stored: by listings, by structure, or byte by byte.
//!
//! Promise: every depth includes the ones before; what is wrong is named with its object and the invariant it breaks, and
//! the check goes on. An error means that the store could not be asked, never that something is wrong. Sealed objects
//! are changed by nobody here; only the records of the run are written, and those only if wished.
//! Not here: the checks themselves (backstay-repository::check), records inside the log (the adapters).

mod holes;
mod lost;
mod next;
mod walk;

use crate::EngineError;
use crate::plan::{Known, LostLog, LostWhole, lost_whole};
use backstay_repository::{
    AgeIdentity, BranchObjects, CheckFinding, Compared, HeadState, Hole, Indexed, Invariant, Inventory,
    Leaving, LineageRecord, LogCheck, LogStore, Repository, RunFinished, RunResult, RunsWanted, Unsettled,
};
use backstay_source::LogFormat;
use backstay_terms::{Branch, EngineKind, SourceName};
use holes::Look;
use jiff::SignedDuration;
use lost::Backups;
use serde::Serialize;
use std::sync::Arc;
use walk::Walk;

use crate::plan::retention::ExpiryPolicy;

/// How deep to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// What heads, tables and records of backups name is there with its size; the log has no holes; every name can be read.
    /// Needs the facts keys.
    Listed,
    /// Tables fit each other; range and log indexes, every kind of record and every wrap of keys open. Needs all keys.
    Structure,
    /// Every pack, range and manifest is read, every SHA-256 and every overlap compared, every record's checksum.
    Everything,
}

/// Whether the run is recorded in the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    /// As every run is.
    Written,
    /// For whoever may only read.
    Skipped,
}

/// Live log that is older than this and not settled is named.
const SETTLED_WITHIN: SignedDuration = SignedDuration::from_hours(24);

/// A verification.
#[derive(Clone, Debug)]
pub struct VerifyJob {
    /// What is verified.
    pub repository: Repository,
    /// Which services; none: all of which anything is stored.
    pub services: Vec<(EngineKind, SourceName)>,
    /// How deep.
    pub depth: Depth,
    /// How each engine's log is walked; an engine without one has its bytes compared and not walked.
    pub formats: Vec<(EngineKind, Arc<dyn LogFormat>)>,
    /// Age identities: every wrap for one of them must open with it.
    pub identities: Vec<AgeIdentity>,
    /// Whether the run is recorded.
    pub recording: Recording,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyCounts {
    /// Committed backups.
    pub backups: u64,
    /// Backups without a head: harmless, and expiring.
    pub uncommitted: u64,
    /// Packs, tables and ranges listed.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Ranges of log.
    pub ranges: u64,
    /// Range indexes opened.
    pub indexes: u64,
    /// Seams compared.
    pub seams: u64,
    /// Lineage records opened.
    pub records: u64,
    /// History files opened.
    pub histories: u64,
    /// Envelopes opened.
    pub envelopes: u64,
    /// Files of backups compared with their SHA-256.
    pub files: u64,
    /// Bytes of these files.
    pub file_bytes: u64,
    /// Bytes of log read.
    pub log_bytes: u64,
    /// Bytes of log whose records were walked.
    pub walked_bytes: u64,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedService {
    /// Its engine.
    pub engine: EngineKind,
    /// Its name.
    pub source: SourceName,
    /// What was looked at.
    pub counts: VerifyCounts,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// How deep it looked.
    pub depth: Depth,
    /// Each service.
    pub services: Vec<VerifiedService>,
    /// What is wrong; an integrity failure if there is any.
    pub findings: Vec<CheckFinding>,
    /// Log that only live ranges have held for more than a day: nothing is lost yet; run settle.
    pub unsettled: Vec<Unsettled>,
    /// Holes of the log that are no findings: declared by an attachment, or being filled now.
    pub holes: Vec<Hole>,
}

impl Verified {
    /// An integrity error if anything is wrong.
    pub fn outcome(&self) -> Result<(), EngineError> {
        let Some(first) = self.findings.first() else {
            return Ok(());
        };
        let more = match self.findings.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let what = format!("{}: {}{more}", first.object, first.what);
        Err(EngineError::Integrity { what })
    }
}

impl VerifyJob {
    /// Verifies.
    pub async fn run(&self) -> Result<Verified, EngineError> {
        if self.recording == Recording::Skipped {
            return self.verify().await;
        }
        let of = match &self.services[..] {
            [(_, one)] => one.to_string(),
            _ => "all".to_owned(),
        };
        let started = self.repository.run_started("verify", &of).await?;
        let outcome = self.verify().await;
        let found = outcome.as_ref().map(|verified| verified.findings.len());
        let (result, error) = match (&outcome, outcome.as_ref().map(Verified::outcome)) {
            (Ok(_), Ok(Ok(()))) => (RunResult::Succeeded, None),
            (Ok(_), Ok(Err(error))) => (RunResult::Failed, Some(error.to_string())),
            (Err(error), _) | (_, Err(error)) => (RunResult::Failed, Some(error.to_string())),
        };
        let figures = serde_json::json!({ "depth": self.depth, "findings": found.ok() });
        let finished = self.repository.now();
        let record = RunFinished {
            started,
            finished,
            result,
            error,
            figures,
        };
        let recorded = self.repository.run_finished(&record).await;
        let verified = outcome?;
        recorded?;
        Ok(verified)
    }

    async fn verify(&self) -> Result<Verified, EngineError> {
        let mut verified = Verified {
            depth: self.depth,
            services: Vec::new(),
            findings: Vec::new(),
            unsettled: Vec::new(),
            holes: Vec::new(),
        };
        let mut backups = Backups::default();
        let services = match self.services.is_empty() {
            true => self.repository.every_source().await?,
            false => self.services.clone(),
        };
        let findings = match self.depth {
            Depth::Listed => self.repository.check_month_sizes().await?,
            _ => self.repository.check_months(&self.identities).await?.1,
        };
        verified.findings.extend(findings);
        for (engine, source) in services {
            let known = verified.findings.len();
            let counts = self.service(engine, &source, &mut backups, &mut verified).await?;
            next::fill_in(verified.findings.iter_mut().skip(known), Some(&source));
            verified.services.push(VerifiedService {
                engine,
                source,
                counts,
            });
        }
        self.runs(&backups, &mut verified).await?;
        let hiding = self.repository.hiding();
        verified.findings.extend(hiding.iter().map(CheckFinding::hiding));
        next::fill_in(verified.findings.iter_mut(), None);
        Ok(verified)
    }

    /// Run records, and the backups that they say were committed.
    async fn runs(&self, backups: &Backups, verified: &mut Verified) -> Result<(), EngineError> {
        let wanted = match self.depth {
            Depth::Listed => RunsWanted::Ended("backup"),
            Depth::Structure | Depth::Everything => RunsWanted::All,
        };
        let (ended, findings) = self.repository.check_runs(wanted).await?;
        verified.findings.extend(findings);
        let is_meant = |run: &&RunFinished| {
            let of_service = |(_, source): &(EngineKind, SourceName)| source.as_str() == run.started.source;
            run.started.verb == "backup" && (self.services.is_empty() || self.services.iter().any(of_service))
        };
        for run in ended.iter().filter(is_meant) {
            verified
                .findings
                .extend(backups.missed(&self.repository, run).await?);
        }
        Ok(())
    }

    async fn service(
        &self,
        engine: EngineKind,
        source: &SourceName,
        backups: &mut Backups,
        verified: &mut Verified,
    ) -> Result<VerifyCounts, EngineError> {
        let now = self.repository.now();
        let inventory = self.repository.inventory(engine, source, now).await?;
        backups.add(&inventory);
        let mut counts = listed(&inventory);
        let strays = inventory
            .strays
            .iter()
            .map(|stray| CheckFinding::stray(&stray.name));
        verified.findings.extend(strays);
        self.backups(&inventory, &mut counts, verified).await?;
        let log = LogStore::new(&self.repository, engine, source);
        let records = self.facts(&log, &inventory, &mut counts, verified).await?;
        let mut lost = Vec::new();
        if let Some(LostWhole { tells, .. }) = lost_whole(&log, now).await? {
            let next = format!("bring it back from a copy of the repository, or: backstay backup {source}");
            let what = format!("all log of {source} is lost: {tells}, and nothing of it is stored any more");
            let finding = CheckFinding::new(format!("the log of {source}"), Invariant::Log1, what);
            verified.findings.push(finding.then(next));
        } else {
            let known = Known {
                log: &log,
                records: &records,
                all_open: records.len() == log.record_names().await?.0.len(),
                chain: None,
                now,
            };
            lost = known.lost().await?;
        }
        self.holes(&log, &inventory, &records, &lost, verified).await?;
        for branch in &inventory.branches {
            let size = segment_size(&records, &branch.branch);
            self.branch(engine, &log, branch, size, &mut counts, verified)
                .await?;
        }
        Ok(counts)
    }

    async fn backups(
        &self,
        inventory: &Inventory,
        counts: &mut VerifyCounts,
        verified: &mut Verified,
    ) -> Result<(), EngineError> {
        for backup in inventory.backups.iter().filter(|b| b.head == HeadState::Absent) {
            verified
                .findings
                .extend(lost::untold(&self.repository, &inventory.source, backup).await?);
        }
        let committed = inventory.backups.iter().filter(|b| b.head != HeadState::Absent);
        for backup in committed {
            let found = self.repository.check_listed(backup).await?;
            let intact = found.is_empty();
            verified.findings.extend(found);
            // What is missing is named once; deeper looks would only stumble over it again.
            if !intact || backup.opened().is_none() || self.depth == Depth::Listed {
                continue;
            }
            let found = self.repository.check_tables(&backup.place).await?;
            let intact = found.is_empty();
            verified.findings.extend(found);
            if intact && self.depth == Depth::Everything {
                let (content, found) = self.repository.check_content(&backup.place).await?;
                counts.files += content.files;
                counts.file_bytes += content.bytes;
                verified.findings.extend(found);
            }
        }
        Ok(())
    }

    /// Lineage records, history files and envelopes. The records are read at every depth: they tell the size of segments.
    async fn facts(
        &self,
        log: &LogStore,
        inventory: &Inventory,
        counts: &mut VerifyCounts,
        verified: &mut Verified,
    ) -> Result<Vec<LineageRecord>, EngineError> {
        let branches: Vec<Branch> = inventory.branches.iter().map(|branch| branch.branch).collect();
        let (records, findings) = log.check_records(&branches).await?;
        counts.records += records.len() as u64;
        verified.findings.extend(findings);
        let findings = self.repository.check_key_names(inventory).await?;
        verified.findings.extend(findings);
        if self.depth == Depth::Listed {
            verified.findings.extend(log.check_sizes().await?);
        } else {
            let (opened, findings) = log.check_histories(&records).await?;
            counts.histories += opened;
            verified.findings.extend(findings);
            let (engine, source) = (inventory.engine, &inventory.source);
            let (opened, findings) = self
                .repository
                .check_envelopes(engine, source, &self.identities)
                .await?;
            counts.envelopes += opened;
            verified.findings.extend(findings);
        }
        Ok(records)
    }

    /// Holes of the log, also at its end, and its indexes: they tell what was stored once. A mere listing opens all of them
    /// only for a hole, and else the newest. What is `lost` is a finding also where it leaves no hole.
    async fn holes(
        &self,
        log: &LogStore,
        inventory: &Inventory,
        records: &[LineageRecord],
        lost: &[LostLog],
        verified: &mut Verified,
    ) -> Result<(), EngineError> {
        let mut witnessed = Indexed::new();
        for loss in lost {
            witnessed.entry(loss.branch).or_default().push(loss.needed());
        }
        let look = |indexed| Look {
            log,
            inventory,
            records,
            indexed,
            now: self.repository.now(),
        };
        let mut found = Vec::new();
        if self.depth > Depth::Listed || !look(&witnessed).holes().await?.is_empty() {
            let (mut indexed, findings) = log.check_indexes(&inventory.branches).await?;
            let is_known =
                |new: &CheckFinding| verified.findings.iter().any(|known| known.object == new.object);
            let new: Vec<_> = findings.into_iter().filter(|new| !is_known(new)).collect();
            verified.findings.extend(new);
            for (branch, ranges) in &witnessed {
                indexed.entry(*branch).or_default().extend(ranges);
            }
            found = look(&indexed).holes().await?;
        }
        let is_hole = |loss: &&LostLog| {
            let range = loss.needed();
            let mut holes = found.iter().filter(|hole| hole.branch == loss.branch);
            holes.any(|hole| hole.range.from <= range.from && range.to <= hole.range.to)
        };
        for loss in lost.iter().filter(|loss| !is_hole(loss)) {
            verified.findings.push(holes::lost(&inventory.source, loss));
        }
        for hole in found {
            match holes::finding(inventory.engine, &inventory.source, &hole) {
                Some(finding) => verified.findings.push(finding),
                None => verified.holes.push(hole),
            }
        }
        Ok(())
    }

    async fn branch(
        &self,
        engine: EngineKind,
        log: &LogStore,
        objects: &BranchObjects,
        segment_size: Option<u64>,
        counts: &mut VerifyCounts,
        verified: &mut Verified,
    ) -> Result<(), EngineError> {
        let check = LogCheck::new(log, objects);
        verified.findings.extend(check.names(segment_size));
        let live_for = ExpiryPolicy::of(engine).live;
        let now = self.repository.now();
        verified
            .unsettled
            .extend(check.unsettled(now, SETTLED_WITHIN, live_for));
        if self.depth >= Depth::Structure {
            let (indexes, findings) = check.indexes().await?;
            counts.indexes += indexes.opened;
            counts.seams += indexes.seams;
            verified.findings.extend(findings);
            let twins = log.twins(&objects.branch, None, Compared::Ends).await?;
            verified
                .findings
                .extend(twins.leaving.iter().map(|leaving| told_apart(log, leaving)));
        }
        if self.depth >= Depth::Everything {
            let format = self.formats.iter().find(|(kind, _)| *kind == engine);
            let format = format.map(|(_, format)| format.as_ref());
            let mut walk = Walk::new(format, objects.branch, segment_size);
            let (read, findings) = check.bytes(|begins, bytes| walk.take(begins, bytes)).await?;
            counts.log_bytes += read;
            verified.findings.extend(findings);
            let (walked, findings) = walk.finish();
            counts.walked_bytes += walked;
            verified.findings.extend(findings);
        }
        Ok(())
    }
}

/// The finding that a lineage holds log of two servers.
fn told_apart(log: &LogStore, leaving: &Leaving) -> CheckFinding {
    let source = &log.place().source;
    let what = format!(
        "it holds log of two servers that were streamed as {source} at the same time, from {} on",
        leaving.fork
    );
    let next = format!("backstay wal settle {source}; it tells the two apart and loses nothing");
    CheckFinding::new(format!("branch {}", leaving.branch), Invariant::Log2, what).then(next)
}

fn listed(inventory: &Inventory) -> VerifyCounts {
    let mut counts = VerifyCounts::default();
    for backup in &inventory.backups {
        match backup.head {
            HeadState::Absent => counts.uncommitted += 1,
            _ => counts.backups += 1,
        }
        counts.objects += backup.parts().count() as u64;
        counts.bytes += backup.parts().map(|part| part.size).sum::<u64>();
    }
    for range in inventory.branches.iter().flat_map(|branch| &branch.ranges) {
        counts.ranges += 1;
        counts.objects += 1;
        counts.bytes += range.object.size;
    }
    counts
}

fn segment_size(records: &[LineageRecord], branch: &Branch) -> Option<u64> {
    let of_branch = records.iter().rev().find(|record| record.branch == *branch);
    of_branch.map(|record| record.segment_size)
}
