//! The WAL that a base backup needs, through a walsender of its own.
//!
//! Promise: its temporary slot reserves WAL before the backup begins, so the backup never depends on the stream or on
//! archiving. WAL is kept in scratch files, one for each segment, so memory stays bounded however long the backup takes;
//! it is walked and checked when it is read back.
//! Not here: the continuous stream (replication::feed).

mod read_back;

use std::path::{Path, PathBuf};

use backstay_terms::{Lsn, ServerVersion, SystemIdentifier, Timeline, WalFileName, WalSegmentSize};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::spool::{new_file, scratch_error};
use crate::connection::{Connection, CopyBoth, CopyBothMessage, CopyBothStart, Mode};
use crate::conninfo::Conninfo;
use crate::error::PostgresError;
use crate::replication::command::{
    HistoryFile, SlotLife, SlotName, SlotReserve, create_slot, start_replication, timeline_history,
};
use crate::timeline::{Ancestry, History};
use crate::wal::{VersionFacts, WalIdentity, Walker};
use read_back::kept_path;
pub(super) use read_back::{ReadBack, SegmentReader};

/// The walsenders of one backup: its files, its WAL.
const WALSENDERS: u32 = 2;

/// The first WAL sender of a backup uses up a server that has no second one: waiting for it would never end.
fn beside_the_first(error: PostgresError) -> PostgresError {
    match error {
        PostgresError::WalSendersBusy { host, limit } if limit < WALSENDERS => {
            PostgresError::WalSendersTooFew { host, limit }
        }
        other => other,
    }
}

/// Received bytes after which the server learns that it may forget them.
const REPORT_BYTES: u64 = 16 << 20;

/// What the WAL belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct WalPlace {
    pub(super) version: ServerVersion,
    pub(super) system: SystemIdentifier,
    pub(super) segment_size: WalSegmentSize,
}

#[derive(Debug)]
enum Link {
    /// The slot reserves; nothing flows yet.
    Reserved(Connection),
    Flowing(CopyBoth),
    Over,
}

/// The second walsender of a base backup.
#[derive(Debug)]
pub(super) struct WalTail {
    link: Link,
    place: WalPlace,
    slot: SlotName,
    scratch: PathBuf,
    start: Lsn,
    timeline: Timeline,
    received: Lsn,
    reported: Lsn,
    /// The server's WAL end and clock in its last message.
    seen: (Lsn, i64),
    file: Option<(PathBuf, File)>,
}

impl WalTail {
    /// Connects and reserves WAL from the last checkpoint on.
    pub(super) async fn reserve(
        conninfo: &Conninfo,
        place: WalPlace,
        scratch: &Path,
    ) -> Result<Self, PostgresError> {
        // While the caller has no room nothing is read here, for as long as it takes: a walsender that hears nothing
        // meanwhile must not give up. A peer that died is found by TCP keepalive on either side.
        let conninfo = conninfo.clone().with_option("-c wal_sender_timeout=0");
        let connected = Connection::connect(&conninfo, Mode::Replication).await;
        let mut connection = connected.map_err(beside_the_first)?;
        let name = format!("backstay_base_{}", connection.process_id());
        let slot = SlotName::new(&name)
            .ok_or_else(|| PostgresError::protocol("the server's process id is no number"))?;
        create_slot(&mut connection, &slot, SlotLife::Temporary, SlotReserve::Now).await?;
        Ok(Self {
            link: Link::Reserved(connection),
            place,
            slot,
            scratch: scratch.to_owned(),
            start: Lsn::INVALID,
            timeline: Timeline(0),
            received: Lsn::INVALID,
            reported: Lsn::INVALID,
            seen: (Lsn::INVALID, 0),
            file: None,
        })
    }

