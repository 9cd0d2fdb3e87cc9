//! What the server says, as values.
//!
//! Promise: everything the protocol allows outside login is understood, everything else is refused by name.
//! Not here: the order of messages (connection).

use bytes::{Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{self, DataRowBody, ErrorFields, Message, RowDescriptionBody};

use crate::error::{PostgresError, Severity, SqlState};

/// CopyBothResponse, which the codec does not know.
const COPY_BOTH_RESPONSE_TAG: u8 = b'W';

/// A warning or notice of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// WARNING or less.
    pub severity: Severity,
    /// The five characters of PostgreSQL's appendix A.
    pub sqlstate: SqlState,
    /// Primary message.
    pub message: String,
    /// Second line, if any.
    pub detail: Option<String>,
    /// What the server suggests, if anything.
    pub hint: Option<String>,
}

impl From<Notice> for PostgresError {
    fn from(notice: Notice) -> Self {
        let Notice {
            severity,
            sqlstate,
            message,
            detail,
            hint,
        } = notice;
        Self::Server {
            severity,
            sqlstate,
            message,
            detail,
            hint,
        }
    }
}

/// One result set in text form.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Values in text form; `None` is NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// The command tag, for instance `SELECT 1`.
    pub tag: String,
}

impl Rows {
    /// The value in a row, by the column's name. `None` for NULL, for a column or row that is not there.
    pub fn value(&self, row: usize, column: &str) -> Option<&str> {
        let at = self.columns.iter().position(|name| name == column)?;
        self.rows.get(row)?.get(at)?.as_deref()
    }
}

/// A message outside login.
pub(crate) enum Incoming {
    Columns(Vec<String>),
    Row(Vec<Option<Bytes>>),
    Complete(String),
    Empty,
    CopyIn,
    CopyOut,
    CopyBoth,
    CopyData(Bytes),
    CopyDone,
    Ready,
    Parameter {
        name: String,
        value: String,
    },
    Notice(Notice),
    Error(Notice),
    /// The server process of this session.
    ProcessId(i32),
    /// Of no interest to us: notifications.
    Aside,
}

impl Incoming {
    /// Reads one whole frame.
    pub(crate) fn read(mut frame: BytesMut) -> Result<Self, PostgresError> {
        match frame.first() {
            Some(&backend::COPY_DATA_TAG) if frame.len() >= 5 => {
                Ok(Self::CopyData(frame.freeze().slice(5..)))
            }
            Some(&COPY_BOTH_RESPONSE_TAG) => Ok(Self::CopyBoth),
            tag => {
                let tag = tag.copied().map(char::from);
                let message = Message::parse(&mut frame).map_err(malformed)?;
                let message = message.ok_or_else(|| PostgresError::protocol("a message is cut short"))?;
                Self::from_message(message).and_then(|known| {
                    known.ok_or_else(|| {
                        PostgresError::Protocol(format!("message {tag:?} does not belong here"))
                    })
                })
            }
        }
    }

    fn from_message(message: Message) -> Result<Option<Self>, PostgresError> {
        Ok(Some(match message {
            Message::RowDescription(body) => Self::Columns(columns(&body)?),
            Message::DataRow(body) => Self::Row(values(&body)?),
            Message::CommandComplete(body) => Self::Complete(body.tag().map_err(malformed)?.to_owned()),
            Message::EmptyQueryResponse => Self::Empty,
            Message::CopyInResponse(_) => Self::CopyIn,
            Message::CopyOutResponse(_) => Self::CopyOut,
            Message::CopyDone => Self::CopyDone,
            Message::ReadyForQuery(_) => Self::Ready,
            Message::ParameterStatus(body) => Self::Parameter {
                name: body.name().map_err(malformed)?.to_owned(),
                value: body.value().map_err(malformed)?.to_owned(),
            },
            Message::NoticeResponse(body) => Self::Notice(notice(body.fields())?),
            Message::ErrorResponse(body) => Self::Error(notice(body.fields())?),
            Message::NotificationResponse(_) => Self::Aside,
            Message::BackendKeyData(body) => Self::ProcessId(body.process_id()),
            _ => return Ok(None),
        }))
    }
}

pub(super) fn malformed(error: std::io::Error) -> PostgresError {
    PostgresError::Protocol(format!("a message is malformed: {error}"))
}

fn columns(body: &RowDescriptionBody) -> Result<Vec<String>, PostgresError> {
    body.fields()
        .map(|field| Ok(field.name().to_owned()))
        .collect()
        .map_err(malformed)
}

fn values(body: &DataRowBody) -> Result<Vec<Option<Bytes>>, PostgresError> {
    let storage = body.buffer_bytes();
    body.ranges()
        .map(|range| Ok(range.map(|range| storage.slice(range))))
        .collect()
        .map_err(malformed)
}

pub(super) fn notice(mut fields: ErrorFields<'_>) -> Result<Notice, PostgresError> {
    let mut notice = Notice {
        severity: Severity::Error,
        sqlstate: SqlState::from_field(b""),
        message: String::new(),
        detail: None,
        hint: None,
    };
    while let Some(field) = fields.next().map_err(malformed)? {
        // Messages sent before the encoding is agreed on may be in any encoding.
        let text = String::from_utf8_lossy(field.value_bytes());
        match field.type_() {
            b'V' => notice.severity = Severity::from_field(&text),
            b'C' => notice.sqlstate = SqlState::from_field(field.value_bytes()),
            b'M' => notice.message = text.into_owned(),
            b'D' => notice.detail = Some(text.into_owned()),
            b'H' => notice.hint = Some(text.into_owned()),
            _ => {}
        }
    }
    Ok(notice)
}
