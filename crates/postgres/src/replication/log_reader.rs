//! The port `LogReader` over a WAL stream.
//!
//! Promise: each way in which a stream can fail has its kind in the port.
//! Not here: the stream itself (stream).

use super::stream::{StreamError, StreamOptions, WalStream};
use async_trait::async_trait;
use backstay_source::{LogReader, LogStart, LogStep, Preceding, Resume, SourceError, SourceErrorKind};
use backstay_terms::Durable;

/// Attaches to a server's log.
///
/// # Errors
/// See `WalStream::attach`.
pub async fn follow(
    options: StreamOptions,
    resume: Resume,
    preceding: &Preceding,
) -> Result<Box<dyn LogReader>, SourceError> {
    let stream = WalStream::attach(options, resume, preceding).await?;
    Ok(Box::new(stream))
}

#[async_trait]
impl LogReader for WalStream {
    fn start(&self) -> &LogStart {
        WalStream::start(self)
    }

    async fn next(&mut self) -> Result<LogStep, SourceError> {
        Ok(WalStream::next(self).await?)
    }

    async fn keep_alive(&mut self) -> Result<(), SourceError> {
        Ok(WalStream::keep_alive(self).await?)
    }

    async fn confirm(&mut self, durable: &Durable) -> Result<(), SourceError> {
        Ok(WalStream::confirm(self, durable).await?)
    }

    async fn finish(self: Box<Self>) -> Result<(), SourceError> {
        Ok(WalStream::finish(*self).await?)
    }
}

impl From<StreamError> for SourceError {
    fn from(error: StreamError) -> SourceError {
        SourceError::new(kind(&error), error.to_string(), error.advice())
    }
}

fn kind(error: &StreamError) -> SourceErrorKind {
    match error {
        StreamError::Postgres(error) => error.kind(),
        StreamError::Wal(_) | StreamError::History(_) => SourceErrorKind::Damaged,
        StreamError::Refused(_) => SourceErrorKind::Protocol,
        StreamError::OtherSystem { .. } => SourceErrorKind::OtherSystem,
        StreamError::Gap { .. } | StreamError::SlotGivenUp { .. } => SourceErrorKind::LogGone,
        StreamError::Behind { .. } | StreamError::Diverged { .. } => SourceErrorKind::LogBehind,
        StreamError::SlotInUse { .. } => SourceErrorKind::Conflict,
        StreamError::Silent { .. } | StreamError::Held { .. } => SourceErrorKind::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{PostgresError, Severity, SqlState};
    use backstay_terms::{Lsn, SystemIdentifier, Timeline};
    use std::fmt::Write;
    use std::time::Duration;

    fn said(sqlstate: &[u8; 5], message: &str) -> StreamError {
        let error = PostgresError::Server {
            severity: Severity::Error,
            sqlstate: SqlState(*sqlstate),
            message: message.to_owned(),
            detail: None,
            hint: None,
        };
        StreamError::of_server(error, Lsn(0x100), Timeline(1))
    }

    #[test]
    fn what_a_server_says_to_a_stream_has_its_kind() {
        let said = [
            (
                "no such slot",
                said(b"42704", "replication slot \"b\" does not exist"),
            ),
            (
                "a slot in use",
                said(b"55006", "replication slot \"b\" is active for PID 7"),
            ),
            (
                "a slot given up",
                said(b"55000", "can no longer access replication slot \"b\""),
            ),
            (
                "all slots in use",
                said(b"53400", "all replication slots are in use"),
            ),
            (
                "all connections in use",
                said(b"53300", "sorry, too many clients already"),
            ),
            (
                "WAL that is gone",
                said(b"58P01", "requested WAL segment has already been removed"),
            ),
            (
                "a shutdown, or its walsender ended",
                said(b"57P01", "terminating connection"),
            ),
            (
                "a crash",
                said(b"57P02", "terminating connection because of crash"),
            ),
            (
                "a server that starts",
                said(b"57P03", "the database system is starting up"),
            ),
            (
                "another password",
                said(b"28P01", "password authentication failed"),
            ),
            ("no line in pg_hba.conf", said(b"28000", "no pg_hba.conf entry")),
            ("a right that was revoked", said(b"42501", "permission denied")),
            (
                "a timeline that it does not know",
                said(b"XX000", "requested timeline 9 is not in this server's history"),
            ),
            ("damaged pages", said(b"XX001", "invalid page")),
            (
                "a protocol that it does not speak",
                said(b"08P01", "invalid message"),
            ),
        ];
        let mut table = String::new();
        for (what, error) in said {
            let error = SourceError::from(error);
            writeln!(table, "{what}: {:?}, {:?}", error.kind, error.retry())
                .expect("a text takes everything");
        }
        let expected = "\
no such slot: Refused, Never
a slot in use: Conflict, Later
a slot given up: LogGone, Never
all slots in use: Conflict, Later
all connections in use: Conflict, Later
WAL that is gone: LogGone, Never
a shutdown, or its walsender ended: Unreachable, Later
a crash: Unreachable, Later
a server that starts: Unreachable, Later
another password: Unauthenticated, Never
no line in pg_hba.conf: Unauthenticated, Never
a right that was revoked: Unauthenticated, Never
a timeline that it does not know: Refused, Never
damaged pages: Damaged, Never
a protocol that it does not speak: Unreachable, Later
";
        assert_eq!(table, expected);
    }

    #[test]
    fn what_a_stream_finds_itself_has_its_kind_and_says_what_to_do() {
        let position = Lsn(0x3000);
        let found = [
            StreamError::OtherSystem {
                expected: SystemIdentifier(7),
                found: SystemIdentifier(8),
            },
            said(b"55000", "can no longer access replication slot \"b\""),
            StreamError::Behind {
                timeline: Timeline(2),
                position,
                server_timeline: Timeline(1),
                server_end: Lsn(0x2000),
            },
            StreamError::Diverged {
                timeline: Timeline(1),
                position,
                server_timeline: Timeline(2),
                switch: None,
            },
            StreamError::Refused(crate::replication::feed::Refused::AfterEnd),
            StreamError::Silent {
                host: "db1".to_owned(),
                waited: Duration::from_secs(60),
            },
            StreamError::Held {
                waited: Duration::from_secs(60),
            },
        ];
        let mut table = String::new();
        for error in found {
            let error = SourceError::from(error);
            writeln!(table, "{:?}: {error}\n  {}", error.kind, error.advice)
                .expect("a text takes everything");
        }
        let expected = "\
OtherSystem: the server is system 8, expected 7
  check the address; a new cluster needs a service of its own
LogGone: the server has given up the replication slot: can no longer access replication slot \"b\"
  drop the slot (backstay slot drop SERVICE --confirm SERVICE) and stream again, which makes a new one; then take a new base backup, and raise max_slot_wal_keep_size at the server
LogBehind: the server's log ends at 0/2000 on timeline 1, but WAL of timeline 2 is stored up to 0/3000
  the server has another history than the stored log: take a new base backup, the old log is kept
LogBehind: timeline 2 left timeline 1 at no place that its history names, but WAL is stored up to 0/3000
  the server has another history than the stored log: take a new base backup, the old log is kept
Protocol: stream: the server sent a message after the end of the stream
  report this: the stream contradicts itself
Unreachable: db1 said nothing for 60s
  check the network and the server
Unreachable: nothing became durable for 60s and there is no room for more WAL: the connection was given up so that the server can stop
  check the store; the server keeps the WAL for the slot meanwhile
";
        assert_eq!(table, expected);
    }
}
