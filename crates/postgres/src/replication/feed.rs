//! The rules of one START_REPLICATION, as a state machine without I/O: when to report, what to report, when to give up.
//!
//! Promise: only durable positions are reported, and never a lower one than before, also across restarts because the
//! starting value is given. A requested reply is answered when what had arrived is durable, or after a second.
//! A mark is handed out only when its position is at or past every end of WAL that the server has named on this
//! connection, and the bytes before it are durable.
//! Not here: the socket (stream), the bytes (wal::walker), storing them (engine).

use backstay_terms::{LogMark, Lsn};
use std::collections::VecDeque;
use std::time::Duration;

/// A reply that waits for durability is sent honestly after this long: a server that is not answered at all gives up on
/// us, and one that is answered at once with an old position asks again thousands of times a second.
pub const REPLY_MAX: Duration = Duration::from_secs(1);
/// A primary that is stopping is held up this long by a store that does not answer.
pub const STOPPING_MAX: Duration = Duration::from_secs(5);
/// Requests for the same end of WAL that follow our answer within this time mean that the primary is stopping.
/// A running one asks once in half its wal_sender_timeout of silence, and we are never silent that long.
pub const REPEAT_MAX: Duration = Duration::from_secs(3);
/// Reports of progress come at most this often.
pub const COALESCE: Duration = Duration::from_millis(10);
/// A server that says nothing for this long, although every report asks it to answer, is taken for dead.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// When the caller has no room for this long and nothing becomes durable meanwhile, the connection is given up: a primary
/// that stops sends everything first, so it would wait for us, and we could not even hear that it does.
pub const HELD_MAX: Duration = Duration::from_secs(30);
const STATUS_EVERY_MAX: Duration = Duration::from_secs(10);
const MARKS_WAITING_MAX: usize = 64;

/// How a connection begins.
#[derive(Clone, Debug)]
pub struct FeedStart {
    /// The first position that will arrive.
    pub from: Lsn,
    /// Everything before it is durable; 0 if nothing is.
    pub durable: Lsn,
    /// Everything before it was received earlier, on the timeline before this one: it may be confirmed although this
    /// conversation begins further back.
    pub known: Lsn,
    /// The end of WAL that IDENTIFY_SYSTEM named.
    pub server_end: Lsn,
    /// The server's wal_sender_timeout; zero if it has none.
    pub wal_sender_timeout: Duration,
    /// Whether the server's messages can make marks.
    pub marks: Marks,
    /// Now, on the monotonic clock.
    pub now: Duration,
}

/// Whether the server's clock says something about the end of this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// It is the primary, on its current timeline.
    Count,
    /// It is a standby, or the timeline is one that it has left.
    None,
}

/// Whether an answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// At once.
    Requested,
    /// Not now.
    NotRequested,
}

/// Whether the driver reads what the server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listening {
    /// It does: silence is the server's.
    Yes,
    /// Not now, because there is no room for what it sends.
    No,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// WAL arrived.
    Wal {
        /// Its first position.
        begins: Lsn,
        /// How many bytes.
        length: u64,
        /// The server's end of WAL.
        server_end: Lsn,
        /// The server's clock: microseconds since 2000-01-01 00:00:00 UTC.
        server_time: i64,
    },
    /// The server showed that it lives.
    Keepalive {
        /// How far it has sent. During catch-up that is not its end of WAL.
        server_end: Lsn,
        /// The server's clock.
        server_time: i64,
        /// Whether it wants an answer.
        reply: Reply,
    },
    /// Everything before this position is durable.
    Durable(Lsn),
    /// Time passed.
    Tick(Listening),
    /// We end the stream; what is durable by now is all there will be.
    Finish,
    /// The server ended the stream: the timeline goes on elsewhere.
    ServerDone,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a standby status update: written, flushed and applied up to here. All three are the same on purpose, so that
    /// `synchronous_commit` set to `remote_write` or `remote_apply` promises durability too.
    Status(Lsn, Reply),
    /// Ask for what is held to be stored now.
    FlushWanted,
    /// Hand out a mark.
    Mark(LogMark),
    /// End our side of the stream.
    CopyDone,
    /// Drop the connection.
    Close(Why),
}

/// Why a connection is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The primary wants to stop and what it waits for does not become durable. The WAL stays with it.
    PrimaryStopping,
    /// It says nothing.
    Silent,
    /// There is no room for what it sends, and nothing becomes durable.
    Held,
}

/// An input that contradicts what came before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing beyond what was received can be durable.
    #[error("{confirmed} was confirmed as durable, but only WAL before {received} has been received")]
    Beyond {
        /// What was confirmed.
        confirmed: Lsn,
        /// What has been received.
        received: Lsn,
    },
    /// WAL arrived out of order.
    #[error("the server sent WAL from {begins}, expected {expected}")]
    Hole {
        /// Where it begins.
        begins: Lsn,
        /// Where it should.
        expected: Lsn,
    },
    /// The server went on after it had ended the stream.
    #[error("the server sent a message after the end of the stream")]
    AfterEnd,
}

