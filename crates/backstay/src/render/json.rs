//! A failure as a program reads it: one JSON object on one line.
//!
//! Promise: the members are `code`, `message`, `where`, `cause`, `help`, `exit`, `retryable`; members may be added, none
//! is removed or changes its type.

use crate::exit::Retry;
use crate::failure::Failure;
use serde_json::{Value, json};

/// The object of a failure.
pub fn failure(failure: &Failure) -> Value {
    let places: serde_json::Map<String, Value> = failure
        .places
        .iter()
        .map(|(label, text)| ((*label).to_owned(), Value::from(text.as_str())))
        .collect();
    let exit = failure.code.exit();
    json!({
        "code": failure.code.to_string(),
        "message": failure.message,
        "where": places,
        "cause": failure.cause,
        "help": failure.help.join("\n"),
        "exit": exit.number(),
        "retryable": exit.retry() == Retry::Later,
    })
}

/// The object of a warning.
pub fn warning(text: &str) -> Value {
    json!({ "warning": text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::Code;

    #[test]
    fn the_members_are_the_contract() {
        let shown = Failure::new(Code::StoreUnreachable, "cannot list", "check the network")
            .at("file:///srv/backups")
            .caused_by(&std::fmt::Error);
        assert_eq!(
            failure(&shown),
            json!({
                "code": "BKS-8001",
                "message": "cannot list",
                "where": { "where": "file:///srv/backups" },
                "cause": [std::fmt::Error.to_string()],
                "help": "check the network",
                "exit": 8,
                "retryable": true,
            })
        );
    }
}
