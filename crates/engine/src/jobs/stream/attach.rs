//! Finds out where a stream goes on: which lineage, from where, or that a new one begins.
//!
//! Promise: the lineage record is stored before the first byte of an epoch, and before the source hears of any position
//! that is not stored; bytes read again before the frontier are compared with the stored ones, and a difference begins a
//! new lineage.

use super::Origin;
use crate::EngineError;
use backstay_repository::{
    Attach, AttachReason, HiddenRecord, Known, LineageKind, LineageRecord, LogStore, Parent, Presented,
    PresentedAncestor, RepositoryError, decide, history_digest, new_lineage,
};
use backstay_source::{Identity, Preceding, Resume};
use backstay_terms::{Branch, EpochId, LogRange, Position};
use bytes::Bytes;
use tracing::warn;

/// How much before the frontier is compared.
const COMPARED: u64 = 1 << 20;

/// Where a stream attaches.
#[derive(Clone, Debug)]
pub(crate) struct Attaching {
    pub branch: Branch,
    pub reason: AttachReason,
    pub parent: Option<Parent>,
    pub frontier: Option<Position>,
    /// The epoch that stored what ends at the frontier.
    pub after: Option<EpochId>,
    pub history: Option<String>,
}

impl Attaching {
    /// What to ask of the source. Only what is stored is called durable: the source hears of it before the lineage
    /// record is stored, and whatever lies between is gone once the source believes it.
    pub fn resume(&self, origin: Origin, identity: &Identity) -> Resume {
        let Branch { system, timeline, .. } = self.branch;
        let at = |position| Resume::At {
            system,
            timeline,
            position,
        };
        match (origin, self.frontier, self.parent) {
            (Origin::FromNow, ..) => at(identity.place.position),
            (Origin::AfterGap, ..) => Resume::Fresh,
            (Origin::Frontier, Some(position), _) => Resume::After {
                system,
                timeline,
                position,
            },
            // The new history is read from the file that holds the place where it left the old one.
            (Origin::Frontier, None, Some(parent)) => at(parent.fork),
            (Origin::Frontier, None, _) => Resume::Fresh,
        }
    }

    /// The same after a gap: nothing of what arrives continues what is stored. A server that has left the timeline
    /// cannot give the rest of it any more, so its own timeline begins. On a timeline of several lineages nothing proves
    /// to which one these bytes belong, so one of their own begins.
    pub fn after_gap(self, identity: &Identity, chance: u64, on_timeline: Lineages) -> Attaching {
        let old = self.branch;
        if old.timeline == identity.place.timeline {
            return match (self.reason, on_timeline) {
                (AttachReason::Resumed, Lineages::Several) => self.apart(chance),
                _ => Attaching {
                    frontier: None,
                    after: None,
                    ..self
                },
            };
        }
        let left = identity.ancestors.iter().find(|a| a.timeline == old.timeline);
        let branch = Branch {
            timeline: identity.place.timeline,
            lineage: new_lineage(chance),
            ..old
        };
        Attaching {
            branch,
            reason: AttachReason::Timeline,
            parent: left.map(|left| Parent {
                branch: old,
                fork: left.left_at,
            }),
            frontier: None,
            after: None,
            history: identity.history.as_deref().map(history_digest),
        }
    }
}

impl Attaching {
    /// A lineage of its own for a server whose bytes are of none that is stored.
    pub fn another(identity: &Identity, chance: u64, parent: Option<Parent>) -> Attaching {
        Attaching {
            branch: Branch {
                system: identity.place.system,
                timeline: identity.place.timeline,
                lineage: new_lineage(chance),
            },
            reason: AttachReason::Differs,
            parent,
            frontier: None,
            after: None,
            history: identity.history.as_deref().map(history_digest),
        }
    }

    /// The same where nothing could be compared: in a lineage of its own, because there is another one to mistake it for.
    pub fn apart(self, chance: u64) -> Attaching {
        Attaching {
            branch: Branch {
                lineage: new_lineage(chance),
                ..self.branch
            },
            reason: AttachReason::Unproven,
            frontier: None,
            after: None,
            ..self
        }
    }
}

/// How many lineages are stored of the timeline of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lineages {
    /// One, or none.
    One,
    /// More.
    Several,
}

impl Lineages {
    /// Those on the timeline of `branch`; a record that cannot be opened may be of one more.
    pub async fn on_timeline_of(log: &LogStore, branch: &Branch) -> Result<Lineages, EngineError> {
        let lineages = log.known_lineages().await?;
        let other = |known: &Known| {
            let of = known.record.branch;
            (of.system, of.timeline) == (branch.system, branch.timeline) && of.lineage != branch.lineage
        };
        Ok(
            match lineages.known.iter().any(other) || lineages.may_hide_another(branch) {
                true => Lineages::Several,
                false => Lineages::One,
            },
        )
    }
}

