//! Takes a full backup of one source.
//!
//! Promise: a backup exists only when its head is committed; whatever fails before leaves nothing that a reader
//! sees. The run is recorded before and after.
//! Not here: when backups are due (plan::schedule, later), the order of writes (backstay-repository).

mod committed;

pub(crate) use committed::Committed;

use super::recorded::recorded;
use crate::{EngineError, Fact, Observer};
use backstay_repository::{
    BackupOrder, BackupSummary, BaseWriter, EndPoint, Head, HeadLog, HeadVerdict, Repository,
};
use backstay_source::{BaseEnd, BaseLog, BaseReader, BaseRequest, BaseStep, Checkpoint, Source, Verdict};
use backstay_terms::{RetentionClass, RunId, SourceName};
use std::path::PathBuf;
use std::sync::Arc;

/// A backup to take.
#[derive(Clone, Debug)]
pub struct BackupJob {
    /// The service.
    pub name: SourceName,
    /// The running system.
    pub source: Arc<dyn Source>,
    /// Where to.
    pub repository: Repository,
    /// How long it is kept.
    pub class: RetentionClass,
    /// How the server reaches its checkpoint.
    pub checkpoint: Checkpoint,
    /// An upper bound for reading, in kB/s.
    pub rate_max: Option<u32>,
    /// An empty directory of this run.
    pub scratch: PathBuf,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
}

impl BackupJob {
    /// Takes the backup.
    pub async fn run(&self) -> Result<Head, EngineError> {
        let figures = |head: &Head| Committed::of(head).figures(&head.totals);
        recorded(
            &self.repository,
            "backup",
            self.name.as_str(),
            |run| self.take(run),
            figures,
        )
        .await
    }

    async fn take(&self, run: RunId) -> Result<Head, EngineError> {
        let identity = self.source.identify().await?;
        let order = BackupOrder {
            engine: identity.engine,
            source: self.name.clone(),
            class: self.class,
            run: Some(run),
        };
        let mut writer = BaseWriter::begin(&self.repository, order).await?;
        let label = format!("backstay {}", writer.place().backup);
        let request = BaseRequest {
            label,
            checkpoint: self.checkpoint,
            rate_max: self.rate_max,
            scratch: self.scratch.clone(),
        };
        let mut reader = self.source.begin_base(request).await?;
        let end = self.copy(reader.as_mut(), &mut writer).await?;
        let head = writer.commit(summary(end)).await?;
        let (backup, stored) = (head.backup.clone(), head.totals.stored);
        self.observer.observe(&Fact::BackupCommitted { backup, stored });
        Ok(head)
    }

    async fn copy(
        &self,
        reader: &mut dyn BaseReader,
        writer: &mut BaseWriter,
    ) -> Result<BaseEnd, EngineError> {
        loop {
            match reader.next().await? {
                BaseStep::Entry { number, header } => writer.open_entry(number, header).await?,
                BaseStep::Bytes {
                    number,
                    offset,
                    bytes,
                } => writer.append(number, offset, &bytes).await?,
                BaseStep::EntryEnd { number } => writer.close_entry(number).await?,
                BaseStep::Progress(progress) => self.observer.observe(&Fact::BaseProgress(progress)),
                BaseStep::End(end) => return Ok(*end),
            }
        }
    }
}

fn summary(end: BaseEnd) -> BackupSummary {
    let (verdict, damage) = match end.verdict {
        Verdict::Good => (HeadVerdict::Good, Vec::new()),
        Verdict::Damaged(damage) => (HeadVerdict::Damaged, damage),
    };
    let BaseEnd {
        log,
        version,
        engine_facts: engine,
        notices,
        ..
    } = end;
    BackupSummary {
        verdict,
        damage,
        version,
        log: log.map(head_log),
        engine,
        notices,
    }
}

fn head_log(log: BaseLog) -> HeadLog {
    let end_point = log.end_point.map(|point| EndPoint {
        start: point.start,
        crc: point.crc,
    });
    let BaseLog {
        system,
        timeline,
        start,
        stop,
        stop_time,
        segment_size,
        ..
    } = log;
    HeadLog {
        system,
        timeline,
        start,
        stop,
        segment_size,
        stop_time,
        end_point,
    }
}
