//! What clap has to say, in the form of every other message.
//!
//! Promise: help and version are results; everything else is a failure with the tips and the usage as its help. A line
//! without a command shows the help, as an error; of an unknown command the nearest is named, or all are.

use crate::cli::Cli;
use crate::codes::Code;
use crate::failure::Failure;
use crate::render::printer::Format;
use crate::suggest::nearest;
use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::OsString;

/// What is to be said instead of running a command.
#[derive(Debug)]
pub enum Said {
    /// Help or version, as asked for.
    Asked(String),
    /// Help, because a command is missing.
    Needed(String),
    /// The arguments are wrong.
    Wrong(Failure),
}

/// What clap means by its error.
pub fn said(error: &clap::Error) -> Said {
    let rendered = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Said::Asked(rendered),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Said::Needed(rendered),
        _ => {
            let mut failure = wrong(&rendered);
            if let Some(tip) = other_command(error) {
                failure.help.insert(0, tip);
            }
            Said::Wrong(failure)
        }
    }
}

/// Which command may have been meant, where clap does not say so itself.
fn other_command(error: &clap::Error) -> Option<String> {
    let ContextValue::String(word) = error.get(ContextKind::InvalidSubcommand)? else {
        return None;
    };
    if error.kind() != ErrorKind::InvalidSubcommand || error.get(ContextKind::SuggestedSubcommand).is_some() {
        return None;
    }
    let usage = error.get(ContextKind::Usage)?.to_string();
    let above = usage
        .split_whitespace()
        .skip(2)
        .take_while(|word| !word.starts_with('['));
    let mut command = Cli::command();
    for name in above {
        command = command.find_subcommand(name)?.clone();
    }
    let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    match nearest(word, names.iter().copied()) {
        _ if names.is_empty() => None,
        Some(name) => Some(format!("a similar subcommand exists: '{name}'")),
        None => Some(format!("there are: {}", names.join(", "))),
    }
}

/// The form in which errors are wanted, read from arguments that may not be understood.
pub fn wanted_format(arguments: &[OsString]) -> Format {
    let is_json = |words: &[OsString]| match words {
        [word, ..] if word == "--json" || word == "--output=json" || word == "-ojson" => true,
        [word, value, ..] => (word == "-o" || word == "--output") && value == "json",
        _ => false,
    };
    let found = (0..arguments.len()).any(|from| arguments.get(from..).is_some_and(is_json));
    if found { Format::Json } else { Format::Table }
}

/// `error: MESSAGE`, then tips and usage, as clap renders them.
fn wrong(rendered: &str) -> Failure {
    let mut lines = rendered.trim_end().lines();
    let first = lines.next().unwrap_or_default();
    let mut message = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    let mut help = Vec::new();
    for line in lines.map(str::trim).filter(|line| !line.is_empty()) {
        match line.strip_prefix("tip: ") {
            Some(tip) => help.push(tip.to_owned()),
            None if line.starts_with("For more information") => {}
            None if message.ends_with(':') => message = format!("{message} {line}"),
            // The arguments that the message speaks of, one a line.
            None if first.ends_with(':') && help.is_empty() && line.starts_with(['<', '-']) => {
                message = format!("{message}, {line}");
            }
            None => help.push(line.replacen("Usage:", "usage:", 1)),
        }
    }
    if help.is_empty() {
        help.push("add --help to the command to see what it takes".to_owned());
    }
    Failure {
        help,
        ..Failure::new(Code::Usage, message, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(line: &str) -> Format {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        wanted_format(&words)
    }

    #[test]
    fn json_is_recognised_in_a_line_that_is_wrong() {
        for line in [
            "x --json --wrong",
            "x --wrong -o json",
            "x --output=json",
            "x -ojson y",
        ] {
            assert_eq!(format(line), Format::Json, "{line}");
        }
        for line in ["x", "x -o table", "x json"] {
            assert_eq!(format(line), Format::Table, "{line}");
        }
    }
}
