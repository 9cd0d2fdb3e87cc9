//! Base backups over the replication protocol.
//!
//! Promise: every file is handed on as it arrives and compared with the server's manifest; the WAL from start to stop
//! comes with it, through a walsender and a temporary slot that exist before the backup begins. When the server found
//! damaged pages the backup is complete and `Damaged`, never an error and never `Good`.
//! Memory does not grow with the database: lists go to the scratch directory.
//! Not here: what becomes of the bytes (repository), retrying (engine).

mod facts;
mod framing;
mod intake;
mod ledger;
mod manifest;
mod outbox;
pub(crate) mod settings;
mod spool;
mod tar;
mod wal_tail;

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use backstay_source::{BaseEnd, BaseLog, BaseReader, BaseRequest, BaseStep, Phase, SourceError, Verdict};
use backstay_terms::{EntryRole, LogPoint, Lsn, Timeline};
use tokio::time::Sleep;

pub use facts::{BaseFacts, DataChecksums, TablespaceFact};

use crate::connection::{Answer, Connection, CopyBothMessage, Mode};
use crate::conninfo::Conninfo;
use crate::error::{PostgresError, Severity, SqlState};
use crate::in_place;
use crate::replication::command::{
    ServerIdentity, identify_system, is_standby, server_version, show, wal_segment_size,
};
use crate::replication::version::{BaseBackupOptions, Dialect};
use crate::timeline::Ancestry;
use crate::wire::Notice;
use framing::{Framed, Framing, Tablespace};
use intake::{Bounds, Intake, ManifestCheck};
use outbox::{OpenEntry, Outbox, entry_path, file};
use spool::SpoolReader;
use wal_tail::{ReadBack, SegmentReader, WalPlace, WalTail};

/// A spread checkpoint takes up to checkpoint_timeout, a day at most; behind another one a little more.
const CHECKPOINT_MAX: Duration = Duration::from_secs(26 * 3600);
/// The server sends 32 KiB at a time, however slowly it is told to read.
const SILENCE_MAX: Duration = Duration::from_secs(600);
const WARNINGS_MAX: usize = 1000;

/// A base backup being read.
#[derive(Debug)]
pub struct BaseBackup {
    base: Connection,
    conninfo: Conninfo,
    tail: WalTail,
    framing: Framing,
    stage: Stage,
    outbox: Outbox,
    scratch: PathBuf,
    silence: Pin<Box<Sleep>>,
    place: WalPlace,
    data_checksums: DataChecksums,
    tablespaces: Vec<Tablespace>,
    superuser: Option<String>,
    tablespaces_made: Vec<String>,
    start: Lsn,
    stop: Lsn,
    timeline: Timeline,
    ancestry: Ancestry,
    last_record: Lsn,
    end_point: Option<LogPoint>,
    done: u64,
    estimate: Option<u64>,
    warnings: Warnings,
    damage: Option<String>,
}

#[derive(Debug)]
enum Stage {
    /// Archives are arriving, or the checkpoint is awaited.
    Files(Box<Intake>),
    /// The manifest is arriving.
    Manifest(Box<ManifestCheck>),
    /// The server has finished; WAL up to the stop is awaited.
    Log(Box<ManifestCheck>),
    /// Kept WAL is handed on.
    Segments(
        Box<ManifestCheck>,
        Box<ReadBack>,
        Option<(OpenEntry, SegmentReader)>,
    ),
    /// The manifest is handed on.
    Keeping(OpenEntry, SpoolReader),
    Ended,
}

#[derive(Debug, Default)]
struct Warnings {
    kept: Vec<String>,
    dropped: u64,
}

impl Warnings {
    fn push(&mut self, text: String) {
        match self.kept.len() < WARNINGS_MAX {
            true => self.kept.push(text),
            false => self.dropped += 1,
        }
    }

    fn into_texts(mut self) -> Vec<String> {
        if self.dropped > 0 {
            self.kept.push(format!("and {} more warnings", self.dropped));
        }
        self.kept
    }
}

/// What a turn of waiting brought.
enum Heard {
    Base(Result<Answer, PostgresError>),
    Wal(Result<CopyBothMessage, PostgresError>),
    Nothing,
}

