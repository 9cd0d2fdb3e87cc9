//! Follows a server's WAL: the driver around the feed's rules and the walker's checks.
//!
//! Promise: pieces are contiguous, none crosses a segment's border, and every byte in them has passed the walker, except
//! where its header says that nothing can vouch for them. `next` and `keep_alive` may be dropped at any await.
//! At most one message of the server (128 KiB) is held.
//! Not here: storing (engine), reconnecting (engine).

mod attach;
mod error;
mod identity;
mod message;
mod walk;

pub use error::StreamError;
pub use identity::identify;

use self::attach::{Begun, Line, Place};
use self::message::Message;
use self::walk::{Joins, Walk};
use super::command::{self, SlotName};
use super::feed::{Feed, FeedStart, HELD_MAX, Input, Listening, Output, Reply, SILENCE_MAX, State, Why};
use crate::connection::{Connection, CopyBoth, CopyBothMessage};
use crate::conninfo::Conninfo;
use crate::error::PostgresError;
use crate::wire::Rows;
use backstay_clock::Clock;
use backstay_source::{LogPiece, LogStart, LogStep, Preceding, Resume};
use backstay_terms::{Durable, Lsn, Timeline};
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Microseconds from 1970 to 2000, PostgreSQL's beginning of time (POSTGRES_EPOCH_JDATE).
const EPOCH_2000: i64 = 946_684_800_000_000;

/// The replication slot to stream from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// It must exist.
    Existing(SlotName),
    /// Created, with WAL reserved from the last checkpoint on, if it does not exist.
    CreateIfMissing(SlotName),
}

impl Slot {
    /// Its name.
    pub fn name(&self) -> &SlotName {
        match self {
            Slot::Existing(name) | Slot::CreateIfMissing(name) => name,
        }
    }
}

/// How to follow a server.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// Where it is. `application_name` there is what `synchronous_standby_names` matches.
    pub conninfo: Conninfo,
    /// The slot; without one the server may remove WAL that was not read yet.
    pub slot: Option<Slot>,
    /// Set when the slot was missing and is made.
    pub made_slot: Arc<AtomicBool>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// A server's WAL being followed.
pub struct WalStream {
    options: StreamOptions,
    start: LogStart,
    server: attach::Server,
    place: Place,
    feed: Feed,
    walk: Walk,
    /// Reported when the first WAL has arrived.
    held_back: Option<Lsn>,
    line: Flow,
    orders: VecDeque<Output>,
    ready: VecDeque<LogStep>,
}

enum Flow {
    Open(CopyBoth),
    /// Read while the caller had no room: unread by the feed.
    Parked(CopyBoth, CopyBothMessage),
    /// On the way to the next timeline. A future of its own, so that `next` can be dropped meanwhile.
    Switching(Switching),
    Over,
}

type Switching = Pin<Box<dyn Future<Output = Result<Option<Switched>, StreamError>> + Send>>;

struct Switched {
    switch: Lsn,
    begun: Begun,
}

impl std::fmt::Debug for WalStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WalStream")
            .field("start", &self.start)
            .field("feed", &self.feed)
            .finish_non_exhaustive()
    }
}

impl WalStream {
    /// Connects, finds where to begin and begins.
    ///
    /// # Errors
    /// `OtherSystem`, `Gap`, `Behind`, `Diverged` and `SlotInUse` say that this log cannot be followed from there.
    pub async fn attach(
        options: StreamOptions,
        resume: Resume,
        preceding: &Preceding,
    ) -> Result<WalStream, StreamError> {
        let begun = attach::attach(&options, resume).await?;
        let (feed, first) = begin_feed(
            &options,
            &begun,
            begun.place.durable,
            begun.place.held_back.unwrap_or(Lsn::INVALID),
        );
        let mut stream = WalStream {
            start: start_of(&begun),
            server: begun.server.clone(),
            place: begun.place,
            walk: Walk::begin(begun.wal_identity(), begun.place.from, preceding),
            feed,
            held_back: begun.place.held_back,
            line: Flow::Over,
            orders: VecDeque::from([first]),
            ready: VecDeque::new(),
            options,
        };
        stream.take_line(begun.line);
        if let Some(message) = begun.first {
            stream.park(message);
        }
        stream.carry_out().await?;
        Ok(stream)
    }

