//! What is stored of a source and cannot be opened: heads and lineage records whose object or key is damaged or gone.
//!
//! Promise: it is named in a warning and passed over, so that one damaged object stops nothing that does not need it. Whatever
//! needs it, or would go back in time without it, is refused and names it.
//! Not here: damaged log (backstay-repository::log::copies), what may expire (plan::retention: nothing of it).

use super::catalog::Catalog;
use super::restore::{EPOCH_2000, Request, show_time};
use super::rivals::{is_passed_over, present, reach};
use super::window::newest_time;
use crate::EngineError;
use backstay_repository::{
    Head, HeadLog, HeadsSeen, LineageRecord, LogStore, PassedOver, RecordsSeen, Repository, UnreadableHead,
    UnreadableRecord, moment_of,
};
use backstay_terms::{BackupId, Branch, EngineKind, LogRange, RecoveryTarget, RetentionClass, SourceName};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tracing::warn;

/// What could not be opened.
#[derive(Debug, Default)]
pub struct Unread {
    /// Heads, oldest first.
    pub heads: Vec<UnreadableHead>,
    /// Lineage records, oldest first.
    pub records: Vec<UnreadableRecord>,
    /// The branches of which log is stored; asked for only when a record cannot be opened.
    branches: Vec<Branch>,
    /// Those of them that no record tells of which opens, with the end of what is stored.
    hidden: Vec<PassedOver>,
    newest: Newest,
}

/// Whether the newest lineage is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Newest {
    /// It is, or somebody named one.
    #[default]
    Known,
    /// A record that cannot be opened may name another one.
    Unsure,
}

/// One object that cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Its name.
    pub object: String,
    /// The backup whose head it is; none for a lineage record.
    pub backup: Option<BackupId>,
    /// The class under which it lies.
    pub class: Option<RetentionClass>,
    /// When what it speaks of began, as its name says.
    pub begun: Option<Timestamp>,
    /// Why it cannot be opened.
    pub why: String,
}

/// What was read of a source.
pub(super) struct Seen {
    pub heads: Vec<Head>,
    pub records: Vec<LineageRecord>,
    /// The lineage to follow: the wanted one if there is one of that name, else the newest.
    pub target: Option<Branch>,
    pub unread: Unread,
}

impl Seen {
    /// Reads heads and records. If none opens because no key does, the configured keys are wrong, and that is an error.
    pub async fn read(
        repository: &Repository,
        log: &LogStore,
        engine: EngineKind,
        source: &SourceName,
        lineage: Option<Branch>,
    ) -> Result<Seen, EngineError> {
        let HeadsSeen { heads, unreadable } = repository.heads_seen(engine, source).await?;
        let seen = log.records_seen().await?;
        if heads.is_empty() && unreadable.iter().all(|head| head.why.is_about_keys()) {
            if let Some(first) = unreadable.first() {
                repository.read_head(&first.place).await?;
            }
            let sealed = seen.unreadable.iter().all(|record| record.why.is_about_keys());
            if let Some(first) = seen
                .unreadable
                .first()
                .filter(|_| sealed && seen.records.is_empty())
            {
                log.record(&first.id).await?;
            }
        }
        let branches = match seen.unreadable.is_empty() {
            true => Vec::new(),
            false => log.branch_names().await?,
        };
        let hidden = hidden(log, &seen.records, &branches).await?;
        let (newest, sure) = newest(&seen, &branches, &hidden);
        let known = |wanted: &Branch| {
            seen.records.iter().any(|record| record.branch == *wanted) || branches.contains(wanted)
        };
        let target = match lineage {
            Some(lineage) => Some(lineage).filter(known),
            None => newest,
        };
        let unread = Unread {
            heads: unreadable,
            records: seen.unreadable,
            branches,
            hidden,
            newest: if lineage.is_some() { Newest::Known } else { sure },
        };
        unread.warn(source);
        Ok(Seen {
            heads,
            records: seen.records,
            target,
            unread,
        })
    }
}

/// The branches that no record tells of.
async fn hidden(
    log: &LogStore,
    records: &[LineageRecord],
    branches: &[Branch],
) -> Result<Vec<PassedOver>, EngineError> {
    let is_hidden = |branch: &&Branch| records.iter().all(|record| record.branch != **branch);
    let mut hidden = Vec::new();
    for branch in branches.iter().filter(is_hidden).copied() {
        let reach = reach(&log.ranges(&branch, None).await?).unwrap_or_default();
        hidden.push(PassedOver { branch, reach });
    }
    Ok(hidden)
}

/// The present lineage as far as it can be told. A record that cannot be opened may speak of another one if log of several
/// branches is stored, and it is younger than every record that opens, or one of the branches has no other record. An adoption
/// is a person's word that it does not, of what was stored then.
fn newest(seen: &RecordsSeen, branches: &[Branch], hidden: &[PassedOver]) -> (Option<Branch>, Newest) {
    let told = present(&seen.records);
    let last = seen.records.last().map_or(Timestamp::MIN, |last| last.created);
    let younger = |record: &UnreadableRecord| {
        // Names tell the second.
        moment_of(&record.id).is_none_or(|moment| last.duration_since(moment) < SignedDuration::from_secs(1))
    };
    let untold = |hidden: &PassedOver| !is_passed_over(&seen.records, hidden);
    let in_doubt = seen.unreadable.iter().any(younger) || hidden.iter().any(untold);
    match branches {
        [] => (told, Newest::Known),
        _ if !in_doubt => (told, Newest::Known),
        [one] => (Some(*one), Newest::Known),
        [.., stored_to_last] => (told.or(Some(*stored_to_last)), Newest::Unsure),
    }
}