impl BaseBackup {
    /// Connects twice, reserves WAL, captures settings, and asks for the backup. Does not wait for the checkpoint.
    ///
    /// # Errors
    /// `Server` for what the server refuses, and every error of connecting.
    pub async fn begin(conninfo: &Conninfo, request: &BaseRequest) -> Result<Self, PostgresError> {
        let mut base = Connection::connect(conninfo, Mode::Replication).await?;
        let dialect = Dialect::of(server_version(&base)?)?;
        let identity = identify_system(&mut base).await?;
        let place = place(&mut base, identity).await?;
        if is_standby(&mut base, place.version).await? {
            return Err(PostgresError::Standby);
        }
        let data_checksums = data_checksums(&mut base).await?;
        // Now rather than after the checkpoint, and again then. Where it cannot be asked, that is said there.
        if let Err(error @ PostgresError::InPlaceTablespaces { .. }) =
            in_place::refuse_left_out(conninfo, place.version).await
        {
            return Err(error);
        }
        let tail = WalTail::reserve(conninfo, place, &request.scratch).await?;
        let captured = settings::capture(conninfo).await;
        let options = BaseBackupOptions {
            label: request.label.clone(),
            checkpoint: request.checkpoint,
            rate_max: request.rate_max,
        };
        base.send(&dialect.base_backup(&options)).await?;
        let mut backup = Self {
            base,
            conninfo: conninfo.clone(),
            tail,
            framing: Framing::new(dialect),
            stage: Stage::Files(Box::new(Intake::new(dialect.archive_trailer(), &request.scratch))),
            outbox: Outbox::default(),
            scratch: request.scratch.clone(),
            silence: Box::pin(tokio::time::sleep(CHECKPOINT_MAX)),
            place,
            data_checksums,
            tablespaces: Vec::new(),
            superuser: captured.superuser.clone(),
            tablespaces_made: Vec::new(),
            start: Lsn::INVALID,
            stop: Lsn::INVALID,
            timeline: identity.timeline,
            ancestry: Ancestry::without_history(identity.timeline),
            last_record: Lsn::INVALID,
            end_point: None,
            done: 0,
            estimate: None,
            warnings: Warnings::default(),
            damage: None,
        };
        backup.outbox.progress(Phase::WaitingForCheckpoint, 0, None);
        backup.put_captured(captured)?;
        Ok(backup)
    }

    /// The next step; `End` is the last. Must not be called again after it or after an error.
    ///
    /// # Errors
    /// Everything that makes the backup worthless, except damaged pages: those are the verdict of `End`.
    pub async fn next_step(&mut self) -> Result<BaseStep, PostgresError> {
        loop {
            if let Some(step) = self.outbox.pop() {
                return Ok(step);
            }
            self.advance().await?;
        }
    }

