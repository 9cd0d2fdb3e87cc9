//! Attaching: who the server is, where to begin, and the command that begins.
//!
//! Promise: nothing is asked of the server's log before its system identifier is known to be the right one. The stream
//! begins at the start of a segment, so that its first page names the system and stored bytes arrive once more.
//! Not here: what arrives then (stream).

use super::error::StreamError;
use super::identity::{Lineage, history_of, lineage};
use super::{Slot, StreamOptions, is_keepalive};
use crate::connection::{Connection, CopyBoth, CopyBothMessage, CopyBothStart, Mode};
use crate::error::{PostgresError, SqlState};
use crate::replication::command::{self, ServerIdentity, SlotLife, SlotPosition, SlotReserve};
use crate::replication::feed::{Marks, SILENCE_MAX};
use crate::replication::version::{Dialect, SlotReading};
use crate::timeline::{Ancestry, History};
use crate::wal::{VersionFacts, WalIdentity};
use crate::wire::Rows;
use backstay_source::Resume;
use backstay_terms::{Lsn, ServerVersion, SystemIdentifier, Timeline, WalSegmentSize};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What stays the same for one connection.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) version: ServerVersion,
    pub(super) facts: &'static VersionFacts,
    pub(super) system: SystemIdentifier,
    pub(super) segment_size: WalSegmentSize,
    pub(super) wal_sender_timeout: Duration,
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) timeline: Timeline,
    pub(super) from: Lsn,
    /// What the first report says. The server moves the slot there at once, unless it is 0
    /// (walsender.c, ProcessStandbyReplyMessage).
    pub(super) durable: Lsn,
    /// What is durable and is reported only once WAL from there has arrived: a slot that stands later would be moved back
    /// to what the server may have removed, and where its WAL begins would be forgotten.
    pub(super) held_back: Option<Lsn>,
}

/// A stream that has begun, or one that had nothing to send.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) server: Server,
    pub(super) lineage: Lineage,
    pub(super) place: Place,
    pub(super) history: Option<History>,
    pub(super) marks: Marks,
    pub(super) line: Line,
    /// What was read of the stream already.
    pub(super) first: Option<CopyBothMessage>,
}

/// The connection in one of its two shapes.
#[derive(Debug)]
pub(super) enum Line {
    Streaming(CopyBoth),
    /// The timeline ends exactly where we would begin; what the server said about the next one.
    Nothing(Connection, Vec<Rows>),
}

impl Begun {
    /// What every page is compared with.
    pub(super) fn wal_identity(&self) -> WalIdentity {
        WalIdentity {
            version: self.server.facts,
            system: self.server.system,
            segment_size: self.server.segment_size,
            ancestry: match &self.history {
                Some(history) => Ancestry::of(history),
                None => Ancestry::without_history(self.place.timeline),
            },
        }
    }
}

/// Connects and begins. Where what is stored ends at a border of files, the file before it is read once more if the server
/// still has it: else nothing of what is stored could be compared with the server's.
pub(super) async fn attach(options: &StreamOptions, resume: Resume) -> Result<Begun, StreamError> {
    let begun = attach_from(options, resume, Border::FileBefore).await?;
    let Resume::After { position, .. } = resume else {
        return Ok(begun);
    };
    if begun.place.from.plus(begun.server.segment_size.bytes()) != Lsn::from(position) {
        return Ok(begun);
    }
    match with_first_wal(options, begun).await {
        Err(StreamError::Gap { .. }) => attach_from(options, resume, Border::Exactly).await,
        answer => answer,
    }
}

/// Where a stream begins whose stored log ends at a border of files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Border {
    FileBefore,
    Exactly,
}

/// Waits for the first WAL: a server says only when it reads a file that it has removed it.
async fn with_first_wal(options: &StreamOptions, mut begun: Begun) -> Result<Begun, StreamError> {
    let Line::Streaming(stream) = &mut begun.line else {
        return Ok(begun);
    };
    loop {
        let received = tokio::select! {
            received = stream.recv() => received,
            () = options.clock.sleep(SILENCE_MAX) => {
                let host = stream.host().to_owned();
                return Err(StreamError::Silent { host, waited: SILENCE_MAX });
            }
        };
        let place = begun.place;
        let message = received.map_err(|error| StreamError::of_server(error, place.from, place.timeline))?;
        if !is_keepalive(&message) {
            begun.first = Some(message);
            return Ok(begun);
        }
    }
}

