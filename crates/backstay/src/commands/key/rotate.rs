//! `key rotate`: gives every configured recipient a wrap in every envelope.
//!
//! Promise: nothing is changed before `--confirm`; wraps are only added, so an interrupted rotation is continued by
//! running it again. A key that was taken out of the configuration goes on opening what it opened.

use crate::access;
use crate::cli::KeyRotate;
use crate::failure::Failure;
use crate::render::Report;
use crate::render::look::Look;
use crate::session::Session;
use backstay_repository::layout::EnvelopePlace;
use backstay_repository::{EnvelopeSeen, Repository};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Prints the plan, and with `--confirm` carries it out.
pub async fn rotate(session: &mut Session, arguments: &KeyRotate) -> Result<Box<dyn Report>, Failure> {
    let repository = access::repository(session).await?;
    let plan = Plan::make(&repository).await?;
    if !arguments.confirm {
        return Ok(Box::new(plan));
    }
    let mut added = 0;
    for (place, _) in &plan.lacking {
        added += repository.rewrap(place).await?;
    }
    Ok(Box::new(Rotated { added }))
}

/// Envelopes that lack a wrap.
struct Plan {
    envelopes: usize,
    lacking: Vec<(EnvelopePlace, EnvelopeSeen)>,
}

impl Plan {
    /// Every envelope is looked at first: one that cannot be opened stops the rotation before it has begun.
    async fn make(repository: &Repository) -> Result<Plan, Failure> {
        let places = repository.envelopes().await?;
        let envelopes = places.len();
        let mut lacking = Vec::new();
        for place in places {
            let seen = repository.look_at_envelope(&place).await?;
            if let Some(error) = seen.refusal() {
                return Err(error.into());
            }
            if !seen.lacking.is_empty() {
                lacking.push((place, seen));
            }
        }
        Ok(Plan { envelopes, lacking })
    }

    fn by_recipient(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for recipient in self.lacking.iter().flat_map(|(_, seen)| &seen.lacking) {
            *counts.entry(recipient.as_str()).or_default() += 1;
        }
        counts
    }
}

impl Report for Plan {
    fn human(&self, _: &Look) -> String {
        if self.lacking.is_empty() {
            let envelopes = self.envelopes;
            return format!(
                "every configured recipient has a wrap in each of {envelopes} envelopes: nothing to do\n"
            );
        }
        let mut text = format!(
            "Plan: add wraps to {} of {} envelopes\n",
            self.lacking.len(),
            self.envelopes
        );
        for (recipient, count) in self.by_recipient() {
            text.push_str(&format!("  {count:>6}  for {recipient}\n"));
        }
        text + "Nothing was changed. To carry it out: backstay key rotate --confirm\n"
    }

    fn json(&self) -> Value {
        json!({ "envelopes": self.envelopes, "lacking": self.lacking.len(), "wraps": self.by_recipient() })
    }
}

struct Rotated {
    added: usize,
}

impl Report for Rotated {
    fn human(&self, _: &Look) -> String {
        format!("added     {} wraps\nnext      backstay key check\n", self.added)
    }

    fn json(&self) -> Value {
        json!({ "added": self.added })
    }
}
