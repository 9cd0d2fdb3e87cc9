//! Copies: to us, and in both directions.
//!
//! Promise: `CopyBoth::recv` may be cancelled at any await, so one task can wait for data and for a timer, and send.
//! Not here: what the bytes mean.

use bytes::Bytes;
use postgres_protocol::message::frontend;

use super::{Answer, Connection, LateCopyData, State, unexpected};
use crate::error::PostgresError;
use crate::wire::Rows;
use std::time::Duration;

/// How long a server may take to clean up after a command that failed.
const CLEAN_UP_MAX: Duration = Duration::from_secs(5);

/// How a command that may stream began.
#[derive(Debug)]
pub enum CopyBothStart {
    /// Both sides send from now on.
    Streaming(CopyBoth),
    /// There was nothing to stream; the command's result sets.
    Ended(Connection, Vec<Rows>),
}

/// A stream in both directions.
#[derive(Debug)]
pub struct CopyBoth {
    connection: Connection,
    theirs: Side,
    ours: Side,
    /// What ended the command, until the server has cleaned up after it.
    failed: Option<PostgresError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Open,
    Done,
}

/// What the server sends in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyBothMessage {
    /// One message of the stream: a slice of the read buffer.
    Data(Bytes),
    /// The server has nothing more to send; `finish` gives its result sets.
    Done,
    /// The server ended the command without ending its side: a walsender whose server has shut down.
    Ended,
}

impl Connection {
    /// Starts a command that streams in both directions.
    ///
    /// # Errors
    /// `Server` when the command was refused.
    pub async fn start_copy_both(mut self, sql: &str) -> Result<CopyBothStart, PostgresError> {
        match self.begin_copy_both(sql).await {
            Ok(None) => Ok(CopyBothStart::Streaming(CopyBoth {
                connection: self,
                theirs: Side::Open,
                ours: Side::Open,
                failed: None,
            })),
            Ok(Some(sets)) => Ok(CopyBothStart::Ended(self, sets)),
            Err(error) => {
                self.clean_up().await;
                Err(error)
            }
        }
    }

    /// The command's result sets if there was nothing to stream.
    async fn begin_copy_both(&mut self, sql: &str) -> Result<Option<Vec<Rows>>, PostgresError> {
        self.send(sql).await?;
        let mut sets = Vec::new();
        let mut current = Rows::default();
        let mut room = super::RESULT_BYTES_MAX;
        loop {
            match self.next_message().await? {
                Answer::CopyBoth => return Ok(None),
                Answer::Columns(columns) => current.columns = columns,
                Answer::Row(values) => current.rows.push(super::texts(values, &mut room)?),
                Answer::Complete(tag) => {
                    current.tag = tag;
                    sets.push(std::mem::take(&mut current));
                }
                Answer::Notice(notice) => self.keep(notice),
                Answer::Ready => return Ok(Some(sets)),
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Waits until the server is done with a command that failed. It says what failed first and lets go of what the command
    /// held, a replication slot, after that (postgres.c, PostgresMain): who comes back at once finds the slot in use by himself.
    async fn clean_up(&mut self) {
        // One that goes away instead has let go of everything as well.
        let _ = tokio::time::timeout(CLEAN_UP_MAX, self.recover()).await;
    }

    /// Starts a `COPY … TO STDOUT`; `next_copy_data` gives its messages.
    ///
    /// # Errors
    /// `Server` when the command was refused.
    pub async fn copy_out(&mut self, sql: &str) -> Result<(), PostgresError> {
        self.send(sql).await?;
        loop {
            match self.next_message().await? {
                Answer::CopyOut => return Ok(()),
                Answer::Notice(notice) => self.keep(notice),
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// The next message of a `copy_out`; `None` when it and its command have ended.
    ///
    /// # Errors
    /// `Server` when the copy failed on the way.
    pub async fn next_copy_data(&mut self) -> Result<Option<Bytes>, PostgresError> {
        loop {
            match self.next_message().await? {
                Answer::CopyData(bytes) => return Ok(Some(bytes)),
                Answer::Ready => return Ok(None),
                Answer::CopyDone | Answer::Complete(_) => {}
                Answer::Notice(notice) => self.keep(notice),
                other => return Err(unexpected(&other)),
            }
        }
    }
}

impl CopyBoth {
    /// The address in use.
    pub fn host(&self) -> &str {
        self.connection.host()
    }

    /// The next message, however long it takes: the caller selects with its own timer. Cancel-safe.
    ///
    /// # Errors
    /// `Server` when the server ends the stream with an error and holds nothing more for it, `Lost` when it vanishes.
    pub async fn recv(&mut self) -> Result<CopyBothMessage, PostgresError> {
        if self.failed.is_none() {
            match self.next().await {
                Err(error @ PostgresError::Server { .. }) => self.failed = Some(error),
                answer => return answer,
            }
        }
        self.connection.clean_up().await;
        let lost = || PostgresError::protocol("the stream has ended");
        Err(self.failed.take().unwrap_or_else(lost))
    }

    async fn next(&mut self) -> Result<CopyBothMessage, PostgresError> {
        if self.theirs == Side::Done {
            return Ok(CopyBothMessage::Done);
        }
        loop {
            match self.connection.next_untimed().await? {
                Answer::CopyData(bytes) => return Ok(CopyBothMessage::Data(bytes)),
                Answer::CopyDone => {
                    self.theirs = Side::Done;
                    return Ok(CopyBothMessage::Done);
                }
                Answer::Complete(_) => return Ok(CopyBothMessage::Ended),
                Answer::Notice(notice) => self.connection.keep(notice),
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Sends one message. When cancelled, the rest of it goes first with the next one.
    ///
    /// # Errors
    /// `Lost` or `Timeout`.
    pub async fn send_data(&mut self, data: &[u8]) -> Result<(), PostgresError> {
        let message = frontend::CopyData::new(data);
        let message =
            message.map_err(|error| PostgresError::Protocol(format!("a message cannot be sent: {error}")))?;
        message.write(self.connection.frames.outgoing());
        self.connection.flush().await
    }

    /// Ends our side, drops what the server still sends, and reads the command's result sets.
    ///
    /// # Errors
    /// `Server` when the command failed, `Timeout` when the server falls silent.
    pub async fn finish(mut self) -> Result<(Connection, Vec<Rows>), PostgresError> {
        if self.connection.state != State::Running {
            // It failed, and the server has said all of it.
            return Ok((self.connection, Vec::new()));
        }
        if self.ours == Side::Open {
            frontend::copy_done(self.connection.frames.outgoing());
            self.ours = Side::Done;
            self.connection.flush().await?;
        }
        while self.theirs == Side::Open {
            match self.connection.next_message().await? {
                Answer::CopyData(_) => {}
                Answer::CopyDone => self.theirs = Side::Done,
                Answer::Notice(notice) => self.connection.keep(notice),
                other => return Err(unexpected(&other)),
            }
        }
        let sets = self.connection.result_sets_with(LateCopyData::Dropped).await?;
        Ok((self.connection, sets))
    }
}