async fn attach_from(options: &StreamOptions, resume: Resume, border: Border) -> Result<Begun, StreamError> {
    let mut connection = Connection::connect(&options.conninfo, Mode::Replication).await?;
    let lineage = lineage(&mut connection).await?;
    let (identity, newest) = (lineage.place, lineage.history.clone());
    if let Resume::After { system, .. } | Resume::At { system, .. } = resume
        && system != identity.system.0
    {
        return Err(StreamError::OtherSystem {
            expected: SystemIdentifier(system),
            found: identity.system,
        });
    }
    let server = describe(&mut connection, &identity).await?;
    let slot = prepare_slot(&mut connection, options).await?;
    let place = match resume {
        Resume::Fresh => fresh_place(&server, &identity, newest.as_ref(), slot),
        Resume::After {
            timeline, position, ..
        } => {
            let stored = Stored {
                timeline: Timeline(timeline),
                position: position.into(),
            };
            let place = resumed_place(&server, &identity, newest.as_ref(), stored, border)?;
            slot.map_or(place, |slot| place.not_before(slot))
        }
        Resume::At {
            timeline, position, ..
        } => {
            let wanted = Stored {
                timeline: Timeline(timeline),
                position: position.into(),
            };
            Place {
                durable: Lsn::INVALID,
                ..resumed_place(&server, &identity, newest.as_ref(), wanted, Border::Exactly)?
            }
        }
    };
    let history = if place.timeline == identity.timeline {
        newest
    } else {
        history_of(&mut connection, place.timeline).await?
    };
    begin(connection, options, server, lineage, place, history).await
}

/// Begins at `place` on a connection that is ready.
pub(super) async fn begin(
    mut connection: Connection,
    options: &StreamOptions,
    server: Server,
    lineage: Lineage,
    place: Place,
    history: Option<History>,
) -> Result<Begun, StreamError> {
    let marks = marks(&mut connection, &lineage.place, place.timeline).await?;
    let slot = options.slot.as_ref().map(Slot::name);
    let start = command::start_replication(slot, place.from, place.timeline);
    let started = connection.start_copy_both(&start).await;
    let line = match started.map_err(|error| StreamError::of_server(error, place.from, place.timeline))? {
        CopyBothStart::Streaming(stream) => Line::Streaming(stream),
        CopyBothStart::Ended(connection, sets) => Line::Nothing(connection, sets),
    };
    Ok(Begun {
        server,
        lineage,
        place,
        history,
        marks,
        line,
        first: None,
    })
}

impl Place {
    /// A report must not move a slot to before where it stands.
    fn not_before(self, slot: SlotPosition) -> Place {
        match slot.restart {
            Some(restart) if restart <= self.durable => self,
            _ => Place {
                durable: Lsn::INVALID,
                held_back: Some(self.durable),
                ..self
            },
        }
    }
}

async fn describe(connection: &mut Connection, identity: &ServerIdentity) -> Result<Server, StreamError> {
    let version = command::server_version(connection)?;
    let facts = VersionFacts::of_major(version.major()).ok_or(PostgresError::Version(version.0))?;
    let segment_size = command::wal_segment_size(connection).await?;
    let timeout = command::show(connection, "wal_sender_timeout").await?;
    let refuse = || PostgresError::Protocol(format!("wal_sender_timeout is {timeout:?}"));
    let wal_sender_timeout = duration(&timeout).ok_or_else(refuse)?;
    Ok(Server {
        version,
        facts,
        system: identity.system,
        segment_size,
        wal_sender_timeout,
    })
}

// Marks say that nothing was written until now: only the primary knows, and only of its current timeline.
async fn marks(
    connection: &mut Connection,
    identity: &ServerIdentity,
    timeline: Timeline,
) -> Result<Marks, StreamError> {
    // 14 and later report in_hot_standby; before, a server in recovery is recognised by its read-only transactions.
    let standby = match connection.parameter("in_hot_standby") {
        Some(word) => word.to_owned(),
        None => command::show(connection, "transaction_read_only").await?,
    };
    let counts = standby == "off" && timeline == identity.timeline;
    Ok(if counts { Marks::Count } else { Marks::None })
}

