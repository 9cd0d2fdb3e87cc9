//! Log that is stored and of which no copy can be opened, because its key or its bytes are damaged or gone.
//!
//! Promise: it is named in a warning and counts as not stored, so that what lies before it and after it stays reachable. Whoever
//! asks for something that lies in it, or for what is newest while it may hold that, is refused and told its name.
//! Not here: heads and lineage records (unread), which copy of a position is read (backstay-repository::log::copies).

use super::catalog::Catalog;
use super::chain::{Chain, Link};
use super::unread::Unreadable;
use crate::EngineError;
use backstay_repository::{RepositoryError, StoredRange, missing, stretches};
use backstay_terms::{EpochId, LogRange, Lsn, Position, RecoveryTarget};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};
use tracing::warn;

/// A part of the log of which no copy opens.
#[derive(Clone, Debug)]
pub struct ClosedPart {
    /// Its positions.
    pub range: LogRange,
    /// The object, or the envelope of the keys.
    pub object: String,
    /// Why it cannot be opened.
    pub why: Arc<RepositoryError>,
}

/// What is known to be closed.
#[derive(Debug, Default)]
pub(super) struct Closed {
    /// The epochs whose keys no configured key gives; none until they were looked at.
    epochs: Option<BTreeMap<EpochId, Arc<RepositoryError>>>,
    /// By position.
    parts: Vec<ClosedPart>,
}

impl Closed {
    fn positions(&self) -> Vec<LogRange> {
        stretches(self.parts.iter().map(|part| &part.range))
    }
}

impl ClosedPart {
    fn words(&self) -> String {
        let LogRange { from, to } = self.range;
        format!(
            "the log from {} to {} cannot be opened",
            Lsn::from(from),
            Lsn::from(to)
        )
    }

    fn unreadable(&self) -> Unreadable {
        Unreadable {
            object: self.object.clone(),
            backup: None,
            class: None,
            begun: None,
            why: format!("{}: {}", self.words(), self.why),
        }
    }
}

impl Catalog {
    /// The parts of the log that were found closed so far, by position.
    pub fn closed_parts(&self) -> Vec<ClosedPart> {
        self.closed().parts.clone()
    }

    /// Every object that was found so far and cannot be opened.
    pub fn unreadable(&self) -> Vec<Unreadable> {
        let log = self.closed_parts();
        let log = log.iter().map(ClosedPart::unreadable);
        self.unread.objects().into_iter().chain(log).collect()
    }

    /// The contiguous stretches of the chain that may be read, with `own` (what a base carries itself) joined in.
    pub(super) fn stretches(&self, own: Option<LogRange>) -> Vec<LogRange> {
        let Some(chain) = &self.chain else {
            return Vec::new();
        };
        let closed = self.closed().positions();
        let open = chain.stretches(None).into_iter();
        let open: Vec<LogRange> = open
            .flat_map(|stretch| missing(stretch, &closed))
            .chain(own)
            .collect();
        stretches(&open)
    }

