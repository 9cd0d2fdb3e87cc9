//! What an attachment says: where it attached, what is lost, which lineages contest the present one, what it stored.
//!
//! Not here: run records (told), what is found while it follows (attachment, company), outages (watching).

use super::StreamJob;
use super::attach::Attaching;
use super::presence::Presence;
use super::standing::Standing;
use super::watching::tell_over;
use crate::jobs::losses::{remember, remembered};
use crate::plan::{LostLog, lost_at_attach, missed_since, present, rivals, stored_chain, told_once};
use crate::{EngineError, Fact};
use backstay_repository::layout::Level;
use backstay_repository::{AttachReason, LogStore, Stored};
use backstay_source::{LogSource, LogStart};
use backstay_terms::{Branch, LogRange, Position};
use std::collections::BTreeSet;

/// Says what of the stored log is gone, and remembers it: once this attachment is recorded, what is stored looks whole again.
/// What the source still has from `first` on, where this attachment begins to store, is no loss: it is stored again.
pub(super) async fn tell_lost(
    job: &StreamJob,
    log: &LogStore,
    (branch, first): (Branch, Position),
    start: &LogStart,
    presence: &mut Presence,
) -> Result<(), EngineError> {
    let (repository, now) = (&job.repository, job.repository.now());
    let lost = lost_at_attach(log, (branch, start.from), now).await?;
    let end = start.identity.place.position;
    let is_there = |loss: &LostLog| {
        loss.branch == branch && loss.from.is_some_and(|from| first <= from) && loss.to <= end
    };
    let (again, mut lost): (Vec<_>, Vec<_>) = lost.into_iter().partition(is_there);
    presence.comes_again(again);
    if lost.is_empty() {
        return Ok(());
    }
    let known = remembered(repository, &job.name, missed_since(log, now)).await?;
    lost.retain(|loss| !known.iter().any(|known| known.has(loss)));
    for loss in told_once(&lost) {
        let LogRange { from, to } = loss.range();
        let by = Some(loss.by);
        job.observer.observe(&Fact::LogLost { from, to, by });
    }
    for loss in &lost {
        presence.told(loss.range());
    }
    match lost.is_empty() {
        true => Ok(()),
        false => remember(repository, &job.name, lost).await,
    }
}

/// Says it at each attachment, until somebody chooses. `own` is what the stream attached to: if it was passed over, what it
/// stores now contests that.
pub(super) async fn tell_rivals(job: &StreamJob, log: &LogStore, own: Branch) -> Result<(), EngineError> {
    let records = log.records_seen().await?.records;
    let Some(present) = present(&records) else {
        return Ok(());
    };
    let chain = stored_chain(log, present, &records).await?;
    let found = rivals(log, &records, &chain).await?;
    let attached = Some(own).filter(|own| *own != present);
    let rivals: BTreeSet<Branch> = found.iter().map(|rival| rival.branch).chain(attached).collect();
    if !rivals.is_empty() {
        let (source, rivals) = (job.name.clone(), rivals.into_iter().collect());
        job.observer.observe(&Fact::LineagesContested { source, rivals });
    }
    Ok(())
}

/// Says it before anything is confirmed: from then on the source forgets what another reader may not have read.
pub(super) fn tell_taken_over(job: &StreamJob, source: &dyn LogSource) {
    if let Some(slot) = source.kept_before() {
        job.observer.observe(&Fact::SlotTakenOver { slot });
    }
}

pub(super) fn tell_attached(job: &StreamJob, attaching: &Attaching, from: Position) {
    let reason = match attaching.reason {
        AttachReason::First => "nothing was stored of this system yet",
        AttachReason::Resumed => "it continues what is stored",
        AttachReason::Timeline => "the server is on a new timeline",
        AttachReason::Behind => "the server's log ends before what is stored: it is another history of bytes",
        AttachReason::Differs => "the server's bytes are not the stored ones: it is another history of bytes",
        AttachReason::Unproven => {
            "nothing proves which of the stored histories of this timeline it continues: it is kept apart"
        }
    };
    let (branch, reason) = (attaching.branch, reason.to_owned());
    if matches!(
        attaching.reason,
        AttachReason::Behind | AttachReason::Differs | AttachReason::Unproven
    ) {
        job.observer.observe(&Fact::LineageBegan {
            branch,
            reason: reason.clone(),
        });
    }
    job.observer
        .observe(&Fact::StreamAttached { branch, from, reason });
}

pub(super) fn tell_stored(job: &StreamJob, standing: &Standing, stored: &Stored, durable: Position) {
    let level = match stored.level {
        _ if stored.range.is_mark() => "mark",
        Level::Live => "live",
        Level::Settled => "settled",
        Level::Held => "held",
    };
    job.observer.observe(&Fact::RangeStored {
        level,
        from: stored.range.from,
        to: stored.range.to,
    });
    let repository = &job.repository;
    let now = (repository.clock().instant(), repository.now());
    if let Some(lasted) = standing.stored(now, durable) {
        tell_over(job, lasted);
    }
}

/// Says what was damaged or gone, once it is stored again.
pub(super) fn tell_stored_again(job: &StreamJob, presence: &mut Presence) {
    for loss in presence.stored_again() {
        let LogRange { from, to } = loss.range();
        let by = loss.by;
        job.observer.observe(&Fact::LogStoredAgain { from, to, by });
    }
}
