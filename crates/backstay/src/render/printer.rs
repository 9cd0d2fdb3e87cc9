//! The one place that writes to standard output and standard error.
//!
//! Promise: a reader that closes the pipe ends neither the command nor its exit code; a disk that is full does. `--quiet`
//! never hides a result, a warning or an error.

use crate::codes::Code;
use crate::failure::Failure;
use crate::render::look::Look;
use crate::render::{Report, human, json};
use std::fmt;
use std::io::{self, Write};

/// The form of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For a person.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// How much is said beside the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loudness {
    /// Warnings and errors.
    Quiet,
    /// What a person likes to see while it happens.
    Normal,
}

/// Writes results and messages.
pub struct Printer {
    /// The form of results and errors.
    pub format: Format,
    /// How much is said beside the result.
    pub loudness: Loudness,
    /// The look of results.
    pub out_look: Look,
    /// The look of messages.
    pub err_look: Look,
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
}

impl fmt::Debug for Printer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Printer")
            .field("format", &self.format)
            .field("loudness", &self.loudness)
            .finish_non_exhaustive()
    }
}

impl Printer {
    /// A printer over the process's own streams.
    pub fn standard(format: Format, loudness: Loudness, out_look: Look, err_look: Look) -> Printer {
        Printer {
            format,
            loudness,
            out_look,
            err_look,
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
        }
    }

    /// Prints the result of a command.
    pub fn report(&mut self, report: &dyn Report) -> Result<(), Failure> {
        let text = match self.format {
            Format::Table => report.human(&self.out_look),
            Format::Json => match report.json() {
                serde_json::Value::Null => String::new(),
                json => format!("{json}\n"),
            },
        };
        self.text(&text)
    }

    /// Prints text that is a result as it is, such as help.
    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// Writes bytes that are a result as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.out.write_all(bytes).and_then(|()| self.out.flush());
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(unwritable(&error)),
            _ => Ok(()),
        }
    }

    /// Tells what goes on, unless quiet or for a program.
    pub fn note(&mut self, text: &str) {
        if self.loudness == Loudness::Normal && self.format == Format::Table {
            self.message(&(human::clean(text) + "\n"));
        }
    }

    /// Tells that something went wrong and work continues.
    pub fn warning(&mut self, text: &str) {
        let text = match self.format {
            Format::Table => human::warning(text, &self.err_look),
            Format::Json => format!("{}\n", json::warning(text)),
        };
        self.message(&text);
    }

    /// Tells why the command failed.
    pub fn failure(&mut self, failure: &Failure) {
        let text = match self.format {
            Format::Table => human::failure(failure, &self.err_look),
            Format::Json => format!("{}\n", json::failure(failure)),
        };
        self.message(&text);
    }

    fn message(&mut self, text: &str) {
        // When standard error cannot be written, nobody is left to be told.
        let _ = self
            .err
            .write_all(text.as_bytes())
            .and_then(|()| self.err.flush());
    }
}

fn unwritable(error: &io::Error) -> Failure {
    let help = "free space, or send the output elsewhere; what the command did is done all the same";
    Failure::new(
        Code::Output,
        "the result could not be written to standard output",
        help,
    )
    .caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn printing_to(kind: io::ErrorKind) -> Printer {
        Printer {
            out: Box::new(Broken(kind)),
            err: Box::new(Broken(kind)),
            ..Printer::standard(Format::Table, Loudness::Normal, Look::plain(), Look::plain())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is() {
        assert_eq!(printing_to(io::ErrorKind::BrokenPipe).text("x"), Ok(()));
        let full = printing_to(io::ErrorKind::StorageFull).text("x").unwrap_err();
        assert_eq!(full.code, Code::Output);
    }
}
