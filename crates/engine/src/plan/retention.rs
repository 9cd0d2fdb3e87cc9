//! Plans an expiry: what may go, in which order, and what is kept because of what.
//!
//! Promise: pure. The newest `FLOOR` usable backups of a source stay whatever their age, with all that they need; a hold
//! or a restore under way keeps everything; what cannot be proved to be unneeded is kept. Only four kinds of objects ever
//! go: backups past their promise, parts that no head names and that no run committed, live log that settled log covers, and settled log before
//! everything that a kept backup needs.
//! Not here: carrying it out (backstay-repository::expire), log in detail (retention::log).

mod log;

use crate::jobs::backup::Committed;
use backstay_repository::{
    BackupObjects, Head, HeadState, HeadVerdict, Inventory, RUN_BEFORE_BACKUP, Removal, StoredObject,
    moment_of, oldest_first,
};
use backstay_terms::{BackupId, EngineKind, GenerationId, RetentionClass, RunId, SourceName};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;

/// So many usable backups of a source stay, whatever their age.
pub const FLOOR: usize = 2;

/// How old things must be before they may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiryPolicy {
    /// Live ranges.
    pub live: SignedDuration,
    /// Settled ranges.
    pub settled: SignedDuration,
    /// Parts of a backup that was never committed, counted from the newest of them.
    pub uncommitted: SignedDuration,
}

/// How far back a restore that left no end is believed to be under way, and a copy that fetches its log to need it.
pub const RESTORE_MAX: SignedDuration = days(3);

const fn days(count: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * count)
}

impl ExpiryPolicy {
    /// The days of the format document, section 1, and of DESIGN 3 for Redis.
    pub fn of(engine: EngineKind) -> ExpiryPolicy {
        let (live, settled) = match engine {
            EngineKind::Postgres | EngineKind::Qdrant => (days(90), days(365 + 35)),
            EngineKind::Redis => (days(70), days(35 + 35)),
        };
        let uncommitted = days(14);
        ExpiryPolicy {
            live,
            settled,
            uncommitted,
        }
    }
}

/// Something that stays although one might expect it to go, and every backup that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// What.
    pub what: String,
    /// Because of what.
    pub because: String,
}

/// What may go and what stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExpiryPlan {
    /// The engine.
    pub engine: EngineKind,
    /// The source.
    pub source: SourceName,
    /// The moment for which it was made.
    pub now: Timestamp,
    /// What may go, in the order in which it goes.
    pub removals: Vec<Removal>,
    /// What stays.
    pub kept: Vec<Kept>,
}

impl ExpiryPlan {
    /// Objects and bytes that go.
    pub fn size(&self) -> (u64, u64) {
        let objects = self.removals.iter().map(|removal| removal.objects().len() as u64);
        (objects.sum(), self.removals.iter().map(Removal::bytes).sum())
    }
}

/// Makes a plan.
pub fn plan(catalog: &Inventory, policy: &ExpiryPolicy, now: Timestamp) -> ExpiryPlan {
    let mut plan = ExpiryPlan {
        engine: catalog.engine,
        source: catalog.source.clone(),
        now,
        removals: Vec::new(),
        kept: Vec::new(),
    };
    if let Some(because) = keeps_everything(catalog) {
        let what = format!("everything of {}", catalog.source);
        plan.kept.push(Kept { what, because });
        return plan;
    }
    let reasons = kept_backups(catalog, now);
    plan_backups(catalog, &reasons, now, &mut plan);
    plan_uncommitted(catalog, policy, now, &mut plan);
    log::plan_log(catalog, policy, &reasons, &mut plan);
    plan
}

/// Why some backups stay, by their index in the catalog.
pub(crate) type Reasons = BTreeMap<usize, String>;

fn keeps_everything(catalog: &Inventory) -> Option<String> {
    let hold = catalog
        .holds
        .first()
        .map(|hold| format!("the hold {} stands", hold.name));
    let restore = || {
        catalog
            .restores
            .first()
            .map(|run| format!("the restore {run} is under way, or its copy fetches its log"))
    };
    hold.or_else(restore)
}

