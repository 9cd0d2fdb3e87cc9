//! A command that did not do what was asked: what happened, where, and what to do.
//!
//! Promise: every failure has a code and at least one line of help, and holds no secret (whoever makes one keeps
//! passwords and keys out of its texts).
//! Not here: its look (render).

mod from_engine;
mod from_source;
mod from_store;

use crate::codes::Code;
use std::error::Error;

/// Why a command failed, in the three parts that a person reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind.
    pub code: Code,
    /// What happened: lower case, no full stop.
    pub message: String,
    /// Facts about the place, each with its label; a text may have several lines.
    pub places: Vec<(&'static str, String)>,
    /// What led to it, the nearest first.
    pub cause: Vec<String>,
    /// What to do: commands to type where there are any.
    pub help: Vec<String>,
}

impl Failure {
    /// A failure with one line of help.
    pub fn new(code: Code, message: impl Into<String>, help: impl Into<String>) -> Failure {
        Failure {
            code,
            message: message.into(),
            places: Vec::new(),
            cause: Vec::new(),
            help: vec![help.into()],
        }
    }

    /// Adds where it happened.
    #[must_use]
    pub fn at(self, place: impl Into<String>) -> Failure {
        self.fact("where", place)
    }

    /// Adds a fact under its own label, such as `recoverable`.
    #[must_use]
    pub fn fact(mut self, label: &'static str, text: impl Into<String>) -> Failure {
        self.places.push((label, text.into()));
        self
    }

    /// Adds a line of help.
    #[must_use]
    pub fn or(mut self, help: impl Into<String>) -> Failure {
        self.help.push(help.into());
        self
    }

    /// Adds an error and what led to it.
    #[must_use]
    pub fn caused_by(mut self, error: &dyn Error) -> Failure {
        let mut next = Some(error);
        while let Some(error) = next {
            self.cause.push(error.to_string());
            next = error.source();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::fmt::Error);

    #[test]
    fn causes_are_kept_from_the_nearest_to_the_farthest() {
        let failure = Failure::new(Code::Other, "it failed", "try again").caused_by(&Outer(std::fmt::Error));
        let inner = std::fmt::Error.to_string();
        assert_eq!(failure.cause, ["outer".to_owned(), inner]);
    }
}
