//! Looks for the wraps of the keys that stored log is sealed with, and puts back what it can.
//!
//! Promise: a wrap is put back only where none opens any more and this process still holds the keys; nothing is overwritten,
//! as a wrap gets a new name. What is put back is opened again before it counts.
//! Not here: when to look (backstay-engine::jobs::stream), every wrap by itself (check::wraps).

use super::coverage::StoredRange;
use super::store::LogStore;
use crate::RepositoryError;
use crate::layout::{self, EnvelopePlace};
use backstay_store::list_all;
use backstay_terms::EpochId;
use std::collections::{BTreeMap, BTreeSet};

/// What became of keys without which stored log does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeysFate {
    /// This process held them: their wraps are stored again.
    PutBack,
    /// Nobody here holds them.
    Lost,
}

/// An epoch whose keys no stored wrap gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysGone {
    /// The epoch.
    pub epoch: EpochId,
    /// How many of the ranges are sealed with them.
    pub ranges: u64,
    /// What became of them.
    pub fate: KeysFate,
}

impl LogStore {
    /// The epochs of these ranges, and of `running`, whose keys no wrap gives any more. Those of which this process holds the
    /// keys, and the one that reaches furthest, are opened; of the others their names tell.
    pub async fn keep_keys(
        &self,
        ranges: &[StoredRange],
        running: Option<&EpochId>,
    ) -> Result<Vec<KeysGone>, RepositoryError> {
        let mut epochs: BTreeMap<&EpochId, u64> = running.map(|epoch| (epoch, 0)).into_iter().collect();
        for range in ranges {
            *epochs.entry(&range.name.epoch).or_default() += 1;
        }
        let furthest = ranges.iter().max_by_key(|range| range.name.range.to);
        let furthest = furthest.map(|range| &range.name.epoch);
        let wrapped = self.wrapped().await?;
        let mut gone = Vec::new();
        for (epoch, ranges) in epochs {
            let envelope = EnvelopePlace::epoch(self.place().engine, &self.place().source, epoch);
            let repository = self.repository();
            let held = repository.remembered_keys(&envelope);
            let is_opened = held.is_some() || furthest == Some(epoch);
            let opens = match wrapped.contains(&envelope) {
                true if is_opened => self.opens(epoch).await?,
                named => named,
            };
            if opens {
                continue;
            }
            let fate = match &held {
                Some(keys) => {
                    repository.wrap_again(&envelope, keys).await?;
                    KeysFate::PutBack
                }
                None => KeysFate::Lost,
            };
            let epoch = epoch.clone();
            gone.push(KeysGone { epoch, ranges, fate });
        }
        Ok(gone)
    }

    async fn opens(&self, epoch: &EpochId) -> Result<bool, RepositoryError> {
        match self.open_epoch(epoch).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_about_keys() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn wrapped(&self) -> Result<BTreeSet<EnvelopePlace>, RepositoryError> {
        let objects = list_all(self.repository().store(), &self.place().keys_prefix()?, None).await?;
        let envelopes = objects
            .iter()
            .filter_map(|object| layout::envelope_of_wrap(&object.key));
        Ok(envelopes.collect())
    }
}