/// Every committed backup that stays, with the reason.
fn kept_backups(catalog: &Inventory, now: Timestamp) -> Reasons {
    let mut kept = Reasons::new();
    for (place, backup) in catalog.backups.iter().enumerate() {
        match &backup.head {
            HeadState::Absent => {}
            HeadState::Closed(_, why) => {
                drop(kept.insert(place, format!("its head cannot be opened: {why}")))
            }
            HeadState::Opened(_, head) if now < head.kept_until() => {
                kept.insert(
                    place,
                    format!("it is promised until {}", second(head.kept_until())),
                );
            }
            HeadState::Opened(..) => {}
        }
    }
    keep_floor(catalog, now, &mut kept);
    keep_bases(catalog, &mut kept);
    kept
}

fn keep_floor(catalog: &Inventory, now: Timestamp, kept: &mut Reasons) {
    let mut usable: Vec<&Head> = catalog
        .backups
        .iter()
        .filter(|backup| is_usable(catalog, backup))
        .filter_map(BackupObjects::opened)
        .collect();
    oldest_first(&mut usable, now);
    let mut newest: Vec<&BackupId> = usable.iter().rev().map(|head| &head.backup).collect();
    // A copy in another class is no second backup.
    newest.dedup();
    newest.truncate(FLOOR);
    let short = newest.len() < FLOOR;
    for (place, backup) in catalog.backups.iter().enumerate() {
        let because = match backup.opened() {
            Some(head) if newest.contains(&&head.backup) => {
                format!("it is one of the newest {FLOOR} usable backups")
            }
            Some(_) if short => format!("fewer than {FLOOR} usable backups are stored"),
            _ => continue,
        };
        kept.entry(place).or_insert(because);
    }
}

/// Good and whole, and so is what it rests on; its age does not matter here.
fn is_usable(catalog: &Inventory, backup: &BackupObjects) -> bool {
    let good = |backup: &BackupObjects| {
        backup.is_whole()
            && backup
                .opened()
                .is_some_and(|head| head.verdict == HeadVerdict::Good)
    };
    let base = backup.opened().and_then(|head| head.base.as_ref());
    let rests = base.is_none_or(|base| {
        let full = |other: &&BackupObjects| is_of(other, &backup.place.generation, base);
        catalog.backups.iter().filter(full).any(good)
    });
    good(backup) && rests
}

fn is_of(backup: &BackupObjects, generation: &GenerationId, id: &BackupId) -> bool {
    backup.place.generation == *generation && backup.place.backup == *id
}

/// The fulls of kept increments.
fn keep_bases(catalog: &Inventory, kept: &mut Reasons) {
    let increments: Vec<&BackupObjects> = kept
        .keys()
        .filter_map(|place| catalog.backups.get(*place))
        .collect();
    for increment in increments {
        let Some(base) = increment.opened().and_then(|head| head.base.as_ref()) else {
            continue;
        };
        for (place, full) in catalog.backups.iter().enumerate() {
            if full.opened().is_some() && is_of(full, &increment.place.generation, base) {
                let because = format!("the backup {} rests on it", increment.place.backup);
                kept.entry(place).or_insert(because);
            }
        }
    }
    keep_generations_of_closed(catalog, kept);
}

/// A head that cannot be opened may be that of an increment: its whole generation stays.
fn keep_generations_of_closed(catalog: &Inventory, kept: &mut Reasons) {
    let closed = catalog
        .backups
        .iter()
        .filter(|b| matches!(b.head, HeadState::Closed(..)));
    for closed in closed {
        for (place, backup) in catalog.backups.iter().enumerate() {
            if backup.opened().is_some() && backup.place.generation == closed.place.generation {
                let because = format!("the backup {} may rest on it", closed.place.backup);
                kept.entry(place).or_insert(because);
            }
        }
    }
}