/// Where the conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// WAL flows, nothing is owed.
    Streaming,
    /// The server asked for an answer and gets it when what had arrived is durable.
    Owing(Request),
    /// It asked again for the same: it wants to stop.
    Stopping(Request),
    /// We have ended the stream.
    Finished,
    /// The server has ended it.
    TimelineEnded,
    /// Given up.
    Closed,
}

/// A request for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The end of WAL that it named.
    end: Lsn,
    /// What had been received by then.
    goal: Lsn,
    /// When that end was first asked about, or something last became durable.
    first: Duration,
    /// When the answer is due; none if it was given.
    due: Option<Duration>,
}

/// The state machine.
#[derive(Debug)]
pub struct Feed {
    state: State,
    received: Lsn,
    known: Lsn,
    durable: Lsn,
    reported: Lsn,
    server_end: Lsn,
    marks: Marks,
    waiting: VecDeque<LogMark>,
    answered: Option<(Request, Duration)>,
    status_every: Duration,
    status_last: Duration,
    heard_last: Duration,
    // When WAL was last taken or something last became durable.
    moved_last: Duration,
}

type Outputs = Vec<Output>;

impl Feed {
    /// A conversation that has just begun, and its first report: a synchronous primary counts us from then on.
    pub fn begin(start: &FeedStart) -> (Feed, Output) {
        let third = start.wal_sender_timeout / 3;
        let feed = Feed {
            state: State::Streaming,
            received: start.from,
            known: start.known.max(start.durable),
            durable: start.durable,
            reported: start.durable,
            server_end: start.server_end,
            marks: start.marks,
            waiting: VecDeque::new(),
            answered: None,
            status_every: if third.is_zero() {
                STATUS_EVERY_MAX
            } else {
                third.min(STATUS_EVERY_MAX)
            },
            status_last: start.now,
            heard_last: start.now,
            moved_last: start.now,
        };
        (feed, Output::Status(start.durable, Reply::Requested))
    }

    /// Where the conversation stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// The position after the last byte received.
    pub fn received(&self) -> Lsn {
        self.received
    }

    /// The highest position known to be durable.
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// The next moment at which a tick will do something; none after the end.
    pub fn wake_at(&self) -> Option<Duration> {
        let regular = (self.status_last + self.status_every).min(self.heard_last + SILENCE_MAX);
        let progress = (self.durable > self.reported).then_some(self.status_last + COALESCE);
        let due = match self.state {
            State::Streaming => None,
            State::Owing(request) => request.due,
            State::Stopping(request) => Some(
                request
                    .due
                    .map_or(closing(&request), |due| due.min(closing(&request))),
            ),
            State::Finished | State::TimelineEnded | State::Closed => return None,
        };
        [Some(regular), progress, due].into_iter().flatten().min()
    }

    /// Takes an input at the moment `now` and says what to do.
    pub fn on(&mut self, now: Duration, input: Input) -> Result<Outputs, Refused> {
        let over = matches!(self.state, State::Finished | State::TimelineEnded | State::Closed);
        match input {
            Input::Wal { .. } | Input::Keepalive { .. } if self.state == State::TimelineEnded => {
                Err(Refused::AfterEnd)
            }
            // The server may not have seen our end yet.
            Input::Wal { .. } | Input::Keepalive { .. } | Input::Tick(_) | Input::Finish if over => {
                Ok(vec![])
            }
            Input::Wal {
                begins,
                length,
                server_end,
                server_time,
            } => {
                self.take_wal(begins, length)?;
                Ok(self.hear(
                    now,
                    LogMark {
                        position: self.received.into(),
                        time: server_time,
                    },
                    server_end,
                ))
            }
            Input::Keepalive {
                server_end,
                server_time,
                reply,
            } => {
                let mut outputs = self.hear(
                    now,
                    LogMark {
                        position: server_end.into(),
                        time: server_time,
                    },
                    server_end,
                );
                if reply == Reply::Requested {
                    outputs.extend(self.asked(now, server_end));
                }
                Ok(outputs)
            }
            Input::Durable(position) => self.confirmed(now, position),
            Input::Tick(listening) => Ok(self.tick(now, listening)),
            Input::Finish => {
                self.state = State::Finished;
                Ok(vec![
                    Output::Status(self.durable, Reply::NotRequested),
                    Output::CopyDone,
                ])
            }
            Input::ServerDone if over => Ok(vec![]),
            Input::ServerDone => {
                self.state = State::TimelineEnded;
                Ok(vec![Output::CopyDone])
            }
        }
    }

    fn take_wal(&mut self, begins: Lsn, length: u64) -> Result<(), Refused> {
        if begins != self.received {
            return Err(Refused::Hole {
                begins,
                expected: self.received,
            });
        }
        self.received = begins.plus(length);
        Ok(())
    }