    /// Looks once whether the keys of every epoch on the chain open: a lost one closes days of log.
    pub(super) async fn look_at_keys(&self) -> Result<(), EngineError> {
        let Some(chain) = self.chain.as_ref().filter(|_| self.closed().epochs.is_none()) else {
            return Ok(());
        };
        let ranges = chain.links.iter().flat_map(|link| &link.ranges);
        let epochs: BTreeSet<&EpochId> = ranges.map(|stored| &stored.name.epoch).collect();
        let mut closed = BTreeMap::new();
        for epoch in epochs {
            match self.log.open_epoch(epoch).await {
                Ok(()) => {}
                Err(error) if error.is_about_keys() => {
                    closed.insert(epoch.clone(), Arc::new(error));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let parts = closed_by_keys(chain, &closed);
        for part in &parts {
            self.tell(part);
        }
        let mut known = self.closed();
        known.parts.extend(parts);
        known.epochs = Some(closed);
        Ok(())
    }

    /// The error of reading anything of an epoch whose keys are known not to open.
    pub(super) fn closed_epoch(&self, epoch: &EpochId) -> Option<RepositoryError> {
        let closed = self.closed();
        match closed.epochs.as_ref()?.get(epoch)?.as_ref() {
            RepositoryError::NoKey { envelope, recipients } => Some(RepositoryError::NoKey {
                envelope: envelope.clone(),
                recipients: recipients.clone(),
            }),
            _ => None,
        }
    }

    /// Closes the positions that an error says nobody can read; whoever met it tries again. Anything else is given back, and
    /// so is what was closed already.
    pub(super) fn close(&self, error: EngineError) -> Result<(), EngineError> {
        let EngineError::Repository(RepositoryError::Unreadable { from, to, damage }) = error else {
            return Err(error);
        };
        let range = LogRange { from, to };
        if missing(range, &self.closed().positions()).is_empty() {
            return Err(RepositoryError::Unreadable { from, to, damage }.into());
        }
        let part = ClosedPart {
            range,
            object: damage
                .object()
                .unwrap_or_else(|| format!("log of {}", self.source)),
            why: Arc::from(damage),
        };
        self.tell(&part);
        let mut closed = self.closed();
        closed.parts.push(part);
        closed.parts.sort_by_key(|part| part.range);
        Ok(())
    }

    /// Whether these positions of the chain are known to be closed.
    pub(super) fn is_closed(&self, range: LogRange) -> bool {
        missing(range, &self.closed().positions()).is_empty()
    }

    /// The first closed part that ends after this position: it may hold what is newest.
    pub(super) fn closed_beyond(&self, end: Position) -> Option<ClosedPart> {
        let parts = self.closed_parts();
        parts.into_iter().find(|part| part.range.to > end)
    }

    /// A refusal of a target that may lie in what is closed, with the name of that. `end` is where the log that can be
    /// reached ends; where a base's own log is not reached, it is that.
    pub(super) fn because_closed(
        &self,
        refusal: EngineError,
        target: &RecoveryTarget,
        end: LogRange,
    ) -> EngineError {
        let EngineError::Unreachable { side, what, advice } = refusal else {
            return refusal;
        };
        let anywhere = matches!(target, RecoveryTarget::Transaction(_) | RecoveryTarget::Name(_));
        let adjoins = |part: &ClosedPart| part.range.from <= end.to && end.from < part.range.to;
        let parts = self.closed_parts();
        match parts.into_iter().find(|part| anywhere || adjoins(part)) {
            None => EngineError::Unreachable { side, what, advice },
            Some(part) => EngineError::Unreadable {
                what: format!("{what}; {}", part.words()),
                why: part.why,
                advice: format!("{advice}; what is damaged: backstay verify {}", self.source),
            },
        }
    }

    /// Refuses what is newest: it may lie in a closed part. `last` is the last point that can be reached.
    pub(super) fn refuse_latest(&self, part: ClosedPart, last: &str) -> EngineError {
        let source = &self.source;
        EngineError::Unreadable {
            what: format!("what is newest of {source} cannot be told: {}", part.words()),
            why: part.why,
            advice: format!(
                "go back on purpose, to the last point before it: {last}; what is damaged: backstay verify {source}; \
                 and take a new backup now"
            ),
        }
    }

    fn tell(&self, part: &ClosedPart) {
        let LogRange { from, to } = part.range;
        let (from, to) = (Lsn::from(from), Lsn::from(to));
        let ClosedPart { object, why, .. } = part;
        warn!(
            source = %self.source, object, %from, %to, error = %why,
            "a part of the log cannot be opened and is passed over; see: backstay verify"
        );
    }
}

/// The positions that only epochs without keys hold.
fn closed_by_keys(chain: &Chain, closed: &BTreeMap<EpochId, Arc<RepositoryError>>) -> Vec<ClosedPart> {
    let given = |wanted: &dyn Fn(&StoredRange) -> bool| -> Vec<LogRange> {
        let of_link = |link: &Link| {
            let ranges = link.ranges.iter().filter(|stored| wanted(stored));
            ranges
                .filter_map(|stored| link.clipped(stored.name.range))
                .collect::<Vec<_>>()
        };
        stretches(&chain.links.iter().flat_map(of_link).collect::<Vec<_>>())
    };
    let open = given(&|stored| !closed.contains_key(&stored.name.epoch));
    let mut parts = Vec::new();
    for (epoch, why) in closed {
        let of_epoch = given(&|stored| stored.name.epoch == *epoch);
        let lacking = of_epoch.into_iter().flat_map(|stretch| missing(stretch, &open));
        let object = match why.as_ref() {
            RepositoryError::NoKey { envelope, .. } => envelope.clone(),
            other => other.to_string(),
        };
        parts.extend(lacking.map(|range| ClosedPart {
            range,
            object: object.clone(),
            why: why.clone(),
        }));
    }
    parts.sort_by_key(|part| part.range);
    parts
}

impl Catalog {
    fn closed(&self) -> MutexGuard<'_, Closed> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
