//! PostgreSQL as a source: the ports of `backstay-source`.
//!
//! Promise: each call connects anew, so a changed password or address counts at once.
//! Not here: base backups (base_backup), the stream (replication), restoring (restore).

mod check;
mod slot;

pub use slot::{SlotState, SlotUse};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backstay_clock::Clock;
use backstay_source::{
    BaseReader, BaseRequest, Finding, Identity, Kept, LogOffer, LogReader, LogSource, Preceding, Resume,
    Source, SourceError, SourceErrorKind,
};
use backstay_terms::ByteCount;

use crate::base_backup::BaseBackup;
use crate::connection::{Connection, Mode};
use crate::conninfo::Conninfo;
use crate::replication::command::{SlotDropped, SlotInUse, SlotName, drop_slot};
use crate::replication::log_reader::follow;
use crate::replication::stream::{Slot, StreamOptions, identify};

/// How long the server may take to notice that we do not stream any more.
const FORGET_WAIT_MAX: Duration = Duration::from_secs(5);

/// A PostgreSQL server that is backed up and followed.
#[derive(Debug, Clone)]
pub struct PostgresSource {
    conninfo: Conninfo,
    slot: Option<Slot>,
    made_slot: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
}

impl PostgresSource {
    /// The server at `conninfo`, followed through `slot`; without a slot it may remove WAL before it was read.
    pub fn new(conninfo: Conninfo, slot: Option<Slot>, clock: Arc<dyn Clock>) -> Self {
        Self {
            conninfo,
            slot,
            made_slot: Arc::default(),
            clock,
        }
    }

    /// How to connect.
    pub fn conninfo(&self) -> &Conninfo {
        &self.conninfo
    }

    /// The slot it is followed through.
    pub fn slot(&self) -> Option<&SlotName> {
        self.slot.as_ref().map(Slot::name)
    }

    /// Where the slot stands; none if the server has none of that name.
    ///
    /// # Errors
    /// The connection's.
    pub async fn slot_state(&self) -> Result<Option<SlotState>, SourceError> {
        let Some(name) = self.slot() else {
            return Ok(None);
        };
        Ok(slot::state(&self.conninfo, name).await?)
    }

    /// Drops the slot: the server forgets what it kept for us.
    ///
    /// # Errors
    /// `Conflict` while somebody streams from it.
    pub async fn drop_slot(&self) -> Result<SlotDropped, SourceError> {
        let Some(slot) = self.slot() else {
            return Ok(SlotDropped::WasAbsent);
        };
        let mut connection = Connection::connect(&self.conninfo, Mode::Replication).await?;
        Ok(drop_slot(&mut connection, slot, SlotInUse::Refuse).await?)
    }
}

#[async_trait]
impl Source for PostgresSource {
    async fn identify(&self) -> Result<Identity, SourceError> {
        let mut connection = Connection::connect(&self.conninfo, Mode::Replication).await?;
        let identity = identify(&mut connection).await?;
        connection.close().await;
        Ok(identity)
    }

    async fn check(&self) -> Vec<Finding> {
        check::findings(&self.conninfo, self.slot()).await
    }

    async fn begin_base(&self, request: BaseRequest) -> Result<Box<dyn BaseReader>, SourceError> {
        Ok(Box::new(BaseBackup::begin(&self.conninfo, &request).await?))
    }

    fn log(&self) -> LogOffer<'_> {
        LogOffer::Follow(self)
    }
}

#[async_trait]
impl LogSource for PostgresSource {
    async fn follow(&self, resume: Resume, preceding: &Preceding) -> Result<Box<dyn LogReader>, SourceError> {
        let options = StreamOptions {
            conninfo: self.conninfo.clone(),
            slot: self.slot.clone(),
            made_slot: Arc::clone(&self.made_slot),
            clock: self.clock.clone(),
        };
        follow(options, resume, preceding).await
    }

    fn kept_before(&self) -> Option<String> {
        self.slot()
            .filter(|_| !self.made_slot.load(Ordering::Relaxed))
            .map(ToString::to_string)
    }

    async fn kept(&self) -> Result<Option<Kept>, SourceError> {
        let state = self.slot_state().await?;
        Ok(self.slot().zip(state).map(|(name, state)| Kept {
            name: name.to_string(),
            bytes: state.kept.map(ByteCount),
        }))
    }

    async fn forget(&self) -> Result<(), SourceError> {
        let Some(slot) = self
            .slot()
            .filter(|_| self.made_slot.swap(false, Ordering::Relaxed))
        else {
            return Ok(());
        };
        let mut connection = Connection::connect(&self.conninfo, Mode::Replication).await?;
        // Our own stream was closed a moment ago, and the server may not have noticed yet.
        tokio::select! {
            dropped = drop_slot(&mut connection, slot, SlotInUse::Wait) => Ok(dropped.map(drop)?),
            () = self.clock.sleep(FORGET_WAIT_MAX) => {
                let what = format!("the slot {slot} is still in use");
                Err(SourceError::new(SourceErrorKind::Conflict, what, "drop it: backstay slot drop SERVICE --confirm SERVICE"))
            }
        }
    }
}
