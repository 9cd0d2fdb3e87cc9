//! The messages inside a physical stream.
//!
//! Promise: what is malformed is an error that says so; nothing is read past a message's end.
//! Source: PostgreSQL manual, "Streaming Replication Protocol", START_REPLICATION.
//! Not here: what to do about them (feed).

use crate::error::PostgresError;
use crate::replication::feed::Reply;
use backstay_terms::Lsn;
use bytes::{Buf, Bytes};

/// What the server sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// XLogData.
    Wal {
        begins: Lsn,
        server_end: Lsn,
        server_time: i64,
        bytes: Bytes,
    },
    /// Primary keepalive.
    Keepalive {
        server_end: Lsn,
        server_time: i64,
        reply: Reply,
    },
}

impl Message {
    pub(super) fn parse(mut data: Bytes) -> Result<Message, PostgresError> {
        let malformed = || PostgresError::protocol("a message of the stream is malformed");
        match data.try_get_u8().map_err(|_| malformed())? {
            b'w' if data.len() >= 24 => Ok(Message::Wal {
                begins: Lsn(data.get_u64()),
                server_end: Lsn(data.get_u64()),
                server_time: data.get_i64(),
                bytes: data,
            }),
            b'k' if data.len() == 17 => Ok(Message::Keepalive {
                server_end: Lsn(data.get_u64()),
                server_time: data.get_i64(),
                reply: if data.get_u8() == 0 {
                    Reply::NotRequested
                } else {
                    Reply::Requested
                },
            }),
            _ => Err(malformed()),
        }
    }
}

/// A standby status update: written, flushed and applied are `durable`.
pub(super) fn status(durable: Lsn, client_time: i64, reply: Reply) -> [u8; 34] {
    let mut message = [0; 34];
    message[0] = b'r';
    for field in [1, 9, 17] {
        message[field..field + 8].copy_from_slice(&durable.0.to_be_bytes());
    }
    message[25..33].copy_from_slice(&client_time.to_be_bytes());
    message[33] = u8::from(reply == Reply::Requested);
    message
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn both_messages_are_read() {
        let wal = [
            &b"w"[..],
            &5u64.to_be_bytes(),
            &9u64.to_be_bytes(),
            &(-3i64).to_be_bytes(),
            b"WAL",
        ]
        .concat();
        assert_eq!(
            Message::parse(wal.into()).unwrap(),
            Message::Wal {
                begins: Lsn(5),
                server_end: Lsn(9),
                server_time: -3,
                bytes: Bytes::from_static(b"WAL")
            }
        );
        let lives = [&b"k"[..], &9u64.to_be_bytes(), &4i64.to_be_bytes(), &[1]].concat();
        assert_eq!(
            Message::parse(lives.into()).unwrap(),
            Message::Keepalive {
                server_end: Lsn(9),
                server_time: 4,
                reply: Reply::Requested
            }
        );
    }

    #[test]
    fn malformed_messages_are_refused() {
        for bytes in [&b""[..], b"w", b"k", b"x", &[b'k'; 17], &[b'k'; 19], &[b'w'; 24]] {
            assert!(
                Message::parse(Bytes::copy_from_slice(bytes)).is_err(),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn a_report_has_one_position_three_times() {
        let message = status(Lsn(0x0102030405060708), 7, Reply::Requested);
        let positions: Vec<u8> = [1, 2, 3, 4, 5, 6, 7, 8].repeat(3);
        assert_eq!(
            message,
            *[&b"r"[..], &positions, &7i64.to_be_bytes(), &[1]].concat()
        );
    }
}
