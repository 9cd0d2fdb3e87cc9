//! What the configured keys see of an envelope: for `check`, `key check` and the plan of a rotation.
//!
//! Promise: nothing is written; a wrap that is no wrap is counted and harms nobody (KEY-3).
//! Not here: opening an envelope for work (envelopes).

use super::{ReadWrap, distinct_sets, no_key_among};
use crate::layout::EnvelopePlace;
use crate::recipients::Ready;
use crate::{Repository, RepositoryError};
use backstay_codec::Wrap;

/// Whether a configured key got the keys out of a wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opens {
    /// One did.
    Yes,
    /// None did.
    No,
}

/// One wrap.
#[derive(Clone, Debug)]
pub struct WrapSeen {
    /// The object's name.
    pub object: String,
    /// For whom it was made: `raw <id>`, `passphrase <id>`, `age <recipient>`, `none none`.
    pub recipient: String,
    /// Whether a configured key opens it.
    pub opens: Opens,
    /// The wrap, for trying an age identity; none if the object is no wrap.
    pub wrap: Option<Wrap>,
}

/// One envelope.
#[derive(Clone, Debug)]
pub struct EnvelopeSeen {
    /// The name that its wraps bind.
    pub name: String,
    /// Its wraps.
    pub wraps: Vec<WrapSeen>,
    /// Configured recipients that `rewrap` would add a wrap for, in the words of `WrapSeen::recipient`.
    pub lacking: Vec<String>,
}

impl EnvelopeSeen {
    /// Whether any configured key opens it.
    pub fn opens(&self) -> Opens {
        match self.wraps.iter().any(|wrap| wrap.opens == Opens::Yes) {
            true => Opens::Yes,
            false => Opens::No,
        }
    }

    /// The error that using it would give, if no configured key opens it.
    pub fn refusal(&self) -> Option<RepositoryError> {
        let recipients = self.wraps.iter().map(|wrap| wrap.recipient.as_str());
        (self.opens() == Opens::No).then(|| no_key_among(&self.name, recipients.collect()))
    }
}

impl Repository {
    /// How wraps name the configured recipients, in the order of the configuration.
    pub fn recipient_names(&self) -> Vec<String> {
        self.ready().iter().map(Ready::name).collect()
    }

    /// Looks at an envelope with every configured key.
    pub async fn look_at_envelope(&self, envelope: &EnvelopePlace) -> Result<EnvelopeSeen, RepositoryError> {
        let (mut read, mut wraps) = (Vec::new(), Vec::new());
        for (key, json) in self.wraps_of(envelope).await? {
            let seen = self.see_wrap(envelope, &key, &json);
            wraps.push(WrapSeen {
                object: key.to_string(),
                recipient: seen.recipient.clone(),
                opens: match seen.keys {
                    Some(_) => Opens::Yes,
                    None => Opens::No,
                },
                wrap: Wrap::from_json(&json).ok(),
            });
            read.push(seen);
        }
        Ok(EnvelopeSeen {
            name: envelope.name.clone(),
            wraps,
            lacking: self.lacking(&read),
        })
    }

    /// Recipients that do not get every set of keys. Without a key that opens the envelope: everyone without a wrap.
    fn lacking(&self, wraps: &[ReadWrap]) -> Vec<String> {
        let sets = distinct_sets(wraps);
        let served = |recipient: &Ready| match sets.is_empty() {
            true => wraps.iter().any(|wrap| wrap.recipient == recipient.name()),
            false => sets
                .iter()
                .all(|keys| wraps.iter().any(|wrap| wrap.gives(recipient, keys))),
        };
        let lacking = self.ready().iter().filter(|recipient| !served(recipient));
        lacking.map(Ready::name).collect()
    }
}
