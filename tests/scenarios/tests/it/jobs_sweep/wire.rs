//! A recorded PostgreSQL: what a real server answered on its socket, played again to any number of clients.
//!
//! Recorded are the bytes on the wire, so that every cell runs the whole client: login, commands, tar, WAL, status messages.
//! Promise: a command gets the answer that the real server gave to it; a stream may begin at any later position than the
//! recorded one and gets the recorded WAL from there; what a client reports as durable is heard until its connection ends.
//! Not here: which commands are recorded (conversation).

use backstay_postgres::Conninfo;
use backstay_terms::Lsn;
use backstay_testkit::pg::{Room, parse};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

/// The file name of a server's socket.
const SOCKET: &str = ".s.PGSQL.5432";
/// The slot of the stream; a backup's own WAL comes through another.
pub const SLOT: &str = "backstay";

/// What a client asked, without what differs from run to run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    Login(Bytes),
    Command(String),
    EndOfCopy(String),
}

impl Asked {
    /// The label of a backup and the position of a stream are not part of the question.
    fn command(text: &str) -> Asked {
        let same = match text.split_once(" PHYSICAL ") {
            Some((begins, place)) if begins.starts_with("START_REPLICATION") => {
                let timeline = place.split_once(' ').map_or("", |(_, timeline)| timeline);
                format!("{begins} {timeline}")
            }
            _ if text.starts_with("BASE_BACKUP") => "BASE_BACKUP".to_owned(),
            _ => text.to_owned(),
        };
        Asked::Command(same)
    }

    fn stream(timeline: u32) -> Asked {
        Asked::Command(format!("START_REPLICATION SLOT \"{SLOT}\" TIMELINE {timeline}"))
    }

    /// The timeline that the stream of our slot follows.
    fn followed(&self) -> Option<u32> {
        let Asked::Command(text) = self else { return None };
        let prefix = format!("START_REPLICATION SLOT \"{SLOT}\" TIMELINE ");
        text.strip_prefix(&prefix)?.parse().ok()
    }
}

/// The position that a command asks a stream to begin at.
fn position_of(text: &str) -> Option<u64> {
    let place = text.split_once(" PHYSICAL ")?.1;
    place.split(' ').next()?.parse::<Lsn>().ok().map(|lsn| lsn.0)
}

/// One message with its tag and length.
type Frame = Bytes;

fn frame(tag: u8, body: &[u8]) -> Frame {
    let mut frame = BytesMut::new();
    frame.put_u8(tag);
    frame.put_u32(4 + body.len() as u32);
    frame.put_slice(body);
    frame.freeze()
}

async fn read_frame<R: AsyncRead + Unpin>(from: &mut R) -> Option<Frame> {
    let tag = from.read_u8().await.ok()?;
    let body = read_body(from).await?;
    let mut frame = BytesMut::with_capacity(1 + body.len());
    frame.put_u8(tag);
    frame.extend_from_slice(&body);
    Some(frame.freeze())
}

/// A length that counts itself, and what follows.
async fn read_body<R: AsyncRead + Unpin>(from: &mut R) -> Option<Bytes> {
    let length = from.read_u32().await.ok()?;
    let mut body = vec![0; length as usize];
    body[..4].copy_from_slice(&length.to_be_bytes());
    from.read_exact(&mut body[4..]).await.ok()?;
    Some(Bytes::from(body))
}

