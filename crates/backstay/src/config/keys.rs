//! The recipients of key envelopes, as they are configured.
//!
//! Promise: each key is of exactly one kind; what is kept here is the place of a secret, never the secret.
//! Not here: reading it (secret), what a key is (codec).

use super::raw::{RawKey, RawSecret};
use super::text::Text;
use crate::codes::Code;
use crate::failure::Failure;
use crate::secret::SecretPlace;
use serde_saphyr::{Location, Spanned};
use std::path::Path;

/// One recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A raw key.
    Master(SecretPlace),
    /// A passphrase.
    Passphrase(SecretPlace),
    /// An age X25519 recipient, `age1…`: this machine writes for it and cannot open what it wrote.
    Age(String),
    /// Keys are stored unwrapped: for development only.
    None,
}

impl KeySource {
    /// The kind of recipient, in the word of the wraps that are made for it.
    pub fn kind(&self) -> &'static str {
        match self {
            KeySource::Master(_) => "raw",
            KeySource::Passphrase(_) => "passphrase",
            KeySource::Age(_) => "age",
            KeySource::None => "none",
        }
    }

    /// Where its secret is kept, if it has one here.
    pub fn secret(&self) -> Option<&SecretPlace> {
        match self {
            KeySource::Master(place) | KeySource::Passphrase(place) => Some(place),
            KeySource::Age(_) | KeySource::None => None,
        }
    }
}

const ONE_OF: &str = "write one of { file: PATH }, { env: NAME }, { command: [PROGRAM, …] }, { passphrase: { file: PATH } }, \
                      { age: age1… }, { none: true }";

pub(super) fn key(text: &Text, base: &Path, raw: &Spanned<RawKey>) -> Result<KeySource, Failure> {
    let at = raw.referenced;
    let raw = &raw.value;
    let refuse = |message: &str| text.failure(Code::ConfigValue, message, ONE_OF, at);
    let mut kinds = Vec::new();
    if let Some(place) = place(text, base, at, (&raw.file, &raw.env, &raw.command))? {
        kinds.push(KeySource::Master(place));
    }
    if let Some(secret) = &raw.passphrase {
        kinds.push(KeySource::Passphrase(secret_place(text, base, secret)?));
    }
    if let Some(recipient) = &raw.age {
        kinds.push(age(text, recipient)?);
    }
    match &raw.none {
        Some(none) if none.value => kinds.push(KeySource::None),
        Some(none) => {
            let help = "take the key out: without it everything is encrypted";
            return Err(text.failure(
                Code::ConfigValue,
                "none: false means nothing",
                help,
                none.referenced,
            ));
        }
        None => {}
    }
    let mut kinds = kinds.into_iter();
    match (kinds.next(), kinds.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(refuse("a key is of no kind")),
        (Some(_), Some(_)) => Err(refuse("a key is of two kinds at once; make it two keys")),
    }
}

fn age(text: &Text, recipient: &Spanned<String>) -> Result<KeySource, Failure> {
    if recipient.value.starts_with("age1") {
        return Ok(KeySource::Age(recipient.value.clone()));
    }
    let help = "give the public recipient, age1…; its identity stays where backups are restored";
    let message = "this is not an age recipient";
    Err(text.failure(Code::ConfigValue, message, help, recipient.referenced))
}

fn secret_place(text: &Text, base: &Path, raw: &Spanned<RawSecret>) -> Result<SecretPlace, Failure> {
    let fields = (&raw.value.file, &raw.value.env, &raw.value.command);
    place(text, base, raw.referenced, fields)?.ok_or_else(|| {
        let help = "write { file: PATH }, { env: NAME } or { command: [PROGRAM, …] }";
        text.failure(
            Code::ConfigValue,
            "the place of a secret is missing",
            help,
            raw.referenced,
        )
    })
}

type Fields<'a> = (
    &'a Option<Spanned<String>>,
    &'a Option<Spanned<String>>,
    &'a Option<Spanned<Vec<String>>>,
);

fn place(
    text: &Text,
    base: &Path,
    at: Location,
    (file, variable, command): Fields<'_>,
) -> Result<Option<SecretPlace>, Failure> {
    let empty = |what: &str, at| text.failure(Code::ConfigValue, format!("{what} is empty"), ONE_OF, at);
    let mut places = Vec::new();
    if let Some(file) = file {
        if file.value.is_empty() {
            return Err(empty("file", file.referenced));
        }
        places.push(SecretPlace::File(super::resolve::path(base, &file.value)));
    }
    if let Some(variable) = variable {
        if variable.value.is_empty() {
            return Err(empty("env", variable.referenced));
        }
        places.push(SecretPlace::Variable(variable.value.clone()));
    }
    if let Some(command) = command {
        if command.value.is_empty() {
            return Err(empty("command", command.referenced));
        }
        places.push(SecretPlace::Command(command.value.clone()));
    }
    if places.len() > 1 {
        let message = "a secret is kept in two places at once";
        return Err(text.failure(
            Code::ConfigValue,
            message,
            "keep one of file, env and command",
            at,
        ));
    }
    Ok(places.pop())
}
