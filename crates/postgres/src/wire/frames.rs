//! Frames: a tag, a length, a body.
//!
//! Promise: a frame's body is a slice of the buffer that the socket was read into, not a copy. A frame longer than its
//! bound is refused before memory is taken for it. Reading and writing may be cancelled at any await without loss.
//! Not here: the meaning of a frame (messages).

use std::io;

use bytes::BytesMut;
use postgres_protocol::message::backend::{self, Header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::transport::Transport;

const READ_BYTES: usize = 256 * 1024;
const READ_BYTES_MIN: usize = 32 * 1024;
const TAG_AND_LENGTH: usize = 5;

/// How long a frame may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Before the server has proven who it is; libpq allows 30,000 bytes.
    Login,
    /// Afterwards: 64 MiB, and 1 GiB (PostgreSQL's own bound of a value) for a row.
    Session,
}

impl Bound {
    fn of(self, tag: u8) -> usize {
        match (self, tag) {
            (Self::Login, _) => 64 << 10,
            (Self::Session, backend::DATA_ROW_TAG) => 1 << 30,
            (Self::Session, _) => 64 << 20,
        }
    }
}

/// A socket that speaks in frames.
pub(crate) struct Frames {
    transport: Transport,
    incoming: BytesMut,
    outgoing: BytesMut,
    bound: Bound,
}

impl Frames {
    pub(crate) fn new(transport: Transport) -> Self {
        Self {
            transport,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            bound: Bound::Login,
        }
    }

    pub(crate) fn set_bound(&mut self, bound: Bound) {
        self.bound = bound;
    }

    /// Whether others on the network can read along.
    pub(crate) fn is_private(&self) -> bool {
        !matches!(self.transport, Transport::Tcp(_))
    }

    /// The next whole frame, tag and length included. Cancel-safe: an unfinished frame stays in the buffer.
    pub(crate) async fn next(&mut self) -> io::Result<BytesMut> {
        loop {
            if let Some(total) = self.complete()? {
                return Ok(self.incoming.split_to(total));
            }
            if self.incoming.capacity() - self.incoming.len() < READ_BYTES_MIN {
                self.incoming.reserve(READ_BYTES);
            }
            if self.transport.read_buf(&mut self.incoming).await? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the server closed the connection",
                ));
            }
        }
    }

    fn complete(&self) -> io::Result<Option<usize>> {
        let Some(header) = Header::parse(&self.incoming)? else {
            return Ok(None);
        };
        let total = 1 + usize::try_from(header.len()).map_err(io::Error::other)?;
        let bound = self.bound.of(header.tag());
        if total > bound {
            let what = format!(
                "a frame of type {:?} has {total} bytes, more than {bound}",
                char::from(header.tag())
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok((self.incoming.len() >= total && total >= TAG_AND_LENGTH).then_some(total))
    }

    /// Where frames to be sent are built; `flush` sends them.
    pub(crate) fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.outgoing
    }

    /// Sends what was built. Cancel-safe: what was not sent stays and goes first the next time.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            if self.transport.write_buf(&mut self.outgoing).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.transport.flush().await
    }
}
