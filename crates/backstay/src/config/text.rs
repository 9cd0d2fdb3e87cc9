//! The file as text, for pointing at places in it.
//!
//! Promise: a snippet is one line with a mark below it, and shows no secret.

use super::redact::redact;
use crate::codes::Code;
use crate::failure::Failure;
use serde_saphyr::Location;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// More than a configuration ever needs; a log given by mistake is refused before it is parsed.
const SIZE_MAX: u64 = 1 << 20;

/// A configuration file in memory.
#[derive(Debug)]
pub(super) struct Text {
    pub path: PathBuf,
    pub text: String,
}

impl Text {
    pub fn read(path: &Path) -> Result<Text, Failure> {
        let shown = path.display().to_string();
        let size = fs::metadata(path)
            .map_err(|error| unreadable(&shown, &error))?
            .len();
        let too_long = |has: String| {
            let message = format!("the configuration file has {has}; more than {SIZE_MAX} are refused");
            let help = "name the right file: --config FILE";
            Failure::new(Code::ConfigUnreadable, message, help).at(shown.as_str())
        };
        if size > SIZE_MAX {
            return Err(too_long(format!("{size} bytes")));
        }
        let mut bytes = Vec::new();
        // A device has no size, and no end.
        let read = File::open(path).and_then(|file| file.take(SIZE_MAX + 1).read_to_end(&mut bytes));
        if read.map_err(|error| unreadable(&shown, &error))? as u64 > SIZE_MAX {
            return Err(too_long("no end".to_owned()));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let message = format!(
                "the configuration file is not text: byte {} is not UTF-8",
                error.utf8_error().valid_up_to()
            );
            Failure::new(Code::ConfigUnreadable, message, "write it as YAML in UTF-8").at(shown)
        })?;
        Ok(Text {
            path: path.to_owned(),
            text,
        })
    }

    /// A failure that points at `location`.
    pub fn failure(
        &self,
        code: Code,
        message: impl Into<String>,
        help: impl Into<String>,
        at: Location,
    ) -> Failure {
        Failure::new(code, message, help).at(self.place(at))
    }

    /// `file:line:column` and the line itself.
    pub fn place(&self, location: Location) -> String {
        let path = self.path.display();
        if location == Location::UNKNOWN {
            return path.to_string();
        }
        let (line, column) = (location.line(), location.column());
        let head = format!("{path}:{line}:{column}");
        let index = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
        match self.text.lines().nth(index) {
            Some(written) => format!("{head}\n{}", snippet(line, column, written)),
            None => head,
        }
    }
}

fn snippet(line: u64, column: u64, written: &str) -> String {
    let number = line.to_string();
    let margin = " ".repeat(number.len());
    let shown = redact(written);
    let before = usize::try_from(column.saturating_sub(1)).unwrap_or(0);
    // Behind something hidden the columns have moved: the line alone is shown.
    let head: String = written.chars().take(before).collect();
    if !shown.starts_with(&head) {
        return format!("{number} | {shown}");
    }
    let word = shown
        .chars()
        .skip(before)
        .take_while(|c| !c.is_whitespace() && !":,]}".contains(*c))
        .count();
    let mark = format!("{}{}", " ".repeat(before), "^".repeat(word.max(1)));
    format!("{number} | {shown}\n{margin} | {mark}")
}

fn unreadable(path: &str, error: &std::io::Error) -> Failure {
    let message = "the configuration file cannot be read";
    let help = match error.kind() {
        std::io::ErrorKind::IsADirectory => {
            format!(
                "name the file in this directory: --config {}/backstay.yaml",
                path.trim_end_matches('/')
            )
        }
        _ => "give the user that runs this the right to read it, or name another file: --config FILE"
            .to_owned(),
    };
    Failure::new(Code::ConfigUnreadable, message, help)
        .at(path)
        .caused_by(error)
}