fn plan_backups(catalog: &Inventory, reasons: &Reasons, now: Timestamp, plan: &mut ExpiryPlan) {
    let mut going: Vec<(&BackupObjects, &StoredObject, &Head)> = Vec::new();
    for (place, backup) in catalog.backups.iter().enumerate() {
        match (reasons.get(&place), &backup.head) {
            (Some(because), _) => plan.kept.push(Kept {
                what: format!("backup {} ({})", backup.place.backup, backup.place.class),
                because: because.clone(),
            }),
            (None, HeadState::Opened(object, head)) => going.push((backup, object, head)),
            _ => {}
        }
    }
    // Increments first: a crash must not leave one without its full.
    going.sort_by_key(|(backup, _, head)| (head.base.is_none(), backup.place.clone()));
    let remain = |backup: &BackupObjects, going: &[(&BackupObjects, &StoredObject, &Head)]| {
        catalog.backups.iter().any(|other| {
            other.place.generation == backup.place.generation
                && !going.iter().any(|(gone, ..)| gone.place == other.place)
        })
    };
    let last_of_generation: BTreeMap<&GenerationId, usize> = going
        .iter()
        .enumerate()
        .map(|(order, (backup, ..))| (&backup.place.generation, order))
        .collect();
    for (order, (backup, object, head)) in going.iter().enumerate() {
        let last = last_of_generation.get(&backup.place.generation) == Some(&order);
        let keys = match last && !remain(backup, &going) {
            true => wraps_of(catalog, &backup.place.generation),
            false => Vec::new(),
        };
        plan.removals.push(Removal::Backup {
            place: backup.place.clone(),
            backup: backup.place.backup.clone(),
            head: (*object).clone(),
            parts: backup.parts().cloned().collect(),
            keys,
            reason: format!(
                "its promise ended {}, before {}",
                second(head.kept_until()),
                second(now)
            ),
        });
    }
}

/// Parts without a head in any class, and wraps of generations that have nothing else.
fn plan_uncommitted(catalog: &Inventory, policy: &ExpiryPolicy, now: Timestamp, plan: &mut ExpiryPlan) {
    let of_generation = |generation: &GenerationId| {
        let generation = generation.clone();
        catalog
            .backups
            .iter()
            .filter(move |b| b.place.generation == generation)
    };
    for backup in catalog.backups.iter().filter(|b| b.head == HeadState::Absent) {
        if let Some(because) = committed_once(catalog, backup, now) {
            let what = format!("backup {} ({})", backup.place.backup, backup.place.class);
            plan.kept.push(Kept { what, because });
            continue;
        }
        let newest = youngest(&backup.place.backup, backup.parts(), now);
        let others = of_generation(&backup.place.generation);
        if let Some(because) = keeps_parts(backup, others, policy, newest, now) {
            let what = format!("uncommitted backup {}", backup.place.backup);
            plan.kept.push(Kept { what, because });
            continue;
        }
        let alone = of_generation(&backup.place.generation).count() == 1;
        let keys = match alone {
            true => wraps_of(catalog, &backup.place.generation),
            false => Vec::new(),
        };
        plan.removals.push(Removal::Uncommitted {
            place: backup.place.clone(),
            backup: backup.place.backup.clone(),
            parts: backup.parts().cloned().collect(),
            keys,
            reason: format!(
                "no head names it, and its newest part was stored {}",
                second(newest)
            ),
        });
    }
    for wraps in &catalog.wraps {
        let newest = youngest(&wraps.generation, wraps.wraps.iter(), now);
        let first = catalog
            .wraps
            .iter()
            .find(|other| other.generation == wraps.generation)
            == Some(wraps);
        if first
            && of_generation(&wraps.generation).next().is_none()
            && is_past(newest, policy.uncommitted, now)
        {
            plan.removals.push(Removal::Uncommitted {
                place: place_of(catalog, wraps.class, &wraps.generation),
                backup: wraps.generation.clone(),
                parts: Vec::new(),
                keys: wraps_of(catalog, &wraps.generation),
                reason: format!(
                    "nothing of its generation is left, and it was stored {}",
                    second(newest)
                ),
            });
        }
    }
}

