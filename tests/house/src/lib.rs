//! The rules of the house, as functions from what is in the checkout to what offends them.
//!
//! Promise: every offence names the file, the rule and what to do; a rule reads text only and changes nothing.
//! Not here: what rustc, clippy and rustfmt already check.

pub mod rules;
pub mod source;
pub mod tree;
pub mod workspace;

use std::fmt;

/// One thing in the checkout that breaks one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offence {
    /// Path from the root of the checkout, with a line number where one helps.
    pub place: String,
    /// The rule, in the words of CONTRIBUTING.md.
    pub rule: &'static str,
    /// What was found.
    pub found: String,
    /// What the author does about it.
    pub remedy: String,
}

impl fmt::Display for Offence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}: {}\n  rule: {}\n  do: {}",
            self.place, self.found, self.rule, self.remedy
        )
    }
}
