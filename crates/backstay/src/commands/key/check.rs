//! `key check`: opens every envelope with every configured key, and with age identities that are named.
//!
//! Promise: nothing is written. A recipient is proved when every envelope that has a wrap for it was opened with it; of
//! an age recipient without its identity the wraps are only counted.

use crate::access;
use crate::cli::KeyCheck;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::identity::{self, Identity};
use crate::render::Report;
use crate::render::look::{Look, Mark};
use crate::render::table::{Column, Table};
use crate::session::Session;
use backstay_repository::{EnvelopeSeen, Opens};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Opens every envelope.
pub async fn check(session: &mut Session, arguments: &KeyCheck) -> Result<Box<dyn Report>, Failure> {
    let identities = identity::read_all(&arguments.identity)?;
    let repository = access::repository(session).await?;
    let mut tally = Tally::of(repository.recipient_names(), &identities);
    for place in repository.envelopes().await? {
        tally.count(&repository.look_at_envelope(&place).await?, &identities);
    }
    Ok(Box::new(tally))
}

/// What was found about one recipient.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    wraps: usize,
    opened: usize,
    lacking: usize,
}

#[derive(Debug)]
struct Tally {
    configured: Vec<String>,
    counts: BTreeMap<String, Count>,
    envelopes: usize,
    closed: Vec<String>,
    /// Files of identities that opened nothing yet.
    unproved: Vec<String>,
}

impl Tally {
    fn of(configured: Vec<String>, identities: &[Identity]) -> Tally {
        let none = |name: &String| (name.clone(), Count::default());
        Tally {
            counts: configured.iter().map(none).collect(),
            configured,
            envelopes: 0,
            closed: Vec::new(),
            unproved: identities.iter().map(|identity| identity.file.clone()).collect(),
        }
    }

    fn count(&mut self, envelope: &EnvelopeSeen, identities: &[Identity]) {
        self.envelopes += 1;
        let mut opened_by_identity = false;
        for seen in &envelope.wraps {
            let wrap = seen.wrap.as_ref();
            let opening = identities
                .iter()
                .filter(|identity| wrap.is_some_and(|wrap| identity.age.opens(&envelope.name, wrap)));
            let opening: Vec<&str> = opening.map(|identity| identity.file.as_str()).collect();
            self.unproved.retain(|file| !opening.contains(&file.as_str()));
            let by_identity = !opening.is_empty();
            opened_by_identity |= by_identity;
            let count = self.counts.entry(seen.recipient.clone()).or_default();
            count.wraps += 1;
            count.opened += usize::from(by_identity || seen.opens == Opens::Yes);
        }
        for recipient in &envelope.lacking {
            self.counts.entry(recipient.clone()).or_default().lacking += 1;
        }
        if envelope.opens() == Opens::No && !opened_by_identity {
            self.closed.push(envelope.name.clone());
        }
    }

    fn verdict(&self, recipient: &str, count: Count) -> (Mark, String) {
        let is_configured = self.configured.iter().any(|name| name == recipient);
        match count {
            Count { lacking, .. } if lacking > 0 => (
                Mark::Warning,
                format!("{lacking} envelopes lack it: backstay key rotate"),
            ),
            Count { wraps, opened, .. } if wraps == opened => (Mark::Good, "opens all of them".to_owned()),
            Count { opened: 0, .. } if recipient.starts_with("age ") => {
                (Mark::Warning, "not proved: give --identity FILE".to_owned())
            }
            Count { .. } if !is_configured => (Mark::Warning, "not configured here".to_owned()),
            Count { wraps, opened, .. } => (Mark::Bad, format!("{} do not open", wraps - opened)),
        }
    }

    /// The configured ones in their order, then the others.
    fn in_order(&self) -> impl Iterator<Item = (&String, &Count)> {
        let configured = self
            .configured
            .iter()
            .filter_map(|name| self.counts.get_key_value(name));
        let others = self
            .counts
            .iter()
            .filter(|(name, _)| !self.configured.contains(name));
        configured.chain(others)
    }

    fn lacking(&self) -> bool {
        self.counts.values().any(|count| count.lacking > 0)
    }
}

impl Report for Tally {
    fn human(&self, look: &Look) -> String {
        let mut table = Table::new([
            Column::needed("RECIPIENT"),
            Column::useful("WRAPS").right(),
            Column::useful("OPENED").right(),
            Column::needed("STATE"),
        ]);
        for (recipient, count) in self.in_order() {
            let (mark, words) = self.verdict(recipient, *count);
            let (wraps, opened) = (count.wraps.to_string(), count.opened.to_string());
            table.row([
                recipient.clone(),
                wraps,
                opened,
                format!("{} {words}", look.sign(mark)),
            ]);
        }
        let mut text = table.render(look);
        for name in &self.closed {
            text.push_str(&format!(
                "{} no configured key opens {name}\n",
                look.mark(Mark::Bad)
            ));
        }
        for file in &self.unproved {
            text.push_str(&format!(
                "{} the identity in {file} opens nothing here\n",
                look.mark(Mark::Bad)
            ));
        }
        let opened = self.envelopes - self.closed.len();
        text + &format!("{opened} of {} envelopes can be opened\n", self.envelopes)
    }

    fn json(&self) -> Value {
        let one = |(recipient, count): (&String, &Count)| {
            json!({
                "recipient": recipient,
                "configured": self.configured.contains(recipient),
                "wraps": count.wraps, "opened": count.opened, "lacking": count.lacking,
            })
        };
        let recipients: Vec<Value> = self.in_order().map(one).collect();
        json!({ "envelopes": self.envelopes, "closed": self.closed, "unproved_identities": self.unproved, "recipients": recipients })
    }

    fn exit(&self) -> Exit {
        match (self.closed.is_empty() && self.unproved.is_empty(), self.lacking()) {
            (false, _) => Exit::Key,
            (true, true) => Exit::Objective,
            (true, false) => Exit::Done,
        }
    }
}