    /// The history files of the backup's timeline and, where the server still has them, of its ancestors.
    pub(super) async fn histories(&mut self, timeline: Timeline) -> Result<Histories, PostgresError> {
        let Link::Reserved(connection) = &mut self.link else {
            return Err(PostgresError::protocol("a base backup began twice"));
        };
        let mut histories = Histories::default();
        if timeline <= Timeline(1) {
            return Ok(histories);
        }
        let own = timeline_history(connection, timeline).await?;
        let ancestors = parse_history(&own)?
            .ancestors()
            .iter()
            .map(|ancestor| ancestor.timeline)
            .collect::<Vec<_>>();
        histories.files.push(own);
        for ancestor in ancestors.into_iter().filter(|ancestor| *ancestor > Timeline(1)) {
            match timeline_history(connection, ancestor).await {
                Ok(file) => histories.files.push(file),
                Err(error @ PostgresError::Server { .. }) => {
                    histories
                        .notes
                        .push(format!("history of timeline {ancestor} not captured: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(histories)
    }

    /// Lets WAL flow from the start of the segment that holds `start`.
    pub(super) async fn begin(&mut self, start: Lsn, timeline: Timeline) -> Result<(), PostgresError> {
        let Link::Reserved(connection) = std::mem::replace(&mut self.link, Link::Over) else {
            return Err(PostgresError::protocol("a base backup began twice"));
        };
        let from = self.place.segment_size.start_of_segment_holding(start);
        (self.start, self.timeline, self.received, self.reported) = (start, timeline, from, from);
        match connection
            .start_copy_both(&start_replication(Some(&self.slot), from, timeline))
            .await?
        {
            CopyBothStart::Streaming(stream) => self.link = Link::Flowing(stream),
            CopyBothStart::Ended(..) => return Err(self.failed(start, "the server's timeline ended")),
        }
        Ok(())
    }

    /// The next message; never returns while nothing flows. Cancel-safe.
    pub(super) async fn recv(&mut self) -> Result<CopyBothMessage, PostgresError> {
        match &mut self.link {
            Link::Flowing(stream) => stream.recv().await,
            _ => std::future::pending().await,
        }
    }

    /// Keeps what `recv` gave.
    pub(super) async fn keep(&mut self, message: CopyBothMessage) -> Result<(), PostgresError> {
        let CopyBothMessage::Data(mut bytes) = message else {
            return Err(self.failed(self.received, "the server's timeline ended"));
        };
        match (bytes.first().copied(), bytes.len()) {
            (Some(b'w'), 25..) => {
                bytes.advance(1);
                let begins = Lsn(bytes.get_u64());
                self.seen = (Lsn(bytes.get_u64()), bytes.get_i64());
                self.keep_wal(begins, bytes).await
            }
            (Some(b'k'), 18) => {
                bytes.advance(1);
                self.seen = (Lsn(bytes.get_u64()), bytes.get_i64());
                match bytes.get_u8() {
                    0 => Ok(()),
                    _ => self.report().await,
                }
            }
            _ => Err(PostgresError::protocol(
                "a message in the WAL stream that does not belong there",
            )),
        }
    }

    async fn keep_wal(&mut self, begins: Lsn, bytes: Bytes) -> Result<(), PostgresError> {
        if begins != self.received {
            return Err(self.failed(self.received, &format!("the server sent {begins} next")));
        }
        let size = self.place.segment_size;
        let mut rest = bytes;
        while !rest.is_empty() {
            let segment_ends = size.start_of_segment_holding(self.received).plus(size.bytes());
            let room = usize::try_from(segment_ends.0 - self.received.0).unwrap_or(usize::MAX);
            let part = rest.split_to(rest.len().min(room));
            self.write(&part).await?;
            self.received = self.received.plus(part.len() as u64);
        }
        match self.received.0 - self.reported.0 >= REPORT_BYTES {
            true => self.report().await,
            false => Ok(()),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), PostgresError> {
        let path = self.path_holding(self.received);
        if self.file.as_ref().is_none_or(|(open, _)| *open != path) {
            self.close_file().await?;
            let file = new_file(&path)
                .await
                .map_err(|source| scratch_error(&path, source))?;
            self.file = Some((path.clone(), file));
        }
        match &mut self.file {
            Some((path, file)) => file
                .write_all(bytes)
                .await
                .map_err(|source| scratch_error(path, source)),
            None => Ok(()),
        }
    }

    async fn close_file(&mut self) -> Result<(), PostgresError> {
        match self.file.take() {
            Some((path, mut file)) => file.flush().await.map_err(|source| scratch_error(&path, source)),
            None => Ok(()),
        }
    }

    // The positions tell the server what it may forget: should this machine die, the backup dies with it, so what is in
    // the scratch file needs no fsync. The client's clock in the message is shown in pg_stat_replication and not used.
    async fn report(&mut self) -> Result<(), PostgresError> {
        let mut status = BytesMut::with_capacity(34);
        status.put_u8(b'r');
        for position in [self.received, self.received, Lsn::INVALID] {
            status.put_u64(position.0);
        }
        status.put_i64(self.seen.1);
        status.put_u8(0);
        self.reported = self.received;
        match &mut self.link {
            Link::Flowing(stream) => stream.send_data(&status).await,
            _ => Ok(()),
        }
    }

    /// Whether everything before `stop` is here.
    pub(super) fn has(&self, stop: Lsn) -> bool {
        self.received >= stop && self.seen.0 >= stop
    }

    /// Ends the stream in order. Everything before the stop must be here.
    pub(super) async fn finish(&mut self) -> Result<(), PostgresError> {
        self.close_file().await?;
        if let Link::Flowing(stream) = std::mem::replace(&mut self.link, Link::Over) {
            let (connection, _) = stream.finish().await?;
            connection.close().await;
        }
        Ok(())
    }

    /// The server's clock at or after the stop, once `has(stop)`: microseconds since 2000.
    pub(super) fn server_time(&self) -> i64 {
        self.seen.1
    }

    fn path_holding(&self, lsn: Lsn) -> PathBuf {
        let size = self.place.segment_size;
        kept_path(
            &self.scratch,
            WalFileName::new(self.timeline, size.segment_holding(lsn), size),
        )
    }

    fn failed(&self, at: Lsn, reason: &str) -> PostgresError {
        PostgresError::BackupWal {
            from: self.start.to_string(),
            to: at.to_string(),
            reason: reason.to_owned(),
        }
    }
    /// Everything from start to stop, for reading back. The stream must have been finished.
    pub(super) fn read_back(&self, stop: Lsn, ancestry: Ancestry) -> Result<ReadBack, PostgresError> {
        let size = self.place.segment_size;
        let version = VersionFacts::of_major(self.place.version.major());
        let identity = WalIdentity {
            version: version.ok_or(PostgresError::Version(self.place.version.0))?,
            system: self.place.system,
            segment_size: size,
            ancestry,
        };
        let from = size.start_of_segment_holding(self.start);
        Ok(ReadBack {
            scratch: self.scratch.clone(),
            timeline: self.timeline,
            size,
            start: self.start,
            next: from,
            stop,
            walker: Walker::new(identity, from),
            last: None,
            end_point: None,
            tablespaces_made: Vec::new(),
        })
    }
}

/// Timeline history files.
#[derive(Debug, Default)]
pub(super) struct Histories {
    /// The backup's own first; none on timeline 1.
    pub(super) files: Vec<HistoryFile>,
    /// What could not be had.
    pub(super) notes: Vec<String>,
}

impl Histories {
    pub(super) fn ancestry(&self, timeline: Timeline) -> Result<Ancestry, PostgresError> {
        match self.files.first() {
            Some(own) => Ok(Ancestry::of(&parse_history(own)?)),
            None => Ok(Ancestry::without_history(timeline)),
        }
    }
}

fn parse_history(file: &HistoryFile) -> Result<History, PostgresError> {
    let parsed = History::parse(file.timeline, &file.content);
    parsed.map_err(|error| PostgresError::Protocol(format!("history of timeline {}: {error}", file.timeline)))
}
