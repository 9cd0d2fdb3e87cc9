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
        StreamError::Gap { .. } => SourceErrorKind::LogGone,
        StreamError::Behind { .. } | StreamError::Diverged { .. } => SourceErrorKind::LogBehind,
        StreamError::SlotInUse { .. } => SourceErrorKind::Conflict,
        StreamError::Silent { .. } | StreamError::Held { .. } => SourceErrorKind::Unreachable,
    }
}