    // Any message: the server lives, and its clock may say something about the end of the log.
    fn hear(&mut self, now: Duration, mark: LogMark, server_end: Lsn) -> Outputs {
        self.heard_last = now;
        self.moved_last = now;
        self.server_end = self.server_end.max(server_end);
        let position = Lsn::from(mark.position);
        let counts = self.marks == Marks::Count && position >= self.server_end && position <= self.received;
        if counts {
            self.wait_for(mark);
        }
        self.ripe_mark().into_iter().collect()
    }

    fn wait_for(&mut self, mark: LogMark) {
        let replaces = self
            .waiting
            .back()
            .is_some_and(|last| last.position == mark.position);
        if replaces || self.waiting.len() >= MARKS_WAITING_MAX {
            self.waiting.pop_back();
        }
        self.waiting.push_back(mark);
    }

    // The newest mark whose bytes are durable; older ones say nothing more.
    fn ripe_mark(&mut self) -> Option<Output> {
        let ripe = self
            .waiting
            .partition_point(|mark| Lsn::from(mark.position) <= self.durable);
        self.waiting.drain(..ripe).next_back().map(Output::Mark)
    }

    fn asked(&mut self, now: Duration, end: Lsn) -> Outputs {
        if self.durable >= self.received {
            self.state = State::Streaming;
            return vec![self.status(now, Reply::NotRequested)];
        }
        let repeated = self.earlier_request(now).filter(|earlier| earlier.end == end);
        let due = self.due().or(Some(now + REPLY_MAX));
        self.state = match repeated {
            Some(earlier) => State::Stopping(Request {
                goal: self.received,
                due,
                ..earlier
            }),
            None => State::Owing(Request {
                end,
                goal: self.received,
                first: now,
                due,
            }),
        };
        vec![Output::FlushWanted]
    }

    fn earlier_request(&self, now: Duration) -> Option<Request> {
        match (self.state, self.answered) {
            (State::Owing(request) | State::Stopping(request), _) => Some(request),
            (_, Some((request, at))) if now <= at + REPEAT_MAX => Some(request),
            _ => None,
        }
    }

    fn due(&self) -> Option<Duration> {
        match self.state {
            State::Owing(request) | State::Stopping(request) => request.due,
            _ => None,
        }
    }

    fn confirmed(&mut self, now: Duration, position: Lsn) -> Result<Outputs, Refused> {
        let possible = self.received.max(self.known);
        if position > possible {
            return Err(Refused::Beyond {
                confirmed: position,
                received: possible,
            });
        }
        if position <= self.durable {
            return Ok(vec![]);
        }
        self.durable = position;
        self.moved_last = now;
        let mut outputs: Outputs = self.ripe_mark().into_iter().collect();
        match &mut self.state {
            State::Owing(request) | State::Stopping(request) if position >= request.goal => {
                self.state = State::Streaming;
                self.answered = None;
                outputs.push(self.status(now, Reply::NotRequested));
            }
            // The store works: the primary may wait on.
            State::Owing(request) | State::Stopping(request) => request.first = now,
            State::Streaming => {}
            State::Finished | State::TimelineEnded | State::Closed => return Ok(outputs),
        }
        if self.reported < self.durable && now >= self.status_last + COALESCE {
            outputs.push(self.status(now, Reply::NotRequested));
        }
        Ok(outputs)
    }

    fn tick(&mut self, now: Duration, listening: Listening) -> Outputs {
        if let Some(why) = self.given_up(now, listening) {
            self.state = State::Closed;
            return vec![Output::Close(why)];
        }
        match self.state {
            State::Stopping(request) if now >= closing(&request) => {
                self.state = State::Closed;
                vec![
                    Output::Status(self.durable, Reply::NotRequested),
                    Output::Close(Why::PrimaryStopping),
                ]
            }
            State::Owing(request) if request.due.is_some_and(|due| now >= due) => {
                self.state = State::Streaming;
                self.answered = Some((Request { due: None, ..request }, now));
                vec![self.status(now, Reply::NotRequested)]
            }
            State::Stopping(request) if request.due.is_some_and(|due| now >= due) => {
                self.state = State::Stopping(Request { due: None, ..request });
                vec![self.status(now, Reply::NotRequested)]
            }
            // The regular report asks for an answer: it proves that the server lives, and its clock makes a mark.
            _ if now >= self.status_last + self.status_every => vec![self.status(now, Reply::Requested)],
            _ if self.durable > self.reported && now >= self.status_last + COALESCE => {
                vec![self.status(now, Reply::NotRequested)]
            }
            _ => vec![],
        }
    }

    fn given_up(&mut self, now: Duration, listening: Listening) -> Option<Why> {
        if listening == Listening::No {
            self.heard_last = now;
            return (now >= self.moved_last + HELD_MAX).then_some(Why::Held);
        }
        (now >= self.heard_last + SILENCE_MAX).then_some(Why::Silent)
    }

    fn status(&mut self, now: Duration, reply: Reply) -> Output {
        self.status_last = now;
        self.reported = self.durable;
        Output::Status(self.durable, reply)
    }
}

fn closing(request: &Request) -> Duration {
    request.first + STOPPING_MAX
}

#[cfg(test)]
mod tests;