/// Why the parts of a backup stay whose head was lost: a copy of the head brings it back. One that is past its promise may be half
/// expired.
fn committed_once(catalog: &Inventory, backup: &BackupObjects, now: Timestamp) -> Option<String> {
    let id = &backup.place.backup;
    for run in &catalog.runs.ended {
        let committed = Committed::by(run).filter(|committed| committed.backup == *id);
        let Some(committed) = committed else { continue };
        let promised = committed.promised_until(run, Some(backup.place.class));
        return (now < promised).then(|| {
            format!(
                "its head is lost: the run {} committed it, and it is promised until {}; bring the head back from a copy of \
                 the repository",
                run.started.run,
                second(promised)
            )
        });
    }
    let began = moment_of(id)?;
    let may_be_its = |run: &&RunId| {
        let before = moment_of(run).map(|moment| began.duration_since(moment));
        before.is_none_or(|before| (SignedDuration::ZERO..=RUN_BEFORE_BACKUP).contains(&before))
    };
    let run = catalog.runs.unreadable.iter().find(may_be_its)?;
    Some(format!(
        "it has no head, and whether the run {run} committed it cannot be read; see: backstay verify"
    ))
}

/// Why the parts of a backup without a head stay. `others` are the backups of its generation.
fn keeps_parts<'a>(
    backup: &BackupObjects,
    others: impl Iterator<Item = &'a BackupObjects>,
    policy: &ExpiryPolicy,
    newest: Timestamp,
    now: Timestamp,
) -> Option<String> {
    for other in others.filter(|other| other.head != HeadState::Absent) {
        let rests = match other.opened() {
            None => true,
            Some(head) => head.base.as_ref() == Some(&backup.place.backup),
        };
        if other.place.backup == backup.place.backup {
            return Some(format!("it has a head in the class {}", other.place.class));
        }
        // Its head was lost, but with another copy of it the increment can still be restored.
        if rests {
            return Some(format!("the backup {} may rest on it", other.place.backup));
        }
    }
    let young = !is_past(newest, policy.uncommitted, now);
    young.then(|| {
        format!(
            "its newest part was stored {}: it may still be under way",
            second(newest)
        )
    })
}

/// A moment as a person reads it: a fraction of a second decides nothing here.
fn second(moment: Timestamp) -> Timestamp {
    Timestamp::from_second(moment.as_second()).unwrap_or(moment)
}

fn place_of(
    catalog: &Inventory,
    class: RetentionClass,
    generation: &GenerationId,
) -> backstay_repository::layout::BackupPlace {
    backstay_repository::layout::BackupPlace {
        engine: catalog.engine,
        source: catalog.source.clone(),
        class,
        generation: generation.clone(),
        backup: generation.clone(),
    }
}

fn wraps_of(catalog: &Inventory, generation: &GenerationId) -> Vec<StoredObject> {
    let of_generation = catalog
        .wraps
        .iter()
        .filter(|wraps| wraps.generation == *generation);
    of_generation.flat_map(|wraps| wraps.wraps.clone()).collect()
}

/// When the newest of these was stored: the latest of the store's times and the id's own. A name without a date is new.
fn youngest<'a>(id: &BackupId, objects: impl Iterator<Item = &'a StoredObject>, now: Timestamp) -> Timestamp {
    let named = moment_of(id).unwrap_or(now);
    objects.map(|object| object.modified).fold(named, Timestamp::max)
}

/// True if more than `age` has passed.
fn is_past(then: Timestamp, age: SignedDuration, now: Timestamp) -> bool {
    now.duration_since(then) > age
}

#[cfg(test)]
mod tests;