    /// What was attached to; changes with `TimelineEnd`.
    pub fn start(&self) -> &LogStart {
        &self.start
    }

    /// The address in use and the position after the last byte received, for logs.
    pub fn received(&self) -> Lsn {
        self.feed.received()
    }

    /// The next step. Cancel-safe.
    ///
    /// # Errors
    /// Those of the connection, `Gap`, or damaged WAL. After an error the stream is of no further use.
    pub async fn next(&mut self) -> Result<LogStep, StreamError> {
        loop {
            self.carry_out().await?;
            if let Some(step) = self.ready.pop_front() {
                return Ok(step);
            }
            match &mut self.line {
                Flow::Over => return Ok(LogStep::Ended),
                Flow::Switching(switching) => {
                    let switched = switching.as_mut().await;
                    self.line = Flow::Over;
                    self.enter(switched?);
                }
                Flow::Parked(..) => {
                    if let Flow::Parked(stream, message) = std::mem::replace(&mut self.line, Flow::Over) {
                        self.line = Flow::Open(stream);
                        self.take(message)?;
                    }
                }
                Flow::Open(_) => {
                    if let Some(message) = self.listen().await? {
                        self.take(message)?;
                    }
                }
            }
        }
    }

    /// Answers and reports without reading on: at most one message is taken from the server. Cancel-safe.
    ///
    /// # Errors
    /// Those of `next`. It never returns otherwise.
    pub async fn keep_alive(&mut self) -> Result<(), StreamError> {
        loop {
            self.carry_out().await?;
            match &mut self.line {
                Flow::Open(_) => match self.listen().await? {
                    Some(message) if is_keepalive(&message) => self.take(message)?,
                    Some(message) => self.park(message),
                    None => {}
                },
                Flow::Parked(..) => {
                    let (clock, wait) = (Arc::clone(&self.options.clock), self.wait());
                    clock.sleep(wait).await;
                    self.input(Input::Tick(Listening::No))?;
                }
                // Whatever this is waits for the caller; a timeline's end needs no answers.
                Flow::Switching(_) | Flow::Over => std::future::pending::<()>().await,
            }
        }
    }

    /// Tells the server that everything before `durable` is stored.
    ///
    /// # Errors
    /// `Refused` for a position that was never received, or those of the connection.
    pub async fn confirm(&mut self, durable: &Durable) -> Result<(), StreamError> {
        self.input(Input::Durable(durable.position().into()))?;
        self.carry_out().await
    }

    /// Reports a last time, ends the stream and closes the connection.
    ///
    /// # Errors
    /// Those of the connection; what was confirmed stays so.
    pub async fn finish(mut self) -> Result<(), StreamError> {
        self.input(Input::Finish)?;
        self.carry_out().await?;
        if let Flow::Open(stream) | Flow::Parked(stream, _) = self.line {
            let (connection, _) = stream.finish().await?;
            connection.close().await;
        }
        Ok(())
    }

    // The next message, or none when a moment of the feed came first.
    async fn listen(&mut self) -> Result<Option<CopyBothMessage>, StreamError> {
        let wait = self.wait();
        let Flow::Open(stream) = &mut self.line else {
            return Ok(None);
        };
        let received = tokio::select! {
            received = stream.recv() => Some(received),
            () = self.options.clock.sleep(wait) => None,
        };
        match received {
            Some(Ok(message)) => Ok(Some(message)),
            Some(Err(error)) => Err(StreamError::of_server(
                error,
                self.feed.received(),
                self.place.timeline,
            )),
            None => {
                self.input(Input::Tick(Listening::Yes))?;
                Ok(None)
            }
        }
    }

