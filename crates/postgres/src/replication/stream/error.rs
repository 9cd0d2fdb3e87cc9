//! What can end a stream.
//!
//! Promise: a gap, another history, a slot in use and a lost connection are different values, not different texts.
//! Not here: the errors of the connection itself (crate::error).

use crate::error::{PostgresError, SqlState};
use crate::replication::feed::Refused;
use crate::timeline::HistoryError;
use crate::wal::WalDamage;
use backstay_terms::{Lsn, SystemIdentifier, Timeline};
use std::borrow::Cow;
use std::time::Duration;

/// Why the log cannot be followed, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection or the server.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// What arrived is not WAL as a server writes it.
    #[error(transparent)]
    Wal(#[from] WalDamage),
    /// A timeline's history cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// What happened contradicts what happened before.
    #[error("stream: {0}")]
    Refused(#[from] Refused),
    /// Another cluster answers at the address.
    #[error("the server is system {found}, expected {expected}")]
    OtherSystem {
        /// Whose log is stored.
        expected: SystemIdentifier,
        /// Who answers.
        found: SystemIdentifier,
    },
    /// The server no longer has the WAL: a gap.
    #[error("the server has removed WAL from {from} on timeline {timeline}: {reason}")]
    Gap {
        /// The first position that was asked for.
        from: Lsn,
        /// Its timeline.
        timeline: Timeline,
        /// What the server said.
        reason: String,
    },
    /// The server gave the slot up, and the WAL that it kept: a gap, and no stream can use the slot again.
    #[error("the server has given up the replication slot: {message}")]
    SlotGivenUp {
        /// What the server said; it names the slot.
        message: String,
    },
    /// The server's log ends before what is stored.
    #[error(
        "the server's log ends at {server_end} on timeline {server_timeline}, but WAL of timeline {timeline} is stored up to {position}"
    )]
    Behind {
        /// The timeline that is stored.
        timeline: Timeline,
        /// Up to where.
        position: Lsn,
        /// The server's timeline.
        server_timeline: Timeline,
        /// The server's end of WAL.
        server_end: Lsn,
    },
    /// The server left the stored timeline before what is stored of it, or was never on it.
    #[error(
        "timeline {server_timeline} left timeline {timeline} at {}, but WAL is stored up to {position}",
        Place(switch)
    )]
    Diverged {
        /// The timeline that is stored.
        timeline: Timeline,
        /// Up to where.
        position: Lsn,
        /// The server's timeline.
        server_timeline: Timeline,
        /// Where the server's history left the stored timeline; none if it was never on it.
        switch: Option<Lsn>,
    },
    /// Another client streams from the slot.
    #[error("replication slot in use: {message}")]
    SlotInUse {
        /// What the server said; it names the process.
        message: String,
        /// The server process of the other client, if the server named it.
        process: Option<u32>,
    },
    /// The server answers nothing.
    #[error("{host} said nothing for {waited:?}")]
    Silent {
        /// Address as in the connection string.
        host: String,
        /// How long.
        waited: Duration,
    },
    /// There was no room for what the server sends.
    #[error(
        "nothing became durable for {waited:?} and there is no room for more WAL: the connection was given up so that the server can stop"
    )]
    Held {
        /// How long.
        waited: Duration,
    },
}

struct Place<'a>(&'a Option<Lsn>);

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(lsn) => lsn.fmt(f),
            None => f.write_str("no place that its history names"),
        }
    }
}

impl StreamError {
    /// What the person can do.
    pub fn advice(&self) -> Cow<'static, str> {
        match self {
            Self::Postgres(error) => error.advice(),
            Self::SlotInUse {
                process: Some(process),
                ..
            } => format!(
                "stop the other stream (SELECT * FROM pg_stat_replication WHERE pid = {process} says whose it is; \
                 SELECT pg_terminate_backend({process}) ends it), or give this service a slot of its own: slot: NAME"
            )
            .into(),
            other => other.fixed_advice().into(),
        }
    }

    /// The advice that is the same for every server.
    fn fixed_advice(&self) -> &'static str {
        match self {
            Self::Postgres(error) => error.fixed_advice(),
            Self::Wal(damage) => damage.advice(),
            Self::History(error) => error.advice(),
            Self::Refused(_) => "report this: the stream contradicts itself",
            Self::OtherSystem { .. } => "check the address; a new cluster needs a service of its own",
            Self::Gap { .. } => "take a new base backup; recovery cannot cross the gap",
            Self::SlotGivenUp { .. } => {
                "drop the slot (backstay slot drop SERVICE --confirm SERVICE) and stream again, which makes a new one; then \
                 take a new base backup, and raise max_slot_wal_keep_size at the server"
            }
            Self::Behind { .. } | Self::Diverged { .. } => {
                "the server has another history than the stored log: take a new base backup, the old log is kept"
            }
            Self::SlotInUse { .. } => {
                "stop the other stream, or give this service a slot of its own: slot: NAME"
            }
            Self::Silent { .. } => "check the network and the server",
            Self::Held { .. } => "check the store; the server keeps the WAL for the slot meanwhile",
        }
    }

    /// What a server's error means at the start or in the middle of a stream.
    pub(in crate::replication) fn of_server(
        error: PostgresError,
        from: Lsn,
        timeline: Timeline,
    ) -> StreamError {
        // What an invalidated slot answers (slot.c, ReplicationSlotAcquire and StartReplication).
        const NOT_IN_PREREQUISITE_STATE: SqlState = SqlState(*b"55000");
        match error {
            PostgresError::Server {
                sqlstate, message, ..
            } if sqlstate == SqlState::OBJECT_IN_USE => {
                let process = last_number(&message);
                StreamError::SlotInUse { message, process }
            }
            PostgresError::Server {
                sqlstate, message, ..
            } if sqlstate == NOT_IN_PREREQUISITE_STATE => StreamError::SlotGivenUp { message },
            PostgresError::Server {
                sqlstate, message, ..
            } if sqlstate == SqlState::UNDEFINED_FILE => StreamError::Gap {
                from,
                timeline,
                reason: message,
            },
            other => other.into(),
        }
    }
}

/// The number at the end of a message: in every language of the server the process stands there.
fn last_number(message: &str) -> Option<u32> {
    let end = message.trim_end_matches(|c: char| !c.is_ascii_digit());
    let digits = end.bytes().rev().take_while(u8::is_ascii_digit).count();
    end.get(end.len() - digits..)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::last_number;

    #[test]
    fn the_process_is_the_last_number_of_the_message_in_any_language() {
        let english = "replication slot \"backstay_2\" is active for PID 4711";
        let german = "Replikations-Slot »backstay_2« ist aktiv für PID 4711.";
        assert_eq!(
            (last_number(english), last_number(german)),
            (Some(4711), Some(4711))
        );
        assert_eq!(last_number("the slot is in use"), None);
        assert_eq!(last_number("99999999999"), None);
    }
}