async fn prepare_slot(
    connection: &mut Connection,
    options: &StreamOptions,
) -> Result<Option<SlotPosition>, StreamError> {
    const DUPLICATE_OBJECT: SqlState = SqlState(*b"42710");
    let Some(slot) = &options.slot else {
        return Ok(None);
    };
    if let Slot::CreateIfMissing(name) = slot {
        match command::create_slot(connection, name, SlotLife::Permanent, SlotReserve::Now).await {
            Err(error) if error.sqlstate() == Some(DUPLICATE_OBJECT) => {}
            other => {
                other?;
                options.made_slot.store(true, Ordering::Relaxed);
            }
        }
    }
    let position = match Dialect::of(command::server_version(connection)?)?.reads_slots() {
        SlotReading::Command => command::read_slot(connection, slot.name()).await?,
        SlotReading::View => {
            let mut ordinary = Connection::connect(&options.conninfo, Mode::Sql).await?;
            let position = command::read_slot_in_view(&mut ordinary, slot.name()).await?;
            ordinary.close().await;
            position
        }
    };
    Ok(position)
}

// As early as the slot keeps WAL, but on the current timeline: before its first segment there is nothing under its name.
fn fresh_place(
    server: &Server,
    identity: &ServerIdentity,
    history: Option<&History>,
    slot: Option<SlotPosition>,
) -> Place {
    let kept = slot
        .and_then(|slot| slot.restart)
        .unwrap_or(identity.flushed)
        .min(identity.flushed);
    let born = history
        .and_then(|history| history.ancestors().last())
        .map_or(Lsn::INVALID, |last| last.until);
    let from = server.segment_size.start_of_segment_holding(kept.max(born));
    Place {
        timeline: identity.timeline,
        from,
        durable: Lsn::INVALID,
        held_back: None,
    }
}

#[derive(Clone, Copy)]
struct Stored {
    timeline: Timeline,
    position: Lsn,
}

fn resumed_place(
    server: &Server,
    identity: &ServerIdentity,
    newest: Option<&History>,
    stored: Stored,
    border: Border,
) -> Result<Place, StreamError> {
    let Stored { timeline, position } = stored;
    let behind = StreamError::Behind {
        timeline,
        position,
        server_timeline: identity.timeline,
        server_end: identity.flushed,
    };
    if identity.timeline < timeline || (identity.timeline == timeline && identity.flushed < position) {
        return Err(behind);
    }
    if identity.timeline > timeline {
        let switch = newest.and_then(|history| Ancestry::of(history).leaves(timeline));
        if switch.is_none_or(|switch| switch < position) {
            let server_timeline = identity.timeline;
            return Err(StreamError::Diverged {
                timeline,
                position,
                server_timeline,
                switch,
            });
        }
    }
    // The last stored byte lies before a border where the log ends at one.
    let last = match border {
        Border::FileBefore => Lsn(position.0.saturating_sub(1)),
        Border::Exactly => position,
    };
    Ok(Place {
        timeline,
        from: server.segment_size.start_of_segment_holding(last),
        durable: position,
        held_back: None,
    })
}

