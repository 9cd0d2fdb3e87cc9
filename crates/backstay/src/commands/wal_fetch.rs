//! `wal fetch`: one file of the log, for a server that recovers.
//!
//! Promise: silent when it went well, because PostgreSQL runs it for every segment.
//! Not here: its exits (wal_fetch_guard), what counts as proof of absence (engine).

use crate::access;
use crate::cli::WalFetch;
use crate::codes::Code;
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::Look;
use crate::session::Session;
use backstay_engine::jobs::fetch::{FetchJob, Fetched};
use backstay_terms::{EngineKind, Position};
use serde_json::{Value, json};

/// Fetches the file, or fails in a way that says whether it will ever exist.
pub async fn fetch(session: &mut Session, arguments: &WalFetch) -> Result<Box<dyn Report>, Failure> {
    let config = session.config()?;
    let service = config.service(&arguments.service)?;
    let job = FetchJob {
        repository: access::repository(session).await?,
        engine: EngineKind::Postgres,
        name: service.name.clone(),
        lineage: arguments.lineage,
        base: arguments.base.clone(),
        until: arguments.until.map(Position::from),
        file: arguments.file.clone(),
        destination: arguments.destination.clone(),
    };
    match job.run().await? {
        Fetched::Delivered { bytes } => Ok(Box::new(Delivered(bytes))),
        Fetched::AbsentProved { reason } => {
            let message = format!("{} does not exist: {reason}", arguments.file);
            let help = "this is how a server learns where the log ends; nothing is to be done";
            Err(Failure::new(Code::SegmentAbsent, message, help))
        }
    }
}

struct Delivered(u64);

impl Report for Delivered {
    fn human(&self, _: &Look) -> String {
        String::new()
    }

    fn json(&self) -> Value {
        json!({ "bytes": self.0 })
    }
}
