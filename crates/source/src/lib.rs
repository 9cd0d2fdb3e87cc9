//! The ports: what a foreign system must offer so that it can be backed up, followed and restored.
//!
//! Promise: everything here is object-safe and names no engine; an adapter is one crate that implements it.
//! Not here: the repository (adapters never see it) and the jobs that connect the two (backstay-engine).

mod base;
mod error;
mod finding;
mod identity;
mod log;
mod restore;
mod scan;

pub use base::{
    BaseEnd, BaseLog, BaseProgress, BaseReader, BaseRequest, BaseStep, Checkpoint, Phase, Verdict,
};
pub use error::{Retry, SourceError, SourceErrorKind};
pub use finding::{Finding, Severity};
pub use identity::{Ancestor, Identity, LogPlace};
pub use log::{Kept, LogOffer, LogPiece, LogReader, LogSource, LogStart, LogStep, Preceding, Resume};
pub use restore::{
    Evidence, FileSink, Need, Recovery, RecoveryAction, RecoveryStop, Rehearsal, Restore, Space,
    StartRequest, Ticket, WalDelivery,
};
pub use scan::{Hit, LogFormat, LogScanner, Outcome, ScanOrder, Wanted};

use async_trait::async_trait;

/// A running system that can be backed up.
#[async_trait]
pub trait Source: std::fmt::Debug + Send + Sync {
    /// Who it is and where its log ends now.
    async fn identify(&self) -> Result<Identity, SourceError>;

    /// What would stop or weaken a backup or a stream, and how to fix it. Never fails: being unreachable is a finding.
    async fn check(&self) -> Vec<Finding>;

    /// Begins a base. Dropping the reader abandons it at the source.
    async fn begin_base(&self, request: BaseRequest) -> Result<Box<dyn BaseReader>, SourceError>;

    /// Whether it has a log that can be followed.
    fn log(&self) -> LogOffer<'_>;
}
