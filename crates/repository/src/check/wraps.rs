//! Checks envelopes, wrap by wrap: a damaged one is named while another one still opens the envelope.
//!
//! Promise: a wrap for a configured key, or for an age identity that is given, must open with it, and every wrap must lie under
//! the name that it was made for. Of wraps for others only their form is known.
//! Not here: using them (envelopes), what is sealed with the keys.

use super::{CheckFinding, Invariant};
use crate::envelopes::{Opens, WrapSeen};
use crate::inventory::Inventory;
use crate::layout::{self, EnvelopePlace, LogPlace};
use crate::recipients::Ready;
use crate::{Repository, RepositoryError};
use backstay_codec::AgeIdentity;
use backstay_store::{Key, Prefix, list_all};
use backstay_terms::{EngineKind, EpochId, RetentionClass, SourceName};
use std::collections::{BTreeMap, BTreeSet};

impl Repository {
    /// Opens every wrap of a source; gives back how many envelopes open.
    pub async fn check_envelopes(
        &self,
        engine: EngineKind,
        source: &SourceName,
        identities: &[AgeIdentity],
    ) -> Result<(u64, Vec<CheckFinding>), RepositoryError> {
        let mut prefixes = vec![log_keys(engine, source)?];
        for class in RetentionClass::ALL {
            prefixes.push(layout::parts_prefix(engine, "keys", class, source)?);
        }
        self.check_wraps(&prefixes, identities).await
    }

    /// Opens every wrap of the months of facts.
    pub async fn check_months(
        &self,
        identities: &[AgeIdentity],
    ) -> Result<(u64, Vec<CheckFinding>), RepositoryError> {
        let prefix = Prefix::new("facts/keys/")?;
        let objects = list_all(self.store(), &prefix, None).await?;
        let mut findings = strays(objects.iter().map(|object| &object.key));
        let (opened, wrong) = self.check_wraps(&[prefix], identities).await?;
        findings.extend(wrong);
        Ok((opened, findings))
    }

    /// What names alone tell of the keys of a log: names of no wrap, and ranges of an epoch that has none.
    pub async fn check_key_names(&self, inventory: &Inventory) -> Result<Vec<CheckFinding>, RepositoryError> {
        let (engine, source) = (inventory.engine, &inventory.source);
        let objects = list_all(self.store(), &log_keys(engine, source)?, None).await?;
        let mut findings = strays(objects.iter().map(|object| &object.key));
        let known: BTreeSet<EnvelopePlace> = objects
            .iter()
            .filter_map(|object| layout::envelope_of_wrap(&object.key))
            .collect();
        let mut ranges: BTreeMap<&EpochId, u64> = BTreeMap::new();
        for range in inventory.branches.iter().flat_map(|branch| &branch.ranges) {
            *ranges.entry(&range.stored.name.epoch).or_default() += 1;
        }
        for (epoch, count) in ranges {
            let envelope = EnvelopePlace::epoch(engine, source, epoch);
            if !known.contains(&envelope) {
                let what = format!("no wrap of its keys is stored: {count} of its ranges cannot be opened");
                let next = format!(
                    "bring {}* back from a copy of the repository; a stream of {source} that has run since before they went stores \
                     those of its own epoch again within the hour, or when it is stopped; else: backstay backup {source}",
                    envelope.prefix()?.as_str()
                );
                findings.push(CheckFinding::new(&envelope.name, Invariant::Key2, what).then(next));
            }
        }
        Ok(findings)
    }

    async fn check_wraps(
        &self,
        prefixes: &[Prefix],
        identities: &[AgeIdentity],
    ) -> Result<(u64, Vec<CheckFinding>), RepositoryError> {
        let mut envelopes = BTreeSet::new();
        for prefix in prefixes {
            let objects = list_all(self.store(), prefix, None).await?;
            envelopes.extend(
                objects
                    .iter()
                    .filter_map(|object| layout::envelope_of_wrap(&object.key)),
            );
        }
        let (mut opened, mut findings) = (0, Vec::new());
        for envelope in envelopes {
            let seen = self.look_at_envelope(&envelope).await?;
            findings.extend(
                seen.wraps
                    .iter()
                    .filter_map(|wrap| self.check_wrap(&envelope, wrap, identities)),
            );
            match seen.refusal() {
                None => opened += 1,
                // It expired with its backup since it was listed.
                Some(_) if seen.wraps.is_empty() => {}
                Some(refusal) => findings.push(CheckFinding::of(&envelope.name, refusal)?),
            }
        }
        Ok((opened, findings))
    }

    fn check_wrap(
        &self,
        envelope: &EnvelopePlace,
        seen: &WrapSeen,
        identities: &[AgeIdentity],
    ) -> Option<CheckFinding> {
        let of_this_form = |object: &str| layout::envelope_of_wrap(&Key::new(object).ok()?);
        // A name of another form is a finding of its own.
        of_this_form(&seen.object)?;
        let finding = |invariant, what: String| Some(CheckFinding::new(&seen.object, invariant, what));
        let Some(wrap) = &seen.wrap else {
            return finding(Invariant::Key2, "it is no wrap of keys".to_owned());
        };
        if wrap.envelope() != envelope.name {
            let what = format!(
                "it was made for {}: it was renamed, or put in place of another",
                wrap.envelope()
            );
            return finding(Invariant::Repo1, what);
        }
        if let Some(other) = wrap.repository().filter(|id| *id != self.id()) {
            let what = format!("it was made in repository {other}: it was changed, or put here from there");
            return finding(Invariant::Repo1, what);
        }
        if let Err(error) = wrap.check_form() {
            return finding(Invariant::Key2, error.to_string());
        }
        let recipient = &seen.recipient;
        let named = |identity: &&AgeIdentity| recipient.strip_prefix("age ") == Some(identity.recipient());
        if let Some(identity) = identities.iter().find(named) {
            let changed =
                format!("it was made for {recipient}, whose identity does not open it: it was changed");
            return match identity.opens(&envelope.name, wrap) {
                true => None,
                false => finding(Invariant::Key2, changed),
            };
        }
        let is_ours = |ready: &&Ready| !matches!(ready, Ready::Age(_)) && ready.name() == seen.recipient;
        let ours = self.ready().iter().find(is_ours)?;
        (seen.opens == Opens::No).then_some(())?;
        let what = format!(
            "it was made for {}, which is configured and does not open it: it was changed",
            ours.name()
        );
        finding(Invariant::Key2, what)
    }
}

fn log_keys(engine: EngineKind, source: &SourceName) -> Result<Prefix, RepositoryError> {
    LogPlace {
        engine,
        source: source.clone(),
    }
    .keys_prefix()
}

fn strays<'a>(keys: impl Iterator<Item = &'a Key>) -> Vec<CheckFinding> {
    keys.filter(|key| layout::envelope_of_wrap(key).is_none())
        .map(|key| CheckFinding::stray(key.as_str()))
        .collect()
}