/// What the server presents, as the lineage rules want to see it.
pub(crate) fn presented(identity: &Identity) -> Presented {
    let ancestor = |a: &backstay_source::Ancestor| PresentedAncestor {
        timeline: a.timeline,
        history: a.history.as_deref().map(history_digest),
        left_at: a.left_at,
    };
    Presented {
        system: identity.place.system,
        timeline: identity.place.timeline,
        history: identity.history.as_deref().map(history_digest),
        ancestors: identity.ancestors.iter().map(ancestor).collect(),
        server_end: identity.place.position,
    }
}

/// Decides for this server. Where a record that cannot be opened may be of the lineage to go on with, another one begins: bytes of
/// two histories must not meet in one, and a source whose log is not stored is not protected. Nor is a source new of which such a
/// record may speak. Of several lineages that it may go
/// on with a stream takes its `own`, the one that it followed before, however new another one is.
pub(crate) async fn find(
    log: &LogStore,
    identity: &Identity,
    chance: u64,
    own: Option<Branch>,
) -> Result<Attaching, EngineError> {
    let presented = presented(identity);
    let lineages = log.known_lineages().await?;
    let mut known = lineages.known.clone();
    known.sort_by_key(|known| Some(known.record.branch) == own);
    let mut attach = decide(&presented, &known);
    if let Attach::Resume { branch, .. } = attach
        && let Some(HiddenRecord { record, .. }) = lineages.doubt_about(&branch)
    {
        let object = &record.object.name;
        warn!(
            %branch, object,
            "whether the stream goes on with this lineage cannot be told without a record that cannot be opened: \
             what follows is kept apart in a lineage of its own"
        );
        let reason = AttachReason::Unproven;
        attach = Attach::Begin { reason, parent: None };
    }
    let new_branch = Branch {
        system: presented.system,
        timeline: presented.timeline,
        lineage: new_lineage(chance),
    };
    if let Attach::Begin {
        reason: reason @ AttachReason::First,
        ..
    } = &mut attach
        && lineages.may_hide_another(&new_branch)
    {
        *reason = AttachReason::Unproven;
    }
    Ok(match attach {
        Attach::Resume { branch, frontier } => {
            let own = known.iter().find(|k| k.record.branch == branch);
            let record = own.map(|own| &own.record);
            let history = record.and_then(|record| record.history.clone());
            Attaching {
                branch,
                reason: AttachReason::Resumed,
                parent: None,
                frontier,
                after: own.and_then(|own| own.last.clone()),
                history,
            }
        }
        Attach::Begin { reason, parent } => Attaching {
            branch: new_branch,
            reason,
            parent,
            frontier: None,
            after: None,
            history: presented.history,
        },
    })
}

/// Stores the record of an attachment and the history files that it rests on.
pub(crate) async fn record(
    log: &LogStore,
    attaching: &Attaching,
    identity: &Identity,
    epoch: &EpochId,
    from: Position,
    id: backstay_terms::RecordId,
    created: jiff::Timestamp,
) -> Result<(), EngineError> {
    let system = identity.place.system;
    if let Some(history) = &identity.history {
        log.put_history(system, identity.place.timeline, history).await?;
    }
    for ancestor in &identity.ancestors {
        if let Some(history) = &ancestor.history {
            log.put_history(system, ancestor.timeline, history).await?;
        }
    }
    let record = LineageRecord {
        format: 1,
        kind: LineageKind::Attach,
        id,
        created,
        branch: attaching.branch,
        from,
        history: attaching.history.clone(),
        parent: attaching.parent,
        reason: attaching.reason,
        epoch: epoch.clone(),
        segment_size: identity.segment_size,
        server_end: identity.place.position,
        frontier: attaching.frontier,
        over: vec![],
        moved: None,
        after: attaching.frontier.and(attaching.after.clone()),
    };
    Ok(log.put_record(&record).await?)
}

/// How much of the log before a border is read at most; a record that is longer and lies across it is not counted.
const PRECEDING: u64 = 16 << 20;

/// The stored log before the border where the source will begin; none if nothing is stored there or this process cannot
/// open it.
pub(crate) async fn preceding(
    log: &LogStore,
    attaching: &Attaching,
    segment_size: u64,
) -> Result<Preceding, EngineError> {
    let (branch, at) = match (attaching.frontier, attaching.parent) {
        (Some(frontier), _) => (attaching.branch, frontier),
        (None, Some(parent)) if attaching.reason == AttachReason::Timeline => (parent.branch, parent.fork),
        (None, _) => return Ok(Preceding::none()),
    };
    let border = at.0 - at.0.checked_rem(segment_size).unwrap_or_default();
    let begins = Position(border.saturating_sub(PRECEDING.min(segment_size)));
    let Some(range) = LogRange::new(begins, Position(border)).filter(|range| !range.is_mark()) else {
        return Ok(Preceding::none());
    };
    Ok(match stored(log, &branch, range).await? {
        Some(bytes) => Preceding { begins, bytes },
        None => Preceding::none(),
    })
}