/// The text of a command: a query without its terminating zero.
fn command_of(frame: &Frame) -> Option<String> {
    let text = (frame[0] == b'Q').then(|| &frame[5..frame.len() - 1])?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// WAL in a message of a stream: where it begins, and the bytes.
fn wal_of(frame: &Frame) -> Option<(u64, Bytes)> {
    let mut body = frame.slice(5..);
    if frame[0] != b'd' || body.first() != Some(&b'w') {
        return None;
    }
    body.advance(1);
    let begins = body.get_u64();
    Some((begins, body.slice(16..)))
}

/// The same message without the bytes before `from`; none if nothing is left.
fn from_position(frame: &Frame, from: u64) -> Option<Frame> {
    let Some((begins, bytes)) = wal_of(frame) else {
        return Some(frame.clone());
    };
    let skipped = from.saturating_sub(begins) as usize;
    let rest = bytes.get(skipped..).filter(|rest| !rest.is_empty())?;
    let mut cut = BytesMut::new();
    cut.put_u8(b'd');
    cut.put_u32((4 + 25 + rest.len()) as u32);
    cut.put_u8(b'w');
    cut.put_u64(begins.max(from));
    cut.extend_from_slice(&frame[14..30]);
    cut.extend_from_slice(rest);
    Some(cut.freeze())
}

/// What a server said to whatever it was asked.
#[derive(Debug, Default)]
pub struct Script {
    answers: BTreeMap<Asked, Vec<Frame>>,
}

impl Script {
    /// The WAL of a timeline as it was streamed: its first position and its bytes.
    pub fn wal(&self, timeline: u32) -> Option<(u64, Vec<u8>)> {
        let frames = self.answers.get(&Asked::stream(timeline))?;
        let mut parts = frames.iter().filter_map(wal_of);
        let (first, mut all) = parts.next().map(|(begins, bytes)| (begins, bytes.to_vec()))?;
        for (begins, bytes) in parts {
            assert_eq!(begins, first + all.len() as u64, "a stream has no holes");
            all.extend_from_slice(&bytes);
        }
        Some((first, all))
    }

    /// Dropping the slot while it is recorded would take it from the recording after this one, so the answer is made by hand.
    fn with_the_slot_dropped(mut self) -> Script {
        let dropped = [frame(b'C', b"DROP_REPLICATION_SLOT\0"), frame(b'Z', b"I")];
        let asked = Asked::Command(format!("DROP_REPLICATION_SLOT \"{SLOT}\" WAIT"));
        self.answers.insert(asked, dropped.to_vec());
        self
    }

    fn answer(&self, asked: &Asked, from: Option<u64>) -> Vec<Frame> {
        let recorded = self.answers.get(asked);
        let recorded = recorded.unwrap_or_else(|| panic!("never recorded: {asked:?}"));
        match from {
            Some(from) => recorded
                .iter()
                .filter_map(|frame| from_position(frame, from))
                .collect(),
            None => recorded.clone(),
        }
    }
}

/// A socket, and the connections that were made to it.
#[derive(Debug)]
struct Listening {
    stop: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

impl Listening {
    fn on<T, F>(room: &Room, mut serve: T) -> Listening
    where
        T: FnMut(UnixStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = UnixListener::bind(room.path().join(SOCKET)).unwrap();
        let (stop, mut stopped) = mpsc::channel::<()>(1);
        let task = tokio::spawn(async move {
            let mut served = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => drop(served.spawn(serve(accepted.unwrap().0))),
                    _ = stopped.recv() => break,
                }
            }
            while let Some(served) = served.join_next().await {
                served.unwrap();
            }
        });
        Listening { stop, task }
    }

    /// Returns when every connection has ended.
    async fn end(self) {
        drop(self.stop);
        self.task.await.unwrap();
    }
}

/// Stands between clients and a real server, and writes down what the server answers.
#[derive(Debug)]
pub struct Recorder {
    room: Room,
    script: Arc<Mutex<Script>>,
    listening: Listening,
}

impl Recorder {
    /// Between its clients and the server whose socket lies in `server`.
    pub fn before(server: &Path) -> Recorder {
        let (room, script) = (Room::new(), Arc::<Mutex<Script>>::default());
        let (server, written) = (server.join(SOCKET), script.clone());
        let listening = Listening::on(&room, move |client| {
            relay(client, server.clone(), written.clone())
        });
        Recorder {
            room,
            script,
            listening,
        }
    }

    pub fn conninfo(&self) -> Conninfo {
        conninfo(&self.room)
    }

    /// What was written down; every connection must have been closed by its client.
    pub async fn end(self) -> Script {
        self.listening.end().await;
        let script = std::mem::take(&mut *self.script.lock().unwrap());
        script.with_the_slot_dropped()
    }
}

fn conninfo(room: &Room) -> Conninfo {
    parse(&format!(
        "host={} port=5432 user=postgres dbname=postgres",
        room.path().display()
    ))
}

/// The question that is being answered, and its answer so far.
#[derive(Debug, Default)]
struct Exchange {
    asked: Option<Asked>,
    frames: Vec<Frame>,
}

impl Exchange {
    /// A new question ends the answer to the one before.
    fn ask(&mut self, asked: Option<Asked>, script: &Mutex<Script>) {
        let before = std::mem::replace(&mut self.asked, asked);
        let frames = std::mem::take(&mut self.frames);
        if let Some(before) = before {
            script.lock().unwrap().answers.insert(before, frames);
        }
    }
}

