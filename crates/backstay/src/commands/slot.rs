//! `slot show` and `slot drop`: the replication slot that keeps WAL at the server for us.
//!
//! Promise: a slot is dropped only after its service was named twice; what that costs is said before.

use crate::access;
use crate::cli::{SlotDrop, SlotShow};
use crate::codes::Code;
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::Look;
use crate::session::Session;
use backstay_postgres::replication::command::SlotDropped;
use backstay_postgres::{SlotState, SlotUse};
use backstay_source::{SourceError, SourceErrorKind};
use backstay_terms::ByteCount;
use serde_json::{Value, json};

/// Shows where the slot stands.
pub async fn show(session: &mut Session, arguments: &SlotShow) -> Result<Box<dyn Report>, Failure> {
    let config = session.config()?;
    let service = config.service(&arguments.service)?;
    let state = access::server(session, service)?.slot_state().await?;
    Ok(Box::new(Shown {
        service: service.name.to_string(),
        slot: service.slot.value.clone(),
        state,
    }))
}

/// Drops the slot.
pub async fn drop(session: &mut Session, arguments: &SlotDrop) -> Result<Box<dyn Report>, Failure> {
    let config = session.config()?;
    let service = config.service(&arguments.service)?;
    let slot = service.slot.value.clone();
    let name = service.name.to_string();
    if arguments.confirm.as_deref() != Some(name.as_str()) {
        let message = format!("dropping the slot {slot} was not confirmed");
        let help =
            format!("if the stream of {name} is gone for good: backstay slot drop {name} --confirm {name}");
        let cost =
            "the server then removes WAL that is not stored yet: recovery has a gap until the next backup";
        return Err(Failure::new(Code::NotConfirmed, message, help).fact("means", cost));
    }
    let dropped = access::server(session, service)?.drop_slot().await;
    let dropped = dropped.map_err(|error| refused(&error, &name))?;
    Ok(Box::new(Dropped { slot, name, dropped }))
}

fn refused(error: &SourceError, name: &str) -> Failure {
    let mut failure = Failure::from(error);
    if error.kind == SourceErrorKind::Conflict {
        failure.help = vec![format!(
            "stop `backstay stream {name}` first, wherever it runs; then run this again"
        )];
    }
    failure
}

struct Shown {
    service: String,
    slot: String,
    state: Option<SlotState>,
}

impl Report for Shown {
    fn human(&self, _: &Look) -> String {
        let Shown { service, slot, state } = self;
        let Some(state) = state else {
            return format!(
                "slot      {slot}: the server has none; it is made by: backstay stream {service}\n"
            );
        };
        let active = match state.use_now {
            SlotUse::Active => "in use",
            SlotUse::Idle => "nobody streams from it",
            SlotUse::Untold => "the server told only where it stands, as no ordinary connection was let in",
        };
        let status = match (&state.wal_status, state.restart) {
            (Some(status), _) => format!(" ({status})"),
            (None, Some(_)) => String::new(),
            (None, None) => " (nothing reserved yet)".to_owned(),
        };
        let restart = state.restart.map_or("-".to_owned(), |lsn| lsn.to_string());
        let kept = state
            .kept
            .map_or("-".to_owned(), |bytes| ByteCount(bytes).to_string());
        format!("slot      {slot}: {active}\nkeeps     WAL from {restart} on, {kept}{status}\n")
    }

    fn json(&self) -> Value {
        let state = self.state.as_ref().map(|state| {
            json!({
                "active": in_use(state.use_now),
                "restart_lsn": state.restart,
                "kept_bytes": state.kept,
                "wal_status": state.wal_status,
            })
        });
        json!({ "service": self.service, "slot": self.slot, "state": state })
    }
}

/// None: it was not told.
fn in_use(use_now: SlotUse) -> Option<bool> {
    match use_now {
        SlotUse::Active => Some(true),
        SlotUse::Idle => Some(false),
        SlotUse::Untold => None,
    }
}

struct Dropped {
    slot: String,
    name: String,
    dropped: SlotDropped,
}

impl Report for Dropped {
    fn human(&self, _: &Look) -> String {
        match self.dropped {
            SlotDropped::Now => {
                let Dropped { slot, name, .. } = self;
                format!(
                    "dropped   {slot}\nnext      if the server removes WAL before the next stream begins, there is a gap: take a \
                     backup then: backstay backup {name}\n"
                )
            }
            SlotDropped::WasAbsent => format!("absent    {}: the server has no such slot\n", self.slot),
        }
    }

    fn json(&self) -> Value {
        json!({ "slot": self.slot, "dropped": self.dropped == SlotDropped::Now })
    }
}