    fn wait(&self) -> Duration {
        let wake = self.feed.wake_at().unwrap_or(Duration::MAX);
        wake.saturating_sub(self.options.clock.instant()).min(SILENCE_MAX)
    }

    fn park(&mut self, message: CopyBothMessage) {
        if let Flow::Open(stream) = std::mem::replace(&mut self.line, Flow::Over) {
            self.line = Flow::Parked(stream, message);
        }
    }

    fn input(&mut self, input: Input) -> Result<(), StreamError> {
        let now = self.options.clock.instant();
        self.orders.extend(self.feed.on(now, input)?);
        Ok(())
    }

    fn take(&mut self, message: CopyBothMessage) -> Result<(), StreamError> {
        match message {
            CopyBothMessage::Done => {
                self.input(Input::ServerDone)?;
                Ok(())
            }
            CopyBothMessage::Ended => {
                self.line = Flow::Over;
                Ok(())
            }
            CopyBothMessage::Data(data) => match Message::parse(data)? {
                Message::Keepalive {
                    server_end,
                    server_time,
                    reply,
                } => self.input(Input::Keepalive {
                    server_end,
                    server_time,
                    reply,
                }),
                Message::Wal {
                    begins,
                    server_end,
                    server_time,
                    bytes,
                } => {
                    let length = bytes.len() as u64;
                    self.input(Input::Wal {
                        begins,
                        length,
                        server_end,
                        server_time,
                    })?;
                    if let Some(durable) = self.held_back.take() {
                        self.input(Input::Durable(durable))?;
                    }
                    self.cut(begins, bytes)
                }
            },
        }
    }

    // Messages cross segment borders, pieces do not.
    fn cut(&mut self, begins: Lsn, bytes: Bytes) -> Result<(), StreamError> {
        let (mut begins, mut rest) = (begins, bytes);
        while !rest.is_empty() {
            let border = self
                .server
                .segment_size
                .segment_border_at_or_after(begins.plus(1));
            let room = usize::try_from(border.0 - begins.0).unwrap_or(usize::MAX);
            let bytes = rest.split_to(room.min(rest.len()));
            let (facts, joins) = self.walk.feed(&bytes)?;
            if joins == Joins::OtherHistory {
                self.ready.push_back(LogStep::OtherHistory);
            }
            let piece = LogPiece {
                begins: begins.into(),
                bytes,
                facts,
            };
            begins = piece.ends().into();
            self.ready.push_back(LogStep::Piece(piece));
        }
        Ok(())
    }

    // Each order leaves the queue before its await: what was begun is finished by the connection's buffer.
    async fn carry_out(&mut self) -> Result<(), StreamError> {
        while let Some(order) = self.orders.pop_front() {
            match order {
                Output::Status(durable, reply) => self.report(durable, reply).await?,
                Output::FlushWanted if matches!(self.ready.back(), Some(LogStep::FlushWanted)) => {}
                Output::FlushWanted => self.ready.push_back(LogStep::FlushWanted),
                Output::Mark(mark) => self.ready.push_back(LogStep::Mark(mark)),
                Output::CopyDone => self.begin_switch(),
                Output::Close(Why::PrimaryStopping) => self.line = Flow::Over,
                Output::Close(Why::Silent) => {
                    let (host, waited) = (self.host(), SILENCE_MAX);
                    self.line = Flow::Over;
                    return Err(StreamError::Silent { host, waited });
                }
                Output::Close(Why::Held) => {
                    self.line = Flow::Over;
                    return Err(StreamError::Held { waited: HELD_MAX });
                }
            }
        }
        Ok(())
    }

    async fn report(&mut self, durable: Lsn, reply: Reply) -> Result<(), StreamError> {
        let now = self.options.clock.now().as_microsecond() - EPOCH_2000;
        if let Flow::Open(stream) | Flow::Parked(stream, _) = &mut self.line {
            stream.send_data(&message::status(durable, now, reply)).await?;
        }
        Ok(())
    }