/// None if it is not stored or damaged, or not for this process: keys of an older epoch may be out of its reach. What
/// cannot be compared is no reason to let the source's log pile up.
async fn stored(log: &LogStore, branch: &Branch, range: LogRange) -> Result<Option<Bytes>, EngineError> {
    match log.read(branch, range).await {
        Ok(bytes) => Ok(Some(Bytes::from(bytes))),
        Err(RepositoryError::Gap { .. }) => Ok(None),
        Err(error) if error.is_damage() || error.is_about_keys() => {
            warn!(%error, "stored log cannot be opened and compared with the source's");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The stored bytes before the frontier that will arrive once more.
#[derive(Clone, Debug)]
pub(crate) struct Overlap {
    range: LogRange,
    stored: Bytes,
}

impl Overlap {
    /// Reads them back; none if nothing is stored there or this process cannot open it. `preceding` is what is stored before
    /// the border where the stream resumes, if it does at one: all of that is compared, because a file that was left early
    /// ends with zeros.
    pub async fn read(
        log: &LogStore,
        branch: &Branch,
        from: Position,
        frontier: Position,
        preceding: &Preceding,
    ) -> Result<Option<Overlap>, EngineError> {
        if !preceding.bytes.is_empty() && preceding.ends() == frontier && from <= preceding.begins {
            return Ok(Some(Overlap {
                range: LogRange {
                    from: preceding.begins,
                    to: frontier,
                },
                stored: preceding.bytes.clone(),
            }));
        }
        let begins = from.max(Position(frontier.0.saturating_sub(COMPARED)));
        let Some(range) = LogRange::new(begins, frontier).filter(|range| !range.is_mark()) else {
            return Ok(None);
        };
        Overlap::of(log, branch, range).await
    }

    /// The stored bytes of this range; none if they are not stored or cannot be opened by this process.
    pub async fn of(
        log: &LogStore,
        branch: &Branch,
        range: LogRange,
    ) -> Result<Option<Overlap>, EngineError> {
        let stored = stored(log, branch, range).await?;
        Ok(stored.map(|stored| Overlap { range, stored }))
    }

    /// What is compared.
    pub fn range(&self) -> LogRange {
        self.range
    }

    /// True if bytes before `position` were compared and found equal: the histories are one up to there.
    pub fn proves_up_to(&self, position: Position) -> bool {
        position > self.range.from
    }

    /// True if these bytes contradict the stored ones.
    pub fn contradicts(&self, begins: Position, bytes: &[u8]) -> bool {
        let from = begins.max(self.range.from);
        let to = Position(begins.0 + bytes.len() as u64).min(self.range.to);
        if from >= to {
            return false;
        }
        let part = |bytes: &[u8], origin: Position| {
            bytes
                .get((from.0 - origin.0) as usize..(to.0 - origin.0) as usize)
                .map(<[u8]>::to_vec)
        };
        part(bytes, begins) != part(&self.stored, self.range.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstay_source::LogPlace;
    use backstay_terms::Lineage;

    #[test]
    fn after_a_gap_bytes_continue_a_lineage_only_where_there_is_no_other_to_mistake_it_for() {
        let place = LogPlace {
            system: 7,
            timeline: 1,
            position: Position(900),
        };
        let identity = Identity {
            engine: backstay_terms::EngineKind::Postgres,
            version: "15.18".to_owned(),
            place,
            history: None,
            ancestors: vec![],
            segment_size: 1 << 20,
        };
        let resumed = Attaching {
            branch: Branch {
                system: 7,
                timeline: 1,
                lineage: Lineage(1),
            },
            reason: AttachReason::Resumed,
            parent: None,
            frontier: Some(Position(500)),
            after: None,
            history: None,
        };
        let alone = resumed.clone().after_gap(&identity, 5 << 32, Lineages::One);
        assert_eq!(
            (alone.branch, alone.reason),
            (resumed.branch, AttachReason::Resumed)
        );
        let several = resumed.clone().after_gap(&identity, 5 << 32, Lineages::Several);
        assert_eq!(
            (several.branch.lineage, several.reason),
            (Lineage(5), AttachReason::Unproven)
        );
        assert_eq!(
            (alone.frontier, several.frontier, several.parent),
            (None, None, None)
        );
    }
}