/// "1min" as `SHOW` prints times.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::timeline::Ancestor;

    const MIB: u64 = 1 << 20;

    fn server() -> Server {
        Server {
            version: ServerVersion(150_018),
            facts: VersionFacts::of_major(15).unwrap(),
            system: SystemIdentifier(7),
            segment_size: WalSegmentSize::new(MIB).unwrap(),
            wal_sender_timeout: Duration::ZERO,
        }
    }

    fn identity(timeline: u32, flushed: u64) -> ServerIdentity {
        ServerIdentity {
            system: SystemIdentifier(7),
            timeline: Timeline(timeline),
            flushed: Lsn(flushed),
        }
    }

    fn history(switch: u64) -> History {
        let ancestor = Ancestor {
            timeline: Timeline(1),
            until: Lsn(switch),
            reason: String::new(),
        };
        History::compose(Timeline(2), &[ancestor]).unwrap()
    }

    fn resumed(timeline: u32, position: u64, identity: &ServerIdentity, history: Option<&History>) -> String {
        let stored = Stored {
            timeline: Timeline(timeline),
            position: Lsn(position),
        };
        match resumed_place(&server(), identity, history, stored, Border::FileBefore) {
            Ok(place) => format!(
                "{} from {}, durable {}",
                place.timeline, place.from, place.durable
            ),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_stream_resumes_at_the_start_of_the_segment_that_holds_the_frontier() {
        assert_eq!(
            resumed(1, 3 * MIB + 5, &identity(1, 9 * MIB), None),
            "1 from 0/300000, durable 0/300005"
        );
        let history = history(4 * MIB);
        assert_eq!(
            resumed(1, 3 * MIB + 5, &identity(2, 9 * MIB), Some(&history)),
            "1 from 0/300000, durable 0/300005"
        );
        assert_eq!(
            resumed(1, 4 * MIB, &identity(2, 9 * MIB), Some(&history)),
            "1 from 0/300000, durable 0/400000",
            "the file before a border, to have something to compare"
        );
    }

    #[test]
    fn a_first_report_never_moves_a_slot_to_before_where_it_stands() {
        let place = Place {
            timeline: Timeline(1),
            from: Lsn(3 * MIB),
            durable: Lsn(3 * MIB + 5),
            held_back: None,
        };
        let reported = |restart: Option<u64>| {
            let slot = SlotPosition {
                restart: restart.map(Lsn),
                timeline: None,
            };
            let Place {
                durable, held_back, ..
            } = place.not_before(slot);
            (durable.0, held_back.map(|held| held.0))
        };
        let durable = place.durable.0;
        assert_eq!(reported(Some(2 * MIB)), (durable, None));
        assert_eq!(reported(Some(durable)), (durable, None));
        assert_eq!(reported(Some(durable + 1)), (0, Some(durable)));
        assert_eq!(reported(None), (0, Some(durable)));
    }

    #[test]
    fn another_history_is_refused_and_named() {
        let behind = |timeline| {
            format!(
                "the server's log ends at 0/200000 on timeline {timeline}, but WAL of timeline 2 is stored up to 0/300000"
            )
        };
        assert_eq!(
            resumed(2, 3 * MIB, &identity(2, 2 * MIB), Some(&history(MIB))),
            behind(2)
        );
        assert_eq!(resumed(2, 3 * MIB, &identity(1, 2 * MIB), None), behind(1));
        assert_eq!(
            resumed(1, 5 * MIB, &identity(2, 9 * MIB), Some(&history(4 * MIB))),
            "timeline 2 left timeline 1 at 0/400000, but WAL is stored up to 0/500000"
        );
        assert_eq!(
            resumed(1, 5 * MIB, &identity(2, 9 * MIB), None),
            "timeline 2 left timeline 1 at no place that its history names, but WAL is stored up to 0/500000"
        );
    }

    #[test]
    fn a_first_stream_begins_where_the_slot_keeps_wal_on_the_current_timeline() {
        let place = |slot: Option<u64>, history: Option<&History>| {
            let slot = slot.map(|restart| SlotPosition {
                restart: Some(Lsn(restart)),
                timeline: None,
            });
            fresh_place(&server(), &identity(2, 9 * MIB + 7), history, slot).from
        };
        assert_eq!(place(Some(3 * MIB + 9), None), Lsn(3 * MIB));
        assert_eq!(place(None, None), Lsn(9 * MIB));
        assert_eq!(
            place(Some(3 * MIB + 9), Some(&history(5 * MIB + 1))),
            Lsn(5 * MIB)
        );
    }

    #[test]
    fn times_are_read_as_the_server_prints_them() {
        let read: Vec<_> = ["1min", "3s", "1500ms", "0", "2h", "1d", "x", "1y"]
            .map(duration)
            .into();
        let milliseconds =
            [60_000, 3000, 1500, 0, 7_200_000, 86_400_000].map(|n| Some(Duration::from_millis(n)));
        assert_eq!(read, [&milliseconds[..], &[None, None]].concat());
    }
}
