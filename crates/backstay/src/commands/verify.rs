//! `verify`: looks at what is stored, as deep as is wanted.

use super::seen::chosen;
use crate::access;
use crate::cli::{DepthWanted, Verify};
use crate::codes::Code;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::identity;
use crate::render::Report;
use crate::render::human::clean;
use crate::render::look::{Look, Mark};
use crate::session::Session;
use crate::units::count;
use backstay_engine::jobs::verify::{Depth, Recording, Verified, VerifiedService, VerifyJob};
use backstay_postgres::wal::PostgresLog;
use backstay_repository::HoleKind;
use backstay_terms::{ByteCount, EngineKind, Lsn};
use serde_json::{Value, json};
use std::sync::Arc;

/// Verifies one service, or all of which anything is stored.
pub async fn verify(session: &mut Session, arguments: &Verify) -> Result<Box<dyn Report>, Failure> {
    let config = session.config()?;
    let services = match &arguments.service {
        Some(name) => chosen(&config, Some(name))?,
        None => Vec::new(),
    };
    let identities = identity::read_all(&arguments.identity)?;
    let job = VerifyJob {
        repository: access::repository(session).await?,
        services: services
            .iter()
            .map(|service| (EngineKind::Postgres, service.name.clone()))
            .collect(),
        depth: match arguments.depth {
            DepthWanted::List => Depth::Listed,
            DepthWanted::Structure => Depth::Structure,
            DepthWanted::Everything => Depth::Everything,
        },
        formats: vec![(EngineKind::Postgres, Arc::new(PostgresLog))],
        identities: identities.into_iter().map(|identity| identity.age).collect(),
        recording: if arguments.no_record {
            Recording::Skipped
        } else {
            Recording::Written
        },
    };
    let verified = job
        .run()
        .await
        .map_err(|error| unrecorded(Failure::from(error), arguments));
    Ok(Box::new(Outcome(verified?)))
}

/// Verifying writes nothing but its record, so a store that takes nothing has refused that.
fn unrecorded(failure: Failure, arguments: &Verify) -> Failure {
    let is_about_writing = matches!(
        failure.code,
        Code::StoreDenied | Code::StoreReadOnly | Code::NoSpace
    );
    match is_about_writing && !arguments.no_record {
        true => failure.or("or verify without a record of it: backstay verify --no-record"),
        false => failure,
    }
}

struct Outcome(Verified);

fn counts(service: &VerifiedService, depth: Depth) -> String {
    let VerifiedService { source, counts, .. } = service;
    let objects = count(counts.objects as usize, "object");
    let mut text = format!(
        "{source}: {}, {} of log, {objects}, {}",
        count(counts.backups as usize, "backup"),
        count(counts.ranges as usize, "range"),
        ByteCount(counts.bytes)
    );
    if depth == Depth::Everything {
        let files = count(counts.files as usize, "file");
        let (bytes, log) = (ByteCount(counts.file_bytes), ByteCount(counts.log_bytes));
        text.push_str(&format!("; {files} read and compared ({bytes}), {log} of log"));
    }
    text
}

impl Report for Outcome {
    fn human(&self, look: &Look) -> String {
        let Outcome(verified) = self;
        let mut text = String::new();
        for finding in &verified.findings {
            let invariant = serde_json::to_value(finding.invariant).unwrap_or_default();
            let invariant = invariant.as_str().unwrap_or_default().to_owned();
            let (mark, object) = (look.mark(Mark::Bad), clean(&finding.object));
            text.push_str(&format!(
                "{mark} {invariant}  {object}: {}\n",
                clean(&finding.what)
            ));
            if let Some(next) = &finding.next {
                text.push_str(&format!("  next: {}\n", clean(next)));
            }
        }
        for hole in &verified.holes {
            let (mark, from, to) = (
                look.mark(Mark::Warning),
                Lsn::from(hole.range.from),
                Lsn::from(hole.range.to),
            );
            let (what, next) = match hole.kind {
                HoleKind::Declared => (
                    "is a gap that the stream declared when it attached after it: nothing in it can be recovered",
                    "backstay wal gaps",
                ),
                _ => (
                    "is not stored yet: an upload of it may be under way",
                    "backstay verify",
                ),
            };
            text.push_str(&format!(
                "{mark} log of {} from {from} to {to} {what}\n  next: {next}\n",
                hole.branch
            ));
        }
        for late in &verified.unsettled {
            let (mark, since) = (look.mark(Mark::Warning), look.time(late.since));
            let next = "next: backstay wal settle";
            text.push_str(&format!(
                "{mark} log of {} is unsettled since {since}\n  {next}\n",
                late.branch
            ));
        }
        for service in &verified.services {
            text.push_str(&format!("{}\n", counts(service, verified.depth)));
        }
        let wrong = match verified.findings.len() {
            0 => "nothing is wrong".to_owned(),
            number => format!("{} wrong", count(number, "thing")),
        };
        text + &format!("{wrong}\n")
    }

    fn json(&self) -> Value {
        json!(self.0)
    }

    fn exit(&self) -> Exit {
        if self.0.findings.is_empty() {
            Exit::Done
        } else {
            Exit::Integrity
        }
    }
}