    fn host(&self) -> String {
        match &self.line {
            Flow::Open(stream) | Flow::Parked(stream, _) => stream.host().to_owned(),
            Flow::Switching(_) | Flow::Over => "the server".to_owned(),
        }
    }

    // `finish` ends our side itself.
    fn begin_switch(&mut self) {
        if self.feed.state() != State::TimelineEnded {
            return;
        }
        if let Flow::Open(stream) = std::mem::replace(&mut self.line, Flow::Over) {
            let (options, server) = (self.options.clone(), self.server.clone());
            self.line = Flow::Switching(Box::pin(async move {
                let (connection, sets) = stream.finish().await?;
                switch(connection, sets, options, server).await
            }));
        }
    }

    fn take_line(&mut self, line: Line) {
        self.line = match line {
            Line::Streaming(stream) => Flow::Open(stream),
            Line::Nothing(connection, sets) => {
                let (options, server) = (self.options.clone(), self.server.clone());
                Flow::Switching(Box::pin(switch(connection, sets, options, server)))
            }
        };
    }

    fn enter(&mut self, switched: Option<Switched>) {
        let Some(Switched { switch, begun }) = switched else {
            return;
        };
        let (feed, first) = begin_feed(&self.options, &begun, self.feed.durable(), self.feed.received());
        self.start = start_of(&begun);
        self.place = begun.place;
        self.walk.onto(begun.wal_identity(), begun.place.from);
        self.feed = feed;
        self.orders = VecDeque::from([first]);
        self.ready.push_back(LogStep::TimelineEnd {
            switch: switch.into(),
            next: begun.place.timeline.0,
            history: self.start.history.clone().unwrap_or_default(),
        });
        self.take_line(begun.line);
    }
}

fn is_keepalive(message: &CopyBothMessage) -> bool {
    matches!(message, CopyBothMessage::Data(data) if data.first() == Some(&b'k'))
}

fn begin_feed(options: &StreamOptions, begun: &Begun, durable: Lsn, known: Lsn) -> (Feed, Output) {
    Feed::begin(&FeedStart {
        from: begun.place.from,
        durable,
        known,
        server_end: begun.lineage.place.flushed,
        wal_sender_timeout: begun.server.wal_sender_timeout,
        marks: begun.marks,
        now: options.clock.instant(),
    })
}

fn start_of(begun: &Begun) -> LogStart {
    LogStart {
        identity: begun
            .lineage
            .identity(begun.server.version, begun.server.segment_size),
        timeline: begun.place.timeline.0,
        from: begun.place.from.into(),
        history: begun.history.as_ref().map(identity::bytes_of),
    }
}

/// Begins on the timeline that follows; none if the server named none because it shuts down.
async fn switch(
    mut connection: Connection,
    sets: Vec<Rows>,
    options: StreamOptions,
    server: attach::Server,
) -> Result<Option<Switched>, StreamError> {
    let Some(rows) = sets.iter().find(|rows| rows.value(0, "next_tli").is_some()) else {
        return Ok(None);
    };
    let timeline = Timeline(command::parsed(rows, "next_tli")?);
    let switch: Lsn = command::parsed(rows, "next_tli_startpos")?;
    let lineage = identity::lineage(&mut connection).await?;
    let history = identity::history_of(&mut connection, timeline).await?;
    if history.is_none() {
        return Err(PostgresError::Protocol(format!(
            "the server has no history file of timeline {timeline}"
        ))
        .into());
    }
    let from = server.segment_size.start_of_segment_holding(switch);
    let place = Place {
        timeline,
        from,
        durable: Lsn::INVALID,
        held_back: None,
    };
    let begun = attach::begin(connection, &options, server, lineage, place, history).await?;
    Ok(Some(Switched { switch, begun }))
}
