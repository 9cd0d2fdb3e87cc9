//! `expire`: removes what its promise no longer covers.
//!
//! Promise: the plan is printed first; nothing goes before the service is named once more, and nothing that was not in
//! the plan that was printed.

use crate::access;
use crate::cli::Expire;
use crate::codes::Code;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::Look;
use crate::session::Session;
use crate::units::count;
use crate::watch::Watch;
use backstay_engine::jobs::expire::{ExpireJob, Expired};
use backstay_engine::plan::retention::{ExpiryPlan, ExpiryPolicy};
use backstay_terms::{ByteCount, EngineKind};
use serde_json::{Value, json};
use std::sync::Arc;

/// Prints the plan, and with `--confirm SERVICE` carries it out.
pub async fn expire(session: &mut Session, arguments: &Expire) -> Result<Box<dyn Report>, Failure> {
    let config = session.config()?;
    let service = config.service(&arguments.service)?;
    let job = ExpireJob {
        name: service.name.clone(),
        engine: EngineKind::Postgres,
        repository: access::repository(session).await?,
        policy: ExpiryPolicy::of(EngineKind::Postgres),
        observer: Arc::new(Watch::new(session.progress())),
    };
    let planned = Planned(job.plan().await?);
    match arguments.confirm.as_deref() {
        None => return Ok(Box::new(planned)),
        Some(name) if name == service.name.as_str() => {}
        Some(other) => {
            let message = format!("{other} was confirmed, and the plan is for {}", service.name);
            let help = format!("backstay expire {0} --confirm {0}", service.name);
            return Err(Failure::new(Code::NotConfirmed, message, help));
        }
    }
    session.printer.note(planned.text().trim_end());
    Ok(Box::new(Done(job.run(&planned.0).await?)))
}

struct Planned(ExpiryPlan);

impl Planned {
    fn text(&self) -> String {
        let plan = &self.0;
        let mut text = format!("Plan for {}\n", plan.source);
        for removal in &plan.removals {
            let objects = removal.objects();
            let first = objects.first().map_or("", |object| object.name.as_str());
            let (number, bytes) = (count(objects.len(), "object"), ByteCount(removal.bytes()));
            text.push_str(&format!(
                "  remove  {first}  ({number}, {bytes})\n          {}\n",
                removal.reason()
            ));
        }
        for kept in &plan.kept {
            text.push_str(&format!("  keep    {}\n          {}\n", kept.what, kept.because));
        }
        let (objects, bytes) = plan.size();
        let objects = count(objects as usize, "object");
        text + &format!("{objects}, {} to remove\n", ByteCount(bytes))
    }
}

impl Report for Planned {
    fn human(&self, _: &Look) -> String {
        let source = &self.0.source;
        match self.0.removals.is_empty() {
            true => self.text(),
            false => {
                self.text()
                    + &format!(
                        "Nothing was removed. To carry it out: backstay expire {source} --confirm {source}\n"
                    )
            }
        }
    }

    fn json(&self) -> Value {
        let plan = &self.0;
        let (objects, bytes) = plan.size();
        let kept: Vec<Value> = plan
            .kept
            .iter()
            .map(|kept| json!({ "what": kept.what, "because": kept.because }))
            .collect();
        json!({
            "service": plan.source, "removals": plan.removals, "kept": kept, "objects": objects, "bytes": bytes,
            "carried_out": false,
        })
    }
}

struct Done(Expired);

impl Report for Done {
    fn human(&self, _: &Look) -> String {
        let Expired { removed, skipped, .. } = &self.0;
        let objects = count(removed.objects as usize, "object");
        let mut text = format!("removed   {objects}, {}\n", ByteCount(removed.bytes));
        for skipped in skipped {
            text.push_str(&format!("kept      {skipped}\n"));
        }
        text
    }

    fn json(&self) -> Value {
        json!({ "expired": self.0, "carried_out": true })
    }

    fn exit(&self) -> Exit {
        if self.0.skipped.is_empty() {
            Exit::Done
        } else {
            Exit::Incomplete
        }
    }
}