async fn relay(client: UnixStream, server: PathBuf, script: Arc<Mutex<Script>>) {
    let server = UnixStream::connect(&server).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let exchange = Mutex::new(Exchange::default());
    let up = async {
        let login = read_body(&mut from_client).await?;
        exchange
            .lock()
            .unwrap()
            .ask(Some(Asked::Login(login.clone())), &script);
        to_server.write_all(&login).await.ok()?;
        let mut command = String::new();
        while let Some(frame) = read_frame(&mut from_client).await {
            if let Some(text) = command_of(&frame) {
                exchange.lock().unwrap().ask(Some(Asked::command(&text)), &script);
                command = text;
            } else if frame[0] == b'c' {
                let asked = end_of_copy(&command);
                exchange.lock().unwrap().ask(Some(asked), &script);
            }
            to_server.write_all(&frame).await.ok()?;
        }
        to_server.shutdown().await.ok()
    };
    let down = async {
        while let Some(frame) = read_frame(&mut from_server).await {
            exchange.lock().unwrap().frames.push(frame.clone());
            // A client that is gone hears nothing more; the server is heard to its end.
            let _ = to_client.write_all(&frame).await;
        }
    };
    let _both = tokio::join!(up, down);
    exchange.lock().unwrap().ask(None, &script);
}

fn end_of_copy(command: &str) -> Asked {
    match Asked::command(command) {
        Asked::Command(text) => Asked::EndOfCopy(text),
        other => other,
    }
}

/// How far clients said that a timeline is durable: the server's memory of them.
#[derive(Clone, Debug, Default)]
pub struct Reported {
    flushed: Arc<watch::Sender<BTreeMap<u32, u64>>>,
}

impl Reported {
    pub fn read(&self) -> BTreeMap<u32, u64> {
        self.flushed.borrow().clone()
    }

    fn hear(&self, asked: &Asked, frame: &Frame) {
        let mut body = frame.slice(5..);
        let (Some(timeline), Some(b'r')) = (asked.followed(), body.first()) else {
            return;
        };
        body.advance(1 + 8);
        let flushed = body.get_u64();
        self.flushed.send_modify(|known| {
            let last = known.entry(timeline).or_default();
            *last = flushed.max(*last);
        });
    }

    async fn until(&self, timeline: u32, position: u64) {
        let there = |known: &BTreeMap<u32, u64>| known.get(&timeline).is_some_and(|last| *last >= position);
        let mut heard = self.flushed.subscribe();
        heard.wait_for(there).await.expect("the sender lives in self");
    }
}

/// A server that plays a script.
#[derive(Debug)]
pub struct Player {
    room: Room,
    listening: Listening,
}

impl Player {
    pub fn start(script: Arc<Script>, reported: Reported) -> Player {
        let room = Room::new();
        let listening = Listening::on(&room, move |client| {
            talk(client, script.clone(), reported.clone())
        });
        Player { room, listening }
    }

    pub fn conninfo(&self) -> Conninfo {
        conninfo(&self.room)
    }

    /// Returns when every connection has ended and all that was reported is known.
    pub async fn end(self) {
        self.listening.end().await;
    }
}

/// An answer, and the timeline that it streams.
type Said = (Vec<Frame>, Option<u32>);

async fn talk(client: UnixStream, script: Arc<Script>, reported: Reported) {
    let (mut from_client, to_client) = client.into_split();
    let (ask, asked) = mpsc::unbounded_channel::<Said>();
    let writing = tokio::spawn(answer(to_client, asked, reported.clone()));
    let Some(login) = read_body(&mut from_client).await else {
        return;
    };
    // The other side is gone when it takes no answer: what it sent before is read all the same.
    let _ = ask.send((script.answer(&Asked::Login(login), None), None));
    let mut current = Asked::command("");
    while let Some(frame) = read_frame(&mut from_client).await {
        match (frame[0], command_of(&frame)) {
            (_, Some(text)) => {
                current = Asked::command(&text);
                let said = script.answer(&current, position_of(&text));
                let _ = ask.send((said, current.followed()));
            }
            (b'd', _) => reported.hear(&current, &frame),
            (b'c', _) => {
                if let Asked::Command(text) = &current {
                    let _ = ask.send((script.answer(&Asked::EndOfCopy(text.clone()), None), None));
                }
            }
            _ => break,
        }
    }
    writing.abort();
    let _aborted = writing.await;
}

/// As with a synchronous standby, the next transaction comes when the one before is reported as durable.
async fn answer(mut client: OwnedWriteHalf, mut asked: mpsc::UnboundedReceiver<Said>, reported: Reported) {
    let mut next = asked.recv().await;
    while let Some((frames, followed)) = next.take() {
        for frame in frames {
            if client.write_all(&frame).await.is_err() {
                return;
            }
            let waits = followed.zip(wal_of(&frame));
            if let Some((timeline, (begins, bytes))) = waits {
                tokio::select! {
                    () = reported.until(timeline, begins + bytes.len() as u64) => {}
                    // The client ends the stream: nothing more of it comes.
                    ended = asked.recv() => {
                        next = ended;
                        break;
                    }
                }
            }
        }
        if next.is_none() {
            next = asked.recv().await;
        }
    }
}