impl Unread {
    /// Every object, heads first.
    pub fn objects(&self) -> Vec<Unreadable> {
        let head = |head: &UnreadableHead| Unreadable {
            object: head.object.name.clone(),
            backup: Some(head.place.backup.clone()),
            class: Some(head.place.class),
            begun: moment_of(&head.place.backup),
            why: head.why.to_string(),
        };
        let record = |record: &UnreadableRecord| Unreadable {
            object: record.object.name.clone(),
            backup: None,
            class: None,
            begun: moment_of(&record.id),
            why: record.why.to_string(),
        };
        let heads = self.heads.iter().map(head);
        heads.chain(self.records.iter().map(record)).collect()
    }

    /// Timelines of a system of which names alone speak.
    pub(super) fn timelines(&self, system: u64) -> impl Iterator<Item = u32> {
        let of_system = self.branches.iter().filter(move |branch| branch.system == system);
        of_system.map(|branch| branch.timeline)
    }

    /// Whether a record that cannot be opened may say that another lineage than the one followed is the newest.
    pub(crate) fn leaves_newest_unsure(&self) -> bool {
        self.newest == Newest::Unsure
    }

    /// The lineages of which log is stored and no record opens, with the end of that log.
    pub(crate) fn hidden(&self) -> &[PassedOver] {
        &self.hidden
    }

    fn warn(&self, source: &SourceName) {
        for Unreadable {
            object, backup, why, ..
        } in self.objects()
        {
            match backup {
                Some(backup) => warn!(
                    %source, %backup, object, error = why,
                    "the head of a backup cannot be opened and is passed over; see: backstay verify"
                ),
                None => warn!(
                    %source, object, error = why,
                    "a lineage record cannot be opened and is passed over; see: backstay verify"
                ),
            }
        }
    }

    /// The error that using a backup would give, if it is one that cannot be opened.
    pub fn refusal_of(&self, source: &SourceName, backup: &BackupId) -> Option<EngineError> {
        let head = self.heads.iter().find(|head| head.place.backup == *backup)?;
        Some(EngineError::Unreadable {
            what: format!("the backup {backup} of {source} cannot be opened"),
            why: head.why.clone(),
            advice: format!(
                "use another one: backstay list {source}; what is damaged: backstay verify {source}"
            ),
        })
    }

    /// Refuses what needs something that cannot be opened: a base by name, any base at all, the newest lineage.
    pub(super) fn refuse(&self, catalog: &Catalog, request: &Request) -> Result<(), EngineError> {
        let source = &catalog.source;
        let opens = |backup: &BackupId| catalog.heads.iter().any(|head| head.backup == *backup);
        let base = request.base.as_ref().filter(|base| !opens(base));
        if let Some(refusal) = base.and_then(|base| self.refusal_of(source, base)) {
            return Err(refusal);
        }
        if let Some(head) = self.heads.last().filter(|_| catalog.heads.is_empty()) {
            return Err(EngineError::Unreadable {
                what: format!("no backup of {source} can be opened"),
                why: head.why.clone(),
                advice: format!(
                    "what is damaged: backstay verify {source}; which key opens what: backstay key check"
                ),
            });
        }
        let follows = request.target != RecoveryTarget::Immediate && self.leaves_newest_unsure();
        if let Some(record) = self.records.last().filter(|_| follows) {
            let lineages: Vec<String> = self
                .branches
                .iter()
                .map(|branch| format!("--lineage {branch}"))
                .collect();
            let is_told = |branch: &&Branch| self.hidden.iter().all(|hidden| hidden.branch != **branch);
            let adopted = match self.branches.iter().rfind(is_told) {
                Some(branch) => format!("for good: backstay lineage adopt {source} {branch}; "),
                None => String::new(),
            };
            return Err(EngineError::Unreadable {
                what: format!(
                    "which lineage of {source} is the newest cannot be told: a record of one cannot be opened"
                ),
                why: record.why.clone(),
                advice: format!(
                    "say which one is meant: backstay restore {source} {}; {adopted}what is damaged: backstay verify {source}",
                    lineages.join(" or ")
                ),
            });
        }
        Ok(())
    }

    /// `latest` from an older backup than the newest one, which cannot be opened: refused unless the log proves that it goes
    /// on past the moment at which that one was complete. Whoever names a base has chosen.
    pub(super) async fn refuse_older(
        &self,
        catalog: &Catalog,
        request: &Request,
        log: &HeadLog,
        stretch: Option<LogRange>,
    ) -> Result<(), EngineError> {
        if request.target != RecoveryTarget::Latest || request.base.is_some() {
            return Ok(());
        }
        let newest = catalog.heads.iter().map(Head::dated).max();
        let is_newer = |lost: &&UnreadableHead| Some(&lost.place.backup) > newest.as_ref();
        let Some(lost) = self.heads.last().filter(is_newer) else {
            return Ok(());
        };
        let proven = match stretch {
            Some(stretch) => {
                let after_stop = LogRange {
                    from: log.stop,
                    to: stretch.to.max(log.stop),
                };
                newest_time(catalog, after_stop).await?
            }
            None => None,
        };
        let proven = proven.unwrap_or(log.stop_time).max(log.stop_time);
        let complete = lost.complete;
        if proven >= complete.as_microsecond() - EPOCH_2000 * 1_000_000 {
            return Ok(());
        }
        let proven = show_time(proven);
        let (backup, source) = (&lost.place.backup, &catalog.source);
        Err(EngineError::Unreadable {
            what: format!(
                "the newest backup {backup} of {source} cannot be opened, and without it nothing later than {proven} is certain, \
                 before it was complete at {complete}"
            ),
            why: lost.why.clone(),
            advice: format!(
                "go back on purpose: --to \"{proven}\"; or take a new backup: backstay backup {source}"
            ),
        })
    }
}