    async fn advance(&mut self) -> Result<(), PostgresError> {
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            stage @ (Stage::Files(_) | Stage::Manifest(_)) => {
                self.stage = stage;
                self.listen().await
            }
            Stage::Log(check) => self.collect_log(check).await,
            Stage::Segments(check, wal, open) => self.hand_on_wal(check, wal, open).await,
            Stage::Keeping(entry, manifest) => self.hand_on_manifest(entry, manifest).await,
            Stage::Ended => Err(PostgresError::protocol("a base backup was read past its end")),
        }
    }

    async fn listen(&mut self) -> Result<(), PostgresError> {
        let heard = tokio::select! {
            answer = self.base.next_untimed() => Heard::Base(answer),
            message = self.tail.recv() => Heard::Wal(message),
            () = &mut self.silence => Heard::Nothing,
        };
        match heard {
            Heard::Wal(message) => self.tail.keep(message?).await,
            Heard::Nothing => Err(self.silent()),
            Heard::Base(answer) => self.on_answer(answer).await,
        }
    }

    fn silent(&self) -> PostgresError {
        PostgresError::Timeout {
            host: self.base.host().to_owned(),
            waited: SILENCE_MAX,
            doing: "waiting for the base backup",
        }
    }

    async fn on_answer(&mut self, answer: Result<Answer, PostgresError>) -> Result<(), PostgresError> {
        match answer {
            Ok(Answer::Notice(notice)) => self.on_notice(&notice),
            Ok(answer) => {
                if self.start != Lsn::INVALID {
                    self.silence.set(tokio::time::sleep(SILENCE_MAX));
                }
                if let Some(framed) = self.framing.on(answer)? {
                    self.on_framed(framed).await?;
                }
            }
            // The last thing that the server says: everything was sent, and some pages did not match their checksums.
            Err(PostgresError::Server {
                sqlstate, message, ..
            }) if sqlstate == SqlState::DATA_CORRUPTED && self.framing.has_stopped() => {
                self.damage = Some(message);
                self.server_is_done()?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn on_notice(&mut self, notice: &Notice) {
        if notice.severity == Severity::Warning {
            self.warnings.push(notice.message.clone());
        }
    }

    async fn on_framed(&mut self, framed: Framed) -> Result<(), PostgresError> {
        match (framed, &mut self.stage) {
            (Framed::Started { lsn, timeline }, _) => self.started(lsn, timeline).await?,
            (Framed::Tablespaces(tablespaces), _) => {
                let kilobytes = tablespaces
                    .iter()
                    .map(|tablespace| tablespace.kilobytes)
                    .sum::<Option<u64>>();
                self.estimate = kilobytes.map(|kilobytes| kilobytes.saturating_mul(1024));
                self.tablespaces = tablespaces;
                self.outbox.progress(Phase::Copying, 0, self.estimate);
            }
            (Framed::Archive(oid), Stage::Files(intake)) => intake.begin(oid)?,
            (Framed::Data(bytes), Stage::Files(intake)) => {
                self.done += bytes.len() as u64;
                intake.data(bytes, &mut self.outbox).await?;
            }
            (Framed::Done(_), _) => self.outbox.progress(Phase::Copying, self.done, self.estimate),
            (Framed::ManifestBegins, _) => self.manifest_begins().await?,
            (Framed::Manifest(bytes), Stage::Manifest(check)) => check.data(bytes).await?,
            (Framed::Stopped { lsn, timeline }, _) => self.stopped(lsn, timeline)?,
            (Framed::Ready, _) => self.server_is_done()?,
            _ => return Err(PostgresError::protocol("a base backup's parts are out of order")),
        }
        Ok(())
    }

    async fn started(&mut self, lsn: Lsn, timeline: Timeline) -> Result<(), PostgresError> {
        (self.start, self.timeline) = (lsn, timeline);
        self.silence.set(tokio::time::sleep(SILENCE_MAX));
        let histories = self.tail.histories(timeline).await?;
        self.ancestry = histories.ancestry(timeline)?;
        for history in histories.files {
            let path = entry_path(&history.timeline.history_file_name())?;
            self.outbox.text(EntryRole::History, path, history.content)?;
        }
        histories
            .notes
            .into_iter()
            .for_each(|note| self.warnings.push(note));
        self.tail.begin(lsn, timeline).await?;
        self.refuse_left_out().await
    }

    /// One made from the start on is in the WAL; whatever is there now and was there before the start is found now.
    async fn refuse_left_out(&mut self) -> Result<(), PostgresError> {
        match in_place::refuse_left_out(&self.conninfo, self.place.version).await {
            Err(error @ PostgresError::InPlaceTablespaces { .. }) => return Err(error),
            Err(error) => self.warnings.push(format!(
                "tablespaces in pg_tblspc itself, which a base backup leaves out, could not be looked for: {error}"
            )),
            Ok(()) => {}
        }
        Ok(())
    }

    async fn manifest_begins(&mut self) -> Result<(), PostgresError> {
        self.outbox.progress(Phase::Checking, self.done, self.estimate);
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Files(intake) => {
                self.stage = Stage::Manifest(Box::new(intake.into_check(&self.scratch).await?));
                Ok(())
            }
            _ => Err(PostgresError::protocol("a base backup has two manifests")),
        }
    }

    fn stopped(&mut self, lsn: Lsn, timeline: Timeline) -> Result<(), PostgresError> {
        self.stop = lsn;
        match timeline == self.timeline && lsn >= self.start {
            true => Ok(()),
            false => Err(PostgresError::Protocol(format!(
                "the base backup began at {} on timeline {} and stopped at {lsn} on timeline {timeline}",
                self.start, self.timeline
            ))),
        }
    }

    fn server_is_done(&mut self) -> Result<(), PostgresError> {
        self.outbox
            .progress(Phase::CollectingLog, self.done, self.estimate);
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Manifest(check) => {
                self.stage = Stage::Log(check);
                Ok(())
            }
            _ => Err(PostgresError::protocol("a base backup ended without a manifest")),
        }
    }

    async fn collect_log(&mut self, check: Box<ManifestCheck>) -> Result<(), PostgresError> {
        while !self.tail.has(self.stop) {
            let message = tokio::time::timeout(SILENCE_MAX, self.tail.recv()).await;
            self.tail.keep(message.map_err(|_| self.silent())??).await?;
        }
        self.tail.finish().await?;
        let wal = self.tail.read_back(self.stop, self.ancestry.clone())?;
        self.stage = Stage::Segments(check, Box::new(wal), None);
        Ok(())
    }

    async fn hand_on_wal(
        &mut self,
        check: Box<ManifestCheck>,
        mut wal: Box<ReadBack>,
        open: Option<(OpenEntry, SegmentReader)>,
    ) -> Result<(), PostgresError> {
        let open = match open {
            Some((entry, reader)) => self.hand_on_segment(&mut wal, entry, reader).await?,
            None => match wal.next_segment().await? {
                Some(reader) => Some((self.begin_segment(&reader)?, reader)),
                None => {
                    (self.last_record, self.end_point) = wal.found()?;
                    if self.end_point.is_none() {
                        return Err(PostgresError::Standby);
                    }
                    self.tablespaces_made = wal.tablespaces_made();
                    return self.check_manifest(*check).await;
                }
            },
        };
        self.stage = Stage::Segments(check, wal, open);
        Ok(())
    }

    fn begin_segment(&mut self, reader: &SegmentReader) -> Result<OpenEntry, PostgresError> {
        let path = entry_path(&reader.name.to_string())?;
        self.outbox
            .begin(file(EntryRole::Wal, path, self.place.segment_size.bytes()))
    }

    async fn hand_on_segment(
        &mut self,
        wal: &mut ReadBack,
        mut entry: OpenEntry,
        mut reader: SegmentReader,
    ) -> Result<Option<(OpenEntry, SegmentReader)>, PostgresError> {
        let bytes = wal.bytes(&mut reader).await?;
        if bytes.is_empty() {
            self.outbox.end(entry);
            return Ok(None);
        }
        self.outbox.bytes(&mut entry, bytes);
        Ok(Some((entry, reader)))
    }

    async fn check_manifest(&mut self, check: ManifestCheck) -> Result<(), PostgresError> {
        let bounds = Bounds {
            system: self.place.system,
            start: self.start,
            stop: self.stop,
            timeline: self.timeline,
        };
        let (manifest, length) = check.finish(bounds).await?;
        let entry = self.outbox.begin(file(
            EntryRole::ServerManifest,
            entry_path("backup_manifest")?,
            length,
        ))?;
        self.stage = Stage::Keeping(entry, manifest);
        Ok(())
    }

    async fn hand_on_manifest(
        &mut self,
        mut entry: OpenEntry,
        mut manifest: SpoolReader,
    ) -> Result<(), PostgresError> {
        let bytes = manifest.next().await?;
        if bytes.is_empty() {
            self.outbox.end(entry);
            return self.end();
        }
        self.outbox.bytes(&mut entry, bytes);
        self.stage = Stage::Keeping(entry, manifest);
        Ok(())
    }

    fn end(&mut self) -> Result<(), PostgresError> {
        let warnings = std::mem::take(&mut self.warnings).into_texts();
        let (verdict, notices) = match self.damage.take() {
            None => (Verdict::Good, warnings),
            Some(error) if warnings.is_empty() => (Verdict::Damaged(vec![error]), Vec::new()),
            Some(_) => (Verdict::Damaged(warnings), Vec::new()),
        };
        let facts = serde_json::to_value(self.facts())
            .map_err(|error| PostgresError::Protocol(format!("the facts of a base backup: {error}")))?;
        self.outbox.finish(BaseEnd {
            verdict,
            log: Some(self.log()),
            version: self.place.version.to_string(),
            engine_facts: facts,
            notices,
        });
        Ok(())
    }

    fn log(&self) -> BaseLog {
        BaseLog {
            system: self.place.system.0,
            timeline: self.timeline.0,
            start: self.start.into(),
            stop: self.stop.into(),
            end_point: self.end_point.clone(),
            stop_time: self.tail.server_time(),
            segment_size: self.place.segment_size.bytes(),
        }
    }

    fn facts(&self) -> BaseFacts {
        let outside = |tablespace: &Tablespace| {
            let oid = tablespace.oid?;
            Some(TablespaceFact {
                oid,
                location: tablespace.location.clone(),
            })
        };
        BaseFacts {
            version: self.place.version,
            system: self.place.system,
            wal_segment_size: self.place.segment_size,
            data_checksums: self.data_checksums,
            start: self.start,
            stop: self.stop,
            last_record: self.last_record,
            timeline: self.timeline,
            tablespaces: self.tablespaces.iter().filter_map(outside).collect(),
            tablespaces_made: self.tablespaces_made.clone(),
            superuser: self.superuser.clone(),
        }
    }

    fn put_captured(&mut self, captured: settings::Captured) -> Result<(), PostgresError> {
        captured
            .notes
            .into_iter()
            .for_each(|note| self.warnings.push(note));
        if let Some(settings) = captured.settings {
            self.outbox
                .text(EntryRole::Settings, entry_path("settings.json")?, settings.into())?;
        }
        for (path, text) in captured.files {
            let path = entry_path(path.trim_start_matches('/'))?;
            self.outbox.text(EntryRole::Configuration, path, text.into())?;
        }
        Ok(())
    }
}

async fn place(base: &mut Connection, identity: ServerIdentity) -> Result<WalPlace, PostgresError> {
    Ok(WalPlace {
        version: server_version(base)?,
        system: identity.system,
        segment_size: wal_segment_size(base).await?,
    })
}

async fn data_checksums(base: &mut Connection) -> Result<DataChecksums, PostgresError> {
    match show(base, "data_checksums").await?.as_str() {
        "on" => Ok(DataChecksums::On),
        _ => Ok(DataChecksums::Off),
    }
}

#[async_trait]
impl BaseReader for BaseBackup {
    async fn next(&mut self) -> Result<BaseStep, SourceError> {
        Ok(self.next_step().await?)
    }
}
