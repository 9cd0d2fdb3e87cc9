//! One connection to a server: commands, result sets, copies.
//!
//! Promise: every wait for the server ends after the answer timeout, except in `CopyBoth::recv`, where the caller
//! selects. Dropping a connection closes its socket. A command after a failed one finds the connection ready again.
//! Not here: what commands mean (replication, base_backup), reconnecting (engine).

mod copy;
mod open;
mod refusal;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use postgres_protocol::message::frontend;

pub use copy::{CopyBoth, CopyBothMessage, CopyBothStart};

use crate::conninfo::Conninfo;
use crate::error::PostgresError;
use crate::wire::{Frames, Incoming, Notice, Rows};

const ANSWER_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
const NOTICES_MAX: usize = 1000;
const RESULT_BYTES_MAX: usize = 256 << 20;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A physical walsender: replication commands and `SHOW`.
    Replication,
    /// Ordinary SQL in the connection string's database.
    Sql,
}

/// What arrives while a command runs.
#[derive(Debug)]
pub enum Answer {
    /// A result set begins: names of its columns.
    Columns(Vec<String>),
    /// A row in text form; `None` is NULL.
    Row(Vec<Option<Bytes>>),
    /// A command of the query string ended: its tag.
    Complete(String),
    /// The server sends copy data from now on.
    CopyOut,
    /// The server awaits copy data.
    CopyIn,
    /// Both sides send copy data.
    CopyBoth,
    /// Copy data: a slice of the read buffer.
    CopyData(Bytes),
    /// No more copy data.
    CopyDone,
    /// A warning or less.
    Notice(Notice),
    /// The query string ended.
    Ready,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Running,
    /// The server reported an error: what it still sends belongs to the failed command.
    Failed,
}

/// One connection to a server.
pub struct Connection {
    frames: Frames,
    host: String,
    parameters: BTreeMap<String, String>,
    notices: Vec<Notice>,
    process_id: i32,
    answer_timeout: Duration,
    state: State,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("host", &self.host)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// What becomes of copy data that comes before the result sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LateCopyData {
    /// It is a violation of the protocol.
    Refused,
    /// It is dropped: a walsender that has said CopyDone still answers a status message that asked for a reply
    /// (walsender.c, ProcessRepliesIfAny) until it has read our CopyDone.
    Dropped,
}

impl Connection {
    /// Connects to the first host of the connection string that answers, and logs in.
    ///
    /// # Errors
    /// The last host's error. A refused login ends the search, as in libpq.
    pub async fn connect(conninfo: &Conninfo, mode: Mode) -> Result<Self, PostgresError> {
        open::connect(conninfo, mode).await
    }

    /// The address in use, as a person would write it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The server process of this session: unique among the server's sessions while this one lives.
    pub fn process_id(&self) -> i32 {
        self.process_id
    }

    /// A parameter that the server reported, for instance `server_version`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The server's version as in `server_version_num`: 150018 for 15.18, 180000 for 18beta1.
    ///
    /// # Errors
    /// `Protocol` when the server reported none that can be read.
    pub fn version(&self) -> Result<u32, PostgresError> {
        let text = self.parameter("server_version").unwrap_or_default();
        version_number(text).ok_or_else(|| PostgresError::Protocol(format!("server_version is {text:?}")))
    }

    /// How long the server may be silent before a wait ends with `Timeout`; 60 s at first.
    pub fn set_answer_timeout(&mut self, wait: Duration) {
        self.answer_timeout = wait;
    }

    /// Warnings and notices since the last call; the first 1000 are kept.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Runs a query string by the simple protocol and gives its result sets.
    ///
    /// # Errors
    /// `Server` leaves the connection usable; every other error does not.
    pub async fn simple_query(&mut self, sql: &str) -> Result<Vec<Rows>, PostgresError> {
        self.send(sql).await?;
        self.result_sets().await
    }

    /// Sends a query string; `next_message` gives the answers, `Ready` being the last.
    ///
    /// # Errors
    /// `Lost`, `Timeout`, or `Protocol` when another command still runs.
    pub async fn send(&mut self, sql: &str) -> Result<(), PostgresError> {
        self.recover().await?;
        let built = frontend::query(sql, self.frames.outgoing());
        built.map_err(|error| PostgresError::Protocol(format!("a command cannot be sent: {error}")))?;
        self.state = State::Running;
        self.flush().await
    }

    /// The next answer of the running command. Cancel-safe. Notices are handed on and not collected.
    ///
    /// # Errors
    /// `Server` when the command failed; the connection can be used again after it.
    pub async fn next_message(&mut self) -> Result<Answer, PostgresError> {
        let (wait, host) = (self.answer_timeout, self.host.clone());
        match tokio::time::timeout(wait, self.next_untimed()).await {
            Ok(answer) => answer,
            Err(_) => Err(PostgresError::Timeout {
                host,
                waited: wait,
                doing: "waiting for an answer",
            }),
        }
    }

    /// Ends the session in order. Dropping does as well, without telling the server why.
    pub async fn close(mut self) {
        frontend::terminate(self.frames.outgoing());
        // The server is told as a courtesy: whether it hears it makes no difference to us.
        let _ = self.flush().await;
    }

