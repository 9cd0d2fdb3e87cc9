//! Turns an error of the YAML reader into what, where and what to do.
//!
//! Promise: the person sees the words of the configuration, never those of the parser's interface or of Rust's types;
//! values that may be secret are not repeated.

use super::text::Text;
use crate::codes::Code;
use crate::failure::Failure;
use crate::suggest;
use serde_saphyr::{Error, Location, MessageFormatter, UserMessageFormatter};

const SHAPE: &str = "see docs/reference/configuration.md for every key and its form";

pub(super) fn failure(text: &Text, error: &Error) -> Failure {
    let error = match error.without_snippet() {
        Error::AliasError { error, .. } => error.without_snippet(),
        error => error,
    };
    let at = error.location().unwrap_or(Location::UNKNOWN);
    match error {
        Error::SerdeUnknownField { field, expected, .. } => unknown_key(text, field, expected, at),
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().map(|key| format!(" {key:?}")).unwrap_or_default();
            let message = format!("the key{key} stands twice");
            text.failure(Code::ConfigDuplicate, message, "keep one of the two", at)
        }
        Error::SerdeMissingField { field, .. } => {
            let message = format!("the key {field:?} is missing");
            text.failure(Code::ConfigIncomplete, message, SHAPE, at)
        }
        _ => match wrong_type(error) {
            Some(message) => text.failure(Code::ConfigType, message, SHAPE, at),
            None => not_yaml(text, error, at),
        },
    }
}

fn unknown_key(text: &Text, field: &str, known: &[&'static str], at: Location) -> Failure {
    let is_service = known.contains(&"postgresql");
    if is_service && ["redis", "qdrant"].contains(&field) {
        let message = format!("services of kind {field} are not in this version");
        return text.failure(
            Code::ConfigUnknownKey,
            message,
            "take the service out until then",
            at,
        );
    }
    let all = format!("known here: {}", known.join(", "));
    let message = format!("unknown key {field:?}");
    match suggest::nearest(field, known.iter().copied()) {
        Some(near) => text
            .failure(
                Code::ConfigUnknownKey,
                message,
                format!("did you mean {near:?}?"),
                at,
            )
            .or(all),
        None => text.failure(Code::ConfigUnknownKey, message, all, at),
    }
}

/// The message for a value of the wrong type; none if it is another error.
fn wrong_type(error: &Error) -> Option<String> {
    let message = match error {
        Error::SerdeInvalidType {
            expected, unexpected, ..
        }
        | Error::SerdeInvalidValue {
            expected, unexpected, ..
        } => {
            format!("expected {}, found {}", plain(expected), kind(unexpected))
        }
        Error::SerdeInvalidLength { expected, .. } => format!("expected {}", plain(expected)),
        Error::Unexpected { expected, .. } => format!("expected {}", plain(expected)),
        Error::InvalidScalar { ty, .. } => format!("expected {}", scalar(ty)),
        Error::InvalidBooleanStrict { .. } => "expected true or false, and no other word for them".to_owned(),
        Error::NullIntoString { .. } => "a value is missing".to_owned(),
        Error::TaggedScalarCannotDeserializeIntoString { .. } | Error::QuotingRequired { .. } => {
            "expected text; put it in quotes".to_owned()
        }
        _ => return None,
    };
    Some(message)
}

/// What was expected, in the words of YAML as people know them.
fn plain(expected: &str) -> &str {
    match expected {
        "mapping start" | "map" | "a map" => "a block of keys: { … } or indented lines",
        "sequence start" | "seq" | "a sequence" => "a list: [ … ] or lines with -",
        "string scalar" | "scalar" | "string" | "a string" => "text",
        other => other,
    }
}

/// The kind of what was found, without the value, which may be secret.
fn kind(unexpected: &str) -> &str {
    let words = unexpected.split(['"', '`']).next().unwrap_or(unexpected).trim();
    match words {
        "string" => "text",
        "map" => "a block of keys",
        "sequence" => "a list",
        "integer" | "floating point" => "a number",
        "boolean" => "true or false",
        "unit value" | "Option value" | "" => "nothing",
        other => other,
    }
}

fn scalar(ty: &str) -> &'static str {
    match ty {
        "boolean" | "bool" => "true or false",
        _ => "a whole number",
    }
}

fn not_yaml(text: &Text, error: &Error, at: Location) -> Failure {
    let reason = UserMessageFormatter.format_message(error).into_owned();
    let reason = super::redact::redact(&reason);
    let message = format!("the configuration file is not YAML: {reason}");
    text.failure(
        Code::ConfigUnreadable,
        message,
        "check quotes, brackets and indentation at this place",
        at,
    )
}
