//! Which of several stored lineages of a timeline is the server's: two servers of one identity have one each.
//!
//! Promise: bytes tell. What the server still has of the end of a lineage is read and compared before anything is recorded
//! and before the server hears of a durable position: told of the end of another server's log it would forget its own.
//! Not here: lineage rules (backstay-repository), comparing while the stream reads on (stream::attachment).

use super::Origin;
use super::attach::{Attaching, Lineages, Overlap, find};
use crate::EngineError;
use backstay_repository::{Known, LogStore, Parent, history_digest, stretches};
use backstay_source::{
    Identity, LogReader, LogSource, LogStep, Preceding, Resume, SourceError, SourceErrorKind,
};
use backstay_terms::{Branch, LogRange, Position};
use tracing::info;

/// How much before the end of a lineage is compared where the server still has it.
const COMPARED: u64 = 1 << 20;

/// Decides where a stream attaches. `own` is the lineage that it followed before, if it was attached before.
pub(crate) async fn place(
    log: &LogStore,
    source: &dyn LogSource,
    identity: &Identity,
    (origin, own): (Origin, Option<Branch>),
    chance: u64,
) -> Result<Attaching, EngineError> {
    if origin == Origin::Frontier {
        return match Own::find(log, source, identity, own).await? {
            Own::Stored(own) => find(log, identity, chance, own).await,
            Own::None(parent) => Ok(Attaching::another(identity, chance, parent)),
        };
    }
    let attaching = find(log, identity, chance, own).await?;
    let on_timeline = Lineages::on_timeline_of(log, &attaching.branch).await?;
    Ok(attaching.after_gap(identity, chance, on_timeline))
}

/// What the server's bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    /// Go on with what is stored, with this lineage if it is one of several.
    Stored(Option<Branch>),
    /// None of the stored lineages is the server's; where it left one of them, if that is known.
    None(Option<Parent>),
}

/// What comparing with one lineage told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Same,
    Other(Option<Parent>),
    /// It reaches past the end of the server's log, or nothing is stored of it.
    Elsewhere,
    /// Nothing could be compared.
    Nothing,
}

impl Own {
    /// Compares the server with the lineages of its timeline, `own` at first, the one that a stream attached to last next.
    async fn find(
        log: &LogStore,
        source: &dyn LogSource,
        identity: &Identity,
        own: Option<Branch>,
    ) -> Result<Own, EngineError> {
        let mut candidates: Vec<Known> = log.known().await?;
        candidates.retain(|known| is_of(known, identity));
        candidates.sort_by_key(|known| Some(known.record.branch) == own);
        candidates.reverse();
        if candidates.len() < 2 {
            return Ok(Own::Stored(own));
        }
        let (mut first, mut left) = (None, None);
        for known in &candidates {
            let told = compare(log, source, identity, known).await?;
            match told {
                Told::Same => return Ok(Own::Stored(Some(known.record.branch))),
                Told::Nothing if first.is_none() => return Ok(Own::Stored(own)),
                Told::Other(parent) => left = later(left, parent),
                Told::Elsewhere | Told::Nothing => {}
            }
            first.get_or_insert(told);
        }
        Ok(match first {
            Some(Told::Other(_)) => Own::None(left),
            _ => Own::Stored(own),
        })
    }
}

fn later(one: Option<Parent>, two: Option<Parent>) -> Option<Parent> {
    [one, two].into_iter().flatten().max_by_key(|parent| parent.fork)
}

fn is_of(known: &Known, identity: &Identity) -> bool {
    let Branch { system, timeline, .. } = known.record.branch;
    let history = identity.history.as_deref().map(history_digest);
    (system, timeline) == (identity.place.system, identity.place.timeline) && known.record.history == history
}

async fn compare(
    log: &LogStore,
    source: &dyn LogSource,
    identity: &Identity,
    known: &Known,
) -> Result<Told, EngineError> {
    let branch = known.record.branch;
    let Some(frontier) = known.frontier else {
        return Ok(Told::Elsewhere);
    };
    if known.reach.is_some_and(|reach| identity.place.position < reach) {
        return Ok(Told::Elsewhere);
    }
    let start = |position: u64| position - position.checked_rem(identity.segment_size).unwrap_or_default();
    let last = start(frontier.0.saturating_sub(1));
    // The file that holds the end may hold little of it; the one before is often there as well.
    let early = start(frontier.0.saturating_sub(COMPARED));
    let stored = log.ranges(&branch, None).await?;
    let stretches = stretches(stored.iter().map(|stored| &stored.name.range));
    let stretch = stretches
        .iter()
        .find(|stretch| stretch.from < frontier && frontier <= stretch.to);
    let Some(begins) = stretch.map(|stretch| stretch.from) else {
        return Ok(Told::Nothing);
    };
    for from in [early, last] {
        let range = LogRange {
            from: begins.max(Position(from)),
            to: frontier,
        };
        let Some(overlap) = Overlap::of(log, &branch, range).await? else {
            return Ok(Told::Nothing);
        };
        match read_against(source, &branch, &overlap).await? {
            Told::Nothing => {}
            told => return Ok(told),
        }
    }
    Ok(Told::Nothing)
}

/// Reads the server's bytes where `overlap` is. It is asked from there on alone and is told of nothing.
async fn read_against(
    source: &dyn LogSource,
    branch: &Branch,
    overlap: &Overlap,
) -> Result<Told, EngineError> {
    let resume = Resume::At {
        system: branch.system,
        timeline: branch.timeline,
        position: overlap.range().from,
    };
    let told = match source.follow(resume, &Preceding::none()).await {
        Ok(mut reader) => {
            let told = read(reader.as_mut(), branch, overlap).await;
            let left = reader.finish().await;
            told.and_then(|told| left.map(|()| told))
        }
        Err(error) => Err(error),
    };
    match told {
        Err(error) if error.kind == SourceErrorKind::LogGone => {
            info!(%branch, "the source has nothing any more to compare with this lineage");
            Ok(Told::Nothing)
        }
        told => Ok(told?),
    }
}

async fn read(reader: &mut dyn LogReader, branch: &Branch, overlap: &Overlap) -> Result<Told, SourceError> {
    loop {
        match reader.next().await? {
            LogStep::Piece(piece) if overlap.contradicts(piece.begins, &piece.bytes) => {
                let parent = Parent {
                    branch: *branch,
                    fork: piece.begins,
                };
                return Ok(Told::Other(overlap.proves_up_to(piece.begins).then_some(parent)));
            }
            LogStep::Piece(piece) if piece.ends() >= overlap.range().to => return Ok(Told::Same),
            LogStep::Piece(_) | LogStep::Mark(_) | LogStep::FlushWanted => {}
            LogStep::OtherHistory | LogStep::TimelineEnd { .. } | LogStep::Ended => {
                return Ok(Told::Nothing);
            }
        }
    }
}