    /// As `next_message`, however long it takes: the caller selects with its own timer.
    pub(crate) async fn next_untimed(&mut self) -> Result<Answer, PostgresError> {
        loop {
            let host = &self.host;
            let frame = self
                .frames
                .next()
                .await
                .map_err(|source| PostgresError::lost(host, source))?;
            return Ok(match Incoming::read(frame)? {
                Incoming::Columns(columns) => Answer::Columns(columns),
                Incoming::Row(row) => Answer::Row(row),
                Incoming::Complete(tag) => Answer::Complete(tag),
                Incoming::Empty => Answer::Complete(String::new()),
                Incoming::CopyIn => Answer::CopyIn,
                Incoming::CopyOut => Answer::CopyOut,
                Incoming::CopyBoth => Answer::CopyBoth,
                Incoming::CopyData(bytes) => Answer::CopyData(bytes),
                Incoming::CopyDone => Answer::CopyDone,
                Incoming::Notice(notice) => Answer::Notice(notice),
                Incoming::Ready => {
                    self.state = State::Ready;
                    Answer::Ready
                }
                Incoming::Error(error) => {
                    self.state = State::Failed;
                    return Err(error.into());
                }
                Incoming::Parameter { name, value } => {
                    self.parameters.insert(name, value);
                    continue;
                }
                Incoming::ProcessId(id) => {
                    self.process_id = id;
                    continue;
                }
                Incoming::Aside => continue,
            });
        }
    }

    /// Reads result sets up to `Ready`.
    pub(crate) async fn result_sets(&mut self) -> Result<Vec<Rows>, PostgresError> {
        self.result_sets_with(LateCopyData::Refused).await
    }

    pub(crate) async fn result_sets_with(&mut self, late: LateCopyData) -> Result<Vec<Rows>, PostgresError> {
        let mut sets = Vec::new();
        let mut current = Rows::default();
        let mut room = RESULT_BYTES_MAX;
        loop {
            match self.next_message().await? {
                Answer::Columns(columns) => current.columns = columns,
                Answer::Row(values) => current.rows.push(texts(values, &mut room)?),
                Answer::Complete(tag) => {
                    current.tag = tag;
                    sets.push(std::mem::take(&mut current));
                }
                Answer::Notice(notice) => self.keep(notice),
                Answer::Ready => return Ok(sets),
                Answer::CopyData(_) if late == LateCopyData::Dropped => {}
                other => return Err(unexpected(&other)),
            }
        }
    }

    pub(crate) fn keep(&mut self, notice: Notice) {
        if self.notices.len() < NOTICES_MAX {
            self.notices.push(notice);
        }
    }

    async fn recover(&mut self) -> Result<(), PostgresError> {
        while self.state == State::Failed {
            match self.next_message().await {
                Ok(_) | Err(PostgresError::Server { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        match self.state {
            State::Ready => Ok(()),
            _ => Err(PostgresError::protocol(
                "another command still runs on this connection",
            )),
        }
    }

    async fn flush(&mut self) -> Result<(), PostgresError> {
        let (wait, host) = (self.answer_timeout, &self.host);
        match tokio::time::timeout(wait, self.frames.flush()).await {
            Ok(done) => done.map_err(|source| PostgresError::lost(host, source)),
            Err(_) => Err(PostgresError::Timeout {
                host: host.clone(),
                waited: wait,
                doing: "sending",
            }),
        }
    }
}

pub(crate) fn unexpected(answer: &Answer) -> PostgresError {
    let what = match answer {
        Answer::Columns(_) => "a row description",
        Answer::Row(_) => "a row",
        Answer::Complete(_) => "the end of a command",
        Answer::CopyOut => "the start of a copy to us",
        Answer::CopyIn => "a request for copy data",
        Answer::CopyBoth => "the start of a stream",
        Answer::CopyData(_) => "copy data",
        Answer::CopyDone => "the end of copy data",
        Answer::Notice(_) => "a notice",
        Answer::Ready => "the end of the query",
    };
    PostgresError::Protocol(format!("the server sent {what} where it does not belong"))
}

pub(crate) fn texts(
    values: Vec<Option<Bytes>>,
    room: &mut usize,
) -> Result<Vec<Option<String>>, PostgresError> {
    let text = |bytes: Bytes| {
        *room = room
            .checked_sub(bytes.len())
            .ok_or_else(|| PostgresError::protocol("a result is too large"))?;
        String::from_utf8(bytes.into()).map_err(|_| PostgresError::protocol("a value is not UTF-8"))
    };
    let mut text = text;
    values
        .into_iter()
        .map(|value| value.map(&mut text).transpose())
        .collect()
}

/// 150018 for "15.18 (Debian …)", 180000 for "18beta1".
fn version_number(text: &str) -> Option<u32> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    let major: u32 = numbers.next()?.parse().ok()?;
    let released = text
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .starts_with('.');
    let minor = numbers
        .next()
        .filter(|_| released)
        .and_then(|n| n.parse::<u32>().ok())
        .unwrap_or(0);
    (10..1000)
        .contains(&major)
        .then_some(major * 10_000 + minor.min(9_999))
}
