//! Asks a person.
//!
//! Promise: nothing is asked where nobody sits: off a terminal, under `--no-input`, `--json` or `--quiet`. Any answer
//! but yes is no.

use crate::codes::Code;
use crate::failure::Failure;
use crate::render::look::Stream;
use crate::render::printer::{Format, Loudness};
use crate::session::Session;
use std::io::{BufRead, IsTerminal};

/// Goes on if a person agrees, or if there is none. `spared` says what a no leaves untouched.
pub fn proceed(session: &mut Session, spared: &str) -> Result<(), Failure> {
    let for_a_person =
        (session.printer.format, session.printer.loudness) == (Format::Table, Loudness::Normal);
    let sits_there = std::io::stdin().is_terminal() && session.stderr == Stream::Terminal;
    if session.global.no_input || !for_a_person || !sits_there {
        return Ok(());
    }
    session.printer.note("Proceed? [y/N]");
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match (read, is_yes(&answer)) {
        (Ok(_), true) => Ok(()),
        _ => {
            let help = "run it again and answer y, or add --confirm";
            Err(Failure::new(
                Code::NotConfirmed,
                format!("not confirmed: {spared}"),
                help,
            ))
        }
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::is_yes;

    #[test]
    fn any_answer_but_yes_is_no() {
        assert!(["y\n", "Y", "yes\n", " YES "].into_iter().all(is_yes));
        assert!(
            ["", "\n", "n", "yep", "yy", "j"]
                .into_iter()
                .all(|answer| !is_yes(answer))
        );
    }
}
