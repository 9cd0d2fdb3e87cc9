//! Do the configured keys open what is stored, and would losing one of them lose everything.

use super::failed;
use crate::config::{Config, KeySource};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::units::count;
use backstay_repository::layout::EnvelopePlace;
use backstay_repository::{KeyWarning, Repository};
use backstay_source::Finding;
use std::collections::BTreeMap;

pub(super) async fn findings(config: &Config, opened: &Result<Repository, Failure>) -> Vec<Finding> {
    let repository = match opened {
        Ok(repository) => repository,
        Err(failure) if failure.code.exit() == Exit::Key => return vec![failed("keys", failure)],
        // Why it could not be opened is told already.
        Err(_) => return Vec::new(),
    };
    let mut findings = vec![newest(repository).await];
    let file = config.file.display();
    if config
        .keys
        .iter()
        .all(|key| matches!(key.value, KeySource::Age(_)))
    {
        findings.push(Finding::failure(
            "opening",
            "no configured key opens what is written here: an age recipient can only write, so every backup is refused",
            format!("add a raw key or a passphrase under keys: in {file}; backstay key new makes one"),
        ));
    }
    findings.extend(repository.key_warnings().into_iter().map(|warning| match warning {
        KeyWarning::NotEncrypted => Finding::warning(
            "encryption",
            "nothing is encrypted: whoever reads the repository reads the data",
            format!("put a key in place of none under keys: in {file}; what is stored already stays readable"),
        ),
        KeyWarning::SingleRecipient => Finding::warning(
            "recipients",
            "one key opens everything, and with it everything is lost",
            format!("add a passphrase or an age recipient under keys: in {file}, then: backstay key rotate --confirm"),
        ),
    }));
    findings
}

/// Opens the newest envelope of each kind: those that the next backup and the next restore need.
async fn newest(repository: &Repository) -> Finding {
    match closed(repository).await {
        Ok((0, _)) => Finding::good("keys", "nothing is stored yet that needs one"),
        Ok((looked_at, None)) => Finding::good(
            "keys",
            format!("they open the newest {}", count(looked_at, "envelope")),
        ),
        Ok((_, Some(failure))) | Err(failure) => failed("keys", &failure),
    }
}

/// How many were looked at, and why the first of them that is closed does not open.
async fn closed(repository: &Repository) -> Result<(usize, Option<Failure>), Failure> {
    let envelopes = repository.envelopes().await?;
    let mut newest: BTreeMap<&str, &EnvelopePlace> = BTreeMap::new();
    for place in &envelopes {
        let kind = place.name.rsplit_once('/').map_or("", |(kind, _)| kind);
        let known = newest.entry(kind).or_insert(place);
        // Ids and months sort by time.
        if known.name < place.name {
            *known = place;
        }
    }
    for place in newest.values() {
        if let Some(refusal) = repository.look_at_envelope(place).await?.refusal() {
            return Ok((newest.len(), Some(refusal.into())));
        }
    }
    Ok((newest.len(), None))
}
