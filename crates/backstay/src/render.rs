//! How things look to a person and to a program.
//!
//! Promise: results go to standard output, everything else to standard error; a closed pipe ends neither a command nor
//! its exit code; text from outside cannot send control characters to a terminal.
//! Not here: what is said (commands, failure).

pub mod human;
pub mod json;
pub mod look;
pub mod printer;
pub mod progress;
pub mod shell;
pub mod table;

use crate::exit::Exit;
use look::Look;

/// The result of a command, in both its forms.
pub trait Report {
    /// For a person: whole lines, the last one ended too; empty when there is nothing to say.
    fn human(&self, look: &Look) -> String;

    /// For a program: a documented contract. `null` when the result was written already.
    fn json(&self) -> serde_json::Value;

    /// How the process ends after this has been printed.
    fn exit(&self) -> Exit {
        Exit::Done
    }
}
