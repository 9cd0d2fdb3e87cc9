//! An age identity file that is held in memory.
//!
//! Promise: its secret is wiped when it is dropped and shown nowhere.
//! Not here: opening files (age), reading it from a disk.

use super::{AgeError, age_recipient_of};
use crate::wrap::Wrap;
use std::fmt;
use zeroize::Zeroizing;

/// One identity or an identity file.
#[derive(Clone)]
pub struct AgeIdentity {
    text: Zeroizing<String>,
    recipient: String,
}

impl AgeIdentity {
    /// Takes an identity (`AGE-SECRET-KEY-1…`) or the text of an identity file.
    pub fn new(text: Zeroizing<String>) -> Result<AgeIdentity, AgeError> {
        let recipient = age_recipient_of(&text)?;
        Ok(AgeIdentity { text, recipient })
    }

    /// The recipient `age1…` of its first identity.
    pub fn recipient(&self) -> &str {
        &self.recipient
    }

    /// Whether it opens a wrap of this envelope.
    pub fn opens(&self, envelope: &str, wrap: &Wrap) -> bool {
        wrap.open_age(envelope, &self.text).is_ok()
    }
}

impl fmt::Debug for AgeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgeIdentity(*** of {})", self.recipient)
    }
}
